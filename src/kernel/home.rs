//! A thread that stays in one network namespace and lives on: it knows where it is without asking, and keeps its sockets there.
//!
//! In: [`settle`], once, by the thread itself. Out: its namespace, and a socket of each kind for who needs one there. Never: for a thread
//! that did not say so, whose namespace may be any; a socket of another namespace, which would keep that alive; one whose last answer
//! was not read to its end.
//!
//! A client's start opened six sockets and asked ten times where it was, half a millisecond of three; the close of a netfilter socket is
//! a thing of its own besides (`kernel::behind`).

use std::cell::RefCell;
use std::fs::File;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::behind;
use super::netns::{Netns, NetnsError};

/// Device and inode of a namespace.
type Id = (u64, u64);

/// Which kind of socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Route,
    Netfilter,
}

/// A socket that waits for its next use.
pub(super) struct Spare {
    pub(super) socket: netlink_sys::Socket,
    /// Of its last request.
    pub(super) sequence: u32,
    /// Room for an answer.
    pub(super) buffer: Vec<u8>,
}

struct Home {
    file: Arc<File>,
    id: Id,
    /// The thread is in another namespace for a moment.
    away: bool,
    route: Option<Spare>,
    netfilter: Option<Spare>,
}

/// Whether any thread stays anywhere. A value of a thread that is dropped at its end takes room and six system calls at its first use,
/// and a call of the plugin has no thread that stays.
static ANYBODY: AtomicBool = AtomicBool::new(false);

thread_local! {
    static HOME: RefCell<Option<Home>> = const { RefCell::new(None) };
}

/// This thread stays where it is.
///
/// # Errors
/// Its namespace cannot be opened; then everything is as before.
pub fn settle() -> Result<(), NetnsError> {
    let (file, id) = Netns::current()?.into_parts();
    ANYBODY.store(true, Ordering::Relaxed);
    with(|home| *home = Some(Home { file, id, away: false, route: None, netfilter: None }));
    Ok(())
}

/// The namespace that the calling thread is in, if it is known without asking.
pub(super) fn here() -> Option<(Arc<File>, Id)> {
    with(|home| home.as_ref().filter(|home| !home.away).map(|home| (Arc::clone(&home.file), home.id)))?
}

/// Whether this is where the calling thread stays, also while it is away.
pub(super) fn is_of(id: Id) -> bool {
    with(|home| home.as_ref().is_some_and(|home| home.id == id)) == Some(true)
}

/// The thread leaves for another namespace, or is back.
pub(super) fn away(away: bool) {
    with(|home| home.iter_mut().for_each(|home| home.away = away));
}

/// The socket that was kept, if there is one of that namespace. Whoever takes it has it alone.
pub(super) fn take(kind: Kind, id: Id) -> Option<Spare> {
    with(|home| home.as_mut().filter(|home| home.id == id)?.place(kind).take())?
}

/// Keeps a socket of that namespace, whose last answer was read to its end; or gives it back.
pub(super) fn keep(kind: Kind, id: Id, spare: Spare) -> Result<(), Spare> {
    let mut spare = Some(spare);
    with(|home| {
        if let Some(home) = home.as_mut().filter(|home| home.id == id)
            // Long before its requests cannot be told apart.
            && spare.as_ref().is_some_and(|spare| spare.sequence < u32::MAX / 2)
            && home.place(kind).is_none()
        {
            *home.place(kind) = spare.take();
        }
    });
    spare.map_or(Ok(()), Err)
}

/// Nothing at the very end of a thread, when its own values are gone already.
fn with<T>(work: impl FnOnce(&mut Option<Home>) -> T) -> Option<T> {
    if !ANYBODY.load(Ordering::Relaxed) {
        return None;
    }
    HOME.try_with(|home| home.try_borrow_mut().ok().map(|mut home| work(&mut home))).ok().flatten()
}

impl Home {
    fn place(&mut self, kind: Kind) -> &mut Option<Spare> {
        match kind {
            Kind::Route => &mut self.route,
            Kind::Netfilter => &mut self.netfilter,
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(spare) = self.netfilter.take() {
            close(spare.socket);
        }
    }
}

/// Closes a netfilter socket: the kernel holds that until what was deleted in its namespace is freed, and nobody waits for it.
pub(super) fn close(socket: netlink_sys::Socket) {
    // SAFETY: the descriptor is its only owner's, who gives it up.
    behind::close(unsafe { OwnedFd::from_raw_fd(socket.into_raw_fd()) });
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::super::conntrack;
    use super::super::netlink::{Socket, link};
    use super::super::sandbox::Namespace;
    use super::*;

    fn ask(netns: &Netns) -> i32 {
        let mut socket = Socket::open(netns).unwrap();
        assert!(socket.dump(&link::list()).unwrap().iter().count() > 0);
        assert!(socket.ask(link::by_name("never-was")).is_err_and(|refusal| refusal.is_absence()));
        socket.as_raw_fd()
    }

    #[test]
    fn who_stays_has_one_socket_for_all_questions_and_others_have_one_each() {
        let (own, pod) = (Namespace::new(), Namespace::new());
        own.run(|| {
            settle().unwrap();
            let here = Netns::current().unwrap();
            let first = ask(&here);
            assert_eq!((ask(&here), take(Kind::Route, here.id()).is_some()), (first, true));
            let (one, two) = (Socket::open(&here).unwrap(), Socket::open(&here).unwrap());
            assert_ne!(one.as_raw_fd(), two.as_raw_fd());
            drop((one, two));
            let pod = pod.run(|| Netns::current().unwrap());
            ask(&pod);
            assert!(take(Kind::Route, pod.id()).is_none(), "another namespace is not kept alive");
            assert!(
                pod.run(|| here != Netns::current().unwrap() && here.run(|| ask(&here)).is_ok()).unwrap()
            );
            assert_eq!(Netns::current().unwrap(), here);
        });
    }

    #[test]
    fn a_netfilter_socket_is_of_where_the_thread_is() {
        let (own, pod) = (Namespace::new(), Namespace::new());
        own.run(|| {
            settle().unwrap();
            let here = Netns::current().unwrap();
            let count = || conntrack::clear(&[[10, 0, 0, 1].into()].into(), &[]);
            count().unwrap();
            let kept = || take(Kind::Netfilter, here.id());
            let spare = kept().unwrap();
            assert!(kept().is_none());
            pod.run(|| Netns::current().unwrap()).run(count).unwrap().unwrap();
            assert!(kept().is_none(), "made while away");
            keep(Kind::Netfilter, here.id(), spare).ok().unwrap();
            count().unwrap();
            assert!(kept().is_some());
        });
    }

    #[test]
    fn an_answer_that_was_not_read_is_nobody_elses() {
        Namespace::new().run(|| {
            settle().unwrap();
            let here = Netns::current().unwrap();
            let mut socket = Socket::open(&here).unwrap();
            let _ = socket.prepared(link::delete(77));
            drop(socket);
            assert!(take(Kind::Route, here.id()).is_none());
        });
    }
}
