//! Which API server, and who we are to it: a kubeconfig, or what a pod finds in itself.
//!
//! In: files and a context's name. Out: [`Access`], or a sentence. Servers whose certificate shall not be checked are refused by name.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use serde_json::json;

use super::base64;
use super::error::ApiError;
use super::exec::{self, Issued, Program};
use super::kubeconfig::{Cluster, Kubeconfig, Meant, User, no};
use super::proxy::Proxy;
use super::trust::Pem;

/// Where a pod finds its service account's credentials.
const IN_CLUSTER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Where the API server is, how it is known, and who we are.
#[derive(Clone)]
pub struct Access {
    /// What this was read from, for messages.
    pub origin: String,
    /// Name or address of the server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Before every path; empty, or as in `/k8s/clusters/c-1`.
    pub prefix: String,
    /// The name that its certificate is checked for and that it is told (SNI), where that is not `host`.
    pub tls_name: Option<String>,
    /// What stands on the way to it and is asked for a tunnel.
    pub proxy: Option<Proxy>,
    /// Certificates that sign the server's.
    pub authority: Pem,
    /// Who we are.
    pub credential: Credential,
    /// The namespace where none is named.
    pub namespace: String,
}

/// How we say who we are.
#[derive(Clone)]
pub enum Credential {
    /// By a TLS certificate and its key.
    Certificate {
        /// Ours, and what leads to the authority.
        chain: Pem,
        /// The private key.
        key: Pem,
    },
    /// By a certificate that a program gives, and what it gave first.
    Issued(Arc<Program>, Issued),
    /// By a token.
    Token(String),
    /// By a token in a file, which is replaced from time to time.
    TokenFile(PathBuf),
    /// By a token that a program gives.
    Program(Arc<Program>),
}

/// Without what is secret.
impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Access({}, {})", self.origin, self.server())
    }
}

impl Access {
    /// `https://host:port`.
    pub fn server(&self) -> String {
        format!("https://{}{}", self.address(), self.prefix)
    }

    /// `host:port`, as HTTP writes it.
    pub(super) fn address(&self) -> String {
        host_with_port(&self.host, self.port)
    }

    /// As a pod's service account, or `None` where no pod is.
    ///
    /// # Errors
    /// If the pod's files cannot be read.
    pub fn in_cluster() -> Result<Option<Access>, ApiError> {
        let (host, port) =
            (std::env::var("KUBERNETES_SERVICE_HOST"), std::env::var("KUBERNETES_SERVICE_PORT"));
        let (Ok(host), Ok(port)) = (host, port) else { return Ok(None) };
        let origin = IN_CLUSTER.to_owned();
        let port = port.parse().map_err(|_| {
            ApiError::Access(format!("KUBERNETES_SERVICE_PORT is `{port}`, which is no port"))
        })?;
        let folder = Path::new(IN_CLUSTER);
        let authority = read_pem(folder.join("ca.crt"))?;
        let namespace = fs::read_to_string(folder.join("namespace")).unwrap_or_else(|_| "default".to_owned());
        let credential = Credential::TokenFile(folder.join("token"));
        let (prefix, tls_name, proxy) = (String::new(), None, None);
        Ok(Some(Access { origin, host, port, prefix, tls_name, proxy, authority, credential, namespace }))
    }

    /// By a kubeconfig; `context`: its current one if not said.
    ///
    /// # Errors
    /// A sentence with the file, if it cannot be read or asks for what is not served.
    pub fn from_file(path: &Path, context: Option<&str>) -> Result<Access, ApiError> {
        Access::meant(&Kubeconfig::one(path)?.meant(context)?)
    }

    /// By those of these kubeconfigs that are there, merged as kubectl merges them; `None`: none is.
    ///
    /// # Errors
    /// As [`Access::from_file`].
    pub fn from_files(files: &[PathBuf], context: Option<&str>) -> Result<Option<Access>, ApiError> {
        let Some(merged) = Kubeconfig::merged(files)? else { return Ok(None) };
        Access::meant(&merged.meant(context)?).map(Some)
    }

