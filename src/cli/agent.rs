//! `egret agent`: keeps this node's kernel true until it is told to end.
//!
//! In: the common flags. Out: an exit status; log lines on standard error. Never: prints on standard output.

use clap::Args;

use super::listen::listen;
use super::{Common, Refused};
use crate::agent::run;
use crate::config::Mode;
use crate::probes::web;

/// Flags of the agent.
#[derive(Debug, Clone, Args)]
pub struct AgentArgs {
    /// What to log: error, warn, info, debug, or as in `egret=debug,warn`
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
    /// Where /healthz, /readyz and /metrics are served
    ///
    /// `:PORT` is every address of the machine; `off`: nowhere.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = web::AGENT)]
    listen: String,
}

/// Runs it.
///
/// # Errors
/// A sentence: another agent runs here, or something is missing that it cannot do without.
pub fn run(common: &Common, args: &AgentArgs) -> Result<(String, bool), Refused> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Refused::failed(
            "this changes the node's network: run it as root (CAP_NET_ADMIN and CAP_SYS_ADMIN)",
        ));
    }
    crate::log::to_stderr(&args.log);
    let listen = listen(&args.listen, web::AGENT)?;
    common.config()?;
    let configure = || {
        let mut config = common.config().map_err(|refused| refused.sentence)?;
        if common.cluster.kubeconfig.is_some() {
            config.mode = Mode::Cluster;
        } else if common.state.is_some() {
            // Whoever names a directory has the objects there, whatever way the plugin takes.
            config.mode = Mode::Embedded;
        }
        Ok(config)
    };
    let access = if configure()?.mode == Mode::Cluster {
        Some(common.member("`mode: cluster` without a cluster: name it with --kubeconfig, or run in a pod with a service account")?)
    } else {
        common.of_node()?;
        None
    };
    run::run(&configure, access, listen).map_err(|e| e.to_string())?;
    Ok((String::new(), true))
}
