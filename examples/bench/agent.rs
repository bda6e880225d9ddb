//! The agent of a node, as a process of its own, and what it takes of the machine.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use egret::agent::state::{AgentState, FILE, Health};
use egret::node::memory::Memory;
use egret::testbed::{RUN_DIR, Trouble, World};

/// Longest wait for anything, then something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Where each serves its numbers, in its node's network.
const PAGE: &str = "127.0.0.1:9790";

/// One that runs; it ends with its value.
pub(crate) struct Agent {
    child: Child,
    pub(crate) node: u8,
    /// When it was started.
    pub(crate) began: Instant,
}

impl Agent {
    /// Starts one and waits until it is well. `arguments`: further ones.
    pub(crate) fn start(world: &World, node: u8, arguments: &[&str]) -> Result<Agent, Trouble> {
        let agent = Agent::spawn(world, node, arguments)?;
        agent.until_well()?;
        Ok(agent)
    }

    /// Starts one.
    pub(crate) fn spawn(world: &World, node: u8, arguments: &[&str]) -> Result<Agent, Trouble> {
        let trouble = |e: std::io::Error| Trouble::new(format!("the agent does not start: {e}"));
        let egret = world.topology().egret.clone().unwrap_or_default();
        let mut command = world.node(node).daemon(egret)?;
        command.args(["agent", "--log", "warn", "--config"]).arg(world.conflist_path(node)).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let began = Instant::now();
        Ok(Agent { child: command.spawn().map_err(trouble)?, node, began })
    }

    /// How long after its start it was well.
    pub(crate) fn until_well(&self) -> Result<Duration, Trouble> {
        let end = Instant::now() + PATIENCE;
        while self.state().is_none_or(|state| state.health != Health::Well) {
            if Instant::now() > end {
                return Err(Trouble::new(format!("the agent is not well: {:?}", self.state())));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(self.began.elapsed())
    }

    /// What it says of itself.
    pub(crate) fn state(&self) -> Option<AgentState> {
        let memory = Memory::new(Path::new(RUN_DIR), &format!("node{}", self.node));
        let state: AgentState = serde_json::from_slice(&fs::read(memory.dir().join(FILE)).ok()?).ok()?;
        Some(state).filter(|state| state.pid == self.child.id())
    }

    /// It is well now.
    pub(crate) fn is_well(&self) -> Result<(), Trouble> {
        match self.state() {
            Some(state) if state.health == Health::Well => Ok(()),
            state => Err(Trouble::new(format!("the agent of node {} is not well: {state:?}", self.node))),
        }
    }

    /// All series of a family that have this among their labels, added up.
    pub(crate) fn counted(&self, world: &World, family: &str, label: &str) -> Result<f64, Trouble> {
        let trouble = |e: std::io::Error| Trouble::new(format!("numbers of the agent: {e}"));
        let ask = || -> std::io::Result<String> {
            let (mut stream, mut page) = (TcpStream::connect(PAGE)?, String::new());
            stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n")?;
            stream.read_to_string(&mut page)?;
            Ok(page)
        };
        let page = world.node(self.node).netns()?.run(ask).and_then(|page| page).map_err(trouble)?;
        let rows = page.lines().filter(|line| line.starts_with(family) && line.contains(label));
        Ok(rows.filter_map(|row| row.rsplit(' ').next()?.parse::<f64>().ok()).fold(0.0, |sum, one| sum + one))
    }

    /// Memory in MB (1,000,000 bytes) as the kernel calls it: `VmHWM` at its highest, `VmRSS` now.
    pub(crate) fn memory(&self, name: &str) -> Result<f64, Trouble> {
        let status = self.proc("status")?;
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = value.and_then(|v| v.trim_start_matches(':').split_whitespace().next());
        Ok(kib.and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(f64::NAN) * 1024.0 / 1e6)
    }

    /// The share of one processor, in percent, that it takes in this time while the caller does something.
    pub(crate) fn processor(
        &self,
        time: Duration,
        work: impl FnOnce() -> Result<(), Trouble>,
    ) -> Result<f64, Trouble> {
        let (before, began) = (self.ticks()?, Instant::now());
        work()?;
        std::thread::sleep(time.saturating_sub(began.elapsed()));
        Ok((self.ticks()? - before) / began.elapsed().as_secs_f64())
    }

    /// Hundredths of a second that it ran.
    fn ticks(&self) -> Result<f64, Trouble> {
        // Fields 14 and 15 of proc(5)'s stat, behind the name in brackets.
        let stat = self.proc("stat")?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let of = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(f64::NAN);
        Ok(of(11) + of(12))
    }

    fn proc(&self, file: &str) -> Result<String, Trouble> {
        let path = format!("/proc/{}/{file}", self.child.id());
        fs::read_to_string(&path).map_err(|e| Trouble::new(format!("{path}: {e}")))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
