//! Whole-process ADD + DEL beside the reference `sbr`: same network namespace, same prevResult, in turn.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use egret::addr::Family;
use egret::egress::model::PodName;
use egret::kernel::netns::Netns;
use egret::testbed::{
    Families, Masquerade, Pod, Primary, RUN_DIR, Topology, Trouble, World, node_address, pod_networks,
    programs_dir,
};
use serde_json::{Value, json};

use crate::rows::{Pairs, Rows, Series, Target};
use crate::spawn::Call;
use crate::{Arguments, cluster};

/// Raises a world of two nodes: on the first a client stays, the second has nothing of ours between two calls.
pub(crate) fn measure(arguments: &Arguments, rows: &mut Rows) -> Result<(), Trouble> {
    let bench = Bench::raise(arguments)?;
    bench.binary(rows)?;
    let bare = bench.pod(2, "bare")?;
    let unselected = cluster::pod(1, 1);
    let pairs = bench.pairs(&bare, &unselected, arguments.pairs)?;
    rows.ratio(
        "ADD + DEL, pod without egress, node without egress",
        &pairs,
        "ms",
        "sbr",
        Target::AtMost(0.3),
    );
    let gateway = cluster::gateway(cluster::GATEWAYS - 1);
    let pairs = bench.first_gateways(&gateway, arguments.pairs)?;
    rows.ratio("ADD + DEL, first gateway pod of a node", &pairs, "ms", "sbr", Target::AtMost(4.0));
    let peak = bench.peak(&bare, &gateway)?;
    rows.figure("peak memory, first gateway pod of a node", &peak, "MB", Target::AtMost(6.0));

    let stays = bench.pod(1, "stays")?;
    bench.call(&bench.egret, "ADD", &stays, &cluster::pod(0, 0))?.time(&bench.nodes[0])?;
    let comes = bench.pod(1, "comes")?;
    let pairs = bench.pairs(&comes, &unselected, arguments.pairs)?;
    rows.ratio("ADD + DEL, pod without egress, node with clients", &pairs, "ms", "sbr", Target::AtMost(0.3));
    // Of the namespace of the client that stays: bindings are per namespace.
    let client = cluster::pod(0, cluster::NAMESPACES - 1);
    let pairs = bench.pairs(&comes, &client, arguments.pairs)?;
    rows.ratio("ADD + DEL, client pod whose binding exists", &pairs, "ms", "sbr", Target::AtMost(0.6));
    let peak = bench.peak(&comes, &client)?;
    rows.figure("peak memory, client pod", &peak, "MB", Target::AtMost(6.0));
    bench.call(&bench.egret, "DEL", &stays, &cluster::pod(0, 0))?.time(&bench.nodes[0]).map(drop)
}

struct Bench {
    world: World,
    egret: PathBuf,
    sbr: PathBuf,
    state: PathBuf,
    nodes: [Netns; 2],
}

impl Bench {
    fn raise(arguments: &Arguments) -> Result<Bench, Trouble> {
        let sbr = programs_dir().join("sbr");
        if !sbr.exists() {
            return Err(Trouble::new(format!("the reference plugin {} is missing", sbr.display())));
        }
        // On a disk, because the fsyncs of a gateway's ADD are part of what it costs.
        let state = arguments.scratch.join("state");
        let _ = fs::remove_dir_all(&state);
        let own = [("node1", node_address(1, Family::V4)), ("node2", node_address(2, Family::V4))];
        cluster::write(&state, &own)?;
        // Younger files than 20 ms are read again at every call, whatever the cache says.
        std::thread::sleep(Duration::from_millis(50));
        let topology = Topology {
            nodes: 2,
            primary: Primary::Ptp,
            masquerade: Masquerade::IptablesNft,
            br_netfilter: false,
            // `sbr` 1.9.0 fails on a pod with both families ("Failed to add default route": file exists).
            families: Families::V4,
            ..Topology::default()
        };
        let world = World::raise(topology)?;
        let nodes = [world.node(1).netns()?, world.node(2).netns()?];
        Ok(Bench { world, egret: arguments.egret.clone(), sbr, state, nodes })
    }

