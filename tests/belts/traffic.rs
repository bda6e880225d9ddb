//! What clients send all the time: new and long flows by TCP, UDP and ICMP in both families.
//!
//! In: a client. Out: packets, whatever becomes of them; nobody waits for an answer longer than a moment.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use egret::addr::Family;
use egret::kernel::Netns;
use egret::testbed::{Outside, Pod};

const MOMENT: Duration = Duration::from_millis(25);

/// Long flows of one client.
pub(crate) struct Sender {
    pod: Pod,
    netns: Netns,
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpStream>,
}

impl Sender {
    /// Opens three long UDP flows and one long TCP flow in each family.
    pub(crate) fn open(pod: &Pod) -> Sender {
        let netns = Netns::open(pod.place().path()).unwrap();
        let mut pod = pod.clone();
        pod.patience = MOMENT;
        let mut sender = Sender { pod, netns, udp: Vec::new(), tcp: Vec::new() };
        for family in Family::BOTH {
            let long: Vec<_> = (0..3).map(|_| sender.datagrams(family)).collect();
            sender.udp.extend(long);
        }
        sender.reopen();
        sender
    }

    fn to(&self, family: Family) -> SocketAddr {
        (Outside::Near.address(family), self.pod.port()).into()
    }

    fn datagrams(&self, family: Family) -> UdpSocket {
        let any: IpAddr = if family == Family::V4 { [0; 4].into() } else { [0u16; 8].into() };
        let socket = self.netns.run(|| UdpSocket::bind((any, 0))).unwrap().unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }

    fn connect(&self, family: Family) -> Option<TcpStream> {
        let to = self.to(family);
        let stream = self.netns.run(|| TcpStream::connect_timeout(&to, MOMENT)).unwrap().ok()?;
        stream.set_nonblocking(true).ok()?;
        stream.set_nodelay(true).ok()?;
        Some(stream)
    }

    fn reopen(&mut self) {
        if self.tcp.len() < 2 {
            self.tcp = Family::BOTH.into_iter().filter_map(|family| self.connect(family)).collect();
        }
    }

    /// One round: something on every long flow, and a new flow of each kind.
    pub(crate) fn round(&mut self) {
        self.datagrams_on_long_flows();
        for family in Family::BOTH {
            let to = self.to(family);
            let _ = self.datagrams(family).send_to(b"new\n", to);
            drop(self.connect(family));
            let _ = self.pod.reaches(to.ip());
        }
        self.tcp.retain_mut(|stream| stream.write_all(b"ask\n").is_ok());
    }

    fn datagrams_on_long_flows(&self) {
        for family in Family::BOTH {
            let to = self.to(family);
            let own = self.udp.iter().filter(|s| s.local_addr().is_ok_and(|a| a.is_ipv4() == to.is_ipv4()));
            for socket in own {
                // The first send after an ICMP error reports that error and sends nothing.
                let _ = socket.send_to(b"ask\n", to).or_else(|_| socket.send_to(b"ask\n", to));
            }
        }
    }

    /// The same after a flow that broke was opened anew.
    pub(crate) fn lively_round(&mut self) {
        self.reopen();
        self.round();
    }
}

/// Traffic that goes on by itself until dropped.
pub(crate) struct Stream {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Stream {
    /// One thread per client.
    pub(crate) fn start(clients: &[Pod]) -> Stream {
        let stop = Arc::new(AtomicBool::new(false));
        let go = |pod: &Pod| {
            let (mut sender, stop) = (Sender::open(pod), stop.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    sender.lively_round();
                    std::thread::sleep(Duration::from_millis(5));
                }
            })
        };
        let threads = clients.iter().map(go).collect();
        Stream { stop, threads }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let joined = thread.join();
            assert!(joined.is_ok() || std::thread::panicking(), "traffic ended early");
        }
    }
}

/// Both ends of long connections of one client, its far ends on a port that no pod has, so that whatever comes there with a
/// forbidden source is found.
pub(crate) struct Meeting {
    ends: Vec<(TcpStream, TcpStream)>,
    datagrams: Vec<(UdpSocket, UdpSocket)>,
}

