//! Servers inside a namespace that answer with the caller's address: TCP, HTTP, UDP, and ICMP by the kernel itself.
//!
//! In: a namespace and ports. Out: answers, from one thread of this process; its sockets were made inside, so the
//! thread need not be. Dropping the service closes everything. Never: enters a namespace after its sockets are made.

use std::collections::HashMap;
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType,
    SockaddrIn6, SockaddrStorage, recvfrom, recvmsg, sendmsg, setsockopt, socket, sockopt,
};

use super::Trouble;
use super::conversation::{Conversation, Tongue};
use crate::kernel::netns::Netns;

/// Port that always speaks lines and UDP.
pub const LINES_PORT: u16 = 7777;
/// Port that always speaks HTTP.
pub const HTTP_PORT: u16 = 80;
/// How long the thread may take to hear of a ping that the kernel has answered.
const HEARING: Duration = Duration::from_secs(60);

/// Servers in one namespace.
#[derive(Debug)]
pub struct Service {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Who pinged: the first eight payload bytes of an echo request → its source.
pub(super) type Pings = HashMap<u64, IpAddr>;

#[derive(Debug)]
struct Shared {
    inbox: Mutex<Inbox>,
    pings: Mutex<Pings>,
    pinged: Condvar,
    wake: OwnedFd,
}

#[derive(Debug, Default)]
struct Inbox {
    ears: Vec<Ear>,
    stop: bool,
}

/// A socket that hears callers.
#[derive(Debug)]
enum Ear {
    Tcp(TcpListener, Tongue),
    Udp(UdpSocket),
    Echo(OwnedFd, AddressFamily),
}

impl Ear {
    fn raw(&self) -> i32 {
        match self {
            Ear::Tcp(s, _) => s.as_raw_fd(),
            Ear::Udp(s) => s.as_raw_fd(),
            Ear::Echo(s, _) => s.as_raw_fd(),
        }
    }
}

impl Service {
    /// Starts with the fixed ports and watches echo requests.
    pub fn start(netns: &Netns) -> Result<Service, Trouble> {
        // SAFETY: a plain system call; the result is checked before it becomes an owned descriptor.
        let wake = unsafe {
            match libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) {
                fd if fd >= 0 => OwnedFd::from_raw_fd(fd),
                _ => return Err(Trouble::last("cannot make an eventfd")),
            }
        };
        let shared = Arc::new(Shared {
            inbox: Mutex::default(),
            pings: Mutex::default(),
            pinged: Condvar::new(),
            wake,
        });
        let mut service = Service { shared: shared.clone(), thread: None };
        service.listen(netns, LINES_PORT, HTTP_PORT)?;
        let echoes = netns.run(|| [AddressFamily::Inet, AddressFamily::Inet6].map(echo_ear));
        for ear in echoes.map_err(|e| Trouble::new(format!("cannot enter a namespace: {e}")))? {
            service.take(vec![ear?]);
        }
        let thread = std::thread::Builder::new().name("outside".to_owned()).spawn(move || serve(&shared));
        service.thread = Some(thread.map_err(|e| Trouble::new(format!("cannot start a thread: {e}")))?);
        Ok(service)
    }

    /// Opens further ports: one for lines and UDP, one for HTTP. Ready when it returns.
    pub fn listen(&self, netns: &Netns, lines: u16, http: u16) -> Result<(), Trouble> {
        let open = || -> std::io::Result<Vec<Ear>> {
            // An IPv6 socket on the wildcard hears IPv4 too.
            let tcp = |port| TcpListener::bind(("::", port));
            let udp = UdpSocket::bind(("::", lines))?;
            setsockopt(&udp, sockopt::Ipv6RecvPacketInfo, &true)?;
            Ok(vec![Ear::Tcp(tcp(lines)?, Tongue::Lines), Ear::Tcp(tcp(http)?, Tongue::Http), Ear::Udp(udp)])
        };
        let ears = netns.run(open).and_then(|r| r);
        let ears =
            ears.map_err(|e| Trouble::new(format!("cannot listen on ports {lines} and {http}: {e}")))?;
        for ear in &ears {
            let blocking = match ear {
                Ear::Tcp(s, _) => s.set_nonblocking(true),
                Ear::Udp(s) => s.set_nonblocking(true),
                Ear::Echo(..) => Ok(()),
            };
            blocking.map_err(|e| Trouble::new(format!("cannot listen: {e}")))?;
        }
        self.take(ears);
        Ok(())
    }

    /// Source of the echo request that carried this number. The kernel answers it before our thread hears it, hence
    /// the wait.
    pub(super) fn pinged(&self, number: u64) -> Option<IpAddr> {
        let pings = self.shared.pings.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = |pings: &mut Pings| !pings.contains_key(&number);
        let waited = self.shared.pinged.wait_timeout_while(pings, HEARING, missing);
        waited.unwrap_or_else(PoisonError::into_inner).0.get(&number).copied()
    }

