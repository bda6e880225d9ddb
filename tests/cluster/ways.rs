//! The ways to a real API server that kubeconfigs have: several files, a certificate of another name, a proxy between.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use egret::kube::{Access, Client};
use egret::testbed::ROUTER;

use crate::server::server;
use crate::world::alone;

/// A name of the server's certificate, which no DNS knows here.
const NAME: &str = "kubernetes.default.svc";

/// A file in a folder of its own beside the cluster's `pki`.
fn file(folder: &str, text: &str) -> PathBuf {
    let folder = server().folder().join(folder);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("config"), text).unwrap();
    folder.join("config")
}

/// A cluster that is reached so, and a context with its administrator.
fn reached(cluster: &str) -> Access {
    let text = format!(
        "clusters: [{{name: c, cluster: {{certificate-authority: ../pki/ca.crt, {cluster}}}}}]\n\
         users: [{{name: u, user: {{client-certificate: ../pki/admin.crt, client-key: ../pki/admin.key}}}}]\n\
         contexts: [{{name: x, context: {{cluster: c, user: u}}}}]\ncurrent-context: x\n"
    );
    Access::from_file(&file("reached", &text), None).unwrap()
}

/// What the server says of itself, asked over a new connection.
fn version(access: Access) -> Result<String, String> {
    server().enter().unwrap();
    let client = Client::new(access).map_err(|e| e.to_string())?;
    client.get("/version").map(|said| said["major"].to_string()).map_err(|e| e.to_string())
}

/// `egret` with this `KUBECONFIG`: its status, and all it said.
fn ask(list: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let list = format!("KUBECONFIG={list}");
    let output = server()
        .command(ROUTER)
        .args(["env", "HOME=/nonexistent", &list, env!("CARGO_BIN_EXE_egret")])
        .args(arguments)
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[test]
fn several_kubeconfigs_are_one_and_kubectl_reads_them_alike() {
    let _alone = alone();
    let admin = Access::from_file(&server().kubeconfig("admin"), None).unwrap();
    // Paths are relative to the file that says them; the second `c` and `u` lead nowhere and are not looked at.
    let cluster = format!(
        "clusters: [{{name: c, cluster: {{server: \"{}\", certificate-authority: ../pki/ca.crt}}}}]\n",
        admin.server()
    );
    let first = file("merged-cluster", &cluster);
    let second = file(
        "merged-user",
        "clusters: [{name: c, cluster: {server: \"https://127.0.0.9:1\"}}]\ncurrent-context: x\n\
         users: [{name: u, user: {client-certificate: ../pki/admin.crt, client-key: ../pki/admin.key}}]\n",
    );
    let third = file(
        "merged-context",
        "users: [{name: u, user: {token: none}}]\ncontexts: [{name: x, context: {cluster: c, user: u}}]\ncurrent-context: other\n",
    );
    let list = format!("/nowhere:{}::{}:{}", first.display(), second.display(), third.display());
    let (_, said) = ask(&list, &["status"]);
    assert!(said.contains(&admin.server()), "{said}");
    let script = "\"${EGRET_CACHE:-$HOME/.cache/egret}/cluster/bin/kubectl\" get --raw /version";
    let kubectl = |list: &str| {
        let mut command = server().command(ROUTER);
        command.args(["env", &format!("KUBECONFIG={list}"), "sh", "-c", script]);
        let output = command.output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    assert!(kubectl(&list).contains("\"major\": \"1\""), "{}", kubectl(&list));
    // In another order it is another cluster, to both.
    let turned = format!("{}:{}:{}", second.display(), first.display(), third.display());
    let (_, said) = ask(&turned, &["status"]);
    assert!(said.contains("https://127.0.0.9:1: Connection refused"), "{said}");
    assert!(kubectl(&turned).contains("127.0.0.9:1"), "{}", kubectl(&turned));

    let (status, said) = ask(&list, &["list", "--context", "z"]);
    assert!(status == Some(2) && said.contains("none of them has a context `z`"), "{said}");
    let bad = file("merged-bad", "contexts: [");
    let (status, said) = ask(&format!("{}:{list}", bad.display()), &["list"]);
    assert!(status == Some(2) && said.contains("merged-bad/config: it is no kubeconfig: "), "{said}");
    let (status, said) = ask("/nowhere:/neither", &["list"]);
    let none = "there is no kubeconfig where KUBECONFIG says (/nowhere:/neither): name one with --kubeconfig, or set KUBECONFIG";
    assert!(status == Some(2) && said.contains(none), "{said}");
    let (status, said) = ask("", &["list", "--context", "x"]);
    let none = "there is no kubeconfig: name one with --kubeconfig, or set KUBECONFIG";
    assert!(status == Some(2) && said.contains(none), "{said}");
}

#[test]
fn a_server_is_known_by_the_name_that_the_kubeconfig_says() {
    let _alone = alone();
    // An address of the server that its certificate does not have.
    let at = "server: \"https://127.0.0.2:6443\"";
    let error = version(reached(at)).unwrap_err();
    assert!(error.contains("name that as tls-server-name"), "{error}");
    let named = |name: &str| version(reached(&format!("{at}, tls-server-name: {name}")));
    assert_eq!(named(NAME).as_deref(), Ok("\"1\""));
    assert_eq!(named("10.96.0.1").as_deref(), Ok("\"1\""), "an address is a name, too");
    let error = named("kubernetes.example").unwrap_err();
    assert!(error.contains("kubernetes.example") && error.contains("tls-server-name"), "{error}");
}

/// A proxy that knows one user and leads to the server whatever the name; what it heard, and where it listens.
fn proxy() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (place, own) = (listener.local_addr().unwrap(), heard.clone());
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let heard = own.clone();
            std::thread::spawn(move || {
                // What breaks here, breaks for the client.
                let _ = lead(client, &heard);
            });
        }
    });
    (place, heard)
}

