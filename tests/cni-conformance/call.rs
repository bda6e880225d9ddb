//! One call of the plugin, and what it came to. Whatever a call is for, its outcome keeps the general rules of the specification.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::{ANNOTATIONS, SCRATCH, egret};

/// A result with one interface and one address, as a primary plugin gives it.
pub(crate) fn result(version: &str) -> Value {
    let mut ip = json!({"interface": 1, "address": "10.1.2.3/24", "gateway": "10.1.2.1"});
    if version < "1" {
        ip["version"] = "4".into();
    }
    json!({
        "cniVersion": version,
        "interfaces": [
            {"name": "vetha", "mac": "aa:aa:aa:aa:aa:01"},
            {"name": "eth0", "mac": "aa:aa:aa:aa:aa:02", "sandbox": "/run/netns/a"}
        ],
        "ips": [ip],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dns": {}
    })
}

/// Egret's part of a list, as libcni passes it.
pub(crate) fn entry(version: &str) -> Value {
    json!({"cniVersion": version, "name": "net", "type": "egret", "nodeName": "n1", "prevResult": result(version)})
}

/// What comes on standard input.
enum Stdin {
    Json(Value),
    Bytes(Vec<u8>),
    /// Nothing, and it stays open.
    Open,
}

#[derive(PartialEq)]
enum Stdout {
    Pipe,
    /// A pipe that nobody reads.
    Broken,
    /// Descriptor 1 does not exist.
    Closed,
}

/// One call of the plugin.
pub(crate) struct Call {
    /// Added to a JSON standard input that says nothing of annotations.
    annotations: Option<Value>,
    env: BTreeMap<String, String>,
    stdin: Stdin,
    stdout: Stdout,
    nobody: bool,
}

impl Call {
    /// With the environment and standard input that stories build on.
    pub(crate) fn of(verb: &str, annotations: Option<Value>) -> Call {
        let env = [
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_NETNS", "/run/netns/a"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/opt/cni/bin"),
            (
                "CNI_ARGS",
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns1;K8S_POD_NAME=p1;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u1",
            ),
        ];
        Call {
            annotations,
            env: env.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            stdin: Stdin::Json(entry("1.1.0")),
            stdout: Stdout::Pipe,
            nobody: false,
        }
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Call {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Call {
        self.env.remove(name);
        self
    }

    /// Another container, of another pod.
    pub(crate) fn container(self, id: &str) -> Call {
        let args = format!("K8S_POD_NAMESPACE=ns1;K8S_POD_NAME=p-{id};K8S_POD_UID=u-{id}");
        self.env("CNI_CONTAINERID", id).env("CNI_ARGS", &args)
    }

    /// Standard input as a whole.
    pub(crate) fn json(mut self, value: Value) -> Call {
        self.stdin = Stdin::Json(value);
        self
    }

    /// The usual standard input in another version.
    pub(crate) fn version(self, version: &str) -> Call {
        self.json(entry(version))
    }

    /// The usual standard input with a key laid over it.
    pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Call {
        if let Stdin::Json(entry) = &mut self.stdin {
            entry[key] = value.into();
        }
        self
    }

    /// The usual standard input without a key.
    pub(crate) fn lacking(mut self, key: &str) -> Call {
        if let Stdin::Json(entry) = &mut self.stdin {
            entry.as_object_mut().unwrap().shift_remove(key);
        }
        self
    }

    pub(crate) fn bytes(mut self, bytes: impl Into<Vec<u8>>) -> Call {
        self.stdin = Stdin::Bytes(bytes.into());
        self
    }

    pub(crate) fn stdin_stays_open(mut self) -> Call {
        self.stdin = Stdin::Open;
        self
    }

    pub(crate) fn nobody_reads_stdout(mut self) -> Call {
        self.stdout = Stdout::Broken;
        self
    }

    pub(crate) fn stdout_closed(mut self) -> Call {
        self.stdout = Stdout::Closed;
        self
    }

    /// By a user who may do nothing.
    pub(crate) fn by_nobody(mut self) -> Call {
        self.nobody = true;
        self
    }

    /// Starts it and gives it its input.
    pub(crate) fn start(&self) -> Child {
        let program = egret();
        let mut command = Command::new("/bin/sh");
        if self.stdout == Stdout::Closed {
            command.args(["-c", "exec \"$0\" >&-"]).arg(&program);
        } else {
            command = Command::new(&program);
        }
        if self.nobody {
            // Where it was built may be closed to others. Not copied by this process: what another thread forks in
            // that moment holds the copy open for writing, and the kernel starts no such program (ETXTBSY).
            let copy = format!("{SCRATCH}/egret");
            assert!(Command::new("cp").arg(&program).arg(&copy).status().unwrap().success());
            command = Command::new(copy);
            command.uid(65534).gid(65534);
        }
        let command = command.env_clear().envs(&self.env);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {}: {e}", program.display()));
        if self.stdout == Stdout::Broken {
            drop(child.stdout.take());
        }
        let bytes = match &self.stdin {
            Stdin::Json(value) => {
                let mut value = value.clone();
                if let (Some(annotations), None) = (&self.annotations, value.get("runtimeConfig")) {
                    value["runtimeConfig"] = json!({ ANNOTATIONS: annotations });
                }
                value.to_string().into_bytes()
            }
            Stdin::Bytes(bytes) => bytes.clone(),
            Stdin::Open => return child,
        };
        // A plugin may end without reading; that is no fault of the caller.
        let _ = child.stdin.take().unwrap().write_all(&bytes);
        child
    }

    /// Runs it to its end, which must come within two minutes, and checks G1–G5.
    pub(crate) fn run(self) -> Outcome {
        let child = self.start();
        let output = finish(child, AN_END);
        let verb = self.env.get("CNI_COMMAND").cloned().unwrap_or_default();
        let version = match &self.stdin {
            Stdin::Json(value) => value["cniVersion"].as_str().map(ToOwned::to_owned),
            _ => None,
        };
        let outcome = Outcome {
            exit: output.status.code().unwrap_or_else(|| panic!("{verb}: ended by {}", output.status)),
            stdout: String::from_utf8(output.stdout).expect("standard output is UTF-8"),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        if self.stdout == Stdout::Pipe {
            outcome.keeps_the_general_rules(&verb, version.as_deref());
        }
        outcome
    }
}

/// How long any call may take, on a machine with other things to do.
pub(crate) const AN_END: Duration = Duration::from_secs(120);

/// Waits for a child and everything it printed; ends it when that takes too long.
pub(crate) fn finish(mut child: Child, limit: Duration) -> Output {
    let read = |pipe: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut pipe) = pipe {
                pipe.read_to_end(&mut bytes).unwrap();
            }
            bytes
        })
    };
    let stdout = read(child.stdout.take().map(|p| Box::new(p) as _));
    let stderr = read(child.stderr.take().map(|p| Box::new(p) as _));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > limit {
            child.kill().unwrap();
            panic!(
                "no end after {limit:?}; standard error so far: {}",
                String::from_utf8_lossy(&stderr.join().unwrap())
            );
        }
        std::thread::sleep(Duration::from_micros(200));
    };
    Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

