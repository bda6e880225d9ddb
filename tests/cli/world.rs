//! A folder of manifests, and the program that is asked about it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use egret::testbed::faults;
use serde_json::Value;

/// A folder that is gone afterwards.
pub(crate) struct Folder {
    path: PathBuf,
}

/// Held where a file is written, and where a process is begun. A process begins as a copy that holds every file of this one until it is
/// another program; a manifest that is open for writing anywhere is not read, and a story beside would find it `Unreadable`.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process, begun while nobody writes a file.
pub(crate) fn begun(command: &mut Command) -> Child {
    let _alone = alone();
    command.spawn().unwrap()
}

/// The same, and what it said in the end.
pub(crate) fn output(command: &mut Command) -> Output {
    let child = begun(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    child.wait_with_output().unwrap()
}

/// What the program said.
pub(crate) struct Said {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Folder {
    /// With these files; a file's name may have folders in it.
    pub(crate) fn with(files: &[(&str, &str)]) -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("egret-cli-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = Folder { path: std::env::temp_dir().join(name) };
        fs::create_dir_all(&folder.path).unwrap();
        for (name, text) in files {
            folder.write(name, text);
        }
        folder
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A command that stays, and what it says in `log`.
    pub(crate) fn stays(&self, arguments: &str) -> Child {
        let log = fs::File::create(self.path.join("log")).unwrap();
        let mut program = Command::new(env!("CARGO_BIN_EXE_egret"));
        program.args(arguments.split_whitespace()).current_dir(&self.path);
        begun(program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log))
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _alone = alone();
        fs::write(path, text).unwrap();
    }

    /// Says these words to the program, in this folder.
    pub(crate) fn egret(&self, arguments: &str) -> Said {
        self.egret_with(arguments, "")
    }

    /// The same, with something on standard input.
    pub(crate) fn egret_with(&self, arguments: &str, input: &str) -> Said {
        let mut program = Command::new(env!("CARGO_BIN_EXE_egret"));
        program.args(arguments.split_whitespace()).current_dir(&self.path).env("COLUMNS", "100");
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = begun(&mut program);
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        let writer = std::thread::spawn(move || {
            let _ = stdin.write_all(input.as_bytes()); // who does not read it closes it
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        Said::of(&output)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Said {
    pub(crate) fn of(output: &Output) -> Said {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Said {
            status: output.status.code().expect("ended by itself"),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    /// The document, which is right by its own kind's schema.
    pub(crate) fn json(&self) -> Value {
        let document = serde_json::from_str(&self.out);
        let document = document.unwrap_or_else(|e| panic!("{e}: {}{}", self.out, self.err));
        assert_eq!(faults(&document), Vec::<String>::new());
        document
    }

    /// Reasons of the problems, in the order told.
    pub(crate) fn reasons(&self) -> Vec<String> {
        let json = self.json();
        let problems = json["problems"].as_array().unwrap();
        problems.iter().map(|problem| problem["reason"].as_str().unwrap().to_owned()).collect()
    }
}
