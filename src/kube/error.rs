//! Why the API server did not do what was asked.

use std::io;

/// An answer that is none, or one that says no.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Who and where: the kubeconfig or the pod's credentials.
    #[error("{0}")]
    Access(String),
    /// No connection, or one that broke.
    #[error("cannot reach the API server at {server}: {source}{}", advice(source))]
    Unreachable {
        /// `https://host:port`.
        server: String,
        /// What the kernel or TLS said.
        source: io::Error,
    },
    /// The server said no.
    #[error("the API server refuses to {verb} {path}: {message} ({status} {reason}){}", consequence(*status, path, message))]
    Refused {
        /// `GET`, `PUT` and so on.
        verb: &'static str,
        /// Below the server's root.
        path: String,
        /// HTTP status.
        status: u16,
        /// One word: `NotFound`, `AlreadyExists`, `Conflict`, `Forbidden`, `Expired`.
        reason: String,
        /// The server's sentence.
        message: String,
    },
    /// Something answered that does not speak like an API server.
    #[error("{server} does not answer as an API server does: {why}. Check the address in the kubeconfig")]
    Odd {
        /// `https://host:port`.
        server: String,
        /// What it did.
        why: String,
    },
    /// The object is somebody else's, and was not touched.
    #[error("{0}")]
    Another(String),
}

impl ApiError {
    /// The HTTP status, if it was the server that said no.
    pub fn status(&self) -> Option<u16> {
        match self {
            ApiError::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// There is no such object, or no such kind.
    pub fn is_absent(&self) -> bool {
        self.status() == Some(404)
    }

    /// Somebody else was faster: the object exists already, or has another version.
    pub fn is_conflict(&self) -> bool {
        self.status() == Some(409)
    }

    /// A watch asked for a version that the server no longer has: list again.
    pub fn is_expired(&self) -> bool {
        self.status() == Some(410)
    }

    /// The server does not know a version yet that somebody else has told us of.
    pub fn is_ahead(&self) -> bool {
        self.status() == Some(504)
    }

    /// Nobody was there to say anything of the matter: no connection, a server without its store, a proxy without a server.
    pub fn is_away(&self) -> bool {
        !matches!(self, ApiError::Another(_))
            && self.status().is_none_or(|status| status == 429 || status >= 500)
    }

    /// No to this content, whenever and however often it is sent: a rule of the definition, an admission policy, a role, another's object.
    pub fn is_about_content(&self) -> bool {
        matches!(self, ApiError::Another(_)) || matches!(self.status(), Some(400 | 403 | 413 | 422))
    }

    /// Whoever asks for something else just now hears the same: nobody is there, or nobody has time.
    pub fn is_of_the_server(&self) -> bool {
        matches!(self, ApiError::Unreachable { .. }) || matches!(self.status(), Some(429 | 502..=504))
    }

    /// The same, said to a person who asked: the role for people is another than an agent's, which may write.
    pub fn to_person(&self) -> String {
        self.to_string().replace("`deploy/rbac.yaml`", "`deploy/users.yaml`")
    }

    /// We may not. Nothing may be removed because of it.
    pub fn is_forbidden(&self) -> bool {
        matches!(self.status(), Some(401 | 403))
    }
}

fn advice(source: &io::Error) -> &'static str {
    use rustls::CertificateError::{NotValidForName, NotValidForNameContext};
    let tls = source.get_ref().and_then(|inner| inner.downcast_ref());
    match source.kind() {
        _ if matches!(
            tls,
            Some(rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }))
        ) =>
        {
            ". If the kubeconfig reaches it by another name than its certificate has, name that as tls-server-name"
        }
        io::ErrorKind::ConnectionRefused => ". Nothing listens there; check the address and the server",
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => ". It does not answer in time",
        io::ErrorKind::InvalidData => ". Its certificate is not what the kubeconfig's authority signed",
        _ => "",
    }
}

/// The next step.
fn consequence(status: u16, path: &str, message: &str) -> String {
    match status {
        401 => ". The credentials are not known to it, or have expired".to_owned(),
        403 => {
            let of_controller = message.contains(":egret-controller\"");
            let file = if of_controller { "deploy/controller-rbac.yaml" } else { "deploy/rbac.yaml" };
            format!(". Grant it: `{file}` has the role that Egret needs{}", rule(message))
        }
        // A missing object has its own sentence, with its name in quotes.
        404 if path.starts_with("/apis/egret.dev/") && !message.contains('"') => {
            ". It does not know this kind: apply Egret's definitions, `egret crds | kubectl apply --server-side -f -`".to_owned()
        }
        _ => String::new(),
    }
}

/// The rule that the role lacks, from the server's sentence: `cannot list resource "egresspools" in API group "egret.dev" …`.
fn rule(message: &str) -> String {
    let found = || {
        let (verb, rest) = message.split_once(" cannot ")?.1.split_once(" resource \"")?;
        let (resource, rest) = rest.split_once('"')?;
        let (group, _) = rest.split_once(" in API group \"")?.1.split_once('"')?;
        let group = if group.is_empty() { "\"\"" } else { group };
        Some(format!(": its rule for apiGroups [{group}], resources [{resource}] needs the verb {verb}"))
    };
    found().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, message: &str) -> ApiError {
        let (path, reason, message) = ("/api/v1/pods".to_owned(), "R".to_owned(), message.to_owned());
        ApiError::Refused { verb: "GET", path, status, reason, message }
    }

    #[test]
    fn who_says_nothing_of_the_matter_is_away_and_who_says_no_is_not() {
        for status in [429, 500, 502, 503, 504] {
            assert!(refused(status, "etcdserver: request timed out").is_away(), "{status}");
        }
        for status in [400, 401, 403, 404, 409, 410, 422] {
            assert!(!refused(status, "no").is_away(), "{status}");
        }
        let source = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert!(ApiError::Unreachable { server: "https://a:1".to_owned(), source }.is_away());
    }

    #[test]
    fn who_may_not_is_told_the_manifest_of_its_own_role_and_the_rule() {
        let said = |account: &str| {
            let message = format!(
                "nodes is forbidden: User \"system:serviceaccount:egret-system:{account}\" cannot list resource \"nodes\" in API group \"\" at \
                 the cluster scope"
            );
            refused(403, &message).to_string()
        };
        let rule = "its rule for apiGroups [\"\"], resources [nodes] needs the verb list";
        for (account, file) in
            [("egret-agent", "`deploy/rbac.yaml`"), ("egret-controller", "`deploy/controller-rbac.yaml`")]
        {
            let said = said(account);
            assert!(said.contains(file) && said.ends_with(rule), "{said}");
        }
    }
}
