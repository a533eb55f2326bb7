use zbus::{Error, fdo};

/// What an operator is told when systemd did not do something: what, why, and what helps.
pub(super) fn words(what: &str, unit: &str, error: &Error) -> String {
    let (why, help) = reason(unit, error);
    format!("failed to {what} {unit}: {}{help}", why.trim_end_matches('.'))
}

fn reason(unit: &str, error: &Error) -> (String, String) {
    let refused = || {
        format!(
            "; polkit lets the daemon act on the units of its configuration only: polkitd has to run, \
             with the rule /usr/share/polkit-1/rules.d/rollbackd.rules, and `rollbackd check --manages \
             {unit}` has to succeed"
        )
    };
    let absent = "; D-Bus has to run: install dbus, and look at `systemctl status dbus`";
    match error {
        Error::MethodError(name, said, _) => {
            let said = said.clone().unwrap_or_else(|| name.to_string());
            // systemd asks polkit first, and says so where it can not be started.
            let help = match said.contains("polkit") && !said.contains(unit) {
                true => refused(),
                false => help(unit, name.as_str()),
            };
            (said, help)
        }
        Error::FDO(error) => match &**error {
            fdo::Error::AccessDenied(why)
            | fdo::Error::AuthFailed(why)
            | fdo::Error::InteractiveAuthorizationRequired(why) => (why.clone(), refused()),
            fdo::Error::ServiceUnknown(why) | fdo::Error::NameHasNoOwner(why) => {
                (why.clone(), "; systemd has to run as the first process of the host".to_owned())
            }
            other => (other.to_string(), String::new()),
        },
        Error::Connection(..) | Error::InputOutput(_) | Error::Handshake(_) | Error::Address(_) => {
            (format!("D-Bus does not answer ({error})"), absent.to_owned())
        }
        other => (other.to_string(), String::new()),
    }
}

fn help(unit: &str, name: &str) -> String {
    let template = unit.split_once('@').map_or(unit.to_owned(), |(name, rest)| {
        let suffix = rest.rsplit_once('.').map_or("service", |(_, suffix)| suffix);
        format!("{name}@.{suffix}")
    });
    match name.rsplit_once('.').map_or(name, |(_, last)| last) {
        "NoSuchUnit" => {
            format!("; install /etc/systemd/system/{template}, then `systemctl daemon-reload`")
        }
        "UnitMasked" => format!("; `systemctl unmask {unit}`"),
        "BadUnitSetting" | "LoadFailed" => format!("; see `systemd-analyze verify {unit}`"),
        _ => String::new(),
    }
}
