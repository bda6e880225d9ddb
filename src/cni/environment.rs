//! The CNI_* variables of one call.
//!
//! In: a look-up by name. Out: the verb and what it needs, checked. Never: reads the process's environment itself.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::reply::{CniError, Code};

/// What the runtime wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// A container's interface was made.
    Add,
    /// It goes.
    Del,
    /// Is everything as ADD left it?
    Check,
    /// These attachments are valid, all others are stale.
    Gc,
    /// Could an ADD succeed?
    Status,
    /// Which versions are spoken?
    Version,
}

/// One call's variables. Empty ones count as missing: libcni sets CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME and CNI_ARGS to
/// nothing on GC and STATUS. CNI_PATH is not read, because nothing is delegated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// CNI_COMMAND.
    pub verb: Verb,
    /// CNI_CONTAINERID; empty where the verb has none.
    pub container_id: String,
    /// CNI_NETNS.
    pub netns: Option<PathBuf>,
    /// CNI_NETNS_OVERRIDE is `1` or `true`: the plugin's own namespace is allowed.
    pub netns_override: bool,
    /// CNI_IFNAME; empty where the verb has none.
    pub ifname: String,
    /// CNI_ARGS: unknown keys and malformed pairs are tolerated (scenarios 4.14–4.16).
    pub args: BTreeMap<String, String>,
}

/// Together with network and interface these name a file; the kernel's limit for a name is 255.
const LONGEST_ID: usize = 200;

impl Environment {
    /// Reads the variables. Errors: code 4, naming every variable that is missing, or the one that is malformed.
    pub fn read(variable: impl Fn(&str) -> Option<OsString>) -> Result<Environment, CniError> {
        let variable = |name: &str| variable(name).filter(|v| !v.is_empty());
        let text = |name: &str| variable(name).map_or(Ok(String::new()), |value| utf8(name, value));
        let verb = verb(&text("CNI_COMMAND")?)?;
        let needs: &[&str] = match verb {
            Verb::Add | Verb::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
            Verb::Del => &["CNI_CONTAINERID", "CNI_IFNAME"],
            Verb::Gc | Verb::Status | Verb::Version => &[],
        };
        let named = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"].map(|name| (name, variable(name)));
        let is_missing = |(name, value): &(&'static str, Option<_>)| {
            (needs.contains(name) && value.is_none()).then_some(*name)
        };
        let missing: Vec<&str> = named.iter().filter_map(is_missing).collect();
        if !missing.is_empty() {
            let msg = format!("required env variables [{}] missing", missing.join(","));
            return Err(CniError::new(Code::InvalidEnvironment, msg));
        }
        let [(id, container), (_, netns), (interface, name)] = named;
        let mut environment = Environment {
            verb,
            container_id: String::new(),
            netns: netns.map(PathBuf::from),
            netns_override: matches!(text("CNI_NETNS_OVERRIDE")?.to_ascii_uppercase().as_str(), "1" | "TRUE"),
            ifname: String::new(),
            args: arguments(&text("CNI_ARGS")?),
        };
        if !needs.is_empty() {
            environment.container_id = container_id(utf8(id, container.unwrap_or_default())?)?;
            environment.ifname = ifname(utf8(interface, name.unwrap_or_default())?)?;
        }
        Ok(environment)
    }

    /// The variables that say the same: `NAME=VALUE` and a NUL each, as a process has them (environ(7)). Empty ones are left out.
    pub fn variables(&self) -> Vec<u8> {
        let args: Vec<String> = self.args.iter().map(|(key, value)| [key, "=", value].concat()).collect();
        let args = args.join(";");
        let netns = self.netns.as_ref().map_or(&[][..], |path| path.as_os_str().as_bytes());
        let all = [
            ("CNI_COMMAND", self.verb.name().as_bytes()),
            ("CNI_CONTAINERID", self.container_id.as_bytes()),
            ("CNI_NETNS", netns),
            ("CNI_NETNS_OVERRIDE", if self.netns_override { b"1" } else { b"" }),
            ("CNI_IFNAME", self.ifname.as_bytes()),
            ("CNI_ARGS", args.as_bytes()),
        ];
        let mut block = Vec::with_capacity(256);
        for (name, value) in all.into_iter().filter(|(_, value)| !value.is_empty()) {
            for part in [name.as_bytes(), b"=", value, b"\0"] {
                block.extend_from_slice(part);
            }
        }
        block
    }
}

