//! A plugin of ours and the reference `sbr` in turn, as a runtime would call them: same network namespace, same prevResult.
//!
//! In: pods that the primary plugin wired, the keys of our entry. Out: pairs of times, peaks of memory. Never: knows where objects are.

use std::fs;
use std::path::{Path, PathBuf};

use egret::egress::model::PodName;
use egret::install::Place;
use egret::kernel::netns::Netns;
use egret::testbed::{Pod, Trouble, World, programs_dir};
use serde_json::{Value, json};

use crate::floor::Floor;
use crate::rows::{Pairs, Series};
use crate::spawn::Call;

/// As whom a namespace is wired.
#[derive(Debug, Clone)]
pub(crate) struct As {
    pub(crate) pod: PodName,
    pub(crate) uid: String,
}

/// Two programs, and the nodes where they are called. Ours lies as `egret install` laid it, the reference as it was built.
pub(crate) struct Turns {
    built: PathBuf,
    plugins: Place,
    pub(crate) egret: PathBuf,
    sbr: PathBuf,
    nodes: Vec<Netns>,
}

impl Turns {
    /// On the nodes of a world. `scratch`: where a folder of plugins may be.
    pub(crate) fn on(world: &World, egret: &Path, scratch: &Path) -> Result<Turns, Trouble> {
        let sbr = programs_dir().join("sbr");
        if !sbr.exists() {
            return Err(Trouble::new(format!("the reference plugin {} is missing", sbr.display())));
        }
        let nodes = world.nodes().map(|node| node.netns()).collect::<Result<_, _>>()?;
        let plugins = Place { bin: scratch.join("plugins"), conf: scratch.to_owned(), list: None };
        let turns = Turns { built: egret.to_owned(), egret: plugins.binary(), plugins, sbr, nodes };
        turns.install()?;
        Ok(turns)
    }

    /// Anew: what has rested for half a minute may have left the memory of a machine that gives it back to its host.
    fn install(&self) -> Result<(), Trouble> {
        let anew = || self.plugins.take_binary().and_then(|_| self.plugins.put_binary(&self.built));
        anew().map(drop).map_err(|e| Trouble::new(e.to_string()))
    }

    pub(crate) fn node(&self, number: u8) -> &Netns {
        &self.nodes[usize::from(number) - 1]
    }

    /// Writes down what each program is told about a pod that the primary wired.
    pub(crate) fn tell(&self, pod: &Pod, mut entry: Value) -> Result<(), Trouble> {
        let mut sbr = json!({"type": "sbr"});
        for (program, config) in [(&self.egret, &mut entry), (&self.sbr, &mut sbr)] {
            config["cniVersion"] = "1.0.0".into();
            config["name"] = "pods".into();
            config["prevResult"] = pod.result.clone();
            write(&stdin(program, pod), config)?;
        }
        Ok(())
    }

    /// Where what ours is told lies.
    pub(crate) fn told(&self, pod: &Pod) -> PathBuf {
        stdin(&self.egret, pod)
    }

    /// VERSION, the shortest call there is.
    pub(crate) fn versions(&self, count: usize) -> Result<Pairs, Trouble> {
        let stdin = Path::new("/run/version.json");
        write(stdin, &json!({"cniVersion": "1.0.0"}))?;
        let mut pairs = Pairs::default();
        for _ in 0..count {
            let time = |program: &Path| {
                let (netns, args) = (PathBuf::new(), String::new());
                Call { program, verb: "VERSION", stdin, netns, args, container: "none" }.time(self.node(2))
            };
            pairs.push(time(&self.egret)?, time(&self.sbr)?);
        }
        Ok(pairs)
    }

    /// A call of ours.
    pub(crate) fn ours<'a>(&'a self, verb: &'a str, pod: &Pod, who: &As) -> Prepared<'a> {
        self.call(&self.egret, verb, pod, who)
    }

    /// The same of the reference.
    pub(crate) fn theirs<'a>(&'a self, verb: &'a str, pod: &Pod, who: &As) -> Prepared<'a> {
        self.call(&self.sbr, verb, pod, who)
    }

