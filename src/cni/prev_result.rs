//! The previous plugin's result: passed on byte for byte, read only as far as the pod's addresses.
//!
//! In: the `prevResult` of a configuration. Out: the same text with the right `cniVersion`; the pod's addresses.
//! Never: a typed copy. Real results are dirty (a route table's number for a MAC, `"0"` for a sandbox), and the typed
//! structs of the Go library drop every field they do not know; what we do not read cannot hurt us or be lost.

use std::net::IpAddr;
use std::path::Path;

use serde_json::Number;
use serde_json::value::RawValue;

use super::document::Document;
use super::version::Version;

/// A result as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct PrevResult {
    text: String,
    version: Option<String>,
    interfaces: Vec<Interface>,
    ips: Vec<Ip>,
}

/// What is no text counts as empty.
#[derive(Debug, Clone, PartialEq)]
struct Interface {
    name: String,
    sandbox: String,
}

#[derive(Debug, Clone, PartialEq)]
struct Ip {
    interface: Option<usize>,
    address: IpAddr,
    prefix: u8,
}

/// The addresses of the pod's interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PodAddresses {
    /// Address and prefix length in bits, in the order of the result, without doubles.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The result does not prove whose they are (kindnet and Azure name no sandbox, some name no interface, some have
    /// no address at all): read the interface's addresses in the namespace and trust those.
    pub read_netns: bool,
}

impl PrevResult {
    /// Takes a raw value. Errors are sentences: not an object, `ips` or `interfaces` not a list, an address that is none.
    pub fn read(raw: &RawValue) -> Result<PrevResult, String> {
        let document = Document::read(raw.get().as_bytes())
            .map_err(|_| format!("prevResult is not an object but {}", raw.get()))?;
        let interfaces = list(&document, "interfaces")?.into_iter().map(interface).collect();
        let ips = list(&document, "ips")?.into_iter().map(ip).collect::<Result<_, _>>()?;
        let version = document.present("cniVersion").and_then(text);
        Ok(PrevResult { text: raw.get().to_owned(), version, interfaces, ips })
    }

    /// Its text, unchanged, except that `cniVersion` is this version: the answer must carry the version of the
    /// configuration, and a result may come without one.
    pub fn stamped(&self, version: Version) -> String {
        if self.version.as_deref() == Some(version.text()) {
            return self.text.clone();
        }
        Document::read(self.text.as_bytes())
            .map(|document| document.with("cniVersion", version.text()))
            .unwrap_or_else(|_| self.text.clone()) // it was read before, so it is a document
    }

    /// The addresses of the interface `ifname` in the namespace at `netns`.
    ///
    /// An address belongs to the interface its index names; without an index, or with one that leads nowhere, it is
    /// ours (as `sbr`, `portmap` and `vrf` have it). Of several interfaces of our name the one in our sandbox is meant,
    /// else the first in any sandbox, else the first.
    pub fn addresses(&self, ifname: &str, netns: Option<&Path>) -> PodAddresses {
        let interfaces = &self.interfaces;
        let sandbox = |i: &usize| interfaces[*i].sandbox.as_str();
        let named: Vec<usize> = (0..interfaces.len()).filter(|i| interfaces[*i].name == ifname).collect();
        let ours = None
            .or_else(|| named.iter().find(|i| netns.is_some_and(|n| n == Path::new(sandbox(i)))))
            .or_else(|| named.iter().find(|i| !sandbox(i).is_empty()))
            .or_else(|| named.first())
            .copied();
        let mut addresses = Vec::new();
        for ip in &self.ips {
            let belongs = ip.interface.is_none_or(|i| i >= interfaces.len() || Some(i) == ours);
            if belongs && !addresses.contains(&(ip.address, ip.prefix)) {
                addresses.push((ip.address, ip.prefix));
            }
        }
        let proven = ours.is_some_and(|i| !sandbox(&i).is_empty()) && !addresses.is_empty();
        PodAddresses { addresses, read_netns: !proven }
    }
}

fn list<'a>(document: &Document<'a>, key: &str) -> Result<Vec<&'a RawValue>, String> {
    let Some(raw) = document.present(key) else { return Ok(Vec::new()) };
    serde_json::from_str(raw.get()).map_err(|_| format!("prevResult.{key} is not a list but {}", raw.get()))
}

