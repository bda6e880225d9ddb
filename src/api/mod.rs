//! Foreign manifests → our types, once.
//!
//! In: the text of a file, with the file's name for messages. Out: the objects that it holds, right from then on, and a
//! [`Problem`] for everything that is wrong; one wrong object never stops the next. An object that exists but cannot be
//! understood is handed on by name, so that what depends on it is held and not guessed.
//! Never: reads files, compares objects of different files (only [`overlap`] compares pools), or knows where a file lies.

mod calico_policy;
mod cilium_policy;
pub mod convert;
mod crd;
pub mod document;
mod egress_policy;
mod egress_pool;
mod egress_range;
mod endpoint_slice;
mod felix;
pub(crate) mod fields;
mod ip_pool;
mod kept;
mod kind;
mod label_selector;
pub(crate) mod metadata;
mod namespace;
mod node;
pub mod overlap;
mod pod;
mod policy;
mod policy_gateway;
mod pool;
mod schema;
mod service_cidr;
mod shape;
mod structural;
#[cfg(test)]
mod tests;
mod timestamp;

pub(crate) use timestamp::seconds as unix_seconds;

use serde_json::{Map, Value};

use crate::addr::Cidr;
use crate::egress::model::{Namespace, Node, Pod, Pool};
use crate::egress::policy::Policy;
use crate::problem::Problem;
pub use crd::{Definition, definitions};
use fields::{Findings, Section, described, shown};
pub use ip_pool::SOURCE as IP_POOL_SOURCE;
pub use kind::Kind;
use kind::Served;
pub use schema::{Schema, schemas};
pub use structural::MOST_PAIRS;

/// An object that could be understood.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// Core `Namespace`.
    Namespace(Namespace),
    /// Core `Pod`.
    Pod(Pod),
    /// Core `Node`.
    Node(Node),
    /// `EgressPool` or Calico's `IPPool`.
    Pool(Pool),
    /// The ranges of a `ServiceCIDR`.
    ServiceCidr(Vec<Cidr>),
    /// The ranges of an `EgressRange`.
    Range(Vec<Cidr>),
    /// Where the API server is, by its `EndpointSlice`; of others nothing.
    ApiServer(Vec<Cidr>),
    /// `EgressGatewayPolicy` or `CiliumEgressGatewayPolicy`; one that cannot be obeyed has its `unfit` filled.
    Policy(Policy),
}

/// An object as a file has it: its kind and name could be read, the rest perhaps not.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// What it is.
    pub kind: Kind,
    /// `name`, or `namespace/name` where the kind is namespaced.
    pub name: String,
    /// `None`: broken, see the problems.
    pub object: Option<Object>,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// In the order written.
    pub objects: Vec<Written>,
    /// What is wrong with them, each with the file's name.
    pub problems: Vec<Problem>,
    /// `false`: part of the text could not be read at all, or was read and is no object, so there may have been more objects than these.
    pub whole: bool,
}

/// Reads the text of a file. The name says the format (`.json`, else YAML) and stands in every problem.
pub fn read(file: &str, text: &[u8]) -> Reading {
    let format = document::Format::of(file);
    let mut reading = Reading { objects: Vec::new(), problems: Vec::new(), whole: true };
    if text.trim_ascii().is_empty() {
        reading.whole = false;
        let message = "the file is empty; write an object into it, or delete it";
        reading.problems.push(Problem::new("", "EmptyFile", message).file(file));
        return reading;
    }
    let documents = document::read(text, format);
    for error in documents.errors {
        reading.whole = false;
        let message = format!("not {format}: {error}; correct the file");
        reading.problems.push(Problem::new("", &format!("Not{format:?}"), message).file(file));
    }
    for value in &documents.values {
        take(file, value, None, &mut reading);
    }
    reading
}

/// Reads one member of a list of this `apiVersion` and kind, as an API server gives it; `origin` stands where a file's name would.
pub fn read_member(origin: &str, version: &str, kind: &str, object: &Value) -> Reading {
    let mut reading = Reading { objects: Vec::new(), problems: Vec::new(), whole: true };
    take(origin, object, Some((version, kind)), &mut reading);
    reading
}

