//! A host's addresses, as getent(1) tells them: a static program cannot load what the machine adds to its C library (nsswitch.conf(5)),
//! and a name server that does not answer then costs a process, not a thread.

use std::net::{IpAddr, SocketAddr};

use ureq::{
    Error,
    config::Config,
    http::Uri,
    unversioned::{
        resolver::{ResolvedSocketAddrs, Resolver},
        transport::NextTimeout,
    },
};

use crate::{
    exec::Failure,
    host::{Host, accounts::getent},
};

/// Asks getent on this machine.
#[derive(Debug)]
pub(super) struct Getent(pub(super) Host);

impl Resolver for Getent {
    fn resolve(&self, uri: &Uri, _: &Config, within: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.host().ok_or(Error::HostNotFound)?;
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let mut found = self.empty();
        for address in self.addresses(host, within)? {
            if found.try_push(SocketAddr::new(address, port)).is_err() {
                break;
            }
        }
        if found.is_empty() { Err(Error::HostNotFound) } else { Ok(found) }
    }
}

impl Getent {
    fn addresses(&self, host: &str, within: NextTimeout) -> Result<Vec<IpAddr>, Error> {
        // An address of version 6 stands in brackets in a URI (RFC 3986, section 3.2.2).
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse() {
            return Ok(vec![address]);
        }
        let asked = getent("ahosts", host).timeout(*within.after);
        match self.0.runner().run(&asked) {
            Ok(said) => Ok(parse(&said.text())),
            Err(e) if matches!(e.failure, Failure::TimedOut(_)) => Err(Error::Timeout(within.reason)),
            Err(e) => Err(Error::Io(std::io::Error::other(e))),
        }
    }
}

/// Each line begins with an address; each address stands in it once for each kind of socket.
fn parse(text: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for address in text.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()) {
        if !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use jiff::Timestamp;

    use super::*;
    use crate::exec::{Reply, ScriptedRunner};

    fn asked(runner: ScriptedRunner, url: &str) -> Result<Vec<String>, String> {
        let getent = Getent(Host::captured("/nowhere", Arc::new(runner), Timestamp::UNIX_EPOCH));
        let within = NextTimeout { after: Duration::from_secs(9).into(), ..NextTimeout::default() };
        let found = getent.resolve(&url.parse().unwrap(), &Config::default(), within);
        found.map(|all| all.iter().map(ToString::to_string).collect()).map_err(|e| e.to_string())
    }

    #[test]
    fn each_address_is_taken_once_in_the_order_told() {
        // libc-bin 2.36.
        let said = "2001:db8::5     STREAM node.example\n2001:db8::5     DGRAM  \n2001:db8::5     RAW    \n192.0.2.7       STREAM \n";
        let getent = || ScriptedRunner::new().on("getent -- ahosts node.example", Reply::ok(said));
        let found = asked(getent(), "https://node.example/hook").unwrap();
        assert_eq!(found, ["[2001:db8::5]:443", "192.0.2.7:443"]);
        assert_eq!(asked(getent(), "http://node.example:8080/").unwrap().last().unwrap(), "192.0.2.7:8080");
    }

    #[test]
    fn an_address_needs_nobody() {
        let found = |url| asked(ScriptedRunner::new(), url).unwrap();
        assert_eq!(found("http://192.0.2.7/"), ["192.0.2.7:80"]);
        assert_eq!(found("http://[::1]:7/"), ["[::1]:7"]);
    }

    #[test]
    fn a_name_without_an_address_is_not_found_and_no_getent_is_something_else() {
        let none = ScriptedRunner::new().on("getent", Reply::fail(2, ""));
        assert_eq!(asked(none, "http://node.example/").unwrap_err(), "host not found");
        let garbage = ScriptedRunner::new().on("getent", Reply::ok("\n \nno address\n"));
        assert_eq!(asked(garbage, "http://node.example/").unwrap_err(), "host not found");
        let many: String = (0..99).map(|n| format!("192.0.2.{n} STREAM\n")).collect();
        let many = ScriptedRunner::new().on("getent", Reply::ok(many));
        assert_eq!(asked(many, "http://node.example/").unwrap().len(), 16);
        assert!(asked(ScriptedRunner::new(), "http://node.example/").unwrap_err().contains("getent"));
    }
}
