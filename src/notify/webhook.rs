//! `webhook`: a CloudEvent over HTTP, signed.
//!
//! The event has the form of CloudEvents 1.0 with the HTTP binding: structured (one JSON object with the
//! notice in `data`), or binary (the notice as the body, the attributes in `ce-` headers). The signature
//! follows the Standard Webhooks specification: `webhook-signature` is `v1,` and the base64 of
//! HMAC-SHA256 over `ID.TIMESTAMP.BODY`, with the id and the seconds since 1970 in the headers
//! `webhook-id` and `webhook-timestamp`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::json;

use crate::incident::Notice;

/// A request body and its headers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WebhookRequest {
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
}

/// The request of a notice, signed if there is a key. `now_s` is the time in seconds since 1970.
pub(super) fn request(
    notice: &Notice,
    binary: bool,
    key: Option<&str>,
    now_s: u64,
) -> serde_json::Result<WebhookRequest> {
    let kind = format!("dev.rollbackd.notice.{}", notice.kind.label());
    let source = format!("/rollbackd/{}", notice.host);
    let subject = &notice.group;
    let (content_type, body, mut headers) = if binary {
        let headers = vec![
            ("ce-specversion", "1.0".to_owned()),
            ("ce-id", notice.id.clone()),
            ("ce-source", source),
            ("ce-type", kind),
            ("ce-subject", subject.clone()),
            ("ce-time", notice.at.clone()),
        ];
        ("application/json", serde_json::to_vec(notice)?, headers)
    } else {
        let event = json!({
            "specversion": "1.0",
            "id": notice.id,
            "source": source,
            "type": kind,
            "subject": subject,
            "time": notice.at,
            "datacontenttype": "application/json",
            "data": notice,
        });
        ("application/cloudevents+json", serde_json::to_vec(&event)?, Vec::new())
    };
    headers.push(("content-type", content_type.to_owned()));
    headers.push(("webhook-id", notice.id.clone()));
    headers.push(("webhook-timestamp", now_s.to_string()));
    if let Some(key) = key {
        headers.push(("webhook-signature", sign(key, &notice.id, now_s, &body)));
    }
    Ok(WebhookRequest { headers, body })
}

/// A key that begins with `whsec_` is base64; any other is taken as it is.
fn sign(key: &str, id: &str, now_s: u64, body: &[u8]) -> String {
    let decoded = key.strip_prefix("whsec_").and_then(|it| STANDARD.decode(it).ok());
    let key = decoded.unwrap_or_else(|| key.as_bytes().to_vec());
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &key));
    context.update(format!("{id}.{now_s}.").as_bytes());
    context.update(body);
    format!("v1,{}", STANDARD.encode(context.sign()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::example::hostile;

    /// The example of the specification's reference libraries.
    #[test]
    fn a_signature_is_that_of_the_specification() {
        let body = br#"{"test": 2432232314}"#;
        let key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let signature = sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn both_modes_have_every_attribute() {
        let notice = hostile();
        let structured = request(&notice, false, None, 7).unwrap();
        let event: serde_json::Value = serde_json::from_slice(&structured.body).unwrap();
        assert_eq!(event["specversion"], "1.0");
        assert_eq!((&event["id"], &event["data"]["id"]), (&json!("weather/7/4"), &event["id"]));
        assert_eq!(event["type"], "dev.rollbackd.notice.page");
        let binary = request(&notice, true, Some("key"), 7).unwrap();
        let body: Notice = serde_json::from_slice(&binary.body).unwrap();
        assert_eq!(body, notice);
        let names: Vec<_> = binary.headers.iter().map(|(name, _)| *name).collect();
        for name in ["ce-id", "ce-source", "ce-specversion", "ce-type", "webhook-signature"] {
            assert!(names.contains(&name), "{names:?}");
        }
    }
}
