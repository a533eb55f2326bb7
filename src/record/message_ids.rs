//! The kinds of messages in systemd's journal: the stable MESSAGE_ID and the PRIORITY of each.
//!
//! Operators filter and alert by these ids. An id that was released never changes its meaning.
//! `systemd/rollbackd.catalog` explains each.

use tracing_journald::Priority;

/// What a kind of message has in the journal.
#[derive(Debug)]
pub(super) struct MessageKind {
    pub(super) name: &'static str,
    pub(super) id: &'static str,
    pub(super) priority: Priority,
}

const fn kind(name: &'static str, id: &'static str, priority: Priority) -> MessageKind {
    MessageKind { name, id, priority }
}

#[rustfmt::skip]
static MESSAGE_KINDS: &[MessageKind] = &[
    kind("deployed", "5cc69618c1364b789ec5ab85a56182c3", Priority::Notice),
    kind("replaced", "c2b0a1c6e2d94b0f8f6f4a1d7c3f5e90", Priority::Critical),
    kind("ready", "671a3857aa174661b9cd63a11044aeab", Priority::Informational),
    kind("failed", "3f354f22343447b18c9bc20043c89975", Priority::Error),
    kind("switched", "a3f47c4c7ce3498e9f6a98ffd2ab5276", Priority::Notice),
    kind("stepped", "8f0c3bd0b8a64f5c9d1e2a7746c05b13", Priority::Notice),
    kind("accepted", "a4c27c9abfdd430c9b7298fbe232d9bd", Priority::Notice),
    kind("detected", "3cfa249cc4ce45cfa7bda14aa8043c82", Priority::Warning),
    kind("reviving", "f35e1a2a84584ca1b10aaf5adc7bcf04", Priority::Warning),
    kind("abandoned", "38beabfd678e4d7baab22aa119349953", Priority::Critical),
    kind("decided", "55e03dd11f374c9cba710a557fd74ba4", Priority::Warning),
    kind("escalated", "3f1aa6eed2684ebdaeee210034d8f1de", Priority::Warning),
    kind("drained", "3c6023f93c574edea50a6668f5ac7f54", Priority::Notice),
    kind("cut", "783f12070aeb4ad08f7960a1d30b432c", Priority::Warning),
    kind("recovered", "0b24f89a4d9d45f4ab10e6c0483dd2fd", Priority::Notice),
    kind("unrecovered", "d74027c36c824845a506bbdbcadf68e4", Priority::Error),
    kind("blocked", "ee8769e1da9f409e893324e36e4a92f6", Priority::Warning),
    kind("cleared", "2ae4ece303b445d0a7987b6b0358bccd", Priority::Notice),
    kind("held", "3f52ba5cce3e45d085372b257575fe0e", Priority::Notice),
    kind("resumed", "7aa3ceaefa2346f5a06be54c6b57ba89", Priority::Notice),
    kind("retried", "5841983abca840039040c93922b9d5d8", Priority::Warning),
    kind("restored", "6fe81e0832f24e5fb54a9ec571797194", Priority::Notice),
    kind("paused", "c6e6ba54be974f9caeb9c06f591a4ac2", Priority::Warning),
    kind("notified", "5d0f2b7c9a4e4c63b8f11f6a2e7d9043", Priority::Informational),
    kind("acknowledged", "9c3e6a1d7b2f4e58a0d4c6b8e2f71a35", Priority::Notice),
    kind("reloaded", "41d7c0e59b3a4f0c9a6e2b8d5f17c3e8", Priority::Notice),
    kind("noted", "6375d86bf5104d48836c4c717693aa54", Priority::Warning),
    kind("page", "944b3824532b4e56b5242f25a05f5c30", Priority::Critical),
];

/// The kind of a message that pages the operator.
pub(super) const PAGE_KIND: &str = "page";
/// Its priority, also that of timeline entries that page the operator.
pub(super) const PAGE_PRIORITY: Priority = Priority::Critical;

