//! The kinds that are read, and the sentences for those that are not.

use std::fmt;

use super::fields::{Findings, Section};
use super::shape::Field;
use super::{
    Object, calico_policy, cilium_policy, egress_policy, egress_pool, egress_range, endpoint_slice, ip_pool,
    namespace, node, pod, service_cidr,
};
use crate::spelling;

/// A kind of object that Egret reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Core `Namespace`.
    Namespace,
    /// Core `Pod`.
    Pod,
    /// Core `Node`.
    Node,
    /// Our `EgressPool`.
    EgressPool,
    /// Calico's `IPPool`.
    IPPool,
    /// `ServiceCIDR` of networking.k8s.io.
    ServiceCIDR,
    /// Our `EgressGatewayPolicy`.
    EgressGatewayPolicy,
    /// Calico's `EgressGatewayPolicy`. Both have one word and one set of names: an annotation cannot tell them apart.
    CalicoEgressGatewayPolicy,
    /// Cilium's `CiliumEgressGatewayPolicy`.
    CiliumEgressGatewayPolicy,
    /// Our `EgressRange`.
    EgressRange,
    /// `EndpointSlice` of discovery.k8s.io: the API server's own.
    EndpointSlice,
}

impl Kind {
    /// Every kind that is read.
    pub const ALL: [Kind; 11] = [
        Kind::Namespace,
        Kind::Pod,
        Kind::Node,
        Kind::EgressPool,
        Kind::IPPool,
        Kind::ServiceCIDR,
        Kind::EgressGatewayPolicy,
        Kind::CalicoEgressGatewayPolicy,
        Kind::CiliumEgressGatewayPolicy,
        Kind::EgressRange,
        Kind::EndpointSlice,
    ];

    /// As written in manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Namespace => "Namespace",
            Kind::Pod => "Pod",
            Kind::Node => "Node",
            Kind::EgressPool => "EgressPool",
            Kind::IPPool => "IPPool",
            Kind::ServiceCIDR => "ServiceCIDR",
            Kind::EgressGatewayPolicy | Kind::CalicoEgressGatewayPolicy => "EgressGatewayPolicy",
            Kind::CiliumEgressGatewayPolicy => "CiliumEgressGatewayPolicy",
            Kind::EgressRange => "EgressRange",
            Kind::EndpointSlice => "EndpointSlice",
        }
    }

    /// Whether its objects lie in namespaces.
    pub fn namespaced(self) -> bool {
        matches!(self, Kind::Pod | Kind::EndpointSlice)
    }

    /// `Pod shop/cart`: how problems and `View.broken` name an object.
    pub fn named(self, name: &str) -> String {
        format!("{self} {name}")
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Reads an object of one kind: its name, the whole document, where to note what is wrong.
pub(super) type Read = fn(&str, &Section<'_>, &mut Findings<'_>) -> Option<Object>;

/// One row of the table of kinds.
#[derive(Clone, Copy)]
pub(super) struct Served {
    pub(super) kind: Kind,
    group: &'static str,
    versions: &'static [&'static str],
    pub(super) read: Read,
    /// What `read` may ask for, besides `apiVersion` and `kind`.
    pub(super) fields: &'static [Field],
    /// Whether a field that is not among them is a slip.
    pub(super) strict: bool,
}

static SERVED: [Served; 13] = [
    Served {
        kind: Kind::Namespace,
        group: "",
        versions: &["v1"],
        read: namespace::read,
        fields: namespace::FIELDS,
        strict: false,
    },
    Served {
        kind: Kind::Pod,
        group: "",
        versions: &["v1"],
        read: pod::read,
        fields: pod::FIELDS,
        strict: false,
    },
    Served {
        kind: Kind::Node,
        group: "",
        versions: &["v1"],
        read: node::read,
        fields: node::FIELDS,
        strict: false,
    },
    Served {
        kind: Kind::EgressPool,
        group: "egret.dev",
        versions: &["v1alpha1"],
        read: egress_pool::read,
        fields: egress_pool::FIELDS,
        strict: true,
    },
    Served {
        kind: Kind::IPPool,
        group: "projectcalico.org",
        versions: &["v3"],
        read: ip_pool::read,
        fields: ip_pool::FIELDS,
        strict: false,
    },
    Served {
        kind: Kind::IPPool,
        group: "crd.projectcalico.org",
        versions: &["v1"],
        read: ip_pool::read,
        fields: ip_pool::FIELDS,
        strict: false,
    },
    Served {
        kind: Kind::ServiceCIDR,
        group: "networking.k8s.io",
        versions: &["v1", "v1beta1"],
        read: service_cidr::read,
        fields: service_cidr::FIELDS,
        strict: false,
    },
    Served {
        kind: Kind::EgressGatewayPolicy,
        group: "egret.dev",
        versions: &["v1alpha1"],
        read: egress_policy::read,
        fields: egress_policy::FIELDS,
        strict: true,
    },
    Served {
        kind: Kind::CalicoEgressGatewayPolicy,
        group: "projectcalico.org",
        versions: &["v3"],
        read: calico_policy::read,
        fields: calico_policy::FIELDS,
        strict: true,
    },
    Served {
        kind: Kind::CalicoEgressGatewayPolicy,
        group: "crd.projectcalico.org",
        versions: &["v1"],
        read: calico_policy::read,
        fields: calico_policy::FIELDS,
        strict: true,
    },
    Served {
        kind: Kind::CiliumEgressGatewayPolicy,
        group: "cilium.io",
        versions: &["v2"],
        read: cilium_policy::read,
        fields: cilium_policy::FIELDS,
        strict: true,
    },
    Served {
        kind: Kind::EgressRange,
        group: "egret.dev",
        versions: &["v1alpha1"],
        read: egress_range::read,
        fields: egress_range::FIELDS,
        strict: true,
    },
    Served {
        kind: Kind::EndpointSlice,
        group: "discovery.k8s.io",
        versions: &["v1"],
        read: endpoint_slice::read,
        fields: endpoint_slice::FIELDS,
        strict: false,
    },
];