    /// What the binary is: its size, and the time of the shortest call there is.
    fn binary(&self, rows: &mut Rows) -> Result<(), Trouble> {
        let size = fs::metadata(&self.egret).map_err(|e| Trouble::new(e.to_string()))?.len();
        rows.figure("size of the static binary", &Series(vec![size as f64 / 1e6]), "MB", Target::None);
        let stdin = Path::new("/run/version.json");
        write(stdin, &json!({"cniVersion": "1.0.0"}))?;
        let mut pairs = Pairs::default();
        for _ in 0..45 {
            let time = |program: &Path| {
                let (netns, args) = (PathBuf::new(), String::new());
                Call { program, verb: "VERSION", stdin, netns, args, container: "" }.time(&self.nodes[1])
            };
            pairs.push(time(&self.egret)?, time(&self.sbr)?);
        }
        rows.ratio("start-up (VERSION)", &pairs, "ms", "sbr", Target::None);
        Ok(())
    }

    /// A namespace that the primary plugin wired, with what each plugin is told about it.
    fn pod(&self, node: u8, name: &str) -> Result<Pod, Trouble> {
        let pod = self.world.add_pod(node, name).map_err(|e| Trouble::new(e.to_string()))?;
        let inside: Vec<String> = Family::BOTH.iter().map(|f| pod_networks(*f).to_string()).collect();
        let mut egret = json!({
            "type": "egret", "nodeName": format!("node{node}"), "stateDir": self.state, "runDir": RUN_DIR,
            "clusterCIDRs": inside,
        });
        let mut sbr = json!({"type": "sbr"});
        for (program, config) in [(&self.egret, &mut egret), (&self.sbr, &mut sbr)] {
            config["cniVersion"] = "1.0.0".into();
            config["name"] = "pods".into();
            config["prevResult"] = pod.result.clone();
            write(&stdin(program, &pod), config)?;
        }
        Ok(pod)
    }

    fn call<'a>(
        &self,
        program: &'a Path,
        verb: &'a str,
        pod: &Pod,
        as_pod: &PodName,
    ) -> Result<Prepared<'a>, Trouble> {
        let PodName { namespace, name } = as_pod;
        let args = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_UID={}",
            cluster::uid(as_pod)
        );
        Ok(Prepared {
            program,
            verb,
            stdin: stdin(program, pod),
            netns: pod.place().path(),
            args,
            pod: pod.place().name().to_owned(),
        })
    }

    /// In turn, after one pair that finds cold caches. What ADD and DEL took apart is printed.
    fn pairs(&self, pod: &Pod, as_pod: &PodName, count: usize) -> Result<Pairs, Trouble> {
        let node = &self.nodes[usize::from(pod.node) - 1];
        let both = |program: &Path| -> Result<f64, Trouble> {
            let add = self.call(program, "ADD", pod, as_pod)?.time(node)?;
            let del = self.call(program, "DEL", pod, as_pod)?.time(node)?;
            if program == self.egret {
                print!("{add:.2} + {del:.2}, ");
            }
            Ok(add + del)
        };
        print!("egret ADD + DEL as {as_pod} (ms): ");
        let routes = Routes::of(pod)?;
        let mut pairs = Pairs::default();
        for round in 0..=count {
            let ours = both(&self.egret)?;
            let theirs = both(&self.sbr)?;
            routes.restore(pod)?;
            // The first pair finds cold caches.
            if round > 0 {
                pairs.push(ours, theirs);
            }
        }
        println!();
        Ok(pairs)
    }

    /// Each time on a node that has nothing of ours, with a pod that was never a gateway: what DEL leaves in its namespace
    /// goes with it.
    fn first_gateways(&self, as_pod: &PodName, count: usize) -> Result<Pairs, Trouble> {
        let (mut pairs, node) = (Pairs::default(), &self.nodes[1]);
        for round in 0..=count {
            let pod = self.pod(2, &format!("first-{round}"))?;
            let config = stdin(&self.egret, &pod);
            std::thread::sleep(Duration::from_millis(50));
            let both = |program: &Path| -> Result<f64, Trouble> {
                let add = self.call(program, "ADD", &pod, as_pod)?.time(node)?;
                let del = self.call(program, "DEL", &pod, as_pod)?.time(node)?;
                if program == self.egret {
                    println!("  first gateway: ADD {add:.2} ms, DEL {del:.2} ms");
                }
                Ok(add + del)
            };
            let (ours, theirs) = (both(&self.egret)?, both(&self.sbr)?);
            if round > 0 {
                pairs.push(ours, theirs);
            }
            let config = config.display().to_string();
            self.world.node(2).run(&self.egret.display().to_string(), &["uninstall", "--config", &config])?;
            self.world.stop_sandbox(&pod).map_err(|e| Trouble::new(e.to_string()))?;
        }
        Ok(pairs)
    }

    fn peak(&self, pod: &Pod, as_pod: &PodName) -> Result<Series, Trouble> {
        let node = &self.nodes[usize::from(pod.node) - 1];
        let mut peaks = Series::default();
        for _ in 0..5 {
            for verb in ["ADD", "DEL"] {
                peaks.0.push(self.call(&self.egret, verb, pod, as_pod)?.peak(node)?);
            }
        }
        Ok(peaks)
    }
}

