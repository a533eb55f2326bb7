//! Pages at the edge of the formats, by hand. Each was read by a real server's client library, or by a
//! person who wrote one.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::{Expected, Page};

const TEXT: &str = "content-type: text/plain; version=0.0.4\r\n";
const OPEN: &str = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n";

/// All of them. `now` is the wall's time in milliseconds.
pub(crate) fn edge_pages(now: u64) -> Vec<Page> {
    let mut pages: Vec<Page> = TEXT_BODIES.iter().map(|it| page(TEXT, it)).collect();
    pages.extend(OPEN_METRICS_BODIES.iter().map(|it| page(OPEN, it)));
    pages.extend(timed_pages(now));
    pages.extend(responses());
    pages.extend(different_pages(now));
    pages
}

/// Bodies in the text format; `a` is compared.
const TEXT_BODIES: &[&[u8]] = &[
    b"",
    b"\n\n",
    b"# only a comment",
    b"a 1",
    b"a 1\n",
    b"a 1\n# EOF",
    b"a 1\n# EOF\n",
    b"# EOF\na 1\n",
    b"a 1\n\n\na{b=\"c\"} 2\n",
    b"a{b=\"c\"d=\"e\"} 1\n",
    b"a{b=\"c\" d=\"e\"}1\n",
    b"a{} 3\n",
    b"a{b=\"\"} 3\na 4\n",
    b"a{b=\"x\\d\\\"y\\\\z\\nw\"} 3\n",
    b"a{b=\"two\nlines\"} 3\n",
    b"a{b=\"}\",c=\"{\",d=\"=,\"} 3\n",
    b"a{b=\"\xc3\xa9\xe2\x82\xac\"} 3\n",
    b"a 1\na 1\n",
    b"a 1\na 2\n",
    b"a{b=\"c\",d=\"e\"} 1\na{d=\"e\",b=\"c\"} 2\n",
    b"a NaN\n",
    b"a nan\n",
    b"a +Inf\n",
    b"a -Inf\n",
    b"a inf\n",
    b"a Infinity\n",
    b"a 1e3\na{b=\"c\"} .5\na{b=\"d\"} 5.\na{b=\"e\"} +2\n",
    b"a 1E3\n",
    b"a 1e-999\n",
    b"a -0\n",
    b"a 0x10\n",
    b"a 0x1p3\n",
    b"a 1_000\n",
    b"a 1e999\n",
    b"a +NaN\n",
    b"a -nan\n",
    b"a infi\n",
    b"a 1.5.2\n",
    b"a --1\n",
    b"a\n",
    b"a \n",
    b"a x\n",
    b"a 1 2 3\n",
    b"a 1 2.5\n",
    b"a 1 -2\n",
    b"a 1 99999999999999999999\n",
    b"a 1\r\n",
    b"a 1\r\nb 2\r\n",
    b"# c\r\na 1\n",
    b"a 1 # {x=\"y\"} 1\n",
    b"a 1 # a comment\n",
    b"a{b=\"c\" 1\n",
    b"a{b=c} 1\n",
    b"a{b=\"c\"\n",
    b"a{b=\"c} 1\n",
    b"a{b=\"c\",b=\"d\"} 1\n",
    b"a{b=\"c\",b=\"c\"} 1\n",
    b"a{b} 1\n",
    b"a{\"\"=\"c\"} 1\n",
    b"a 1\n{\"\"} 1\n",
    b"a{=\"c\"} 1\n",
    b"a{,b=\"c\"} 1\n",
    b"a{b=\"c\",,d=\"e\"} 1\n",
    b"a{b=\"c\",,} 1\n",
    b"a{1b=\"c\"} 1\n",
    b"a{b:c=\"d\"} 1\n",
    b"a{b-c=\"d\"} 1\n",
    b"a{b='c'} 1\n",
    b"a{b=\"c\xe9\"} 1\n",
    b"a{__name__=\"other\"} 1\n",
    b"a{__name__=\"a\"} 1\n",
    b"a{job=\"x\",instance=\"y\"} 6\n",
    b"1a 1\n",
    b"a-b 1\n",
    b"a.b 1\n",
    b"{} 1\n",
    b"{b=\"c\"} 1\n",
    b"\xef\xbb\xbfa 1\n",
    b"a 1\n\xef\xbb\xbfb 1\n",
    b"a 1\n<html>\n",
    b"a 1\nthis is nothing\n",
    b"a 1\n}\n",
    b"a 1\n=\n",
    b"\xff\xfea\x00 \x001\x00\n\x00",
    b"a 1\n# TYPE b counter \n",
    b"a 1\n# TYPE b  counter\n",
    b"a 1\n# TYPE b Counter\n",
    b"a 1\n# TYPE b\n",
    b"a 1\n# TYPE b unknown\n",
    b"a 1\n# TYPE b untyped\n",
    b"a 1\n# TYPE b counter\r\n",
    b"a 1\n# TYPE b-c counter\n",
    b"a 1\n# TYPE 5 counter\n",
    b"a 1\n# TYPE\n",
    b"a 1\n# TYPE \n",
    b"a 1\n# HELP\n",
    b"a 1\n# HELP b\n",
    b"a 1\n# HELP b \n",
    b"a 1\n# HELP b some\ttext \\n \\x\n",
    b"a 1\n# HELP b caf\xe9\n",
    b"a 1\n# HELP b-c text\n",
    b"a 1\n# TYPE b-counter\n",
    b"a 1\n#TYPE b nothing\n",
    b"a 1\n#\tTYPE\tb\tcounter\n",
    b"a 1\n#  TYPE  b counter\n",
    b"a 1\n# type b nothing\n",
    b"a 1\n# UNIT b nothing\n",
    b"a 1\n# caf\xe9\n",
    b"a 1\n# TYPE b counter",
    b"a 1\n# HELP b",
    b"a 1\n#",
    b"a 1\x0b\n",
    b"a\x0b1\n",
    b"a 1\xc2\xa02\n",
    b"a{b=\"c\"}\t5\t\n",
    b"a{b\n=\"c\"} 1\n",
    b"a 1{\n",
    b"a 1}\n",
    b":a 1\na 2\n",
    b"_a 1\na 2\n",
];

