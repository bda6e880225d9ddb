//! Requests as runtimes send them, whole and broken.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn read(verb: Verb, args: &str, stdin: &Value) -> Result<Request, CniError> {
    read_bytes(verb, args, stdin.to_string().as_bytes())
}

fn read_bytes(verb: Verb, args: &str, stdin: &[u8]) -> Result<Request, CniError> {
    let env = [
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/a"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", args),
    ];
    let mut environment = Environment::read(|name| {
        let found = env.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).into());
        found.or_else(|| (name == "CNI_COMMAND").then(|| "ADD".into()))
    })?;
    environment.verb = verb;
    Request::read(environment, stdin)
}

fn code(outcome: Result<Request, CniError>) -> u16 {
    outcome.map_or_else(|e| e.code as u16, |_| 0)
}

/// A good list entry with these keys laid over it; `null` takes a key away.
fn entry(keys: Value) -> Value {
    let mut entry = json!({"cniVersion": "1.1.0", "name": "net", "type": "egret", "prevResult": {"ips": []}});
    for (key, value) in keys.as_object().unwrap() {
        entry[key] = value.clone();
    }
    entry
}

#[test]
fn what_is_wrong_has_its_number_and_its_name() {
    let add = |keys: Value| read(Verb::Add, "", &entry(keys));
    for (keys, number, names) in [
        (json!({"name": null}), 7, "missing network name"),
        (json!({"name": "a/b"}), 7, "network name"),
        (json!({"name": 7}), 7, "`name`"),
        (json!({"cniVersion": "9.9.9"}), 1, "9.9.9"),
        (json!({"cniVersion": "abc"}), 1, "abc"),
        (json!({"cniVersion": null}), 1, "0.1.0"),
        (json!({"prevResult": null}), 7, "chained"),
        (json!({"prevResult": {"ips": "x"}}), 6, "prevResult.ips"),
        (json!({"stateDir": 7}), 7, "stateDir is the number 7"),
        (json!({"args": {"cni": {"egret": {"name": "p"}}}}), 7, "args.cni.egret"),
        (json!({"runtimeConfig": {ANNOTATIONS: {"a": 1}}}), 7, ANNOTATIONS),
    ] {
        let error = add(keys.clone()).unwrap_err();
        assert_eq!(error.code as u16, number, "{keys}");
        assert!(error.to_string().contains(names), "{error}");
    }
    assert_eq!(code(add(json!({"cni.dev/x": 1, "capabilities": {"a": true}, "mtu": "?"}))), 0);
    let near = add(json!({"stateDIR": "/srv"})).unwrap().misspelled;
    assert!(near[0].message.contains("did you mean `stateDir`"), "{near:?}");
    assert_eq!(code(read_bytes(Verb::Add, "", b"")), 6);
    assert_eq!(code(read_bytes(Verb::Add, "", b"[]")), 6);
    assert_eq!(code(read_bytes(Verb::Add, "", b"{} x")), 6);
    assert_eq!(code(read_bytes(Verb::Add, "", b"{\"name\":\"\xff\"}")), 6);
}

#[test]
fn verbs_have_their_versions() {
    for (verb, version, number) in [
        (Verb::Check, "0.3.1", 1),
        (Verb::Check, "0.4.0", 0),
        (Verb::Gc, "1.0.0", 1),
        (Verb::Status, "1.0.0", 1),
        (Verb::Status, "1.1.0", 0),
        (Verb::Del, "0.3.0", 0),
    ] {
        assert_eq!(
            code(read(verb, "", &entry(json!({"cniVersion": version})))),
            number,
            "{verb:?} {version}"
        );
    }
}

