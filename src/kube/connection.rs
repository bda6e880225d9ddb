//! One TLS connection to an API server.
//!
//! In: access, and how long one may wait. Out: a stream on which requests are written and answers read. A peer that is gone without
//! a word is noticed by keep-alive probes, so a watch that hears nothing for minutes is still alive.

use std::io::{self, BufReader, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::access::{Access, Credential};
use super::error::ApiError;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// Silence after which the kernel asks whether the peer is there, seconds between questions, and how many: 30 s in all.
const KEEPALIVE: (u32, u32, u32) = (15, 5, 3);

pub(super) type Stream = BufReader<StreamOwned<ClientConnection, TcpStream>>;

/// What TLS needs to know, made once.
pub(super) fn tls(access: &Access) -> Result<Arc<ClientConfig>, ApiError> {
    let no = |what: &str, why: &dyn std::fmt::Display| {
        ApiError::Access(format!("{}: {what} cannot be used: {why}", access.origin))
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&access.authority) {
        let certificate = certificate.map_err(|e| no("the certificate authority", &e))?;
        roots.add(certificate).map_err(|e| no("the certificate authority", &e))?;
    }
    if roots.is_empty() {
        return Err(no("the certificate authority", &"there is no certificate in it"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| no("TLS", &e))?
        .with_root_certificates(roots);
    let Credential::Certificate { chain, key } = &access.credential else {
        return Ok(Arc::new(config.with_no_client_auth()));
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let chain = chain.map_err(|e| no("the client certificate", &e))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| no("the client key", &e))?;
    let config = config.with_client_auth_cert(chain, key).map_err(|e| no("the client certificate", &e))?;
    Ok(Arc::new(config))
}

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
