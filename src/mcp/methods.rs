//! The methods of MCP, in one table: what each one changes, names and needs.

/// Opens a legacy session.
pub(crate) const INITIALIZE: &str = "initialize";
/// Completes the opening of a legacy session.
pub(crate) const INITIALIZED: &str = "notifications/initialized";
/// Checks that the server responds.
pub(crate) const PING: &str = "ping";
/// Asks a modern server for its versions and capabilities.
pub(crate) const SERVER_DISCOVER: &str = "server/discover";
/// Lists the tools.
pub(crate) const TOOLS_LIST: &str = "tools/list";
/// Calls a tool.
pub(crate) const TOOLS_CALL: &str = "tools/call";
pub(crate) const PROMPTS_GET: &str = "prompts/get";
/// Lists the prompts.
pub(crate) const PROMPTS_LIST: &str = "prompts/list";
/// Lists the resources.
pub(crate) const RESOURCES_LIST: &str = "resources/list";
/// Lists the templates of resources.
pub(crate) const TEMPLATES_LIST: &str = "resources/templates/list";
/// Subscribes to the changes of a resource.
pub(crate) const RESOURCES_SUBSCRIBE: &str = "resources/subscribe";
/// Ends a subscription to a resource.
pub(crate) const RESOURCES_UNSUBSCRIBE: &str = "resources/unsubscribe";
/// Sets the level of log messages.
pub(crate) const SET_LEVEL: &str = "logging/setLevel";
/// Opens the stream of notifications of a modern client.
pub(crate) const SUBSCRIPTIONS_LISTEN: &str = "subscriptions/listen";

/// One method.
#[derive(Debug)]
pub(crate) struct Method {
    /// Its name on the wire.
    pub(crate) name: &'static str,
    /// What it changes at the server.
    pub(crate) effect: Effect,
    /// The path of the capability that it needs.
    pub(crate) capability: Option<&'static str>,
    /// Whether the header `Mcp-Name` repeats `params.name` or `params.uri`.
    pub(crate) has_name_header: bool,
    /// Whether its result may carry `ttlMs`.
    pub(crate) is_cacheable: bool,
}

/// What a request changes at the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing: rollbackd may repeat it as a shadow call, and replay it.
    ReadOnly,
    /// The same state, however often it is sent: rollbackd may replay it, but not as a shadow call.
    Idempotent,
    /// Anything.
    Unsafe,
}

const fn method(name: &'static str, effect: Effect, capability: Option<&'static str>) -> Method {
    Method { name, effect, capability, has_name_header: false, is_cacheable: false }
}

const fn named(method: Method) -> Method {
    Method { has_name_header: true, ..method }
}

const fn cacheable(method: Method) -> Method {
    Method { is_cacheable: true, ..method }
}

/// Every method that a client may send, and that rollbackd treats in its own way.
const METHODS: [Method; 22] = {
    use Effect::{Idempotent, ReadOnly, Unsafe};
    const TOOLS: Option<&str> = Some("tools");
    const PROMPTS: Option<&str> = Some("prompts");
    const RESOURCES: Option<&str> = Some("resources");
    const SUBSCRIBE: Option<&str> = Some("resources.subscribe");
    const TASKS: Option<&str> = Some("tasks");
    [
        method(INITIALIZE, Idempotent, None),
        method(INITIALIZED, Idempotent, None),
        method(PING, ReadOnly, None),
        cacheable(method(SERVER_DISCOVER, ReadOnly, None)),
        cacheable(method(TOOLS_LIST, ReadOnly, TOOLS)),
        named(method(TOOLS_CALL, Unsafe, TOOLS)),
        cacheable(method(PROMPTS_LIST, ReadOnly, PROMPTS)),
        named(method(PROMPTS_GET, ReadOnly, PROMPTS)),
        cacheable(method(RESOURCES_LIST, ReadOnly, RESOURCES)),
        cacheable(method(TEMPLATES_LIST, ReadOnly, RESOURCES)),
        named(cacheable(method("resources/read", ReadOnly, RESOURCES))),
        method(RESOURCES_SUBSCRIBE, Idempotent, SUBSCRIBE),
        method(RESOURCES_UNSUBSCRIBE, Idempotent, SUBSCRIBE),
        method("completion/complete", ReadOnly, Some("completions")),
        method(SET_LEVEL, Idempotent, Some("logging")),
        // A release knows only its own tasks, so another one cannot answer for it.
        method("tasks/get", Idempotent, TASKS),
        cacheable(method("tasks/list", Idempotent, TASKS)),
        method("tasks/result", Unsafe, TASKS),
        method("tasks/cancel", Unsafe, TASKS),
        method("tasks/update", Unsafe, TASKS),
        method(SUBSCRIPTIONS_LISTEN, Unsafe, None),
        method("notifications/cancelled", Unsafe, None),
    ]
};

