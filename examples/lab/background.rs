//! The process that holds a lab: started, found again, ended.
//!
//! In: a name. Out: a world to step into. A record under `/run` tells where; a lab without its process is gone.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use egret::testbed::{Trouble, World};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Up, show};

/// Where running labs are written down.
const LABS: &str = "/run/egret-lab";

/// A lab by its name.
pub(super) struct Lab {
    pub(super) name: String,
}

impl Lab {
    fn record(&self) -> PathBuf {
        Path::new(LABS).join(&self.name)
    }

    /// The process that holds it, if it lives. A number alone may be somebody else's by now, so its birth counts too.
    fn process(&self) -> Option<i32> {
        let text = fs::read_to_string(self.record()).ok()?;
        let (pid, born) = text.trim().split_once(' ')?;
        let pid = pid.parse().ok()?;
        (birth(pid)? == born).then_some(pid)
    }

    pub(super) fn enter(&self) -> Result<World, Trouble> {
        let pid = self.process();
        World::join(
            pid.ok_or_else(|| Trouble::new(format!("no such lab is up; `{} up` raises it", self.script())))?,
        )
    }

    /// How the script is called for this lab.
    pub(super) fn script(&self) -> String {
        if self.name == "lab" {
            "scripts/lab".to_owned()
        } else {
            format!("scripts/lab --name {}", self.name)
        }
    }

    /// Starts the background process and waits until its world stands.
    pub(super) fn up(&self, up: &Up) -> Result<(), Trouble> {
        if self.process().is_some() {
            let lab = self.script();
            return Err(Trouble::new(format!(
                "it is up already; `{lab} status` shows it, `{lab} down` ends it"
            )));
        }
        let start = Instant::now();
        fs::create_dir_all(LABS).map_err(|e| Trouble::new(format!("cannot make {LABS}: {e}")))?;
        let own =
            std::env::current_exe().map_err(|e| Trouble::new(format!("cannot find this program: {e}")))?;
        let log_path = self.record().with_extension("log");
        let log = fs::File::create(&log_path)
            .map_err(|e| Trouble::new(format!("cannot write {}: {e}", log_path.display())))?;
        let mut command = Command::new(own);
        command.arg("serve").args(arguments(up)).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        // SAFETY: setsid is async-signal-safe and touches no memory.
        unsafe { command.pre_exec(|| Ok(nix::unistd::setsid().map(drop)?)) };
        let mut server = command.spawn().map_err(|e| Trouble::new(format!("cannot start: {e}")))?;
        let pid = i32::try_from(server.id()).unwrap_or_default();
        let mut word = String::new();
        if let Some(said) = server.stdout.take() {
            let _ = BufReader::new(said).read_line(&mut word);
        }
        if word.trim() != "ready" {
            let _ = server.wait();
            let why = fs::read_to_string(&log_path).unwrap_or_default();
            self.forget();
            return Err(Trouble::new(why.trim().trim_start_matches("scripts/lab: ").to_owned()));
        }
        let record = format!("{pid} {}\n", birth(pid).unwrap_or_default());
        fs::write(self.record(), record)
            .map_err(|e| Trouble::new(format!("cannot write its record: {e}")))?;
        println!("{} nodes up in {:.1} s", up.nodes, start.elapsed().as_secs_f32());
        self.enter().map(|world| show::status(&world, &self.script()))
    }

    /// Removes what is written down of it.
    fn forget(&self) {
        for file in [self.record(), self.record().with_extension("log")] {
            let _ = fs::remove_file(file);
        }
        let _ = fs::remove_dir(LABS);
    }

    /// Ends the process, and those that `exec` left inside.
    pub(super) fn down(&self) -> Result<(), Trouble> {
        let Some(pid) = self.process() else {
            println!("not up");
            return Ok(());
        };
        let inside = processes_inside(pid);
        let deadline = Instant::now() + Duration::from_secs(5);
        for process in inside.iter().chain([&pid]) {
            let _ = kill(Pid::from_raw(*process), Signal::SIGKILL);
        }
        while self.process().is_some() {
            if Instant::now() > deadline {
                return Err(Trouble::new(format!("process {pid} does not end")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.forget();
        println!("down");
        Ok(())
    }
}

/// When a process began, in clock ticks since boot (proc(5), `stat` field 22); `None` when it is gone or a zombie.
fn birth(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; what follows it starts with field 3.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    (*fields.first()? != "Z").then(|| fields.get(19).map(|s| (*s).to_owned()))?
}

/// Processes in the namespaces of this process's world.
fn processes_inside(pid: i32) -> Vec<i32> {
    let named = fs::read_dir(format!("/proc/{pid}/root/run/netns")).into_iter().flatten().flatten();
    let inodes: Vec<u64> = named.filter_map(|e| fs::metadata(e.path()).ok()).map(|m| m.ino()).collect();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = all.filter_map(|e| e.file_name().to_string_lossy().parse::<i32>().ok());
    let is_inside =
        |p: &i32| fs::metadata(format!("/proc/{p}/ns/net")).is_ok_and(|m| inodes.contains(&m.ino()));
    numbers.filter(is_inside).collect()
}

fn arguments(up: &Up) -> Vec<String> {
    use clap::ValueEnum;
    let word = |value: Option<clap::builder::PossibleValue>| {
        value.map_or_else(String::new, |v| v.get_name().to_owned())
    };
    let mut all = vec![
        format!("--nodes={}", up.nodes),
        format!("--primary={}", word(up.primary.to_possible_value())),
        format!("--masquerade={}", word(up.masquerade.to_possible_value())),
    ];
    all.extend(up.egret.as_ref().map(|path| format!("--egret={}", path.display())));
    all.extend(up.bare.then(|| "--bare".to_owned()));
    all
}
