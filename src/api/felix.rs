//! Calico's `FelixConfiguration`: settings of egress that have their place in Egret's configuration, not among its objects.
//!
//! In: a document. Out: a sentence for each such setting. Never: obeys one.

use serde_json::Value;

use super::fields::shown;

/// Fields below `spec`, with the key of our configuration that answers to each; empty: none does.
const FIELDS: [(&str, &str); 9] = [
    ("egressIPSupport", "egressIPSupport"),
    ("egressIPVXLANPort", "underlay.port"),
    ("egressIPVXLANVNI", "underlay.vni"),
    ("egressIPRoutingRulePriority", ""),
    ("egressGatewayPollInterval", ""),
    ("egressGatewayPollFailureCount", ""),
    ("egressIPHostIfacePattern", ""),
    ("externalNetworkSupport", ""),
    ("externalNetworkRoutingRulePriority", ""),
];

/// Why a setting is told: `problem.reason`.
pub(super) const REASON: &str = "Configuration";

/// A setting that stands in the wrong place.
pub(super) struct Setting {
    /// `spec.egressIPSupport`.
    pub(super) field: String,
    /// Its value.
    pub(super) value: String,
    /// Where it belongs.
    pub(super) message: String,
}

/// Settings of egress in a document, if it is one of these.
pub(super) fn settings(kind: &str, version: &str, document: &Value) -> Vec<Setting> {
    let group = version.split('/').next().unwrap_or_default();
    if kind != "FelixConfiguration" || !["projectcalico.org", "crd.projectcalico.org"].contains(&group) {
        return Vec::new();
    }
    let setting = |(field, key): &(&str, &str)| {
        let found = document.pointer(&format!("/spec/{field}"))?;
        let value = shown(found);
        let message = match (*field, *key, value.as_str()) {
            (_, "", _) => "it has no equal: nothing in Egret answers to it".to_owned(),
            ("egressIPSupport", _, "Disabled") => {
                "it switches egress off; Egret is off where it is not installed".to_owned()
            }
            _ => format!("it belongs into Egret's configuration, as `{key}`: {value}"),
        };
        Some(Setting { field: format!("spec.{field}"), value, message })
    };
    FIELDS.iter().filter_map(setting).collect()
}
