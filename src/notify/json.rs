//! Optional members of JSON objects.

use serde_json::Value;

/// Adds a member to an object.
pub(super) fn insert(object: &mut Value, member: &str, value: Value) {
    if let Some(members) = object.as_object_mut() {
        members.insert(member.to_owned(), value);
    }
}
