//! The evidence against one objective, and the same without the source that fails most.
//!
//! A retrying client or a hostile one can bring any number of failures, but they are one witness. What is
//! left out of `others` is chosen by the failures so far. Leaving requests out of a product of factors in
//! that way keeps its expectation at most 1: the source that is left out is the one that has failed most,
//! so what remains has failed at most as often as the null allows.

use crate::judge::e_process::EProcess;
use crate::model::Moment;

/// Two e-processes about the same requests.
#[derive(Debug, Clone)]
pub(super) struct SplitProcess {
    all: EProcess,
    /// None until a source is left out: they are equal until then.
    others: Option<EProcess>,
}

impl SplitProcess {
    /// Nothing gathered.
    pub(super) fn new(all: EProcess) -> Self {
        Self { all, others: None }
    }

    /// Takes in one block of `n` requests, `bad` of them bad. `left_out` is the part of the source that
    /// fails most, where there are others.
    pub(super) fn update(
        &mut self,
        start: Moment,
        ms: u32,
        (n, bad): (u64, u64),
        left_out: Option<(u64, u64)>,
    ) {
        if left_out.is_some() && self.others.is_none() {
            self.others = Some(self.all.clone());
        }
        self.all.update(start, ms, n, bad);
        if let Some(others) = &mut self.others {
            let (left_n, left_bad) = left_out.unwrap_or_default();
            others.update(start, ms, n.saturating_sub(left_n), bad.saturating_sub(left_bad));
        }
    }

    /// Drops what was gathered.
    pub(super) fn reset_evidence(&mut self) {
        self.all.reset_evidence();
        self.others = None;
    }

    /// The evidence of all requests.
    pub(super) fn all(&self) -> &EProcess {
        &self.all
    }

    /// The evidence that says how bad it is: without the source that fails most, where the others are enough.
    pub(super) fn of_several(&self) -> &EProcess {
        self.others.as_ref().filter(|others| others.is_broken()).unwrap_or(&self.all)
    }

    /// Whether more than one source makes it enough, or there is only one.
    pub(super) fn is_broken_without_worst(&self) -> bool {
        self.others.as_ref().is_none_or(EProcess::is_broken)
    }
}
