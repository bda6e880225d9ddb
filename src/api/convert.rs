//! Calico's and Cilium's manifests → ours.
//!
//! In: the texts of files. Out: documents of ours, which decide as those did, and a note for whatever has no equal. Never: drops
//! what somebody depends on. An object that cannot be converted stays as it is, with the problem, so that who was held by it is held
//! still; kinds that have nothing to do with egress are counted and left out, because nothing about them changes.

mod annotations;
mod elsewhere;
mod policy;
mod pool;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::document::{self, Format};
use super::{Kind, Object, Reading, Written, broken_list, take};
use crate::problem::Problem;

/// `apiVersion` of what is written.
const OURS: &str = "egret.dev/v1alpha1";

/// Everything that was converted.
#[derive(Debug, Clone, Default)]
pub struct Conversion {
    /// In the order read.
    pub documents: Vec<Converted>,
    /// Objects of kinds that have nothing to do with egress, by kind.
    pub skipped: BTreeMap<String, usize>,
    /// What has no equal, or is worth a second look; each with the object as it was written.
    pub notes: Vec<Problem>,
    /// What could not be read, and so stays as it is or is lost.
    pub problems: Vec<Problem>,
    /// Kinds and names met so far.
    seen: BTreeSet<(&'static str, String)>,
}

/// One document of the result.
#[derive(Debug, Clone, PartialEq)]
pub struct Converted {
    /// The file it was in.
    pub file: String,
    /// What it was: `IPPool egress`.
    pub was: String,
    /// What it is now: `EgressPool egress`.
    pub object: String,
    /// Whether anything in it changed.
    pub changed: bool,
    /// The manifest.
    pub manifest: Value,
}

impl Conversion {
    /// Whether nothing was there to be converted.
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty()
            && self.skipped.is_empty()
            && self.notes.is_empty()
            && self.problems.is_empty()
    }
}

/// Where the pod templates of a kind are, as a JSON pointer; `None`: it has none.
pub type Template = fn(&str) -> Option<&'static str>;

/// Converts texts, given with their files' names. All of them together: what a pool is for stands in another file.
pub fn convert<'t>(texts: impl IntoIterator<Item = (&'t str, &'t [u8])>, template: Template) -> Conversion {
    let mut conversion = Conversion::default();
    let mut sources = Vec::new();
    for (file, text) in texts {
        let format = Format::of(file);
        let documents = document::read(text, format);
        for error in documents.errors {
            let message = format!("not {format}: {error}; correct the file");
            conversion.problems.push(Problem::new("", &format!("Not{format:?}"), message).file(file));
        }
        for value in documents.values {
            conversion.problems.extend(broken_list(&value).map(|problem| problem.file(file)));
            spread(file, value, None, &mut sources);
        }
    }
    let known = Known::of(&sources, template);
    for source in &sources {
        one(source, &known, &mut conversion);
    }
    conversion
}

/// One document that is no list.
struct Source {
    file: String,
    value: Value,
}

/// Lists are taken apart, so that each object is a document of its own.
fn spread(file: &str, value: Value, member_of: Option<(&str, &str)>, sources: &mut Vec<Source>) {
    let word = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let (version, kind) = (word("apiVersion").unwrap_or_default(), word("kind").unwrap_or_default());
    if let (Some(of), Some(Value::Array(items)), None) =
        (kind.strip_suffix("List"), value.get("items"), member_of)
    {
        items.iter().cloned().for_each(|item| spread(file, item, Some((&version, of)), sources));
        return;
    }
    if broken_list(&value).is_some() {
        return; // said already
    }
    let mut value = value;
    if let (Some((list_version, of)), Value::Object(map)) = (member_of, &mut value) {
        // Members of a typed list have neither of their own.
        for (key, theirs) in [("kind", of), ("apiVersion", list_version)] {
            if !map.contains_key(key) && !of.is_empty() {
                map.shift_insert(0, key.to_owned(), theirs.into());
            }
        }
    }
    sources.push(Source { file: file.to_owned(), value });
}

/// What all documents together say, that a single one is converted by.
struct Known {
    /// Pools that gateway pods name, by name or prefix.
    pools: BTreeSet<String>,
    /// Names that annotations or other `EgressGatewayPolicy` objects have taken.
    policies: BTreeSet<String>,
    /// Names of policies that are ours already: Calico's of the same name is not in force beside them.
    ours: BTreeSet<String>,
    template: Template,
}

impl Known {
    fn of(sources: &[Source], template: Template) -> Known {
        let (pools, policies, ours) = Default::default();
        let mut known = Known { pools, policies, ours, template };
        for Source { value, .. } in sources {
            let (kind, name) = (kind(value), pointed(value, "/metadata/name"));
            if kind == "EgressGatewayPolicy" {
                known.policies.insert(name.to_owned());
                if pointed(value, "/apiVersion") == OURS {
                    known.ours.insert(name.to_owned());
                }
            }
            let templates = template(kind).and_then(|pointer| value.pointer(pointer));
            let own = value.pointer("/metadata/annotations");
            let of_template = templates.and_then(|t| t.pointer("/metadata/annotations"));
            // On a namespace they choose addresses of its pods, none of which is a gateway by that.
            let of_pods = own.filter(|_| kind == "Pod").into_iter().chain(of_template);
            known.pools.extend(of_pods.flat_map(annotations::pools));
            known.policies.extend(own.into_iter().chain(of_template).flat_map(annotations::policies));
            known.pools.extend(elsewhere::pools(value));
        }
        known
    }

