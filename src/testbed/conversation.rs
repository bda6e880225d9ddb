//! What the outside says on one TCP connection, as a value: bytes in, bytes out.
//!
//! Two tongues. *Lines*: the caller's address on connect; then `send N` (N bytes come back), `take N` (N bytes are
//! swallowed, then a line says so), and any other line is answered with the caller's address before it. *HTTP*: `GET /`
//! gives the caller's address, `GET /bytes/N` gives N bytes, a body is swallowed. Never: touches a socket.

use std::collections::VecDeque;
use std::net::IpAddr;

/// What is sent in bulk: any bytes will do, these are easy to spot in a capture.
static FILLING: [u8; 65536] = [b'.'; 65536];
/// Longest line or head that is kept, bytes.
const LONGEST: usize = 16384;

/// Which protocol a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tongue {
    Lines,
    Http,
}

/// Something still to be said.
#[derive(Debug)]
enum Piece {
    Words(Vec<u8>, usize),
    Filling(u64),
}

/// One connection.
#[derive(Debug)]
pub(super) struct Conversation {
    tongue: Tongue,
    caller: IpAddr,
    heard: Vec<u8>,
    to_say: VecDeque<Piece>,
    to_swallow: u64,
    after_swallowing: Option<Vec<u8>>,
    over: bool,
}

impl Conversation {
    pub(super) fn new(tongue: Tongue, caller: IpAddr) -> Conversation {
        let caller = caller.to_canonical();
        let to_say = VecDeque::new();
        let mut talk = Conversation {
            tongue,
            caller,
            heard: Vec::new(),
            to_say,
            to_swallow: 0,
            after_swallowing: None,
            over: false,
        };
        if tongue == Tongue::Lines {
            talk.say(format!("{caller}\n"));
        }
        talk
    }

    /// Takes bytes that came in.
    pub(super) fn hear(&mut self, bytes: &[u8]) {
        self.heard.extend_from_slice(bytes);
        let end: &[u8] = if self.tongue == Tongue::Lines { b"\n" } else { b"\r\n\r\n" };
        loop {
            let swallowed = usize::try_from(self.to_swallow).unwrap_or(usize::MAX).min(self.heard.len());
            self.heard.drain(..swallowed);
            self.to_swallow -= swallowed as u64;
            if self.to_swallow == 0
                && let Some(words) = self.after_swallowing.take()
            {
                self.to_say.push_back(Piece::Words(words, 0));
                self.over = self.tongue == Tongue::Http;
            }
            let Some(at) = self.heard.windows(end.len()).position(|w| w == end) else {
                self.over |= self.heard.len() > LONGEST;
                return;
            };
            let head = String::from_utf8_lossy(&self.heard[..at]).into_owned();
            self.heard.drain(..at + end.len());
            match self.tongue {
                Tongue::Lines => self.answer_line(head.trim_end()),
                Tongue::Http => self.answer_http(&head),
            }
        }
    }

    fn answer_line(&mut self, line: &str) {
        let amount = |word: &str| line.strip_prefix(word)?.trim().parse::<u64>().ok();
        if let Some(n) = amount("send ") {
            self.to_say.push_back(Piece::Filling(n));
        } else if let Some(n) = amount("take ") {
            self.to_swallow = n;
            self.after_swallowing = Some(format!("{} took {n}\n", self.caller).into_bytes());
        } else {
            self.say(format!("{} {line}\n", self.caller));
        }
    }

