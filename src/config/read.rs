//! Keys → configuration. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::Value;

use super::{AnnounceOn, Config, Mode, MultipathHash, Project, Underlay};
use crate::addr::Cidr;
use crate::api::fields::{Findings, Section, described, shown};
use crate::egress::model::EgressSupport;
use crate::egress::names::subdomain;
use crate::problem::Problem;
use crate::spelling;

/// Every key that Egret reads.
const KEYS: [&str; 13] = [
    "mode",
    "stateDir",
    "runDir",
    "nodeName",
    "egressIPSupport",
    "clusterCIDRs",
    "adopt",
    "underlay",
    "announce",
    "multipathHash",
    "markMask",
    "lockTimeout",
    "log",
];

/// Keys of the CNI specification 1.1.0 and of the reference plugins, which are not ours to doubt.
const CNI_KEYS: [&str; 14] = [
    "cniVersion",
    "cniVersions",
    "name",
    "type",
    "capabilities",
    "runtimeConfig",
    "args",
    "prevResult",
    "ipam",
    "dns",
    "ipMasq",
    "disableCheck",
    "disableGC",
    "cni.dev/valid-attachments",
];

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A key has a value of the wrong type or form. CNI error 7.
    #[error("{message}")]
    Wrong {
        /// The key, as a path: `underlay.port`.
        key: String,
        /// The value found.
        value: String,
        /// A sentence with both and the next step.
        message: String,
    },
    /// A key has a value, or a map a key, that is well formed but not served. CNI error 2.
    #[error("{message}")]
    Unsupported {
        /// The key, as a path: `mode`.
        key: String,
        /// The value found.
        value: String,
        /// A sentence with both and the next step.
        message: String,
    },
    /// The file cannot be read.
    #[error(
        "cannot read the configuration {path}: {source}; --config names a file with Egret's keys, or the network list that it stands in"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file is not JSON or YAML, or holds no single map.
    #[error("the configuration {path} {what}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What it is instead, with line and column.
        what: String,
    },
    /// The file is a list of plugins, or another plugin's entry, without Egret's.
    #[error("the configuration {0} has no entry of type \"egret\"; name the file that has, or write one")]
    NoEntry(PathBuf),
}

impl Config {
    /// Reads the plugin's entry of a CNI list, as it comes on standard input.
    ///
    /// # Errors
    /// [`ConfigError::Wrong`] or [`ConfigError::Unsupported`], for the first key in question.
    pub fn from_json(value: &Value) -> Result<Config, ConfigError> {
        let Value::Object(map) = value else {
            let message =
                format!("the configuration is {}, but must be a map of keys and values", described(value));
            return Err(ConfigError::Wrong { key: String::new(), value: shown(value), message });
        };
        let mut findings = Findings::of("", String::new());
        let config = read(&Section::of("", map), &mut findings);
        match findings.problems.into_iter().next() {
            None => Ok(config),
            Some(problem) => Err(refused(problem)),
        }
    }

    /// Keys that were ignored although they look like ours: `stateDIR` for `stateDir`. Warnings, never errors, because
    /// what else stands there is the CNI library's.
    pub fn misspelled(value: &Value) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (key, value) in value.as_object().into_iter().flatten() {
            if KEYS.contains(&key.as_str()) || CNI_KEYS.contains(&key.as_str()) {
                continue;
            }
            if let Some(near) = spelling::nearest(key, &KEYS) {
                let message = format!("the key `{key}` is unknown and has no effect; did you mean `{near}`?");
                problems.push(Problem::new("", "UnknownKey", message).at(key).value(shown(value)));
            }
        }
        problems
    }
}

/// Problems of form are the user's slip; all others ask for something that is not there.
fn refused(problem: Problem) -> ConfigError {
    let Problem { field: key, value, message, reason, .. } = problem;
    match reason.as_str() {
        "WrongType" | "Syntax" => ConfigError::Wrong { key, value, message },
        // In a manifest an unknown field is passed over; here it is an error, so it has an effect.
        "UnknownField" => {
            let message = message.replacen(" and has no effect", "", 1);
            ConfigError::Unsupported { key, value, message }
        }
        _ => ConfigError::Unsupported { key, value, message },
    }
}

