//! Leaving to the kernel what only the kernel waits for.
//!
//! In: a descriptor to close, a device to delete. Out: both are done as far as anybody can see. Never: waits for the grace period
//! of RCU that comes after (11 to 16 ms on 6.18), in which the kernel only frees memory. Nothing that can fail is left behind: an error
//! of the kernel comes before that wait, and is told.

use std::fs::File;
use std::io::{IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socketpair,
};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, getpid, pipe2};

use super::netlink::{Refusal, Socket, link};

/// Closes a socket without waiting for what its close waits for: readers of a packet socket, and of what a transaction of nftables
/// deleted. At the end of the process it would be no different, because a process is not gone before its sockets are.
///
/// A Unix socket that lies in its own receive queue is garbage once both of its pair are closed. The kernel's collector finds it,
/// and whatever lies there with it is closed by a thread of the kernel (Linux 6.8; before, the collector is our own close, and we
/// wait as ever). Should the collector be running at this very moment, it comes by again when the next Unix socket of the machine
/// is closed. Where no pair can be had, the descriptor is closed here.
pub(crate) fn close(file: OwnedFd) {
    let pair = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC);
    let Ok((inner, outer)) = pair else { return };
    let rights = [inner.as_raw_fd(), file.as_raw_fd()];
    let sent = sendmsg::<UnixAddr>(
        outer.as_raw_fd(),
        &[IoSlice::new(b".")],
        &[ControlMessage::ScmRights(&rights)],
        MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
        None,
    );
    drop(file);
    drop(inner);
    // Last: this is the close that calls the collector. What was not sent has just been closed the ordinary way.
    let _ = sent;
    drop(outer);
}

/// How often we look whether a device is gone while its deletion runs.
const LOOK: Duration = Duration::from_micros(200);

/// Deletes a device and returns when it is gone from every listing, with its routes and neighbours. The caller of the kernel is kept
/// for longer, until the last memory is free (`rcu_barrier` at the end of `rtnl_unlock`), so a process of its own calls: without
/// standard streams, locks or anything else of ours, gone within milliseconds, its parent the reaper of orphans. Where that would be we
/// ourselves (the agent is the first process of its container) it would stay as a zombie for ever, and nobody is in a hurry there.
///
/// It is deleted by its index, which no later device gets: that process may come to its call late, when the name is in use again.
///
/// The question whether the device is still there is answered under the kernel's lock (`rtnl`), which the deletion gives back only
/// when routes, neighbours, nexthops and hooks of the device are gone: no later call sees half of it.
///
/// # Errors
/// As the kernel's. A device that was not there is an absence; one that goes meanwhile is an absence or no error at all.
pub(crate) fn delete_link(socket: &mut Socket, mut calls: Socket, name: &str) -> Result<(), Refusal> {
    let found = socket.ask(link::by_name(name))?;
    let index = found.iter().find_map(link::read).map(|device| device.index);
    let index = index.ok_or(Refusal { errno: libc::ENODEV, words: String::new() })?;
    if getpid().as_raw() == 1 {
        return socket.change(link::delete(index), 0);
    }
    let request = calls.prepared(link::delete(index));
    let (mut answer, tell) = match pipe2(nix::fcntl::OFlag::O_CLOEXEC) {
        Ok((answer, tell)) => (File::from(answer), tell),
        Err(_) => return socket.change(link::delete(index), 0),
    };
    // SAFETY: other threads may hold locks of the allocator at this moment, so the child makes system calls and nothing else.
    match unsafe { fork() } {
        Err(_) => return socket.change(link::delete(index), 0),
        Ok(ForkResult::Child) => child(calls.as_raw_fd(), tell.as_raw_fd(), &request),
        Ok(ForkResult::Parent { child }) => {
            drop(tell);
            drop(calls);
            // It ends at once. Where the runtime has us ignore our children (an inherited SIG_IGN), the kernel takes it away itself.
            while waitpid(child, None) == Err(Errno::EINTR) {}
        }
    }
    loop {
        let mut ends = [PollFd::new(answer.as_fd(), PollFlags::POLLIN)];
        if ppoll(&mut ends, Some(LOOK.into()), None).is_ok_and(|ready| ready > 0) {
            let mut errno = [0; 4];
            // It ended without a word: killed, or disturbed. Whether the device is gone, our own call tells.
            let said = answer.read_exact(&mut errno).map(|()| i32::from_ne_bytes(errno));
            return match said {
                Ok(0) => Ok(()),
                Ok(errno) => Err(Refusal { errno, words: String::new() }),
                Err(_) => socket.change(link::delete(index), 0),
            };
        }
        match socket.ask(link::by_index(index)) {
            Err(refusal) if refusal.is_absence() => return Ok(()),
            _ => {}
        }
    }
}

