//! What a container runtime does: makes a pod's namespace and has the real libcni wire it.
//!
//! In: a node, a pod's name, its Pod object if one was written. Out: a wired [`Pod`], or what cnitool said.
//! Never: helps the plugins; what they leave undone stays undone.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Weak};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::place::{Place, run_to_end};
use super::pod::{CnitoolError, Pod, addresses};
use super::private::NETNS_DIR;
use super::topology::{NETWORK, Outside};
use super::verdict::{POD_PORTS, PORTS_PER_POD};
use super::world::{PATIENCE, World, new_uid, pod_name, records_dir, store};
use super::{LINES_PORT, Trouble, netns, wire};
use crate::egress::model::PodName;

/// A pod as other processes (the lab) find it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    name: PodName,
    node: u8,
    uid: String,
    sandbox: String,
    result: Value,
    capabilities: Map<String, Value>,
}

impl World {
    /// An empty network namespace for a pod, as a runtime makes it before any plugin runs.
    pub fn sandbox(&self, node: u8, pod: &str) -> Result<Pod, Trouble> {
        let name = pod_name(pod);
        let (number, written) = {
            let mut book = self.book();
            book.sandboxes += 1;
            (book.sandboxes, book.objects.get(&name).cloned())
        };
        let sandbox = self.sandbox_name(&name);
        netns::create(&Path::new(NETNS_DIR).join(&sandbox))?;
        let place = Place::named(sandbox);
        wire::prepare(&place, self.topology())?;
        let annotations = written.as_ref().map(|w| w.annotations.clone()).unwrap_or_default();
        let mut capabilities = Map::new();
        if self.topology().runtime_annotations && !annotations.is_empty() {
            capabilities.insert("io.kubernetes.cri.pod-annotations".to_owned(), annotations.into());
        }
        let uid = written.map_or_else(new_uid, |w| w.uid);
        let port = self.ports(number)?;
        Ok(Pod {
            name,
            node,
            uid,
            addresses: Vec::new(),
            result: Value::Null,
            capabilities,
            patience: PATIENCE,
            place,
            port,
            outsiders: self.outsiders.as_ref().map_or_else(Weak::new, Arc::downgrade),
        })
    }

    /// A name for `ip netns`: `NAMESPACE_NAME`, and a number from the second incarnation on. Pod names have no `_`.
    fn sandbox_name(&self, pod: &PodName) -> String {
        let base = format!("{}_{}", pod.namespace, pod.name);
        let taken =
            |name: &String| Path::new(NETNS_DIR).join(name).exists() || records_dir().join(name).exists();
        let later = (2..).map(|n| format!("{base}+{n}"));
        std::iter::once(base.clone()).chain(later).find(|name| !taken(name)).unwrap_or(base)
    }

    /// The pod's own ports, opened at both outsides.
    fn ports(&self, number: u32) -> Result<u16, Trouble> {
        let Some(outsiders) = &self.outsiders else { return Ok(LINES_PORT) };
        let turns = POD_PORTS.len() as u32 / u32::from(PORTS_PER_POD);
        if number >= turns {
            return Err(Trouble::new(format!(
                "a world has ports for {turns} pods; raise a new one for more"
            )));
        }
        let port = POD_PORTS.start + number as u16 * PORTS_PER_POD;
        for (at, service) in Outside::BOTH.into_iter().zip(&outsiders.services) {
            service.listen(&self.outside(at).netns()?, port, port + 1)?;
        }
        Ok(port)
    }

    /// Wires a sandbox by cnitool ADD.
    pub fn wire(&self, pod: &mut Pod) -> Result<(), CnitoolError> {
        let said = self.add(pod)?;
        pod.result =
            serde_json::from_str(&said).map_err(|e| error("add", pod, format!("no JSON ({e}): {said}")))?;
        pod.addresses = addresses(&pod.result);
        let record = Record {
            name: pod.name.clone(),
            node: pod.node,
            uid: pod.uid.clone(),
            sandbox: pod.place.name().to_owned(),
            result: pod.result.clone(),
            capabilities: pod.capabilities.clone(),
        };
        store(&records_dir().join(pod.place.name()), &json!(record).to_string())
            .map_err(|e| error("add", pod, e.to_string()))
    }

    /// ADD, as a runtime does it. Among fifty on two busy cores the reference `bridge` may give up, where duplicate address detection
    /// takes it 5 s, and so may we (error 11), on the node's lock; what a runtime does then is DEL and another try, and another.
    pub fn add(&self, pod: &Pod) -> Result<String, CnitoolError> {
        const TRIES: usize = 10;
        const LATER: [&str; 2] = ["still has tentative addresses", "gave up after"];
        let mut result = self.cnitool("add", pod);
        for _ in 1..TRIES {
            match result {
                Err(error) if LATER.iter().any(|later| error.said.contains(later)) => {
                    self.cnitool("del", pod)?;
                    result = self.cnitool("add", pod);
                }
                done => return done,
            }
        }
        result
    }

