//! An agent that starts on a node it never saw, and what it then hears of pods on other nodes.

use std::fs;
use std::time::{Duration, Instant};

use egret::testbed::Trouble;
use serde_json::Value;

use super::ground::{Ground, LINK, trouble};
use super::objects;
use crate::agent::PATIENCE;
use crate::rows::{Rows, Series, Target};

const NODE: u8 = 3;
const STARTS: usize = 5;
/// Pods made and deleted elsewhere, each in a window of its own.
const ELSEWHERE: usize = 20;
/// How long one looks for what a pod elsewhere sends here.
const WINDOW: Duration = Duration::from_millis(250);

pub(super) fn measure(ground: &Ground, rows: &mut Rows) -> Result<(), Trouble> {
    let (mut synced, mut well, mut bytes) = (Series::default(), Series::default(), Series::default());
    let (mut first, mut settled) = (Series::default(), Series::default());
    count_from_now(ground)?;
    for round in 0..STARTS {
        let _ = fs::remove_dir_all(ground.state(NODE));
        let before = counted(ground)?;
        let agent = ground.agent(NODE)?;
        let marker = ground.state(NODE).join("synced");
        while !marker.exists() {
            if agent.began.elapsed() > PATIENCE {
                return Err(Trouble::new(format!(
                    "the agent never heard of everything: {:?}",
                    agent.state()
                )));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        synced.0.push(agent.began.elapsed().as_secs_f64());
        well.0.push(agent.until_well()?.as_secs_f64());
        bytes.0.push((counted(ground)? - before) / 1e6);
        first.0.push(agent.memory("VmHWM")?);
        if round == STARTS - 1 {
            std::thread::sleep(Duration::from_secs(1));
            settled.0.push(agent.memory("VmRSS")?);
            elsewhere(ground, rows)?;
        }
    }
    rows.figure("cluster: start → synced, nothing known before", &synced, "s", Target::AtMost(3.0));
    rows.figure("cluster: … → well", &well, "s", Target::None);
    rows.figure("cluster: … bytes that it takes", &bytes, "MB", Target::None);
    rows.figure(
        "cluster: memory of the agent after a start, at its highest",
        &first,
        "MB",
        Target::AtMost(60.0),
    );
    rows.figure("cluster: … resident", &settled, "MB", Target::None);
    Ok(())
}

/// Windows in turn: in one a pod elsewhere is made and deleted, in the next nothing happens.
fn elsewhere(ground: &Ground, rows: &mut Rows) -> Result<(), Trouble> {
    let (mut with, mut without) = (Series::default(), Series::default());
    let pods = format!("/api/v1/namespaces/{}/pods", objects::namespace_name(500));
    let wait = |began: Instant| std::thread::sleep(WINDOW.saturating_sub(began.elapsed()));
    for n in 0..ELSEWHERE {
        let (before, began) = (counted(ground)?, Instant::now());
        let name = format!("brief-{n}");
        let pod = objects::pod(&objects::namespace_name(500), &name, "node400", &[]);
        ground.client.create(&pods, &pod).map_err(trouble)?;
        ground.client.delete(&format!("{pods}/{name}?gracePeriodSeconds=0")).map_err(trouble)?;
        wait(began);
        let (between, began) = (counted(ground)?, Instant::now());
        wait(began);
        with.0.push(between - before);
        without.0.push(counted(ground)? - between);
    }
    rows.figure(
        "cluster: bytes to an agent, one pod elsewhere made and deleted",
        &with,
        "B",
        Target::AtMost(0.0),
    );
    let all = |series: &Series| Series(vec![series.0.iter().sum::<f64>()]);
    rows.figure(&format!("cluster: … {ELSEWHERE} of them"), &all(&with), "B", Target::None);
    rows.figure("cluster: … as long without any", &all(&without), "B", Target::None);
    Ok(())
}

/// Counts what is more than an acknowledgement or a keep-alive probe, in both directions.
fn count_from_now(ground: &Ground) -> Result<(), Trouble> {
    let table = format!(
        "table inet bench {{\n\
         chain in {{ type filter hook input priority -400; iifname {LINK} meta length > 60 counter; }}\n\
         chain out {{ type filter hook output priority -400; oifname {LINK} meta length > 60 counter; }}\n}}"
    );
    ground.world.node(NODE).feed("nft", &["-f", "-"], &table).map(drop)
}

fn counted(ground: &Ground) -> Result<f64, Trouble> {
    let said = ground.world.node(NODE).run("nft", &["-j", "list", "table", "inet", "bench"])?;
    let said: Value = serde_json::from_str(&said).map_err(trouble)?;
    let expressions = said["nftables"].as_array().into_iter().flatten();
    let counters = expressions.flat_map(|one| one["rule"]["expr"].as_array().into_iter().flatten());
    Ok(counters.filter_map(|one| one["counter"]["bytes"].as_f64()).fold(0.0, |sum, one| sum + one))
}
