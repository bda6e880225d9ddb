//! One TLS connection to an API server.
//!
//! In: access, and how long one may wait. Out: a stream on which requests are written and answers read. A peer that is gone without
//! a word is noticed by keep-alive probes, so a watch that hears nothing for minutes is still alive.

use std::io::{self, BufReader, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::access::Access;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// Silence after which the kernel asks whether the peer is there, seconds between questions, and how many: 30 s in all.
const KEEPALIVE: (u32, u32, u32) = (15, 5, 3);

pub(super) type Stream = BufReader<StreamOwned<ClientConnection, TcpStream>>;

/// Connects, through the proxy if there is one.
pub(super) fn connect(access: &Access, tls: &Arc<ClientConfig>, patience: Duration) -> io::Result<Stream> {
    let socket = match &access.proxy {
        None => reach(&access.host, access.port, patience)?,
        Some(proxy) => reach(&proxy.host, proxy.port, patience)
            .and_then(|socket| proxy.tunnel(&socket, &access.address()).map(|()| socket))
            .map_err(|error| proxy.blamed(&error))?,
    };
    let name = access.tls_name.as_ref().unwrap_or(&access.host);
    let name = ServerName::try_from(name.clone()).map_err(io::Error::other)?;
    let session = ClientConnection::new(tls.clone(), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(session, socket);
    stream.flush()?;
    Ok(BufReader::new(stream))
}

/// Each address of the name is tried.
fn reach(host: &str, port: u16, patience: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(socket) => return ready(&socket, patience).map(|()| socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn ready(socket: &TcpStream, patience: Duration) -> io::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(patience))?;
    socket.set_write_timeout(Some(patience))?;
    let (idle, between, count) = KEEPALIVE;
    setsockopt(socket, sockopt::KeepAlive, &true)?;
    setsockopt(socket, sockopt::TcpKeepIdle, &idle)?;
    setsockopt(socket, sockopt::TcpKeepInterval, &between)?;
    setsockopt(socket, sockopt::TcpKeepCount, &count)?;
    // What was sent and is never acknowledged ends the connection, too.
    setsockopt(socket, sockopt::TcpUserTimeout, &((idle + between * count) * 1000))?;
    Ok(())
}
