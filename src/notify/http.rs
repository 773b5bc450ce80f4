//! One request over HTTP. The address is a secret: an error names the host in it at most.

use std::{io, sync::Arc, time::Duration};

use ureq::{
    Agent,
    config::Config,
    http::{HeaderValue, Uri},
    tls::{Certificate, RootCerts, TlsConfig},
    unversioned::transport::DefaultConnector,
};

use super::resolve::Getent;
use crate::host::Host;

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
pub(super) fn ask(
    machine: &Host,
    request: &Request<'_>,
    roots: Roots,
    limit: Duration,
) -> Result<(), HttpError> {
    let uri: Uri = request.url.parse().map_err(|_| HttpError::Address)?;
    let host = uri.host().filter(|host| !host.is_empty()).ok_or(HttpError::Address)?.to_owned();
    let token = request.token.map(|token| HeaderValue::try_from(format!("Bearer {token}")));
    let token = token.transpose().map_err(|_| HttpError::Token)?;
    let agent = agent(machine, &uri, &host, roots, limit)?;
    ask_by(&agent, request, (uri, &host), token, limit)
}

fn ask_by(
    agent: &Agent,
    request: &Request<'_>,
    (uri, host): (Uri, &str),
    token: Option<HeaderValue>,
    limit: Duration,
) -> Result<(), HttpError> {
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
    let status = answer.map_err(|e| meaning(e, host, limit))?.status();
    let host = host.to_owned();
    match status.as_u16() {
        200..=299 => Ok(()),
        status @ 300..=399 => Err(HttpError::Moved { host, status }),
        status => Err(HttpError::Status { host, status }),
    }
}

fn config(limit: Duration, tls: TlsConfig) -> Config {
    Agent::config_builder()
        .timeout_global(Some(limit))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        // cron and systemd hand no such variable down: what works in a test by hand must work there.
        .proxy(None)
        .user_agent(concat!("raidguard/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls)
        .build()
}

fn agent(machine: &Host, uri: &Uri, host: &str, roots: Roots, limit: Duration) -> Result<Agent, HttpError> {
    let agent =
        |tls| Agent::with_parts(config(limit, tls), DefaultConnector::default(), Getent(machine.clone()));
    if uri.scheme_str() != Some("https") {
        return Ok(agent(TlsConfig::default()));
    }
    let roots = roots.load();
    if roots.is_empty() {
        return Err(HttpError::NoRoots(host.to_owned()));
    }
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()));
    Ok(agent(tls.build()))
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

#[cfg(test)]
mod tests {
    use ureq::unversioned::{
        resolver::{ResolvedSocketAddrs, Resolver},
        transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport},
    };

    use super::*;

    const SECRET: &str = "s3cret";

    /// A server that says this, whatever it is asked, and hangs up.
    #[derive(Debug)]
    struct Says(Vec<u8>);

    #[derive(Debug)]
    struct Line {
        left: Vec<u8>,
        buffers: LazyBuffers,
    }

    impl Connector for Says {
        type Out = Line;

        fn connect(&self, _: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Line>, ureq::Error> {
            Ok(Some(Line { left: self.0.clone(), buffers: LazyBuffers::new(16 << 10, 16 << 10) }))
        }
    }

    impl Transport for Line {
        fn buffers(&mut self) -> &mut dyn Buffers {
            &mut self.buffers
        }

        fn transmit_output(&mut self, _: usize, _: NextTimeout) -> Result<(), ureq::Error> {
            Ok(())
        }

        fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
            let room = self.buffers.input_append_buf();
            let count = room.len().min(self.left.len());
            room[..count].copy_from_slice(&self.left[..count]);
            self.left.drain(..count);
            self.buffers.input_appended(count);
            Ok(count > 0)
        }

        fn is_open(&mut self) -> bool {
            true
        }
    }

    impl Resolver for Says {
        fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
            let mut found = self.empty();
            found.push("192.0.2.1:80".parse().unwrap());
            Ok(found)
        }
    }

    fn answered(bytes: &[u8]) -> Result<(), HttpError> {
        const LIMIT: Duration = Duration::from_secs(60);
        let agent =
            Agent::with_parts(config(LIMIT, TlsConfig::default()), Says(bytes.to_vec()), Says(Vec::new()));
        let url = format!("http://example.org/{SECRET}");
        let request = Request { url: &url, token: Some(SECRET), message: Some(("id-1", "{}")) };
        ask_by(&agent, &request, (url.parse().unwrap(), "example.org"), None, LIMIT)
    }

    #[test]
    fn an_answer_is_taken_at_its_word() {
        assert!(answered(b"HTTP/1.1 204 No Content\r\n\r\n").is_ok());
        assert!(answered(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_ok());
        let said = |bytes| answered(bytes).unwrap_err();
        assert!(matches!(said(b"HTTP/1.1 503 Busy\r\n\r\n"), HttpError::Status { status: 503, .. }));
        assert!(matches!(
            said(b"HTTP/1.1 301 Moved\r\nLocation: /s3cret\r\n\r\n"),
            HttpError::Moved { status: 301, .. }
        ));
        assert!(matches!(said(b"200 OK\r\n\r\n"), HttpError::Garbage(_)));
        assert!(matches!(said(b""), HttpError::Unreachable { .. }));
    }

    crate::fuzz::fuzzed!(fuzz_http_answer, bytes [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\nConnection: close\r\n\r\n",
        b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 120\r\n\r\n",
        b"HTTP/1.1 308 Permanent Redirect\r\nLocation: http://example.org/s3cret\r\nContent-Length: 0\r\n\r\n",
    ], |bytes| {
        match answered(bytes) {
            // Nobody is told that it arrived who was not told so.
            Ok(()) => assert!(bytes.windows(2).any(|w| w == b" 2"), "{bytes:?}"),
            Err(e) => {
                let text = crate::model::observed::causes(&e);
                assert!(!text.contains(SECRET), "{text}");
            }
        }
    });
}
