//! Every document that is printed for machines, with its JSON schema (draft 2020-12).
//!
//! In: nothing. Out: texts that a test generates from the very types that are printed, so that a schema says what is printed, and
//! each description is the type's own. Never: a field that is taken away or changes its meaning; see `docs/output.md`.

/// A kind of document that is printed.
#[derive(Debug, Clone, Copy)]
pub struct Printed {
    /// Its `kind`.
    pub kind: &'static str,
    /// What prints it.
    pub by: &'static str,
    /// Its schema, as in `docs/schema/output/`.
    pub schema: &'static str,
}

macro_rules! printed {
    ($($kind:literal by $by:literal,)*) => {
        /// All of them.
        pub const PRINTED: &[Printed] = &[$(Printed {
            kind: $kind,
            by: $by,
            schema: include_str!(concat!("../../docs/schema/output/", $kind, ".json")),
        },)*];
    };
}

printed! {
    "AgentState" by "egret agent",
    "ClusterStatus" by "egret status",
    "ConvertReport" by "egret convert",
    "Explanation" by "egret explain",
    "InstallReport" by "egret install",
    "IpamRelease" by "egret ipam release",
    "IpamReport" by "egret ipam show, egret ipam check",
    "LintReport" by "egret lint",
    "List" by "egret list",
    "NodeStatus" by "egret status",
    "ReconcileReport" by "egret reconcile, egret uninstall",
    "SchemaList" by "egret schema",
}

#[cfg(test)]
mod tests;
