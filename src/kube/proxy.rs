//! A proxy on the way to an API server (`proxy-url` of a kubeconfig's cluster).
//!
//! In: the URL, and a connection to the proxy. Out: the same connection, as a tunnel to the server; TLS in it is between us and the server. The
//! proxy is spoken to in the clear, as every `http://` proxy is. Never: shows its password; takes a proxy from the environment.

use std::io::{self, BufReader, ErrorKind, Write};
use std::net::TcpStream;

use super::access::{host_and_port, host_with_port};
use super::base64;
use super::http;

/// How a proxy-url is written.
const FORM: &str = "write it as http://HOST:PORT or http://USER:PASSWORD@HOST:PORT";

/// One that is asked by CONNECT.
#[derive(Clone)]
pub struct Proxy {
    pub(super) host: String,
    pub(super) port: u16,
    /// The value of `Proxy-Authorization`.
    authorization: Option<String>,
}

impl Proxy {
    /// Of a `proxy-url`; else what is wrong with it, as the end of a sentence about the cluster.
    pub(super) fn read(url: &str) -> Result<Proxy, String> {
        // The URL itself may have a password in it, so it is not said.
        let unread = || format!("has a proxy-url that cannot be read; {FORM}");
        let (scheme, rest) = url.split_once("://").ok_or_else(unread)?;
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(format!(
                "has a proxy-url that begins with {scheme}://, and Egret asks only http:// proxies (by CONNECT); \
                 name one of those, or take proxy-url away where the server is reached without"
            ));
        }
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (user, place) =
            authority.rsplit_once('@').map_or((None, authority), |(user, place)| (Some(user), place));
        let (host, port) = host_and_port(place, 80).ok_or_else(unread)?;
        let authorization = match user {
            None => None,
            Some(user) => Some(basic(user).ok_or_else(|| {
                format!(
                    "has a proxy-url whose user or password has a `%` without two hexadecimal digits; {FORM}"
                )
            })?),
        };
        Ok(Proxy { host, port, authorization })
    }

    /// Asks for a tunnel to `target`, which is `host:port`. Who answers yes says nothing more until TLS has begun, so nothing that was read
    /// ahead is lost (RFC 9110, 9.3.6: whatever length the yes has, it has no body).
    pub(super) fn tunnel(&self, mut socket: &TcpStream, target: &str) -> io::Result<()> {
        let agent = concat!("egret/", env!("CARGO_PKG_VERSION"));
        let mut headers = vec![("host", target), ("user-agent", agent)];
        if let Some(value) = &self.authorization {
            headers.push(("proxy-authorization", value));
        }
        socket.write_all(&http::request("CONNECT", target, &headers, None))?;
        let status = http::head(&mut BufReader::new(socket))?.status;
        let why = match status {
            200..300 => return Ok(()),
            407 if self.authorization.is_none() => "it wants a user: write http://USER:PASSWORD@HOST:PORT",
            407 => "it does not know the user and password of proxy-url",
            403 | 405 => "it does not let us through to that server: allow CONNECT there",
            _ => "its log may say more",
        };
        Err(io::Error::other(format!("it answers CONNECT {target} with {status}; {why}")))
    }

    /// That it was the proxy, not the server.
    pub(super) fn blamed(&self, error: &io::Error) -> io::Error {
        let place = host_with_port(&self.host, self.port);
        let why = match error.kind() {
            ErrorKind::UnexpectedEof => "it hung up before it answered".to_owned(),
            _ => error.to_string(),
        };
        io::Error::new(error.kind(), format!("the proxy http://{place}: {why}"))
    }
}

