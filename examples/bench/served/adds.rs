//! The thin plugin and its agent, as a runtime calls them: beside `sbr`, for pods that were just made, and a hundred at once.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use egret::egress::model::PodName;
use egret::testbed::{Pod, Trouble};

use super::ground::{Ground, trouble};
use super::objects::{self, CLIENTS, ON_NODE};
use crate::agent::Agent;
use crate::rows::{Pairs, Rows, Series, Target};
use crate::turns::{As, Routes, Turns};

const NODE: u8 = 1;
/// Pods at once.
const CROWD: usize = 100;
const CROWDS: usize = 3;
/// Pods that start one after the other.
const SINGLES: usize = 20;
/// What passes between a pod's binding to the node and its plugins' turn at the least: the kubelet has its sandbox made.
const SANDBOX: Duration = Duration::from_millis(100);
/// Namespaces wired at once.
const HANDS: usize = 4;

/// Namespaces that the primary wired.
pub(super) struct Pods {
    turns: Turns,
    pods: Vec<Pod>,
}

impl Pods {
    /// Makes them, before anything of ours is on the node.
    pub(super) fn wired(ground: &Ground) -> Result<Pods, Trouble> {
        let turns = Turns::on(&ground.world, &ground.egret, &ground.scratch)?;
        let hand = |first: usize| -> Result<Vec<Pod>, Trouble> {
            (first..CROWD)
                .step_by(HANDS)
                .map(|n| ground.pod(NODE, &format!("crowd/at-{n}"), "none"))
                .collect()
        };
        let pods: Result<Vec<Vec<Pod>>, Trouble> = std::thread::scope(|threads| {
            let hands: Vec<_> = (0..HANDS).map(|first| threads.spawn(move || hand(first))).collect();
            hands
                .into_iter()
                .map(|hand| hand.join().unwrap_or_else(|_| Err(trouble("a thread ended"))))
                .collect()
        });
        let pods = pods?;
        let pods: Vec<Pod> = pods.into_iter().flatten().collect();
        let entry = ground.entry(NODE)?;
        pods.iter().try_for_each(|pod| turns.tell(pod, entry.clone()))?;
        Ok(Pods { turns, pods })
    }

    pub(super) fn measure(
        &self,
        ground: &Ground,
        agent: &Agent,
        pairs: usize,
        rows: &mut Rows,
    ) -> Result<(), Trouble> {
        // Its binding exists: another client of the namespace is there.
        let stays = (&self.pods[1], known(ground, 1)?);
        self.turns.ours("ADD", stays.0, &stays.1).time()?;
        for (what, number, target) in
            [("pod without egress", ON_NODE - 1, 0.15), ("client pod whose binding exists", 0, 0.3)]
        {
            let pairs = self.turns.pairs(&self.pods[0], &known(ground, number)?, pairs)?;
            let what = format!("cluster: ADD + DEL through the agent, {what}");
            rows.ratio(&what, &pairs, "ms", "sbr", Target::AtMost(target));
        }
        let floor = self.turns.floor(&self.pods[0], &known(ground, ON_NODE - 1)?, pairs)?;
        let what = "cluster: … of a program that asks and is answered at once";
        rows.ratio(what, &floor, "ms", "sbr", Target::None);
        self.singles(ground, agent, rows)?;
        self.turns.ours("DEL", stays.0, &stays.1).time()?;
        self.crowds(ground, rows)
    }

    /// Pods that are new to the agent, one after the other: what is asked of the API server for them.
    fn singles(&self, ground: &Ground, agent: &Agent, rows: &mut Rows) -> Result<(), Trouble> {
        let counted = |family: &str, label: &str| agent.counted(&ground.world, family, label);
        let waits = || counted("egret_cni_freshness_total", "answer");
        let reads = || counted("egret_kube_fresh_reads_total", "");
        let (mut waited, mut asked, mut took) = (Series::default(), Series::default(), Series::default());
        for n in 0..SINGLES {
            let who = fresh(ground, n % CLIENTS)?;
            std::thread::sleep(SANDBOX);
            let before = waits()?;
            took.0.push(self.turns.ours("ADD", &self.pods[0], &who).time()?);
            waited.0.push(waits()? - before);
            asked.0.push(reads()?);
            self.turns.ours("DEL", &self.pods[0], &who).time()?;
        }
        let asked = Series(asked.0.windows(2).map(|pair| pair[1] - pair[0]).collect());
        let mean = |series: &Series| Series(vec![series.0.iter().sum::<f64>() / series.0.len() as f64]);
        rows.figure(
            "cluster: API calls that the ADD of a new client pod waits for",
            &waited,
            "",
            Target::AtMost(0.0),
        );
        rows.share("cluster: … at most", &waited, 1.0, "", Target::AtMost(1.0));
        rows.figure("cluster: … that were made for it before", &mean(&asked), "", Target::None);
        rows.figure("cluster: … and that ADD takes", &took, "ms", Target::None);
        Ok(())
    }

