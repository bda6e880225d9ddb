//! The end of a node's memory, at its uninstall.
//!
//! In: the node's own directory, under the node's lock. Out: nothing of it. Never: what somebody writes who has the lock next.

use std::fs;
use std::io::{self, ErrorKind};

use super::{LOCK, Memory};

impl Memory {
    /// Forgets everything. The lock's file goes last: a new one can be made and had as soon as it is gone, and what its holder writes here
    /// must stay, the new lock included.
    ///
    /// # Errors
    /// The directory cannot be removed.
    pub fn forget(&self) -> io::Result<()> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path()).or_else(gone)?;
            } else if entry.file_name() != LOCK {
                fs::remove_file(entry.path()).or_else(gone)?;
            }
        }
        self.remove(LOCK)?;
        match fs::remove_dir(&self.dir) {
            // Who waited for the lock lives here by now.
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
            outcome => outcome.or_else(gone),
        }
    }
}

fn gone(error: io::Error) -> io::Result<()> {
    if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::lock;

    /// Whoever waits for the lock while a node is uninstalled has it alone, and what it writes under it stays.
    #[test]
    fn who_waits_for_the_lock_of_a_node_that_is_uninstalled_has_it_alone() {
        let run_dir = std::env::temp_dir().join(format!("egret-memory-forget-{}", std::process::id()));
        let memory = Memory::new(&run_dir, "n1");
        let (dir, patience) = (memory.dir(), Duration::from_secs(60));
        let file = dir.join(LOCK);
        // The kernel lists files in an order of its own: of many that are gone after the lock, some are in each.
        let records: Vec<_> = (0..600).map(|n| dir.join(format!("record-{n}"))).collect();
        for round in 0..3 {
            fs::create_dir_all(dir).unwrap();
            let (before, after) = records.split_at(300);
            before.iter().for_each(|record| fs::write(record, "").unwrap());
            let uninstall = lock(&file, "uninstall", patience).unwrap();
            after.iter().for_each(|record| fs::write(record, "").unwrap());
            std::thread::scope(|scope| {
                let next = scope.spawn(|| {
                    loop {
                        match lock(&file, "ADD", patience) {
                            Ok(guard) => break guard,
                            Err(_) => fs::create_dir_all(dir).unwrap(),
                        }
                    }
                });
                memory.forget().unwrap();
                drop(uninstall);
                let _add = next.join().unwrap();
                fs::write(dir.join("plan.json"), "of the next call").unwrap();
                let other = lock(&file, "DEL", Duration::from_millis(20));
                assert!(other.is_err(), "round {round}: two have the lock at one time");
            });
        }
        memory.forget().unwrap();
        assert!(!dir.exists());
        fs::remove_dir_all(run_dir).unwrap();
    }
}
