//! Credentials that a program hands out, as kubeconfigs of cloud providers and of OpenID Connect have them (`users[].user.exec`).
//!
//! In: what the kubeconfig says of the program. Out: a token or a certificate, kept until it expires or the server refuses it. The same contract
//! as kubectl's: `client.authentication.k8s.io/v1` and `v1beta1`. Never: writes a credential anywhere, or shows it in a sentence.

use std::fmt;
use std::io::{ErrorKind, IsTerminal};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Credential;
use super::error::ApiError;
use crate::api::unix_seconds;

/// Versions of the contract that are spoken.
const VERSIONS: [&str; 2] = ["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"];
/// A token that expires so soon is not used any more.
const EARLY: i64 = 10;

/// `users[].user.exec` of a kubeconfig.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Exec {
    #[serde(default)]
    api_version: String,
    command: String,
    #[serde(default)]
    args: Option<Vec<String>>,
    #[serde(default)]
    env: Option<Vec<Variable>>,
    #[serde(default)]
    interactive_mode: Option<String>,
    #[serde(default)]
    install_hint: Option<String>,
    #[serde(default)]
    provide_cluster_info: bool,
}

#[derive(Debug, Clone, Deserialize)]
struct Variable {
    name: String,
    value: String,
}

/// `status` of the answer.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
    expiration_timestamp: Option<String>,
}

/// A program that gives tokens, or certificates.
pub struct Program {
    exec: Exec,
    /// The kubeconfig, for messages.
    origin: String,
    /// `spec.cluster`, if the program wants it.
    cluster: Option<Value>,
    kept: Mutex<Option<Kept>>,
}

/// A certificate with its key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// Ours, and what leads to the authority.
    pub chain: Vec<u8>,
    /// The private key.
    pub key: Vec<u8>,
    /// When it expires, in Unix seconds.
    pub until: Option<i64>,
}

/// A token, and when it expires, in Unix seconds.
struct Kept {
    token: String,
    until: Option<i64>,
}

/// Without what is secret.
impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Program({})", self.exec.command)
    }
}

/// Asks a kubeconfig's program for the first time. `cluster`: the one that it is for, as the contract writes it.
pub(super) fn credential(mut exec: Exec, config: &Path, cluster: Value) -> Result<Credential, ApiError> {
    let origin = config.display().to_string();
    if !VERSIONS.contains(&exec.api_version.as_str()) {
        let why = format!(
            "{origin}: the program that its user's credentials come from speaks `{}`; served are {}",
            exec.api_version,
            VERSIONS.join(" and ")
        );
        return Err(ApiError::Access(why));
    }
    // A path is one beside the kubeconfig; a bare name is looked for as any program.
    if exec.command.contains('/') {
        let beside = config.parent().unwrap_or(Path::new("")).join(&exec.command);
        exec.command = beside.display().to_string();
    }
    let cluster = exec.provide_cluster_info.then_some(cluster);
    let program = Program { exec, origin, cluster, kept: Mutex::default() };
    let status = program.ask()?;
    if let Some(issued) = issued(&status) {
        return Ok(Credential::Issued(std::sync::Arc::new(program), issued));
    }
    let Some(token) = status.token else {
        return Err(program.no("it gave neither a token nor a certificate with its key"));
    };
    *program.kept() = Some(Kept { token, until: until(status.expiration_timestamp.as_deref()) });
    Ok(Credential::Program(std::sync::Arc::new(program)))
}

fn issued(status: &Status) -> Option<Issued> {
    let (chain, key) = (status.client_certificate_data.as_ref()?, status.client_key_data.as_ref()?);
    let until = until(status.expiration_timestamp.as_deref());
    Some(Issued { chain: chain.clone().into_bytes(), key: key.clone().into_bytes(), until })
}

/// Whether what expires then is not used any more.
pub(super) fn is_over(until: Option<i64>) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    until.is_some_and(|until| now + EARLY >= until)
}

fn until(expires: Option<&str>) -> Option<i64> {
    expires.and_then(unix_seconds)
}

impl Program {
    /// A token that is valid now.
    pub(super) fn token(&self) -> Result<String, ApiError> {
        let mut kept = self.kept();
        if let Some(kept) = kept.as_ref().filter(|kept| !is_over(kept.until)) {
            return Ok(kept.token.clone());
        }
        let status = self.ask()?;
        let token = status.token.ok_or_else(|| self.no("it gave no token any more"))?;
        *kept = Some(Kept { token: token.clone(), until: until(status.expiration_timestamp.as_deref()) });
        Ok(token)
    }

    /// A certificate that is valid now.
    pub(super) fn certificate(&self) -> Result<Issued, ApiError> {
        issued(&self.ask()?).ok_or_else(|| self.no("it gave no certificate with its key any more"))
    }

    /// The server refused what was given: the next request asks again.
    pub(super) fn forget(&self) {
        *self.kept() = None;
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self) -> Result<Status, ApiError> {
        let never = self.exec.interactive_mode.as_deref() == Some("Never");
        let interactive = !never && std::io::stdin().is_terminal();
        if self.exec.interactive_mode.as_deref() == Some("Always") && !interactive {
            return Err(self.no("it wants to ask a person, and there is no terminal"));
        }
        let mut spec = json!({"interactive": interactive});
        if let Some(cluster) = &self.cluster {
            spec["cluster"] = cluster.clone();
        }
        let asked = json!({"apiVersion": self.exec.api_version, "kind": "ExecCredential", "spec": spec});
        let mut command = Command::new(&self.exec.command);
        command.args(self.exec.args.iter().flatten()).env("KUBERNETES_EXEC_INFO", asked.to_string());
        command.envs(self.exec.env.iter().flatten().map(|variable| (&variable.name, &variable.value)));
        // What it has to say to a person goes where ours goes.
        command.stdin(if interactive { Stdio::inherit() } else { Stdio::null() }).stderr(Stdio::inherit());
        let output = command.output().map_err(|error| match error.kind() {
            ErrorKind::NotFound => self.no(&format!(
                "it is not installed. {}",
                self.exec.install_hint.as_deref().unwrap_or_default()
            )),
            _ => self.no(&format!("it cannot be started: {error}")),
        })?;
        if !output.status.success() {
            return Err(self.no(&format!("it failed ({}); what it said stands above", output.status)));
        }
        let said: Value =
            serde_json::from_slice(&output.stdout).map_err(|_| self.no("what it printed is no JSON"))?;
        if said["kind"] != "ExecCredential" || said["apiVersion"] != self.exec.api_version.as_str() {
            return Err(self.no(&format!("it did not print an ExecCredential of {}", self.exec.api_version)));
        }
        serde_json::from_value(said["status"].clone())
            .map_err(|_| self.no("the ExecCredential that it printed has no status that can be read"))
    }

    fn no(&self, why: &str) -> ApiError {
        let command = &self.exec.command;
        ApiError::Access(format!(
            "{}: credentials come from the program `{command}`: {}",
            self.origin,
            why.trim()
        ))
    }
}
