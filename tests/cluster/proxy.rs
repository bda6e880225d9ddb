//! A proxy of our own between a client and the API server, which does to its connections what networks and servers do: cuts, delays,
//! refusals, silence. It ends TLS with a certificate that the test made, and asks the real server by way of `kubectl proxy`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use egret::kube::Access;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::server::kubectl;

/// Where it listens: the server's own, which a node reaches, too.
pub(crate) const ADDRESS: &str = "172.31.0.254";

type Tls = StreamOwned<ServerConnection, TcpStream>;

/// What happens to a request.
#[derive(Clone)]
pub(crate) enum Fate {
    /// Nothing.
    Pass,
    /// The real server never hears of it: this status and body.
    Answer(u16, String),
    /// Each byte of the answer comes so much later.
    Lag(Duration),
    /// The answer ends in the middle of something, after so long at most.
    Cut(Duration),
    /// Nobody answers, and nobody hangs up.
    Silence,
}

/// The server's way to say no.
pub(crate) fn refusal(code: u16, reason: &str, message: &str) -> Fate {
    let status = serde_json::json!({"kind": "Status", "code": code, "reason": reason, "message": message});
    Fate::Answer(code, status.to_string())
}

type Judge = Box<dyn Fn(&str) -> Fate + Send + Sync>;

/// One that stands until the process ends.
pub(crate) struct Proxy {
    judge: Mutex<Judge>,
    asked: Mutex<Vec<String>>,
    kubeconfig: std::path::PathBuf,
    tls: Mutex<Arc<ServerConfig>>,
}

impl Proxy {
    /// In the network of the server, where the calling thread must be.
    pub(crate) fn start() -> Arc<Proxy> {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let upstream = upstream();
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("egret-proxy-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        certify(&folder);
        let listener = TcpListener::bind((ADDRESS, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let kubeconfig = folder.join("config");
        let text = format!(
            "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}],\n\
             clusters: [{{name: c, cluster: {{server: \"https://{ADDRESS}:{port}\", certificate-authority: \"{0}/ca.pem\"}}}}],\n\
             users: [{{name: u, user: {{token: none}}}}]}}\n",
            folder.display()
        );
        std::fs::write(&kubeconfig, text).unwrap();
        let proxy = Arc::new(Proxy {
            judge: Mutex::new(Box::new(|_| Fate::Pass)),
            asked: Mutex::default(),
            kubeconfig,
            tls: Mutex::new(tls(&folder)),
        });
        let own = proxy.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let own = own.clone();
                let tls = own.tls.lock().unwrap().clone();
                std::thread::spawn(move || {
                    let session = ServerConnection::new(tls).unwrap();
                    // What breaks here, breaks for the client.
                    let _ = own.serve(StreamOwned::new(session, socket), upstream);
                });
            }
        });
        proxy
    }

    /// The way to it.
    pub(crate) fn access(&self) -> Access {
        Access::from_file(&self.kubeconfig, None).unwrap()
    }

    /// The same for another process.
    pub(crate) fn kubeconfig(&self) -> &std::path::Path {
        &self.kubeconfig
    }

    /// The authority's certificate, as its clients have it.
    pub(crate) fn authority(&self) -> std::path::PathBuf {
        self.kubeconfig.with_file_name("ca.pem")
    }

    /// From now on it has another authority's certificate: that authority's own, which no client has yet.
    pub(crate) fn recertify(&self) -> Vec<u8> {
        let folder = self.kubeconfig.with_file_name("next");
        std::fs::create_dir_all(&folder).unwrap();
        certify(&folder);
        *self.tls.lock().unwrap() = tls(&folder);
        std::fs::read(folder.join("ca.pem")).unwrap()
    }

    /// From now on requests (`GET /path?query`) meet this fate.
    pub(crate) fn judge(&self, judge: impl Fn(&str) -> Fate + Send + Sync + 'static) {
        *self.judge.lock().unwrap() = Box::new(judge);
    }