/// What a call came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) exit: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// G1 one JSON error on standard output and exit status 1; G2 on success a result from ADD and nothing from the
    /// others; G3 in the caller's version; G4 no panic; G5 a code of the specification or of our own.
    fn keeps_the_general_rules(&self, verb: &str, version: Option<&str>) {
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        let silent = matches!(verb, "DEL" | "CHECK" | "GC" | "STATUS");
        match (self.exit, silent) {
            (0, true) => assert_eq!(self.stdout, "", "{verb} prints nothing"),
            (0, false) if verb == "ADD" => assert_eq!(self.json()["cniVersion"].as_str(), version),
            (0, false) => {}
            (1, _) => {
                let error = self.json();
                let code = error["code"].as_u64().expect("`code` is a number");
                assert!(matches!(code, 1..=11 | 50 | 51 | 100..=199), "{error}");
                assert_ne!(code, 3, "3 tells the runtime that no DEL is needed");
                assert!(error["msg"].as_str().is_some_and(|msg| !msg.is_empty()), "{error}");
                let known = version.filter(|v| ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"].contains(v));
                if let (Some(version), false) = (known, code == 4) {
                    assert_eq!(error["cniVersion"], version);
                }
                if verb == "DEL" {
                    let text = self.stdout.to_lowercase();
                    assert!(
                        !text.contains("not found") && !text.contains("no such file or directory"),
                        "{text}"
                    );
                }
            }
            (exit, _) => panic!("exit status {exit}: {self:?}"),
        }
    }

    /// Standard output, which must be one JSON document.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("not one JSON document: {e}: {self:?}"))
    }

    /// It must have succeeded; what it printed.
    pub(crate) fn succeeds(&self) -> Value {
        assert_eq!(self.exit, 0, "{self:?}");
        if self.stdout.is_empty() { Value::Null } else { self.json() }
    }

    /// It must have failed with this code, and its text must hold these words.
    pub(crate) fn fails(&self, code: u64, words: &[&str]) {
        assert_eq!(self.exit, 1, "{self:?}");
        let error = self.json();
        assert_eq!(error["code"], code, "{error}");
        let text =
            format!("{} {}", error["msg"].as_str().unwrap_or(""), error["details"].as_str().unwrap_or(""));
        for word in words {
            assert!(text.contains(word), "`{word}` is missing in: {text}");
        }
    }
}
