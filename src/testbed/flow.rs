//! A held connection that can be asked again later: the same flow, whatever happened in between.
//!
//! In: a connected socket. Out: for each question, who the outside says is asking, or how the flow ended.

use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::probe::{address, next_number, read, receive, timed_out};

/// What came of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The outside answered, and saw this source.
    From(IpAddr),
    /// The connection was reset.
    Reset,
    /// The other end closed it.
    Closed,
    /// Nothing came in time.
    Silent,
    /// The network said no: unreachable, prohibited, refused.
    Refused(ErrorKind),
}

/// A live flow to the outside. Dropping a TCP flow closes it (FIN). While it lives, so does its namespace.
#[derive(Debug)]
pub struct Flow {
    wire: Wire,
    patience: Duration,
}

#[derive(Debug)]
enum Wire {
    Tcp(TcpStream, Vec<u8>),
    Udp(UdpSocket),
}

impl Flow {
    /// Takes a new connection and waits for the greeting with the caller's address.
    pub(super) fn tcp(mut stream: TcpStream, patience: Duration) -> io::Result<Flow> {
        let mut heard = Vec::new();
        address(&read_line(&mut stream, &mut heard, patience)?)?;
        Ok(Flow { wire: Wire::Tcp(stream, heard), patience })
    }

    pub(super) fn udp(socket: UdpSocket, patience: Duration) -> Flow {
        Flow { wire: Wire::Udp(socket), patience }
    }

    /// Asks who the outside sees. Questions are numbered: a late answer to an earlier one is not taken for this one's.
    pub fn ask(&mut self) -> Answer {
        let question = format!("ask {}", next_number());
        match self.exchange(&question) {
            Ok(ip) => Answer::From(ip),
            Err(error) => match error.kind() {
                ErrorKind::TimedOut => Answer::Silent,
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Answer::Reset,
                ErrorKind::UnexpectedEof => Answer::Closed,
                kind => Answer::Refused(kind),
            },
        }
    }

    fn exchange(&mut self, question: &str) -> io::Result<IpAddr> {
        let patience = self.patience;
        match &mut self.wire {
            Wire::Udp(socket) => {
                socket.send(question.as_bytes())?;
                let mut buffer = [0; 2048];
                loop {
                    let length = receive(socket, &mut buffer, patience)?;
                    if buffer[..length].ends_with(question.as_bytes()) {
                        return address(&buffer[..length]);
                    }
                }
            }
            Wire::Tcp(stream, heard) => {
                stream.write_all(format!("{question}\n").as_bytes()).map_err(timed_out)?;
                loop {
                    let line = read_line(stream, heard, patience)?;
                    if line.ends_with(question.as_bytes()) {
                        return address(&line);
                    }
                }
            }
        }
    }

    /// Has the outside send this many bytes over TCP; gives the time it took.
    pub fn download(&mut self, bytes: u64) -> io::Result<Duration> {
        let patience = self.patience;
        let (stream, heard) = self.stream()?;
        let start = Instant::now();
        stream.write_all(format!("send {bytes}\n").as_bytes()).map_err(timed_out)?;
        heard.clear();
        let mut left = bytes;
        let mut buffer = vec![0; 1 << 16];
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            match read(stream, &mut buffer[..most], patience)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                length => left -= length as u64,
            }
        }
        Ok(start.elapsed())
    }

    /// Sends this many bytes over TCP and waits until the outside has them all; gives the time it took.
    pub fn upload(&mut self, bytes: u64) -> io::Result<Duration> {
        let patience = self.patience;
        let (stream, heard) = self.stream()?;
        let start = Instant::now();
        stream.write_all(format!("take {bytes}\n").as_bytes())?;
        let filling = vec![b'.'; 1 << 16];
        let mut left = bytes;
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(filling.len());
            stream.write_all(&filling[..length]).map_err(timed_out)?;
            left -= length as u64;
        }
        let receipt = format!("took {bytes}");
        while !read_line(stream, heard, patience)?.ends_with(receipt.as_bytes()) {}
        Ok(start.elapsed())
    }

    /// How long to wait for each answer from now on.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Ends a TCP flow with a reset instead of a FIN.
    pub fn reset(self) -> io::Result<()> {
        match self.wire {
            Wire::Udp(_) => Ok(()),
            Wire::Tcp(stream, _) => {
                let abrupt = libc::linger { l_onoff: 1, l_linger: 0 };
                Ok(nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &abrupt)?)
            }
        }
    }

    fn stream(&mut self) -> io::Result<(&mut TcpStream, &mut Vec<u8>)> {
        match &mut self.wire {
            Wire::Tcp(stream, heard) => Ok((stream, heard)),
            Wire::Udp(_) => Err(io::Error::new(ErrorKind::Unsupported, "bulk goes over TCP only")),
        }
    }
}

/// The next line without its newline; what came after it stays in `heard`.
fn read_line(stream: &mut TcpStream, heard: &mut Vec<u8>, patience: Duration) -> io::Result<Vec<u8>> {
    let mut buffer = [0; 4096];
    loop {
        if let Some(at) = heard.iter().position(|b| *b == b'\n') {
            let mut line: Vec<u8> = heard.drain(..=at).collect();
            line.pop();
            return Ok(line);
        }
        match read(stream, &mut buffer, patience)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            length => heard.extend_from_slice(&buffer[..length]),
        }
    }
}
