//! Running `nft -f -`, and the one verb that applies a [`Change`].
//!
//! In: a script. Out: it is loaded as a whole, or the command nft complained about. Never: composes rules.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use super::diff::Change;
use super::{Error, ahead, elements};

/// The oldest nft that knows a netdev chain at the egress hook (nftables 1.0.1, November 2021; kernel 5.16).
pub const REQUIRED: Version = Version { major: 1, minor: 0, patch: 1 };

/// Where nft lies when `PATH` does not say: a CNI plugin inherits its PATH from the runtime, and it may lack the sbin directories.
const ALSO: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"];

/// A version of nft.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub patch: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl Version {
    /// Reads what `nft --version` prints: `nftables v1.0.6 (Lester Gooch #5)`.
    fn from_output(text: &str) -> Option<Version> {
        let numbers = text.split_whitespace().find_map(|word| word.strip_prefix('v'))?;
        let mut numbers = numbers.split('.').map(|number| number.parse().ok());
        Some(Version {
            major: numbers.next()??,
            minor: numbers.next()??,
            patch: numbers.next().flatten().unwrap_or(0),
        })
    }
}

impl Change {
    /// Applies it in the network namespace of the calling thread: all or nothing.
    ///
    /// Single elements go by netlink (a very long list in several transactions), everything else through `nft`.
    pub fn apply(&self) -> Result<(), Error> {
        match self.elements_only() {
            Some(changes) => elements::apply(&changes),
            None => load(&self.to_string()),
        }
    }

    /// Begins to apply what goes through `nft`; the caller does other things until it asks for the end. It may be in force any time
    /// between the two.
    ///
    /// # Errors
    /// `nft` cannot be started or written to.
    pub fn begin(&self) -> Result<Loading, Error> {
        begin(self.to_string())
    }
}

pub(super) fn start(program: &Path) -> io::Result<Child> {
    let mut nft = Command::new(program);
    nft.args(["-f", "-"]).env("LC_ALL", "C");
    nft.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
}

/// Loads a script in one transaction, in the network namespace of the calling thread.
pub fn load(script: &str) -> Result<(), Error> {
    begin(script.to_owned())?.end()
}

/// A script on its way into the kernel.
#[must_use]
pub struct Loading {
    child: Child,
    program: PathBuf,
    script: String,
}

fn begin(script: String) -> Result<Loading, Error> {
    let program = find()?;
    let run = |source| not_run(&program, source);
    let mut child = ahead::started().map_or_else(|| start(&program), Ok).map_err(run)?;
    if let Some(mut input) = child.stdin.take() {
        match input.write_all(script.as_bytes()) {
            // nft has stopped reading: what it has to say about that is on its stderr.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            other => other.map_err(run)?,
        }
    }
    Ok(Loading { child, program, script })
}

impl Loading {
    /// Waits until it is loaded, or refused.
    ///
    /// # Errors
    /// As [`load`].
    pub fn end(self) -> Result<(), Error> {
        let Loading { child, program, script } = self;
        let output = child.wait_with_output().map_err(|source| not_run(&program, source))?;
        judge(&output, &script)
    }

    /// Waits until it is loaded, or refused, and not for the end of the program, which the kernel keeps for a grace period longer (2 ms).
    /// Only for who looks at the kernel afterwards: a program that was killed without a word passes for one that did its work.
    ///
    /// # Errors
    /// As [`load`].
    pub fn settle(mut self) -> Result<Ending, Error> {
        let mut said = Vec::new();
        // It closes its streams when it is done.
        let heard = self.child.stderr.as_mut().map_or(Ok(0), |stderr| stderr.read_to_end(&mut said));
        heard.map_err(|source| not_run(&self.program, source))?;
        let mut child = Ending(self.child);
        if said.is_empty() {
            return Ok(child);
        }
        let status = child.0.wait().map_err(|source| not_run(&self.program, source))?;
        judge(&Output { status, stdout: Vec::new(), stderr: said }, &self.script).map(|()| child)
    }
}

/// A program that is done, and is waited for when this goes.
#[must_use]
pub struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.wait();
    }
}

