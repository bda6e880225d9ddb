//! What the kernel gives no notice of when it changes: proxy neighbours, and settings. A part of what [`observe`](super::observe()) reads, cheap
//! enough to be read each second.
//!
//! In: a namespace, the marks of ownership, the names of settings. Out: a [`State`] of these alone. Never: lists every device of a node to
//! name the few that have a proxy neighbour of ours; opens each time what can stay open.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::Netns;
use super::netlink::{Socket, link};
use super::observe::{self, KernelError, open};
use super::state::{Scope, State};
use super::sysctl::Reader;

/// Looks that follow each other in one namespace. After an error begin with a new one.
pub struct Unannounced {
    netns: Netns,
    socket: Socket,
    settings: Reader,
}

impl fmt::Debug for Unannounced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unannounced({:?})", self.netns)
    }
}

impl Unannounced {
    /// Nothing was looked at yet.
    ///
    /// # Errors
    /// There is no socket in the namespace.
    pub fn of(netns: Netns) -> Result<Unannounced, KernelError> {
        Ok(Unannounced { socket: open(&netns)?, netns, settings: Reader::default() })
    }

    /// How it is now.
    ///
    /// # Errors
    /// As [`observe`](super::observe()).
    pub fn look<'a>(
        &mut self,
        scope: &Scope,
        settings: impl Iterator<Item = &'a str>,
    ) -> Result<State, KernelError> {
        let mut names: BTreeMap<u32, Option<String>> = BTreeMap::new();
        let mut proxies = BTreeSet::new();
        for (index, ip) in observe::proxies(&mut self.socket, scope)? {
            let name = names.entry(index).or_insert_with(|| name(&mut self.socket, index));
            proxies.extend(name.clone().map(|name| (name, ip)));
        }
        let sysctls = self.settings.read(&self.netns, settings).map_err(KernelError::Setting)?;
        Ok(State { proxies, sysctls, ..State::default() })
    }
}

/// A device's name; it may be gone by now, and its neighbours with it.
fn name(socket: &mut Socket, index: u32) -> Option<String> {
    let answer = socket.ask(link::by_index(index)).ok()?;
    answer.iter().find_map(link::read).map(|d| d.name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::numbers;
    use crate::kernel::sandbox::Namespace;

    #[test]
    fn looks_that_follow_each_other_see_what_changed_also_when_a_device_was_replaced_by_one_of_its_name() {
        let namespace = Namespace::new();
        let scope = numbers::node_scope();
        let setting = "net/ipv4/conf/uplink/rp_filter";
        let make = "ip link add uplink type veth peer name far; ip link set uplink up; echo 1 > /proc/sys/net/ipv4/conf/uplink/rp_filter";
        namespace.sh(make);
        namespace.run(|| {
            let mut looks = Unannounced::of(Netns::current().unwrap()).unwrap();
            let mut look = || {
                let found = looks.look(&scope, [setting].into_iter()).unwrap();
                (found.sysctls.get(setting).cloned(), found.proxies)
            };
            let value = |text: &str| Some(text.to_owned());
            let ours = format!("ip neigh add proxy 192.0.2.7 dev uplink protocol {}", scope.protocol);
            let proxies = BTreeSet::from([("uplink".to_owned(), "192.0.2.7".parse().unwrap())]);
            assert_eq!(look(), (value("1"), BTreeSet::new()));
            namespace.sh(&format!("{ours}; ip neigh add proxy 192.0.2.8 dev uplink"));
            assert_eq!(look(), (value("1"), proxies.clone()), "the other one is somebody else's");
            namespace.sh("echo 2 > /proc/sys/net/ipv4/conf/uplink/rp_filter");
            assert_eq!(look(), (value("2"), proxies.clone()));
            namespace.sh("ip link del uplink");
            assert_eq!(look(), (None, BTreeSet::new()));
            namespace.sh(&format!("{make}; {ours}"));
            assert_eq!(look(), (value("1"), proxies));
        });
    }
}
