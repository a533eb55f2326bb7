//! The verbs.

pub mod demo;
