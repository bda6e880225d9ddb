//! One netlink socket: send a request and read its answer, or dump a table.
//!
//! In: messages. Out: the kernel's objects as bytes, or its refusal in words. A socket keeps the namespace it was opened in, so
//! it is opened inside and then used from anywhere. Never: two dumps at once (the kernel answers EBUSY), and never a dump that
//! was interrupted by a change: that retry is here and nowhere else.

use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, RawFd};
use std::{fmt, io};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::SocketAddr;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::attributes::{attributes, text};
use crate::kernel::home::{self, Kind, Spare};
use crate::kernel::netns::Netns;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Header flag: the table changed while it was dumped, entries may be missing or twice.
const NLM_F_DUMP_INTR: u16 = 0x10;
/// Header flag of an error message: the request is not repeated in it.
const NLM_F_CAPPED: u16 = 0x100;
/// Header flag of an error message: attributes with words follow.
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
const HEADER: usize = 16;

/// Room for one datagram. The kernel fills a dump's datagrams up to what the reader once offered, at most 32 KiB.
const DATAGRAM: usize = 64 * 1024;
/// Room in the kernel for what was not yet read.
const RECEIVE_BUFFER: usize = 1024 * 1024;
/// How often an interrupted dump is begun again. A table that changes at every one of them is under an attack or a bug.
const DUMP_TRIES: usize = 32;

/// The kernel said no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Error number, positive (`EEXIST` = 17).
    pub errno: i32,
    /// The kernel's own words (extended ack), empty where it has none.
    pub words: String,
}

impl Refusal {
    /// A refusal of our own side.
    pub(crate) fn of(error: &io::Error) -> Refusal {
        Refusal { errno: error.raw_os_error().unwrap_or(libc::EIO), words: String::new() }
    }

    /// The thing to be deleted was not there: somebody, or the kernel itself, was faster.
    pub fn is_absence(&self) -> bool {
        [libc::ENOENT, libc::ESRCH, libc::ENODEV, libc::EADDRNOTAVAIL].contains(&self.errno)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errno = nix::errno::Errno::from_raw(self.errno);
        if self.words.is_empty() {
            write!(f, "{} ({errno:?})", errno.desc())
        } else {
            write!(f, "{} ({errno:?})", self.words)
        }
    }
}

impl std::error::Error for Refusal {}

/// A dump, whole and undisturbed.
pub struct Dump(Vec<u8>);

impl Dump {
    /// The objects in it: of each its fixed header and its attributes.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        split(&self.0).map(|(_, whole)| &whole[HEADER..])
    }
}

/// A socket of one namespace.
pub struct Socket {
    socket: ManuallyDrop<netlink_sys::Socket>,
    sequence: u32,
    out: Vec<u8>,
    datagram: Vec<u8>,
    /// Where the thread that opened it stays.
    home: Option<(u64, u64)>,
    /// Nothing that was asked is still to be answered.
    settled: bool,
}

impl Drop for Socket {
    fn drop(&mut self) {
        // SAFETY: nothing touches the field after this.
        let socket = unsafe { ManuallyDrop::take(&mut self.socket) };
        if let Some(id) = self.home.filter(|_| self.settled) {
            let buffer = std::mem::take(&mut self.datagram);
            let _ = home::keep(Kind::Route, id, Spare { socket, sequence: self.sequence, buffer });
        }
    }
}

impl Socket {
    /// Opens a socket that will speak to the given namespace for as long as it lives.
    pub fn open(netns: &Netns) -> io::Result<Socket> {
        let home = home::is_of(netns.id()).then(|| netns.id());
        match home.and_then(|id| home::take(Kind::Route, id)) {
            Some(spare) => Ok(Socket::from(spare, home)),
            None => Socket::new(netns, NETLINK_ROUTE, home),
        }
    }

