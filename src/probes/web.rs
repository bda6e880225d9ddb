//! Three pages for whoever looks after a process: is it alive, is it ready, what has it counted. HTTP/1.1, one question to a connection.
//!
//! In: addresses, a [`Doctor`]. Out: text. Never: changes anything, reads more than a head, waits longer than `PATIENCE` for
//! anybody, or serves more than `MOST` at once. A crate for this would be larger than what it tells of.

use std::io::{self, Read, Write};
use std::net::{AddrParseError, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Where the agent's pages are served, unless somebody says otherwise: it is in the host's network, so not for everybody.
pub const AGENT: &str = "127.0.0.1:9790";
/// The same of the controller's, which may run beside an agent.
pub const CONTROLLER: &str = "127.0.0.1:9791";
/// How long anybody has for a question and for reading the answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Connections at once; further ones wait in the kernel.
const MOST: usize = 16;
/// Longest head of a request.
const LONGEST: usize = 8 << 10;
/// How long until an address that could not be had is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// Knows how a process is.
pub trait Doctor: Send + Sync {
    /// Whether it is alive.
    ///
    /// # Errors
    /// What is wrong.
    fn alive(&self) -> Result<(), String>;

    /// Whether it does its work, and as what.
    ///
    /// # Errors
    /// Why not.
    fn ready(&self) -> Result<String, String>;

    /// What was counted.
    fn counted(&self) -> String;
}

/// Addresses as people write them. Without a host they are all that the machine has: of both families by one socket, or, where the kernel
/// has no IPv6, of IPv4.
///
/// # Errors
/// Nobody can listen there.
pub fn addresses(text: &str) -> Result<Vec<SocketAddr>, AddrParseError> {
    let hosts = if text.starts_with(':') { ["[::]", "0.0.0.0"].as_slice() } else { &[""] };
    hosts.iter().map(|host| format!("{host}{text}").parse()).collect()
}

/// Serves at the first of the addresses that can be had, for as long as the process lives. If none can, they are tried again, and that stops
/// nothing.
///
/// # Errors
/// No thread.
pub fn serve(addresses: Vec<SocketAddr>, doctor: Arc<dyn Doctor>) -> io::Result<()> {
    thread::Builder::new().name("web".to_owned()).spawn(move || keep(&addresses, &doctor)).map(drop)
}

fn keep(addresses: &[SocketAddr], doctor: &Arc<dyn Doctor>) -> ! {
    let mut told = false;
    let listener = loop {
        match TcpListener::bind(addresses) {
            Ok(listener) => break listener,
            Err(error) if !told => {
                tracing::warn!(?addresses, %error, "no health and no metrics are served; choose another address with --listen");
                told = true;
            }
            Err(_) => {}
        }
        thread::sleep(AGAIN);
    };
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "health and metrics are served");
    }
    let busy = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok((stream, _)) = listener.accept() else {
            thread::sleep(Duration::from_millis(100)); // no descriptors left
            continue;
        };
        while busy.load(Ordering::Acquire) >= MOST {
            thread::sleep(Duration::from_millis(10));
        }
        busy.fetch_add(1, Ordering::AcqRel);
        let (mine, doctor) = (Busy(busy.clone()), doctor.clone());
        // Without a thread the connection is closed.
        let _ = thread::Builder::new().name("page".to_owned()).stack_size(128 << 10).spawn(move || {
            let _mine = mine;
            let _ = answer(stream, doctor.as_ref());
        });
    }
}

struct Busy(Arc<AtomicUsize>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn answer(mut stream: TcpStream, doctor: &dyn Doctor) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let head = head(&mut stream)?;
    let (status, kind, text) = page(&head, doctor);
    let body = if head.starts_with("HEAD ") { "" } else { &text };
    let length = text.len();
    let reply = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(reply.as_bytes())
}