/// The process between: it makes the one that calls, and ends, so that nobody has a child to wait for.
fn child(calls: RawFd, tell: RawFd, request: &[u8]) -> ! {
    // SAFETY: only system calls, on descriptors that are this process's own copies and on memory that nobody else has.
    unsafe {
        if libc::fork() == 0 {
            let (low, high) = (calls.min(tell), calls.max(tell));
            close_range(0, low - 1);
            close_range(low + 1, high - 1);
            close_range(high + 1, RawFd::MAX);
            libc::signal(libc::SIGPIPE, libc::SIG_IGN);
            if let Some(errno) = call(calls, request) {
                libc::write(tell, (&raw const errno).cast(), size_of::<i32>());
            }
        }
        libc::_exit(0)
    }
}

/// Sends a request of netlink and takes its acknowledgement: the kernel's error number, 0 for none. `None`: it did not come.
///
/// # Safety
/// `socket` is an open netlink socket with no other request under way.
unsafe fn call(socket: RawFd, request: &[u8]) -> Option<i32> {
    let mut answer = [0u8; 256];
    // SAFETY: both buffers are live and have the lengths given.
    let got = unsafe {
        if libc::send(socket, request.as_ptr().cast(), request.len(), 0) < 0 {
            return None;
        }
        libc::recv(socket, answer.as_mut_ptr().cast(), answer.len(), 0)
    };
    // `struct nlmsgerr` behind the header: the number, 0 or negative.
    let [_, .., a, b, c, d] = *answer.first_chunk::<20>()?;
    (got >= 20).then(|| i32::from_ne_bytes([a, b, c, d]).saturating_neg())
}

fn close_range(first: RawFd, last: RawFd) {
    if first <= last {
        // SAFETY: closes descriptors of this process, which uses none of them; Linux 5.9.
        unsafe { libc::syscall(libc::SYS_close_range, first.cast_unsigned(), last.cast_unsigned(), 0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Netns;
    use crate::kernel::sandbox::Namespace;

    #[test]
    fn what_is_left_to_the_collector_is_closed() {
        let (mut read, write) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).map(|(r, w)| (File::from(r), w)).unwrap();
        close(write);
        // The end of the pipe comes when nobody holds its other end any more; any Unix socket's close calls the collector.
        let until = std::time::Instant::now() + Duration::from_secs(10);
        loop {
            let mut ends = [PollFd::new(read.as_fd(), PollFlags::POLLIN)];
            if ppoll(&mut ends, Some(Duration::from_millis(50).into()), None).unwrap() > 0 {
                break;
            }
            assert!(std::time::Instant::now() < until, "nobody closed it");
            drop(std::os::unix::net::UnixStream::pair());
        }
        assert_eq!(read.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn a_deleted_device_is_gone_when_the_call_returns_and_a_missing_one_is_named() {
        let (here, other) = (Namespace::new(), Namespace::new());
        for _ in 0..5 {
            here.wire("one", &other, "two");
            here.sh("ip addr add 10.0.0.1/24 dev one");
            let delete = || {
                let netns = Netns::current().unwrap();
                let mut socket = Socket::open(&netns).unwrap();
                delete_link(&mut socket, Socket::open(&netns).unwrap(), "one")
            };
            assert_eq!(here.run(delete), Ok(()));
            assert_eq!(
                here.sh("ip -br link; ip route show table all dev one 2>&1 || true").lines().count(),
                2
            );
            let again = here.run(delete);
            assert!(again.is_ok() || again.unwrap_err().is_absence(), "gone is gone");
            assert!(!other.sh("ip -br link").contains("two"));
        }
    }
}
