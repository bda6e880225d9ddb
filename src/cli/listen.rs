//! `--listen`: where pages of health and metrics are served.
//!
//! In: the flag. Out: addresses, none, or a sentence. Never: listens.

use std::net::SocketAddr;

use super::Refused;
use crate::probes::web;

/// The addresses that are meant, of which the first that can be had is taken; `None`: nowhere. `usual` is the flag's default.
///
/// # Errors
/// It is no address.
pub fn listen(text: &str, usual: &str) -> Result<Option<Vec<SocketAddr>>, Refused> {
    if text == "off" {
        return Ok(None);
    }
    let port = usual.rsplit(':').next().unwrap_or_default();
    let unread = |e| {
        let forms = format!("{usual}, [::1]:{port}, :{port} (every address), or `off`");
        Refused::misused(format!("--listen {text}: {e}; write it as {forms}"))
    };
    web::addresses(text).map(Some).map_err(unread)
}
