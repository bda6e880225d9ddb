//! The testbed for people: raise a world that stays, look into it, take it away. `scripts/lab` builds and starts this.
//!
//! The world belongs to a background process (`serve`), which also is the outside. Every other verb steps into its
//! mounts and namespaces. Ending that process ends the world: the kernel takes everything back.
#![allow(clippy::print_stdout, reason = "a program for people says things")]

mod background;
mod furnish;
mod show;

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use egret::testbed::{Masquerade, Outside, Place, Pod, Primary, Trouble, World, pod_name};

use background::Lab;

/// A small cluster in network namespaces: nodes, a router, an outside that tells callers their address.
#[derive(Debug, Parser)]
#[command(name = "lab", bin_name = "scripts/lab", max_term_width = 100)]
struct Line {
    /// Which lab; several may stand side by side
    #[arg(long, global = true, default_value = "lab", value_name = "NAME", value_parser = plain)]
    name: String,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Raise it
    Up(Up),
    /// Show nodes, pods, what the outside sees of them, and what to try
    Status,
    /// Run a command in a node, a pod, `router`, `outside` or `far`; a shell without one
    #[command(trailing_var_arg = true)]
    Exec {
        /// `node1`, `demo/client`, `router` …
        place: String,
        /// Command and arguments
        #[arg(allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Write objects (YAML) into the directory that the nodes share; every node reconciles
    Apply {
        /// A file, or `-`
        file: PathBuf,
    },
    /// Wire a pod by cnitool
    Add {
        /// Its node: `node1`, or 1
        #[arg(value_parser = number)]
        node: u8,
        /// `namespace/name`
        pod: String,
        /// `key=value`
        #[arg(short, long, value_parser = pair)]
        label: Vec<(String, String)>,
        /// `key=value`
        #[arg(short, long, value_parser = pair)]
        annotation: Vec<(String, String)>,
    },
    /// Unwire a pod
    Del {
        /// `namespace/name`
        pod: String,
    },
    /// Take everything away
    Down,
    #[command(hide = true)]
    Serve(Up),
}

#[derive(Debug, Clone, Args)]
struct Up {
    /// How many nodes
    #[arg(short, long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=99))]
    nodes: u8,
    /// Who wires pods
    #[arg(long, value_enum, default_value = "bridge")]
    primary: Primary,
    /// Who hides pods behind their node
    #[arg(long, value_enum, default_value = "iptables-nft")]
    masquerade: Masquerade,
    /// The binary to chain [default: the one built beside this]
    #[arg(long, value_name = "FILE")]
    egret: Option<PathBuf>,
    /// Chain no Egret
    #[arg(long)]
    bare: bool,
}

fn main() -> ExitCode {
    let line = Line::parse();
    let lab = Lab { name: line.name };
    let done = match line.verb {
        Verb::Up(up) => lab.up(&up),
        Verb::Serve(up) => furnish::serve(&up),
        Verb::Status => lab.enter().map(|world| show::status(&world, &lab.script())),
        Verb::Exec { place, command } => lab.enter().and_then(|world| exec(&world, &place, &command)),
        Verb::Apply { file } => apply(&lab, &file),
        Verb::Add { node, pod, label, annotation } => {
            lab.enter().and_then(|world| add(&world, node, &pod, &label, &annotation))
        }
        Verb::Del { pod } => lab.enter().and_then(|world| {
            let pod = find(&world, &pod)?;
            world.del_pod(&pod).map_err(|e| Trouble::new(e.to_string()))
        }),
        Verb::Down => lab.down(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("scripts/lab: {trouble}");
            ExitCode::FAILURE
        }
    }
}

fn exec(world: &World, place: &str, command: &[String]) -> Result<(), Trouble> {
    let node = world.topology().node_numbers().find(|n| world.node(*n).name() == place);
    let place = find_place(world, place)?;
    let shell = ["bash", "--norc"].map(str::to_owned);
    let words = if command.is_empty() { &shell[..] } else { command };
    let mut command = place.stepping_in(&words[0])?;
    if let Some(node) = node.filter(|_| is_about_this_node(words)) {
        command.arg("--config").arg(world.conflist_path(node));
    }
    command.args(&words[1..]).env("PS1", format!("[{}] \\w # ", place.name()));
    let error = command.exec();
    Err(Trouble::new(format!("cannot run `{}` in {}: {error}", words[0], place.name())))
}

/// Whether Egret will ask which node it is on: in a lab all nodes have the machine's host name, so their lists say it.
fn is_about_this_node(words: &[String]) -> bool {
    let says = |word: &String| word == "--config" || word.starts_with("--config=");
    words[0] == "egret" && words.len() > 1 && !words.iter().any(says)
}

fn find_place(world: &World, name: &str) -> Result<Place, Trouble> {
    if name == world.router().name() {
        return Ok(world.router());
    }
    if let Some(at) = Outside::BOTH.into_iter().find(|at| at.name() == name) {
        return Ok(world.outside(at));
    }
    let node = world.topology().node_numbers().find(|n| world.node(*n).name() == name);
    node.map_or_else(|| find(world, name).map(|pod| pod.place().clone()), |n| Ok(world.node(n)))
}

/// A pod by `namespace/name`, or by its bare name where that is enough.
fn find(world: &World, name: &str) -> Result<Pod, Trouble> {
    let pods = world.pods();
    let is_it = |p: &&Pod| p.name.to_string() == name || p.name.name == name;
    match pods.iter().filter(is_it).collect::<Vec<_>>()[..] {
        [one] => Ok(one.clone()),
        _ => {
            let known: Vec<String> = pods.iter().map(|p| p.name.to_string()).collect();
            let nodes = world.topology().nodes;
            Err(Trouble::new(format!(
                "`{name}` names no place here, or several; there are node1 to node{nodes}, router, outside, far, and the pods {}",
                known.join(", ")
            )))
        }
    }
}

/// Nodes are shown by name everywhere else, so the name will do.
fn number(node: &str) -> Result<u8, String> {
    let digits = node.strip_prefix("node").unwrap_or(node);
    digits.parse().map_err(|_| "write node1 and so on; `scripts/lab status` shows which there are".to_owned())
}

/// Pairs as the testbed takes them.
fn words(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect()
}

fn add(
    world: &World,
    node: u8,
    pod: &str,
    labels: &[(String, String)],
    annotations: &[(String, String)],
) -> Result<(), Trouble> {
    if !world.topology().node_numbers().contains(&node) {
        return Err(Trouble::new(format!(
            "there is no node {node}; this lab has {}",
            world.topology().nodes
        )));
    }
    // A name is all that other verbs have, so it stands for one pod.
    let name = pod_name(pod);
    if let Some(there) = world.pods().iter().find(|there| there.name == name) {
        return Err(Trouble::new(format!(
            "{} is there already, on node{}; `del` takes it away",
            there.name, there.node
        )));
    }
    let (labels, annotations) = (words(labels), words(annotations));
    world.pod_object(pod, &labels, &annotations, node)?;
    let pod = world.add_pod(node, pod).map_err(|e| Trouble::new(e.to_string()))?;
    let addresses: Vec<String> = pod.addresses.iter().map(ToString::to_string).collect();
    println!("{} on node{node}: {}", pod.name, addresses.join(", "));
    Ok(())
}

/// The file is read where the person is, before stepping into the world.
fn apply(lab: &Lab, file: &Path) -> Result<(), Trouble> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map(drop)
    } else {
        fs::read_to_string(file).map(|t| text = t)
    };
    read.map_err(|e| Trouble::new(format!("cannot read {}: {e}", file.display())))?;
    let world = lab.enter()?;
    for document in text.split("\n---").map(str::trim).filter(|d| !d.is_empty()) {
        println!("{}", world.object(document.trim_start_matches("---"))?.display());
    }
    world.settle()
}

/// A lab's name is a file's name too.
fn plain(text: &str) -> Result<String, String> {
    let fine = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') && !text.is_empty();
    if fine { Ok(text.to_owned()) } else { Err("letters, digits and `-` make a name".to_owned()) }
}

fn pair(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .ok_or_else(|| format!("`{text}` is not KEY=VALUE"))
}
