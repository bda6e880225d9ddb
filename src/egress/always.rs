//! The bindings that every node has in its kernel, whoever its clients are: one that holds everything, one that lets everything go.
//!
//! In: nothing. Out: their names and rules. Never: says who is in them.
//!
//! A pod that becomes a client or stops being one is in each of them for a moment, or for the rest of its life. Where they stand
//! already, that is one element of a map (0.1 ms); making and deleting their chains takes a transaction of `nft` and a look at the
//! whole kernel before it, 20 to 40 ms at each change.

use std::collections::BTreeMap;

use crate::addr::Family;
use crate::egress::plan::{Binding, Verdict, binding_chain};

/// Rules-as-written of the binding that holds everything.
pub(super) const HELD_KEY: &str = "held during a change";

/// Rules-as-written of the binding of pods that were let go.
pub(super) const LET_GO_KEY: &str = "let go";

/// The binding that holds everything but replies, pinned flows and what is inside, and its chain.
pub(super) fn held() -> (String, Binding) {
    binding(HELD_KEY, Verdict::Held)
}

/// The binding that sends everything direct, and its chain.
pub(super) fn let_go() -> (String, Binding) {
    binding(LET_GO_KEY, Verdict::Direct)
}

/// Those that a plan does not name.
pub(super) fn besides(bindings: &BTreeMap<String, Binding>) -> BTreeMap<String, Binding> {
    let all = [held(), let_go()];
    all.into_iter().filter(|(chain, _)| !bindings.contains_key(chain)).collect()
}

/// Whether two plans' bindings are the same in the kernel.
pub(super) fn same(one: &BTreeMap<String, Binding>, other: &BTreeMap<String, Binding>) -> bool {
    let always = [held().0, let_go().0];
    let own = |(chain, _): &(&String, &Binding)| !always.contains(*chain);
    one.iter().filter(own).eq(other.iter().filter(own))
}

fn binding(key: &str, verdict: Verdict) -> (String, Binding) {
    let rules = Family::BOTH.map(|family| (family.everything(), verdict));
    (binding_chain(key), Binding { key: key.to_owned(), rules: rules.into() })
}
