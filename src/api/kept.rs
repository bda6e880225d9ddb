//! Fields of what Egret writes into a cluster itself: blocks, endpoints, and the status of pools and policies.
//!
//! Tables like those of manifests, for the definitions alone: nobody reads these objects by hand-written readers.

use super::shape::{Field, Rule, Shape, field, rule};

const MOST: u32 = i32::MAX as u32;

/// `EgressBlock`, as `ipam` keeps it.
pub(super) const BLOCK: &[Field] =
    &[field("spec", Shape::Map(BLOCK_SPEC), "The books.").required().rules(BLOCK_RULES)];

/// A release that goes back in time must be seen, not believed.
const BLOCK_RULES: &[Rule] = &[
    rule(
        "self.pool == oldSelf.pool && self.cidr == oldSelf.cidr",
        "a block stays what it is: its pool and range",
    ),
    rule("self.sequence >= oldSelf.sequence", "the sequence of a block only rises"),
];

const BLOCK_SPEC: &[Field] = &[
    field("pool", Shape::Text, "The pool it was cut from.").required(),
    field("cidr", Shape::Text, "Its addresses.").required(),
    field("affinity", Shape::Text, "The node that claimed it."),
    COUNTER.required(),
    field("allocations", Shape::Named(ALLOCATION), "What was given, by address.").required(),
];

const COUNTER: Field = field("sequence", Shape::Count, "Raised with every change of an allocation.");

const ALLOCATION: &[Field] = &[
    field("owner", Shape::Text, "Who it is, or last was, for.").required(),
    field("holder", Shape::Map(HOLDER), "The container that has it now."),
    field("pod", Shape::Text, "The pod that has it, or had it last: namespace/name."),
    COUNTER.required(),
    field("since", Shape::Count, "When it came into its present state, in Unix seconds.").required(),
    field("freedAt", Shape::Count, "When it was freed, in Unix seconds, if it is free again."),
];

const HOLDER: &[Field] = &[
    field("network", Shape::Text, "CNI network.").required(),
    field("container", Shape::Text, "CNI container id.").required(),
    field("ifname", Shape::Text, "Interface.").required(),
    field("node", Shape::Text, "Node.").required(),
];

/// `EgressEndpoint`, as clients read it.
pub(super) const ENDPOINT: &[Field] = &[field("spec", Shape::Map(ENDPOINT_SPEC), "Where it is.").required()];

const ENDPOINT_SPEC: &[Field] = &[
    field("pod", Shape::Text, "The gateway pod: namespace/name.").required(),
    field("uid", Shape::Text, "Its UID."),
    field("labels", Shape::Pairs, "Its labels, which selectors of clients elsewhere look at."),
    field("attachment", Shape::Text, "What made it: network/container/interface.").required(),
    field("node", Shape::Text, "Node it runs on.").required(),
    field("underlay", Shape::Texts, "Underlay addresses of that node.").required(),
    field("vni", Shape::Number(1, 0x00ff_ffff), "VNI of its tunnel.").required(),
    field("mac", Shape::Text, "Who it is on the wire.").required(),
    field("addresses", Shape::Maps(ADDRESS), "Egress addresses, at most one per family.").required(),
    field("state", Shape::Choice(&["starting", "ready", "draining", "failed"]), "Whether it may be used.")
        .required(),
    field("generation", Shape::Count, "Raised with every write.").required(),
    field("problems", Shape::Maps(PROBLEM), "What its node found wrong with it."),
];

const ADDRESS: &[Field] = &[
    field("ip", Shape::Text, "The address.").required(),
    field("pool", Shape::Text, "Pool it came from, or lies in.").required(),
    field(
        "source",
        Shape::Choice(&["Pool", "PodAddress"]),
        "PodAddress: it is the pod's own; absent: leased.",
    ),
];

const PROBLEM: &[Field] = &[
    field("object", Shape::Text, "Which object.").required(),
    field("file", Shape::Text, "In which file."),
    field("field", Shape::Text, "Where in it."),
    field("value", Shape::Text, "What stands there."),
    field("reason", Shape::Text, "One word.").required(),
    field("message", Shape::Text, "A sentence.").required(),
];

/// `EgressNode`: what a node is called in marks and on the wire, and the interfaces that it has.
pub(super) const NODE: &[Field] =
    &[field("spec", Shape::Map(NODE_SPEC), "What others must know of it.").required().rules(NODE_RULES)];

