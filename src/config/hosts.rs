//! The hosts and origins that a service accepts.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use toml::Spanned;

use crate::config::problem::{Problem, ProblemCode, Problems, shorten};
use crate::config::value::Raw;

/// The hosts that requests may name. By default the names of loopback and of the listen address.
pub(super) fn served_hosts(
    raw: &Raw<Vec<Spanned<String>>>,
    listen: SocketAddr,
    problems: &mut Problems,
) -> BTreeSet<String> {
    let Some(given) = raw else {
        let mut hosts: BTreeSet<_> = ["localhost", "127.0.0.1", "[::1]"].map(String::from).into();
        if !listen.ip().is_unspecified() {
            hosts.insert(host_of_ip(listen.ip()));
        }
        return hosts;
    };
    for host in given.get_ref() {
        let text = host.get_ref();
        if text != "*" && !is_host(text) {
            let what = format!("\"{}\" is not a host", shorten(text));
            let help = "write a name or an address, without scheme, port and path, such as \"mcp.example.org\" \
                        or \"[::1]\"; \"*\" for all";
            problems.push(Problem::error(ProblemCode::BadValue, host.span(), what).help(help));
        }
    }
    if given.get_ref().is_empty() {
        let what = "no host is allowed: the proxy would refuse every request";
        let help = "write hosts = [\"localhost\"], or leave hosts out for the loopback names";
        problems.push(Problem::error(ProblemCode::RefusesClients, given.span(), what).help(help));
    }
    lowercase_names(given, problems)
}

/// The origins that requests may have, besides requests without one.
pub(super) fn served_origins(
    raw: &Raw<Vec<Spanned<String>>>,
    problems: &mut Problems,
) -> BTreeSet<String> {
    let Some(given) = raw else {
        return BTreeSet::new();
    };
    for origin in given.get_ref() {
        let text = origin.get_ref();
        let host = text.split_once("://").filter(|(scheme, _)| {
            !scheme.is_empty() && scheme.chars().all(|it| it.is_ascii_alphanumeric() || it == '-')
        });
        let plain = host.is_some_and(|(_, host)| is_host(without_port(host)));
        if text != "*" && !plain {
            let what = format!("\"{}\" is not an origin", shorten(text));
            let help = "write scheme, host and port as browsers send them, without a path: \
                        \"https://app.example.org\"";
            problems.push(Problem::error(ProblemCode::BadValue, origin.span(), what).help(help));
        }
    }
    lowercase_names(given, problems)
}

/// The names in lower case. Beside "*", other names have no effect.
fn lowercase_names(
    given: &Spanned<Vec<Spanned<String>>>,
    problems: &mut Problems,
) -> BTreeSet<String> {
    let names = given.get_ref();
    if names.len() > 1 && names.iter().any(|name| name.get_ref() == "*") {
        let what = "\"*\" allows all; the other names have no effect";
        let help = "write [\"*\"], or only the names";
        problems.push(Problem::error(ProblemCode::Contradiction, given.span(), what).help(help));
    }
    names.iter().map(|name| name.get_ref().to_ascii_lowercase()).collect()
}

pub(super) fn is_host(text: &str) -> bool {
    let plain = |it: char| it.is_ascii_alphanumeric() || it == '-' || it == '.' || it == '_';
    let address = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => (1..=253).contains(&text.len()) && text.chars().all(plain),
    }
}

pub(super) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        _ => host,
    }
}

fn host_of_ip(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}