    fn answer_http(&mut self, head: &str) {
        let mut lines = head.lines();
        let path = lines.next().and_then(|l| l.split(' ').nth(1)).unwrap_or("/").to_owned();
        let header = |name: &str| {
            let mut fields = lines.clone().filter_map(|l| l.split_once(':'));
            fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
        };
        if header("expect").is_some() {
            self.say("HTTP/1.1 100 Continue\r\n\r\n".to_owned());
        }
        let body = header("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
        let bulk = path.strip_prefix("/bytes/").and_then(|n| n.parse::<u64>().ok());
        let words = format!("{}\n", self.caller);
        let length = bulk.unwrap_or(words.len() as u64);
        let mut reply = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        if let Some(n) = bulk {
            self.say(reply);
            self.to_say.push_back(Piece::Filling(n));
            self.over = true;
            return;
        }
        reply += &words;
        self.to_swallow = body;
        self.after_swallowing = Some(reply.into_bytes());
    }

    fn say(&mut self, words: String) {
        self.to_say.push_back(Piece::Words(words.into_bytes(), 0));
    }

    /// The next bytes to send; empty when there is nothing to say now.
    pub(super) fn next_words(&self) -> &[u8] {
        match self.to_say.front() {
            None => &[],
            Some(Piece::Words(words, said)) => &words[*said..],
            Some(Piece::Filling(left)) => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(FILLING.len());
                &FILLING[..n]
            }
        }
    }

    /// `count` of the next bytes were sent.
    pub(super) fn said(&mut self, count: usize) {
        let finished = match self.to_say.front_mut() {
            None => return,
            Some(Piece::Words(words, said)) => {
                *said += count;
                *said >= words.len()
            }
            Some(Piece::Filling(left)) => {
                *left = left.saturating_sub(count as u64);
                *left == 0
            }
        };
        if finished {
            self.to_say.pop_front();
        }
    }

    /// Whether all was said and the connection should be closed from this side.
    pub(super) fn is_over(&self) -> bool {
        self.over && self.to_say.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything(talk: &mut Conversation) -> String {
        let mut all = Vec::new();
        while !talk.next_words().is_empty() {
            all.extend_from_slice(talk.next_words());
            let n = talk.next_words().len();
            talk.said(n);
        }
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn each_line_is_answered_with_the_callers_address() {
        let mut talk = Conversation::new(Tongue::Lines, "::ffff:10.60.1.2".parse().unwrap());
        talk.hear(b"one\ntw");
        talk.hear(b"o\n");
        assert_eq!(everything(&mut talk), "10.60.1.2\n10.60.1.2 one\n10.60.1.2 two\n");
    }

    #[test]
    fn bulk_goes_both_ways_and_keeps_its_place() {
        let mut talk = Conversation::new(Tongue::Lines, "2001:db8::1".parse().unwrap());
        everything(&mut talk);
        talk.hear(b"send 5\ntake 3\nabcdone\n");
        assert_eq!(everything(&mut talk), ".....2001:db8::1 took 3\n2001:db8::1 done\n");
    }

    #[test]
    fn http_gives_the_address_after_the_body_and_closes() {
        let mut talk = Conversation::new(Tongue::Http, "10.10.10.0".parse().unwrap());
        talk.hear(b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nab");
        assert!(!talk.is_over());
        talk.hear(b"cd");
        let reply = everything(&mut talk);
        assert!(reply.ends_with("Content-Length: 11\r\nConnection: close\r\n\r\n10.10.10.0\n"), "{reply}");
        assert!(talk.is_over());
    }

    #[test]
    fn http_sends_bulk() {
        let mut talk = Conversation::new(Tongue::Http, "10.10.10.0".parse().unwrap());
        talk.hear(b"GET /bytes/70000 HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(everything(&mut talk).ends_with(&".".repeat(70000)));
    }

    proptest::proptest! {
        #[test]
        fn how_the_words_are_cut_does_not_change_the_answer(cuts in proptest::collection::vec(0usize..60, 0..8)) {
            let said = b"one\nsend 7\ntake 9\n123456789two\nsend 70000\nlast\n";
            let whole = {
                let mut talk = Conversation::new(Tongue::Lines, "10.0.0.1".parse().unwrap());
                talk.hear(said);
                everything(&mut talk)
            };
            let mut talk = Conversation::new(Tongue::Lines, "10.0.0.1".parse().unwrap());
            let mut at = 0;
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(said.len())).collect();
            cuts.sort_unstable();
            for cut in cuts.into_iter().chain([said.len()]) {
                talk.hear(&said[at..cut]);
                at = cut;
            }
            proptest::prop_assert_eq!(everything(&mut talk), whole);
        }
    }
}