    /// Whether an object counts: of two with one name the first does, and ours before Calico's. `seen` has those before it.
    fn in_force(&self, kind: Kind, name: &str, seen: &mut BTreeSet<(&'static str, String)>) -> bool {
        // Both kinds of pool share their names, and so do both kinds of policy that annotations can name.
        let word = if kind == Kind::IPPool { Kind::EgressPool.as_str() } else { kind.as_str() };
        let shadowed = kind == Kind::CalicoEgressGatewayPolicy && self.ours.contains(name);
        !shadowed && seen.insert((word, name.to_owned()))
    }
}

fn kind(value: &Value) -> &str {
    value.get("kind").and_then(Value::as_str).unwrap_or_default()
}

/// The text that a JSON pointer leads to, or nothing.
fn pointed<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// `IPPool egress`, `Pod shop/cart`.
fn named(value: &Value) -> String {
    let (namespace, name) = (pointed(value, "/metadata/namespace"), pointed(value, "/metadata/name"));
    match namespace {
        "" => format!("{} {name}", kind(value)),
        _ => format!("{} {namespace}/{name}", kind(value)),
    }
}

/// Notes about one object.
struct Notes<'a> {
    file: &'a str,
    object: String,
    notes: &'a mut Vec<Problem>,
}

impl Notes<'_> {
    fn add(&mut self, field: &str, value: &str, reason: &str, message: impl Into<String>) {
        let note = Problem::new(self.object.as_str(), reason, message).file(self.file).at(field).value(value);
        self.notes.push(note);
    }
}

fn one(source: &Source, known: &Known, conversion: &mut Conversion) {
    let Source { file, value } = source;
    let mut notes = Notes { file, object: named(value), notes: &mut conversion.notes };
    if (known.template)(kind(value)).is_some() {
        if let Some(manifest) = annotations::of_workload(value, known.template, &mut notes) {
            put(source, manifest, conversion);
        } else {
            *conversion.skipped.entry(kind(value).to_owned()).or_insert(0) += 1;
        }
        return;
    }
    if elsewhere::note(value, &mut notes) {
        return;
    }
    let mut reading = Reading { objects: Vec::new(), problems: Vec::new(), whole: true };
    take(file, value, None, &mut reading);
    let foreign = |p: &Problem| p.reason == "UnknownKind" && !p.message.contains("did you mean");
    if reading.problems.iter().any(foreign) {
        *conversion.skipped.entry(kind(value).to_owned()).or_insert(0) += 1;
        return;
    }
    let Some(Written { kind, name, object }) = reading.objects.pop() else {
        conversion.problems.append(&mut reading.problems);
        return put(source, value.clone(), conversion);
    };
    if !known.in_force(kind, &name, &mut conversion.seen) {
        let message = "another object of the same name is in force beside it, and would be afterwards, so it is left out";
        return notes.add("metadata.name", &name, "NotInForce", message);
    }
    let Some(object) = object else {
        conversion.problems.append(&mut reading.problems);
        return put(source, value.clone(), conversion);
    };
    let manifest = match (kind, &object) {
        (Kind::IPPool, Object::Pool(pool)) => pool::convert(value, pool, known, &mut notes),
        (Kind::CalicoEgressGatewayPolicy | Kind::CiliumEgressGatewayPolicy, Object::Policy(written)) => {
            if !written.unfit.is_empty() {
                conversion.problems.extend(written.unfit.iter().cloned());
                return put(source, value.clone(), conversion);
            }
            if kind == Kind::CiliumEgressGatewayPolicy {
                // Ours is written anew, so what was never read would go without a word.
                for problem in
                    reading.problems.iter().filter(|problem| UNREAD.contains(&problem.reason.as_str()))
                {
                    let message = "it has had no effect, and is left out";
                    notes.add(&problem.field, &problem.value, "NoEqual", message);
                }
            }
            Some(policy::convert(value, kind, written, known, &mut notes))
        }
        (Kind::Pod | Kind::Namespace, _) => annotations::convert(value, kind, &mut notes),
        _ => None,
    };
    put(source, manifest.unwrap_or_else(|| value.clone()), conversion);
}

fn put(source: &Source, manifest: Value, conversion: &mut Conversion) {
    let converted = Converted {
        file: source.file.clone(),
        was: named(&source.value),
        object: named(&manifest),
        changed: manifest != source.value,
        manifest,
    };
    conversion.documents.push(converted);
}

/// Reasons of problems with fields that change nothing.
const UNREAD: [&str; 2] = ["UnknownField", "IgnoredField"];

/// Annotations that others keep for themselves; a rewritten object must not carry its old self along.
const OF_TOOLS: [&str; 2] =
    ["kubectl.kubernetes.io/last-applied-configuration", "projectcalico.org/metadata"];

/// A manifest of ours. Of the metadata what a person wrote stays, and the age, because the older of two policies wins.
fn ours(kind: &str, name: &str, old: &Value, dropped: &[&str], spec: Map<String, Value>) -> Value {
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), name.into());
    for key in ["labels", "annotations"] {
        let Some(Value::Object(pairs)) = old.pointer(&format!("/metadata/{key}")) else { continue };
        let mut pairs = pairs.clone();
        pairs.retain(|key, _| !OF_TOOLS.contains(&key.as_str()) && !dropped.contains(&key.as_str()));
        if !pairs.is_empty() {
            metadata.insert(key.to_owned(), Value::Object(pairs));
        }
    }
    if let Some(created @ Value::String(_)) = old.pointer("/metadata/creationTimestamp") {
        metadata.insert("creationTimestamp".to_owned(), created.clone());
    }
    let mut manifest = Map::new();
    manifest.insert("apiVersion".to_owned(), OURS.into());
    manifest.insert("kind".to_owned(), kind.into());
    manifest.insert("metadata".to_owned(), Value::Object(metadata));
    manifest.insert("spec".to_owned(), Value::Object(spec));
    Value::Object(manifest)
}