fn lead(mut client: TcpStream, heard: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let lines = BufReader::new(client.try_clone()?).lines().map_while(Result::ok);
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    heard.lock().unwrap().push(head.join("\n"));
    // `egret`, `s:cret`
    if !head.iter().any(|line| line == "proxy-authorization: Basic ZWdyZXQ6czpjcmV0") {
        return client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n");
    }
    // This thread is where the server is, as its parent was.
    let mut up = TcpStream::connect(("127.0.0.1", 6443))?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let mut hello = vec![0; 4096];
    let count = client.read(&mut hello)?;
    heard.lock().unwrap().push(String::from_utf8_lossy(&hello[..count]).into_owned());
    up.write_all(&hello[..count])?;
    let (mut from, mut to) = (up.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
    std::io::copy(&mut client, &mut up).map(drop)
}

#[test]
fn a_server_behind_a_proxy_is_asked_through_it() {
    let _alone = alone();
    server().enter().unwrap();
    let (place, heard) = proxy();
    // Only the proxy knows the way to that name.
    let by = |url: &str| reached(&format!("server: \"https://{NAME}:6443\", proxy-url: \"{url}\""));
    let user = format!("http://egret:s%3acret@{place}");
    assert_eq!(version(by(&user)).as_deref(), Ok("\"1\""));
    let said = std::mem::take(&mut *heard.lock().unwrap());
    assert!(said[0].starts_with(&format!("CONNECT {NAME}:6443 HTTP/1.1\nhost: {NAME}:6443\n")), "{said:?}");
    assert!(said[1].contains(NAME), "the server is told the name that it is asked by: {said:?}");

    // The name of the certificate, where the server is asked by another.
    let other =
        format!("server: \"https://api.example:6443\", proxy-url: \"{user}\", tls-server-name: {NAME}");
    assert_eq!(version(reached(&other)).as_deref(), Ok("\"1\""));
    let said = std::mem::take(&mut *heard.lock().unwrap());
    assert!(said[0].starts_with("CONNECT api.example:6443 "), "{said:?}");
    assert!(said[1].contains(NAME) && !said[1].contains("api.example"), "{said:?}");

    let error = version(by(&format!("http://{place}"))).unwrap_err();
    assert!(error.contains(&format!("the proxy http://{place}: it answers CONNECT")), "{error}");
    assert!(error.contains("with 407; it wants a user"), "{error}");
    let error = version(by("http://127.0.0.1:1")).unwrap_err();
    assert!(error.contains("the proxy http://127.0.0.1:1: Connection refused"), "{error}");
}
