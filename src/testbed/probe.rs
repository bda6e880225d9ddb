//! Single questions to the outside: from a namespace, one new socket, one answer, a short time-out.
//!
//! In: an open namespace, a destination, patience. Out: the address that the outside saw, or the error the kernel
//! gave. Nothing is tried twice, so the first packet is what is tested. Never: keeps a connection.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, socket};

use super::packet::ECHO_OF;
use crate::addr::Family;
use crate::kernel::netns::Netns;

/// Parts of a patience; see [`ticks`].
const TICKS: u32 = 50;
/// How long a full pipe is waited for: that it empties is no question of these probes.
const WRITING: Duration = Duration::from_secs(60);

/// Opens a TCP connection. The socket is made inside; the waiting is done outside.
pub(super) fn tcp_connect(netns: &Netns, to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let made = netns.run(|| socket(address_family(to.ip()), SockType::Stream, flags, None))?;
    connect_patiently(TcpStream::from(made?), to, patience)
}

/// Opens a TCP connection from a certain local port.
pub(super) fn tcp_connect_from(
    netns: &Netns,
    port: u16,
    to: SocketAddr,
    patience: Duration,
) -> io::Result<TcpStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let made = netns.run(|| socket(address_family(to.ip()), SockType::Stream, flags, None))??;
    nix::sys::socket::bind(
        made.as_raw_fd(),
        &SockaddrStorage::from(SocketAddr::new(unspecified(to.ip()), port)),
    )?;
    connect_patiently(TcpStream::from(made), to, patience)
}

fn connect_patiently(stream: TcpStream, to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    match connect(stream.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    if !wait_for(stream.as_raw_fd(), libc::POLLOUT, patience) {
        return Err(ErrorKind::TimedOut.into());
    }
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(WRITING))?;
    Ok(stream)
}

/// A UDP socket that talks to one destination.
pub(super) fn udp_connect(netns: &Netns, to: SocketAddr) -> io::Result<UdpSocket> {
    let socket = netns.run(|| UdpSocket::bind((unspecified(to.ip()), 0)))??;
    socket.connect(to)?;
    Ok(socket)
}

/// Connects, and reads the line with the caller's address.
pub(super) fn tcp(netns: &Netns, to: SocketAddr, patience: Duration) -> io::Result<IpAddr> {
    let mut stream = tcp_connect(netns, to, patience)?;
    let mut line = Vec::new();
    let mut byte = [0];
    while read(&mut stream, &mut byte, patience)? == 1 && byte != *b"\n" {
        line.push(byte[0]);
    }
    address(&line)
}

/// Sends one datagram of this many bytes (at least one) and reads the answer.
pub(super) fn udp(netns: &Netns, to: SocketAddr, bytes: usize, patience: Duration) -> io::Result<IpAddr> {
    let socket = udp_connect(netns, to)?;
    socket.send(&vec![b'?'; bytes.max(1)])?;
    let mut buffer = [0; 2048];
    let length = receive(&socket, &mut buffer, patience)?;
    address(&buffer[..length])
}

/// Gets `/` and reads the body.
pub(super) fn http(netns: &Netns, to: SocketAddr, patience: Duration) -> io::Result<IpAddr> {
    let mut stream = tcp_connect(netns, to, patience)?;
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes())?;
    let (mut reply, mut buffer) = (Vec::new(), [0; 2048]);
    loop {
        match read(&mut stream, &mut buffer, patience)? {
            0 => break,
            length => reply.extend_from_slice(&buffer[..length]),
        }
    }
    let reply = String::from_utf8_lossy(&reply);
    let body = reply.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    address(body.as_bytes())
}

/// Sends one echo request and waits for its answer. Gives the number it carried, by which the outside knows it.
pub(super) fn ping(netns: &Netns, to: IpAddr, id: u16, patience: Duration) -> io::Result<u64> {
    let (kind, protocol, request, reply) = match Family::of(to) {
        Family::V4 => (AddressFamily::Inet, SockProtocol::Icmp, 8, 0),
        Family::V6 => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128, 129),
    };
    let made = netns.run(|| socket(kind, SockType::Raw, SockFlag::SOCK_CLOEXEC, Some(protocol)))??;
    connect(made.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(to, 0)))?;
    let number = next_number();
    let message = echo_request(request, id, number);
    nix::sys::socket::send(made.as_raw_fd(), &message, nix::sys::socket::MsgFlags::empty())?;
    let mut ticks = ticks(patience);
    let mut buffer = [0; 2048];
    loop {
        if !ticks.any(|tick| is_ready(made.as_raw_fd(), libc::POLLIN, tick)) {
            return Err(ErrorKind::TimedOut.into());
        }
        if is_reply(&made, to, reply, number, &mut buffer)? {
            return Ok(number);
        }
    }
}