    /// The same of another of netlink's protocols. It is not kept.
    pub(crate) fn of(netns: &Netns, protocol: isize) -> io::Result<Socket> {
        Socket::new(netns, protocol, None)
    }

    fn new(netns: &Netns, protocol: isize, home: Option<(u64, u64)>) -> io::Result<Socket> {
        let socket = netns.socket(|| Socket::here(protocol))?;
        Ok(Socket::from(Spare { socket, sequence: 0, buffer: Vec::with_capacity(DATAGRAM) }, home))
    }

    fn from(Spare { socket, sequence, buffer }: Spare, home: Option<(u64, u64)>) -> Socket {
        let (socket, out) = (ManuallyDrop::new(socket), Vec::with_capacity(512));
        Socket { socket, sequence, out, datagram: buffer, home, settled: true }
    }

    fn here(protocol: isize) -> io::Result<netlink_sys::Socket> {
        let mut socket = netlink_sys::Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Words beside the number (4.12); requests not echoed back in errors (4.3); filters in dumps obeyed, and what the
        // kernel does not understand refused instead of ignored (4.20).
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        socket.set_netlink_get_strict_chk(true)?;
        socket.set_rx_buf_sz(libc::c_int::try_from(RECEIVE_BUFFER).unwrap_or(libc::c_int::MAX))?;
        Ok(socket)
    }

