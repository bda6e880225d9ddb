//! The command line: what a person says to Egret.
//!
//! In: arguments. Out: text or JSON on standard output, an exit status (0 done, 1 failed, 2 misused). Never: the CNI
//! protocol; without arguments it says what Egret is, as every CNI plugin does.

pub mod agent;
pub mod cluster;
pub mod complete;
pub mod controller;
pub mod convert;
pub mod crds;
pub mod directory;
pub mod explain;
pub mod install;
pub mod ipam;
pub mod known;
pub mod lint;
pub mod list;
pub mod listen;
pub mod man;
pub mod manifests;
pub mod node;
pub mod output;
pub mod paint;
pub mod schema;
pub mod status;
pub mod table;
pub mod workload;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::cni::version::Version;
use crate::config::Config;
use crate::node::memory::Memory;
use crate::node::records::node_name;

const ABOUT: &str = "Egret gives Kubernetes pods a fixed, known source address when they leave the cluster.";

/// Under a short help, which leaves these flags out.
const OF_A_CLUSTER: &str = "Of a cluster: --kubeconfig FILE, --context NAME, -n NAMESPACE (see '--help')";

/// The same of those that live in one.
const IN_A_CLUSTER: &str = "In a cluster: --kubeconfig FILE, --context NAME (see '--help')";

/// Fixed, known source addresses for Kubernetes pods that leave the cluster
#[derive(Debug, Parser)]
#[command(name = "egret", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(after_long_help = "A container runtime starts Egret as a CNI plugin, with CNI_COMMAND set.\n\n\
                       `list`, `explain`, `status`, `lint` and `ipam` ask a cluster where --kubeconfig or --context is said, where \
                       KUBECONFIG is set, and where no directory of ours is on this machine; with --state or --config they never do. \
                       Linked as `kubectl-egret` into PATH, this program is `kubectl egret`; linked as `kubectl_complete-egret`, \
                       it completes that.\n\n\
                       Exit status: 0 done or answered, 1 not, or something is wrong, 2 the arguments are wrong: also a directory or file \
                       that is not there.\n\n\
                       For packagers and editors: `egret man`, `egret completions`, `egret schema`; for clusters: `egret crds`, `egret controller`.")]
