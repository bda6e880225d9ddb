//! The benchmark: what `docs/benchmarks.md` promises, measured side by side in one run. Started by `scripts/bench`.
//!
//! In: the static release build, the reference plugins, root. Out: every single value, a table of medians with target and
//! verdict, exit status 1 if a target is missed. Never: touches the machine's own network; all of it lies in namespaces.

#![allow(clippy::print_stdout, reason = "a benchmark's result is what it prints")]

mod agent;
mod bindings;
mod by_hand;
mod calls;
mod cluster;
mod floor;
mod live;
mod neighbours;
mod paths;
mod policies;
mod pure;
mod repairs;
mod rows;
mod served;
mod spawn;
mod traffic;
mod turns;
mod watching;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use egret::heap::Heap;
use egret::testbed::Trouble;
use rows::Rows;

// What the product computes with; musl's own is slower, and gives back less.
#[global_allocator]
static MEMORY: Heap = Heap::new();

/// What the caller asked for.
struct Arguments {
    egret: PathBuf,
    scratch: PathBuf,
    pairs: usize,
    parts: Vec<String>,
}

const PARTS: [&str; 6] = ["pure", "calls", "paths", "bindings", "live", "cluster"];

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|a| a == spawn::LAUNCH) {
        return spawn::launch(&arguments.split_off(1));
    }
    // With the script that started it, and with it all that it started.
    if let Err(error) = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL) {
        eprintln!("bench: {error}");
    }
    short_turns();
    match arguments_of(arguments).and_then(|arguments| run(&arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(trouble) => {
            eprintln!("bench: {trouble}");
            ExitCode::from(2)
        }
    }
}

/// Asks the scheduler for turns of 0.1 ms, for us and all that we start, in the ordinary class and with the niceness that we have.
/// Who wakes up on a busy machine waits for the end of somebody's turn, up to 3 ms, unless its own is to be shorter: a call of
/// 0.4 ms was measured as 3.4. Kernels before 6.12 do not listen, and then the machine had better be idle.
fn short_turns() {
    /// sched_setattr(2).
    #[repr(C)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    // SAFETY: the first call takes numbers only; the second reads a structure that outlives it and says how long it is.
    unsafe {
        let asked = Attributes {
            size: 48,
            policy: 0,
            flags: 0,
            nice: libc::getpriority(libc::PRIO_PROCESS, 0),
            priority: 0,
            runtime: 100_000,
            deadline: 0,
            period: 0,
        };
        libc::syscall(libc::SYS_sched_setattr, 0, &raw const asked, 0);
    }
}

fn run(arguments: &Arguments) -> Result<bool, Trouble> {
    let mut rows = Rows::default();
    for part in &arguments.parts {
        match part.as_str() {
            "pure" => pure::measure(arguments, &mut rows)?,
            "calls" => calls::measure(arguments, &mut rows)?,
            "bindings" => bindings::measure(arguments, &mut rows)?,
            "live" => live::measure(arguments, &mut rows)?,
            "cluster" => served::measure(arguments, &mut rows)?,
            _ => paths::measure(arguments, &mut rows)?,
        }
    }
    println!("\n{rows}");
    Ok(rows.all_met())
}

/// `--egret BINARY --scratch DIRECTORY [--pairs N] [PART…]`, as `scripts/bench` gives them.
fn arguments_of(words: Vec<String>) -> Result<Arguments, Trouble> {
    let (mut egret, mut scratch, mut pairs, mut parts) = (None, None, 15, Vec::new());
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| Trouble::new(format!("{word} needs a value")));
        match word.as_str() {
            "--egret" => egret = Some(PathBuf::from(value()?)),
            "--scratch" => scratch = Some(PathBuf::from(value()?)),
            "--pairs" => {
                let text = value()?;
                pairs = text.parse().map_err(|e| Trouble::new(format!("--pairs {text}: {e}")))?;
            }
            part if PARTS.contains(&part) => parts.push(word),
            _ => return Err(Trouble::new(format!("{word} is no part; parts are {}", PARTS.join(", ")))),
        }
    }
    if parts.is_empty() {
        parts = PARTS.map(str::to_owned).to_vec();
    }
    let needed =
        |value: Option<PathBuf>, name: &str| value.ok_or_else(|| Trouble::new(format!("{name} is missing")));
    Ok(Arguments { egret: needed(egret, "--egret")?, scratch: needed(scratch, "--scratch")?, pairs, parts })
}
