//! What the runtime asks for: environment and standard input as one value, right from then on.
//!
//! In: [`Environment`] and the bytes of standard input. Out: a [`Request`], or the CNI error with its number.
//! Never: files, namespaces, the clock. DEL is read with patience: whatever the name of the network does not need may be
//! broken, because an error there would keep the primary plugin from freeing the pod's address.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use serde_json::Value;

use super::document::Document;
use super::environment::{Environment, Verb, is_identifier};
use super::prev_result::{PodAddresses, PrevResult};
use super::relay::Question;
use super::reply::{CniError, Code};
use super::version::Version;
use crate::config::{Config, ConfigError, Mode};
use crate::egress::model::{Pairs, PodName};
use crate::egress::names::{LABEL, SUBDOMAIN, label, subdomain};
use crate::problem::Problem;

/// One call of the plugin.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What to do.
    pub verb: Verb,
    /// CNI_CONTAINERID; empty for GC and STATUS.
    pub container_id: String,
    /// CNI_NETNS; always there for ADD and CHECK.
    pub netns: Option<PathBuf>,
    /// Whether the plugin's own namespace is allowed as CNI_NETNS.
    pub netns_override: bool,
    /// CNI_IFNAME; empty for GC and STATUS.
    pub ifname: String,
    /// The pod: from CNI_ARGS, else from `args.cni.egret`; none without Kubernetes.
    pub pod: Option<PodName>,
    /// Its UID (K8S_POD_UID, else `args.cni.egret.uid`).
    pub pod_uid: Option<String>,
    /// `name` of the list.
    pub network: String,
    /// `cniVersion`; the answer carries the same.
    pub cni_version: Version,
    /// Our keys. Calls that say the same share them.
    pub config: Arc<Config>,
    /// The previous plugin's result: of ADD and CHECK, which cannot do without. The others may come with any, and need none.
    pub prev_result: Option<PrevResult>,
    /// The pod's annotations, if the runtime passes them (`None`: it does not; empty: the pod has none).
    pub pod_annotations: Option<Pairs>,
    /// GC: which attachments are valid.
    pub valid: Valid,
    /// Keys that look like ours and have no effect.
    pub misspelled: Vec<Problem>,
    /// The call as it came, where it is passed on (`mode: cluster`).
    pub as_it_came: Option<Box<Question>>,
}

/// GC's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Valid {
    /// No key (libcni called with nil): nothing is known of validity.
    Absent,
    /// `null`: Go's empty slice, what CRI-O sends when it has no pods. Means the same as an empty list.
    Null,
    /// (container id, interface) of each valid attachment.
    Listed(BTreeSet<(String, String)>),
}

impl Request {
    /// Puts the two together. Errors: 1 (version), 2 (a value that is not served), 6 (JSON), 7 (configuration).
    pub fn read(environment: Environment, stdin: &[u8]) -> Result<Request, CniError> {
        let request = |document: &Document<'_>, verb| understand(document, verb == Verb::Del);
        Request::read_by(environment, stdin, request, true)
    }

    /// The same for who answers many and passes none on: a runtime tells each what is in its network list, which seldom changes.
    pub(super) fn read_again(
        environment: Environment,
        stdin: &[u8],
        last: &Configurations,
    ) -> Result<Request, CniError> {
        let again = |document: &Document<'_>, verb| last.of(document, verb == Verb::Del);
        Request::read_by(environment, stdin, again, false)
    }