/// Bodies in OpenMetrics; `a` is compared.
const OPEN_METRICS_BODIES: &[&[u8]] = &[
    b"",
    b"# EOF",
    b"# EOF\n",
    b"# EOF\n\n",
    b"# EOF ",
    b"#EOF\n",
    b"a 1\n# EOF",
    b"a 1\n# EOF\n",
    b"a 1\n",
    b"a 1",
    b"a 1# EOF\n",
    b"a 1\n# EOF\nb 1\n",
    b"a 1\n\n# EOF\n",
    b"\na 1\n# EOF\n",
    b" a 1\n# EOF\n",
    b"a  1\n# EOF\n",
    b"a 1 \n# EOF\n",
    b"a\t1\n# EOF\n",
    b"a 1\r\n# EOF\r\n",
    b"a {b=\"c\"} 1\n# EOF\n",
    b"a{b=\"c\"} 1\n# EOF\n",
    b"a{b=\"c\"}1\n# EOF\n",
    b"a{b=\"c\", d=\"e\"} 1\n# EOF\n",
    b"a{b=\"c\" d=\"e\"} 1\n# EOF\n",
    b"a{b=\"c\"d=\"e\"} 1\n# EOF\n",
    b"a{,b=\"c\"} 1\n# EOF\n",
    b"a{} 1\n# EOF\n",
    b"a{b=\"c\",b=\"d\"} 1\n# EOF\n",
    b"a{b=\"x\\d\\\"y\\\\z\\nw\"} 3\n# EOF\n",
    b"a{b=\"two\nlines\"} 3\n# EOF\n",
    b"a 1 # {x=\"y\"}\n# EOF\n",
    b"a 1 #{x=\"y\"} 1\n# EOF\n",
    b"a 1 # {x=\"y\"} 1 NaN\n# EOF\n",
    b"a 1 # {x=\"y\",x=\"z\"} 1\n# EOF\n",
    b"a 1 # x\n# EOF\n",
    b"a 1 # EOF",
    b"a 1 NaN\n# EOF\n",
    b"a 1 +Inf\n# EOF\n",
    b"a NaN\n# EOF\n",
    b"a +Inf\n# EOF\n",
    b"a 0x1p3\n# EOF\n",
    b"a 1_0\n# EOF\n",
    b"# a comment\na 1\n# EOF\n",
    b"# TYPE a untyped\na 1\n# EOF\n",
    b"# TYPE a unknown\na 1\n# EOF\n",
    b"# TYPE a\na 1\n# EOF\n",
    b"# TYPE b counter \na 1\n# EOF\n",
    b"# TYPE b  counter\na 1\n# EOF\n",
    b"# TYPE  b counter\na 1\n# EOF\n",
    b"# HELP b-c text\na 1\n# EOF\n",
    b"# TYPE b-counter\na 1\n# EOF\n",
    b"# HELP b\na 1\n# EOF\n",
    b"# HELP b \na 1\n# EOF\n",
    b"# HELP b text\na 1\n# EOF\n",
    b"# HELP b caf\xe9\na 1\n# EOF\n",
    b"# UNIT b_seconds seconds\na 1\n# EOF\n",
    b"# UNIT b seconds\na 1\n# EOF\n",
    b"# UNIT bseconds seconds\na 1\n# EOF\n",
    b"# UNIT seconds seconds\na 1\n# EOF\n",
    b"# UNIT b \na 1\n# EOF\n",
    b"# UNIT b\na 1\n# EOF\n",
    b"# UNIT b_caf\xe9 caf\xe9\na 1\n# EOF\n",
    b"#TYPE b counter\na 1\n# EOF\n",
    b"a 1\na 1\n# EOF\n",
    b"a 1\nb 1\na{c=\"d\"} 2\n# EOF\n",
    b"1a 1\n# EOF\n",
    b"{} 1\n# EOF\n",
    b"\xef\xbb\xbfa 1\n# EOF\n",
    b"nothing\n# EOF\n",
    b"a{__name__=\"b\"} 1\n# EOF\n",
];

