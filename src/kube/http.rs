//! HTTP/1.1 (RFC 9112), as far as a client of an API server needs it.
//!
//! In: a stream of bytes. Out: a response's status and its body, whole or as a reader. Knows nothing of TLS or Kubernetes, so that
//! it can be tried with bytes typed by hand.

use std::io::{self, BufRead, Read};

/// Longest line of a head, and most lines: an API server writes a few hundred bytes.
const LONGEST_LINE: u64 = 64 * 1024;
const MOST_LINES: usize = 256;

/// The first lines of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) framing: Framing,
    /// Whether the connection may be used again when the body is read.
    pub(super) keep: bool,
    /// Seconds to wait before the next try, where the server says so.
    pub(super) retry_after: Option<u64>,
}

/// Where a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
    UntilClosed,
}

/// A request's bytes.
pub(super) fn request(verb: &str, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Vec<u8> {
    let mut text = format!("{verb} {path} HTTP/1.1\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    if let Some(body) = body {
        text += &format!("content-length: {}\r\n", body.len());
    }
    text += "\r\n";
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body.unwrap_or_default());
    bytes
}

/// Reads a head. Interim responses (1xx) are passed over.
pub(super) fn head(reader: &mut impl BufRead) -> io::Result<Head> {
    loop {
        let head = one_head(reader)?;
        if head.status >= 200 {
            return Ok(head);
        }
    }
}

fn one_head(reader: &mut impl BufRead) -> io::Result<Head> {
    let first = line(reader)?;
    let mut words = first.split(' ');
    let version = words.next().unwrap_or_default();
    let status = words.next().and_then(|word| word.parse().ok());
    let (true, Some(status)) = (version.starts_with("HTTP/1."), status) else {
        return Err(odd(format!("its first line is `{}`", first.escape_debug())));
    };
    let bodiless = status < 200 || status == 204 || status == 304;
    let mut head =
        Head { status, framing: Framing::UntilClosed, keep: version != "HTTP/1.0", retry_after: None };
    for _ in 0..MOST_LINES {
        let text = line(reader)?;
        if text.is_empty() {
            if bodiless {
                head.framing = Framing::Length(0);
            }
            head.keep &= head.framing != Framing::UntilClosed;
            return Ok(head);
        }
        let (name, value) = text.split_once(':').unwrap_or((&text, ""));
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" if head.framing != Framing::Chunked => {
                let length = value.parse().map_err(|_| odd(format!("its content-length is `{value}`")))?;
                head.framing = Framing::Length(length);
            }
            "transfer-encoding" if value.eq_ignore_ascii_case("chunked") => head.framing = Framing::Chunked,
            "transfer-encoding" => return Err(odd(format!("its transfer-encoding is `{value}`"))),
            "connection" if value.eq_ignore_ascii_case("close") => head.keep = false,
            "retry-after" => head.retry_after = value.parse().ok(),
            _ => {}
        }
    }
    Err(odd("its head has no end".to_owned()))
}

fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut bytes = Vec::new();
    reader.take(LONGEST_LINE).read_until(b'\n', &mut bytes)?;
    if bytes.pop() != Some(b'\n') {
        return Err(if bytes.is_empty() {
            io::ErrorKind::UnexpectedEof.into()
        } else {
            odd("a line of its head has no end".to_owned())
        });
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    String::from_utf8(bytes).map_err(|_| odd("its head is no text".to_owned()))
}

/// A body, read as it comes.
#[derive(Debug)]
pub(super) struct Body<R> {
    pub(super) reader: R,
    framing: Framing,
    /// Of the chunk, or of the whole.
    left: u64,
    begun: bool,
    ended: bool,
}

impl<R: BufRead> Body<R> {
    pub(super) fn new(reader: R, framing: Framing) -> Body<R> {
        let left = if let Framing::Length(length) = framing { length } else { 0 };
        Body { reader, framing, left, begun: false, ended: framing == Framing::Length(0) }
    }

    /// The next chunk's length; the lines between chunks are read.
    fn next_chunk(&mut self) -> io::Result<()> {
        if self.begun && !line(&mut self.reader)?.is_empty() {
            return Err(odd("a chunk of its body is longer than it said".to_owned()));
        }
        self.begun = true;
        let size = line(&mut self.reader)?;
        let digits = size.split(';').next().unwrap_or_default().trim();
        self.left = u64::from_str_radix(digits, 16)
            .map_err(|_| odd(format!("a chunk's length is `{}`", size.escape_debug())))?;
        if self.left == 0 {
            while !line(&mut self.reader)?.is_empty() {}
            self.ended = true;
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Body<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        if self.framing == Framing::Chunked && self.left == 0 {
            self.next_chunk()?;
            if self.ended {
                return Ok(0);
            }
        }
        if self.framing == Framing::UntilClosed {
            return self.reader.read(buffer);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.reader.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        self.ended = self.left == 0 && self.framing != Framing::Chunked;
        Ok(count)
    }
}

/// What does not look like HTTP.
fn odd(why: String) -> io::Error {
    io::Error::other(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(bytes: &str) -> (Head, io::Result<String>) {
        let mut reader = bytes.as_bytes();
        let head = head(&mut reader).unwrap();
        let mut text = String::new();
        let read = Body::new(reader, head.framing).read_to_string(&mut text).map(|_| text);
        (head, read)
    }

    #[test]
    fn a_body_ends_where_its_head_says() {
        let (head, body) = answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhellomore");
        assert_eq!((head.status, head.keep, body.unwrap().as_str()), (200, true, "hello"));
        let (head, body) = answer(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nT: x\r\n\r\n",
        );
        assert_eq!((head.keep, body.unwrap().as_str()), (true, "abc0123456789"));
        let (head, body) = answer("HTTP/1.1 503 No\r\nRetry-After: 2\r\nConnection: close\r\n\r\nall");
        assert_eq!((head.keep, head.retry_after, body.unwrap().as_str()), (false, Some(2), "all"));
        let (head, body) = answer("HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!((head.framing, body.unwrap().as_str()), (Framing::Length(0), ""));
    }

    #[test]
    fn a_body_that_is_cut_off_is_an_error_and_not_a_short_body() {
        for cut in ["Content-Length: 5\r\n\r\nhell", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"] {
            let (_, body) = answer(&format!("HTTP/1.1 200 OK\r\n{cut}"));
            assert_eq!(body.unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{cut}");
        }
        for odd in ["SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "HTTP/1.1 200"]
        {
            assert!(head(&mut odd.as_bytes()).is_err(), "{odd}");
        }
    }
}
