//! `egret status`: how this node is; of a cluster, how its nodes, gateways and pools are.
//!
//! In: the common flags. Out: tables or JSON; 0 if the kernel holds the plan, 1 if not, or if nobody can say. Never: changes anything.

pub(super) mod cluster;
mod text;

use clap::Args;
use serde::Serialize;

use super::paint::Paint;
use super::{API_VERSION, Common, Output, Refused, json};
use crate::agent::state::{self as agent, AgentState};
use crate::node::embedded::{Embedded, now};
use crate::node::status::{Health, NodeStatus, status};
use crate::problem::Problem;
use crate::store::is_held;
use text::text;

/// It has none of its own.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {}

/// One JSON document.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(super) struct StatusReport {
    api_version: &'static str,
    kind: &'static str,
    /// This node.
    items: [Item; 1],
    problems: Vec<Problem>,
}

/// The node and its agent.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
struct Item {
    #[serde(flatten)]
    node: NodeStatus,
    /// Whether an agent runs here now.
    agent_runs: bool,
    /// What the agent says, or last said, of itself; absent if none ever ran here.
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<AgentState>,
}

/// Says how the node is; `false` if its kernel does not hold what it should.
///
/// # Errors
/// There is no state directory.
pub fn run(common: &Common, _: &StatusArgs) -> Result<(String, bool), Refused> {
    if let Some(cluster) = common.cluster()? {
        return cluster::run(common, &cluster);
    }
    let node = Embedded::look(&common.of_present_node()?).map_err(|e| Refused::failed(e.to_string()))?;
    let (status, mut problems) = status(&node);
    let well = !matches!(status.health, Health::Differs | Health::Unknown);
    let folder = node.memory.dir();
    let agent = agent::read(&folder.join(agent::FILE)).unwrap_or_else(|why| {
        problems.push(Problem::new(format!("Node {}", node.name), "AgentUnreadable", why));
        None
    });
    let item = Item { agent_runs: is_held(&folder.join(agent::LOCK)), agent, node: status };
    let text = match common.output {
        Output::Json => {
            json(&StatusReport { api_version: API_VERSION, kind: "NodeStatus", items: [item], problems })?
        }
        Output::Text => text(&item, &problems, now(), Paint::of_stdout()),
    };
    Ok((text, well))
}
