//! What of a client's packets passes as a reply, whatever was decided about the client.
//!
//! In: belts. Out: a rule, and the chain that it leads to. Never: looks at a kernel.
//!
//! A reply belongs to a flow that the far end opened. Of TCP conntrack believes that of any segment with ACK, where it knows no better: the far
//! end of a connection that the pod opened, whose entry ended, speaks once more, and what the pod's kernel answers is the reset of a
//! connection that is nobody's. Then the entry has never seen anything else from the pod, and conntrack ends it by that very packet, as one that was
//! no connection. So the reset is decided about like what the pod says of its own accord: where its destination goes direct it passes, a
//! gateway knows no connection of it, and what is held gets none. Resets that answer a SYN have ACK and pass, and so do those behind a Service,
//! which show the Service's address and tell who was led astray that he was.

use crate::egress::belts::Belts;
use crate::egress::lower_nft::{chain, rule};
use crate::kernel::nft::table::{Chain, Rule};

/// Name of the chain.
pub(super) const REPLIES: &str = "replies";

/// The rule at the beginning of each client's chain.
pub(super) fn replies() -> Rule {
    rule("replies", format!("ct direction reply jump {REPLIES}"))
}

/// Where it leads to: on, or back.
pub(super) fn chain_of_replies(belts: Belts) -> Chain {
    let mut rules = Vec::new();
    if belts.invalid {
        let text = "tcp flags & (rst | ack) == rst ct status & (dying | dnat) == dying counter return";
        rules.push(rule("belt: the reset of no connection is no reply", text));
    }
    rules.push(rule("replies pass", "accept"));
    chain(rules)
}
