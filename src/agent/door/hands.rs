//! Threads that wait for the plugin at the socket itself: whoever connects wakes the one that answers, which is there already.
//!
//! In: a socket, what is done with a connection. Out: each connection with a thread of its own. Never: lets a connection wait for the end of
//! another one's call, as long as there are threads to be had. To wake one thread that makes another one was a tenth of what the start of
//! a pod without egress took.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::socket;

use crate::kernel::home;

/// So many stay when nothing is to be done. A pod's start and another one's end at the same time, STATUS, and one more.
const KEPT: usize = 4;
/// Pause where a connection cannot be had: no file is left to this process.
const PAUSE: Duration = Duration::from_millis(10);

/// The threads of a socket.
pub(super) struct Hands {
    listener: Mutex<Arc<UnixListener>>,
    waiting: AtomicUsize,
    serve: Box<dyn Fn(UnixStream) + Send + Sync>,
}

impl Hands {
    /// Nobody waits yet.
    pub(super) fn of(
        listener: UnixListener,
        serve: impl Fn(UnixStream) + Send + Sync + 'static,
    ) -> Arc<Hands> {
        let listener = Mutex::new(Arc::new(listener));
        Arc::new(Hands { listener, waiting: AtomicUsize::new(0), serve: Box::new(serve) })
    }

    /// Sees to it that somebody waits.
    ///
    /// # Errors
    /// No thread can be started, and nobody waits.
    pub(super) fn some_wait(self: &Arc<Hands>) -> io::Result<()> {
        if self.waiting.load(Ordering::Relaxed) > 0 { Ok(()) } else { self.one_more() }
    }

    /// From here on another socket; who waits at the one before is sent there.
    pub(super) fn turn_to(&self, listener: UnixListener) {
        let mut now = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *now, Arc::new(listener));
        drop(now);
        let _ = socket::shutdown(before.as_raw_fd(), socket::Shutdown::Both);
    }

    fn listener(&self) -> Arc<UnixListener> {
        Arc::clone(&self.listener.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn one_more(self: &Arc<Hands>) -> io::Result<()> {
        let own = Arc::clone(self);
        thread::Builder::new().name("call".to_owned()).spawn(move || own.work()).map(drop)
    }

    fn work(self: Arc<Hands>) {
        if let Err(error) = home::settle() {
            tracing::debug!(%error, "this thread asks where it is each time");
        }
        loop {
            let listener = self.listener();
            self.waiting.fetch_add(1, Ordering::Relaxed);
            let accepted = listener.accept();
            let nobody_waits = self.waiting.fetch_sub(1, Ordering::Relaxed) == 1;
            match accepted {
                Ok((stream, _)) => {
                    if nobody_waits && let Err(error) = self.one_more() {
                        tracing::warn!(%error, "the plugin's next call waits for the end of this one");
                    }
                    (self.serve)(stream);
                    if self.waiting.load(Ordering::Relaxed) >= KEPT {
                        return;
                    }
                }
                Err(_) if !Arc::ptr_eq(&listener, &self.listener()) => {}
                Err(error) => {
                    tracing::debug!(%error, "no connection can be had");
                    thread::sleep(PAUSE);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::path::Path;
    use std::sync::mpsc::channel;

    use super::*;
    use crate::store::dir::tests::scratch;

    fn ask(path: &Path) -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(b"?")?;
        Ok(stream)
    }

    fn answer(mut stream: UnixStream) -> String {
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    }

    #[test]
    fn nobody_waits_for_the_end_of_another_call_and_few_threads_stay() {
        let (root, _clean) = scratch();
        let path = root.join("door");
        let (goes_on, hold) = channel::<()>();
        let hold = Mutex::new(hold);
        let hands = Hands::of(UnixListener::bind(&path).unwrap(), move |mut stream| {
            let mut asked = [0; 1];
            stream.read_exact(&mut asked).unwrap();
            if asked == *b"?" {
                hold.lock().unwrap().recv().unwrap();
            }
            stream.write_all(b"done").unwrap();
        });
        hands.some_wait().unwrap();
        let held: Vec<UnixStream> = (0..20).map(|_| ask(&path).unwrap()).collect();
        let mut quick = UnixStream::connect(&path).unwrap();
        quick.write_all(b"!").unwrap();
        assert_eq!(answer(quick), "done", "while twenty are held");
        held.iter().for_each(|_| goes_on.send(()).unwrap());
        assert!(held.into_iter().map(answer).all(|said| said == "done"));
        let until = std::time::Instant::now() + Duration::from_secs(20);
        while Arc::strong_count(&hands) > KEPT + 2 {
            assert!(std::time::Instant::now() < until, "{} threads stay", Arc::strong_count(&hands) - 1);
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn who_waits_goes_to_the_new_socket_when_there_is_another() {
        let (root, _clean) = scratch();
        let (one, other) = (root.join("one"), root.join("other"));
        let hands = Hands::of(UnixListener::bind(&one).unwrap(), |mut stream| {
            stream.read_exact(&mut [0; 1]).unwrap();
            stream.write_all(b"here").unwrap();
        });
        hands.some_wait().unwrap();
        assert_eq!(answer(ask(&one).unwrap()), "here");
        hands.turn_to(UnixListener::bind(&other).unwrap());
        for _ in 0..8 {
            assert_eq!(answer(ask(&other).unwrap()), "here");
        }
        assert!(ask(&one).is_err());
    }
}
