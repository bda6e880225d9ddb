//! What no plugin with an agent can do without: two processes that ask a socket and print the answer, as `examples/floor.rs` does.
//!
//! In: pods that the primary plugin wired. Out: pairs of times, beside the reference. Never: part of a promise; it says how much of one is ours.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use egret::testbed::Trouble;

/// The program, where it can be called, and who answers it.
pub(crate) struct Floor {
    pub(crate) program: PathBuf,
    answering: JoinHandle<io::Result<()>>,
}

impl Floor {
    /// Lays the program, which lies beside this one, into a folder, and answers so many questions.
    pub(crate) fn laid(folder: &Path, questions: usize) -> Result<Floor, Trouble> {
        let lay = || -> io::Result<Floor> {
            let built = std::env::current_exe()?.with_file_name("floor");
            let program = folder.join("floor");
            // In one piece, as `egret install` writes ours.
            fs::write(&program, fs::read(built)?)?;
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
            let socket = folder.join("floor.sock");
            let _ = fs::remove_file(&socket);
            let listener = UnixListener::bind(socket)?;
            let answering = std::thread::spawn(move || (0..questions).try_for_each(|_| answer(&listener)));
            Ok(Floor { program, answering })
        };
        lay().map_err(|e| Trouble::new(format!("the program `floor` (scripts/build --example floor): {e}")))
    }

    /// After the last question.
    pub(crate) fn end(self) -> Result<(), Trouble> {
        let ended = self.answering.join().map_err(|_| Trouble::new("the thread that answers ended"))?;
        ended.map_err(|e| Trouble::new(format!("floor: {e}")))
    }
}

fn answer(listener: &UnixListener) -> io::Result<()> {
    let mut text = [0; 16 * 1024];
    let (mut asking, _) = listener.accept()?;
    let length = asking.read(&mut text)?;
    asking.write_all(&text[..length])
}
