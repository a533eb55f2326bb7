use proptest::prelude::*;

use super::*;

const PAGE: &str = r#"# HELP http_requests_total All requests.
# TYPE http_requests_total counter
http_requests_total{} 1
http_requests_total{code="200",path="/a,b={c}\"\\"} 100 1395066363000
http_requests_total{ code = "503" , path="/" , } 7 1395066360000
http_requests_total_more{code="500"} 1000
job:errors:sum 4.5e1
# TYPE seldom counter
broken NaN
"#;

fn read(page: &str, selector: &str) -> Result<CounterSum, String> {
    let selector = Selector::parse(selector).unwrap();
    let [sum] = sum_counters(page.as_bytes(), [&selector], TextFormat::Prometheus, f64::INFINITY)?;
    Ok(sum)
}

fn value(page: &str, selector: &str) -> Option<f64> {
    read(page, selector).unwrap().value
}

#[test]
fn matching_series_are_added_up() {
    assert_eq!(value(PAGE, "http_requests_total"), Some(108.0));
    assert_eq!(value(PAGE, r#"http_requests_total{code=~"5.."}"#), Some(7.0));
    assert_eq!(value(PAGE, r#"http_requests_total{path="/a,b={c}\"\\"}"#), Some(100.0));
    assert_eq!(value(PAGE, "job:errors:sum"), Some(45.0));
    assert!(value(PAGE, "broken").unwrap().is_nan());
    let exists = |selector| {
        let sum = read(PAGE, selector).unwrap();
        (sum.exists, sum.value)
    };
    assert_eq!(exists(r#"http_requests_total{code="404"}"#), (true, None));
    assert_eq!(exists("seldom"), (true, None));
    assert_eq!(exists("requests"), (false, None));
}

#[test]
fn a_series_that_did_not_change_is_not_stale_beside_one_that_did() {
    let newest = |selector| read(PAGE, selector).unwrap().newest_timestamp;
    assert_eq!(newest(r#"http_requests_total{code=~".+"}"#), Some(1_395_066_363_000.0));
    assert_eq!(newest("http_requests_total"), None, "one has no time, so it is of now");
}

#[test]
fn a_series_that_appears_twice_counts_once() {
    let once = "a{x=\"1\",y=\"2\"} 5\na{x=\"2\"} 3\n";
    let again = "a{y=\"2\",x=\"1\",z=\"\"} 6\na{x=\"2\"} 3\n";
    assert_eq!(value(&format!("{once}{again}"), "a"), Some(8.0));
}

#[test]
fn of_two_times_for_one_series_the_newest_counts() {
    for (page, expected) in [
        ("a 1 1000\na 2 2000\n", 2.0),
        ("a 2 2000\na 1 1000\n", 2.0),
        ("a 1 1000\na 2 1000\n", 1.0),
        ("a 1 1000\na 2\n", 2.0),
        ("a 2\na 1 1000\n", 2.0),
    ] {
        assert_eq!(value(page, "a"), Some(expected), "{page}");
    }
}

#[test]
fn a_sample_of_the_future_is_left_out() {
    let selector = Selector::parse("a").unwrap();
    let read = |page: &str, format| {
        let [sum] = sum_counters(page.as_bytes(), [&selector], format, 5_000.0).unwrap();
        (sum.value, sum.no_counter)
    };
    let text = TextFormat::Prometheus;
    assert_eq!(read("a 1 5000\n", text), (Some(1.0), None));
    assert_eq!(read("a 1 5001\na{b=\"c\"} 2\n", text), (Some(2.0), None));
    assert_eq!(read("a 1\na 2 5001\n", text), (Some(1.0), None));
    let (value, why) = read("a 1 5001\n", text);
    let expected = "a has a time in the future; correct a clock, or write milliseconds since 1970";
    assert_eq!((value, why.as_deref()), (None, Some(expected)));
    let (value, why) = read("a 1 5.1\n# EOF\n", TextFormat::OpenMetrics);
    assert!(value.is_none() && why.is_some_and(|it| it.ends_with("write seconds since 1970")));
}

#[test]
fn names_of_prometheus_3_match_as_they_are_and_escaped() {
    let page = "# TYPE \"http.requests\" counter\n{\"http.requests\",\"status.code\"=\"500\"} 4\n\
                {\"http.requests\",\"status.code\"=\"200\"} 6\n";
    for selector in [
        "http_requests{status_code=\"500\"}",
        "{\"http.requests\",\"status.code\"=\"500\"}",
        "{\"http.requests\",status_code=\"500\"}",
    ] {
        assert_eq!(value(page, selector), Some(4.0), "{selector}");
    }
    assert_eq!(value("{\"a\",b=\"c\"} 2\n", "a"), Some(2.0));
}

#[test]
fn what_is_no_counter_has_a_suggestion() {
    let histogram = "# TYPE d_seconds histogram\nd_seconds_bucket{le=\"1\"} 1\n\
                     d_seconds_bucket{le=\"+Inf\"} 2\nd_seconds_count 2\nd_seconds_sum 3\n";
    let summary = "# TYPE r_seconds summary\nr_seconds{quantile=\"0.5\"} 1\nr_seconds_sum 2\nr_seconds_count 4\n";
    let untyped = "d_bucket{le=\"+Inf\"} 2\nr{quantile=\"0.5\"} 1\nx_total 4\n";
    let gauge = "# TYPE g gauge\ng 1\ng_total 2\n";
    for (page, selector, meant) in [
        (histogram, "d_seconds", Some("d_seconds_count")),
        (histogram, "d_seconds_bucket", Some("d_seconds_count")),
        (histogram, "d_seconds_sum", Some("d_seconds_count")),
        (histogram, "d_seconds_bucket{le=\"1\"}", None),
        (histogram, "d_seconds_count", None),
        (summary, "r_seconds", Some("r_seconds_count")),
        (summary, "r_seconds_sum", Some("r_seconds_count")),
        (summary, "r_seconds_count", None),
        (untyped, "d_bucket", Some("d_count")),
        (untyped, "r", Some("r_count")),
        (untyped, "x", Some("x_total")),
        (untyped, "x_total", None),
        (gauge, "g", Some("g_total")),
    ] {
        let found = read(page, selector).unwrap().no_counter;
        let hint = meant.map(|meant| format!("did you mean {meant}?"));
        assert_eq!(found.is_some(), hint.is_some(), "{selector}: {found:?}");
        if let Some((found, hint)) = found.zip(hint) {
            assert!(found.ends_with(&hint), "{selector}: {found}");
        }
    }
    let open = b"# TYPE http_requests counter\nhttp_requests_total 1\n# EOF\n";
    let selector = Selector::parse("http_requests").unwrap();
    let [sum] = sum_counters(open, [&selector], TextFormat::OpenMetrics, f64::INFINITY).unwrap();
    assert!(sum.no_counter.is_some_and(|it| it.ends_with("did you mean http_requests_total?")));
    assert_eq!(
        read("reqests_total 1\n", "requests_total").unwrap().similar.unwrap(),
        "reqests_total"
    );
}

/// The text of a number and its value; `None` if the text is no number.
fn number() -> impl Strategy<Value = (String, Option<f64>)> {
    let finite = any::<f64>().prop_filter("finite", |it| it.is_finite());
    prop_oneof![
        8 => finite.prop_map(|it| (format!("{it:e}"), Some(it))),
        8 => (0..1_000_000_u32).prop_map(|it| (it.to_string(), Some(f64::from(it)))),
        1 => Just(("+Inf".to_owned(), Some(f64::INFINITY))),
        1 => Just(("-Inf".to_owned(), Some(f64::NEG_INFINITY))),
        1 => Just(("NaN".to_owned(), Some(f64::NAN))),
        1 => "(0x1|1,5|--1|1e|one|1_0)".prop_map(|it| (it, None)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    /// An independent reader: the lines are built from their parts, so the sum is known.
    #[test]
    fn a_page_is_summed_exactly_or_rejected(
        lines in prop::collection::vec((0..4_usize, "[ab]", "[ -~]{0,4}", number(), any::<bool>()), 0..8)
    ) {
        let (mut page, mut valid) = (String::new(), true);
        let mut series: Vec<(String, bool, f64)> = Vec::new();
        for (form, name, label, (text, number), typed) in lines {
            if typed {
                page.push_str("# TYPE a counter\n");
            }
            let escaped = label.replace('\\', "\\\\").replace('"', "\\\"");
            page.push_str(&match form {
                0 => format!("{name} {text}\n"),
                1 => format!("{name}{{}} {text} 1395066363000\n"),
                2 => format!("{name}{{x=\"{escaped}\"}} {text}\n"),
                _ => format!("{name} {{ x = \"{escaped}\" , }}\t{text}\n"),
            });
            valid &= number.is_some();
            let label = if form < 2 { String::new() } else { label };
            let Some(number) = number.filter(|_| name == "a") else { continue };
            let is_now = form != 1;
            match series.iter_mut().find(|it| it.0 == label) {
                Some(known) if is_now && !known.1 => (known.1, known.2) = (true, number),
                Some(_) => (),
                None => series.push((label, is_now, number)),
            }
        }
        let expected = series.iter().map(|it| it.2);
        let expected = (!series.is_empty()).then(|| expected.fold(0.0, |sum, number| sum + number));
        let result = read(&page, "a");
        prop_assert_eq!(result.is_ok(), valid, "{}", page);
        if let Ok(sum) = result {
            let bits = |it: Option<f64>| it.map(|it| if it.is_nan() { 1 } else { it.to_bits() });
            prop_assert_eq!(bits(sum.value), bits(expected), "{}", page);
        }
    }
}