    /// Makes and wires a pod; then every node settles, if the topology says so.
    ///
    /// A failed ADD is followed by DEL, as runtimes do, and leaves no namespace.
    pub fn add_pod(&self, node: u8, pod: &str) -> Result<Pod, CnitoolError> {
        let failed = |e: Trouble| CnitoolError { verb: "add".into(), pod: pod.into(), said: e.to_string() };
        let mut pod = self.sandbox(node, pod).map_err(failed)?;
        if let Err(error) = self.wire(&mut pod) {
            let _ = self.cnitool("del", &pod);
            self.lose_pod(&pod).map_err(failed)?;
            return Err(error);
        }
        self.settle_if_asked(&pod)?;
        Ok(pod)
    }

    /// DEL, then the namespace goes, then the Pod object; then every node settles, if the topology says so.
    pub fn del_pod(&self, pod: &Pod) -> Result<(), CnitoolError> {
        self.stop_sandbox(pod)?;
        self.remove_pod_object(&pod.name.to_string()).map_err(|e| error("del", pod, e.to_string()))?;
        self.settle_if_asked(pod)
    }

    /// DEL, then the namespace goes; the Pod object stays, as when a runtime restarts a sandbox.
    pub fn stop_sandbox(&self, pod: &Pod) -> Result<(), CnitoolError> {
        self.cnitool("del", pod)?;
        self.lose_pod(pod).map_err(|e| error("del", pod, e.to_string()))
    }

    /// CHECK.
    pub fn check_pod(&self, pod: &Pod) -> Result<(), CnitoolError> {
        self.cnitool("check", pod).map(drop)
    }

    /// The namespace goes without DEL.
    pub fn lose_pod(&self, pod: &Pod) -> Result<(), Trouble> {
        let _ = fs::remove_file(records_dir().join(pod.place.name()));
        let path = pod.place.path();
        netns::delete(&path).map_err(|e| Trouble::new(format!("cannot delete {}: {e}", path.display())))
    }

    /// Pods that are wired now, in any process that joined.
    pub fn pods(&self) -> Vec<Pod> {
        let entries = fs::read_dir(records_dir()).into_iter().flatten().flatten();
        let records =
            entries.filter_map(|e| serde_json::from_slice::<Record>(&fs::read(e.path()).ok()?).ok());
        let mut pods: Vec<Pod> = records.map(|r| self.remembered(r)).collect();
        pods.sort_by(|a, b| (&a.name, a.node).cmp(&(&b.name, b.node)));
        pods
    }

    fn remembered(&self, record: Record) -> Pod {
        Pod {
            name: record.name,
            node: record.node,
            uid: record.uid,
            addresses: addresses(&record.result),
            result: record.result,
            capabilities: record.capabilities,
            patience: PATIENCE,
            place: Place::named(record.sandbox),
            port: LINES_PORT,
            outsiders: self.outsiders.as_ref().map_or_else(Weak::new, Arc::downgrade),
        }
    }

    fn settle_if_asked(&self, pod: &Pod) -> Result<(), CnitoolError> {
        if !self.topology().settle {
            return Ok(());
        }
        self.settle().map_err(|e| error("reconcile", pod, e.to_string()))
    }

    /// Any verb of cnitool for a pod, on its node; gives its standard output.
    pub fn cnitool(&self, verb: &str, pod: &Pod) -> Result<String, CnitoolError> {
        let output = self.cnitool_command(verb, pod).and_then(|command| {
            run_to_end(command, b"").map_err(|e| Trouble::new(format!("cannot run cnitool: {e}")))
        });
        let output = output.map_err(|e| error(verb, pod, e.to_string()))?;
        if !output.status.success() {
            return Err(error(verb, pod, String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The command that [`World::cnitool`] runs, for a story that adds to its environment or ends it half-way.
    pub fn cnitool_command(&self, verb: &str, pod: &Pod) -> Result<Command, Trouble> {
        let mut command = self.node(pod.node).command(self.programs.join("cnitool"))?;
        command.args([verb, NETWORK]).arg(pod.place.path()).env("CNI_ARGS", cni_args(pod));
        command.env("CAP_ARGS", Value::from(pod.capabilities.clone()).to_string());
        Ok(command)
    }

    /// Runs one plugin directly, as libcni would: verb in capitals, this configuration on standard input.
    pub fn plugin(&self, plugin: &Path, verb: &str, pod: &Pod, stdin: &str) -> Result<Output, Trouble> {
        let mut command = self.node(pod.node).command(plugin)?;
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", pod.container_id()?)
            .env("CNI_IFNAME", "eth0");
        command.env("CNI_NETNS", pod.place.path()).env("CNI_ARGS", cni_args(pod));
        run_to_end(command, stdin.as_bytes())
            .map_err(|e| Trouble::new(format!("cannot run {}: {e}", plugin.display())))
    }
}

fn error(verb: &str, pod: &Pod, said: String) -> CnitoolError {
    CnitoolError { verb: verb.to_owned(), pod: pod.name.to_string(), said }
}

fn cni_args(pod: &Pod) -> String {
    let PodName { namespace, name } = &pod.name;
    let uid = &pod.uid;
    format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_UID={uid}")
}
