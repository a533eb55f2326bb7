//! The status page: read-only HTML about every service, live while it is open.
//!
//! 1. The [`collector`] asks each service loop for its status once a second and after each event of
//!    its timeline, and publishes a [`snapshot`](snapshot::Snapshot). It has the same data as
//!    `rollbackd status` and `rollbackd timeline`.
//! 2. The [`server`] checks the Host, and renders a snapshot with [`pages`]. Pages are complete
//!    without JavaScript; without it they reload every five seconds.
//! 3. A script on the page opens an event stream. A [`follower`] sends the sections that changed.
//!
//! Everything has a limit: connections, followers, requests, the samples of a chart, the lines of a
//! timeline. Text of releases and operators is escaped twice: what changes the text around it on a
//! screen ([`format::plain`]), and HTML by the templates.

mod attention;
mod collector;
mod follower;
mod format;
mod listener;
mod pages;
mod samples;
mod server;
mod snapshot;
mod steps;

pub use crate::web::listener::PageListener;
pub(crate) use crate::web::server::serve;
