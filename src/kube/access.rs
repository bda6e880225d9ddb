//! Which API server, and who we are to it: a kubeconfig, or what a pod finds in itself.
//!
//! In: a file and a context's name. Out: [`Access`], or a sentence. Servers whose certificate shall not be checked are refused by name.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::base64;
use super::error::ApiError;
use super::exec::{self, Exec, Program};

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
    /// Certificates (PEM) that sign the server's.
    pub authority: Vec<u8>,
    /// Who we are.
    pub credential: Credential,
    /// The namespace where none is named.
    pub namespace: String,
}

/// How we say who we are.
#[derive(Clone)]
pub enum Credential {
    /// By a TLS certificate and its key, both PEM.
    Certificate {
        /// Ours, and what leads to the authority.
        chain: Vec<u8>,
        /// The private key.
        key: Vec<u8>,
    },
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
        if self.host.contains(':') {
            format!("https://[{}]:{}{}", self.host, self.port, self.prefix)
        } else {
            format!("https://{}:{}{}", self.host, self.port, self.prefix)
        }
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
        let authority = read(&folder.join("ca.crt"))?;
        let namespace = fs::read_to_string(folder.join("namespace")).unwrap_or_else(|_| "default".to_owned());
        let credential = Credential::TokenFile(folder.join("token"));
        Ok(Some(Access { origin, host, port, prefix: String::new(), authority, credential, namespace }))
    }

    /// By a kubeconfig; `context`: its current one if not said.
    ///
    /// # Errors
    /// A sentence with the file, if it cannot be read or asks for what is not served.
    pub fn from_file(path: &Path, context: Option<&str>) -> Result<Access, ApiError> {
        let text = String::from_utf8(read(path)?).map_err(|_| no(path, "it is no text"))?;
        let config: Config =
            serde_yaml_ng::from_str(&text).map_err(|e| no(path, &format!("it is no kubeconfig: {e}")))?;
        let name = context.unwrap_or(&config.current_context);
        if name.is_empty() {
            return Err(no(path, "it has no current-context; name one with --context"));
        }
        let lost = |kind: &str, name: &str| no(path, &format!("it has no {kind} `{name}`"));
        let context = config.contexts.iter().find(|c| c.name == name).ok_or_else(|| lost("context", name))?;
        let context = &context.context;
        let cluster = config.clusters.iter().find(|c| c.name == context.cluster);
        let cluster = &cluster.ok_or_else(|| lost("cluster", &context.cluster))?.cluster;
        let user = config.users.iter().find(|u| u.name == context.user);
        let user = &user.ok_or_else(|| lost("user", &context.user))?.user;
        if cluster.insecure_skip_tls_verify {
            let why = "insecure-skip-tls-verify would hand our credentials to whoever answers; \
                       give the cluster's certificate-authority instead";
            return Err(no(path, why));
        }
        let (host, port, prefix) = split(&cluster.server).ok_or_else(|| {
            no(path, &format!("the server `{}` is not written as https://HOST:PORT", cluster.server))
        })?;
        let authority =
            inline_or_file(path, &cluster.certificate_authority_data, &cluster.certificate_authority)?;
        let authority = match authority {
            Some(authority) => authority,
            None => read(Path::new("/etc/ssl/certs/ca-certificates.crt"))?,
        };
        let credential = user.credential(path, &cluster.server, &authority)?;
        let namespace = context.namespace.clone().unwrap_or_else(|| "default".to_owned());
        Ok(Access {
            origin: path.display().to_string(),
            host,
            port,
            prefix,
            authority,
            credential,
            namespace,
        })
    }

    /// The value of `Authorization`, if that is how we say who we are.
    pub(super) fn authorization(&self) -> Result<Option<String>, ApiError> {
        match &self.credential {
            Credential::Certificate { .. } => Ok(None),
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
    let (host, port) = match authority.strip_prefix('[') {
        Some(inside) => {
            let (host, port) = inside.split_once(']')?;
            (host, port.strip_prefix(':'))
        }
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Some(443), |port| port.parse().ok())?;
    (!host.is_empty()).then(|| (host.to_owned(), port, prefix.trim_end_matches('/').to_owned()))
}

fn no(path: &Path, why: &str) -> ApiError {
    ApiError::Access(format!("{}: {why}", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>, ApiError> {
    fs::read(path).map_err(|e| no(path, &format!("cannot be read: {e}")))
}

/// What stands in the kubeconfig itself, or in a file beside it.
fn inline_or_file(
    config: &Path,
    data: &Option<String>,
    file: &Option<PathBuf>,
) -> Result<Option<Vec<u8>>, ApiError> {
    match (data, file) {
        (Some(data), _) => base64::decode(data)
            .map(Some)
            .ok_or_else(|| no(config, "a field that ends in -data is no base64")),
        // Relative to the kubeconfig, not to where we stand.
        (None, Some(file)) => read(&config.parent().unwrap_or(Path::new("")).join(file)).map(Some),
        (None, None) => Ok(None),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Config {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    user: String,
    namespace: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    exec: Option<Exec>,
}

impl User {
    fn credential(&self, path: &Path, server: &str, authority: &[u8]) -> Result<Credential, ApiError> {
        let chain = inline_or_file(path, &self.client_certificate_data, &self.client_certificate)?;
        let key = inline_or_file(path, &self.client_key_data, &self.client_key)?;
        match (chain, key, &self.token_file, &self.token) {
            (Some(chain), Some(key), ..) => Ok(Credential::Certificate { chain, key }),
            (_, _, Some(file), _) => {
                Ok(Credential::TokenFile(path.parent().unwrap_or(Path::new("")).join(file)))
            }
            (_, _, _, Some(token)) => Ok(Credential::Token(token.clone())),
            _ => match &self.exec {
                Some(exec) => exec::credential(exec.clone(), path, server, authority),
                None => Err(no(
                    path,
                    "its user has neither a client certificate with its key, nor a token, nor `exec`",
                )),
            },
        }
    }
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
            ("certificate-authority: lost", "token: t", None, "lost: cannot be read"),
            ("certificate-authority-data: '!'", "token: t", None, "is no base64"),
        ] {
            let error = said(cluster, user, context).unwrap_err();
            assert!(error.contains(sentence), "{error}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