    fn meant(meant: &Meant<'_>) -> Result<Access, ApiError> {
        let ((path, cluster), (users, user)) = (meant.cluster, meant.user);
        let refused = |why: &str| no(path, &format!("its cluster `{}` {why}", meant.name));
        if cluster.insecure_skip_tls_verify {
            return Err(refused(
                "has insecure-skip-tls-verify, which would hand our credentials to whoever answers; \
                 give its certificate-authority instead",
            ));
        }
        let (host, port, prefix) = split(&cluster.server).ok_or_else(|| {
            refused(&format!(
                "has the server `{}`, which is not written as https://HOST:PORT",
                cluster.server
            ))
        })?;
        let tls_name = cluster.tls_server_name.clone().filter(|name| !name.is_empty());
        if let Some(name) = tls_name.as_ref().filter(|name| ServerName::try_from(name.as_str()).is_err()) {
            let why = format!("has the tls-server-name `{name}`, which is neither a DNS name nor an address");
            return Err(refused(&why));
        }
        let proxy = cluster.proxy_url.as_deref().filter(|url| !url.is_empty()).map(Proxy::read).transpose();
        let proxy = proxy.map_err(|why| refused(&why))?;
        let authority =
            inline_or_file(path, &cluster.certificate_authority_data, &cluster.certificate_authority)?;
        let authority = match authority {
            Some(authority) => authority,
            None => read_pem(PathBuf::from("/etc/ssl/certs/ca-certificates.crt"))?,
        };
        let credential = credential(users, user, cluster, &authority.text)?;
        let namespace = meant.namespace.unwrap_or("default").to_owned();
        let mut origin = path.display().to_string();
        if users != path {
            origin += &format!(", {}", users.display());
        }
        Ok(Access { origin, host, port, prefix, tls_name, proxy, authority, credential, namespace })
    }

    /// The value of `Authorization`, if that is how we say who we are.
    pub(super) fn authorization(&self) -> Result<Option<String>, ApiError> {
        match &self.credential {
            Credential::Certificate { .. } | Credential::Issued(..) => Ok(None),
            Credential::Token(token) => Ok(Some(format!("Bearer {token}"))),
            Credential::TokenFile(path) => {
                let token = String::from_utf8(read(path)?).map_err(|_| no(path, "it is no text"))?;
                Ok(Some(format!("Bearer {}", token.trim())))
            }
            Credential::Program(program) => Ok(Some(format!("Bearer {}", program.token()?))),
        }
    }

    /// The server does not know us any more: what a program gave is asked for anew.
    pub(super) fn was_refused(&self) {
        if let Credential::Program(program) = &self.credential {
            program.forget();
        }
    }
}

/// `https://host:port/prefix` in parts. Plain HTTP is not served: whoever is on the way could read credentials.
fn split(server: &str) -> Option<(String, u16, String)> {
    let rest = server.strip_prefix("https://")?;
    let (authority, prefix) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let (host, port) = host_and_port(authority, 443)?;
    Some((host, port, prefix.trim_end_matches('/').to_owned()))
}

/// `host:port`, `host`, `[address]:port` or `[address]` in parts.
pub(super) fn host_and_port(authority: &str, default: u16) -> Option<(String, u16)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(inside) => {
            let (host, port) = inside.split_once(']')?;
            (host, port.strip_prefix(':'))
        }
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Some(default), |port| port.parse().ok())?;
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

/// The way back: an IPv6 address in brackets.
pub(super) fn host_with_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn read_pem(file: PathBuf) -> Result<Pem, ApiError> {
    Ok(Pem { text: read(&file)?, file: Some(file) })
}

fn read(path: &Path) -> Result<Vec<u8>, ApiError> {
    fs::read(path).map_err(|e| no(path, &format!("cannot be read: {e}")))
}

/// What stands in the kubeconfig itself, or in a file beside it.
fn inline_or_file(
    config: &Path,
    data: &Option<String>,
    file: &Option<PathBuf>,
) -> Result<Option<Pem>, ApiError> {
    match (data, file) {
        (Some(data), _) => base64::decode(data)
            .map(|text| Some(Pem { text, file: None }))
            .ok_or_else(|| no(config, "a field that ends in -data is no base64")),
        // Relative to the kubeconfig, not to where we stand.
        (None, Some(file)) => read_pem(config.parent().unwrap_or(Path::new("")).join(file)).map(Some),
        (None, None) => Ok(None),
    }
}

/// Who a user of the file `path` is.
fn credential(path: &Path, user: &User, cluster: &Cluster, authority: &[u8]) -> Result<Credential, ApiError> {
    let chain = inline_or_file(path, &user.client_certificate_data, &user.client_certificate)?;
    let key = inline_or_file(path, &user.client_key_data, &user.client_key)?;
    match (chain, key, &user.token_file, &user.token) {
        (Some(chain), Some(key), ..) => Ok(Credential::Certificate { chain, key }),
        (_, _, Some(file), _) => Ok(Credential::TokenFile(path.parent().unwrap_or(Path::new("")).join(file))),
        (_, _, _, Some(token)) => Ok(Credential::Token(token.clone())),
        _ => match &user.exec {
            Some(exec) => exec::credential(exec.clone(), path, told(cluster, authority)),
            None => Err(no(
                path,
                "its user has neither a client certificate with its key, nor a token, nor `exec`",
            )),
        },
    }
}

