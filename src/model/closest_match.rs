/// The known name that is most similar, if it is similar enough.
pub fn closest_match<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    // The distance takes time proportional to the product of the lengths; no setting is this long.
    if name.len() > 40 {
        return None;
    }
    known
        .iter()
        .map(|&it| (strsim::damerau_levenshtein(name, it), it))
        .filter(|&(distance, it)| distance <= 1 + it.len() / 4)
        .min()
        .map(|(_, it)| it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognized_and_another_word_is_not() {
        let known = ["status", "rollback"];
        assert_eq!(closest_match("satus", &known), Some("status"));
        assert_eq!(closest_match("rolback", &known), Some("rollback"));
        assert_eq!(closest_match("deploy", &known), None);
        assert_eq!(closest_match(&"s".repeat(41), &known), None);
    }
}
