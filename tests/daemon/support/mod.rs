//! A host of its own for each test: a folder, free ports, a daemon, and nothing left behind.

mod dice;
mod host;
mod ports;
mod processes;
mod server;
mod time;
mod verb;
mod web;

pub(crate) use dice::Dice;
pub(crate) use host::{Host, SERVICE};
pub(crate) use ports::free_port;
pub(crate) use processes::{Running, exists, running};
pub(crate) use server::Server;
pub(crate) use time::{epoch_ms, pause, soon, until};
pub(crate) use verb::{Done, Verb};
pub(crate) use web::{Load, ask};