    /// Sends one change and waits until it is done.
    pub fn change<T: NetlinkSerializable>(&mut self, message: T, flags: u16) -> Result<(), Refusal> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        self.answer().map(|_| ())
    }

    /// Sends one question with one answer.
    pub fn ask(&mut self, message: RouteNetlinkMessage) -> Result<Dump, Refusal> {
        // With an ack behind it: then the end of the answer is the same for every kind of question.
        self.send(message, NLM_F_REQUEST | NLM_F_ACK)?;
        self.answer().map(Dump)
    }

    /// Reads a table. Begins again while changes interrupt it.
    pub fn dump<T: NetlinkSerializable + Clone>(&mut self, message: &T) -> Result<Dump, Refusal> {
        for _ in 0..DUMP_TRIES {
            self.send(message.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            match self.answer() {
                Ok(bytes) => return Ok(Dump(bytes)),
                Err(refusal) if refusal.errno == libc::EINTR => {}
                Err(refusal) => return Err(refusal),
            }
        }
        let words = format!("the table changed under each of {DUMP_TRIES} attempts to read it");
        Err(Refusal { errno: libc::EINTR, words })
    }

    /// A change as bytes, for a process that may not take memory. It is this socket's last request.
    pub(crate) fn prepared<T: NetlinkSerializable>(&mut self, message: T) -> Vec<u8> {
        self.settled = false;
        let mut bytes = Vec::new();
        serialize(message, NLM_F_REQUEST | NLM_F_ACK, self.sequence.wrapping_add(1), &mut bytes);
        bytes
    }

    fn send<T: NetlinkSerializable>(&mut self, message: T, flags: u16) -> Result<(), Refusal> {
        self.sequence = self.sequence.wrapping_add(1);
        self.settled = false;
        serialize(message, flags, self.sequence, &mut self.out);
        self.socket.send(&self.out, 0).map(|_| ()).map_err(|error| Refusal::of(&error))
    }

    /// Everything up to the end of this request's answer. A dump that was disturbed is read to its end and then is EINTR.
    fn answer(&mut self) -> Result<Vec<u8>, Refusal> {
        let mut objects = Vec::new();
        let mut interrupted = false;
        loop {
            self.datagram.clear();
            let length = match self.socket.recv(&mut self.datagram, libc::MSG_TRUNC) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Refusal::of(&error)),
            };
            if length > self.datagram.len() {
                let words =
                    format!("a netlink message of {length} bytes does not fit the {DATAGRAM} set aside");
                return Err(Refusal { errno: libc::EMSGSIZE, words });
            }
            for (header, whole) in split(&self.datagram) {
                if header.sequence_number != self.sequence {
                    continue; // what is left of an answer that an error cut short
                }
                interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
                match header.message_type {
                    NLMSG_DONE | NLMSG_ERROR => {
                        self.settled = true;
                        return match refusal(header, &whole[HEADER..]) {
                            Some(refusal) => Err(refusal),
                            None if interrupted => Err(Refusal { errno: libc::EINTR, words: String::new() }),
                            None => Ok(objects),
                        };
                    }
                    _ => {
                        objects.extend_from_slice(whole);
                        objects.resize(objects.len().next_multiple_of(4), 0);
                    }
                }
            }
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn serialize<T: NetlinkSerializable>(message: T, flags: u16, sequence: u32, into: &mut Vec<u8>) {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    into.clear();
    into.resize(message.buffer_len(), 0);
    message.serialize(into);
}

/// The messages in a datagram: header, and the whole message with it. Ends at the first one that does not fit.
fn split(mut bytes: &[u8]) -> impl Iterator<Item = (NetlinkHeader, &[u8])> {
    std::iter::from_fn(move || {
        let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let half = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let mut header = NetlinkHeader::default();
        header.length = word(0)?;
        header.message_type = half(4)?;
        header.flags = half(6)?;
        header.sequence_number = word(8)?;
        header.port_number = word(12)?;
        let length = header.length as usize;
        let whole = bytes.get(..length).filter(|whole| whole.len() >= HEADER)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((header, whole))
    })
}

/// What NLMSG_ERROR or NLMSG_DONE says; both begin with the error number, 0 or negative.
fn refusal(header: NetlinkHeader, payload: &[u8]) -> Option<Refusal> {
    let code = payload.get(..4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes);
    if code == 0 {
        return None;
    }
    // Behind the number of an error stands the header of the request and, unless capped, the request itself.
    let request = payload.get(4..8).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes) as usize;
    let words_at = match header.message_type {
        NLMSG_DONE => 4,
        _ if header.flags & NLM_F_CAPPED != 0 => 4 + HEADER,
        _ => 4 + request.next_multiple_of(4),
    };
    let words =
        (header.flags & NLM_F_ACK_TLVS != 0).then(|| payload.get(words_at..)).flatten().unwrap_or(&[]);
    let words =
        attributes(words).find(|a| a.kind == NLMSGERR_ATTR_MSG).map(|a| text(a.value)).unwrap_or_default();
    Some(Refusal { errno: code.saturating_neg(), words: words.trim_end_matches('.').to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: u16, flags: u16) -> NetlinkHeader {
        let mut header = NetlinkHeader::default();
        header.message_type = kind;
        header.flags = flags;
        header
    }

    #[test]
    fn a_refusal_carries_the_kernels_words() {
        let mut payload = (-libc::EINVAL).to_ne_bytes().to_vec();
        payload.extend([20, 0, 0, 0, 104, 0, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0]); // the request's header, capped
        payload.extend([12, 0, 1, 0]);
        payload.extend(b"No gw.\0\0");
        let refusal = refusal(header(NLMSG_ERROR, NLM_F_CAPPED | NLM_F_ACK_TLVS), &payload).unwrap();
        assert_eq!(refusal.to_string(), "No gw (EINVAL)");
    }

    #[test]
    fn a_refusal_without_words_uses_the_systems() {
        let refusal = refusal(header(NLMSG_DONE, 0), &(-libc::EEXIST).to_ne_bytes()).unwrap();
        assert_eq!(refusal.to_string(), "File exists (EEXIST)");
        assert!(!refusal.is_absence());
    }

    #[test]
    fn cut_off_bytes_end_a_dump_instead_of_panicking() {
        let mut bytes = vec![20, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
        bytes.extend([200, 0, 0, 0, 16, 0]);
        assert_eq!(Dump(bytes).iter().collect::<Vec<_>>(), [[1, 2, 3, 4]]);
    }
}
