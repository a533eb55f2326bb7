//! `email`: a mail over SMTP, as text and as HTML.

use std::time::Duration;

use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::{AsyncSmtpTransportBuilder, Error as SmtpError};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};

use crate::config::{EmailSettings, Secret, SmtpTls};
use crate::incident::Notice;
use crate::incident::text::{clean_text, escape_html as escape};
use crate::notify::mail_chart;
use crate::notify::plain_text::{defuse, fields, label};
use crate::notify::retry::Delivery;

/// The most characters of an answer that are shown.
const SHOWN_MAX: usize = 160;

/// Automatic, so that no out-of-office reply comes back (RFC 3834).
#[derive(Debug, Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// Sends the mail, in this time.
pub(super) async fn send(
    settings: &EmailSettings,
    password: Option<&Secret>,
    notice: &Notice,
    timeout: Duration,
) -> Delivery {
    let message = match message(settings, notice) {
        Ok(message) => message,
        Err(because) => return Delivery::Rejected(because),
    };
    // It reads the certificate authorities of the system.
    let (copy, password) = (settings.clone(), password.cloned());
    let host = notice.host.clone();
    let built = tokio::task::spawn_blocking(move || transport(&copy, password, &host, timeout));
    let transport = match built.await {
        Ok(Ok(transport)) => transport,
        Ok(Err(because)) => return Delivery::failed(because),
        Err(error) => return Delivery::failed(error.to_string()),
    };
    match tokio::time::timeout(timeout, transport.send(message)).await {
        Ok(Ok(answer)) => {
            let text: Vec<_> = answer.message().collect();
            let text = clean_text(&text.join(" "), SHOWN_MAX);
            Delivery::Accepted(format!("{} {text}", answer.code()))
        }
        Ok(Err(error)) if error.is_permanent() => Delivery::Rejected(describe(&error)),
        Ok(Err(error)) => Delivery::failed(describe(&error)),
        Err(_) => Delivery::failed("no answer in time"),
    }
}

fn transport(
    settings: &EmailSettings,
    password: Option<Secret>,
    host: &str,
    timeout: Duration,
) -> Result<AsyncSmtpTransport<Tokio1Executor>, String> {
    let parameters = || {
        TlsParameters::new_rustls(settings.server.clone())
            .map_err(|error| format!("cannot prepare TLS: {error}"))
    };
    let tls = match settings.tls {
        SmtpTls::StartTls => Tls::Required(parameters()?),
        SmtpTls::Tls => Tls::Wrapper(parameters()?),
        SmtpTls::Off => Tls::None,
    };
    let builder: AsyncSmtpTransportBuilder =
        AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(settings.server.clone());
    let builder = builder.port(settings.port).tls(tls).timeout(Some(timeout));
    let builder = builder.hello_name(ClientId::Domain(host.to_owned()));
    Ok(match settings.user.clone().zip(password) {
        Some((user, password)) => {
            builder.credentials(Credentials::new(user, password.expose().to_owned())).build()
        }
        None => builder.build(),
    })
}

/// The mail. Notices of one incident have the same thread; a repetition has the same `Message-ID`.
fn message(settings: &EmailSettings, notice: &Notice) -> Result<Message, String> {
    let mailbox = |text: &String| {
        text.parse::<Mailbox>().map_err(|error| format!("{text} is no mail address: {error}"))
    };
    let id = |text: &str| {
        let text: String =
            text.chars().map(|it| if it.is_ascii_alphanumeric() { it } else { '.' }).collect();
        format!("<{text}@rollbackd.invalid>")
    };
    let mut builder = Message::builder()
        .from(mailbox(&settings.from)?)
        .subject(format!("[rollbackd] {}: {}", label(notice), defuse(&notice.title)))
        .message_id(Some(id(&notice.id)))
        .references(id(&format!("{}/{}", notice.host, notice.group)))
        .header(AutoSubmitted);
    for to in &settings.to {
        builder = builder.to(mailbox(to)?);
    }
    let parts = MultiPart::alternative_plain_html(text(notice), html(notice));
    builder.multipart(parts).map_err(|error| format!("cannot write the mail: {error}"))
}

fn text(notice: &Notice) -> String {
    let mut text = format!("{}: {}\n\n", label(notice), defuse(&notice.text));
    for (name, value) in fields(notice) {
        text.push_str(&format!("{name}: {}\n", defuse(&value)));
    }
    if let Some(chart) = &notice.error_rate {
        text.push_str(&format!("\n{}", mail_chart::text(chart)));
    }
    if let Some(url) = &notice.url {
        text.push_str(&format!("\n{url}\n"));
    }
    text.push_str(&format!("\n{}\n", notice.id));
    text
}

fn html(notice: &Notice) -> String {
    let rows: String = fields(notice)
        .iter()
        .map(|(name, value)| {
            format!("<tr><th align=\"left\">{name}</th><td>{}</td></tr>", escape(value))
        })
        .collect();
    let chart = notice.error_rate.as_ref().map(mail_chart::html).unwrap_or_default();
    let link = notice.url.as_deref().map_or(String::new(), |url| {
        format!("<p><a href=\"{}\">Open the status page</a></p>", escape(url))
    });
    format!(
        "<!DOCTYPE html><html><body><h2>{}: {}</h2><p>{}</p><table cellpadding=\"4\">{rows}</table>\
         {chart}{link}<p><small>{}</small></p></body></html>",
        label(notice),
        escape(&defuse(&notice.title)),
        escape(&defuse(&notice.text)),
        escape(&notice.id),
    )
}

/// The innermost cause, which names the refused connection or the wrong certificate.
fn describe(error: &SmtpError) -> String {
    let mut cause: &(dyn std::error::Error + 'static) = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    match error.status() {
        Some(code) => clean_text(&format!("{code} {cause}"), SHOWN_MAX),
        None => clean_text(&cause.to_string(), SHOWN_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::example::hostile;

    fn settings() -> EmailSettings {
        EmailSettings {
            server: "mail.example.org".to_owned(),
            port: 587,
            tls: SmtpTls::StartTls,
            user: None,
            password: None,
            from: "rollbackd <rollbackd@example.org>".to_owned(),
            to: vec!["team@example.org".to_owned(), "b@example.org".to_owned()],
        }
    }

    #[test]
    fn a_mail_has_both_forms_and_no_markup_of_a_release() {
        let mail = message(&settings(), &hostile()).unwrap().formatted();
        let mail = String::from_utf8(mail).unwrap();
        for part in ["To: team@example.org, b@example.org", "Auto-Submitted: auto-generated"] {
            assert!(mail.contains(part), "{part} in {mail}");
        }
        assert!(mail.contains("Message-ID: <weather.7.4@rollbackd.invalid>"), "{mail}");
        assert!(mail.contains("text/plain") && mail.contains("text/html"));
        let html = html(&hostile());
        assert!(!html.contains("<script") && !html.contains("://evil"), "{html}");
        assert!(!text(&hostile()).contains("://"));
    }
}
