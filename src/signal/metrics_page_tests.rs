use proptest::prelude::*;

use super::*;

fn read(page: &[u8], format: TextFormat) -> Result<Vec<Line<'_>>, String> {
    let mut reader = PageReader::new(page, format);
    std::iter::from_fn(|| reader.next_line().transpose()).collect()
}

fn text(page: &str) -> Result<usize, String> {
    read(page.as_bytes(), TextFormat::Prometheus).map(|lines| lines.len())
}

fn open(page: &str) -> Result<usize, String> {
    read(page.as_bytes(), TextFormat::OpenMetrics).map(|lines| lines.len())
}

/// Each of these was given to `promtool check metrics` or to the parser of Prometheus 3.
#[test]
fn what_prometheus_reads_is_read() {
    for page in [
        "",
        "\n\n a 1\n",
        "a 1",
        "a 1\t\n",
        "\ta\t{ x = \"y\" , }\t1 \t5  \n",
        "a{x=\"y\" z=\"w\"} 1\n",
        "a{x=\"^/u/\\d+$\"}1\n",
        "a{x=\"two\nlines\"} 1\n",
        "a+1\n",
        "a{x=\"\\\"\\\\\\n\"} NaN\n",
        "a nan\na{b=\"\"} +Inf\na{b=\"c\"} -infinity\na{b=\"d\"} 1.05e+03\na{b=\"e\"} .5\n",
        "#\n# \n#no space\n# HELPLESS x\n# TYPE\n# HELP\n",
        "# HELP a\n# TYPE a counter\na 1\n",
        "# HELP a  two  spaces \n# TYPE a untyped\na 1\n",
        "# HELP a-b text\n# TYPE a-counter\na 1\n",
        "# TYPE \"http.requests\" counter\n{\"http.requests\",code=\"200\"} 1\n",
        "{\"http.requests\"} 1\n{ \"a\" , \"b=c\" = \"d\" } 2 7\n",
        "a:b:c 1\n_a 1\na{le=\"+Inf\",} 1\n",
    ] {
        text(page).unwrap();
    }
    let latin_1 = b"# caf\xe9\na 1\n";
    assert_eq!(read(latin_1, TextFormat::Prometheus).map(|lines| lines.len()), Ok(1));
}

#[test]
fn what_prometheus_refuses_is_refused_with_its_line() {
    for line in [
        "a",
        "a ",
        "a x",
        "a 1 2 3",
        "a 1 2.5",
        "a 1 -2",
        "a 1 99999999999999999999",
        "a 1\r",
        "a 0x1p3",
        "a 1_0",
        "a +NaN",
        "a 1e999",
        "a{b=\"c\" 1",
        "a{b=c} 1",
        "a{b=\"c\"",
        "a{b=\"c} 1",
        "a{b=\"c\",b=\"d\"} 1",
        "a{__name__=\"b\"} 1",
        "a{\"\"=\"b\"} 1",
        "{\"\"} 1",
        "a{b} 1",
        "a{=\"c\"} 1",
        "a{1b=\"c\"} 1",
        "a{b:c=\"d\"} 1",
        "a{\"b\"} 1",
        "a 1 # {x=\"y\"} 1",
        "a 1\u{a0}2",
        "1a 1",
        "{} 1",
        "{b=\"c\"} 1",
        "\u{feff}a 1",
        "\0a 1",
        "<html>",
        "# TYPE a counter ",
        "# TYPE a  counter",
        "# TYPE a Counter",
        "# TYPE a",
        "# TYPE a-b counter",
        "# TYPE 5 counter",
    ] {
        let result = text(&format!("ok 1\n{line}\n"));
        assert!(result.is_err_and(|it| it.starts_with("line 2 of the metrics is")), "{line:?}");
    }
    for page in [&b"a{b=\"caf\xe9\"} 1\n"[..], b"# HELP a caf\xe9\n", b"\xff\xfea\0 \x001\0"] {
        read(page, TextFormat::Prometheus).unwrap_err();
    }
    let mark = text("\u{feff}a 1\n").unwrap_err();
    assert!(mark.contains("line 1") && mark.contains("byte order mark"), "{mark}");
}

#[test]
fn open_metrics_is_strict_about_spaces_and_its_end() {
    for page in [
        "# EOF",
        "# EOF\n",
        "# TYPE a counter\n# UNIT a_s s\n# HELP a x\na_total{b=\"c\"} 1 1.5 # {x=\"}\"} 1 2\n# EOF\n",
        "a 1 # {} 5\n{\"b.c\",d=\"e\",} 1\n# EOF",
    ] {
        open(page).unwrap();
    }
    for page in [
        "",
        "a 1\n",
        "a 1\n# EOF\nb 1\n",
        "a 1\n\n# EOF\n",
        " a 1\n# EOF\n",
        "a  1\n# EOF\n",
        "a 1 \n# EOF\n",
        "a\t1\n# EOF\n",
        "a {b=\"c\"} 1\n# EOF\n",
        "a{b=\"c\" d=\"e\"} 1\n# EOF\n",
        "a{b=\"c\"} 1 #{x=\"y\"} 1\n# EOF\n",
        "a 1 NaN\n# EOF\n",
        "# a comment\n# EOF\n",
        "# TYPE a untyped\n# EOF\n",
        "a 1 # EOF",
        "#EOF\n",
        "# HELP a\n# EOF\n",
        "# HELP a-b text\n# EOF\n",
        "# UNIT a\n# EOF\n",
        "# UNIT a seconds\n# EOF\n",
        "# UNIT aseconds seconds\n# EOF\n",
        "# UNIT seconds seconds\n# EOF\n",
    ] {
        open(page).unwrap_err();
    }
}

#[test]
fn names_and_labels_are_unescaped() {
    let page = "{\"a\\\"b\",\"c\\\\d\"=\"\\d\\n\"} 1 5\n";
    let [Line::Sample(sample)] = &read(page.as_bytes(), TextFormat::Prometheus).unwrap()[..] else {
        panic!("one sample");
    };
    assert_eq!((&*sample.name, sample.value, sample.timestamp), ("a\"b", "1", Some("5")));
    assert_eq!(sample.labels, [("c\\d".into(), "\\d\n".into())]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_bytes_are_read_or_refused(page in prop::collection::vec(
        prop::sample::select(&b"a1{}=\"\\,# \t\n\r.+NEOFTYPE\0\xc3\xa9"[..]), 0..60,
    )) {
        for format in [TextFormat::Prometheus, TextFormat::OpenMetrics] {
            let _ = read(&page, format);
        }
    }
}