fn page(headers: &str, body: &[u8]) -> Page {
    let format = if headers == OPEN { "OpenMetrics" } else { "text" };
    named(&format!("{format} {}", body.escape_ascii()), headers, body)
}

fn named(name: &str, headers: &str, body: &[u8]) -> Page {
    Page {
        name: name.to_owned(),
        headers: headers.to_owned(),
        body: body.to_owned(),
        samples: None,
        selectors: vec!["a".to_owned()],
        expected: Expected::Same,
    }
}

/// Timestamps, of which those of OpenMetrics are in seconds.
fn timed_pages(now: u64) -> Vec<Page> {
    let (earlier, old) = (now - 20_000, now - 600_000);
    let later = now + 3_600_000;
    let seconds = |ms: u64| format!("{}.{:03}", ms / 1000, ms % 1000);
    let text = [
        format!("a 1 {now}\n"),
        format!("a 1 {now}"),
        format!("a 1 {old}\n"),
        format!("a 1 {earlier}\na 2 {now}\n"),
        format!("a 2 {now}\na 1 {earlier}\n"),
        format!("a 1 {now}\na 2 {now}\n"),
        format!("a 1\na 2 {now}\n"),
        format!("a 2 {now}\na 1\n"),
        format!("a 2 {now}\na{{b=\"\"}} 1 {earlier}\n"),
        format!("a 1 {later}\n"),
        format!("a 1 {later}\na{{b=\"c\"}} 2\n"),
        format!("a 1\na 2 {later}\n"),
        format!("a 1 {now}000\n"),
        format!("a 1 {}\n", now / 1000),
        "a 1 0\n".to_owned(),
    ];
    let open = [
        format!("a 1 {}\n# EOF\n", seconds(now)),
        format!(
            "a 5 {}\na_total 1 {} # {{x=\"y\"}} 1 {}\n# EOF\n",
            seconds(now),
            seconds(now),
            seconds(now)
        ),
        format!("a 1 {}\na{{b=\"c\"}} 2\n# EOF\n", seconds(later)),
        format!("a 1 {}\n# EOF\n", seconds(old)),
        format!("a 1 {now}\n# EOF\n"),
        format!("a 1 {}\na 2 {}\n# EOF\n", seconds(earlier), seconds(now)),
        "a 1 -5\n# EOF\n".to_owned(),
        "a 1 1e9\n# EOF\n".to_owned(),
    ];
    let text = text.iter().map(|body| page(TEXT, body.as_bytes()));
    text.chain(open.iter().map(|body| page(OPEN, body.as_bytes()))).collect()
}