/// Kinds that steer egress elsewhere, so that a person who brings them must hear that they have no effect.
const ELSEWHERE: [(&str, &str); 5] = [
    ("EgressGateway", "select gateways by annotations instead"),
    (
        "ExternalNetwork",
        "a gateway's traffic takes the routes of its node; take the object out of this directory",
    ),
    (
        "IPReservation",
        "nothing is kept free for it; cut the addresses out of the pool, and take the object out of this directory",
    ),
    ("CiliumEgressNATPolicy", "write a CiliumEgressGatewayPolicy, the kind that came after it"),
    (
        "IsovalentEgressGatewayPolicy",
        "write a CiliumEgressGatewayPolicy or an EgressGatewayPolicy of egret.dev/v1alpha1",
    ),
];

/// Why a document's kind is not read.
pub(super) struct Refusal {
    pub(super) reason: &'static str,
    pub(super) field: &'static str,
    pub(super) value: String,
    pub(super) message: String,
    /// The kind that it would be, if only the version is wrong.
    pub(super) broken: Option<Kind>,
}

/// Finds who reads a kind of an API version.
pub(super) fn find(kind: &str, version: Option<&str>) -> Result<Served, Refusal> {
    let mut rows = SERVED.iter().filter(|row| row.kind.as_str() == kind).peekable();
    let Some(first) = rows.peek().copied() else { return Err(unknown(kind)) };
    let accepted: Vec<String> = rows.clone().flat_map(versions).collect();
    let accepted = accepted.join(" or ");
    let Some(version) = version.filter(|v| !v.is_empty()) else {
        return Err(Refusal {
            reason: "NoApiVersion",
            field: "apiVersion",
            value: String::new(),
            message: format!("the object has no apiVersion; write `apiVersion: {accepted}`"),
            broken: Some(first.kind),
        });
    };
    if let Some(row) = rows.clone().find(|row| versions(row).any(|v| v == version)) {
        return Ok(*row);
    }
    let group = version.rsplit_once('/').map_or("", |(group, _)| group);
    let ours = rows.find(|row| row.group == group).map(|row| row.kind);
    Err(Refusal {
        reason: "UnknownApiVersion",
        field: "apiVersion",
        value: version.to_owned(),
        message: format!("{kind} of apiVersion `{version}` is not read; {kind} is read from {accepted}"),
        broken: ours,
    })
}

/// Every row of the table.
pub(super) fn served() -> &'static [Served] {
    &SERVED
}

impl Served {
    pub(super) fn group(&self) -> &'static str {
        self.group
    }

    /// `apiVersion`s that it is read from.
    pub(super) fn versions(&self) -> impl Iterator<Item = String> + use<> {
        versions(self)
    }
}

fn versions(row: &Served) -> impl Iterator<Item = String> + use<> {
    let prefix = if row.group.is_empty() { String::new() } else { format!("{}/", row.group) };
    let list = row.versions;
    list.iter().map(move |version| format!("{prefix}{version}"))
}

fn unknown(kind: &str) -> Refusal {
    let refusal =
        |reason, message| Refusal { reason, field: "kind", value: kind.to_owned(), message, broken: None };
    if let Some((_, instead)) = ELSEWHERE.iter().find(|(name, _)| *name == kind) {
        return refusal("NotServedYet", format!("{kind} is not served yet and has no effect; {instead}"));
    }
    let mut names = Kind::ALL.map(Kind::as_str).to_vec();
    names.dedup();
    let hint = spelling::hint(kind, &names);
    let hint = if hint.is_empty() { "; take the object out of this directory".to_owned() } else { hint };
    refusal("UnknownKind", format!("the kind `{kind}` is not read (read are {}){hint}", names.join(", ")))
}
