//! The tests of each call, by its number. Numbers are small and dense, so a list finds them without a search.

use crate::judge::trial::call_tests::CallTests;

/// The tests of the calls that have had a request.
#[derive(Debug, Clone, Default)]
pub(super) struct CallTable {
    /// By number; None: no request yet.
    tests: Vec<Option<Box<CallTests>>>,
}

impl CallTable {
    /// The tests of a call.
    pub(super) fn get_mut(&mut self, call: u16) -> Option<&mut CallTests> {
        self.tests.get_mut(usize::from(call))?.as_deref_mut()
    }

    /// The same; a new call gets these.
    pub(super) fn get_or_insert_with(
        &mut self,
        call: u16,
        new: impl FnOnce() -> CallTests,
    ) -> Option<&mut CallTests> {
        let index = usize::from(call);
        if self.tests.len() <= index {
            self.tests.resize(index + 1, None);
        }
        let tests = self.tests.get_mut(index)?;
        Some(tests.get_or_insert_with(|| Box::new(new())))
    }

    /// All of them, in the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, &CallTests)> {
        (0..).zip(&self.tests).filter_map(|(call, tests)| Some((call, tests.as_deref()?)))
    }

    /// The same without the numbers.
    pub(super) fn values(&self) -> impl Iterator<Item = &CallTests> {
        self.tests.iter().filter_map(Option::as_deref)
    }

    /// The same, to change.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut CallTests> {
        self.tests.iter_mut().filter_map(Option::as_deref_mut)
    }
}
