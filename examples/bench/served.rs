//! The agent and the thin plugin in a cluster: a real etcd and kube-apiserver that hold 10,000 pods, 1,000 namespaces, 200 policies and
//! 500 nodes, of which three are here.
//!
//! Node 3 is for starts, and for what an agent hears of what does not concern it. On nodes 1 and 2 agents stay: plugins are called,
//! objects are changed by the API while the outside looks, then nothing happens for a while.

mod adds;
mod changes;
mod ground;
mod objects;
mod starts;

use std::time::{Duration, Instant};

use egret::testbed::Trouble;

use crate::Arguments;
use crate::agent::Agent;
use crate::rows::{Rows, Series, Target};
use ground::Ground;
use objects::NODES;

/// How long nothing happens.
const QUIET: Duration = Duration::from_secs(15);
/// How often a kubelet says that its node is as it was.
const NODE_STATUS: Duration = Duration::from_secs(300);

/// Raises the cluster and the nodes, measures.
pub(crate) fn measure(arguments: &Arguments, rows: &mut Rows) -> Result<(), Trouble> {
    let ground = Ground::raise(arguments)?;
    starts::measure(&ground, rows)?;
    let pods = adds::Pods::wired(&ground)?;
    let agents = [ground.agent(1)?, ground.agent(2)?];
    for agent in &agents {
        agent.until_well()?;
    }
    let watching = changes::gateways(&ground)?;
    pods.measure(&ground, &agents[0], arguments.pairs, rows)?;
    changes::measure(&ground, &watching, arguments.pairs * 2, rows)?;
    resources(&ground, &agents[0], rows)?;
    agents.iter().try_for_each(Agent::is_well)
}

fn resources(ground: &Ground, agent: &Agent, rows: &mut Rows) -> Result<(), Trouble> {
    let (highest, now) = (Series(vec![agent.memory("VmHWM")?]), Series(vec![agent.memory("VmRSS")?]));
    rows.figure("cluster: memory of the agent, at its highest", &highest, "MB", Target::AtMost(60.0));
    rows.figure("cluster: … resident", &now, "MB", Target::None);
    let share = agent.processor(QUIET, || Ok(()))?;
    rows.figure(
        "cluster: processor of the agent when nothing happens",
        &Series(vec![share]),
        "%",
        Target::AtMost(1.0),
    );
    let beats = || -> Result<(), Trouble> {
        let (began, between) = (Instant::now(), NODE_STATUS / NODES as u32);
        for n in 0.. {
            let left = QUIET.saturating_sub(began.elapsed());
            if left.is_zero() {
                break;
            }
            ground
                .client
                .merge(&objects::node_status(n % NODES), &objects::beat(n))
                .map_err(ground::trouble)?;
            std::thread::sleep(between.min(left));
        }
        Ok(())
    };
    let share = agent.processor(QUIET, beats)?;
    let what = format!(
        "cluster: … while each of {NODES} nodes says every {} s that it lives",
        NODE_STATUS.as_secs()
    );
    rows.figure(&what, &Series(vec![share]), "%", Target::AtMost(1.0));
    Ok(())
}