fn read(root: &Section<'_>, findings: &mut Findings<'_>) -> Config {
    let default = Config::default();
    Config {
        mode: mode(root, findings),
        state_dir: absolute(root, "stateDir", findings).unwrap_or(default.state_dir),
        run_dir: absolute(root, "runDir", findings).unwrap_or(default.run_dir),
        node_name: node_name(root, findings),
        egress_ip_support: support(root, findings),
        cluster_cidrs: cluster_cidrs(root, findings),
        adopt: adopt(root, findings),
        underlay: underlay(&root.section("underlay", findings), findings),
        announce: announce(&root.section("announce", findings), findings),
        multipath_hash: {
            let words = [("l4", MultipathHash::L4), ("leave", MultipathHash::Leave)];
            root.choice("multipathHash", &words, findings).unwrap_or_default()
        },
        mark_mask: mark_mask(root, findings).unwrap_or(default.mark_mask),
        lock_timeout: root
            .number("lockTimeout", 0..=120_000, findings)
            .map_or(default.lock_timeout, u64::from),
        log: log(root, findings).unwrap_or(default.log),
    }
}

fn mode(root: &Section<'_>, findings: &mut Findings<'_>) -> Mode {
    let words = [("embedded", Mode::Embedded), ("cluster", Mode::Cluster)];
    root.choice("mode", &words, findings).unwrap_or_default()
}

fn support(root: &Section<'_>, findings: &mut Findings<'_>) -> EgressSupport {
    if root.get("egressIPSupport").and_then(Value::as_str) == Some("Disabled") {
        let message = "egressIPSupport `Disabled` is not offered; take Egret's entry out of the list instead, \
                       after `egret uninstall`";
        findings.wrong("egressIPSupport", "Disabled", "WrongValue", message);
        return EgressSupport::default();
    }
    let words = [
        ("EnabledPerNamespace", EgressSupport::EnabledPerNamespace),
        ("EnabledPerNamespaceOrPerPod", EgressSupport::EnabledPerNamespaceOrPerPod),
    ];
    root.choice("egressIPSupport", &words, findings).unwrap_or_default()
}

fn absolute(root: &Section<'_>, key: &str, findings: &mut Findings<'_>) -> Option<PathBuf> {
    let text = root.text(key, findings)?;
    if !text.starts_with('/') || text.contains('\0') {
        let message =
            format!("{key} is `{text}`, but must be an absolute path; plugins run in any directory");
        findings.wrong(key, text, "Syntax", message);
        return None;
    }
    Some(PathBuf::from(text))
}

/// The name becomes part of file names, so it must be a name.
fn node_name(root: &Section<'_>, findings: &mut Findings<'_>) -> Option<String> {
    let text = root.text("nodeName", findings)?;
    if !subdomain(text) {
        let message = format!(
            "nodeName is `{text}`, but must be the name of a Node object: lower-case letters, digits, `-` and `.`"
        );
        findings.wrong("nodeName", text, "Syntax", message);
        return None;
    }
    Some(text.to_owned())
}

fn cluster_cidrs(root: &Section<'_>, findings: &mut Findings<'_>) -> Vec<Cidr> {
    let mut cidrs = Vec::new();
    for (path, text) in root.texts("clusterCIDRs", findings) {
        match text.parse() {
            Ok(cidr) => cidrs.push(cidr),
            Err(error) => findings.wrong(&path, text, "Syntax", format!("{path}: {error}")),
        }
    }
    cidrs
}