struct Line {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Keep this node's kernel true: follow the directory, repair
    #[command(
        after_help = IN_A_CLUSTER,
        after_long_help = "",
        long_about = "Keep this node's kernel true, until SIGTERM.\n\n\
                      Changed objects reach running pods within 100 ms; rules, routes, next hops and devices that somebody else \
                      deletes are put back; leased addresses are announced again after a takeover, and other owners noticed.\n\n\
                      The plugin works beside it as without. When it ends, or is killed, everything stays wired; at its next \
                      start it touches only what differs. What it does is in agent.json in the node's own directory."
    )]
    Agent(agent::AgentArgs),
    /// Keep a cluster's status, leases and taints true
    #[command(
        hide = true,
        after_help = IN_A_CLUSTER,
        after_long_help = "",
        long_about = "Keep a cluster's status, leases and taints true, until SIGTERM.\n\n\
                      Conditions and counts on pools and policies, pods that no agent serves, leases of nodes and workloads that are \
                      gone, a taint on nodes whose agent is away. Of several, one works; another takes over within 15 s.\n\n\
                      While none runs, nothing that runs notices. Without --config the defaults count; give it what the agents have."
    )]
    Controller(controller::ControllerArgs),
    /// Bring this node's kernel to its plan, once
    Reconcile(node::NodeArgs),
    /// Put this program among the CNI plugins and into the primary's list
    #[command(
        long_about = "Put this program among the CNI plugins, and an entry that calls it into the primary's network list.\n\n\
                      Files are replaced in one piece, and only if they differ. The entry has the keys of --config, else \
                      those that it has, and nodeName if --node is said. With --follow it stays, and puts back what the primary writes over; with \
                      `mode: cluster` it then waits until this node's agent has heard of everything once."
    )]
    Install(install::InstallArgs),
    /// Take everything of Egret out of this node's kernel
    Uninstall(node::UninstallArgs),
    /// Say where a pod's traffic leaves, and why
    #[command(after_help = OF_A_CLUSTER, after_long_help = "")]
    Explain(explain::ExplainArgs),
    /// List where pods' traffic leaves, a row per address and prefix
    #[command(
        after_help = OF_A_CLUSTER,
        after_long_help = "",
        long_about = "List where pods' traffic leaves, one row per pod address and destination prefix: the longest prefix of an \
                      address decides. With --node, only pods of that node.\n\n\
                      --state may also be a folder of manifests: then pods that ask to be gateways count as running."
    )]
    List(list::ListArgs),
    /// Show who has which egress address, check the books, give one back
    #[command(after_help = OF_A_CLUSTER, after_long_help = "")]
    Ipam(ipam::IpamArgs),
    /// Print the JSON schema of a kind of object, for editors and checks
    #[command(hide = true)]
    Schema(schema::SchemaArgs),
    /// Say how this node is: gateways, clients, differences, drops
    #[command(
        after_help = OF_A_CLUSTER,
        after_long_help = "",
        long_about = "Say how this node is: its tunnel, the gateways here and how replies find them, clients and bindings, gateway \
                      sets, what differs from the plan, what was dropped and by which rule, the agent.\n\n\
                      Exit status: 0 the kernel holds the plan, 1 it does not, or nobody can say (needs root).\n\n\
                      Of a cluster (--kubeconfig): its nodes and their agents, gateways, pools; 1 if a pod is held, or a node that \
                      has clients or gateways has no agent that is ready."
    )]
    Status(status::StatusArgs),
    /// Print what makes a Kubernetes cluster keep Egret's objects
    #[command(hide = true)]
    Crds(crds::CrdsArgs),
    /// Say what is wrong with manifests before they are applied
    #[command(
        after_help = OF_A_CLUSTER,
        after_long_help = "",
        long_about = "Say what is wrong with manifests before they are applied: read by the readers and decided by the resolver \
                      that a node uses. Needs no root, no state directory and no cluster. With --kubeconfig or --context \
                      they are judged beside what that cluster has; without -f, what it has is.\n\n\
                      Exit status: 0 no error, 1 an error (with --strict: or a warning), 2 nothing to read."
    )]
    Lint(lint::LintArgs),
    /// Turn Calico's and Cilium's manifests into Egret's own
    #[command(
        long_about = "Turn Calico's and Cilium's manifests into Egret's own: YAML on standard output, notes about whatever has \
                      no equal on standard error. Give it all manifests at once: what a pool is for stands with the gateways.\n\n\
                      Exit status: 0 all converted, 1 something could not be and stays as it was, 2 nothing to read."
    )]
    Convert(convert::ConvertArgs),
    /// Write manual pages, one per command, into a directory
    #[command(hide = true)]
    Man(man::ManArgs),
    /// Print the help of a command
    #[command(hide = true)]
    Help {
        /// Its words: `ipam show`
        words: Vec<String>,
    },
    /// Print a script that completes Egret's arguments in a shell
    #[command(
        hide = true,
        long_about = "Print a script that completes Egret's arguments in a shell.\n\n\
                      For bash: egret completions bash > /etc/bash_completion.d/egret"
    )]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Flags that every command about a node and its state shares. They stand behind a command's own.
#[derive(Debug, Clone, Default, Args)]
pub struct Common {
    /// Egret's CNI configuration [default: as last called]
    #[arg(long, value_name = "FILE", global = true, display_order = 100)]
    pub config: Option<PathBuf>,
    /// Objects and records [default: /var/lib/egret]
    #[arg(long, value_name = "DIR", global = true, display_order = 101)]
    pub state: Option<PathBuf>,
    /// Name of the node [default: the host name]
    #[arg(long, value_name = "NAME", global = true, display_order = 102)]
    pub node: Option<String>,
    /// `text` for people, `json` for machines
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t, global = true)]
    #[arg(hide_possible_values = true, display_order = 103)]
    pub output: Output,
    /// Which cluster is asked, if one is.
    #[command(flatten)]
    pub cluster: cluster::ClusterArgs,
}

/// How answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Output {
    /// Aligned text.
    #[default]
    Text,
    /// One JSON document.
    Json,
}

impl Common {
    /// The configuration these flags mean: a file's, else what the plugin was last called with on this node, else the plugin's
    /// defaults.
    ///
    /// # Errors
    /// The file that is named is not there, or is no configuration: a wrong argument. The machine has no name that a node may have.
    pub fn config(&self) -> Result<Config, Refused> {
        let mut config = match &self.config {
            Some(file) => Config::from_file(file).map_err(|e| Refused::misused(e.to_string()))?,
            None => {
                let fresh = Config { node_name: self.node.clone(), ..Config::default() };
                let node = node_name(&fresh).map_err(|e| e.to_string())?;
                Memory::new(&fresh.run_dir, &node).config().unwrap_or(fresh)
            }
        };
        if let Some(state) = &self.state {
            config.state_dir.clone_from(state);
        }
        if self.node.is_some() {
            config.node_name.clone_from(&self.node);
        }
        Ok(config)
    }
}