/// Patience of both ends with what comes for certain, or is a reset; on a busy machine that takes its time.
pub(crate) const WAIT: Duration = Duration::from_secs(30);

impl Meeting {
    /// A TCP connection and a UDP flow of this client in each family, used both ways once.
    pub(crate) fn arrange(pod: &Pod, outside: &Netns) -> Meeting {
        let netns = Netns::open(pod.place().path()).unwrap();
        let (mut ends, mut datagrams) = (Vec::new(), Vec::new());
        for family in Family::BOTH {
            let any: IpAddr = if family == Family::V4 { [0; 4].into() } else { [0u16; 8].into() };
            let at = Outside::Near.address(family);
            let listener = outside.run(|| TcpListener::bind((at, 0))).unwrap().unwrap();
            let to = listener.local_addr().unwrap();
            let near = netns.run(|| TcpStream::connect_timeout(&to, WAIT)).unwrap();
            let near = near.unwrap_or_else(|e| panic!("{} to {to}: {e}", pod.name));
            ends.push((near, listener.accept().unwrap().0));
            let far = outside.run(|| UdpSocket::bind((at, 0))).unwrap().unwrap();
            let near = netns.run(|| UdpSocket::bind((any, 0))).unwrap().unwrap();
            near.connect(far.local_addr().unwrap()).unwrap();
            far.set_read_timeout(Some(WAIT)).unwrap();
            near.set_read_timeout(Some(WAIT)).unwrap();
            near.send(b"hello").unwrap();
            let (_, from) = far.recv_from(&mut [0; 9]).unwrap();
            far.connect(from).unwrap();
            datagrams.push((near, far));
        }
        Meeting { ends, datagrams }
    }

    /// The far ends send something nobody asked for; the near ends then answer.
    pub(crate) fn server_speaks_first(&mut self) {
        for (_, far) in &mut self.ends {
            let _ = far.write_all(b"news");
        }
        for (near, far) in &self.datagrams {
            let _ = far.send(b"news");
            std::thread::sleep(Duration::from_millis(10));
            let _ = near.send(b"thanks");
        }
        std::thread::sleep(Duration::from_millis(60));
        for (near, _) in &mut self.ends {
            let _ = near.write_all(b"thanks");
        }
    }

    /// Connections that are dead now: reset at the far end.
    pub(crate) fn broken(&mut self) -> usize {
        let dead = |far: &mut TcpStream| {
            far.set_read_timeout(Some(WAIT)).unwrap();
            let mut answer = [0; 64];
            loop {
                match far.read(&mut answer) {
                    Ok(0) => return true,
                    Ok(n) if answer[..n].ends_with(b"thanks") => return false,
                    Ok(_) => {}
                    Err(_) => return true,
                }
            }
        };
        self.ends.iter_mut().filter_map(|(_, far)| dead(far).then_some(())).count()
    }

    /// The near ends close (FIN), or abort (RST).
    pub(crate) fn client_ends(self, abruptly: bool) -> Vec<TcpStream> {
        let end = |(near, far): (TcpStream, TcpStream)| {
            close(near, abruptly);
            far
        };
        self.ends.into_iter().map(end).collect()
    }

    /// The far ends close or abort.
    pub(crate) fn server_ends(self, abruptly: bool) -> Vec<TcpStream> {
        let end = |(near, far): (TcpStream, TcpStream)| {
            close(far, abruptly);
            near
        };
        self.ends.into_iter().map(end).collect()
    }
}

fn close(stream: TcpStream, abruptly: bool) {
    if abruptly {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &linger).unwrap();
    }
}

/// A storm of datagrams on a few long flows: enough that a gap of a millisecond is met.
pub(crate) struct Storm {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Storm {
    /// One thread per client.
    pub(crate) fn start(clients: &[Pod]) -> Storm {
        let stop = Arc::new(AtomicBool::new(false));
        let go = |pod: &Pod| {
            let (sender, stop) = (Sender::open(pod), stop.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    sender.datagrams_on_long_flows();
                    std::thread::sleep(Duration::from_micros(300));
                }
            })
        };
        let threads = clients.iter().map(go).collect();
        Storm { stop, threads }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}