/// The kind of a timeline event, or of `page`.
pub(super) fn lookup(name: &str) -> Option<&'static MessageKind> {
    MESSAGE_KINDS.iter().find(|kind| kind.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::TimelineEvent;

    const CATALOG: &str = include_str!("../../systemd/rollbackd.catalog");

    /// The names of all timeline events, as serde lists them.
    fn kinds() -> Vec<String> {
        let unknown = serde_json::json!({"kind": "no such kind"});
        let error = serde_json::from_value::<TimelineEvent>(unknown).unwrap_err().to_string();
        let (_, list) = error.split_once("expected one of").unwrap();
        list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn every_kind_has_its_own_id() {
        let mut expected: BTreeSet<_> = kinds().into_iter().collect();
        assert!(expected.contains("deployed") && expected.len() > 15, "{expected:?}");
        // Names of 0.1.0, which are read and never written.
        for old in ["found", "asked_again"] {
            assert!(expected.remove(old), "{old}");
        }
        expected.insert(PAGE_KIND.to_owned());
        let names: BTreeSet<_> = MESSAGE_KINDS.iter().map(|kind| kind.name.to_owned()).collect();
        assert_eq!(names, expected);
        let ids: BTreeSet<_> = MESSAGE_KINDS.iter().map(|kind| kind.id).collect();
        assert_eq!(ids.len(), MESSAGE_KINDS.len());
        assert!(ids.iter().all(|id| id.len() == 32 && id.chars().all(|c| c.is_ascii_hexdigit())));
    }

    #[test]
    fn every_kind_has_an_entry_in_the_catalog() {
        for MessageKind { name: kind, id, .. } in MESSAGE_KINDS {
            let head = format!("\n-- {id}\n");
            let mut parts = CATALOG.split(&head).skip(1);
            let entry = parts.next().unwrap_or_else(|| panic!("{kind} is not in the catalog"));
            let entry = entry.split("\n-- ").next().unwrap_or_default();
            assert!(entry.starts_with("Subject: "), "{kind}");
            let explains = entry.split_once("\n\n").map_or("", |(_, text)| text);
            assert!(explains.len() > 60, "{kind}: what it means, and what to do");
            assert!(parts.next().is_none(), "{kind} is in the catalog twice");
        }
        assert_eq!(CATALOG.matches("\n-- ").count(), MESSAGE_KINDS.len());
    }

    /// The released ids. Lines are added; none is changed.
    #[test]
    fn released_ids_stay() {
        let shipped = [
            "deployed 5cc69618c1364b789ec5ab85a56182c3",
            "ready 671a3857aa174661b9cd63a11044aeab",
            "failed 3f354f22343447b18c9bc20043c89975",
            "switched a3f47c4c7ce3498e9f6a98ffd2ab5276",
            "accepted a4c27c9abfdd430c9b7298fbe232d9bd",
            "detected 3cfa249cc4ce45cfa7bda14aa8043c82",
            "reviving f35e1a2a84584ca1b10aaf5adc7bcf04",
            "abandoned 38beabfd678e4d7baab22aa119349953",
            "decided 55e03dd11f374c9cba710a557fd74ba4",
            "escalated 3f1aa6eed2684ebdaeee210034d8f1de",
            "drained 3c6023f93c574edea50a6668f5ac7f54",
            "cut 783f12070aeb4ad08f7960a1d30b432c",
            "recovered 0b24f89a4d9d45f4ab10e6c0483dd2fd",
            "unrecovered d74027c36c824845a506bbdbcadf68e4",
            "blocked ee8769e1da9f409e893324e36e4a92f6",
            "cleared 2ae4ece303b445d0a7987b6b0358bccd",
            "held 3f52ba5cce3e45d085372b257575fe0e",
            "resumed 7aa3ceaefa2346f5a06be54c6b57ba89",
            "retried 5841983abca840039040c93922b9d5d8",
            "restored 6fe81e0832f24e5fb54a9ec571797194",
            "noted 6375d86bf5104d48836c4c717693aa54",
            "page 944b3824532b4e56b5242f25a05f5c30",
            "replaced c2b0a1c6e2d94b0f8f6f4a1d7c3f5e90",
        ];
        let now: Vec<_> =
            MESSAGE_KINDS.iter().map(|kind| format!("{} {}", kind.name, kind.id)).collect();
        for line in shipped {
            assert!(now.iter().any(|it| it == line), "{line}");
        }
    }
}
