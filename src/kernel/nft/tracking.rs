//! Packets stay tracked while a value lives, whoever deletes the whole ruleset.
//!
//! In: a table's name. Out: a value; the table goes with it, or with the process. Never: touches a packet: the table's one chain has no hook.
//!
//! The kernel tracks packets of a namespace as long as some rule speaks of tracking. `nft flush ruleset` deletes every such rule, and what passes
//! until they are back leaves no trace: then the far end's answer is the first packet of its flow that anybody remembers, the flow looks
//! like one that the far end opened, and the pod's own packets pass as replies for as long as it lives. A table with the owner flag
//! belongs to the socket that made it, and flushing passes over it (Linux 5.12; the rest of the ruleset goes, and nobody is refused).

use super::elements::SUBSYSTEM;
use crate::kernel::nfnetlink::{CREATE, EXCLUSIVE, Netfilter, Request};
use crate::kernel::state::NftFamily;

// Messages and attributes of linux/netfilter/nf_tables.h.
const NEWTABLE: u16 = 0;
const NEWCHAIN: u16 = 3;
const NEWRULE: u16 = 6;
const TABLE: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const FLAG_OWNER: u32 = 2;
const CHAIN_NAME: u16 = 3;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;

/// Name of the chain that nothing leads to.
const CHAIN: &str = "tracked";

/// Of the calling thread's network namespace.
pub struct Tracking {
    /// Whose the table is.
    _owner: Netfilter,
}

impl Tracking {
    /// Begins with it.
    ///
    /// # Errors
    /// The kernel's refusal, as a sentence.
    pub fn keep(table: &str) -> Result<Tracking, String> {
        let mut owner = Netfilter::alone().map_err(|error| error.to_string())?;
        let made = owner.transact(vec![requests(table)]);
        let why = made.err().map(|refusals| refusals.first().map(ToString::to_string).unwrap_or_default());
        why.map_or(Ok(Tracking { _owner: owner }), |why| Err(format!("cannot make table {table}: {why}")))
    }
}

/// `table inet TABLE { flags owner; chain tracked { ct direction original; } }`
fn requests(table: &str) -> Vec<Request> {
    let new = |message, flags| {
        let mut request = Request::new(SUBSYSTEM, message, CREATE | flags, NftFamily::Inet.number());
        request.put_text(TABLE, table);
        request
    };
    let mut whole = new(NEWTABLE, EXCLUSIVE);
    whole.put_u32(TABLE_FLAGS, FLAG_OWNER);
    let mut chain = new(NEWCHAIN, EXCLUSIVE);
    chain.put_text(CHAIN_NAME, CHAIN);
    let mut rule = new(NEWRULE, 0);
    rule.put_text(RULE_CHAIN, CHAIN).nest(RULE_EXPRESSIONS, |rule| {
        const DIRECTION: u32 = 1;
        const EQUAL: u32 = 0;
        const REGISTER: u32 = 1;
        expression(rule, "ct", |ct| {
            ct.put_u32(1, REGISTER).put_u32(2, DIRECTION);
        });
        expression(rule, "cmp", |cmp| {
            cmp.put_u32(1, REGISTER).put_u32(2, EQUAL).nest(3, |data| {
                data.put(1, &[0]);
            });
        });
    });
    vec![whole, chain, rule]
}

fn expression(rule: &mut Request, name: &str, fill: impl FnOnce(&mut Request)) {
    const LIST_ELEMENT: u16 = 1;
    const NAME: u16 = 1;
    const DATA: u16 = 2;
    rule.nest(LIST_ELEMENT, |element| {
        element.put_text(NAME, name).nest(DATA, fill);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Family;
    use crate::kernel::conntrack;
    use crate::kernel::sandbox::Namespace;

    #[test]
    fn packets_stay_tracked_when_the_ruleset_is_flushed_until_the_value_goes() {
        let here = Namespace::new();
        let tracked = || here.run(|| Family::BOTH.map(|family| conntrack::is_on(family).unwrap()));
        here.sh(
            "nft 'table inet own { chain c { type filter hook prerouting priority 0; ct state new; }; }'",
        );
        assert_eq!(tracked(), [true, true]);
        let kept = here.run(|| Tracking::keep("kept").unwrap());
        here.sh("nft flush ruleset");
        assert_eq!(tracked(), [true, true]);
        let shown = here.sh("nft list ruleset");
        assert!(shown.contains("table inet kept") && shown.contains("ct direction original"), "{shown}");
        assert!(here.run(|| Tracking::keep("kept").is_err()), "there is one of that name");
        drop(kept);
        let gone = || here.sh("nft list ruleset").is_empty();
        let waited = (0..1000).any(|_| {
            gone() || {
                std::thread::sleep(std::time::Duration::from_millis(2));
                false
            }
        });
        assert!(waited && tracked() == [false, false]);
    }
}
