//! The agent: from a written file to the address that the outside sees, on a node with 250 pods in a cluster of 10,000; what it
//! takes of the machine meanwhile and when nothing happens.
//!
//! Real: two nodes, two gateways, one client whose datagrams are looked at. The other 249 pods of the node are attachments
//! alone, half of them clients; the other 9,750 are files. Every change is a file that is replaced, and ends with the first datagram
//! that the outside sees as it shall be, so it contains reading, planning, the kernel's steps and a round trip.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use egret::addr::Family;
use egret::agent::state::{AgentState, FILE, Health};
use egret::node::memory::Memory;
use egret::testbed::{Masquerade, Outside, Pod, Primary, RUN_DIR, STATE_DIR, Topology, Trouble, World};

use crate::Arguments;
use crate::neighbours::Neighbours;
use crate::paths::selects;
use crate::rows::{Rows, Series, Target};
use crate::world::{LEASES, pools};

const PODS: usize = 10_000;
const ON_NODE: usize = 250;
const BINDINGS: usize = 10;
/// Between two datagrams that ask whether a change is there.
const PROBING: Duration = Duration::from_millis(1);
/// Longest wait for anything, then something is broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// Raises the world, starts both agents, measures.
pub(crate) fn measure(arguments: &Arguments, rows: &mut Rows) -> Result<(), Trouble> {
    let topology = Topology {
        nodes: 2,
        primary: Primary::Ptp,
        masquerade: Masquerade::IptablesNft,
        egret: Some(arguments.egret.clone()),
        settle: false,
        ..Topology::default()
    };
    let world = World::raise(topology)?;
    objects(&world)?;
    let add = |node, pod: &str| world.add_pod(node, pod).map_err(|e| Trouble::new(e.to_string()));
    let _gateways = [add(1, "gate/near")?, add(2, "gate/far")?];
    let pod = add(1, "shop/watched")?;
    let neighbours = Neighbours::of(&pod)?;
    (1..ON_NODE).try_for_each(|n| neighbours.add(n, None))?;
    let agents = [Agent::start(&world, 1)?, Agent::start(&world, 2)?];
    let live = Live { world: &world, pod };
    live.changes(arguments.pairs * 2, rows)?;
    agents[0].resources(rows)?;
    agents[0].flushes(&world, arguments.pairs, rows)?;
    agents.iter().try_for_each(Agent::is_well)
}

struct Live<'a> {
    world: &'a World,
    pod: Pod,
}

/// What writes a file.
type Change<'a> = &'a dyn Fn() -> Result<(), Trouble>;

/// Where the watched pod's datagrams come from.
#[derive(Debug, Clone, Copy, PartialEq)]
enum By {
    Near,
    Far,
    Nobody,
}

