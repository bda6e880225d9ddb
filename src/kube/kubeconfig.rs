//! Kubeconfigs, several of which are read as one.
//!
//! In: files, in the order in which `KUBECONFIG` names them. Out: the cluster and the user that a context means, each with the file that
//! it stands in. The rules are kubectl's: of each name the first file that has it has all of it, the first `current-context` counts, a path is
//! relative to the file that says it. Never: opens what an entry names.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::ApiError;
use super::exec::Exec;

/// What the files say. They are not poured together: who looks for a name goes through them in order, and learns where it stands.
pub(super) struct Kubeconfig {
    parts: Vec<(PathBuf, Config)>,
}

/// Something, and the file that says it.
pub(super) type Said<'a, T> = (&'a Path, &'a T);

/// What a context means.
pub(super) struct Meant<'a> {
    /// The cluster's name.
    pub(super) name: &'a str,
    pub(super) cluster: Said<'a, Cluster>,
    pub(super) user: Said<'a, User>,
    pub(super) namespace: Option<&'a str>,
}

impl Kubeconfig {
    /// One file, which must be there.
    pub(super) fn one(file: &Path) -> Result<Kubeconfig, ApiError> {
        let text = fs::read(file).map_err(|e| unread(file, &e))?;
        Ok(Kubeconfig { parts: vec![(file.to_owned(), Config::read(file, text)?)] })
    }

    /// Those of these files that are there; `None`: none is. One that is there and cannot be read is an error, whatever the others say: what
    /// it would have said first might have been another cluster.
    pub(super) fn merged(files: &[PathBuf]) -> Result<Option<Kubeconfig>, ApiError> {
        let mut parts = Vec::new();
        for file in files {
            match fs::read(file) {
                Ok(text) => parts.push((file.clone(), Config::read(file, text)?)),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(unread(file, &error)),
            }
        }
        Ok((!parts.is_empty()).then_some(Kubeconfig { parts }))
    }

    /// What this context means, or the current one.
    pub(super) fn meant<'a>(&'a self, context: Option<&'a str>) -> Result<Meant<'a>, ApiError> {
        let said = |config: &'a Config| Some(config.current_context.as_str()).filter(|name| !name.is_empty());
        let current = || self.parts.iter().find_map(|(_, config)| said(config));
        let wanted = context
            .or_else(current)
            .ok_or_else(|| self.lacks("current-context", "; name one with --context"))?;
        let (file, context) = self
            .first(|config| config.contexts.iter().flatten().find(|c| c.name == wanted).map(|c| &c.context))
            .ok_or_else(|| self.lacks(&format!("context `{wanted}`"), ""))?;
        let lost = |kind: &str, name: &str| {
            if name.is_empty() {
                return no(file, &format!("its context `{wanted}` names no {kind}"));
            }
            let next = format!(", which the context `{wanted}` names; define it, or name another --context");
            self.lacks(&format!("{kind} `{name}`"), &next)
        };
        let cluster = |c: &'a Config| c.clusters.iter().flatten().find(|c| c.name == context.cluster);
        let user = |c: &'a Config| c.users.iter().flatten().find(|u| u.name == context.user);
        Ok(Meant {
            name: &context.cluster,
            cluster: self
                .first(|c| cluster(c).map(|c| &c.cluster))
                .ok_or_else(|| lost("cluster", &context.cluster))?,
            user: self.first(|c| user(c).map(|u| &u.user)).ok_or_else(|| lost("user", &context.user))?,
            namespace: context.namespace.as_deref().filter(|name| !name.is_empty()),
        })
    }

    fn first<'a, T>(&'a self, of: impl Fn(&'a Config) -> Option<&'a T>) -> Option<Said<'a, T>> {
        self.parts.iter().find_map(|(file, config)| Some((file.as_path(), of(config)?)))
    }

    fn lacks(&self, what: &str, next: &str) -> ApiError {
        let files: Vec<String> = self.parts.iter().map(|(file, _)| file.display().to_string()).collect();
        let nobody = if files.len() == 1 { "it has no" } else { "none of them has a" };
        ApiError::Access(format!("{}: {nobody} {what}{next}", files.join(", ")))
    }
}

