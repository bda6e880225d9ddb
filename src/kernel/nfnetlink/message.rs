//! Netfilter's netlink messages as bytes.
//!
//! In: what a request should say; bytes the kernel sent. Out: bytes; attributes. Never: touches a socket.

/// Length of `struct nlmsghdr` (linux/netlink.h).
const HEADER: usize = 16;
/// Length of `struct nfgenmsg` (linux/netfilter/nfnetlink.h).
const NFGEN: usize = 4;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x01;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// Ask for an answer even to a success.
pub(crate) const ACK: u16 = 0x04;
/// Ask for all objects.
pub(crate) const DUMP: u16 = 0x300;
/// Make it if it is not there.
pub(crate) const CREATE: u16 = 0x400;
/// And only then.
pub(crate) const EXCLUSIVE: u16 = 0x200;

/// One request: its kind, its family, and its attributes as the kernel reads them.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// A request of a subsystem (`NFNL_SUBSYS_*`) and message number, with flags such as [`DUMP`].
    pub(crate) fn new(subsystem: u16, message: u16, flags: u16, family: u8) -> Request {
        Request::raw(subsystem << 8 | message, flags, family, 0)
    }

    /// The same with the whole type and `nfgenmsg.res_id`.
    pub(super) fn raw(kind: u16, flags: u16, family: u8, resource: u16) -> Request {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&[family, 0]);
        bytes.extend_from_slice(&resource.to_be_bytes());
        Request { bytes }
    }

    /// Adds one attribute.
    pub(crate) fn put(&mut self, kind: u16, value: &[u8]) -> &mut Request {
        self.attribute(kind, |bytes| bytes.extend_from_slice(value));
        self
    }

    /// Adds a text with its closing NUL.
    pub(crate) fn put_text(&mut self, kind: u16, text: &str) -> &mut Request {
        self.attribute(kind, |bytes| {
            bytes.extend_from_slice(text.as_bytes());
            bytes.push(0);
        });
        self
    }

    /// Adds a number in network order, as netfilter wants nearly all of them.
    pub(crate) fn put_u32(&mut self, kind: u16, value: u32) -> &mut Request {
        self.put(kind, &value.to_be_bytes())
    }

    /// Adds an attribute that holds attributes.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Request)) -> &mut Request {
        const NLA_F_NESTED: u16 = 0x8000;
        let start = self.bytes.len();
        self.put(kind | NLA_F_NESTED, &[]);
        fill(self);
        self.close(start);
        self
    }

    /// Adds an attribute that holds these attributes, as they were read.
    pub(crate) fn put_nested(&mut self, kind: u16, attributes: &[u8]) -> &mut Request {
        self.nest(kind, |request| request.bytes.extend_from_slice(attributes))
    }

    /// Asks for an answer even if the kernel has no complaint.
    pub(crate) fn acknowledged(&mut self) {
        self.bytes[6] |= 0x04;
    }

    /// How long it is.
    pub(super) fn length(&self) -> usize {
        self.bytes.len()
    }

    fn attribute(&mut self, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        fill(&mut self.bytes);
        self.close(start);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn close(&mut self, start: usize) {
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// The bytes to send.
    pub(super) fn finish(&mut self, sequence: u32) -> &[u8] {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        &self.bytes
    }
}

/// Attributes in a run of bytes: number (flags cut off) and content. Ends at the first malformed one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Attributes<'a> {
    /// The content of one attribute.
    pub(crate) fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.into_iter().find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    /// The attributes inside an attribute; none if it is missing.
    pub(crate) fn inside(self, kind: u16) -> Attributes<'a> {
        Attributes(self.get(kind).unwrap_or_default())
    }

    /// A number in network order.
    pub(crate) fn u32(self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    /// A text up to its NUL.
    pub(crate) fn text(self, kind: u16) -> Option<&'a str> {
        let bytes = self.get(kind)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        std::str::from_utf8(&bytes[..end]).ok()
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(read_u16(self.0, 0)?);
        let kind = read_u16(self.0, 2)? & 0x3fff;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// One object of a dump, or the answer to a question.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reply<'a> {
    /// The family its `nfgenmsg` names.
    pub(crate) family: u8,
    /// What it says.
    pub(crate) attributes: Attributes<'a>,
}

/// One message from the kernel.
pub(super) struct Message<'a> {
    kind: u16,
    flags: u16,
    pub(super) sequence: u32,
    payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// Whether objects changed while they were listed.
    pub(super) fn interrupted(&self) -> bool {
        self.flags & NLM_F_DUMP_INTR != 0
    }

    /// Error number (0: success) and the kernel's words, if this ends a conversation.
    pub(super) fn outcome(&self) -> Option<(i32, Option<String>)> {
        if self.kind != NLMSG_ERROR && self.kind != NLMSG_DONE {
            return None;
        }
        let errno = read_u32(self.payload, 0).map_or(0, |code| code.cast_signed().wrapping_neg());
        let attributes = match self.kind {
            NLMSG_ERROR => self.payload.get(4 + HEADER..),
            _ => self.payload.get(4..),
        };
        let words = attributes
            .filter(|_| self.flags & NLM_F_ACK_TLVS != 0)
            .and_then(|bytes| Attributes(bytes).text(NLMSGERR_ATTR_MSG))
            .map(str::to_owned);
        Some((errno, words))
    }

    /// The object it tells of.
    pub(super) fn reply(&self) -> Reply<'a> {
        Reply {
            family: self.payload.first().copied().unwrap_or(0),
            attributes: Attributes(self.payload.get(NFGEN..).unwrap_or_default()),
        }
    }
}

/// The messages of one read.
pub(super) struct Messages<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = read_u32(self.0, 0)? as usize;
        let message = Message {
            kind: read_u16(self.0, 4)?,
            flags: read_u16(self.0, 6)?,
            sequence: read_u32(self.0, 8)?,
            payload: self.0.get(HEADER..length)?,
        };
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    }
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let mut request = Request::new(10, 12, CREATE, 1);
        request.put_text(1, "egret").nest(3, |list| {
            list.put_u32(7, 0x0102_0304).put(8, &[1, 2, 3]);
        });
        request.finish(9);

        let messages: Vec<Message<'_>> = Messages(&request.bytes).collect();
        assert_eq!(messages.len(), 1);
        assert_eq!((messages[0].kind, messages[0].sequence), (0x0a0c, 9));
        let reply = messages[0].reply();
        assert_eq!(reply.family, 1);
        assert_eq!(reply.attributes.text(1), Some("egret"));
        assert_eq!(reply.attributes.inside(3).u32(7), Some(0x0102_0304));
        assert_eq!(reply.attributes.inside(3).get(8), Some(&[1u8, 2, 3][..]));
        assert_eq!(reply.attributes.get(2), None);
    }

    #[test]
    fn cut_off_bytes_end_the_attributes_instead_of_the_program() {
        let mut request = Request::new(10, 12, 0, 1);
        request.put_text(1, "egret").put_u32(2, 7);
        let bytes = request.finish(1).to_vec();
        for end in 0..bytes.len() {
            let _ = Messages(&bytes[..end]).map(|message| message.reply().attributes.count()).sum::<usize>();
            let _ = Attributes(&bytes[HEADER + NFGEN..end.max(HEADER + NFGEN)]).count();
        }
        assert_eq!(Attributes(&[0, 0, 1, 0]).count(), 0, "a length of 0 must not loop");
    }
}