fn judge(output: &Output, script: &str) -> Result<(), Error> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    if said.trim().is_empty() {
        return Err(Error::Refused { line: None, message: format!("it ended with {}", output.status) });
    }
    // An old nft fails on a word it does not know; its age says more than its complaint.
    if said.contains("syntax error") {
        require()?;
    }
    Err(complaint(&said, script))
}

fn not_run(program: &Path, source: io::Error) -> Error {
    Error::NotRun { program: program.display().to_string(), source }
}

/// The installed version, refused if it is older than [`REQUIRED`]. Starts `nft` once: for program start, not for a pod's.
pub fn require() -> Result<Version, Error> {
    let program = find()?;
    let output = Command::new(&program)
        .arg("--version")
        .output()
        .map_err(|source| Error::NotRun { program: program.display().to_string(), source })?;
    let said = String::from_utf8_lossy(&output.stdout);
    let found = Version::from_output(&said).ok_or_else(|| Error::NotRun {
        program: format!("{} --version", program.display()),
        source: io::Error::other(format!("it printed no version: `{}`", said.trim())),
    })?;
    if found < REQUIRED { Err(Error::TooOld { found }) } else { Ok(found) }
}

pub(super) fn find() -> Result<PathBuf, Error> {
    find_in(&std::env::var("PATH").unwrap_or_default())
}

fn find_in(path: &str) -> Result<PathBuf, Error> {
    let mut directories: Vec<&str> = path.split(':').filter(|directory| directory.starts_with('/')).collect();
    directories.extend(ALSO);
    let found =
        directories.iter().map(|directory| PathBuf::from(directory).join("nft")).find(|file| file.is_file());
    found.ok_or_else(|| Error::NotInstalled { searched: directories.join(":") })
}

/// The first complaint with the command it is about. nft writes `/dev/stdin:LINE:FROM-TO: Error: WORDS`, then the line, then carets.
fn complaint(said: &str, script: &str) -> Error {
    let first =
        said.lines().find(|line| line.contains("Error:")).unwrap_or(said.lines().next().unwrap_or_default());
    let (place, words) = first.split_once("Error:").unwrap_or(("", first));
    let number = place.split(':').nth(1).and_then(|number| number.parse::<usize>().ok());
    let line =
        number.and_then(|number| script.lines().nth(number.checked_sub(1)?)).map(|line| cut(line, 300));
    let others = said.matches("Error:").count().saturating_sub(1);
    let more = if others > 0 { format!(" (and {others} more)") } else { String::new() };
    Error::Refused { line, message: format!("{}{more}", cut(words.trim(), 500)) }
}

fn cut(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    format!("{} …", &text[..text.floor_char_boundary(bytes)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared_as_numbers() {
        let version = |text| Version::from_output(text).unwrap();
        assert!(version("nftables v1.0.6 (Lester Gooch #5)") > REQUIRED);
        assert!(version("nftables v1.0.10 (Old Doc Yak #2)") > version("nftables v1.0.9 (x)"));
        assert!(version("nftables v1.1 (x)") > REQUIRED);
        assert!(version("nftables v0.9.8 (E.D.S.)") < REQUIRED);
        assert_eq!(Version::from_output("command not found"), None);
        assert!(require().unwrap() >= REQUIRED, "these tests need nftables {REQUIRED} or later");
    }

    #[test]
    fn a_complaint_names_the_command_and_counts_the_others() {
        let script = "add table inet t\nadd rule inet t nowhere accept\n";
        let said = "/dev/stdin:2:17-23: Error: No such file or directory\nadd rule inet t nowhere accept\n        ^^^^\n";
        assert_eq!(
            complaint(said, script).to_string(),
            "nft refused the change at `add rule inet t nowhere accept`: No such file or directory; nothing was changed"
        );
        let twice = complaint(&said.repeat(2), script).to_string();
        assert!(twice.contains("No such file or directory (and 1 more)"), "{twice}");
    }

    #[test]
    fn nft_is_found_without_a_path_and_its_absence_is_a_sentence() {
        assert!(find_in("").unwrap().is_file(), "these tests need nft in one of {ALSO:?}");
        let missing = Error::NotInstalled { searched: "/usr/sbin:/sbin".to_owned() };
        assert_eq!(
            missing.to_string(),
            "nft is not installed: looked in /usr/sbin:/sbin; install the package `nftables` (version 1.0.1 or later)"
        );
    }
}
