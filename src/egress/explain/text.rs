//! An explanation as people read it: the pod, who decided, then each destination with its gateways.

use std::fmt::{self, Write};

use super::{Explanation, GatewayRow, Item, Verdict};
use crate::egress::model::{Role, Source};
use crate::egress::selector::Selector;
use crate::problem::Problem;

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(item) = self.items.first() {
            head(f, item)?;
        }
        for note in &self.notes {
            writeln!(f, "  note: {}", Plain(note))?;
        }
        for item in &self.items {
            writeln!(f)?;
            destination(f, item)?;
        }
        if !self.problems.is_empty() {
            writeln!(f, "\nproblems:")?;
        }
        self.problems.iter().try_for_each(|found| {
            Shown(found).to_string().lines().try_for_each(|line| writeln!(f, "  {line}"))
        })
    }
}

fn head(f: &mut fmt::Formatter<'_>, item: &Item) -> fmt::Result {
    let role = match item.role {
        Role::Unselected => "not selected",
        Role::Gateway => "a gateway",
        Role::HostNetwork => "on its node's network",
        Role::Client => "a client",
    };
    let node = item.node.as_ref().map(|node| format!(" on node {node}")).unwrap_or_default();
    writeln!(f, "Pod {}{node} is {role}", item.pod)?;
    match &item.decided_by {
        None => Ok(()),
        Some(source) => writeln!(f, "  decided by {}", Written(source)),
    }
}

fn destination(f: &mut fmt::Formatter<'_>, item: &Item) -> fmt::Result {
    let action = match item.action {
        Verdict::Direct => "direct".to_owned(),
        Verdict::Held => "held, nothing leaves".to_owned(),
        Verdict::Gateway => {
            let sources: Vec<String> = item.sources.iter().map(ToString::to_string).collect();
            match sources.as_slice() {
                [] => "through a gateway whose address is not known yet".to_owned(),
                known => format!("through a gateway, seen outside as {}", known.join(" or ")),
            }
        }
    };
    writeln!(f, "to {}: {action}", item.destination)?;
    writeln!(f, "  why: {}", Plain(&item.reason))?;
    if let Some(policy) = &item.policy {
        writeln!(f, "  by {}", Written(policy))?;
    }
    if !item.gateways.is_empty() {
        table(f, &item.gateways)?;
    }
    for (i, change) in item.change.iter().enumerate() {
        let lead = if i == 0 { "to change that:" } else { "               " };
        writeln!(f, "  {lead} {}", Plain(change))?;
    }
    Ok(())
}

/// Where something was written: object, field and value, as far as there are any.
struct Written<'a>(&'a Source);

impl fmt::Display for Written<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Source { object, field, value } = self.0;
        let parts: Vec<&str> =
            [object, field, value].into_iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
        write!(f, "{}", Plain(&parts.join(": ")))
    }
}

/// Its column is shown only where a gateway leaves by an interface that was chosen.
const INTERFACE: usize = 4;

fn table(f: &mut fmt::Formatter<'_>, gateways: &[GatewayRow]) -> fmt::Result {
    let head =
        ["GATEWAY", "NODE", "NODE ADDRESS", "EGRESS ADDRESS", "INTERFACE", "USABLE"].map(ToOwned::to_owned);
    let chosen = gateways.iter().any(|gateway| gateway.interface.is_some());
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(gateways.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; 5] = std::array::from_fn(width);
    for row in &rows {
        write!(f, "  ")?;
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            if column != INTERFACE || chosen {
                write!(f, "{cell:width$}  ")?;
            }
        }
        writeln!(f, "{}", row[5])?;
    }
    Ok(())
}

fn row(gateway: &GatewayRow) -> [String; 6] {
    let address = |ip: Option<std::net::IpAddr>| ip.map_or_else(|| "-".to_owned(), |ip| ip.to_string());
    let usable =
        gateway.reason.as_ref().map_or_else(|| "yes".to_owned(), |reason| format!("no: {}", Plain(reason)));
    let (node, egress) = (address(gateway.node_address), address(gateway.egress_address));
    [
        gateway.pod.as_ref().map_or_else(|| "(the node)".to_owned(), ToString::to_string),
        gateway.node.clone(),
        node,
        egress,
        gateway.interface.clone().unwrap_or_else(|| "-".to_owned()),
        usable,
    ]
}

/// One problem for people; a selector that does not parse is shown with a caret under the character.
#[derive(Debug)]
pub struct Shown<'a>(pub &'a Problem);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Plain(&self.0.to_string()))?;
        if self.0.reason == "SelectorSyntax"
            && let Err(error) = Selector::parse(&self.0.value)
        {
            error.to_string().lines().try_for_each(|line| write!(f, "\n  {}", Plain(line)))?;
        }
        Ok(())
    }
}

/// Text that may hold what a tenant wrote, on one line and without a terminal's control characters.
struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| f.write_char(if c.is_control() { '·' } else { c }))
    }
}