/// What a program that hands out credentials is told of the cluster, if it wants that.
fn told(cluster: &Cluster, authority: &[u8]) -> serde_json::Value {
    let mut told = json!({"server": cluster.server, "certificate-authority-data": base64::encode(authority)});
    for (key, value) in [("tls-server-name", &cluster.tls_server_name), ("proxy-url", &cluster.proxy_url)] {
        if let Some(value) = value {
            told[key] = value.as_str().into();
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_split_into_its_parts() {
        let parts =
            |server: &str| split(server).map(|(host, port, prefix)| format!("{host} {port} {prefix}"));
        assert_eq!(parts("https://10.0.0.1:6443").as_deref(), Some("10.0.0.1 6443 "));
        assert_eq!(parts("https://[fd00::1]:6443/").as_deref(), Some("fd00::1 6443 "));
        assert_eq!(parts("https://rancher.example/k8s/c-1").as_deref(), Some("rancher.example 443 /k8s/c-1"));
        assert_eq!(
            [parts("http://10.0.0.1:8080"), parts("https://x:y"), parts("https://")],
            [None, None, None]
        );
    }

    #[test]
    fn a_program_that_hands_out_credentials_is_told_what_the_kubeconfig_says_of_the_cluster() {
        let said = |text: &str| told(&serde_yaml_ng::from_str(text).unwrap(), b"x").to_string();
        let plain = r#"{"server":"https://a:1","certificate-authority-data":"eA=="}"#;
        assert_eq!(said("server: https://a:1"), plain);
        assert_eq!(
            said("{server: \"https://a:1\", tls-server-name: b, proxy-url: \"http://p\"}"),
            plain.replace('}', r#","tls-server-name":"b","proxy-url":"http://p"}"#)
        );
    }

    #[test]
    fn what_a_kubeconfig_asks_for_and_is_not_served_is_said() {
        let folder = std::env::temp_dir().join(format!("egret-access-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("config");
        fs::write(folder.join("ca.crt"), "x").unwrap();
        let said = |cluster: &str, user: &str, context: Option<&str>| {
            let text = format!(
                "clusters: [{{name: c, cluster: {{server: \"https://a:1\", {cluster}}}}}]\nusers: [{{name: u, user: {{{user}}}}}]\n\
                 contexts: [{{name: x, context: {{cluster: c, user: u}}}}]\ncurrent-context: x\n"
            );
            fs::write(&file, text).unwrap();
            Access::from_file(&file, context).map(|a| a.server()).map_err(|e| e.to_string())
        };
        let ca = "certificate-authority: ca.crt";
        let exec = |command: &str| {
            format!(
                "exec: {{apiVersion: client.authentication.k8s.io/v1, command: \"{command}\", installHint: Get it., env: null}}"
            )
        };
        assert_eq!(said(ca, "token: t", None).unwrap(), "https://a:1");
        for (cluster, user, context, sentence) in [
            (ca, "token: t", Some("y"), "it has no context `y`"),
            (ca, "exec: {command: aws}", None, "speaks ``; served are client.authentication.k8s.io/v1 and"),
            (ca, &exec("no-such-program"), None, "`no-such-program`: it is not installed. Get it."),
            (ca, &exec("false"), None, "`false`: it failed (exit status: 1); what it said stands above"),
            (ca, &exec("true"), None, "`true`: what it printed is no JSON"),
            (ca, "", None, "neither a client certificate with its key, nor a token, nor `exec`"),
            ("insecure-skip-tls-verify: true", "token: t", None, "to whoever answers"),
            (
                "tls-server-name: \"a b\"",
                "token: t",
                None,
                "its cluster `c` has the tls-server-name `a b`, which is neither",
            ),
            (
                "proxy-url: \"socks5://p:1\"",
                "token: t",
                None,
                "its cluster `c` has a proxy-url that begins with socks5://",
            ),
            ("certificate-authority: lost", "token: t", None, "lost: cannot be read"),
            ("certificate-authority-data: '!'", "token: t", None, "is no base64"),
        ] {
            let error = said(cluster, user, context).unwrap_err();
            assert!(error.contains(sentence), "{error}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
