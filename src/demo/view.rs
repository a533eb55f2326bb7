//! What shows the demo while it runs.

use crate::control::Status;
use crate::demo::traffic::LiveCounts;

/// Shows the demo to a person. The methods can be called from several places of one task.
pub trait View: Sync {
    /// Shows a line that stays.
    fn show_line(&self, text: &str);

    /// Whether [`show_picture`](Self::show_picture) shows anything.
    fn shows_pictures(&self) -> bool;

    /// Shows the picture in the place of the one before.
    fn show_picture(&self, picture: &Picture);

    /// Removes the picture.
    fn clear_picture(&self);
}

/// The state of the demo at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// The service as the daemon reports it.
    pub status: Status,
    /// The traffic as the clients see it.
    pub clients: LiveCounts,
}