    fn take(&self, ears: Vec<Ear>) {
        self.shared.inbox.lock().unwrap_or_else(PoisonError::into_inner).ears.extend(ears);
        self.shared.wake();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shared.inbox.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn wake(&self) {
        let _ = nix::unistd::write(&self.wake, &1u64.to_ne_bytes());
    }
}

fn echo_ear(family: AddressFamily) -> Result<Ear, Trouble> {
    let protocol = if family == AddressFamily::Inet { SockProtocol::Icmp } else { SockProtocol::IcmpV6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let ear = socket(family, SockType::Raw, flags, Some(protocol));
    ear.map(|s| Ear::Echo(s, family)).map_err(|e| Trouble::new(format!("cannot watch echo requests: {e}")))
}

/// The loop: waits for any socket, serves the ones that are ready.
fn serve(shared: &Shared) {
    let mut ears: Vec<Ear> = Vec::new();
    let mut talks: Vec<(TcpStream, Conversation)> = Vec::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        {
            let mut inbox = shared.inbox.lock().unwrap_or_else(PoisonError::into_inner);
            if inbox.stop {
                return;
            }
            ears.append(&mut inbox.ears);
        }
        let want = |fd, events| libc::pollfd { fd, events, revents: 0 };
        let mut polled = vec![want(shared.wake.as_fd().as_raw_fd(), libc::POLLIN)];
        polled.extend(ears.iter().map(|ear| want(ear.raw(), libc::POLLIN)));
        polled.extend(talks.iter().map(|(stream, talk)| {
            let more = if talk.next_words().is_empty() { 0 } else { libc::POLLOUT };
            want(stream.as_raw_fd(), libc::POLLIN | more)
        }));
        // SAFETY: the array lives across the call and its length is given.
        unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, -1) };
        let ready: Vec<bool> = polled.iter().map(|p| p.revents != 0).collect();
        let (heard, spoke) = ready[1..].split_at(ears.len());
        if ready[0] {
            let _ = nix::unistd::read(&shared.wake, &mut [0; 8]);
        }
        let mut turn = spoke.iter();
        talks.retain_mut(|talk| !turn.next().copied().unwrap_or(false) || go_on(talk, &mut buffer));
        for (ear, _) in ears.iter().zip(heard).filter(|(_, heard)| **heard) {
            match ear {
                Ear::Tcp(listener, tongue) => accept(listener, *tongue, &mut talks),
                Ear::Udp(socket) => while answer(socket, &mut buffer).is_some() {},
                Ear::Echo(socket, family) => {
                    while let Some((number, from)) = hear_ping(socket, *family, &mut buffer) {
                        shared.pings.lock().unwrap_or_else(PoisonError::into_inner).insert(number, from);
                        shared.pinged.notify_all();
                    }
                }
            }
        }
    }
}

fn accept(listener: &TcpListener, tongue: Tongue, talks: &mut Vec<(TcpStream, Conversation)>) {
    while let Ok((stream, from)) = listener.accept() {
        if stream.set_nonblocking(true).is_ok() {
            let _ = stream.set_nodelay(true);
            let mut talk = (stream, Conversation::new(tongue, from.ip()));
            if speak(&mut talk) {
                talks.push(talk);
            }
        }
    }
}

/// Hears what there is and says what can be said; false when the connection is done.
fn go_on(talk: &mut (TcpStream, Conversation), buffer: &mut [u8]) -> bool {
    match talk.0.read(buffer) {
        Ok(0) => return false,
        Ok(n) => talk.1.hear(&buffer[..n]),
        Err(e) if e.kind() == ErrorKind::WouldBlock => {}
        Err(_) => return false,
    }
    speak(talk)
}

fn speak((stream, talk): &mut (TcpStream, Conversation)) -> bool {
    while !talk.next_words().is_empty() {
        match stream.write(talk.next_words()) {
            Ok(n) => talk.said(n),
            Err(e) => return e.kind() == ErrorKind::WouldBlock,
        }
    }
    !talk.is_over()
}

/// Answers one datagram with its sender's address, from the address it was sent to; `send N` is answered with N bytes.
fn answer(socket: &UdpSocket, buffer: &mut [u8]) -> Option<()> {
    let mut space = nix::cmsg_space!(libc::in6_pktinfo);
    let mut slices = [IoSliceMut::new(buffer)];
    let got =
        recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::empty()).ok()?;
    let (length, from) = (got.bytes, got.address?);
    let asked = got.cmsgs().ok()?.find_map(|c| match c {
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(info),
        _ => None,
    });
    let mut words = IpAddr::from(from.ip()).to_canonical().to_string().into_bytes();
    let question = std::str::from_utf8(&buffer[..length]).unwrap_or("");
    if let Some(n) = question.strip_prefix("send ").and_then(|n| n.trim().parse::<usize>().ok()) {
        words.resize(n.min(65000).max(words.len()), b' ');
    } else {
        words.push(b' ');
        words.extend_from_slice(&buffer[..length.min(64)]);
    }
    // The interface is left to routing: only the source matters.
    let source = asked.map(|info| libc::in6_pktinfo { ipi6_ifindex: 0, ..info });
    let control: Vec<_> = source.iter().map(ControlMessage::Ipv6PacketInfo).collect();
    // A full buffer or an unreachable caller loses the datagram, as networks do.
    let _ = sendmsg(socket.as_raw_fd(), &[IoSlice::new(&words)], &control, MsgFlags::empty(), Some(&from));
    Some(())
}

/// Reads one echo request: its number and source; anything else ICMP reads as number 0.
fn hear_ping(socket: &OwnedFd, family: AddressFamily, buffer: &mut [u8]) -> Option<(u64, IpAddr)> {
    let (length, from) = recvfrom::<SockaddrStorage>(socket.as_raw_fd(), buffer).ok()?;
    let (from, request, skip) = match family {
        AddressFamily::Inet => {
            (IpAddr::from(from?.as_sockaddr_in()?.ip()), 8, usize::from(buffer[0] & 0xf) * 4)
        }
        _ => (IpAddr::from(from?.as_sockaddr_in6()?.ip()), 128, 0),
    };
    let message = buffer.get(skip..length).unwrap_or(&[]);
    let number = message.get(8..16).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes);
    Some(if message.first() == Some(&request) { (number, from) } else { (0, from) })
}