fn adopt(root: &Section<'_>, findings: &mut Findings<'_>) -> BTreeSet<Project> {
    let mut adopted = BTreeSet::new();
    for (path, text) in root.texts("adopt", findings) {
        match text {
            "calico" => drop(adopted.insert(Project::Calico)),
            "cilium" => drop(adopted.insert(Project::Cilium)),
            _ => {
                let message = format!("{path} is `{text}`, but must be calico or cilium");
                findings.wrong(&path, text, "WrongValue", message);
            }
        }
    }
    adopted
}

fn underlay(section: &Section<'_>, findings: &mut Findings<'_>) -> Underlay {
    let default = Underlay::default();
    section.only(&["device", "address", "port", "vni", "mtu"], findings);
    let port = section.number("port", 1..=65_535, findings).and_then(|p| u16::try_from(p).ok());
    Underlay {
        device: section
            .text("device", findings)
            .and_then(|text| device(&section.path("device"), text, findings)),
        address: section.text("address", findings).and_then(|text| {
            let ip = text.parse::<IpAddr>().ok().filter(|ip| !ip.is_unspecified() && !ip.is_multicast());
            if ip.is_none() {
                let path = section.path("address");
                let message =
                    format!("{path} is `{text}`, but must be an address of this node such as 192.0.2.11");
                findings.wrong(&path, text, "Syntax", message);
            }
            ip
        }),
        port: port.unwrap_or(default.port),
        vni: section.number("vni", 1..=0xff_ffff, findings).unwrap_or(default.vni),
        mtu: section.number("mtu", 576..=65_535, findings),
    }
}

fn announce(section: &Section<'_>, findings: &mut Findings<'_>) -> AnnounceOn {
    section.only(&["interfaces"], findings);
    let texts = section.texts("interfaces", findings);
    AnnounceOn {
        interfaces: texts.into_iter().filter_map(|(path, text)| device(&path, text, findings)).collect(),
    }
}

/// A device name by the kernel's rules (`dev_valid_name`): 1 to 15 bytes, no `/`, `:` or white space, not `.` or `..`.
fn device(path: &str, text: &str, findings: &mut Findings<'_>) -> Option<String> {
    let right = (1..=15).contains(&text.len())
        && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
        && !matches!(text, "." | "..");
    if !right {
        let message = format!("{path} is `{text}`, but must be the name of a network device such as eth0");
        findings.wrong(path, text, "Syntax", message);
    }
    right.then(|| text.to_owned())
}

/// All ranges of marks derive from the mask's lowest bit, so its bits must be seven in a row.
fn mark_mask(root: &Section<'_>, findings: &mut Findings<'_>) -> Option<u32> {
    let mask = match root.get("markMask")? {
        Value::String(text) => {
            let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
            let mask = hex.map_or_else(|| text.parse().ok(), |hex| u32::from_str_radix(hex, 16).ok());
            if mask.is_none() {
                let message =
                    format!("markMask is the text \"{text}\", but must be a number such as \"0x7f\"");
                findings.wrong("markMask", text, "Syntax", message);
            }
            mask?
        }
        _ => root.number("markMask", 0..=u32::MAX, findings)?,
    };
    if mask == 0 || mask >> mask.trailing_zeros() != 0x7f {
        let message = format!(
            "markMask is {mask:#x}, but must have seven adjacent bits, as 0x7f, 0x7f00 or 0xfe000000 do"
        );
        findings.wrong("markMask", format!("{mask:#x}"), "WrongValue", message);
        return None;
    }
    Some(mask)
}

fn log(root: &Section<'_>, findings: &mut Findings<'_>) -> Option<String> {
    let text = root.text("log", findings)?;
    let level = |word: &str| ["error", "warn", "info", "debug", "trace", "off"].contains(&word);
    let right = |part: &str| level(part.rsplit_once('=').map_or(part, |(_, level)| level));
    if !text.split(',').all(|part| right(part.trim())) {
        let message = format!(
            "log is `{text}`, but must be error, warn, info, debug, trace or off, or several of TARGET=LEVEL \
             separated by commas"
        );
        findings.wrong("log", text, "WrongValue", message);
        return None;
    }
    Some(text.to_owned())
}
