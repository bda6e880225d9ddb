//! What somebody else deletes on a node: how long until the agent has put it back.
//!
//! In: an agent that is well, on a node with clients. Out: rows. The time of what is deleted by `ip` begins before that program starts and
//! ends when the agent says so, both seen from outside; that of the tables is what the agent measures, from the kernel's notice on.

use std::time::{Duration, Instant};

use egret::testbed::{Trouble, World, within};

use crate::agent::{Agent, PATIENCE};
use crate::rows::{Rows, Series, Target};

/// What is deleted, the kind that the agent counts, and how.
const DELETED: [(&str, &str, &str); 4] = [
    (
        "our policy rules",
        "rule",
        "ip rule flush; ip rule add pref 32766 lookup main; ip rule add pref 32767 lookup default",
    ),
    (
        "our routes",
        "route",
        "for t in $(seq 479001 479127); do echo route flush table $t; done | ip -force -batch - 2>/dev/null || true",
    ),
    ("our next hops", "nexthop", "ip nexthop flush proto 65"),
    ("the tunnel", "device", "ip link del egress.vxlan"),
];

/// All of it, each this many times.
pub(crate) fn measure(agent: &Agent, world: &World, times: usize, rows: &mut Rows) -> Result<(), Trouble> {
    let mut all = Series::default();
    for (what, kind, how) in DELETED {
        let count = || agent.state().and_then(|state| state.repairs.get(kind).map(|r| r.times)).unwrap_or(0);
        let mut series = Series::default();
        for _ in 0..times {
            let (before, began) = (count(), Instant::now());
            world.node(agent.node).sh(how)?;
            until(&format!("{what} are put back"), || count() > before)?;
            series.0.push(began.elapsed().as_secs_f64() * 1e3);
            rest();
        }
        rows.figure(&format!("{what} deleted → back"), &series, "ms", Target::None);
        all.0.extend(series.0);
    }
    rows.share("… the longest of these", &all, 1.0, "ms", Target::AtMost(100.0));
    flushes(agent, world, times, rows)
}

/// The window that somebody opens who flushes the ruleset, from the kernel's notice to the rules' return.
fn flushes(agent: &Agent, world: &World, times: usize, rows: &mut Rows) -> Result<(), Trouble> {
    let windows = || agent.state().map(|state| state.ruleset_flushes).unwrap_or_default();
    let mut series = Series::default();
    for _ in 0..times {
        let before = windows().times;
        // Somebody else's rules must stay: the masquerade is in tables of its own.
        world.node(agent.node).sh("nft delete table inet egret; nft delete table netdev egret")?;
        until("our tables are put back", || windows().times > before)?;
        series.0.push(windows().last_micros as f64 / 1e3);
        rest();
    }
    rows.figure("our nftables tables deleted → back", &series, "ms", Target::None);
    rows.share("… the longest", &series, 1.0, "ms", Target::AtMost(100.0));
    Ok(())
}

fn until(what: &str, holds: impl Fn() -> bool) -> Result<(), Trouble> {
    let never = || Trouble::new(format!("{PATIENCE:?} and it never was so that {what}"));
    within(PATIENCE, Duration::from_millis(1), holds).map(drop).ok_or_else(never)
}

/// Repairs set off notices of their own; they have passed before the next harm.
fn rest() {
    std::thread::sleep(Duration::from_millis(300));
}