impl Live<'_> {
    fn changes(&self, rounds: usize, rows: &mut Rows) -> Result<(), Trouble> {
        let write = |words: &[(&str, &str)]| self.world.pod_object("shop/watched", &[], words, 1);
        let rule = |place: &str| self.world.object(&policy(place)).map(drop);
        let policy = [("egress.projectcalico.org/egressGatewayPolicy", "way")];
        rule("near")?;
        write(&[])?;
        self.until(By::Nobody)?;
        let kinds: [(&str, Change<'_>, By); 5] = [
            ("a pod is annotated", &|| write(&selects("place == 'near'")), By::Near),
            ("its annotation names another gateway", &|| write(&selects("place == 'far'")), By::Far),
            ("its annotation names a policy", &|| write(&policy), By::Near),
            ("the policy's rule changes", &|| rule("far"), By::Far),
            ("the annotation is taken off", &|| write(&[]), By::Nobody),
        ];
        let mut series = vec![Series::default(); kinds.len()];
        for _ in 0..rounds {
            for ((_, change, then), series) in kinds.iter().zip(&mut series) {
                let began = Instant::now();
                change()?;
                self.until(*then)?;
                series.0.push(began.elapsed().as_secs_f64() * 1e3);
                // What the change set in motion (records heard, own notices) is over, as between two changes by people.
                std::thread::sleep(Duration::from_millis(60));
            }
            rule("near")?;
            std::thread::sleep(Duration::from_millis(120));
        }
        for ((what, _, _), series) in kinds.iter().zip(&series) {
            rows.figure(&format!("file written → seen outside, {what}"), series, "ms", Target::None);
        }
        let all = Series(series.into_iter().flat_map(|s| s.0).collect());
        rows.figure("file written → seen outside, all of these", &all, "ms", Target::None);
        rows.share("… 99 of 100 within", &all, 0.99, "ms", Target::AtMost(100.0));
        Ok(())
    }

    fn until(&self, by: By) -> Result<(), Trouble> {
        let mut pod = self.pod.clone();
        pod.patience = Duration::from_millis(4);
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            // Each is a flow of its own, which the node remembers and the agent must look at: not thousands a second.
            std::thread::sleep(PROBING);
            if let Ok(seen) = pod.udp(Outside::Near.address(Family::V4)) {
                let is = match seen.to_string().as_str() {
                    text if text == self.lease("gate/near")? => By::Near,
                    text if text == self.lease("gate/far")? => By::Far,
                    _ => By::Nobody,
                };
                if is == by {
                    return Ok(());
                }
            }
        }
        Err(Trouble::new(format!("the pod never left by {by:?}")))
    }

    fn lease(&self, gateway: &str) -> Result<String, Trouble> {
        let dir = egret::store::Dir::at(Path::new(STATE_DIR)).map_err(|e| Trouble::new(e.to_string()))?;
        let (all, _) = egret::store::endpoints::list(&dir).map_err(|e| Trouble::new(e.to_string()))?;
        let own = all.iter().find(|e| e.pod.to_string() == gateway);
        let lease = own.and_then(|e| e.address(Family::V4));
        lease.map(|ip| ip.to_string()).ok_or_else(|| Trouble::new(format!("{gateway} has no lease")))
    }
}

fn policy(place: &str) -> String {
    format!(
        "apiVersion: egret.dev/v1alpha1\nkind: EgressGatewayPolicy\nmetadata: {{name: way}}\nspec:\n  rules:\n  - gateway: \
         {{selector: \"place == '{place}'\", namespaceSelector: \"projectcalico.org/name == 'gate'\"}}\n"
    )
}

/// Two pools, namespaces, two gateways, and a file for each of ten thousand pods.
fn objects(world: &World) -> Result<(), Trouble> {
    pools(world)?;
    for namespace in ["gate", "shop"] {
        world.namespace(namespace, &[], &[])?;
    }
    world.pod_object("gate/near", &[("place", "near")], &LEASES, 1)?;
    world.pod_object("gate/far", &[("place", "far")], &LEASES, 2)?;
    world.pod_object("shop/watched", &[], &[], 1)?;
    for n in 0..BINDINGS {
        world.object(
            &policy("far")
                .replace("{name: way}", &format!("{{name: way-{n}}}"))
                .replace("rules:\n", &format!("rules:\n  - destination: {{cidr: 203.0.113.{n}/32}}\n")),
        )?;
    }
    for n in 1..PODS {
        let way = format!("way-{}", n % BINDINGS);
        let words = [("egress.projectcalico.org/egressGatewayPolicy", way.as_str())];
        let words: &[_] = if n < ON_NODE / 2 { &words } else { &[] };
        let node = if n < ON_NODE { 1 } else { 2 };
        let labels = [("app", "shop"), ("pod-template-hash", "7d4b9c6f5")];
        world.pod_object(&format!("shop/other-{n}"), &labels, words, node)?;
    }
    Ok(())
}

/// The agent of a node, as a process of its own.
struct Agent {
    child: Child,
    node: u8,
}

