//! Every address has one owner.

use std::ops::Range;

use super::problem::{Problem, ProblemCode, Problems};
use super::settings::Address;

/// The addresses that were claimed so far.
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
    /// Claims an address that must be owned by nobody else. `owner` is such as "slot `blue`".
    pub(super) fn claim(
        &mut self,
        address: Address,
        owner: String,
        at: Range<usize>,
        problems: &mut Problems,
    ) {
        if let Some(first) = self.claims.iter().find(|claim| conflicts(&claim.address, &address)) {
            let what = format!("{owner} takes the address of {}", first.owner);
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

/// Whether two things can not both listen there. One that listens on every interface takes the
/// port from all.
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