/// Packets on their way carry both.
const NODE_RULES: &[Rule] = &[rule(
    "self.node == oldSelf.node && self.number == oldSelf.number && self.wire == oldSelf.wire",
    "a node keeps its number and its bytes on the wire",
)];

const NODE_SPEC: &[Field] = &[
    field("node", Shape::Text, "The Node object's name.").required(),
    field(
        "number",
        Shape::Number(1, 0x3fff),
        "Who it is in connection marks; the object's name has it, too.",
    )
    .required(),
    field("wire", Shape::Text, "The last four bytes of its MAC addresses, written as an IPv4 address.")
        .required(),
    field("interfaces", Shape::Map(INTERFACES), "Where node gateways may leave; absent: nobody asked."),
];

const INTERFACES: &[Field] = &[
    field("links", Shape::Maps(LINK), "Devices that are up and have an address.").required(),
    field("default4", Shape::Text, "Device of the default route, IPv4."),
    field("default6", Shape::Text, "Device of the default route, IPv6."),
];

const LINK: &[Field] = &[
    field("name", Shape::Text, "Its name.").required(),
    field("altnames", Shape::Texts, "Its alternative names."),
    field("addresses", Shape::Texts, "Its addresses.").required(),
    field("ways", Shape::Texts, "Where it leads as a node gateway's; absent: nobody asked."),
];

/// `status` of an `EgressPool`.
pub(super) const POOL_STATUS: &[Field] = &[
    field("observedGeneration", Shape::Count, "The generation that this is about."),
    field(
        "size",
        Shape::Text,
        "Addresses in the pool; a text, because a pool of IPv6 has more than numbers reach.",
    ),
    field("free", Shape::Text, "Addresses that anybody may have."),
    field("leased", Shape::Number(0, MOST), "Addresses in use."),
    field("cooling", Shape::Number(0, MOST), "Addresses freed a moment ago."),
    field("reserved", Shape::Number(0, MOST), "Addresses kept for owners without a container."),
    field("clients", Shape::Number(0, MOST), "Pods that leave with one of them."),
    UNPROTECTED,
    UNPROTECTED_PODS,
    CONDITIONS,
];

/// `status` of an `EgressGatewayPolicy`.
pub(super) const POLICY_STATUS: &[Field] = &[
    field("observedGeneration", Shape::Count, "The generation that this is about."),
    field("pods", Shape::Number(0, MOST), "Pods that follow it."),
    field("held", Shape::Number(0, MOST), "Those of them that reach nothing outside, for want of a gateway."),
    UNPROTECTED,
    UNPROTECTED_PODS,
    CONDITIONS,
];

/// `status` of an `EgressRange`.
pub(super) const RANGE_STATUS: &[Field] =
    &[field("observedGeneration", Shape::Count, "The generation that this is about."), CONDITIONS];

/// `status` of an `EgressNode`.
pub(super) const NODE_STATUS: &[Field] =
    &[field("observedGeneration", Shape::Count, "The generation that this is about."), CONDITIONS];

/// `status` of an `EgressEndpoint`.
pub(super) const ENDPOINT_STATUS: &[Field] =
    &[field("observedGeneration", Shape::Count, "The generation that this is about."), CONDITIONS];

const UNPROTECTED: Field = field(
    "unprotected",
    Shape::Number(0, MOST),
    "Selected pods where no agent runs, or whose traffic passes by it.",
);
const UNPROTECTED_PODS: Field = field("unprotectedPods", Shape::Texts, "The first hundred of them.");

const CONDITIONS: Field =
    field("conditions", Shape::Conditions, "Whether it is obeyed, and if not, why; one of each type.");

/// One entry of `conditions`, as in `meta/v1`.
pub(super) const CONDITION: &[Field] = &[
    field("type", Shape::Text, "What is asked.").required(),
    field("status", Shape::Choice(&["True", "False", "Unknown"]), "The answer.").required(),
    field("reason", Shape::Text, "One word.").required(),
    field("message", Shape::Text, "A sentence.").required(),
    field("lastTransitionTime", Shape::Text, "Since when the answer is this one.").required(),
    field("observedGeneration", Shape::Count, "The generation that this is about."),
];