/// A sentence about a file.
pub(super) fn no(file: &Path, why: &str) -> ApiError {
    ApiError::Access(format!("{}: {why}", file.display()))
}

fn unread(file: &Path, error: &std::io::Error) -> ApiError {
    no(file, &format!("cannot be read: {error}; name a kubeconfig that is there and that you may read"))
}

/// One file. An empty one is one, and so is what kubectl makes of that: every list `null`.
#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct Config {
    kind: Option<String>,
    current_context: String,
    clusters: Option<Vec<NamedCluster>>,
    users: Option<Vec<NamedUser>>,
    contexts: Option<Vec<NamedContext>>,
}

impl Config {
    fn read(file: &Path, text: Vec<u8>) -> Result<Config, ApiError> {
        let text = String::from_utf8(text).map_err(|_| no(file, "it is no text"))?;
        let config: Option<Config> =
            serde_yaml_ng::from_str(&text).map_err(|e| no(file, &format!("it is no kubeconfig: {e}")))?;
        let config = config.unwrap_or_default();
        match config.kind.as_deref() {
            None | Some("Config") => Ok(config),
            Some(kind) => Err(no(file, &format!("it is no kubeconfig: its kind is {kind}, not Config"))),
        }
    }
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

/// How a server is reached and known.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Cluster {
    /// Empty where the entry has none: that matters to who uses it.
    #[serde(default)]
    pub(super) server: String,
    pub(super) certificate_authority: Option<PathBuf>,
    pub(super) certificate_authority_data: Option<String>,
    #[serde(default)]
    pub(super) insecure_skip_tls_verify: bool,
    pub(super) tls_server_name: Option<String>,
    pub(super) proxy_url: Option<String>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize, Default)]
#[serde(default)]
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

