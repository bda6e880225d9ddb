//! The controller's loop: hear, and if this one leads, write what is not as it should be.
//!
//! In: access to a cluster, settings. Out: nothing, until it is told to end. Never: decides; what is to be done comes from the pure
//! parts as a value, and is done one by one, each asking first whether this process still leads.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::act::{self, ActError, AgentsPods};
use super::agents::Agents;
use super::health::Known;
use super::lead::{Lead, Leading};
use super::pace::Pace;
use super::reclaim::{Patience, Remnant, remnants};
use super::tally::tally;
use super::world::{World, agents_pods};
use super::{Settings, status, taints, time_of_day};
use crate::config::Config;
use crate::kube::{Access, Client, Following, HOME, Mirror, Reach, Watched, foreign, lease};
use crate::probes::turns::Turns;
use crate::probes::web;
use crate::signals;

/// How often it is asked whether to end, at least.
const LOOK: Duration = Duration::from_millis(200);
/// Between two looks at everything: a burst of changes is one.
const GAP: Duration = Duration::from_millis(500);
/// At most so long until everything is looked at again: addresses cool down without anybody saying so.
const REGULARLY: Duration = Duration::from_secs(30);
/// How often the configuration is read: agents take up another one within 10 s, and both shall decide alike.
const CONFIGURED: Duration = Duration::from_secs(5);
/// Pause after something could not be done.
const RETRY: Duration = Duration::from_secs(2);

/// Gives the configuration as it is now.
type Configure<'a> = &'a dyn Fn() -> Result<Config, String>;

/// Runs until SIGTERM or SIGINT; then another takes over at once. `configure` is asked again and again; `name`: of this process, for people
/// who read the Lease; `listen`: where health and metrics are served.
///
/// # Errors
/// A configuration or credentials that cannot be used, or no threads.
pub fn run(
    access: Access,
    configure: Configure<'_>,
    settings: Settings,
    name: &str,
    listen: Option<Vec<SocketAddr>>,
) -> Result<(), String> {
    let config = configure()?;
    let signals = signals::of_the_end()?;
    let client = Arc::new(Client::new(access).map_err(|e| e.to_string())?);
    let no_thread = |e: std::io::Error| format!("no thread can be started: {e}");
    let following = Following::with(&client, Reach::Cluster, |kind| is_adopted(&config, kind));
    let following = following.map_err(no_thread)?;
    let turns = Arc::new(Turns::default());
    let lead = Lead::start(client.clone(), name, following.bell(), turns.clone()).map_err(no_thread)?;
    let known = Arc::new(Known::new(client.clone(), following.shared(), lead.leading(), turns));
    if let Some(addresses) = listen {
        web::serve(addresses, known.clone()).map_err(no_thread)?;
    }
    let mut run = Run {
        client,
        following,
        leading: lead.leading(),
        known,
        configure,
        config,
        configured: Duration::ZERO,
        settings,
        agents: Agents::new(settings.silence),
        silent: BTreeSet::new(),
        asked: Duration::ZERO,
        patience: Patience::default(),
        pace: Pace::default(),
        seen: None,
        pods: None,
        next: Duration::ZERO,
        due: Duration::ZERO,
        trouble: BTreeMap::new(),
    };
    while signals.read_signal().map_err(|e| format!("signals cannot be read: {e}"))?.is_none() {
        run.turn();
    }
    lead.end();
    Ok(())
}

struct Run<'a> {
    client: Arc<Client>,
    following: Following,
    leading: Arc<Leading>,
    known: Arc<Known>,
    configure: Configure<'a>,
    config: Config,
    /// When it was read.
    configured: Duration,
    settings: Settings,
    agents: Agents,
    /// Nodes whose agents are silent by the server's own word.
    silent: BTreeSet<String>,
    /// When they were last asked for.
    asked: Duration,
    patience: Patience,
    pace: Pace,
    /// Generations of all kinds at the last look; `None`: everything is to be looked at.
    seen: Option<Vec<u64>>,
    /// Generation of the pods when agents' own were last looked for.
    pods: Option<u64>,
    /// Not before.
    next: Duration,
    /// Whatever was heard, at this time.
    due: Duration,
    /// What could not be done, so that it is said once.
    trouble: BTreeMap<String, String>,
}