#[test]
fn the_pod_is_named_by_arguments_first_and_by_the_configuration_else() {
    let named = entry(json!({"args": {"cni": {"egret": {"namespace": "lab", "name": "a"}}}}));
    let k8s = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart;K8S_POD_UID=u1";
    let request = read(Verb::Add, k8s, &named).unwrap();
    assert_eq!((request.pod, request.pod_uid), (Some(PodName::new("shop", "cart")), Some("u1".to_owned())));
    assert_eq!(read(Verb::Add, "K8S_POD_NAME=x", &named).unwrap().pod, Some(PodName::new("lab", "a")));
    assert_eq!(read(Verb::Add, "", &entry(json!({}))).unwrap().pod, None);
}

#[test]
fn a_name_that_no_pod_has_is_an_error_where_it_would_be_wired_and_none_where_it_ends() {
    let plain = entry(json!({}));
    let named = |namespace: &str, name: &str| {
        entry(json!({"args": {"cni": {"egret": {"namespace": namespace, "name": name}}}}))
    };
    let long = "n".repeat(64);
    for (args, stdin, number, words) in [
        ("K8S_POD_NAMESPACE=shop", &plain, 4, "K8S_POD_NAME is missing"),
        ("K8S_POD_NAMESPACE=Shop;K8S_POD_NAME=a", &plain, 4, "K8S_POD_NAMESPACE is \"Shop\""),
        ("K8S_POD_NAMESPACE=a.b;K8S_POD_NAME=a", &plain, 4, "K8S_POD_NAMESPACE is \"a.b\""),
        (&format!("K8S_POD_NAMESPACE={long};K8S_POD_NAME=a"), &plain, 4, "at most 63"),
        ("K8S_POD_NAMESPACE=shop;K8S_POD_NAME=a..b", &plain, 4, "K8S_POD_NAME is \"a..b\""),
        ("", &named("shop!", "a"), 7, "`args.cni.egret.namespace` is \"shop!\""),
        ("", &named("shop", "-a"), 7, "`args.cni.egret.name` is \"-a\""),
    ] {
        for verb in [Verb::Add, Verb::Check] {
            let error = read(verb, args, stdin).unwrap_err();
            assert_eq!(error.code as u16, number, "{args} {stdin}");
            assert!(error.to_string().contains(words), "{error}");
        }
        for verb in [Verb::Del, Verb::Gc, Verb::Status] {
            assert_eq!(code(read(verb, args, stdin)), 0, "{verb:?} {args} {stdin}");
        }
    }
    assert_eq!(read(Verb::Add, "K8S_POD_NAME=Merry_Ritchie", &plain).unwrap().pod, None, "as podman calls");
    let dotted = read(Verb::Add, "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=a.b-1", &plain).unwrap();
    assert_eq!(dotted.pod, Some(PodName::new("shop", "a.b-1")));
}

/// As podman up to 3 calls: a container's name for both.
#[test]
fn a_container_s_name_that_is_no_namespace_s_is_nobody_s_pod() {
    for name in ["gallant_curie", "web.1"] {
        let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={name};K8S_POD_NAME={name}");
        assert_eq!(read(Verb::Add, &args, &entry(json!({}))).map(|request| request.pod), Ok(None), "{name}");
        let named = entry(json!({"args": {"cni": {"egret": {"namespace": "lab", "name": "a"}}}}));
        let said = read(Verb::Add, &args, &named).map(|request| request.pod);
        assert_eq!(said, Ok(Some(PodName::new("lab", "a"))), "{name}");
    }
    let both = read(Verb::Add, "K8S_POD_NAMESPACE=web;K8S_POD_NAME=web", &entry(json!({}))).unwrap();
    assert_eq!(both.pod, Some(PodName::new("web", "web")));
}

#[test]
fn annotations_that_are_absent_are_told_from_none() {
    let add = |keys: Value| read(Verb::Add, "", &entry(keys)).unwrap().pod_annotations;
    assert_eq!(add(json!({})), None);
    assert_eq!(add(json!({"runtimeConfig": {"portMappings": []}})), None);
    assert_eq!(add(json!({"runtimeConfig": {ANNOTATIONS: {}}})), Some(Pairs::new()));
    let pairs = add(json!({"runtimeConfig": {ANNOTATIONS: {"a/b": "c"}}})).unwrap();
    assert_eq!(pairs["a/b"], "c");
}

