//! As much of the HTTP API of Prometheus as `backtest` asks for: ranges of counters.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

/// The samples of each expression by time in seconds, as Prometheus writes them.
pub(crate) type Series = BTreeMap<String, Vec<(f64, String)>>;

/// Serves until the test ends; returns the address.
pub(crate) fn serve_prometheus(series: Series) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let series = Arc::new(series);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            respond(stream, &series);
        }
    });
    url
}

fn respond(mut stream: TcpStream, series: &Series) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let request = lines.next().unwrap().unwrap();
    lines.find(|line| line.as_ref().is_ok_and(String::is_empty));
    let url = request.split(' ').nth(1).unwrap();
    let asked: BTreeMap<_, _> = reqwest::Url::parse(&format!("http://x{url}"))
        .unwrap()
        .query_pairs()
        .map(|(key, value)| (key.into_owned(), value.into_owned()))
        .collect();
    assert!(url.starts_with("/prom/api/v1/query_range?"), "{url}");
    let number = |key: &str| asked[key].parse::<f64>().unwrap();
    let (start, end, step) = (number("start"), number("end"), number("step"));
    let body = match series.get(&asked["query"]) {
        None if asked["query"] == "none" => matrix_response(&[]),
        None if asked["query"] == "many" => matrix_response(&["[]".to_owned(), "[]".to_owned()]),
        None => {
            r#"{"status":"error","errorType":"bad_data","error":"parse error: unexpected end"}"#
                .to_owned()
        }
        Some(samples) => {
            // As Prometheus does it: the newest sample of the last five minutes, at each step.
            let mut values = Vec::new();
            let mut at = start;
            while at <= end {
                let seen = samples.iter().rfind(|(time, _)| *time <= at && at - 300.0 < *time);
                values.extend(seen.map(|(_, value)| format!("[{at:.3},{value:?}]")));
                at += step;
            }
            matrix_response(&[format!("[{}]", values.join(","))])
        }
    };
    let status = if body.contains("error") { "400 Bad Request" } else { "200 OK" };
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    );
}

fn matrix_response(series: &[String]) -> String {
    let series: Vec<_> =
        series.iter().map(|values| format!(r#"{{"metric":{{}},"values":{values}}}"#)).collect();
    let result = series.join(",");
    format!(r#"{{"status":"success","data":{{"resultType":"matrix","result":[{result}]}}}}"#)
}
