//! What TLS needs to know, made anew when what it is made of is replaced: a pod's `ca.crt` while the cluster's authority is rotated, a client
//! certificate that is renewed in its file, one that a program hands out.
//!
//! In: access, files, a program. Out: a configuration for connections. What cannot be used keeps what could. Never: reads the kubeconfig
//! again; whoever turns to another context there does not mean a process that runs.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::access::{Access, Credential};
use super::error::ApiError;
use super::exec::{Issued, is_over};

/// A program is not asked more often, however often the server refuses what it gave.
const ASK: Duration = Duration::from_secs(10);

/// Certificates or a key, and the file that they may come from once more.
#[derive(Clone)]
pub struct Pem {
    /// As it was read.
    pub text: Vec<u8>,
    /// `None`: it stood in the kubeconfig, or a program gave it.
    pub file: Option<PathBuf>,
}

/// Of one client.
#[derive(Debug)]
pub(super) struct Trust {
    current: Mutex<Current>,
    /// One renews at a time, and nobody else waits for the program meanwhile; when that was last asked.
    renewing: Mutex<Instant>,
}

struct Current {
    config: Arc<ClientConfig>,
    authority: Vec<u8>,
    issued: Option<Issued>,
    /// How the files looked when they were read.
    looks: Vec<Look>,
    /// What could not be used, so that it is said once.
    unusable: Option<String>,
}

/// Without what is secret.
impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Current({:?})", self.looks)
    }
}

/// Tells a replaced file from the one before: inode, time, size; `None`: it is not there.
type Look = Option<(u64, i64, i64, u64)>;

impl Trust {
    pub(super) fn new(access: &Access) -> Result<Trust, ApiError> {
        let looks = looks(access);
        let (authority, issued) = (access.authority.text.clone(), issued(&access.credential));
        let config = tls(&access.origin, &authority, issued.as_ref())?;
        let current = Current { config, authority, issued, looks, unusable: None };
        Ok(Trust { current: Mutex::new(current), renewing: Mutex::new(Instant::now()) })
    }

    /// For a new connection, and whether it is another than before. While another renews it is what was.
    pub(super) fn config(&self, access: &Access) -> (Arc<ClientConfig>, bool) {
        let is_due = {
            let current = self.current();
            let over = current.issued.as_ref().is_some_and(|issued| is_over(issued.until));
            over || current.looks != looks(access)
        };
        let alone = is_due.then(|| self.renewing.try_lock().ok()).flatten();
        let is_new = alone.is_some_and(|mut asked| self.renew_alone(access, &mut asked));
        (self.current().config.clone(), is_new)
    }

    /// The server or its certificate was refused, or we were, with what was `used`: everything is read again. Says whether anything is
    /// otherwise than that.
    pub(super) fn renew(&self, access: &Access, used: Option<&Arc<ClientConfig>>) -> bool {
        let mut asked = self.renewing.lock().unwrap_or_else(PoisonError::into_inner);
        // Another was refused before us, and has renewed it.
        let is_other = used.is_some_and(|used| !Arc::ptr_eq(used, &self.current().config));
        is_other || self.renew_alone(access, &mut asked)
    }

