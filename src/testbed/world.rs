//! The world: raised from a topology, gone with its thread.
//!
//! In: a topology, objects, verbs on pods. Out: pods, captures, places. Calls may come from the thread that raised it
//! and from threads that it started later; others do not share its mounts.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::capture::Capture;
use super::conflist::conflist;
use super::flow::Flow;
use super::objects::{self, Words};
use super::packet::Spot;
use super::place::{Place, run_to_end};
use super::pod::Outsiders;
use super::private::{Private, WORLD_DIR};
use super::service::Service;
use super::topology::{Outside, Topology, fabric, lease_network, pod_networks};
use super::verdict::INBOUND_PORTS;
use super::{HTTP_PORT, LINES_PORT, Trouble, netns, probe, wire};
use crate::addr::{Cidr, Family};
use crate::egress::model::PodName;

/// How long probes wait, unless a story says otherwise.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Nodes, a router and the outside.
#[derive(Debug)]
pub struct World {
    topology: Topology,
    pub(super) programs: PathBuf,
    book: Mutex<Book>,
    pub(super) outsiders: Option<Arc<Outsiders>>,
    // Last: namespaces go when nobody uses them any more.
    _private: Option<Private>,
}

/// What the world remembers between calls.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) sandboxes: u32,
    inbound: u16,
    pub(super) objects: BTreeMap<PodName, Written>,
}

/// What matters of a Pod object at its ADD.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub(super) uid: String,
    pub(super) annotations: Map<String, Value>,
}

