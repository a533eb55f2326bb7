//! The points of an explanation, in their order.

use crate::control::ExplanationPoint;

/// The points of an explanation.
#[derive(Default)]
pub(super) struct Points(pub(super) Vec<ExplanationPoint>);

impl Points {
    /// Adds one.
    pub(super) fn push(&mut self, topic: &str, text: impl Into<String>) {
        self.0.push(ExplanationPoint { topic: topic.to_owned(), text: text.into() });
    }

    /// Adds one where there is a text.
    pub(super) fn extend(&mut self, topic: &str, text: Option<&String>) {
        text.into_iter().for_each(|text| self.push(topic, text));
    }
}