fn is_reply(socket: &OwnedFd, to: IpAddr, reply: u8, number: u64, buffer: &mut [u8]) -> io::Result<bool> {
    let length = nix::unistd::read(socket, buffer)?;
    // A raw IPv4 socket gives the IP header too.
    let skip = if to.is_ipv4() { usize::from(buffer[0] & 0xf) * 4 } else { 0 };
    let message = buffer.get(skip..length).unwrap_or(&[]);
    Ok(message.first() == Some(&reply) && message.get(8..16) == Some(&number.to_be_bytes()))
}

fn echo_request(request: u8, id: u16, number: u64) -> Vec<u8> {
    let mut message = vec![request, 0, 0, 0];
    message.extend(id.to_be_bytes());
    message.extend(1u16.to_be_bytes());
    message.extend(number.to_be_bytes());
    message.extend(ECHO_OF);
    message.extend(id.to_be_bytes());
    // The kernel fills in ICMPv6 checksums; IPv4's are ours (RFC 1071).
    if request == 8 {
        let sum: u32 = message.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(0);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    message
}

/// Numbers that two worlds in one process do not share.
pub(super) fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Waits until a descriptor is ready or patience ends.
pub(super) fn wait_for(fd: i32, events: libc::c_short, patience: Duration) -> bool {
    ticks(patience).any(|tick| is_ready(fd, events, tick))
}

/// Patience as many short waits. Where the whole machine stands still, or others have the processors, one of them takes long, and
/// whoever is to answer still has the others.
fn ticks(patience: Duration) -> impl Iterator<Item = Duration> {
    let tick = (patience / TICKS).max(Duration::from_millis(1));
    let count = patience.as_millis() / tick.as_millis().max(1);
    (0..count.max(1)).map(move |_| tick)
}

fn is_ready(fd: i32, events: libc::c_short, within: Duration) -> bool {
    let mut polled = libc::pollfd { fd, events, revents: 0 };
    let milliseconds = i32::try_from(within.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one pollfd on the stack, alive across the call.
    unsafe { libc::poll(&raw mut polled, 1, milliseconds) > 0 }
}

/// Reads what there is, and waits for it with patience.
pub(super) fn read(stream: &mut TcpStream, buffer: &mut [u8], patience: Duration) -> io::Result<usize> {
    if wait_for(stream.as_raw_fd(), libc::POLLIN, patience) {
        return stream.read(buffer);
    }
    Err(ErrorKind::TimedOut.into())
}

/// The same for a datagram.
pub(super) fn receive(socket: &UdpSocket, buffer: &mut [u8], patience: Duration) -> io::Result<usize> {
    if wait_for(socket.as_raw_fd(), libc::POLLIN, patience) {
        return socket.recv(buffer);
    }
    Err(ErrorKind::TimedOut.into())
}

/// A socket's time-out reads as "would block"; people call it a time-out.
pub(super) fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == ErrorKind::WouldBlock { ErrorKind::TimedOut.into() } else { error }
}

/// The address at the start of an answer.
pub(super) fn address(answer: &[u8]) -> io::Result<IpAddr> {
    let text = String::from_utf8_lossy(answer);
    let word = text.split_whitespace().next().unwrap_or("");
    word.parse()
        .map_err(|_| io::Error::new(ErrorKind::InvalidData, format!("`{text}` begins with no address")))
}

fn address_family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn unspecified(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_many_short_waits_and_at_least_one() {
        for (patience, tick, count) in [(1000, 20, 50), (20, 1, 20), (60_000, 1200, 50), (0, 1, 1)] {
            let all: Vec<Duration> = ticks(Duration::from_millis(patience)).collect();
            assert_eq!(all, vec![Duration::from_millis(tick); count], "{patience} ms");
        }
    }
}
