//! One TCP connection measured: round trips of a byte, or as much as goes in a while. The server says whom it sees first.
//!
//! Both ends stay on the first processor. Left to the scheduler, a byte takes half or twice as long by where it happens to wake the
//! other end, and of a pair one side gets the one, one the other; and bulk measures what else the other processor does.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use egret::kernel::netns::Netns;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

const PORT: u16 = 7900;
const ROUND_TRIPS: usize = 2_000;
const BULK: Duration = Duration::from_millis(250);

/// What one connection showed.
pub(crate) struct Measured {
    /// Source that the server saw.
    pub(crate) seen: IpAddr,
    /// Median round trip, microseconds.
    pub(crate) round_trip: f64,
    /// Gb/s from client to server.
    pub(crate) throughput: f64,
}

/// Starts the server in a namespace; it serves until the process ends.
pub(crate) fn serve(netns: &Netns, at: IpAddr) -> io::Result<()> {
    let listener = netns.run(|| TcpListener::bind((at, PORT)))??;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    Ok(())
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let seen = stream.peer_addr()?.ip().to_canonical();
    stream.write_all(format!("{seen:<40}").as_bytes())?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    let mut buffer = vec![0; 256 << 10];
    stay()?;
    if kind[0] == b'r' {
        while stream.read(&mut buffer[..1])? == 1 {
            stream.write_all(&buffer[..1])?;
        }
        return Ok(());
    }
    let mut bytes = 0u64;
    loop {
        match stream.read(&mut buffer)? {
            0 => return stream.write_all(&bytes.to_be_bytes()),
            n => bytes += n as u64,
        }
    }
}

/// Keeps the calling thread where it shall be.
fn stay() -> io::Result<()> {
    let mut one = CpuSet::new();
    one.set(0)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &one)?)
}

/// Measures from a pod's namespace.
pub(crate) fn measure(netns: &Netns, to: IpAddr) -> io::Result<Measured> {
    // A thread of its own: what is started later shall not stay where this one stays.
    std::thread::scope(|scope| scope.spawn(|| measure_here(netns, to)).join())
        .map_err(|_| io::Error::other("the measurement panicked"))?
}

fn measure_here(netns: &Netns, to: IpAddr) -> io::Result<Measured> {
    stay()?;
    let (mut stream, seen) = connect(netns, to, b'r')?;
    let mut took = Vec::with_capacity(ROUND_TRIPS);
    let mut byte = [0];
    for _ in 0..ROUND_TRIPS {
        let begun = Instant::now();
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    let round_trip = took[ROUND_TRIPS / 2].as_secs_f64() * 1e6;
    let (mut stream, _) = connect(netns, to, b'b')?;
    let block = vec![0; 128 << 10];
    let begun = Instant::now();
    while begun.elapsed() < BULK {
        stream.write_all(&block)?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    let throughput = u64::from_be_bytes(bytes) as f64 * 8.0 / begun.elapsed().as_secs_f64() / 1e9;
    Ok(Measured { seen, round_trip, throughput })
}

fn connect(netns: &Netns, to: IpAddr, kind: u8) -> io::Result<(TcpStream, IpAddr)> {
    let patience = Duration::from_secs(3);
    let mut stream = netns.run(|| TcpStream::connect_timeout(&SocketAddr::new(to, PORT), patience))??;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    let mut seen = [0; 40];
    stream.read_exact(&mut seen)?;
    stream.write_all(&[kind])?;
    let text = String::from_utf8_lossy(&seen);
    let seen = text.trim().parse().map_err(|e| io::Error::other(format!("{text}: {e}")))?;
    Ok((stream, seen))
}
