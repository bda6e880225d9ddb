//! What a node answers while nobody can say everything: without an agent, and with one whose copy of the cluster lacks something.
//!
//! In: a [`Request`], why there is nobody, what pods may do meanwhile. Out: whether a pod starts as one without egress, with a record by
//! which the agent knows it later. Never: plans, or changes a kernel.

use super::memory::Memory;
use super::records::{self, node_name};
use super::standing::Standings;
use super::verbs;
use crate::cni::reply::{CniError, Code};
use crate::cni::request::Request;
use crate::config::Config;

/// Whether a pod without egress could start here.
///
/// # Errors
/// 50: none could; everything that runs here is evicted after some minutes.
pub fn status(config: &Config, why: &str) -> Result<(), CniError> {
    if Standings::read(&config.state_dir, &node_name(config)?).is_none() {
        let msg = format!("no pod can start: {why}, and no plan of an earlier agent is on disk");
        return Err(CniError::new(Code::NotAvailable, msg));
    }
    records::status(config)
}

/// Starts a pod that nothing selects. `heard`: what is known since the last plan, if anything; it keeps pods waiting, and lets none go.
///
/// # Errors
/// 11: it may be selected.
pub fn start(
    request: &Request,
    config: &Config,
    why: &str,
    heard: Option<&Standings>,
) -> Result<(), CniError> {
    let refused = |because: &str| {
        let msg = format!("{why}, and this pod may not start without it: {because}; it is tried again");
        CniError::new(Code::TryAgainLater, msg)
    };
    let node = node_name(config)?;
    if let Some(pod) = &request.pod {
        let last = Standings::read(&config.state_dir, &node)
            .ok_or_else(|| refused("no agent was ever here, so nothing is known of it"))?;
        let known = heard.into_iter().fold(last, Standings::no_laxer_than);
        known.may_start(pod, request.pod_annotations.as_ref()).map_err(|because| refused(&because))?;
    }
    let attachment = verbs::attachment(request)?;
    let memory = Memory::new(&config.run_dir, &node);
    let inherited = attachment.addresses.iter().find(|ip| memory.may_concern(ip).unwrap_or(false));
    if let Some(ip) = inherited {
        return Err(refused(&format!("its address {ip} is still wired for a pod that had it before")));
    }
    let records = records::attachments(config)?;
    records.write(&attachment).map_err(|error| {
        let msg = format!("cannot write the record of this attachment: {error}");
        CniError::new(Code::Io, msg)
    })
}