/// Up to the empty line. What follows is nobody's interest.
fn head(stream: &mut TcpStream) -> io::Result<String> {
    let began = Instant::now();
    let (mut bytes, mut part) = (Vec::new(), [0; 1024]);
    loop {
        let left = PATIENCE.checked_sub(began.elapsed()).filter(|left| !left.is_zero());
        stream.set_read_timeout(Some(left.ok_or(io::ErrorKind::TimedOut)?))?;
        let count = stream.read(&mut part)?;
        bytes.extend_from_slice(&part[..count]);
        let whole = bytes.windows(4).any(|end| end == b"\r\n\r\n");
        if whole || count == 0 || bytes.len() > LONGEST {
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}

/// Status, content type and text of the answer to a request's head.
fn page(head: &str, doctor: &dyn Doctor) -> (&'static str, &'static str, String) {
    const TEXT: &str = "text/plain; charset=utf-8";
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    if !version.is_some_and(|version| version.starts_with("HTTP/1.")) || head.len() > LONGEST {
        return ("400 Bad Request", TEXT, "this is no request of HTTP/1.1\n".to_owned());
    }
    if !matches!(method, Some("GET" | "HEAD")) {
        return ("405 Method Not Allowed", TEXT, "only GET is answered\n".to_owned());
    }
    let judged = |outcome: Result<String, String>| match outcome {
        Ok(how) => ("200 OK", TEXT, format!("{how}\n")),
        Err(why) => ("503 Service Unavailable", TEXT, format!("{why}\n")),
    };
    match target.unwrap_or_default().split('?').next().unwrap_or_default() {
        "/healthz" => judged(doctor.alive().map(|()| "ok".to_owned())),
        "/readyz" => judged(doctor.ready()),
        "/metrics" => ("200 OK", "text/plain; version=0.0.4; charset=utf-8", doctor.counted()),
        _ => ("404 Not Found", TEXT, "there are /healthz, /readyz and /metrics\n".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Patient;

    impl Doctor for Patient {
        fn alive(&self) -> Result<(), String> {
            Ok(())
        }
        fn ready(&self) -> Result<String, String> {
            Err("not yet".to_owned())
        }
        fn counted(&self) -> String {
            "egret_x 1\n".to_owned()
        }
    }

    #[test]
    fn each_page_says_its_own_and_everything_else_is_refused() {
        for (head, status, text) in [
            ("GET /healthz HTTP/1.1\r\n", "200", "ok"),
            ("GET /readyz?verbose HTTP/1.0\r\n", "503", "not yet"),
            ("GET /metrics HTTP/1.1\r\n", "200", "egret_x 1"),
            ("HEAD /metrics HTTP/1.1\r\n", "200", "egret_x 1"),
            ("GET / HTTP/1.1\r\n", "404", "/readyz"),
            ("POST /metrics HTTP/1.1\r\n", "405", "only GET"),
            ("GET /metrics\r\n", "400", "no request"),
            ("\u{fffd}", "400", "no request"),
            ("", "400", "no request"),
        ] {
            let (found, _, said) = page(head, &Patient);
            assert!(found.starts_with(status) && said.contains(text), "{head:?}: {found} {said}");
        }
    }

    #[test]
    fn without_a_host_every_address_of_either_family_is_meant() {
        let found = |text| addresses(text).map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(found(AGENT).unwrap(), [AGENT]);
        assert_eq!(found("[::1]:9791").unwrap(), ["[::1]:9791"]);
        assert_eq!(found(":9791").unwrap(), ["[::]:9791", "0.0.0.0:9791"]);
        for text in ["", ":", "here", "9791", ":70000", "::1:9791", "localhost:9791"] {
            assert!(found(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_browser_gets_a_whole_answer_and_who_says_nothing_is_let_go() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        serve(vec![free], Arc::new(Patient)).unwrap();
        let began = Instant::now();
        let connect = || loop {
            match TcpStream::connect(free) {
                Ok(stream) => return stream,
                Err(error) => assert!(began.elapsed() < Duration::from_secs(20), "{error}"),
            }
        };
        let silent: Vec<TcpStream> = (0..MOST + 4).map(|_| connect()).collect();
        let mut stream = connect();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert!(said.starts_with("HTTP/1.1 200 OK\r\n") && said.ends_with("\r\n\r\negret_x 1\n"), "{said}");
        drop(silent);
    }
}