impl Agent {
    fn start(world: &World, node: u8) -> Result<Agent, Trouble> {
        let trouble = |e: std::io::Error| Trouble::new(format!("the agent does not start: {e}"));
        let network = world.node(node).netns()?;
        let egret = world.topology().egret.clone().unwrap_or_default();
        let mut command = Command::new(egret);
        command.args(["agent", "--log", "warn", "--config"]).arg(world.conflist_path(node));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        // SAFETY: between fork and exec only system calls are made, on a descriptor opened before.
        unsafe {
            command.pre_exec(move || {
                let entered = libc::setns(network.as_fd().as_raw_fd(), libc::CLONE_NEWNET);
                let bound = libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                if entered == 0 && bound == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
            });
        }
        let agent = Agent { child: command.spawn().map_err(trouble)?, node };
        let end = Instant::now() + PATIENCE;
        while agent.state().is_none_or(|state| state.health != Health::Well) {
            if Instant::now() > end {
                return Err(Trouble::new(format!("the agent is not well: {:?}", agent.state())));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(agent)
    }

    fn state(&self) -> Option<AgentState> {
        let memory = Memory::new(Path::new(RUN_DIR), &format!("node{}", self.node));
        let state: AgentState = serde_json::from_slice(&fs::read(memory.dir().join(FILE)).ok()?).ok()?;
        Some(state).filter(|state| state.pid == self.child.id())
    }

    fn is_well(&self) -> Result<(), Trouble> {
        match self.state() {
            Some(state) if state.health == Health::Well => Ok(()),
            state => Err(Trouble::new(format!("the agent of node {} is not well: {state:?}", self.node))),
        }
    }

    fn proc(&self, file: &str) -> Result<String, Trouble> {
        let path = format!("/proc/{}/{file}", self.child.id());
        fs::read_to_string(&path).map_err(|e| Trouble::new(format!("{path}: {e}")))
    }

    /// Resident memory, and the share of one processor that it takes when nothing happens.
    fn resources(&self, rows: &mut Rows) -> Result<(), Trouble> {
        let status = self.proc("status")?;
        let line = |name: &str| -> f64 {
            let value = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = value.and_then(|v| v.trim_start_matches(':').split_whitespace().next());
            kib.and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(f64::NAN) * 1024.0 / 1e6
        };
        let what = format!("memory of the agent, {PODS} pods in the directory");
        rows.figure(
            &format!("{what}, at its highest"),
            &Series(vec![line("VmHWM")]),
            "MB",
            Target::AtMost(20.0),
        );
        rows.figure(&format!("{what}, resident"), &Series(vec![line("VmRSS")]), "MB", Target::None);
        let ticks = || -> Result<f64, Trouble> {
            // Fields 14 and 15 of proc(5)'s stat, behind the name in brackets; a hundred a second.
            let stat = self.proc("stat")?;
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            let of = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(f64::NAN);
            Ok(of(11) + of(12))
        };
        let (before, time) = (ticks()?, Duration::from_secs(20));
        std::thread::sleep(time);
        let share = (ticks()? - before) / time.as_secs_f64();
        rows.figure("processor of the agent when nothing happens", &Series(vec![share]), "%", Target::None);
        Ok(())
    }

    /// The window that somebody opens who flushes the ruleset, from the kernel's notice to the rules' return.
    fn flushes(&self, world: &World, times: usize, rows: &mut Rows) -> Result<(), Trouble> {
        let windows = || self.state().map(|state| state.ruleset_flushes).unwrap_or_default();
        let mut series = Series::default();
        for _ in 0..times {
            let before = windows().times;
            // Somebody else's rules must stay: the masquerade is in tables of its own.
            world.node(self.node).sh("nft delete table inet egret; nft delete table netdev egret")?;
            let end = Instant::now() + PATIENCE;
            while windows().times == before && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(5));
            }
            series.0.push(windows().last_micros as f64 / 1e3);
            std::thread::sleep(Duration::from_millis(200));
        }
        rows.figure("our nftables tables deleted → back", &series, "ms", Target::None);
        rows.share("… the longest", &series, 1.0, "ms", Target::AtMost(100.0));
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
