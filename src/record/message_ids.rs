//! The kinds of messages in systemd's journal: the stable MESSAGE_ID and the PRIORITY of each.
//!
//! Operators filter and alert by these ids. An id that was released never changes its meaning.
//! `systemd/rollbackd.catalog` explains each.

/// An operator has to act now.
const CRITICAL: u8 = 2;
const ERROR: u8 = 3;
const WARNING: u8 = 4;
const NOTICE: u8 = 5;
const INFO: u8 = 6;

/// Kind, MESSAGE_ID, PRIORITY.
#[rustfmt::skip]
const MESSAGE_KINDS: &[(&str, &str, u8)] = &[
    ("deployed", "5cc69618c1364b789ec5ab85a56182c3", NOTICE),
    ("replaced", "c2b0a1c6e2d94b0f8f6f4a1d7c3f5e90", CRITICAL),
    ("ready", "671a3857aa174661b9cd63a11044aeab", INFO),
    ("failed", "3f354f22343447b18c9bc20043c89975", ERROR),
    ("switched", "a3f47c4c7ce3498e9f6a98ffd2ab5276", NOTICE),
    ("accepted", "a4c27c9abfdd430c9b7298fbe232d9bd", NOTICE),
    ("detected", "3cfa249cc4ce45cfa7bda14aa8043c82", WARNING),
    ("reviving", "f35e1a2a84584ca1b10aaf5adc7bcf04", WARNING),
    ("abandoned", "38beabfd678e4d7baab22aa119349953", CRITICAL),
    ("decided", "55e03dd11f374c9cba710a557fd74ba4", WARNING),
    ("escalated", "3f1aa6eed2684ebdaeee210034d8f1de", WARNING),
    ("drained", "3c6023f93c574edea50a6668f5ac7f54", NOTICE),
    ("cut", "783f12070aeb4ad08f7960a1d30b432c", WARNING),
    ("recovered", "0b24f89a4d9d45f4ab10e6c0483dd2fd", NOTICE),
    ("unrecovered", "d74027c36c824845a506bbdbcadf68e4", ERROR),
    ("blocked", "ee8769e1da9f409e893324e36e4a92f6", WARNING),
    ("cleared", "2ae4ece303b445d0a7987b6b0358bccd", NOTICE),
    ("held", "3f52ba5cce3e45d085372b257575fe0e", NOTICE),
    ("resumed", "7aa3ceaefa2346f5a06be54c6b57ba89", NOTICE),
    ("retried", "5841983abca840039040c93922b9d5d8", WARNING),
    ("restored", "6fe81e0832f24e5fb54a9ec571797194", NOTICE),
    ("noted", "6375d86bf5104d48836c4c717693aa54", WARNING),
    ("page", "944b3824532b4e56b5242f25a05f5c30", CRITICAL),
];

/// The kind of a message that pages the operator.
pub(super) const PAGE_KIND: &str = "page";
/// Its priority, also that of timeline entries that page the operator.
pub(super) const PAGE_PRIORITY: u8 = CRITICAL;

/// MESSAGE_ID and PRIORITY of a kind of entry, or of `page`.
pub(super) fn lookup(kind: &str) -> Option<(&'static str, u8)> {
    MESSAGE_KINDS.iter().find(|(name, ..)| *name == kind).map(|(_, id, priority)| (*id, *priority))
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
        let names: BTreeSet<_> =
            MESSAGE_KINDS.iter().map(|(name, ..)| (*name).to_owned()).collect();
        assert_eq!(names, expected);
        let ids: BTreeSet<_> = MESSAGE_KINDS.iter().map(|(_, id, _)| id).collect();
        assert_eq!(ids.len(), MESSAGE_KINDS.len());
        assert!(ids.iter().all(|id| id.len() == 32 && id.chars().all(|c| c.is_ascii_hexdigit())));
    }

    #[test]
    fn every_kind_has_an_entry_in_the_catalog() {
        for (kind, id, _) in MESSAGE_KINDS {
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
            MESSAGE_KINDS.iter().map(|(kind, id, _)| format!("{kind} {id}")).collect();
        for line in shipped {
            assert!(now.iter().any(|it| it == line), "{line}");
        }
    }
}
