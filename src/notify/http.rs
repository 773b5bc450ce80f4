//! One request over HTTP. The address is a secret: an error names the host in it at most.

use std::{io, sync::Arc, time::Duration};

use ureq::{
    Agent,
    http::{HeaderValue, Uri},
    tls::{Certificate, RootCerts, TlsConfig},
};

/// Why a request was not answered well.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address makes no sense.
    #[error("the address in the file of secrets is not a valid one")]
    Address,
    /// The token makes no sense.
    #[error("the token in the file of secrets has characters that cannot be sent")]
    Token,
    /// Nobody can be trusted.
    #[error(
        "no root certificates are on this machine, so {0} cannot be trusted: `apt install ca-certificates`"
    )]
    NoRoots(String),
    /// The name leads nowhere.
    #[error("the host {0} is not found")]
    NotFound(String),
    /// No connection, or none that can be trusted, or it broke.
    #[error("no answer from {host}: {why}")]
    Unreachable {
        /// The host.
        host: String,
        /// Why.
        why: String,
    },
    /// It takes too long.
    #[error("no answer from {host} within {} s", .limit.as_secs())]
    Late {
        /// The host.
        host: String,
        /// The limit.
        limit: Duration,
    },
    /// The answer is no HTTP.
    #[error("the answer of {0} is no HTTP")]
    Garbage(String),
    /// The answer is a redirect, which is not followed: a secret would go to whom it was not given.
    #[error(
        "{host} answered {status}, that the address is another now: write that one into the file of secrets"
    )]
    Moved {
        /// The host.
        host: String,
        /// The status.
        status: u16,
    },
    /// The answer is no.
    #[error("{host} answered {status}")]
    Status {
        /// The host.
        host: String,
        /// The status.
        status: u16,
    },
}

/// What is asked for.
pub(super) struct Request<'a> {
    /// Where.
    pub(super) url: &'a str,
    /// Sent along as `Authorization: Bearer`.
    pub(super) token: Option<&'a str>,
    /// What is sent, with what tells a repetition of it; else it is only asked for.
    pub(super) message: Option<(&'a str, &'a str)>,
}

/// Who vouches for a server.
pub(super) enum Roots {
    /// Those whom the machine trusts.
    OfTheMachine,
    /// These alone.
    #[cfg(test)]
    These(Vec<Certificate<'static>>),
}

impl Roots {
    fn load(self) -> Vec<Certificate<'static>> {
        match self {
            Self::OfTheMachine => {
                let found = rustls_native_certs::load_native_certs().certs;
                found.iter().map(|der| Certificate::from_der(der.as_ref()).to_owned()).collect()
            }
            #[cfg(test)]
            Self::These(roots) => roots,
        }
    }
}

/// Sends a request; well means any 2xx. The answer's body is nobody's business and is not read.
///
/// # Errors
/// Anything else.
pub(super) fn ask(request: &Request<'_>, roots: Roots, limit: Duration) -> Result<(), HttpError> {
    let uri: Uri = request.url.parse().map_err(|_| HttpError::Address)?;
    let host = uri.host().filter(|host| !host.is_empty()).ok_or(HttpError::Address)?.to_owned();
    let token = request.token.map(|token| HeaderValue::try_from(format!("Bearer {token}")));
    let token = token.transpose().map_err(|_| HttpError::Token)?;
    let agent = agent(&uri, &host, roots, limit)?;
    let answer = match request.message {
        Some((id, body)) => {
            let mut post =
                agent.post(uri).header("Content-Type", "application/json").header("Idempotency-Key", id);
            if let Some(token) = token {
                post = post.header("Authorization", token);
            }
            post.send(body)
        }
        None => agent.get(uri).call(),
    };
    let status = answer.map_err(|e| meaning(e, &host, limit))?.status();
    match status.as_u16() {
        200..=299 => Ok(()),
        status @ 300..=399 => Err(HttpError::Moved { host, status }),
        status => Err(HttpError::Status { host, status }),
    }
}

fn agent(uri: &Uri, host: &str, roots: Roots, limit: Duration) -> Result<Agent, HttpError> {
    let config = Agent::config_builder()
        .timeout_global(Some(limit))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        // cron and systemd hand no such variable down: what works in a test by hand must work there.
        .proxy(None)
        .user_agent(concat!("raidguard/", env!("CARGO_PKG_VERSION")));
    if uri.scheme_str() != Some("https") {
        return Ok(config.build().new_agent());
    }
    let roots = roots.load();
    if roots.is_empty() {
        return Err(HttpError::NoRoots(host.to_owned()));
    }
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()));
    Ok(config.tls_config(tls.build()).build().new_agent())
}

/// ureq's own words may hold the address: only what is known not to is passed on.
fn meaning(error: ureq::Error, host: &str, limit: Duration) -> HttpError {
    let host = host.to_owned();
    let unreachable =
        |host, why: &dyn std::fmt::Display| HttpError::Unreachable { host, why: why.to_string() };
    match error {
        ureq::Error::Timeout(_) => HttpError::Late { host, limit },
        ureq::Error::Io(e) if e.kind() == io::ErrorKind::TimedOut => HttpError::Late { host, limit },
        ureq::Error::Io(e) => unreachable(host, &e),
        ureq::Error::Rustls(e) => unreachable(host, &e),
        ureq::Error::Tls(e) => unreachable(host, &e),
        ureq::Error::HostNotFound => HttpError::NotFound(host),
        ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..) => HttpError::Garbage(host),
        ureq::Error::BadUri(_) => HttpError::Address,
        _ => unreachable(host, &"the request failed"),
    }
}
