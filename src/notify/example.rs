//! Notices as the tests of the channels need them.

use proptest::prelude::*;

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

/// Any notice that an outbox can hold: long and empty texts, all characters.
pub(super) fn any_notice() -> impl Strategy<Value = Notice> {
    let text = || prop_oneof![Just(String::new()), "[@\\[<&\u{1f600}a-z:/ ]{0,4000}", ".{0,200}"];
    let texts = (text(), text(), text(), text(), text(), text());
    let kind = prop::sample::select(NoticeKind::ALL.to_vec());
    let url = prop::option::of("[a-z]{0,4000}");
    let flags = (any::<bool>(), any::<bool>(), any::<u32>(), prop::option::of(any::<(u64, u64)>()));
    (texts, kind, url, flags).prop_map(|(texts, kind, url, flags)| {
        let (title, text, version, command, id, host) = texts;
        let (acknowledged, test, deploy, failed) = flags;
        let url = url.map(|path| format!("https://status.example.org/{path}"));
        let (group, incident) = (id.clone(), ReleaseNumber(deploy));
        let moment = Moment(1_795_773_600_000);
        let at = "2026-11-27T10:00:00.000000Z".to_owned();
        let service = version.clone();
        let notice =
            Notice { title, text, version, command, id, host, group, service, ..hostile() };
        Notice { kind, url, acknowledged, test, incident, failed, moment, at, ..notice }
    })
}