    fn renew_alone(&self, access: &Access, asked: &mut Instant) -> bool {
        // Looked at before they are read: what is replaced in between is seen the next time.
        let looks = looks(access);
        let (known, had) = {
            let mut current = self.current();
            current.looks = looks;
            (current.authority.clone(), current.issued.clone())
        };
        let authority = again(&access.authority).and_then(|text| roots(&access.origin, &text).map(|_| text));
        let issued = issued_anew(access, &known, asked);
        let failed = authority.as_ref().err().or(issued.as_ref().err()).map(ToString::to_string);
        let mut current = self.current();
        // Of a program that was not asked again nothing new is known.
        if failed.is_some() || !matches!(issued, Ok(Anew::NotAsked)) {
            current.fails(failed);
        }
        let authority = authority.unwrap_or(known);
        let issued = match issued {
            Ok(Anew::Is(issued)) => issued,
            Ok(Anew::NotAsked) | Err(_) => had,
        };
        current.becomes(access, authority, issued)
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was read or handed out once more.
enum Anew {
    Is(Option<Issued>),
    /// The program was asked a moment ago.
    NotAsked,
}

impl Current {
    fn fails(&mut self, why: Option<String>) {
        if let Some(why) = why.as_ref().filter(|why| self.unusable.as_ref() != Some(why)) {
            tracing::warn!(why, "what was read before stays in use");
        }
        self.unusable = why;
    }

    /// Says whether that is something else.
    fn becomes(&mut self, access: &Access, authority: Vec<u8>, issued: Option<Issued>) -> bool {
        if authority == self.authority && issued == self.issued {
            return false;
        }
        let Ok(config) = tls(&access.origin, &authority, issued.as_ref()) else { return false };
        tracing::info!(from = access.origin, "certificates were replaced, and are used from now on");
        (self.config, self.authority, self.issued) = (config, authority, issued);
        true
    }
}

/// A certificate that can be used with its key.
fn issued_anew(access: &Access, authority: &[u8], asked: &mut Instant) -> Result<Anew, ApiError> {
    let issued = match &access.credential {
        Credential::Certificate { chain, key } => {
            Issued { chain: again(chain)?, key: again(key)?, until: None }
        }
        Credential::Issued(program, _) => {
            if asked.elapsed() < ASK {
                return Ok(Anew::NotAsked);
            }
            let given = program.certificate();
            *asked = Instant::now();
            given?
        }
        Credential::Token(_) | Credential::TokenFile(_) | Credential::Program(_) => {
            return Ok(Anew::Is(None));
        }
    };
    tls(&access.origin, authority, Some(&issued))?;
    Ok(Anew::Is(Some(issued)))
}

/// Whether this is a failure that other certificates might mend.
pub(super) fn is_about_certificates(error: &io::Error) -> bool {
    use rustls::AlertDescription::{
        AccessDenied, BadCertificate, CertificateExpired, CertificateRequired, CertificateRevoked,
        CertificateUnknown, DecryptError, UnknownCA, UnsupportedCertificate,
    };
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(_)) => true,
        Some(rustls::Error::AlertReceived(alert)) => matches!(
            alert,
            AccessDenied
                | BadCertificate
                | CertificateExpired
                | CertificateRequired
                | CertificateRevoked
                | CertificateUnknown
                | DecryptError
                | UnknownCA
                | UnsupportedCertificate
        ),
        _ => false,
    }
}

fn issued(credential: &Credential) -> Option<Issued> {
    match credential {
        Credential::Certificate { chain, key } => {
            Some(Issued { chain: chain.text.clone(), key: key.text.clone(), until: None })
        }
        Credential::Issued(_, issued) => Some(issued.clone()),
        Credential::Token(_) | Credential::TokenFile(_) | Credential::Program(_) => None,
    }
}

fn again(pem: &Pem) -> Result<Vec<u8>, ApiError> {
    let Some(file) = &pem.file else { return Ok(pem.text.clone()) };
    fs::read(file).map_err(|e| ApiError::Access(format!("{}: cannot be read: {e}", file.display())))
}

fn looks(access: &Access) -> Vec<Look> {
    let own = match &access.credential {
        Credential::Certificate { chain, key } => [Some(chain), Some(key)],
        _ => [None, None],
    };
    let files = own.into_iter().flatten().chain([&access.authority]).filter_map(|pem| pem.file.as_deref());
    files.map(look).collect()
}

fn look(file: &Path) -> Look {
    let found = fs::metadata(file).ok()?;
    Some((found.ino(), found.mtime(), found.mtime_nsec(), found.len()))
}

fn no(origin: &str, what: &str, why: &dyn std::fmt::Display) -> ApiError {
    ApiError::Access(format!("{origin}: {what} cannot be used: {why}"))
}

fn roots(origin: &str, authority: &[u8]) -> Result<RootCertStore, ApiError> {
    let no = |why: &dyn std::fmt::Display| no(origin, "the certificate authority", why);
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority) {
        roots.add(certificate.map_err(|e| no(&e))?).map_err(|e| no(&e))?;
    }
    if roots.is_empty() {
        return Err(no(&"there is no certificate in it"));
    }
    Ok(roots)
}

fn tls(origin: &str, authority: &[u8], issued: Option<&Issued>) -> Result<Arc<ClientConfig>, ApiError> {
    let no = |what: &str, why: &dyn std::fmt::Display| no(origin, what, why);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| no("TLS", &e))?
        .with_root_certificates(roots(origin, authority)?);
    let Some(Issued { chain, key, .. }) = issued else {
        return Ok(Arc::new(config.with_no_client_auth()));
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let chain = chain.map_err(|e| no("the client certificate", &e))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| no("the client key", &e))?;
    let config = config.with_client_auth_cert(chain, key).map_err(|e| no("the client certificate", &e))?;
    Ok(Arc::new(config))
}
