//! The netfilter half of netlink (`NETLINK_NETFILTER`), as little of it as nftables and conntrack need.
//!
//! In: requests built attribute by attribute. Out: attributes, and the kernel's refusals with its own words.
//! Never: knows what a table or a flow is. A socket belongs to the network namespace it was opened in.

use std::fmt;
use std::io;
use std::mem::ManuallyDrop;

mod message;

pub(crate) use message::{ACK, Attributes, CREATE, DUMP, EXCLUSIVE, Reply, Request};

use super::home::{self, Kind, Spare};
use message::Messages;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

/// Bytes of one batch: below the default send buffer (`net.core.wmem_default`, 212,992), which bounds a single `send`.
const BATCH_BYTES: usize = 128 * 1024;
/// Bytes of independent requests at a time, each of which may be refused: the refusals must fit into the receive buffer.
const PIECE_BYTES: usize = 16 * 1024;
/// The kernel fills at most 32 KiB of a dump into one read.
const READ_BYTES: usize = 64 * 1024;

const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFNL_SUBSYS_NFTABLES: u16 = 10;

/// The kernel's refusal of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Which request of the batch, counted from 0; `None` when the batch as a whole was refused.
    pub(crate) request: Option<usize>,
    /// Error number, positive.
    pub(crate) errno: i32,
    /// The kernel's own words (extended acknowledgement), when it has some.
    pub(crate) words: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", io::Error::from_raw_os_error(self.errno))?;
        self.words.as_ref().map_or(Ok(()), |words| write!(f, ": {words}"))
    }
}

/// Why a conversation failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The socket could not be opened, written or read.
    #[error("{0}")]
    Socket(#[from] io::Error),
    /// The kernel answered no.
    #[error("{0}")]
    Refused(Refusal),
    /// Objects changed while they were listed; ask again.
    #[error("the objects changed while they were listed")]
    Interrupted,
}

impl Error {
    /// The kernel's error number, if it answered.
    pub(crate) fn errno(&self) -> Option<i32> {
        match self {
            Error::Refused(refusal) => Some(refusal.errno),
            Error::Socket(error) => error.raw_os_error(),
            Error::Interrupted => None,
        }
    }
}

/// A socket of the current thread's network namespace. One dump at a time.
pub(crate) struct Netfilter {
    socket: ManuallyDrop<Socket>,
    sequence: u32,
    /// Room for one read. Nobody clears it: most of its sixteen pages are never touched.
    buffer: Vec<u8>,
    /// Where the thread that opened it stays, if it was there.
    home: Option<(u64, u64)>,
    /// Nothing that was asked is still to be answered.
    settled: bool,
}

impl Drop for Netfilter {
    fn drop(&mut self) {
        // SAFETY: nothing touches the field after this.
        let socket = unsafe { ManuallyDrop::take(&mut self.socket) };
        let Some(id) = self.home.filter(|_| self.settled) else { return home::close(socket) };
        let spare = Spare { socket, sequence: self.sequence, buffer: std::mem::take(&mut self.buffer) };
        if let Err(spare) = home::keep(Kind::Netfilter, id, spare) {
            home::close(spare.socket);
        }
    }
}

fn connected() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    // A refusal then carries the kernel's words, and not our whole request.
    socket.set_ext_ack(true)?;
    socket.set_cap_ack(true)?;
    // A batch of a thousand refusals must fit; failing that, the kernel's default does for all sane cases.
    let _ = socket.set_rx_buf_sz(1u32 << 20);
    Ok(socket)
}

impl Netfilter {
    /// Opens one.
    pub(crate) fn open() -> Result<Netfilter, Error> {
        let home = home::here().map(|(_, id)| id);
        let spare = match home.and_then(|id| home::take(Kind::Netfilter, id)) {
            Some(spare) => spare,
            None => Spare { socket: connected()?, sequence: 0, buffer: Vec::with_capacity(READ_BYTES) },
        };
        let Spare { socket, sequence, buffer } = spare;
        Ok(Netfilter { socket: ManuallyDrop::new(socket), sequence, buffer, home, settled: true })
    }

    /// Opens one that is nobody's before and after: what is made by it may belong to it, and goes when it is closed.
    pub(crate) fn alone() -> Result<Netfilter, Error> {
        let socket = ManuallyDrop::new(connected()?);
        let buffer = Vec::with_capacity(READ_BYTES);
        Ok(Netfilter { socket, sequence: 0, buffer, home: None, settled: true })
    }