    /// `keeps`: as it came, too, should it have to be passed on.
    fn read_by(
        environment: Environment,
        stdin: &[u8],
        configuration: impl Fn(&Document<'_>, Verb) -> Result<Understood, CniError>,
        keeps: bool,
    ) -> Result<Request, CniError> {
        let document = Document::read(stdin).map_err(not_json)?;
        let network = network_name(&document)?;
        let cni_version = version(&document)?;
        let verb = environment.verb;
        allowed(verb, cni_version)?;
        let patient = verb == Verb::Del;
        let args = or_nothing(patient, cni_args(&document))?;
        let (pod, pod_uid) = named(&environment, args)?;
        let Understood { config, misspelled } = configuration(&document, verb)?;
        let passed_on = keeps && config.mode == Mode::Cluster;
        Ok(Request {
            verb,
            network,
            cni_version,
            misspelled,
            config,
            as_it_came: passed_on.then(|| Box::new(Question::of(&environment, stdin))),
            prev_result: prev_result(&document, verb)?,
            pod_annotations: or_nothing(patient, annotations(&document))?,
            valid: if verb == Verb::Gc { valid_attachments(&document)? } else { Valid::Absent },
            pod,
            pod_uid,
            container_id: environment.container_id,
            netns: environment.netns,
            netns_override: environment.netns_override,
            ifname: environment.ifname,
        })
    }

    /// The pod's addresses on this interface, as far as the previous plugin's result tells.
    pub fn addresses(&self) -> PodAddresses {
        let of = |prev: &PrevResult| prev.addresses(&self.ifname, self.netns.as_deref());
        self.prev_result.as_ref().map_or(PodAddresses { addresses: vec![], read_netns: true }, of)
    }
}

/// The version an answer should carry although the request could not be read.
pub fn version_for_errors(stdin: &[u8]) -> Version {
    Document::read(stdin).ok().and_then(|document| version(&document).ok()).unwrap_or(Version::NEWEST)
}

fn not_json(error: serde_json::Error) -> CniError {
    CniError::new(Code::Decode, "standard input is not a network configuration in JSON")
        .details(error.to_string())
}

fn wrong(key: &str, why: impl std::fmt::Display) -> CniError {
    CniError::new(Code::InvalidConfig, format!("network configuration: `{key}` {why}"))
}

/// The value of a key as text; wrong types are errors that show it.
fn string(document: &Document<'_>, key: &str) -> Result<Option<String>, CniError> {
    let Some(raw) = document.present(key) else { return Ok(None) };
    let text = serde_json::from_str(raw.get());
    text.map(Some).map_err(|_| wrong(key, format_args!("is not a string but {}", raw.get())))
}

fn network_name(document: &Document<'_>) -> Result<String, CniError> {
    match string(document, "name")? {
        Some(name) if is_identifier(&name) => Ok(name),
        Some(name) if !name.is_empty() => {
            let msg = "invalid characters found in network name, or it is longer than 200 characters";
            Err(CniError::new(Code::InvalidConfig, msg).details(name))
        }
        _ => Err(CniError::new(Code::InvalidConfig, "missing network name")),
    }
}

fn version(document: &Document<'_>) -> Result<Version, CniError> {
    Version::read(string(document, "cniVersion")?.as_deref())
}

/// CHECK came with 0.4.0, GC and STATUS with 1.1.0.
fn allowed(verb: Verb, version: Version) -> Result<(), CniError> {
    let (name, since) = match verb {
        Verb::Check => ("CHECK", Version::V0_4_0),
        Verb::Gc => ("GC", Version::V1_1_0),
        Verb::Status => ("STATUS", Version::V1_1_0),
        Verb::Add | Verb::Del | Verb::Version => return Ok(()),
    };
    if version >= since {
        return Ok(());
    }
    Err(CniError::new(Code::IncompatibleVersion, format!("config version does not allow {name}"))
        .details(format!("the configuration says {version}, {name} needs {since}")))
}

fn or_nothing<T>(patient: bool, outcome: Result<Option<T>, CniError>) -> Result<Option<T>, CniError> {
    if patient { Ok(outcome.unwrap_or_default()) } else { outcome }
}

/// Keys that are CNI's: large, or not ours to judge.
fn is_ours(key: &str) -> bool {
    !matches!(key, "name" | "type" | "cniVersion" | "prevResult" | "runtimeConfig" | "args" | "capabilities")
        && !key.starts_with("cni.dev/")
}

/// What our keys come to.
#[derive(Debug, Clone)]
struct Understood {
    config: Arc<Config>,
    misspelled: Vec<Problem>,
}

fn understand(document: &Document<'_>, patient: bool) -> Result<Understood, CniError> {
    let keys = keys_of(document)?;
    let misspelled = Config::misspelled(&Value::from(keys.clone()));
    Ok(Understood { config: Arc::new(config(keys, patient)?), misspelled })
}

/// Our keys as they were last understood, for as long as they come with the same texts.
#[derive(Debug, Default)]
pub struct Configurations(Mutex<Option<(Texts, Understood)>>);

/// Our keys, and the text of each.
type Texts = Vec<(String, String)>;

impl Configurations {
    fn of(&self, document: &Document<'_>, patient: bool) -> Result<Understood, CniError> {
        let keys = || document.entries().filter(|(key, _)| is_ours(key)).map(|(key, raw)| (key, raw.get()));
        let last = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |texts: &Texts| {
            texts.len() == keys().count()
                && keys().zip(texts).all(|((k, t), (key, text))| k == key && t == text)
        };
        let known = last().as_ref().filter(|(texts, _)| is_same(texts)).map(|(_, known)| known.clone());
        if let Some(known) = known {
            return Ok(known);
        }
        // What patience made of a wrong one is nothing to go by.
        let Ok(understood) = understand(document, false) else { return understand(document, patient) };
        let texts = keys().map(|(key, text)| (key.to_owned(), text.to_owned())).collect();
        *last() = Some((texts, understood.clone()));
        Ok(understood)
    }
}

/// Our keys. Patience leaves a wrong one at its default, so that DEL still finds the record that an ADD left in the
/// configured directory.
fn config(mut keys: serde_json::Map<String, Value>, patient: bool) -> Result<Config, CniError> {
    let read = |keys: serde_json::Map<String, Value>| Config::from_json(&Value::from(keys));
    match read(keys.clone()) {
        Ok(config) => Ok(config),
        Err(_) if patient => {
            keys.retain(|key, value| read([(key.to_owned(), value.clone())].into_iter().collect()).is_ok());
            Ok(read(keys).unwrap_or_default())
        }
        Err(error) => {
            let code = match error {
                ConfigError::Unsupported { .. } => Code::UnsupportedField,
                _ => Code::InvalidConfig,
            };
            Err(CniError::new(code, format!("network configuration: {error}")))
        }
    }
}

fn keys_of(document: &Document<'_>) -> Result<serde_json::Map<String, Value>, CniError> {
    let ours = document.entries().filter(|(key, _)| is_ours(key));
    ours.map(|(key, raw)| Ok((key.to_owned(), serde_json::from_str(raw.get()).map_err(not_json)?))).collect()
}

fn prev_result(document: &Document<'_>, verb: Verb) -> Result<Option<PrevResult>, CniError> {
    let needed = matches!(verb, Verb::Add | Verb::Check);
    if !needed {
        return Ok(None);
    }
    match document.present("prevResult").map(PrevResult::read) {
        Some(Ok(prev)) => Ok(Some(prev)),
        Some(Err(error)) => Err(CniError::new(Code::Decode, error)),
        None => Err(CniError::new(
            Code::InvalidConfig,
            "no prevResult: Egret must be called as a chained plugin, behind the plugin that makes the interface",
        )),
    }
}

#[derive(Deserialize)]
struct PodArgs {
    namespace: String,
    name: String,
    uid: Option<String>,
}

/// Who the pod is. Where it is wired by that, a half or a wrong name is an error: it may be meant for a pod that is selected, and as nobody's
/// it would leave with the node's address. What ends or only lists pods goes on. Nobody's are podman's containers: it gives their name alone,
/// or, up to 3.x, as the namespace too, which is told by no namespace being called so.
fn named(
    environment: &Environment,
    args: Option<PodArgs>,
) -> Result<(Option<PodName>, Option<String>), CniError> {
    let arg = |key: &str| environment.args.get(key).filter(|v| !v.is_empty()).cloned();
    let judged = matches!(environment.verb, Verb::Add | Verb::Check);
    let fault = |msg: String| CniError::new(Code::InvalidEnvironment, msg);
    let (namespace, name) = (arg("K8S_POD_NAMESPACE"), arg("K8S_POD_NAME"));
    let is_a_containers = namespace == name && namespace.as_ref().is_some_and(|both| !label(both));
    match (namespace.filter(|_| !is_a_containers), name, args) {
        (Some(namespace), Some(name), _) => {
            let pod = PodName { namespace, name };
            match misnamed(&pod).filter(|_| judged) {
                Some((part, why)) => Err(fault(format!("CNI_ARGS: K8S_POD_{} {why}", part.to_uppercase()))),
                None => Ok((Some(pod), arg("K8S_POD_UID"))),
            }
        }
        (.., Some(args)) => {
            let pod = PodName::new(args.namespace, args.name);
            match misnamed(&pod).filter(|_| judged) {
                Some((part, why)) => Err(wrong(&format!("args.cni.egret.{part}"), why)),
                None => Ok((Some(pod), args.uid)),
            }
        }
        (Some(namespace), None, None) if judged => Err(fault(format!(
            "CNI_ARGS: K8S_POD_NAMESPACE is \"{namespace}\" and K8S_POD_NAME is missing, so nobody knows what this pod is: set both"
        ))),
        _ => Ok((None, None)),
    }
}

/// The half of a pod's name that Kubernetes would not give, and what is wrong with it.
fn misnamed(pod: &PodName) -> Option<(&'static str, String)> {
    let why = |text: &str, rule| format!("is \"{text}\", but must be {rule}");
    match (label(&pod.namespace), subdomain(&pod.name)) {
        (false, _) => Some(("namespace", why(&pod.namespace, LABEL))),
        (_, false) => Some(("name", why(&pod.name, SUBDOMAIN))),
        _ => None,
    }
}

/// `args.cni.egret`: who the pod is, where no CNI_ARGS say it (cnitool, nerdctl, podman).
fn cni_args(document: &Document<'_>) -> Result<Option<PodArgs>, CniError> {
    let Some(raw) = document.present("args") else { return Ok(None) };
    let args: Value = serde_json::from_str(raw.get()).map_err(not_json)?;
    match &args["cni"]["egret"] {
        Value::Null => Ok(None),
        ours => PodArgs::deserialize(ours).map(Some).map_err(|why| {
            wrong(
                "args.cni.egret",
                format_args!("must be {{\"namespace\": …, \"name\": …}}: {why} in {ours}"),
            )
        }),
    }
}

const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

fn annotations(document: &Document<'_>) -> Result<Option<Pairs>, CniError> {
    let key = || format!("runtimeConfig[\"{ANNOTATIONS}\"]");
    let Some(raw) = document.present("runtimeConfig") else { return Ok(None) };
    let runtime = Document::read(raw.get().as_bytes()).map_err(|why| wrong("runtimeConfig", why))?;
    let Some(raw) = runtime.present(ANNOTATIONS) else { return Ok(None) };
    serde_json::from_str(raw.get())
        .map(Some)
        .map_err(|why| wrong(&key(), format_args!("must map texts: {why}")))
}

#[derive(Deserialize)]
struct ValidAttachment {
    #[serde(rename = "containerID")]
    container_id: String,
    ifname: String,
}

/// `cni.dev/valid-attachments`, or the key of libcni before 1.3 where that one is absent. What cannot be read is an
/// error and not an empty list: the empty list removes everything.
fn valid_attachments(document: &Document<'_>) -> Result<Valid, CniError> {
    let find = |key| document.raw(key).map(|raw| (key, raw));
    let found = find("cni.dev/valid-attachments").or_else(|| find("cni.dev/attachments"));
    let Some((key, raw)) = found else { return Ok(Valid::Absent) };
    let list: Option<Vec<ValidAttachment>> = serde_json::from_str(raw.get())
        .map_err(|why| wrong(key, format_args!("is not a list of attachments: {why}")))?;
    Ok(list.map_or(Valid::Null, |list| {
        Valid::Listed(list.into_iter().map(|a| (a.container_id, a.ifname)).collect())
    }))
}

#[cfg(test)]
mod tests;