impl Run<'_> {
    fn turn(&mut self) {
        self.known.at("wait");
        self.following.changed(LOOK);
        self.known.at("hear");
        let now = self.leading.now();
        if now >= self.configured + CONFIGURED {
            self.configured = now;
            self.read_configuration();
        }
        // Also by who does not lead: who takes over knows who was silent.
        self.hear(now);
        if !self.leading.is_ours() {
            self.rests();
            return;
        }
        let generations = self.generations();
        let new = self.seen.as_ref() != Some(&generations);
        if now < self.next || !(new || now >= self.due) || !self.following.mirror().is_synced() {
            return;
        }
        self.next = now + GAP;
        self.seen = Some(generations);
        self.known.at("look");
        let well = self.look(now);
        self.known.looked(well, self.leading.now().saturating_sub(now), self.trouble.len());
        let hears_since = self.leading.hears_since();
        let agents = self.agents.due(now, hears_since);
        let leases = self.patience.due(now, self.settings.reclaim_after);
        let regularly = now + if well { REGULARLY } else { RETRY };
        self.due = [agents, leases, self.pace.next()].into_iter().flatten().fold(regularly, Duration::min);
    }

    /// Another works. What was gone when this one last looked may have been back in between.
    fn rests(&mut self) {
        self.seen = None;
        self.silent.clear();
        self.patience = Patience::default();
        self.known.rests();
    }

    fn read_configuration(&mut self) {
        let what = "the configuration";
        match (self.configure)() {
            Ok(config) if config == self.config => _ = self.done(what, Ok(())),
            Ok(config) => {
                tracing::info!("another configuration");
                self.following.adopt(|kind| is_adopted(&config, kind));
                (self.config, self.seen) = (config, None);
                self.done(what, Ok(()));
            }
            // The last one stays in force.
            Err(why) => _ = self.done::<()>(what, Err(why)),
        }
    }

    /// Whoever fell silent is asked for by a list before anybody is told: a watch may hang while the server answers, and then all agents
    /// would seem to be away. Whoever is silent may come back behind such a watch: they are asked for again and again.
    fn asks_for_the_silent(&mut self, now: Duration) -> Result<(), ActError> {
        let hears_since = self.leading.hears_since();
        let silent = self.agents.silent(now, hears_since);
        let again = now >= self.asked + REGULARLY;
        if !silent.is_subset(&self.silent) || (again && !silent.is_empty()) {
            self.asked = now;
            self.known.at("ask for the silent");
            let (beats, _) = self.client.list(&Watched::Beats.path(&Reach::Cluster))?;
            for beat in &beats {
                self.following.mirror().learn(Watched::Beats, beat);
            }
            self.hear(now);
        }
        self.silent = self.agents.silent(now, hears_since);
        Ok(())
    }

    fn hear(&mut self, now: Duration) {
        let mirror = self.following.mirror();
        // What comes with the first list is no sign of life.
        if !mirror.is_synced() {
            return;
        }
        self.known.heard();
        let beats = mirror.objects(Watched::Beats).filter_map(|(name, object)| {
            Some((lease::node_of(name)?, object["metadata"]["resourceVersion"].as_str()?))
        });
        if self.agents.hear(beats, now) {
            self.due = now;
        }
        let pods = mirror.generation(Watched::Pods);
        if self.pods != Some(pods) {
            self.agents.expect(agents_pods(&mirror), now);
            self.pods = Some(pods);
        }
    }

    /// What a look depends on: signs of life do not count, only their absence does, and the first after it.
    fn generations(&self) -> Vec<u64> {
        let mirror = self.following.mirror();
        let kinds = Reach::Cluster.kinds().filter(|kind| *kind != Watched::Beats);
        kinds.map(|kind| mirror.generation(kind)).collect()
    }

    /// Looks at everything once, and does what is to be done. Says whether all of it was.
    fn look(&mut self, now: Duration) -> bool {
        if let Err(error) = self.asks_for_the_silent(now) {
            return self.done::<()>("the signs of life of agents", Err(error.to_string()));
        }
        let hears_since = self.leading.hears_since();
        let world = {
            let mirror = self.following.mirror();
            World::of(&mirror, &self.config, |node| self.agents.of(node, now, hears_since))
        };
        let world = match world {
            Ok(world) => world,
            Err(error) => return self.done::<()>("the objects", Err(error)),
        };
        let clock = time_of_day().as_secs();
        let mut well = true;
        let tallies = tally(&world);
        self.known.counted(&world.agents, &tallies.sum);
        for write in self.pace.due(status::writes(&world, &tallies, clock, &lease::time(clock)), now) {
            let what = format!("the status of {} {}", write.kind.typed().1, write.name);
            let client = self.client.clone();
            match self.act(&what, Some(write.kind), || act::write(&client, &write)) {
                true => self.pace.wrote(&write, now),
                false => well = false,
            }
        }
        for (node, agent) in &world.agents {
            let taints = world.taints.get(node).unwrap_or(&serde_json::Value::Null);
            if taints::wanted(taints, *agent, self.settings.taint).is_some() {
                let (client, on) = (self.client.clone(), self.settings.taint);
                tracing::info!(node, ?agent, "its taint changes");
                let what = format!("the taint of node {node}");
                well &= self.act(&what, Some(Watched::Nodes), || act::taint(&client, node, *agent, on));
            }
        }
        self.give_back(&world, now, clock) && well
    }

    /// Frees what has been gone for long enough, and is gone by the server's own word.
    fn give_back(&mut self, world: &World, now: Duration, clock: u64) -> bool {
        let hears_since = self.leading.hears_since();
        let ripe = self.patience.ripe(remnants(world, clock), now, hears_since, self.settings.reclaim_after);
        let (mut well, mut pods) = (true, AgentsPods::default());
        for remnant in ripe {
            well &= self.give_back_one(&remnant, &mut pods, clock);
        }
        well
    }

    fn give_back_one(&mut self, remnant: &Remnant, pods: &mut AgentsPods, clock: u64) -> bool {
        if !self.leading.is_ours() {
            return false;
        }
        self.known.at("give back");
        let heard = remnant.node().and_then(|node| self.agents.last(node));
        let outcome = act::reclaim(&self.client, remnant, (heard, pods), clock);
        if let Ok(reclaimed) = &outcome {
            let mut mirror = self.following.mirror();
            for (kind, object) in &reclaimed.learnt {
                mirror.learn(*kind, object);
            }
            if let Some((kind, object)) = &reclaimed.gone {
                mirror.gone(*kind, object);
            }
            if let (Some(_), Remnant::Agent(node)) = (&reclaimed.freed, remnant) {
                forget_beat(&mut mirror, node);
            }
        }
        match outcome {
            Ok(act::Reclaimed { freed: Some(freed), .. }) => {
                self.known.reclaimed(remnant, freed.len());
                let freed: Vec<String> = freed.iter().map(|f| f.ip.to_string()).collect();
                tracing::info!(%remnant, ?freed, "what was left of it is freed");
            }
            Ok(_) => {
                tracing::info!(%remnant, "it is not gone: nothing is taken");
                self.patience.forget(remnant);
            }
            Err(error) if error.is_conflict() => return false,
            Err(error) => {
                return self.done::<()>(&format!("what is left of {remnant}"), Err(error.to_string()));
            }
        }
        self.done(&format!("what is left of {remnant}"), Ok(()))
    }

    /// Does one thing, if this process still leads. What was written is known before the watch tells it.
    fn act(
        &mut self,
        what: &str,
        kind: Option<Watched>,
        deed: impl FnOnce() -> Result<Option<serde_json::Value>, ActError>,
    ) -> bool {
        if !self.leading.is_ours() {
            return false;
        }
        self.known.at("write");
        match deed() {
            Ok(object) => {
                if let (Some(kind), Some(object)) = (kind, object) {
                    self.following.mirror().learn(kind, &object);
                }
                self.done(what, Ok(()))
            }
            Err(error) if error.is_conflict() => false,
            Err(error) => self.done::<()>(what, Err(error.to_string())),
        }
    }

    fn done<T>(&mut self, what: &str, outcome: Result<T, String>) -> bool {
        match outcome {
            Ok(_) => {
                self.trouble.remove(what);
                true
            }
            Err(why) => {
                if self.trouble.get(what) != Some(&why) {
                    tracing::warn!(what, why, "could not be read or written; tried again");
                    self.trouble.insert(what.to_owned(), why);
                }
                false
            }
        }
    }
}

