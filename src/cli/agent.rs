//! `egret agent`: keeps this node's kernel true until it is told to end.
//!
//! In: the common flags. Out: an exit status; log lines on standard error. Never: prints on standard output.

use clap::Args;

use super::Common;
use crate::agent::run;
use crate::config::Mode;

/// Flags of the agent.
#[derive(Debug, Clone, Args)]
pub struct AgentArgs {
    /// What to log: error, warn, info, debug, or as in `egret=debug,warn`
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
}

/// Runs it.
///
/// # Errors
/// A sentence: another agent runs here, or something is missing that it cannot do without.
pub fn run(common: &Common, args: &AgentArgs) -> Result<(String, bool), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err(
            "this changes the node's network: run it as root (CAP_NET_ADMIN and CAP_SYS_ADMIN)".to_owned()
        );
    }
    crate::log::to_stderr(&args.log);
    let configure = || {
        let mut config = common.config()?;
        if common.state.is_some() {
            // Whoever names a directory has the objects there, whatever way the plugin takes.
            config.mode = Mode::Embedded;
        }
        Ok(config)
    };
    run::run(&configure).map_err(|e| e.to_string())?;
    Ok((String::new(), true))
}