#[test]
fn gc_tells_absent_null_empty_and_the_old_key_apart() {
    let gc = |keys: Value| {
        // `null` must stay in: it is a value here.
        let mut entry = entry(json!({}));
        entry.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        read(Verb::Gc, "", &entry).map(|r| r.valid)
    };
    let new = "cni.dev/valid-attachments";
    let old = "cni.dev/attachments";
    let one = |id: &str| json!([{"containerID": id, "ifname": "eth0"}]);
    let listed = |id: &str| Valid::Listed([(id.to_owned(), "eth0".to_owned())].into());
    assert_eq!(gc(json!({})), Ok(Valid::Absent));
    assert_eq!(gc(json!({new: null})), Ok(Valid::Null));
    assert_eq!(gc(json!({new: []})), Ok(Valid::Listed(BTreeSet::new())));
    assert_eq!(gc(json!({new: one("a"), old: one("b")})), Ok(listed("a")));
    assert_eq!(gc(json!({new: null, old: one("b")})), Ok(Valid::Null));
    assert_eq!(gc(json!({old: one("b")})), Ok(listed("b")));
    for bad in [json!("all"), json!([{"containerID": "a"}]), json!({})] {
        assert_eq!(gc(json!({new: bad})).unwrap_err().code, Code::InvalidConfig);
    }
}

#[test]
fn del_reads_what_it_can_and_keeps_the_keys_that_are_right() {
    let stdin =
        entry(json!({"prevResult": "garbage", "runDir": "/tmp/x", "lockTimeout": "soon", "mode": "cluster",
        "args": {"cni": {"egret": 1}}, "runtimeConfig": 7}));
    let request = read(Verb::Del, "", &stdin).unwrap();
    assert_eq!(request.prev_result, None);
    assert_eq!(request.config.run_dir, PathBuf::from("/tmp/x"));
    assert_eq!(request.config.lock_timeout, Config::default().lock_timeout);
}

proptest! {
    #[test]
    fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64), cut in 0usize..200, flip in any::<u8>()) {
        let mut good = entry(json!({"cni.dev/valid-attachments": [{"containerID": "a", "ifname": "b"}]})).to_string().into_bytes();
        let at = cut % good.len();
        good[at] = flip;
        for verb in [Verb::Add, Verb::Del, Verb::Gc] {
            let _ = read_bytes(verb, "", &bytes);
            let _ = read_bytes(verb, "", &good);
            let _ = version_for_errors(&good);
        }
    }
}

#[test]
fn a_configuration_that_comes_again_means_the_same_and_another_one_means_its_own() {
    let last = Configurations::default();
    let call = |verb: &str, keys: &str| {
        let all =
            [("CNI_COMMAND", verb), ("CNI_CONTAINERID", "c"), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", "/n")];
        let find = |name: &str| all.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        let stdin = format!(r#"{{"cniVersion":"1.0.0","name":"net","prevResult":{{}}{keys}}}"#);
        let again = Request::read_again(Environment::read(find).unwrap(), stdin.as_bytes(), &last);
        assert_eq!(again, Request::read(Environment::read(find).unwrap(), stdin.as_bytes()), "{verb} {keys}");
        again
    };
    let one = r#","lockTimeout":7,"runDIR":"/x""#;
    for verb in ["ADD", "DEL", "ADD"] {
        assert_eq!(call(verb, one).unwrap().misspelled.len(), 1);
    }
    assert_eq!(call("DEL", r#","lockTimeout":8"#).unwrap().config.lock_timeout, 8);
    let wrong = r#","lockTimeout":9,"runDir":5"#;
    assert_eq!(call("DEL", wrong).unwrap().config.lock_timeout, 9);
    assert!(call("ADD", wrong).is_err() && call("DEL", wrong).is_ok() && call("ADD", wrong).is_err());
}