/// A call that owns its texts.
struct Prepared<'a> {
    program: &'a Path,
    verb: &'a str,
    stdin: PathBuf,
    netns: PathBuf,
    args: String,
    /// The container is the namespace's.
    pod: String,
}

impl Prepared<'_> {
    fn with<T>(&self, work: impl FnOnce(&Call<'_>) -> T) -> T {
        let (netns, args) = (self.netns.clone(), self.args.clone());
        work(&Call {
            program: self.program,
            verb: self.verb,
            stdin: &self.stdin,
            netns,
            args,
            container: &self.pod,
        })
    }

    fn time(&self, node: &Netns) -> Result<f64, Trouble> {
        self.with(|call| call.time(node))
    }

    fn peak(&self, node: &Netns) -> Result<f64, Trouble> {
        self.with(|call| call.peak(node))
    }
}

fn stdin(program: &Path, pod: &Pod) -> PathBuf {
    let program = program.file_name().unwrap_or_default().to_string_lossy();
    PathBuf::from(format!("/run/{program}-{}.json", pod.place().name()))
}

fn write(path: &Path, value: &Value) -> Result<(), Trouble> {
    fs::write(path, value.to_string()).map_err(|e| Trouble::new(format!("{}: {e}", path.display())))
}

/// A pod's routes. `sbr` moves them to a table of their own and does not bring them back at DEL.
struct Routes([(&'static str, String); 2]);

impl Routes {
    fn of(pod: &Pod) -> Result<Routes, Trouble> {
        let list = |family| pod.place().run("ip", &[family, "route", "show", "dev", "eth0"]);
        Ok(Routes([("-4", list("-4")?), ("-6", list("-6")?)]))
    }

    fn restore(&self, pod: &Pod) -> Result<(), Trouble> {
        for (family, routes) in &self.0 {
            let _ = pod.place().run("ip", &[family, "route", "flush", "table", "100"]);
            // What is reached directly first: the default route needs it.
            let mut lines: Vec<&str> = routes.lines().collect();
            lines.sort_by_key(|line| line.contains("via"));
            let batch: String = lines.iter().map(|line| format!("route replace {line} dev eth0\n")).collect();
            pod.place().feed("ip", &[family, "-batch", "-"], &batch)?;
        }
        Ok(())
    }
}
