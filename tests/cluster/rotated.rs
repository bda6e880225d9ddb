//! Certificates that are replaced while a client lives: the server's authority, the client's own in its files, and from a program.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use egret::kube::{Access, Client};
use egret::testbed::within;
use serde_json::json;

use crate::proxy::Proxy;
use crate::server::server;
use crate::world::alone;

fn asked(client: &Client) -> Result<String, String> {
    client.get("/api/v1/namespaces/default").map(|said| said["kind"].to_string()).map_err(|e| e.to_string())
}

fn well() -> Result<String, String> {
    Ok("\"Namespace\"".to_owned())
}

/// As the kubelet and others do it.
fn replace(file: &Path, text: &[u8]) {
    let next = file.with_extension("next");
    fs::write(&next, text).unwrap();
    fs::rename(next, file).unwrap();
}

/// A folder beside the cluster's `pki`, with a certificate and key of somebody whom the server does not know.
fn stranger(folder: &str) -> PathBuf {
    let folder = server().folder().join(folder);
    fs::create_dir_all(&folder).unwrap();
    let script = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout own.key -out own.crt \
                  -subj /O=system:masters/CN=stranger";
    let output = Command::new("sh").args(["-ec", script]).current_dir(&folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder
}

/// Of the real server, for a user that says so who it is.
fn client(folder: &Path, user: &str) -> Client {
    let admin = Access::from_file(&server().kubeconfig("admin"), None).unwrap();
    let text = format!(
        "clusters: [{{name: c, cluster: {{server: \"{}\", certificate-authority: ../pki/ca.crt}}}}]\n\
         users: [{{name: u, user: {{{user}}}}}]\n\
         contexts: [{{name: x, context: {{cluster: c, user: u}}}}]\ncurrent-context: x\n",
        admin.server()
    );
    fs::write(folder.join("config"), text).unwrap();
    server().enter().unwrap();
    Client::new(Access::from_file(&folder.join("config"), None).unwrap()).unwrap()
}

fn pki(name: &str) -> Vec<u8> {
    fs::read(server().folder().join("pki").join(name)).unwrap()
}

#[test]
fn an_authority_that_is_rotated_is_known_by_the_next_connection() {
    let _alone = alone();
    server().enter().unwrap();
    let proxy = Proxy::start();
    let client = Client::new(proxy.access()).unwrap();
    assert_eq!(asked(&client), well());

    // The server has its new certificate before the file has the new authority.
    let authority = proxy.recertify();
    let error = asked(&client).unwrap_err();
    assert!(error.contains("Its certificate is not what the kubeconfig's authority signed"), "{error}");
    replace(&proxy.authority(), &authority[..authority.len() / 2]);
    let error = asked(&client).unwrap_err();
    assert!(error.contains("Its certificate is not what the kubeconfig's authority signed"), "{error}");
    replace(&proxy.authority(), &authority);
    assert_eq!(asked(&client), well());
    assert!(client.watch("/api/v1/namespaces?timeoutSeconds=1").is_ok());

    // What cannot be read keeps what could.
    replace(&proxy.authority(), b"");
    assert_eq!(asked(&client), well());
    fs::remove_file(proxy.authority()).unwrap();
    assert_eq!(asked(&client), well());
    let authority = proxy.recertify();
    assert!(client.watch("/api/v1/namespaces?timeoutSeconds=1").is_err());
    replace(&proxy.authority(), &authority);
    assert!(client.watch("/api/v1/namespaces?timeoutSeconds=1").is_ok());
}

#[test]
fn a_client_certificate_that_is_renewed_is_shown_on_the_next_connection() {
    let _alone = alone();
    let folder = stranger("renewed");
    let client = client(&folder, "client-certificate: own.crt, client-key: own.key");
    let error = asked(&client).unwrap_err();
    assert!(error.contains("401"), "{error}");
    replace(&folder.join("own.crt"), &pki("admin.crt"));
    let error = asked(&client).unwrap_err();
    assert!(error.contains("401"), "a certificate without its key is not used yet: {error}");
    replace(&folder.join("own.key"), &pki("admin.key"));
    assert_eq!(asked(&client), well());
}

#[test]
fn a_program_whose_certificate_is_refused_is_asked_again_and_not_at_every_request() {
    let _alone = alone();
    let folder = stranger("issued");
    let issue = |chain: Vec<u8>, key: Vec<u8>| {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let said = json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
            "status": {"clientCertificateData": text(chain), "clientKeyData": text(key)}});
        replace(&folder.join("said"), said.to_string().as_bytes());
    };
    issue(fs::read(folder.join("own.crt")).unwrap(), fs::read(folder.join("own.key")).unwrap());
    let (program, place) = (folder.join("program"), folder.display());
    fs::write(&program, format!("#!/bin/sh\necho >> {place}/asked\nexec cat {place}/said\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let client = client(&folder, "exec: {apiVersion: client.authentication.k8s.io/v1, command: ./program}");
    let error = asked(&client).unwrap_err();
    assert!(error.contains("401"), "{error}");
    issue(pki("admin.crt"), pki("admin.key"));
    let soon = within(Duration::from_secs(60), Duration::from_millis(100), || asked(&client).is_ok());
    assert!(soon.is_some(), "{:?}", asked(&client));
    let times = fs::read_to_string(folder.join("asked")).unwrap().len();
    assert!(times <= 7, "it was asked {times} times");
}

#[test]
fn while_a_program_hangs_others_connect_with_what_it_gave_before_and_it_is_given_up() {
    let _alone = alone();
    let folder = stranger("hangs");
    let text = |name: &str| String::from_utf8(pki(name)).unwrap();
    // So soon over that every new connection would have another.
    let said = json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
        "status": {"clientCertificateData": text("admin.crt"), "clientKeyData": text("admin.key"), "expirationTimestamp": "2001-01-01T00:00:00Z"}});
    replace(&folder.join("said"), said.to_string().as_bytes());
    let (program, place) = (folder.join("program"), folder.display());
    let script = format!(
        "#!/bin/sh\necho >> {place}/asked\nwhile [ -e {place}/hangs ]; do sleep 0.1; done\nexec cat {place}/said\n"
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let client = client(&folder, "exec: {apiVersion: client.authentication.k8s.io/v1, command: ./program}");
    fs::write(folder.join("hangs"), "").unwrap();
    let times = || fs::read_to_string(folder.join("asked")).unwrap().len();
    // A watch has a connection of its own.
    let connects =
        || client.watch("/api/v1/namespaces?timeoutSeconds=1").map(drop).map_err(|e| e.to_string());
    let before = times();
    std::thread::scope(|scope| {
        // Whichever of these asks the program hangs with it.
        let one = scope.spawn(|| {
            while times() == before {
                connects().unwrap();
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let hangs = within(Duration::from_secs(60), Duration::from_millis(10), || times() > before);
        assert!(hangs.is_some(), "it is not asked again");
        let other = scope.spawn(connects);
        let soon = Duration::from_secs(60);
        let come = within(soon, Duration::from_millis(10), || other.is_finished()).is_some();
        let was_waiting = !one.is_finished();
        let given_up = within(soon, Duration::from_millis(10), || one.is_finished()).is_some();
        fs::remove_file(folder.join("hangs")).unwrap();
        assert!(come && was_waiting, "the other waits for it, too");
        assert!(given_up, "it is waited for without end");
        assert_eq!(other.join().unwrap(), Ok(()));
        one.join().unwrap();
    });
}