/// Who we are to a server.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct User {
    pub(super) client_certificate: Option<PathBuf>,
    pub(super) client_certificate_data: Option<String>,
    pub(super) client_key: Option<PathBuf>,
    pub(super) client_key_data: Option<String>,
    pub(super) token: Option<String>,
    #[serde(rename = "tokenFile")]
    pub(super) token_file: Option<PathBuf>,
    pub(super) exec: Option<Exec>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a context means in these files, as `server in FILE, token in FILE, namespace`. Those without text are not there.
    fn meant(test: &str, files: &[(&str, &str)], context: Option<&str>) -> Result<Option<String>, String> {
        let folder = std::env::temp_dir().join(format!("egret-kubeconfig-{test}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in files.iter().filter(|(_, text)| *text != GONE) {
            fs::write(folder.join(name), text).unwrap();
        }
        let named: Vec<PathBuf> = files.iter().map(|(name, _)| folder.join(name)).collect();
        let told = Kubeconfig::merged(&named).and_then(|config| {
            let Some(config) = config else { return Ok(None) };
            let meant = config.meant(context)?;
            let ((at, cluster), (who, user)) = (meant.cluster, meant.user);
            let token = user.token.as_deref().unwrap_or("nobody");
            let namespace = meant.namespace.unwrap_or("-");
            Ok(Some(format!(
                "{} in {}, {token} in {}, {namespace}",
                cluster.server,
                at.display(),
                who.display()
            )))
        });
        fs::remove_dir_all(&folder).unwrap();
        let short = |text: String| text.replace(&format!("{}/", folder.display()), "");
        told.map(|told| told.map(short)).map_err(|e| short(e.to_string()))
    }

    const GONE: &str = "gone";
    /// A cluster and a user, and no context.
    const PARTS: &str =
        "clusters: [{name: c, cluster: {server: one}}]\nusers: [{name: u, user: {token: first}}]";
    /// Others of the same names, and contexts.
    const WHOLE: &str = "apiVersion: v1\nkind: Config\ncurrent-context: x\n\
        clusters: [{name: c, cluster: {server: two}}, {name: d, cluster: {server: three}}]\n\
        users: [{name: u, user: {token: second}}, {name: v, user: {token: third}}]\n\
        contexts: [{name: x, context: {cluster: c, user: u}}, {name: y, context: {cluster: d, user: v, namespace: shop}}]";

    #[test]
    fn of_each_name_the_first_file_has_it_whole_and_what_only_another_has_is_there_too() {
        let both = |context| meant("first", &[("a", PARTS), ("b", WHOLE)], context).unwrap().unwrap();
        assert_eq!(both(None), "one in a, first in a, -");
        assert_eq!(both(Some("y")), "three in b, third in b, shop");
        // The other way round.
        let turned = meant("turned", &[("b", WHOLE), ("a", PARTS)], None).unwrap().unwrap();
        assert_eq!(turned, "two in b, second in b, -");
        // An entry that lacks something is not completed by another's: the user is `u` of the first file, who has no token.
        let bare = "users: [{name: u, user: {}}]\ncontexts: [{name: x, context: {cluster: d, user: u, namespace: \"\"}}]";
        let bare = meant("bare", &[("a", bare), ("b", WHOLE)], None).unwrap().unwrap();
        assert_eq!(bare, "three in b, nobody in a, -");
    }

    #[test]
    fn the_first_current_context_that_is_set_counts() {
        let empty = "current-context: \"\"\nclusters: null\nusers: null\ncontexts: null";
        let other = "current-context: y";
        let told = |files: &[(&str, &str)]| meant("current", files, None).unwrap().unwrap();
        assert!(told(&[("a", empty), ("b", other), ("c", WHOLE)]).starts_with("three"));
        assert!(told(&[("a", empty), ("c", WHOLE), ("b", other)]).starts_with("two"));
    }

    #[test]
    fn files_that_are_not_there_are_passed_over_and_empty_ones_say_nothing() {
        let told =
            meant("gone", &[("a", GONE), ("b", ""), ("c", "# later\n"), ("d", WHOLE), ("e", GONE)], None);
        assert_eq!(told.unwrap().unwrap(), "two in d, second in d, -");
        assert_eq!(meant("none", &[("a", GONE), ("b", GONE)], None), Ok(None));
        assert_eq!(meant("unnamed", &[], None), Ok(None));
        let one = Kubeconfig::one(Path::new("/nowhere/config")).err().unwrap().to_string();
        assert!(one.starts_with("/nowhere/config: cannot be read: No such file"), "{one}");
    }

    #[test]
    fn a_file_that_is_no_kubeconfig_is_named_wherever_it_stands() {
        for (bad, sentence) in [
            ("{", "b: it is no kubeconfig: "),
            ("clusters: 5", "b: it is no kubeconfig: clusters: "),
            (
                "kind: Deployment\napiVersion: apps/v1",
                "b: it is no kubeconfig: its kind is Deployment, not Config",
            ),
        ] {
            let error = meant("bad", &[("a", WHOLE), ("b", bad), ("c", WHOLE)], None).unwrap_err();
            assert!(error.starts_with(sentence), "{error}");
        }
        // One that is there and is no file is not passed over.
        let folder = std::env::temp_dir();
        let error = Kubeconfig::merged(std::slice::from_ref(&folder)).err().unwrap().to_string();
        assert!(error.starts_with(&format!("{}: cannot be read: ", folder.display())), "{error}");
    }

    #[test]
    fn what_no_file_defines_is_said_with_who_names_it() {
        let contexts = "current-context: k\ncontexts: [{name: k, context: {cluster: lost, user: u}}, {name: l, context: {user: u}}]";
        let said = |context| meant("lost", &[("a", PARTS), ("b", contexts)], context).unwrap_err();
        assert_eq!(
            said(None),
            "a, b: none of them has a cluster `lost`, which the context `k` names; define it, or name another --context"
        );
        assert_eq!(said(Some("l")), "b: its context `l` names no cluster");
        assert_eq!(said(Some("m")), "a, b: none of them has a context `m`");
        let said = |text, context| meant("alone", &[("a", text)], context).unwrap_err();
        assert_eq!(said(PARTS, None), "a: it has no current-context; name one with --context");
        let user =
            "contexts: [{name: k, context: {cluster: c, user: w}}]\nclusters: [{name: c, cluster: {}}]";
        assert!(said(user, Some("k")).starts_with("a: it has no user `w`, which the context `k` names"));
    }
}
