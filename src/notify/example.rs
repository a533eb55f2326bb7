//! A notice as the tests of the channels need it.

use crate::incident::{Notice, NoticeKind};
use crate::model::{Moment, ReleaseNumber};

/// A notice whose release tries everything.
pub(super) fn hostile() -> Notice {
    let text = "weather: v2 is degraded: [click](https://evil.example) <!channel> @all \
                <script>alert(1)</script> `x` \"quoted\"";
    let mut notice = Notice::new(NoticeKind::Page, "weather", ReleaseNumber(7), "4")
        .text("v2: <https://evil.example|rolled back>", text)
        .at("2026-11-27T10:00:00.000000Z", Moment(1_795_773_600_000))
        .command("rollbackd postmortem weather 7".to_owned());
    notice.host = "host1".to_owned();
    notice.version = "v2".to_owned();
    notice.failed = Some((12, 538));
    notice
}
