//! Waiting for words that come in a moment: what the agent's answer is to the plugin, and the plugin's question to the agent.
//!
//! In: a socket. Out: what is read from it. Never: keeps the processor from anybody else, who may be the one that is waited for.
//!
//! To fall asleep and be woken again takes longer than most answers where the processor falls asleep, too: 20 to 50 µs in a virtual machine.

use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use crate::clock;

/// So long it is looked for words, before they are waited for.
const SOON: Duration = Duration::from_micros(100);
/// Who gave way and comes back no sooner was not alone on its processor.
const ALONE: Duration = Duration::from_micros(5);

/// Who waits for what comes in a moment, and then falls asleep for at most `patience` at a time.
pub struct Awake<'a> {
    stream: &'a UnixStream,
    patience: Duration,
    sleeps: bool,
}

impl Awake<'_> {
    /// Reads from this socket. A read fails with [`io::ErrorKind::WouldBlock`] if nothing came for `patience`.
    pub fn of(stream: &UnixStream, patience: Duration) -> Awake<'_> {
        Awake { stream, patience, sleeps: false }
    }

    /// What has come; `None`: it is waited for in sleep from now on.
    fn soon(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        let began = now();
        let mut last = began;
        loop {
            match recv(self.stream.as_raw_fd(), into, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EAGAIN) => {}
                received => return Ok(Some(received?)),
            }
            std::thread::yield_now();
            let now = now();
            if now.saturating_sub(last) > ALONE || now.saturating_sub(began) > SOON {
                return Ok(None);
            }
            last = now;
        }
    }
}

impl Read for Awake<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if !self.sleeps {
            if let Some(length) = self.soon(into)? {
                return Ok(length);
            }
            self.sleeps = true;
            self.stream.set_read_timeout(Some(self.patience))?;
        }
        self.stream.read(into)
    }
}

fn now() -> Duration {
    clock::now(libc::CLOCK_MONOTONIC)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_is_there_is_read_what_comes_late_is_waited_for_and_what_never_comes_is_not() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut piece = [0; 16];
        let mut awake = Awake::of(&ours, Duration::from_secs(60));
        theirs.write_all(b"now").unwrap();
        assert_eq!(awake.read(&mut piece).unwrap(), 3);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                (&theirs).write_all(b"later").unwrap();
            });
            assert_eq!(awake.read(&mut piece).unwrap(), 5);
        });
        let error = Awake::of(&ours, Duration::from_millis(1)).read(&mut piece).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(theirs);
        assert_eq!(Awake::of(&ours, Duration::from_secs(60)).read(&mut piece).unwrap(), 0, "it ended");
    }
}
