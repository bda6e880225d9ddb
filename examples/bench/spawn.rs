//! One process, measured from spawn to its end.
//!
//! The memory it took is asked of a small process between: what the kernel reports as a child's peak begins with what its
//! parent had mapped when it called `exec`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};
use std::time::Instant;

use egret::kernel::netns::Netns;
use egret::testbed::Trouble;

/// First argument of the small process.
pub(crate) const LAUNCH: &str = "--launch";

/// A call of a plugin as a runtime makes it.
pub(crate) struct Call<'a> {
    pub(crate) program: &'a Path,
    pub(crate) verb: &'a str,
    pub(crate) stdin: &'a Path,
    pub(crate) netns: PathBuf,
    pub(crate) args: String,
    pub(crate) container: &'a str,
}

impl Call<'_> {
    fn command(&self, program: &Path) -> Result<Command, Trouble> {
        let open = |e: std::io::Error| Trouble::new(format!("{}: {e}", self.stdin.display()));
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CNI_COMMAND", self.verb)
            .env("CNI_CONTAINERID", self.container)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_NETNS", &self.netns)
            .env("CNI_PATH", "/opt/cni/bin")
            .env("CNI_ARGS", &self.args)
            .stdin(File::open(self.stdin).map_err(open)?)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        Ok(command)
    }

    /// Runs it in a node's namespace; milliseconds from spawn to its end. Anything but success is trouble.
    pub(crate) fn time(&self, node: &Netns) -> Result<f64, Trouble> {
        let mut command = self.command(self.program)?;
        let run = || -> std::io::Result<(f64, Output)> {
            let begun = Instant::now();
            let mut child = command.spawn()?;
            // A reply is shorter than what a pipe holds.
            child.wait()?;
            let took = begun.elapsed();
            Ok((took.as_secs_f64() * 1e3, child.wait_with_output()?))
        };
        let (took, said) = node.run(run).and_then(|r| r).map_err(|e| self.trouble(&e.to_string()))?;
        if said.status.success() {
            Ok(took)
        } else {
            Err(self.trouble(&String::from_utf8_lossy(&said.stdout)))
        }
    }

    /// Peak resident memory in MB (1,000,000 bytes).
    pub(crate) fn peak(&self, node: &Netns) -> Result<f64, Trouble> {
        let own = std::env::current_exe().map_err(|e| self.trouble(&e.to_string()))?;
        let mut command = self.command(&own)?;
        command.arg(LAUNCH).arg(self.program);
        let run = || command.output();
        let said = node.run(run).and_then(|r| r).map_err(|e| self.trouble(&e.to_string()))?;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let kib: f64 = text.trim().parse().map_err(|_| self.trouble(&text))?;
        Ok(kib * 1024.0 / 1e6)
    }

    fn trouble(&self, said: &str) -> Trouble {
        Trouble::new(format!("{} {} failed: {}", self.program.display(), self.verb, said.trim()))
    }
}

/// The small process: runs a program with everything it inherited and prints its peak memory in KiB.
pub(crate) fn launch(program: &[String]) -> ExitCode {
    let status = Command::new(&program[0]).stdout(Stdio::null()).status();
    // SAFETY: all-zero is a valid rusage, and the call writes only into it.
    let used = unsafe {
        let mut used: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &mut used);
        used
    };
    println!("{}", used.ru_maxrss);
    if status.is_ok_and(|s| s.success()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