fn text(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

fn interface(raw: &RawValue) -> Interface {
    let said = Document::read(raw.get().as_bytes()).ok();
    let of = |key: &str| said.as_ref().and_then(|said| said.present(key)).and_then(text).unwrap_or_default();
    Interface { name: of("name"), sandbox: of("sandbox") }
}

fn ip(raw: &RawValue) -> Result<Ip, String> {
    let wrong = || format!("prevResult.ips: `address` is not like 10.1.2.3/24 in {}", raw.get());
    let said = Document::read(raw.get().as_bytes()).map_err(|_| wrong())?;
    let address = said.present("address").and_then(text).ok_or_else(wrong)?;
    let (address, prefix) = address.split_once('/').ok_or_else(wrong)?;
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let prefix =
        prefix.parse().ok().filter(|p| *p <= crate::addr::Family::of(address).bits()).ok_or_else(wrong)?;
    // A negative index leads nowhere, like one that is too large.
    let place = |n: Number| n.as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    let index = said.present("interface").and_then(|raw| serde_json::from_str(raw.get()).ok());
    Ok(Ip { interface: index.map(place), address, prefix })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn prev(text: &str) -> PrevResult {
        PrevResult::read(&RawValue::from_string(text.to_owned()).unwrap()).unwrap()
    }

    fn addresses(text: &str) -> (Vec<String>, bool) {
        let found = prev(text).addresses("eth0", Some(Path::new("/run/netns/a")));
        (found.addresses.iter().map(|(ip, prefix)| format!("{ip}/{prefix}")).collect(), found.read_netns)
    }

    #[test]
    fn every_address_of_our_interface_counts_and_none_of_another() {
        let (found, unsure) = addresses(
            r#"{"interfaces":[{"name":"br0"},{"name":"eth0","sandbox":"/run/netns/a"},{"name":"net1","sandbox":"/run/netns/a"}],
                "ips":[{"address":"10.0.0.5/24","interface":1},{"address":"fd00::5/64","interface":1},
                {"address":"10.0.0.6/24","interface":1},{"address":"10.9.0.1/24","interface":2},
                {"address":"10.0.0.7/32"},{"address":"10.0.0.8/32","interface":9},{"address":"10.0.0.9/32","interface":-1}]}"#,
        );
        assert_eq!(
            found,
            ["10.0.0.5/24", "fd00::5/64", "10.0.0.6/24", "10.0.0.7/32", "10.0.0.8/32", "10.0.0.9/32"]
        );
        assert!(!unsure);
    }

    #[test]
    fn of_two_interfaces_of_our_name_the_one_in_our_sandbox_is_ours() {
        let two = |first: &str, second: &str| {
            let text = format!(
                r#"{{"interfaces":[{{"name":"eth0","sandbox":"{first}"}},{{"name":"eth0","sandbox":"{second}"}}],
                "ips":[{{"address":"10.0.0.1/24","interface":0}},{{"address":"10.0.0.2/24","interface":1}}]}}"#
            );
            addresses(&text)
        };
        assert_eq!(two("", "/run/netns/a"), (vec!["10.0.0.2/24".to_owned()], false));
        assert_eq!(two("/run/netns/b", "/run/netns/a"), (vec!["10.0.0.2/24".to_owned()], false));
        assert_eq!(two("", "/var/run/netns/a"), (vec!["10.0.0.2/24".to_owned()], false));
        assert_eq!(two("", ""), (vec!["10.0.0.1/24".to_owned()], true));
    }

    #[test]
    fn the_shapes_of_kindnet_azure_and_aws_are_understood() {
        let kindnet = r#"{"interfaces":[{"name":"eth0"}],"ips":[{"version":"4","address":"10.0.0.5/24","interface":0}]}"#;
        assert_eq!(addresses(kindnet), (vec!["10.0.0.5/24".to_owned()], true));
        let azure = r#"{"interfaces":[{"name":"eth0","mac":"00:01"}],"ips":[{"address":"10.0.0.5/24"}]}"#;
        assert_eq!(addresses(azure), (vec!["10.0.0.5/24".to_owned()], true));
        let aws = r#"{"interfaces":[{"name":"eni1"},{"name":"eth0","mac":"254","sandbox":"/run/netns/a"},
            {"name":"dummy1","mac":"0","sandbox":"0"}],"ips":[{"address":"10.0.0.5/32","interface":1}]}"#;
        assert_eq!(addresses(aws), (vec!["10.0.0.5/32".to_owned()], false));
        assert_eq!(
            addresses(r#"{"ips":[{"address":"10.0.0.5/32"}]}"#),
            (vec!["10.0.0.5/32".to_owned()], true)
        );
        assert_eq!(addresses(r#"{"ips":[]}"#), (vec![], true));
    }

    #[test]
    fn what_is_no_result_is_named() {
        let refuse =
            |text: &str| PrevResult::read(&RawValue::from_string(text.to_owned()).unwrap()).unwrap_err();
        assert_eq!(refuse("[1]"), "prevResult is not an object but [1]");
        assert_eq!(refuse(r#"{"ips":"x"}"#), r#"prevResult.ips is not a list but "x""#);
        for bad in ["10.0.0.5", "10.0.0.5/33", "ten/8", ""] {
            assert!(
                refuse(&format!(r#"{{"ips":[{{"address":"{bad}"}}]}}"#)).contains("is not like 10.1.2.3/24")
            );
        }
    }

    #[test]
    fn the_text_survives_and_gets_the_version_of_the_configuration() {
        let right = r#"{ "x":1e30, "big":123456789012345678901234567890, "cniVersion" : "1.0.0","b":[ 1 ,2],"a":"\u00e9"}"#;
        assert_eq!(prev(right).stamped(Version::V1_0_0), right);
        assert_eq!(
            prev(r#"{"b":[ 1 ],"a":2}"#).stamped(Version::V0_4_0),
            r#"{"cniVersion":"0.4.0","b":[ 1 ],"a":2}"#
        );
        assert_eq!(
            prev(r#"{"b":1,"cniVersion":"0.3.1"}"#).stamped(Version::V0_4_0),
            r#"{"b":1,"cniVersion":"0.4.0"}"#
        );
    }

    proptest! {
        #[test]
        fn any_object_passes_through_equal_and_in_order(keys in proptest::collection::vec("[a-zA-Z\"\\\\é.]{1,6}", 0..8)) {
            let object: serde_json::Map<String, Value> =
                keys.iter().enumerate().map(|(i, k)| (k.clone(), Value::from(i))).collect();
            let stamped = prev(&Value::from(object.clone()).to_string()).stamped(Version::V1_0_0);
            let mut back: serde_json::Map<String, Value> = serde_json::from_str(&stamped).unwrap();
            prop_assert_eq!(back.shift_remove("cniVersion"), Some(Value::from("1.0.0")));
            prop_assert_eq!(back.keys().collect::<Vec<_>>(), object.keys().collect::<Vec<_>>());
            prop_assert_eq!(back, object);
        }
    }
}
