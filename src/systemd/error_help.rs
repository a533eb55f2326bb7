use zbus::{Error, fdo};

/// The message for a call that systemd rejected: what failed, why, and what helps.
pub(crate) fn describe_failure(action: &str, unit: &str, error: &Error) -> String {
    let (why, help) = reason_and_help(unit, error);
    format!("failed to {action} {unit}: {}{help}", why.trim_end_matches('.'))
}

fn reason_and_help(unit: &str, error: &Error) -> (String, String) {
    let polkit_help = || {
        format!(
            "; polkit lets the daemon act only on the units of its configuration: polkitd must run with \
             /usr/share/polkit-1/rules.d/rollbackd.rules, and `rollbackd check --manages {unit}` must \
             succeed"
        )
    };
    let dbus_help = "; D-Bus must run: install dbus, and see `systemctl status dbus`";
    match error {
        Error::MethodError(name, message, _) => {
            let message = message.clone().unwrap_or_else(|| name.to_string());
            // systemd asks polkit first, and reports here when polkit cannot be started.
            let help = match message.contains("polkit") && !message.contains(unit) {
                true => polkit_help(),
                false => unit_help(unit, name.as_str()),
            };
            (message, help)
        }
        Error::FDO(error) => match &**error {
            fdo::Error::AccessDenied(why)
            | fdo::Error::AuthFailed(why)
            | fdo::Error::InteractiveAuthorizationRequired(why) => (why.clone(), polkit_help()),
            fdo::Error::ServiceUnknown(why) | fdo::Error::NameHasNoOwner(why) => {
                (why.clone(), "; systemd must run as process 1 of the host".to_owned())
            }
            other => (other.to_string(), String::new()),
        },
        Error::Connection(..) | Error::InputOutput(_) | Error::Handshake(_) | Error::Address(_) => {
            (format!("D-Bus does not answer ({error})"), dbus_help.to_owned())
        }
        other => (other.to_string(), String::new()),
    }
}

fn unit_help(unit: &str, name: &str) -> String {
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
