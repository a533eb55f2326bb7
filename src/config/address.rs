//! The addresses of the configuration. Each has one owner.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;

use crate::config::problem::{Problem, ProblemCode, Problems};

/// The address of a slot or a socket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The addresses that already have an owner.
#[derive(Default)]
pub(super) struct AddressRegistry {
    claims: Vec<Claim>,
}

struct Claim {
    address: Address,
    owner: String,
    span: Range<usize>,
}

impl AddressRegistry {
    /// Registers an address, and reports it if it has another owner. `owner` is such as
    /// "slot `blue`".
    pub(super) fn claim(
        &mut self,
        address: Address,
        owner: String,
        at: Range<usize>,
        problems: &mut Problems,
    ) {
        if let Some(first) = self.claims.iter().find(|claim| conflicts(&claim.address, &address)) {
            let what = format!("{owner} uses the same address as {}", first.owner);
            let help = match address {
                Address::Tcp(_) => "give each its own port",
                Address::Unix(_) => "give each its own socket",
            };
            let label = format!("{} is here", first.owner);
            let problem =
                Problem::error(ProblemCode::DuplicateAddress, at.clone(), what).help(help);
            problems.push(problem.related(first.span.clone(), label));
        }
        self.claims.push(Claim { address, owner, span: at });
    }
}

/// Whether two listeners exclude each other. One that listens on every interface has the port of
/// all addresses.
fn conflicts(a: &Address, b: &Address) -> bool {
    match (a, b) {
        (Address::Tcp(a), Address::Tcp(b)) => {
            let wildcard = a.ip().is_unspecified() || b.ip().is_unspecified();
            a.port() != 0 && a.port() == b.port() && (wildcard || a.ip() == b.ip())
        }
        (Address::Unix(a), Address::Unix(b)) => a == b,
        (Address::Tcp(_), Address::Unix(_)) | (Address::Unix(_), Address::Tcp(_)) => false,
    }
}
