//! A server whose machine dies: its connections neither answer nor end. Who kept some does not wait for each of them; and watches that begin
//! together do not end together.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use egret::kube::{Access, Client, Mirror};

use crate::following::{follow_here, until};
use crate::proxy::{ADDRESS, Proxy};
use crate::server::server;
use crate::world::alone;

/// Passes bytes on, between whoever connects and the server. Connections of a machine that has died are silent, and others are not.
struct Way {
    port: u16,
    made: Arc<AtomicUsize>,
    dead: Arc<AtomicUsize>,
}

impl Way {
    fn to(host: String, port: u16) -> Way {
        let listener = TcpListener::bind((ADDRESS, 0)).unwrap();
        let way =
            Way { port: listener.local_addr().unwrap().port(), made: Arc::default(), dead: Arc::default() };
        let (made, dead) = (way.made.clone(), way.dead.clone());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let number = made.fetch_add(1, Ordering::SeqCst) + 1;
                let server = TcpStream::connect((host.as_str(), port)).unwrap();
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let dead = dead.clone();
                    thread::spawn(move || {
                        let mut bytes = [0; 16 << 10];
                        while let Ok(count @ 1..) = from.read(&mut bytes) {
                            if number > dead.load(Ordering::SeqCst) && to.write_all(&bytes[..count]).is_err()
                            {
                                return;
                            }
                        }
                    });
                }
            }
        });
        way
    }

    /// All connections so far are of a machine that is dead now.
    fn dies(&self) {
        self.dead.store(self.made.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

#[test]
fn who_kept_connections_to_a_machine_that_died_waits_for_one_of_them_and_not_for_each() {
    let _alone = alone();
    server().enter().unwrap();
    let mut access = Access::from_file(&server().kubeconfig("admin"), None).unwrap();
    let way = Way::to(access.host.clone(), access.port);
    access.port = way.port;
    let client = Client::new(access).unwrap();
    let asks = || client.get("/api/v1/namespaces/default");
    // Several at once, until several connections are kept.
    while way.made.load(Ordering::SeqCst) < 4 {
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| asks().unwrap());
            }
        });
    }
    way.dies();
    let began = Instant::now();
    let refused = (0..4).take_while(|_| asks().is_err()).count();
    assert_eq!(refused, 1, "another machine answers all the while; after {:?}", began.elapsed());
}

#[test]
fn watches_that_begin_together_do_not_end_together() {
    let _alone = alone();
    server().enter().unwrap();
    let proxy = Proxy::start();
    let client = Arc::new(Client::new(proxy.access()).unwrap());
    let following = follow_here(&client);
    until(&following, Mirror::is_synced);
    let ends = || -> BTreeSet<u64> {
        let of = |line: &String| line.split("timeoutSeconds=").nth(1)?.split('&').next()?.parse().ok();
        proxy.asked_for().iter().filter_map(of).collect()
    };
    until(&following, |_| proxy.asked("timeoutSeconds=") >= 10);
    let ends = ends();
    assert!(ends.len() > 3 && ends.iter().all(|seconds| (150..=300).contains(seconds)), "{ends:?}");
    proxy.judge(|_| crate::proxy::refusal(503, "ServiceUnavailable", "the story is over"));
}
