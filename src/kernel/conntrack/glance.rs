//! The entries as text (`/proc/net/nf_conntrack`), to prove that none is meant: the kernel goes through what is empty without a lock,
//! so that among few entries this is 0.3 ms where a listing is 10.6. Each entry costs 4 µs, of a listing 1 µs.
//!
//! In: how many entries there are, and which are meant. Out: whether one is. Never: changes anything, or believes what it cannot read.

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::sync::OnceLock;

use super::Flow;

/// So many entries take half of a listing's time.
const FEW: u32 = 1_000;
/// Before, each page of the text was looked for by counting from the beginning, so that one entry that ended hid another.
const TELLS_ALL: (u32, u32) = (6, 3);

/// Whether this namespace has no entry that is meant. `false` also where it cannot be told, or not soon.
pub(super) fn proves_none(entries: Option<u32>, meant: impl Fn(&Flow) -> bool) -> bool {
    if entries.is_none_or(|entries| entries > FEW) || !tells_all() {
        return false;
    }
    let mut text = String::new();
    // Of the thread, whose namespace may be another than its process's.
    let read = File::open("/proc/thread-self/net/nf_conntrack").and_then(|mut f| f.read_to_string(&mut text));
    read.is_ok() && none_in(&text, meant)
}

fn none_in(text: &str, meant: impl Fn(&Flow) -> bool) -> bool {
    text.lines().all(|line| flow(line).is_some_and(|flow| !meant(&flow)))
}

/// One line, as `ct_seq_show` of net/netfilter/nf_conntrack_standalone.c writes it.
fn flow(line: &str) -> Option<Flow> {
    const ESTABLISHED_TO_LAST_ACK: [&str; 4] = ["ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK"];
    let all = |name: &'static str| line.split_whitespace().filter_map(move |word| word.strip_prefix(name));
    let addresses = |name| all(name).map(|ip| ip.parse::<IpAddr>().ok());
    let (mut from, mut to) = (addresses("src="), addresses("dst="));
    let (source, answerer) = (from.next()??, from.next()??);
    let (_, answered) = (to.next()??, to.next()??);
    let tcp = line.split_whitespace().nth(2) == Some("tcp");
    Some(Flow {
        source,
        to: Some(answerer),
        mark: all("mark=").next().map_or(Some(0), |mark| mark.parse().ok())?,
        bare: answered == source,
        established_tcp: tcp && line.split_whitespace().any(|word| ESTABLISHED_TO_LAST_ACK.contains(&word)),
    })
}

fn tells_all() -> bool {
    static TOLD: OnceLock<bool> = OnceLock::new();
    *TOLD.get_or_init(|| {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        version(&release).is_some_and(|version| version >= TELLS_ALL)
    })
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "ipv4     2 tcp      6 431999 ESTABLISHED src=10.0.0.1 dst=10.96.0.1 sport=1 dport=80 \
        src=198.51.100.9 dst=10.0.0.1 sport=80 dport=1 [ASSURED] mark=2151678208 zone-orig=1 use=2";
    const UDP: &str = "ipv6     10 udp      17 29 src=fd00:0000:0000:0000:0000:0000:0000:0001 \
        dst=2001:0db8:0000:0000:0000:0000:0000:0001 sport=1 dport=2 packets=1 bytes=29 [UNREPLIED] \
        src=2001:0db8:0000:0000:0000:0000:0000:0001 dst=2001:0db8:0000:0000:0000:0000:0000:0002 sport=2 dport=1 \
        packets=0 bytes=0 mark=0 zone=0 use=2";

    #[test]
    fn a_line_says_of_a_flow_what_it_is_judged_by() {
        let tcp = Flow {
            source: [10, 0, 0, 1].into(),
            to: Some([198, 51, 100, 9].into()),
            mark: 0x8040_0100,
            bare: true,
            established_tcp: true,
        };
        let udp = Flow {
            source: "fd00::1".parse().unwrap(),
            to: Some("2001:db8::1".parse().unwrap()),
            mark: 0,
            bare: false,
            established_tcp: false,
        };
        assert_eq!((flow(TCP), flow(UDP)), (Some(tcp), Some(udp)));
        assert!(!flow(&TCP.replace("ESTABLISHED", "TIME_WAIT")).unwrap().established_tcp);
        assert!(!flow(&TCP.replace("tcp      6", "sctp     132")).unwrap().established_tcp);
    }

    #[test]
    fn what_cannot_be_read_proves_nothing() {
        let both = format!("{TCP}\n{UDP}\n");
        assert!(none_in("", |_| true) && none_in(&both, |_| false));
        assert!(!none_in(&both, |flow| flow.mark == 0));
        for (there, instead) in [("src=198.51.100.9", "src=?"), ("dst=10.0.0.1", ""), ("mark=2", "mark=x")] {
            assert!(!none_in(&both.replace(there, instead), |_| false), "{there}");
        }
        assert!(!proves_none(None, |_| false) && !proves_none(Some(FEW + 1), |_| false));
        let versions = ["6.3.0-rc1", "5.14.0-503.el9", "6.18.44", "?"].map(version);
        assert_eq!(versions, [Some((6, 3)), Some((5, 14)), Some((6, 18)), None]);
    }
}
