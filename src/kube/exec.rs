//! Credentials that a program hands out, as kubeconfigs of cloud providers and of OpenID Connect have them (`users[].user.exec`).
//!
//! In: what the kubeconfig says of the program. Out: a token or a certificate, kept until it expires or the server refuses it. The same contract
//! as kubectl's: `client.authentication.k8s.io/v1` and `v1beta1`. Never: writes a credential anywhere, or shows it in a sentence.

use std::fmt;
use std::io::{self, ErrorKind, IsTerminal, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Credential;
use super::error::ApiError;
use crate::api::unix_seconds;

/// Versions of the contract that are spoken.
const VERSIONS: [&str; 2] = ["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"];
/// A token that expires so soon is not used any more.
const EARLY: i64 = 10;
/// A program that asks no person has so long: whoever waits for it says nothing to the server meanwhile.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often it is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(10);

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
    patience: Duration,
    kept: Mutex<Option<Kept>>,
    /// One asks at a time; why it gave nothing the last time.
    asking: Mutex<Option<String>>,
    /// How often it was asked for a token.
    times: AtomicU64,
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
    let (kept, asking, times) = Default::default();
    let program = Program { exec, origin, cluster, patience: PATIENCE, kept, asking, times };
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
    /// A token that is valid now. Whoever comes while another asks has what that one gets, be it none: it is asked once for all.
    pub(super) fn token(&self) -> Result<String, ApiError> {
        let before = self.times.load(Ordering::Acquire);
        if let Some(token) = self.valid() {
            return Ok(token);
        }
        let mut failed = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if self.times.load(Ordering::Acquire) != before {
            match (self.valid(), &*failed) {
                (Some(token), _) => return Ok(token),
                (None, Some(why)) => return Err(ApiError::Access(why.clone())),
                (None, None) => {}
            }
        }
        let given = self.ask().and_then(|status| {
            let token = status.token.ok_or_else(|| self.no("it gave no token any more"))?;
            Ok(Kept { token, until: until(status.expiration_timestamp.as_deref()) })
        });
        *failed = given.as_ref().err().map(ToString::to_string);
        let token = given.map(|given| {
            let token = given.token.clone();
            *self.kept() = Some(given);
            token
        });
        self.times.fetch_add(1, Ordering::AcqRel);
        token
    }

    fn valid(&self) -> Option<String> {
        self.kept().as_ref().filter(|kept| !is_over(kept.until)).map(|kept| kept.token.clone())
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
        let interactive = !never && io::stdin().is_terminal();
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
        let output = if interactive { command.output() } else { self.answer(command) };
        let output = output.map_err(|error| match error.kind() {
            ErrorKind::TimedOut => self.no(&format!("it did not end within {} s", self.patience.as_secs())),
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

    /// What it prints until it ends, which it does in time.
    fn answer(&self, mut command: Command) -> io::Result<Output> {
        let ends = Instant::now() + self.patience;
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let said = child.stdout.take();
        let (sender, read) = channel();
        // What it started may hold its output open after it: nobody waits for this thread.
        let reader = thread::Builder::new().name("credentials".to_owned()).spawn(move || {
            let mut text = Vec::new();
            let all = said.map_or(Ok(0), |mut said| said.read_to_end(&mut text));
            let _ = sender.send(all.map(|_| text)); // Err: it came too late
        });
        let left = ends.saturating_duration_since(Instant::now());
        let text = reader.and_then(|_| read.recv_timeout(left).map_err(|_| ErrorKind::TimedOut.into()));
        let ended = text.and_then(|text| Ok((text?, ended(&mut child, ends)?)));
        if ended.is_err() {
            let _ = child.kill(); // it has ended
            let _ = child.wait();
        }
        let (stdout, status) = ended?;
        Ok(Output { status, stdout, stderr: Vec::new() })
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

fn ended(child: &mut Child, ends: Instant) -> io::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= ends {
            return Err(ErrorKind::TimedOut.into());
        }
        thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(script: &str, patience: Duration) -> Program {
        let exec = json!({"apiVersion": VERSIONS[0], "command": "sh", "args": ["-c", script], "interactiveMode": "Never"});
        let (kept, asking, times) = Default::default();
        let exec = serde_json::from_value(exec).unwrap();
        Program { exec, origin: "config".to_owned(), cluster: None, patience, kept, asking, times }
    }

    fn gives(token: &str) -> String {
        let said = json!({"apiVersion": VERSIONS[0], "kind": "ExecCredential", "status": {"token": token}});
        format!("echo '{said}'")
    }

    #[test]
    fn a_program_that_hangs_or_whose_child_holds_its_output_is_not_waited_for() {
        let patience = Duration::from_millis(300);
        for hangs in ["exec sleep 1000", "sleep 100 & exit 0", "exec >&-; exec sleep 1000"] {
            let error = program(hangs, patience).token().unwrap_err().to_string();
            assert!(error.contains("`sh`: it did not end within 0 s"), "{hangs}: {error}");
        }
        let failed = program("exit 3", Duration::from_secs(60)).token().unwrap_err().to_string();
        assert!(failed.contains("it failed (exit status: 3)"), "{failed}");
        // More than a pipe holds.
        let long = format!("{}; head -c 200000 /dev/zero | tr '\\0' ' '", gives("t"));
        assert_eq!(program(&long, Duration::from_secs(60)).token().unwrap(), "t");
    }

    #[test]
    fn those_who_wait_for_a_token_have_it_or_the_reason_by_one_run() {
        let folder = std::env::temp_dir().join(format!("egret-exec-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let place = folder.display();
        for (script, wanted) in [(gives("t"), Ok("t".to_owned())), ("exit 3".to_owned(), Err(()))] {
            // It ends when all have come.
            let script =
                format!("echo >> {place}/asked; while ! [ -e {place}/go ]; do sleep 0.01; done; {script}");
            let program = program(&script, Duration::from_secs(60));
            thread::scope(|scope| {
                let all: Vec<_> = (0..8).map(|_| scope.spawn(|| program.token().map_err(|_| ()))).collect();
                while !folder.join("asked").exists() {
                    thread::sleep(LOOK);
                }
                thread::sleep(Duration::from_millis(300)); // whoever came later asks, too
                std::fs::write(folder.join("go"), "").unwrap();
                for one in all {
                    assert_eq!(one.join().unwrap(), wanted);
                }
            });
            let asked = std::fs::read_to_string(folder.join("asked")).unwrap();
            assert_eq!(asked.len(), 1, "one run for all");
            for file in ["asked", "go"] {
                std::fs::remove_file(folder.join(file)).unwrap();
            }
        }
        std::fs::remove_dir(&folder).unwrap();
    }
}