/// Types, and compressed bodies.
fn responses() -> Vec<Page> {
    const BODY: &[u8] = b"a 1\n";
    let zipped = format!("{TEXT}content-encoding: gzip\r\n");
    let whole = gzip(BODY);
    let cut = whole.get(..whole.len() - 4).unwrap_or_default();
    vec![
        named("no type", "", BODY),
        named("a type with parameters", "content-type: text/plain; x=openmetrics\r\n", BODY),
        named("a type that is none", "content-type: ;\r\n", BODY),
        named("OpenMetrics in capitals", "content-type: Application/OpenMetrics-Text\r\n", BODY),
        named("gzip", &zipped, &whole),
        named("gzip without a line break", &zipped, &gzip(b"a 1")),
        named("two parts of gzip", &zipped, &[gzip(b"a 1\n"), gzip(b"a{b=\"c\"} 2\n")].concat()),
        named("gzip that is cut", &zipped, cut),
        named("gzip and more", &zipped, &[&whole[..], b"more"].concat()),
        named("no gzip", &zipped, BODY),
        named("gzip without a header", TEXT, &whole),
        named("identity", &format!("{TEXT}content-encoding: identity\r\n"), BODY),
    ]
}

/// What is read differently, on purpose.
fn different_pages(now: u64) -> Vec<Page> {
    let differs = |name: &str, headers: &str, body: &[u8], selector: &str, expected| Page {
        selectors: vec![selector.to_owned()],
        expected,
        ..named(name, headers, body)
    };
    let read = Expected::AllowedSince2;
    let blanks = b"\ta\t{ b = \"c\" , }\t1\t\n   a   7   \n";
    let exemplar = b"a 1 # {x=\"}\"} 5 1.5\n# EOF\n";
    let old = format!("a{{b=\"c\"}} 1 {}\na{{b=\"d\"}} 2 {now}\n", now - 600_000);
    vec![
        differs("a quoted name", TEXT, b"{\"a.b\",c=\"d\"} 5\n", "{\"a.b\"}", read(5.0)),
        differs("a quoted label", TEXT, b"a{\"b.c\"=\"d\"} 5\n", "a", read(5.0)),
        differs(
            "a quoted name in OpenMetrics",
            OPEN,
            b"{\"a.b\"} 5\n# EOF\n",
            "{\"a.b\"}",
            read(5.0),
        ),
        differs(
            "the type of a quoted name",
            TEXT,
            b"# TYPE \"b.c\" counter\na 5\n",
            "a",
            read(5.0),
        ),
        differs("blanks before a name", TEXT, blanks, "a", read(8.0)),
        differs("a comma at the end", OPEN, b"a{b=\"c\",} 1\n# EOF\n", "a", read(1.0)),
        differs("an exemplar of any series", OPEN, exemplar, "a", read(1.0)),
        // Prometheus 3 refuses these types, too.
        differs(
            "a page for people",
            "content-type: text/html\r\n",
            b"a 1\n",
            "a",
            Expected::RefusedHere("not the text format"),
        ),
        differs(
            "another coding",
            &format!("{TEXT}content-encoding: br\r\n"),
            b"a 1\n",
            "a",
            Expected::RefusedHere("compressed as br"),
        ),
        // A page that ends in the middle is no page.
        differs("a NUL byte", TEXT, b"a 1\n\0more\n", "a", Expected::RefusedHere("line 2")),
        // A counter that did not change for a while is no counter without a value.
        differs("an older series", TEXT, old.as_bytes(), "a", Expected::SummedHere(3.0)),
    ]
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}
