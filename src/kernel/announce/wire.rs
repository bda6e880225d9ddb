//! A packet socket on one Ethernet device: whole frames out, filtered frames in.
//!
//! In: frames. Out: frames. Never: knows what is in them. It belongs to the network namespace of the thread that opened it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socket};
use nix::sys::time::TimeSpec;

use super::Error;
use crate::addr::Mac;
use crate::kernel::behind;

/// See the module's head.
#[derive(Debug)]
pub(super) struct Wire {
    socket: Closing,
    dev: String,
    /// The device's own address.
    pub(super) mac: Mac,
}

impl Wire {
    /// Opens one that receives what the filter lets through, from the first frame on.
    pub(super) fn open(dev: &str, ethertype: u16, filter: &[libc::sock_filter]) -> Result<Wire, Error> {
        let failed = |doing| move |source| Error::Socket { dev: dev.to_owned(), doing, source };
        let index =
            nix::net::if_::if_nametoindex(dev).map_err(|_| Error::NoDevice { dev: dev.to_owned() })?;
        // Protocol 0 receives nothing, so that nothing gets in before the filter stands.
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)
            .map_err(|errno| failed("open a packet socket on")(errno.into()))?;
        attach(&socket, filter).map_err(failed("filter what comes in on"))?;
        bind(&socket, ethertype, index).map_err(failed("listen on"))?;
        let mac = own_mac(&socket).map_err(failed("ask for the address of"))?;
        let mac = mac.ok_or_else(|| Error::NotEthernet { dev: dev.to_owned() })?;
        Ok(Wire { socket: Closing(Some(socket)), dev: dev.to_owned(), mac })
    }

    /// Sends one frame.
    pub(super) fn send(&self, frame: &[u8]) -> Result<(), Error> {
        let sent = send(self.socket.fd(), frame, MsgFlags::empty());
        sent.map(drop).map_err(|errno| self.failed("send on", errno))
    }

    /// The next frame, or `None` when the time is over. Once it is over, what has already come in is still given.
    pub(super) fn receive<'a>(&self, until: Instant, into: &'a mut [u8]) -> Result<Option<&'a [u8]>, Error> {
        loop {
            match recv(self.socket.fd(), into, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => return Ok(into.get(..length)),
                Err(Errno::EAGAIN) if until <= Instant::now() => return Ok(None),
                Err(Errno::EAGAIN) => self.wait(until)?,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(self.failed("receive on", errno)),
            }
        }
    }

    /// Sleeps until a frame is there or the time is over. By `ppoll`, whose timer knows microseconds; a socket's own timeout counts ticks
    /// (4 ms at 250 a second) and makes 12 to 16 ms of 10.
    fn wait(&self, until: Instant) -> Result<(), Error> {
        let Some(socket) = self.socket.borrowed() else { return Ok(()) };
        let left = TimeSpec::from(until.saturating_duration_since(Instant::now()));
        match ppoll(&mut [PollFd::new(socket, PollFlags::POLLIN)], Some(left), None) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(self.failed("wait for answers on", errno)),
        }
    }

    fn failed(&self, doing: &'static str, errno: Errno) -> Error {
        Error::Socket { dev: self.dev.clone(), doing, source: errno.into() }
    }
}

/// A socket whose close nobody waits for: a packet socket's waits until no processor can still be handing it a frame.
#[derive(Debug)]
struct Closing(Option<OwnedFd>);

impl Closing {
    fn fd(&self) -> RawFd {
        self.0.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    fn borrowed(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(AsFd::as_fd)
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(behind::close);
    }
}

const ADDRESS_LENGTH: libc::socklen_t = size_of::<libc::sockaddr_ll>() as libc::socklen_t;

fn bind(socket: &OwnedFd, ethertype: u16, index: u32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: ethertype.to_be(),
        sll_ifindex: index.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the pointer is to a live sockaddr_ll and the length is that structure's; the kernel only reads it.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), ADDRESS_LENGTH) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The MAC of the device the socket is bound to; `None` if it is no Ethernet device.
fn own_mac(socket: &OwnedFd) -> io::Result<Option<Mac>> {
    // SAFETY: all of its fields are integers, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut length = ADDRESS_LENGTH;
    // SAFETY: both pointers are to live variables, and the kernel writes no more than `length` bytes, the structure's size.
    let result = unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut address).cast(), &raw mut length) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let [a, b, c, d, e, f, ..] = address.sll_addr;
    let ethernet = address.sll_hatype == libc::ARPHRD_ETHER && address.sll_halen == 6;
    Ok(ethernet.then_some(Mac([a, b, c, d, e, f])))
}

fn attach(socket: &OwnedFd, filter: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(io::Error::other)?,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: `program` names `filter.len()` instructions at `filter`, both outlive the call, and the kernel only reads them.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
