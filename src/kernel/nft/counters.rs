//! What the rules of our tables have counted.
//!
//! In: names of tables. Out: one [`Counted`] per rule of ours that counts, in the kernel's order. Never: resets a counter.

use serde::{Deserialize, Serialize};

use super::Error;
use super::elements::SUBSYSTEM;
use super::observe::{comment, not_read};
use super::table::Rule;
use crate::kernel::nfnetlink::{self, Attributes, DUMP, Netfilter, Request};
use crate::kernel::state::NftFamily;

const GETRULE: u16 = 7;
/// `NFTA_RULE_EXPRESSIONS`, `NFTA_EXPR_NAME`, `NFTA_EXPR_DATA`, `NFTA_COUNTER_PACKETS`.
const EXPRESSIONS: u16 = 4;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const PACKETS: u16 = 2;
/// How often a table is listed: any change of any table meanwhile, whoever makes it, spoils the list.
const TRIES: u32 = 20;

/// A rule and how many packets it met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Its chain.
    pub chain: String,
    /// What it is for, as in its comment.
    pub rule: String,
    /// Packets since it was loaded.
    pub packets: u64,
}

/// Reads the counters of these tables, in the network namespace of the calling thread. A table that is not there counts nothing.
///
/// # Errors
/// The kernel refuses (`EPERM` without `CAP_NET_ADMIN`).
pub fn counters(tables: &[(NftFamily, String)]) -> Result<Vec<Counted>, Error> {
    let mut kernel = Netfilter::open().map_err(|error| not_read("at all", &error))?;
    let mut found = Vec::new();
    for (family, table) in tables {
        found.extend(of_table(&mut kernel, *family, table)?);
    }
    Ok(found)
}

fn of_table(kernel: &mut Netfilter, family: NftFamily, table: &str) -> Result<Vec<Counted>, Error> {
    let mut tries = 0;
    loop {
        tries += 1;
        let mut found = Vec::new();
        let mut request = Request::new(SUBSYSTEM, GETRULE, DUMP, family.number());
        request.put_text(1, table);
        let asked = kernel.ask(request, |reply| {
            let rule = reply.attributes;
            // The kernel filters by table; one that does not would hand us other tables' rules.
            if rule.text(1) != Some(table) || reply.family != family.number() {
                return;
            }
            if let (Some(chain), Some(label), Some(packets)) = (rule.text(2), label(rule), packets(rule)) {
                found.push(Counted { chain: chain.to_owned(), rule: label, packets });
            }
        });
        match asked {
            Err(nfnetlink::Error::Interrupted) if tries < TRIES => {}
            Err(error) if error.errno() != Some(libc::ENOENT) => return Err(not_read("counters", &error)),
            _ => return Ok(found),
        }
    }
}

fn label(rule: Attributes<'_>) -> Option<String> {
    Some(Rule::from_comment(comment(rule)?).label)
}

/// What the rule's counter says; `None` if it has none.
fn packets(rule: Attributes<'_>) -> Option<u64> {
    let mut expressions = rule.inside(EXPRESSIONS).map(|(_, expression)| Attributes(expression));
    let counter = expressions.find(|expression| expression.text(EXPRESSION_NAME) == Some("counter"))?;
    let packets = counter.inside(EXPRESSION_DATA).get(PACKETS)?;
    Some(u64::from_be_bytes(packets.try_into().ok()?))
}