    /// Sends one request and hands every object of the answer to `each`. The request asks for a dump or an acknowledgement.
    pub(crate) fn ask(&mut self, mut request: Request, mut each: impl FnMut(Reply<'_>)) -> Result<(), Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        self.settled = false;
        self.socket.send(request.finish(sequence), 0)?;
        let mut interrupted = false;
        loop {
            self.buffer.clear();
            self.socket.recv(&mut self.buffer, 0)?;
            for message in Messages(&self.buffer).filter(|message| message.sequence == sequence) {
                interrupted |= message.interrupted();
                self.settled |= message.outcome().is_some();
                match message.outcome() {
                    None => each(message.reply()),
                    Some((0, _)) if interrupted => return Err(Error::Interrupted),
                    Some((0, _)) => return Ok(()),
                    Some((errno, words)) => {
                        return Err(Error::Refused(Refusal { request: Some(0), errno, words }));
                    }
                }
            }
        }
    }

    /// Sends nftables requests in as few transactions as fit; requests of one group stay in one transaction.
    ///
    /// Each transaction happens as a whole or not at all; the first that fails ends the work.
    pub(crate) fn transact(&mut self, groups: Vec<Vec<Request>>) -> Result<(), Vec<Refusal>> {
        let mut done = 0;
        let mut groups = groups.into_iter().peekable();
        while groups.peek().is_some() {
            let mut batch: Vec<Request> = Vec::new();
            let mut bytes = 0;
            while let Some(group) =
                groups.next_if(|group| batch.is_empty() || bytes + size(group) <= BATCH_BYTES)
            {
                bytes += size(&group);
                batch.extend(group);
            }
            let count = batch.len();
            self.transaction(batch, done)?;
            done += count;
        }
        Ok(())
    }

    fn transaction(&mut self, mut batch: Vec<Request>, first: usize) -> Result<(), Vec<Refusal>> {
        let Some(last) = batch.last_mut() else { return Ok(()) };
        // Only the last request is acknowledged: hundreds of answers would overflow the socket's buffer.
        last.acknowledged();
        let begin = self.sequence + 1;
        let mut bytes = Vec::with_capacity(size(&batch) + 64);
        let border = |kind| Request::raw(kind, 0, 0, NFNL_SUBSYS_NFTABLES);
        let framed =
            [border(NFNL_MSG_BATCH_BEGIN)].into_iter().chain(batch).chain([border(NFNL_MSG_BATCH_END)]);
        for mut request in framed {
            self.sequence += 1;
            bytes.extend_from_slice(request.finish(self.sequence));
        }
        let end = self.sequence;
        self.exchange(&bytes, end - 1, |sequence| {
            (sequence > begin && sequence < end).then(|| first + (sequence - begin - 1) as usize)
        })
    }

    /// Sends independent requests, a bounded number at a time; the refused ones come back, by their place in the list.
    pub(crate) fn each(&mut self, requests: Vec<Request>) -> Result<(), Vec<Refusal>> {
        let mut refusals = Vec::new();
        let mut done = 0;
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            let begin = self.sequence + 1;
            let mut bytes = Vec::new();
            while let Some(mut request) = requests.next_if(|_| bytes.len() < PIECE_BYTES) {
                if requests.peek().is_none() || bytes.len() + request.length() >= PIECE_BYTES {
                    request.acknowledged();
                }
                self.sequence += 1;
                bytes.extend_from_slice(request.finish(self.sequence));
            }
            let end = self.sequence;
            if let Err(mut more) = self.exchange(&bytes, end, |sequence| {
                (sequence >= begin && sequence <= end).then(|| done + (sequence - begin) as usize)
            }) {
                refusals.append(&mut more);
            }
            done += (end + 1 - begin) as usize;
        }
        if refusals.is_empty() { Ok(()) } else { Err(refusals) }
    }

    /// Writes, then reads what the kernel has to say. It works while we are in `send`, so all answers are there afterwards.
    fn exchange(
        &mut self,
        bytes: &[u8],
        last: u32,
        place: impl Fn(u32) -> Option<usize>,
    ) -> Result<(), Vec<Refusal>> {
        let own = |error: io::Error| {
            vec![Refusal { request: None, errno: error.raw_os_error().unwrap_or(libc::EIO), words: None }]
        };
        self.settled = false;
        self.socket.send(bytes, 0).map_err(own)?;
        let mut refusals = Vec::new();
        let mut answered = false;
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(own(error)),
            }
            for message in Messages(&self.buffer) {
                let Some((errno, words)) = message.outcome() else { continue };
                answered |= message.sequence == last;
                if errno != 0 {
                    refusals.push(Refusal { request: place(message.sequence), errno, words });
                }
            }
        }
        self.settled = answered;
        if refusals.is_empty() && !answered {
            return Err(own(io::Error::from_raw_os_error(libc::EIO)));
        }
        if refusals.is_empty() { Ok(()) } else { Err(refusals) }
    }
}

fn size(group: &[Request]) -> usize {
    group.iter().map(Request::length).sum()
}
