//! A place where commands run: a node, the router, the outside.
//!
//! In: a program and its arguments. Out: what it wrote. A node's commands see the node's network, a `/sys` that shows
//! it, and the node's own `/var/lib/cni`, as if the node were a machine. They end when the thread that waits for them ends.

use std::ffi::{CString, OsStr};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::Trouble;
use super::private::{CNI_DIR, NETNS_DIR};
use crate::kernel::netns::Netns;

/// A network namespace with a name and an environment.
#[derive(Debug, Clone)]
pub struct Place {
    name: String,
    cni_dir: Option<PathBuf>,
    environment: Vec<(String, String)>,
}

impl Place {
    /// A place by the name of its namespace.
    pub(super) fn named(name: impl Into<String>) -> Place {
        Place { name: name.into(), cni_dir: None, environment: Vec::new() }
    }

    /// Gives it its own records of CNI.
    pub(super) fn with_cni_dir(mut self) -> Place {
        self.cni_dir = Some(Path::new(CNI_DIR).join(&self.name));
        self
    }

    /// Adds a variable to all of its commands.
    pub(super) fn with_variable(mut self, key: &str, value: impl Into<String>) -> Place {
        self.environment.push((key.to_owned(), value.into()));
        self
    }

    /// `node1`, `router`, `outside` …
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Path of its network namespace.
    pub fn path(&self) -> PathBuf {
        Path::new(NETNS_DIR).join(&self.name)
    }

    /// Its network namespace, opened.
    pub fn netns(&self) -> Result<Netns, Trouble> {
        Netns::open(self.path()).map_err(|e| Trouble::new(e.to_string()))
    }

    /// Its own copy of `/var/lib/cni`, where it has one.
    pub(super) fn cni_dir(&self) -> Option<&Path> {
        self.cni_dir.as_deref()
    }

    /// A command that will run here, and end when the calling thread ends.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command, Trouble> {
        let mut command = self.stepping_in(program)?;
        // SAFETY: prctl with these arguments touches no memory and is async-signal-safe.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        Ok(command)
    }

    /// A command that will run here and outlive the caller: for `exec`.
    pub fn stepping_in(&self, program: impl AsRef<OsStr>) -> Result<Command, Trouble> {
        let network = self.netns()?;
        let records = match &self.cni_dir {
            Some(dir) => Some((c_path(dir)?, c_path(Path::new(CNI_DIR))?)),
            None => None,
        };
        let mut command = Command::new(program);
        command.envs(self.environment.iter().map(|(k, v)| (k, v)));
        // SAFETY: between fork and exec only system calls are made, on memory prepared before the fork.
        unsafe {
            command.pre_exec(move || {
                done(libc::setns(network.as_fd().as_raw_fd(), libc::CLONE_NEWNET))?;
                done(libc::unshare(libc::CLONE_NEWNS))?;
                let none: *const libc::c_char = std::ptr::null();
                // A /sys that shows this namespace's devices, as `ip netns exec` does.
                done(libc::mount(c"sysfs".as_ptr(), c"/sys".as_ptr(), c"sysfs".as_ptr(), 0, none.cast()))?;
                if let Some((from, to)) = &records {
                    done(libc::mount(from.as_ptr(), to.as_ptr(), none, libc::MS_BIND, none.cast()))?;
                }
                Ok(())
            });
        }
        Ok(command)
    }

    /// A program that stays: in this network, but among the world's own mounts, where namespaces that are made later are seen. It ends when
    /// the calling thread ends.
    pub fn daemon(&self, program: impl AsRef<OsStr>) -> Result<Command, Trouble> {
        let network = self.netns()?;
        let mut command = Command::new(program);
        // SAFETY: between fork and exec only system calls are made, on a descriptor opened before.
        unsafe {
            command.pre_exec(move || {
                done(libc::setns(network.as_fd().as_raw_fd(), libc::CLONE_NEWNET))?;
                done(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))
            });
        }
        Ok(command)
    }

    /// Runs a program and gives its standard output; anything but success is trouble with its last words.
    pub fn run<S: AsRef<OsStr>>(&self, program: &str, arguments: &[S]) -> Result<String, Trouble> {
        self.feed(program, arguments, "")
    }

    /// The same for a line of shell.
    pub fn sh(&self, line: &str) -> Result<String, Trouble> {
        self.run("sh", &["-ec", line])
    }

    /// Runs a program with something on its standard input.
    pub fn feed<S: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: &[S],
        input: &str,
    ) -> Result<String, Trouble> {
        let mut command = self.command(program)?;
        command.args(arguments);
        let output = run_to_end(command, input.as_bytes()).map_err(|e| {
            Trouble::new(format!("cannot run {program} in {}: {e}; is it installed?", self.name))
        })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let words: Vec<_> = arguments.iter().map(|a| a.as_ref().to_string_lossy()).collect();
        let said = String::from_utf8_lossy(&output.stderr);
        let (name, words, said) = (&self.name, words.join(" "), said.trim());
        Err(Trouble::new(format!("{name}: `{program} {words}` failed ({}): {said}", output.status)))
    }

    /// Writes kernel settings (`net.ipv4.ip_forward`; slashes inside a device's name) of this namespace.
    pub fn set(&self, settings: &[(&str, &str)]) -> Result<(), Trouble> {
        let write = || -> Result<(), Trouble> {
            for (key, value) in settings {
                let path = setting(key);
                std::fs::write(&path, value).map_err(|e| {
                    Trouble::new(format!("{}: cannot write {value} to {path}: {e}", self.name))
                })?;
            }
            Ok(())
        };
        self.netns()?.run(write).map_err(|e| Trouble::new(format!("cannot enter {}: {e}", self.name)))?
    }

    /// Reads a kernel setting of this namespace.
    pub fn get(&self, key: &str) -> Result<String, Trouble> {
        let path = setting(key);
        let read = || std::fs::read_to_string(&path).map(|s| s.trim().to_owned());
        let value = self.netns()?.run(read).and_then(|r| r);
        value.map_err(|e| Trouble::new(format!("{}: cannot read {path}: {e}", self.name)))
    }
}

/// Path of a setting. As in sysctl(8): dots part, and a slash stands for a dot in a device's name.
fn setting(key: &str) -> String {
    let path: String = key
        .chars()
        .map(|c| {
            if c == '.' {
                '/'
            } else if c == '/' {
                '.'
            } else {
                c
            }
        })
        .collect();
    format!("/proc/sys/{path}")
}

/// Runs a command with this input, to its end.
pub(super) fn run_to_end(mut command: Command, input: &[u8]) -> io::Result<Output> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // All inputs here are far smaller than a pipe; a program that does not read its input says why itself.
        let _ = stdin.write_all(input);
    }
    child.wait_with_output()
}

fn c_path(path: &Path) -> Result<CString, Trouble> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Trouble::new("a path holds a zero byte"))
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