/// `apiVersion` of every JSON document that is printed.
const API_VERSION: &str = "egret.dev/v1alpha1";

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// With the next step.
    pub sentence: String,
    /// The arguments were wrong, not the world.
    pub misused: bool,
}

impl Refused {
    /// The world was wrong: status 1.
    pub fn failed(sentence: impl Into<String>) -> Refused {
        Refused { sentence: sentence.into(), misused: false }
    }

    /// The arguments were wrong: status 2.
    pub fn misused(sentence: impl Into<String>) -> Refused {
        Refused { sentence: sentence.into(), misused: true }
    }
}

impl From<String> for Refused {
    fn from(sentence: String) -> Refused {
        Refused::failed(sentence)
    }
}

/// A document for machines.
fn json(value: &impl serde::Serialize) -> Result<String, String> {
    serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(|e| format!("cannot write JSON: {e}"))
}

/// Every argument there is.
fn command() -> clap::Command {
    Line::command()
}

/// Called as people call us.
fn named(command: clap::Command) -> clap::Command {
    if cluster::is_plugin() { command.bin_name("kubectl egret") } else { command }
}

fn completions(shell: clap_complete::Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "egret", &mut script);
    script
}

/// The help of a command; without words, of all.
fn help(words: &[String]) -> Result<(String, bool), Refused> {
    let mut all = named(command());
    all.build();
    let mut found = &mut all;
    for word in words {
        let unknown = || Refused::misused(format!("there is no command `{word}`; `egret -h` lists them"));
        found = found.find_subcommand_mut(word).ok_or_else(unknown)?;
    }
    Ok((found.render_long_help().to_string(), true))
}

/// Does what the process's arguments say.
pub fn run() -> ExitCode {
    if std::env::args_os().len() <= 1 {
        // Standard error and success, as the CNI library's plugins do.
        let mut out = std::io::stderr();
        let _ = writeln!(
            out,
            "{ABOUT}\nCNI protocol versions supported: {}\n\n`egret -h` lists what it does by hand.",
            Version::list()
        );
        return ExitCode::SUCCESS;
    }
    if let Some(words) = complete::asked() {
        return print(complete::answer(&command(), &words).as_bytes());
    }
    let line = Line::from_arg_matches(&named(command()).get_matches()).unwrap_or_else(|error| error.exit());
    let common = &line.common;
    match line.command {
        Some(Command::Agent(args)) => answer(agent::run(common, &args)),
        Some(Command::Controller(args)) => answer(controller::run(common, &args)),
        Some(Command::Reconcile(args)) => answer(node::reconcile(common, &args)),
        Some(Command::Install(args)) => answer(install::run(common, &args)),
        Some(Command::Uninstall(args)) => answer(node::uninstall(common, &args)),
        Some(Command::Explain(args)) => answer(explain::run(common, &args)),
        Some(Command::List(args)) => answer(list::run(common, &args)),
        Some(Command::Ipam(args)) => answer(ipam::run(common, &args)),
        Some(Command::Schema(args)) => answer(schema::run(common, &args)),
        Some(Command::Status(args)) => answer(status::run(common, &args)),
        Some(Command::Crds(args)) => answer(crds::run(common, &args)),
        Some(Command::Lint(args)) => answer(lint::run(common, &args)),
        Some(Command::Convert(args)) => answer(convert::run(common, &args)),
        Some(Command::Man(args)) => answer(man::run(&args)),
        Some(Command::Help { words }) => answer(help(&words)),
        Some(Command::Completions { shell }) => print(&completions(shell)),
        None => {
            let _ = write!(std::io::stderr(), "{}", command().render_help());
            ExitCode::from(2)
        }
    }
}

/// Prints an answer: 0 if all is well, 1 if it says that something is not, 1 with a sentence if there is none.
fn answer<E: Into<Refused>>(answer: Result<(String, bool), E>) -> ExitCode {
    match answer {
        Ok((text, well)) => match (print(text.as_bytes()), well) {
            (printed, true) => printed,
            (_, false) => ExitCode::FAILURE,
        },
        Err(refused) => {
            let Refused { sentence, misused } = refused.into();
            let _ = writeln!(std::io::stderr(), "egret: {sentence}");
            ExitCode::from(if misused { 2 } else { 1 })
        }
    }
}

/// Writes an answer; a reader that went away (`egret … | head`) is no failure.
fn print(answer: &[u8]) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(answer).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            let _ = writeln!(std::io::stderr(), "egret: cannot write standard output: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

#[cfg(test)]
mod tests;