/// `user:password`, percent-encoded as a URL has it, as RFC 7617 wants it.
fn basic(user: &str) -> Option<String> {
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let plain = [decoded(user)?, decoded(password)?].join(&b':');
    Some(format!("Basic {}", base64::encode(&plain)))
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, Read};
    use std::net::TcpListener;

    use super::*;

    fn read(url: &str) -> String {
        match Proxy::read(url) {
            Ok(proxy) => format!("{} {} {}", proxy.host, proxy.port, proxy.authorization.unwrap_or_default()),
            Err(why) => why,
        }
    }

    #[test]
    fn a_proxy_url_is_read_as_a_url() {
        assert_eq!(read("http://proxy.example:3128"), "proxy.example 3128 ");
        assert_eq!(read("HTTP://10.0.0.1/"), "10.0.0.1 80 ");
        assert_eq!(read("http://[fd00::1]:8080"), "fd00::1 8080 ");
        // As in RFC 7617: `Aladdin`, `open sesame`.
        assert_eq!(read("http://Aladdin:open%20sesame@p:1"), "p 1 Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        // The last `@` ends the user; a user alone has an empty password.
        assert_eq!(read("http://a@b@p"), format!("p 80 Basic {}", base64::encode(b"a@b:")));
        assert_eq!(read("http://u:%C3%A9%3a@p"), format!("p 80 Basic {}", base64::encode("u:é:".as_bytes())));
    }

    #[test]
    fn what_is_not_served_is_said_without_the_password() {
        for (url, sentence) in [
            (
                "socks5://u:secret@p:1080",
                "begins with socks5://, and Egret asks only http:// proxies (by CONNECT)",
            ),
            ("https://u:secret@p", "begins with https://, and Egret asks only http:// proxies (by CONNECT)"),
            ("u:secret@p:3128", "cannot be read; write it as http://HOST:PORT"),
            ("http://u:secret@", "cannot be read; write it as http://HOST:PORT"),
            ("http://u:secret@p:x", "cannot be read; write it as http://HOST:PORT"),
            ("http://u:secret%2@p", "a `%` without two hexadecimal digits"),
            ("http://u:secret%é@p", "a `%` without two hexadecimal digits"),
            ("http://u:secret%+1@p", "a `%` without two hexadecimal digits"),
        ] {
            let said = read(url);
            assert!(said.contains(sentence) && !said.contains("secret"), "{url}: {said}");
        }
    }

    /// What a proxy was asked that answers this, and what came of it.
    fn asked(url: &str, answer: &'static str) -> (String, Result<String, String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap();
        let heard = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let lines = BufReader::new(socket.try_clone().unwrap()).lines().map(Result::unwrap);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            socket.write_all(answer.as_bytes()).unwrap();
            // What follows a yes is the tunnel's; it comes after we were spoken to in it.
            if answer.ends_with("\r\n\r\n") && socket.read_exact(&mut [0; 4]).is_ok() {
                socket.write_all(b"pong").unwrap();
            }
            head.join("\n")
        });
        let proxy = Proxy::read(&url.replace("HERE", &place.to_string())).unwrap();
        let mut socket = TcpStream::connect(place).unwrap();
        let came = proxy.tunnel(&socket, "[fd00::1]:6443").and_then(|()| {
            let mut said = String::new();
            socket.write_all(b"ping")?;
            socket.read_to_string(&mut said).map(|_| said)
        });
        drop(socket);
        (
            heard.join().unwrap(),
            came.map_err(|e| proxy.blamed(&e).to_string().replace(&place.to_string(), "HERE")),
        )
    }

    #[test]
    fn a_tunnel_is_asked_for_and_what_follows_is_the_servers() {
        let (head, came) = asked("http://HERE", "HTTP/1.1 200 Connection established\r\n\r\n");
        assert_eq!(came.as_deref(), Ok("pong"));
        let agent = env!("CARGO_PKG_VERSION");
        let plain =
            format!("CONNECT [fd00::1]:6443 HTTP/1.1\nhost: [fd00::1]:6443\nuser-agent: egret/{agent}");
        assert_eq!(head, plain);
        let (head, came) = asked("http://u:p@HERE", "HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\n");
        assert_eq!(
            (head, came.as_deref()),
            (format!("{plain}\nproxy-authorization: Basic dTpw"), Ok("pong"))
        );
    }

    #[test]
    fn a_proxy_that_says_no_is_named_with_what_to_do() {
        for (url, answer, sentence) in [
            (
                "http://HERE",
                "HTTP/1.1 407 No\r\n\r\n",
                "with 407; it wants a user: write http://USER:PASSWORD@HOST:PORT",
            ),
            (
                "http://u:p@HERE",
                "HTTP/1.1 407 No\r\n\r\n",
                "with 407; it does not know the user and password",
            ),
            (
                "http://HERE",
                "HTTP/1.1 403 No\r\n\r\nno",
                "with 403; it does not let us through to that server",
            ),
            ("http://HERE", "HTTP/1.1 502 Bad\r\n\r\n", "it answers CONNECT [fd00::1]:6443 with 502"),
            ("http://HERE", "SSH-2.0-OpenSSH_9.2\r\n", "its first line is `SSH-2.0-OpenSSH_9.2`"),
            ("http://HERE", "HTTP/1.1 200", "a line of its head has no end"),
        ] {
            let error = asked(url, answer).1.unwrap_err();
            assert!(error.starts_with("the proxy http://HERE: ") && error.contains(sentence), "{error}");
        }
    }
}