    /// A hundred pods that were just made, all clients, at once; the same namespaces by the reference.
    fn crowds(&self, ground: &Ground, rows: &mut Rows) -> Result<(), Trouble> {
        let routes = self.pods.iter().map(Routes::of).collect::<Result<Vec<_>, _>>()?;
        let mut slowest = Pairs::default();
        for round in 0..=CROWDS {
            let fresh = |n: usize| fresh(ground, n);
            let who: Vec<As> = (0..CROWD).map(fresh).collect::<Result<_, _>>()?;
            let ours = self.at_once(|pod, who| self.turns.ours("ADD", pod, who).time(), &who)?;
            self.at_once(|pod, who| self.turns.ours("DEL", pod, who).time(), &who)?;
            let theirs = self.at_once(|pod, who| self.turns.theirs("ADD", pod, who).time(), &who)?;
            self.at_once(|pod, who| self.turns.theirs("DEL", pod, who).time(), &who)?;
            for (routes, pod) in routes.iter().zip(&self.pods) {
                routes.restore(pod)?;
            }
            println!("{CROWD} ADDs at once (ms): egret {ours}; sbr {theirs}");
            if round > 0 {
                slowest.push(ours.at(1.0), theirs.at(1.0));
            }
        }
        let what = format!("cluster: {CROWD} client pods at once, the slowest ADD");
        rows.figure(&what, &slowest.ours, "ms", Target::AtMost(250.0));
        rows.ratio("cluster: … beside the reference's slowest", &slowest, "ms", "sbr", Target::None);
        Ok(())
    }

    /// Calls for all pods at once; what each took.
    fn at_once(
        &self,
        call: impl Fn(&Pod, &As) -> Result<f64, Trouble> + Sync,
        who: &[As],
    ) -> Result<Series, Trouble> {
        let ready = Barrier::new(who.len());
        let all: Result<Vec<f64>, Trouble> = std::thread::scope(|threads| {
            let both = self.pods.iter().zip(who);
            let spawned: Vec<_> = both
                .map(|(pod, who)| {
                    let (ready, call) = (&ready, &call);
                    threads.spawn(move || {
                        ready.wait();
                        call(pod, who)
                    })
                })
                .collect();
            spawned
                .into_iter()
                .map(|one| one.join().unwrap_or_else(|_| Err(trouble("a thread ended"))))
                .collect()
        });
        all.map(Series)
    }
}

fn named(number: usize) -> PodName {
    PodName::new(objects::namespace_of(number), objects::pod_name(number))
}

/// A pod of node 1, as the API server knows it.
fn known(ground: &Ground, number: usize) -> Result<As, Trouble> {
    let pod = named(number);
    let object = ground.get(&objects::pod_path(&pod.namespace, &pod.name))?;
    Ok(As { pod, uid: object["metadata"]["uid"].as_str().unwrap_or_default().to_owned() })
}

/// The same after the pod was deleted and another one of its name made, this moment.
fn fresh(ground: &Ground, number: usize) -> Result<As, Trouble> {
    let pod = named(number);
    let path = objects::pod_path(&pod.namespace, &pod.name);
    ground.client.delete(&format!("{path}?gracePeriodSeconds=0")).map_err(trouble)?;
    let (folder, _) = path.rsplit_once('/').unwrap_or_default();
    let object = objects::pod(&pod.namespace, &pod.name, &format!("node{NODE}"), &[]);
    let began = Instant::now();
    let made = ground
        .client
        .create(folder, &object)
        .map_err(|e| trouble(format!("{e} after {:?}", began.elapsed())))?;
    Ok(As { pod, uid: made["metadata"]["uid"].as_str().unwrap_or_default().to_owned() })
}