/// Whether a request of the server waits for the user or the model of the client.
pub(crate) fn asks_the_client(name: &str) -> bool {
    matches!(name, "elicitation/create" | "sampling/createMessage" | "roots/list")
}

/// The entry of a method.
pub(crate) fn lookup(name: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.name == name)
}

/// Whether a request has the same effect however often it is sent, so that rollbackd may replay it.
/// An unknown `*/list` counts as idempotent.
pub(crate) fn is_idempotent(name: &str) -> bool {
    lookup(name).map_or_else(|| name.ends_with("/list"), |it| it.effect != Effect::Unsafe)
}

/// Whether a request changes nothing. `tools/call` is not: that depends on the tool.
pub(crate) fn is_read_only(name: &str) -> bool {
    lookup(name).is_some_and(|it| it.effect == Effect::ReadOnly)
}

/// Whether a request reads a list that `list_changed` can concern.
pub(crate) fn is_list(name: &str) -> bool {
    [TOOLS_LIST, PROMPTS_LIST, RESOURCES_LIST, TEMPLATES_LIST].contains(&name)
}

/// Whether a result of this method carries content, so that an empty one says something.
pub(crate) fn carries_content(name: &str) -> bool {
    is_list(name) || [TOOLS_CALL, PROMPTS_GET, "resources/read"].contains(&name)
}

/// Whether a result of this method may carry `ttlMs`; also that of an unknown `*/list`.
pub(crate) fn is_cacheable(name: &str) -> bool {
    lookup(name).map_or_else(|| name.ends_with("/list"), |it| it.is_cacheable)
}

/// Whether the header `Mcp-Name` of a request repeats the name or URI in its body.
pub(crate) fn has_name_header(name: &str) -> bool {
    lookup(name).is_some_and(|it| it.has_name_header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replays_and_shadow_calls_differ_on_purpose() {
        for name in
            [INITIALIZE, SET_LEVEL, RESOURCES_SUBSCRIBE, "tasks/get", "tasks/list", "x/list"]
        {
            assert!(is_idempotent(name) && !is_read_only(name), "{name}");
        }
        for name in [PING, TOOLS_LIST, PROMPTS_GET, "resources/read", "completion/complete"] {
            assert!(is_idempotent(name) && is_read_only(name), "{name}");
        }
        for name in [TOOLS_CALL, "tasks/cancel", SUBSCRIPTIONS_LISTEN, "x/y", ""] {
            assert!(!is_idempotent(name) && !is_read_only(name), "{name}");
        }
    }

    #[test]
    fn lists_reads_and_discoveries_are_cacheable() {
        for name in [SERVER_DISCOVER, TOOLS_LIST, TEMPLATES_LIST, "resources/read", "x/list"] {
            assert!(is_cacheable(name), "{name}");
        }
        assert!(!is_cacheable(TOOLS_CALL) && !is_cacheable(PROMPTS_GET));
        assert!(METHODS.iter().all(|it| it.is_cacheable == is_cacheable(it.name)));
    }
}