/// Takes one document: an object, or a list of them.
///
/// `member_of` is the list's (`apiVersion`, kind without `List`): the members of a typed list, as the API server writes
/// it, have neither of their own.
fn take(file: &str, value: &Value, member_of: Option<(&str, &str)>, reading: &mut Reading) {
    let Value::Object(map) = value else {
        let message = format!(
            "a document is {}, but must be an object with apiVersion, kind and metadata",
            described(value)
        );
        reading.whole = false;
        let problem = Problem::new("", "NotAnObject", message).file(file).value(shown(value));
        return reading.problems.push(problem);
    };
    let word = |key: &str| map.get(key).and_then(Value::as_str).filter(|w| !w.is_empty());
    let version = word("apiVersion").or(member_of.map(|l| l.0));
    let Some(kind) = word("kind").or(member_of.map(|l| l.1).filter(|k| !k.is_empty())) else {
        let found = map.get("kind").map(shown).unwrap_or_default();
        let message =
            "the object has no kind; write `kind: Pod`, `kind: EgressPool` or another that Egret reads";
        let problem = Problem::new(name_of(map), "NoKind", message).file(file).at("kind").value(found);
        return reading.problems.push(problem);
    };
    if let (Some(of), Some(Value::Array(items))) = (kind.strip_suffix("List"), map.get("items")) {
        // A list inside a list has no meaning of its own: its members are taken all the same, but not deeper.
        for (n, item) in items.iter().enumerate() {
            if member_of.is_some() {
                let message = "a list inside a list is not read; write its members as objects of their own";
                reading.whole = false;
                let problem = Problem::new("", "NestedList", message).file(file).value(kind);
                return reading.problems.push(problem);
            }
            let before = reading.problems.len();
            take(file, item, Some((version.unwrap_or_default(), of)), reading);
            // Of a member without a name its place says which one it is.
            for problem in reading.problems.iter_mut().skip(before).filter(|p| p.object.is_empty()) {
                let dot = if problem.field.is_empty() { "" } else { "." };
                problem.field = format!("items[{n}]{dot}{}", problem.field);
            }
        }
        return;
    }
    if let Some(problem) = broken_list(value) {
        reading.whole = false;
        return reading.problems.push(problem.file(file));
    }
    match kind::find(kind, version) {
        Ok(served) => object(file, map, &served, reading),
        Err(refusal) => {
            let object = format!("{kind} {}", name_of(map));
            let told = |reason, message| Problem::new(object.trim_end(), reason, message).file(file);
            let settings = felix::settings(kind, version.unwrap_or_default(), value);
            if !settings.is_empty() {
                let all = settings.into_iter();
                let all = all.map(|set| told(felix::REASON, set.message).at(set.field).value(set.value));
                return reading.problems.extend(all);
            }
            let problem = told(refusal.reason, refusal.message);
            reading.problems.push(problem.at(refusal.field).value(refusal.value));
            // A known kind that cannot be read is an object that exists: what names it is held.
            if let Some(kind) = refusal.broken {
                let mut unheard = Findings::of(file, String::new());
                if let Some(name) = metadata::name(map, kind, &mut unheard) {
                    reading.objects.push(Written { kind, name, object: None });
                }
            }
        }
    }
}

/// What is wrong with a list that has no members to read. Kinds of others may end in `List` and be none; `items: null` is how an API
/// server writes an empty one.
pub(crate) fn broken_list(value: &Value) -> Option<Problem> {
    let word = |key: &str| value.get(key).and_then(Value::as_str);
    let kind = word("kind")?;
    let of = kind.strip_suffix("List")?;
    if !of.is_empty() && kind::find(of, word("apiVersion")).is_err() {
        return None;
    }
    let (what, found) = match value.get("items") {
        Some(Value::Array(_) | Value::Null) => return None,
        Some(other) => (format!("is {}", described(other)), shown(other)),
        None => ("is not there".to_owned(), String::new()),
    };
    let message = format!("a `{kind}` is read by its members, and this {what}; write a list of objects");
    Some(Problem::new("", "WrongType", message).at("items").value(found))
}

/// Reads one object of a kind that is served.
fn object(file: &str, map: &Map<String, Value>, served: &Served, reading: &mut Reading) {
    let mut findings = Findings::of(file, format!("{} {}", served.kind, name_of(map)).trim_end().to_owned());
    let name = metadata::name(map, served.kind, &mut findings);
    if let Some(name) = name {
        findings.object = served.kind.named(&name);
        let root = Section::shaped("", map, served.fields);
        let object = (served.read)(&name, &root, &mut findings);
        if let Some(why) = not_served(map) {
            let field = format!("metadata.annotations[\"{NOT_SERVED}\"]");
            findings.wrong(&field, "", "NotServed", why);
        }
        let object = if findings.broken { None } else { object };
        reading.objects.push(Written { kind: served.kind, name, object });
        reading.problems.append(&mut findings.problems);
    } else {
        reading.problems.append(&mut findings.problems);
        if let Some(name) = metadata::any_name(map, served.kind) {
            reading.objects.push(Written { kind: served.kind, name, object: None });
        }
    }
}

/// Annotation that takes an object out of force, with the reason as a sentence: a cluster's agent lays it over foreign objects that
/// are not its to serve.
pub const NOT_SERVED: &str = "egret.dev/not-served";

fn not_served(map: &Map<String, Value>) -> Option<&str> {
    map.get("metadata")?.get("annotations")?.get(NOT_SERVED)?.as_str()
}

/// What can be said of an object's name before anything is known of it; for messages only.
fn name_of(map: &Map<String, Value>) -> String {
    let word = |key: &str| map.get("metadata")?.get(key)?.as_str();
    match (word("namespace"), word("name")) {
        (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
        (None, Some(name)) => name.to_owned(),
        _ => String::new(),
    }
}