/// A Lease that is gone, by whomever it was taken: its watch may hang, and then the node would be tainted and freed by turns for ever.
fn forget_beat(mirror: &mut Mirror, node: &str) {
    let name = lease::beat_of(node);
    let known = mirror.object(Watched::Beats, &format!("{HOME}/{name}"));
    let version = known.map(|beat| beat["metadata"]["resourceVersion"].clone());
    if let Some(version) = version {
        let gone = json!({"metadata": {"namespace": HOME, "name": name, "resourceVersion": version}});
        mirror.gone(Watched::Beats, &gone);
    }
}

fn is_adopted(config: &Config, kind: Watched) -> bool {
    foreign::of(kind).is_some_and(|project| config.adopt.contains(&project))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_is_gone_is_forgotten_though_no_watch_tells_of_it_and_a_younger_one_is_heard() {
        let beat = |node: &str, version: &str| {
            let name = lease::beat_of(node);
            json!({"metadata": {"namespace": HOME, "name": name, "resourceVersion": version}})
        };
        let names = |mirror: &Mirror| -> Vec<String> {
            mirror.objects(Watched::Beats).map(|(name, _)| name.to_owned()).collect()
        };
        let mut mirror = Mirror::of(Reach::Cluster);
        mirror.listed(Watched::Beats, &[beat("a", "7"), beat("b", "8")]);
        mirror.learn(Watched::Beats, &beat("a", "9"));
        forget_beat(&mut mirror, "a");
        forget_beat(&mut mirror, "nobody");
        assert_eq!(names(&mirror), [format!("{HOME}/agent.b")]);
        mirror.is(Watched::Beats, &beat("a", "12"));
        assert_eq!(names(&mirror).len(), 2);
    }
}
