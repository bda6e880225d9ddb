//! `egret controller`: keeps status, leases and taints of a cluster true until it is told to end.
//!
//! In: the common flags, and its own. Out: an exit status; log lines on standard error. Never: needs root, or prints on standard output.

use std::time::Duration;

use clap::{ArgAction, Args};

use super::listen::listen;
use super::{Common, Refused};
use crate::config::Config;
use crate::controller::{Settings, run};
use crate::node::records::node_name;
use crate::probes::web;

/// Flags of the controller.
#[derive(Debug, Clone, Args)]
pub struct ControllerArgs {
    /// What to log: error, warn, info, debug, or as in `egret=debug,warn`
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
    /// Where /healthz, /readyz and /metrics are served
    ///
    /// `:PORT` is every address of the machine; `off`: nowhere.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = web::CONTROLLER)]
    listen: String,
    /// Taint nodes whose agent is away
    ///
    /// With egret.dev/agent-away:NoSchedule, as long as it is; `false`: never.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    #[arg(hide_possible_values = true)]
    taint: bool,
    /// Seconds without a sign after which an agent is away
    ///
    /// It gives one every 10 seconds.
    #[arg(long, value_name = "S", default_value_t = 30)]
    silence: u32,
    /// Seconds until leases of what is gone are freed
    ///
    /// Of a node or a workload that does not exist, looked at again and again for as long.
    #[arg(long, value_name = "S", default_value_t = 60)]
    reclaim_after: u32,
}

/// Runs it.
///
/// # Errors
/// A sentence: no cluster, or one that cannot be spoken to.
pub fn run(common: &Common, args: &ControllerArgs) -> Result<(String, bool), Refused> {
    if common.cluster.context.is_some() && common.cluster.kubeconfig.is_none() {
        return Err(Refused::misused("--context is one of a kubeconfig: name that with --kubeconfig"));
    }
    crate::log::to_stderr(&args.log);
    let listen = listen(&args.listen, web::CONTROLLER)?;
    // Not what a plugin on this machine was last called with: the controller belongs to no node.
    let configure = || match &common.config {
        Some(file) => Config::from_file(file).map_err(|e| e.to_string()),
        None => Ok(Config::default()),
    };
    configure().map_err(Refused::misused)?;
    let access = common.member(
        "there is no cluster: name one with --kubeconfig, or run in a pod with a service account (deploy/controller-rbac.yaml)",
    )?;
    let settings = Settings {
        taint: args.taint,
        silence: Duration::from_secs(args.silence.into()),
        reclaim_after: Duration::from_secs(args.reclaim_after.into()),
    };
    let name = node_name(&Config::default()).map_err(|e| e.to_string())?;
    run::run(access, &configure, settings, &name, listen)?;
    Ok((String::new(), true))
}