    fn call<'a>(&'a self, program: &'a Path, verb: &'a str, pod: &Pod, who: &As) -> Prepared<'a> {
        let As { pod: PodName { namespace, name }, uid } = who;
        let args =
            format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_UID={uid}");
        Prepared {
            program,
            verb,
            stdin: stdin(program, pod),
            netns: pod.place().path(),
            args,
            container: pod.place().name().to_owned(),
            node: self.node(pod.node),
        }
    }

    /// ADD and DEL of both in turn, after one pair that finds cold caches. What ADD and DEL took apart is printed.
    pub(crate) fn pairs(&self, pod: &Pod, who: &As, count: usize) -> Result<Pairs, Trouble> {
        self.install()?;
        print!("egret ADD + DEL as {} (ms): ", who.pod);
        let routes = Routes::of(pod)?;
        let mut pairs = Pairs::default();
        for round in 0..=count {
            let (add, del) = (self.ours("ADD", pod, who).time()?, self.ours("DEL", pod, who).time()?);
            print!("{add:.2} + {del:.2}, ");
            let theirs = self.theirs("ADD", pod, who).time()? + self.theirs("DEL", pod, who).time()?;
            routes.restore(pod)?;
            if round > 0 {
                pairs.push(add + del, theirs);
            }
        }
        println!();
        Ok(pairs)
    }

    /// The same of a program that asks somebody who answers at once, and does nothing else.
    pub(crate) fn floor(&self, pod: &Pod, who: &As, count: usize) -> Result<Pairs, Trouble> {
        let folder = self.egret.parent().unwrap_or(Path::new("/"));
        let floor = Floor::laid(folder, 2 * (count + 1))?;
        let told = stdin(&floor.program, pod);
        fs::copy(self.told(pod), &told).map_err(|e| Trouble::new(format!("{}: {e}", told.display())))?;
        let routes = Routes::of(pod)?;
        let mut pairs = Pairs::default();
        for round in 0..=count {
            let time = |program, verb| self.call(program, verb, pod, who).time();
            let asking = time(&floor.program, "ADD")? + time(&floor.program, "DEL")?;
            let theirs = time(&self.sbr, "ADD")? + time(&self.sbr, "DEL")?;
            routes.restore(pod)?;
            if round > 0 {
                pairs.push(asking, theirs);
            }
        }
        floor.end()?;
        Ok(pairs)
    }

    /// Peak memory of ADD and DEL.
    pub(crate) fn peak(&self, pod: &Pod, who: &As) -> Result<Series, Trouble> {
        let mut peaks = Series::default();
        for _ in 0..5 {
            for verb in ["ADD", "DEL"] {
                peaks.0.push(self.ours(verb, pod, who).peak()?);
            }
        }
        Ok(peaks)
    }
}

/// A call that owns its texts.
pub(crate) struct Prepared<'a> {
    program: &'a Path,
    verb: &'a str,
    stdin: PathBuf,
    netns: PathBuf,
    args: String,
    /// The container is the namespace's.
    container: String,
    node: &'a Netns,
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
            container: &self.container,
        })
    }

    /// Milliseconds from spawn to its end.
    pub(crate) fn time(&self) -> Result<f64, Trouble> {
        self.with(|call| call.time(self.node))
    }

    fn peak(&self) -> Result<f64, Trouble> {
        self.with(|call| call.peak(self.node))
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
pub(crate) struct Routes([(&'static str, String); 2]);

impl Routes {
    /// As they are.
    pub(crate) fn of(pod: &Pod) -> Result<Routes, Trouble> {
        let list = |family| pod.place().run("ip", &[family, "route", "show", "dev", "eth0"]);
        // A client's DEL takes the node's end of the interface down, which `ip` says in a word that it does not take back.
        let said = |family| Ok::<_, Trouble>(list(family)?.replace(" linkdown", ""));
        Ok(Routes([("-4", said("-4")?), ("-6", said("-6")?)]))
    }

    /// As they were.
    pub(crate) fn restore(&self, pod: &Pod) -> Result<(), Trouble> {
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