    /// How many requests with this part were made until now.
    pub(crate) fn asked(&self, part: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|line| line.contains(part)).count()
    }

    /// All requests until now.
    pub(crate) fn asked_for(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// How many lists of this collection. Whether the server has come to a version is asked by one object, and is none.
    pub(crate) fn listed(&self, collection: &str) -> usize {
        let (of_it, asked) = (format!("GET {collection}?"), self.asked.lock().unwrap());
        let is_list = |line: &&String| !line.contains("watch=1") && !line.contains("?limit=1&");
        asked.iter().filter(|line| line.starts_with(&of_it)).filter(is_list).count()
    }

    fn serve(&self, mut client: Tls, upstream: u16) -> io::Result<()> {
        let (line, request) = request(&mut client)?;
        self.asked.lock().unwrap().push(line.clone());
        let fate = (self.judge.lock().unwrap())(&line);
        let (lag, cut) = match fate {
            Fate::Pass => (Duration::ZERO, None),
            Fate::Lag(lag) => (lag, None),
            Fate::Cut(after) => (Duration::ZERO, Some(Instant::now() + after)),
            Fate::Silence => {
                std::thread::sleep(Duration::from_secs(60));
                return Ok(());
            }
            Fate::Answer(status, body) => {
                let length = body.len();
                write!(
                    client,
                    "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
                )?;
                client.conn.send_close_notify();
                return client.flush();
            }
        };
        let mut server = TcpStream::connect(("127.0.0.1", upstream))?;
        server.write_all(&request)?;
        relay(&mut server, &mut client, lag, cut)
    }
}

/// One request, with `connection: close` in it: so each has a connection of its own.
fn request(client: &mut Tls) -> io::Result<(String, Vec<u8>)> {
    let mut reader = BufReader::new(client);
    let (mut head, mut length) = (Vec::new(), 0);
    let mut first = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if first.is_empty() {
            first = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
        }
        if line == "\r\n" {
            head.extend_from_slice(b"connection: close\r\n\r\n");
            break;
        }
        let low = line.to_ascii_lowercase();
        if let Some(value) = low.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if !low.starts_with("host:") && !low.starts_with("authorization:") {
            head.extend_from_slice(line.as_bytes());
        } else if low.starts_with("host:") {
            head.extend_from_slice(b"host: localhost\r\n");
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    head.extend_from_slice(&body);
    Ok((first, head))
}

fn relay(server: &mut TcpStream, client: &mut Tls, lag: Duration, cut: Option<Instant>) -> io::Result<()> {
    server.set_read_timeout(Some(Duration::from_millis(10)))?;
    let mut waiting: std::collections::VecDeque<(Instant, Vec<u8>)> = Default::default();
    let mut buffer = vec![0; 16 << 10];
    let mut ended = false;
    loop {
        if !ended {
            match server.read(&mut buffer) {
                Ok(0) => ended = true,
                Ok(count) => waiting.push_back((Instant::now() + lag, buffer[..count].to_vec())),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                }
                Err(error) => return Err(error),
            }
        } else {
            std::thread::sleep(Duration::from_millis(5));
        }
        while waiting.front().is_some_and(|(due, _)| *due <= Instant::now()) {
            let (_, bytes) = waiting.pop_front().unwrap();
            if cut.is_some_and(|at| Instant::now() > at) {
                // Half of what came, and then nothing: the client sees a line without an end.
                client.write_all(&bytes[..bytes.len() / 2])?;
                client.flush()?;
                return client.sock.shutdown(std::net::Shutdown::Both);
            }
            client.write_all(&bytes)?;
            client.flush()?;
        }
        if ended && waiting.is_empty() {
            client.conn.send_close_notify();
            return client.flush();
        }
    }
}

/// A port where requests need neither TLS nor a name.
fn upstream() -> u16 {
    static PORT: OnceLock<u16> = OnceLock::new();
    *PORT.get_or_init(|| {
        let port = 18_001;
        let (arguments, number) = (["proxy", "--address=127.0.0.1", "--port"], port.to_string());
        std::thread::spawn(move || {
            let [a, b, c] = arguments;
            // Until the cluster ends.
            kubectl(&[a, b, c, &number], "");
        });
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(120), "kubectl proxy does not come up");
            std::thread::sleep(Duration::from_millis(50));
        }
        port
    })
}

/// `ca.pem`, and `cert.pem` and `key.pem` for its address.
fn certify(folder: &std::path::Path) {
    let curve = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    let script = format!(
        "openssl req -x509 {curve} -keyout ca.key -out ca.pem -subj /CN=ca && \
         openssl req -x509 {curve} -keyout key.pem -out cert.pem -subj /CN=proxy -CA ca.pem -CAkey ca.key \
         -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=IP:{ADDRESS}"
    );
    let output = Command::new("sh").args(["-ec", &script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn tls(folder: &std::path::Path) -> Arc<ServerConfig> {
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(folder.join("cert.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap())
}