/// Where cnitool and the reference plugins lie: `$EGRET_CACHE/bin`, else `~/.cache/egret/bin`.
pub fn programs_dir() -> PathBuf {
    let cache = std::env::var_os("EGRET_CACHE").map(PathBuf::from);
    let home = || Path::new(&std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache/egret");
    cache.unwrap_or_else(home).join("bin")
}

impl World {
    /// Raises a world around the calling thread, which leaves the machine's mounts and network for it.
    pub fn raise(topology: Topology) -> Result<World, Trouble> {
        let programs = programs_dir();
        for program in ["cnitool", "bridge", "ptp", "host-local", "portmap"] {
            let path = programs.join(program);
            if !path.exists() {
                let path = path.display();
                return Err(Trouble::new(format!(
                    "{path} is missing: build cnitool and the reference plugins there, or name their place in EGRET_CACHE"
                )));
            }
        }
        let private = Private::enter()?;
        wire::wire(&topology)?;
        let start = |at: Outside| Service::start(&Place::named(at.name()).netns()?);
        let services = [start(Outside::Near)?, start(Outside::Far)?];
        let outsiders = Some(Arc::new(Outsiders { services }));
        let world = World { topology, programs, book: Mutex::default(), outsiders, _private: Some(private) };
        for node in world.topology.node_numbers() {
            objects::write_node(&world.topology, node)?;
            let list = conflist(&world.topology, node);
            store(&world.conflist_path(node), &format!("{list:#}\n"))?;
            if let Some(records) = world.node(node).cni_dir() {
                make_dir(records)?;
            }
        }
        make_dir(&records_dir())?;
        store(&Path::new(WORLD_DIR).join("topology.json"), &json!(world.topology).to_string())?;
        Ok(world)
    }

    /// Joins the world of another process; the calling process must have one thread. Captures and pings that name
    /// their source need the process that raised it; pods share the fixed ports.
    pub fn join(pid: i32) -> Result<World, Trouble> {
        Private::join(pid)?;
        let path = Path::new(WORLD_DIR).join("topology.json");
        let text = fs::read_to_string(&path)
            .map_err(|e| Trouble::new(format!("process {pid} holds no world: {e}")))?;
        let topology =
            serde_json::from_str(&text).map_err(|e| Trouble::new(format!("{}: {e}", path.display())))?;
        let (programs, book) = (programs_dir(), Mutex::default());
        Ok(World { topology, programs, book, outsiders: None, _private: None })
    }

    /// Its topology.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// A node as a place: its commands find the CNI programs, and Egret where the topology names it.
    pub fn node(&self, number: u8) -> Place {
        let egret = self.topology.egret.as_ref().and_then(|p| p.parent());
        let programs = [Some(self.programs.as_path()), egret];
        let programs: Vec<_> = programs.into_iter().flatten().map(|p| p.display().to_string()).collect();
        let programs = programs.join(":");
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
        let lists = self.conflist_path(number).parent().map(|p| p.display().to_string());
        Place::named(wire::node_name(number))
            .with_cni_dir()
            .with_variable("PATH", format!("{programs}:{path}"))
            .with_variable("CNI_PATH", programs)
            .with_variable("NETCONFPATH", lists.unwrap_or_default())
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = Place> + '_ {
        self.topology.node_numbers().map(|n| self.node(n))
    }

    /// The router.
    pub fn router(&self) -> Place {
        Place::named(wire::ROUTER)
    }

    /// A place behind the router.
    pub fn outside(&self, at: Outside) -> Place {
        Place::named(at.name())
    }

    /// The node's network list; a story may rewrite it.
    pub fn conflist_path(&self, node: u8) -> PathBuf {
        Path::new(WORLD_DIR).join(wire::node_name(node)).join("10-pods.conflist")
    }

    /// Opens a connection from the outside to a server that speaks lines in a pod or node.
    pub fn connect_from(&self, at: Outside, to: SocketAddr) -> io::Result<Flow> {
        let port = {
            let mut book = self.book();
            book.inbound = (book.inbound + 1) % INBOUND_PORTS.len() as u16;
            INBOUND_PORTS.start + book.inbound
        };
        let netns = netns::open(&self.outside(at).path())?;
        Flow::tcp(probe::tcp_connect_from(&netns, port, to, PATIENCE)?, PATIENCE)
    }

    /// Starts counting what leaves the nodes.
    pub fn capture(&self) -> Result<Capture, Trouble> {
        self.capture_with_buffer(super::capture::BUFFER)
    }

    /// The same with another receive buffer (bytes) than the large one that fits any story's bursts.
    pub fn capture_with_buffer(&self, bytes: usize) -> Result<Capture, Trouble> {
        let spots = [
            (Spot::Router, self.router()),
            (Spot::Outside, self.outside(Outside::Near)),
            (Spot::Far, self.outside(Outside::Far)),
        ];
        let open = |(spot, place): (Spot, Place)| Ok((spot, place.netns()?));
        let spots: Result<Vec<_>, Trouble> = spots.into_iter().map(open).collect();
        let inside: Vec<Cidr> =
            Family::BOTH.iter().flat_map(|f| [fabric(*f), lease_network(*f), pod_networks(*f)]).collect();
        Capture::start(spots?, inside, self.topology.forbidden(), bytes)
    }

    // --- objects ---------------------------------------------------------------------------------------------

    /// Writes an object (YAML) into the shared directory; the same kind and name again replaces it.
    pub fn object(&self, yaml: &str) -> Result<PathBuf, Trouble> {
        objects::write(yaml)
    }

    /// Pools `own` and `own6`: pods of any namespace may be gateways with addresses of their own, for any namespace.
    pub fn own_address_pools(&self) -> Result<(), Trouble> {
        for (name, family) in [("own", Family::V4), ("own6", Family::V6)] {
            self.object(&format!(
                "apiVersion: egret.dev/v1alpha1\nkind: EgressPool\nmetadata: {{name: {name}}}\n\
                 spec: {{cidr: '{}', source: PodAddress, gatewayNamespaces: all(), clientNamespaces: all()}}\n",
                pod_networks(family)
            ))?;
        }
        Ok(())
    }

    /// Writes a file below `objects/` as it is.
    pub fn object_file(&self, name: &str, text: &str) -> Result<PathBuf, Trouble> {
        objects::write_file(name, text)
    }

    /// Removes an object; `namespace` is `None` for cluster objects.
    pub fn remove_object(&self, kind: &str, namespace: Option<&str>, name: &str) -> Result<(), Trouble> {
        objects::remove(kind, namespace.unwrap_or("none"), name)
    }

    /// Writes a core Namespace.
    pub fn namespace(&self, name: &str, labels: Words<'_>, annotations: Words<'_>) -> Result<(), Trouble> {
        objects::write_namespace(name, labels, annotations).map(drop)
    }

    /// Writes a core Pod; its UID stays while the object does. An ADD of that pod takes UID and annotations from here.
    pub fn pod_object(
        &self,
        pod: &str,
        labels: Words<'_>,
        annotations: Words<'_>,
        node: u8,
    ) -> Result<(), Trouble> {
        let name = pod_name(pod);
        let known = self.book().objects.get(&name).map(|w| w.uid.clone());
        let uid = known.unwrap_or_else(new_uid);
        objects::write_pod(&name, &uid, labels, annotations, node)?;
        self.book().objects.insert(name, Written { uid, annotations: objects::map(annotations) });
        Ok(())
    }

    /// Removes a core Pod; the next one of that name has another UID.
    pub fn remove_pod_object(&self, pod: &str) -> Result<(), Trouble> {
        let name = pod_name(pod);
        self.book().objects.remove(&name);
        objects::remove("Pod", &name.namespace, &name.name)
    }

    // --- egret -----------------------------------------------------------------------------------------------

    /// Runs `egret ARGUMENTS` on a node.
    pub fn egret(&self, node: u8, arguments: &[&str]) -> Result<Output, Trouble> {
        let Some(egret) = &self.topology.egret else {
            return Err(Trouble::new("this world's topology names no egret binary"));
        };
        let mut command = self.node(node).command(egret)?;
        command.args(arguments);
        run_to_end(command, b"").map_err(|e| Trouble::new(format!("cannot run {}: {e}", egret.display())))
    }

    /// Every node reconciles once: what a cluster's agents would do by themselves. Nothing without an egret binary.
    pub fn settle(&self) -> Result<(), Trouble> {
        if self.topology.egret.is_none() {
            return Ok(());
        }
        for node in self.topology.node_numbers() {
            let path = self.conflist_path(node).display().to_string();
            let output = self.egret(node, &["reconcile", "--config", &path])?;
            if !output.status.success() {
                // What failed stands in the report, why there is none on standard error.
                let said = [output.stdout, output.stderr].concat();
                let said = String::from_utf8_lossy(&said);
                return Err(Trouble::new(format!("node{node}: egret reconcile failed: {}", said.trim())));
            }
        }
        Ok(())
    }

    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `namespace/name`; a bare name is in `default`.
pub fn pod_name(text: &str) -> PodName {
    let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
    PodName::new(namespace, name)
}

/// A UID that no other pod of this machine's worlds has.
pub(super) fn new_uid() -> String {
    let (process, number) = (std::process::id(), probe::next_number());
    format!("{process:08x}-0000-4000-8000-{number:012x}")
}

pub(super) fn records_dir() -> PathBuf {
    Path::new(WORLD_DIR).join("pods")
}

fn make_dir(path: &Path) -> Result<(), Trouble> {
    fs::create_dir_all(path).map_err(|e| Trouble::new(format!("cannot make {}: {e}", path.display())))
}

pub(super) fn store(path: &Path, text: &str) -> Result<(), Trouble> {
    make_dir(path.parent().unwrap_or(path))?;
    fs::write(path, text).map_err(|e| Trouble::new(format!("cannot write {}: {e}", path.display())))
}

const _: () = assert!(LINES_PORT < INBOUND_PORTS.start && HTTP_PORT < INBOUND_PORTS.start);
