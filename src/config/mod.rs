//! As written -> every problem found -> [`Settings`].

mod settings;

pub use settings::{Address, CommandLine, Limits, Probe, ProbeKind, Runtime, Service, Settings};