impl Verb {
    /// As CNI_COMMAND has it.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Add => "ADD",
            Verb::Del => "DEL",
            Verb::Check => "CHECK",
            Verb::Gc => "GC",
            Verb::Status => "STATUS",
            Verb::Version => "VERSION",
        }
    }
}

fn utf8(name: &str, value: OsString) -> Result<String, CniError> {
    value.into_string().map_err(|bytes| invalid(name, "is not UTF-8", &bytes.to_string_lossy()))
}

fn verb(command: &str) -> Result<Verb, CniError> {
    Ok(match command {
        "ADD" => Verb::Add,
        "DEL" => Verb::Del,
        "CHECK" => Verb::Check,
        "GC" => Verb::Gc,
        "STATUS" => Verb::Status,
        "VERSION" => Verb::Version,
        _ => return Err(CniError::new(Code::InvalidEnvironment, format!("unknown CNI_COMMAND: {command}"))),
    })
}

/// `KEY=VALUE;KEY=VALUE`, split at the first `=`; of doubles the last counts.
fn arguments(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split(';').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// SPEC 1.1.0: begins with an alphanumeric character, then those and `_`, `.`, `-`. Also the rule for network names.
pub(super) fn is_identifier(text: &str) -> bool {
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    first
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        && text.len() <= LONGEST_ID
}

fn container_id(id: String) -> Result<String, CniError> {
    if is_identifier(&id) {
        return Ok(id);
    }
    let why = if id.len() > LONGEST_ID { "is longer than 200 characters" } else { "has invalid characters" };
    Err(invalid("CNI_CONTAINERID", why, &id))
}

/// The kernel's rule (`dev_valid_name`): at most 15 bytes, not `.` or `..`, no `/`, `:` or white space.
fn ifname(name: String) -> Result<String, CniError> {
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace();
    let why = if name.len() > 15 {
        "is longer than 15 bytes"
    } else if name == "." || name == ".." || name.contains(bad) {
        "is not a name the kernel takes for an interface"
    } else {
        return Ok(name);
    };
    Err(invalid("CNI_IFNAME", why, &name))
}

fn invalid(variable: &str, why: &str, value: &str) -> CniError {
    CniError::new(Code::InvalidEnvironment, format!("{variable} {why}")).details(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Environment, CniError> {
        Environment::read(|name| pairs.iter().find(|(k, _)| *k == name).map(|(_, v)| v.into()))
    }

    #[test]
    fn every_missing_variable_is_named_and_empty_ones_are_missing() {
        let error = read(&[("CNI_COMMAND", "ADD"), ("CNI_IFNAME", "")]).unwrap_err();
        assert_eq!(error.msg, "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME] missing");
        assert_eq!(error.code, Code::InvalidEnvironment);
        let error = read(&[("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c1")]).unwrap_err();
        assert_eq!(error.msg, "required env variables [CNI_IFNAME] missing");
        assert!(read(&[("CNI_COMMAND", "GC")]).is_ok());
        assert_eq!(read(&[("CNI_COMMAND", "FOO")]).unwrap_err().msg, "unknown CNI_COMMAND: FOO");
    }

    #[test]
    fn malformed_identifiers_are_refused_and_named() {
        let del = |id: &str, ifname: &str| {
            read(&[("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", id), ("CNI_IFNAME", ifname)])
        };
        assert!(del("c1", "exactly15bytes_").is_ok());
        assert!(del("0_.-", "eth0.100").is_ok());
        let long = "c".repeat(201);
        for id in ["a/b", "-a", ".", "a b", "ä", long.as_str()] {
            let error = del(id, "eth0").unwrap_err();
            assert_eq!((error.code, error.details.as_str()), (Code::InvalidEnvironment, id));
            assert!(error.msg.starts_with("CNI_CONTAINERID "));
        }
        for name in [".", "..", "a/b", "a:b", "a b", "a\tb", "sixteen_bytes_xx"] {
            let error = del("c1", name).unwrap_err();
            assert_eq!((error.code, error.details.as_str()), (Code::InvalidEnvironment, name));
        }
    }

    #[test]
    fn arguments_are_read_tolerantly() {
        let env = [("CNI_COMMAND", "GC"), ("CNI_ARGS", "IgnoreUnknown=1;FOO;A=b=c;;K8S_POD_NAME=p1;A=d=e")];
        let args = read(&env).unwrap().args;
        assert_eq!((args["A"].as_str(), args["K8S_POD_NAME"].as_str(), args.len()), ("d=e", "p1", 3));
    }
}
