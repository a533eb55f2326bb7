use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

/// The two ways to speak MCP over HTTP, in the specification's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Era {
    /// 2024-11-05 to 2025-11-25: an initialize handshake and a session id.
    Legacy,
    /// 2026-07-28 and later: each request stands for itself.
    Modern,
}

/// What a release offers its clients, as a probe saw it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contract {
    /// The name and version that the server gives itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub server: String,
    /// Protocol versions it was seen to accept, of both eras.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub protocols: BTreeSet<String>,
    /// Capability paths, such as `tools.listChanged`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub capabilities: BTreeSet<String>,
    /// Names of its tools.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tools: BTreeSet<String>,
    /// Those of its tools that it annotates as read-only: they may be called once more.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[serde(alias = "safe_tools")]
    pub read_only_tools: BTreeSet<String>,
    /// What its tools take and give, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[serde(alias = "shapes")]
    pub tool_schemas: BTreeMap<String, ToolSchema>,
    /// Its prompts, and the arguments that each one requires.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub prompts: BTreeMap<String, BTreeSet<String>>,
    /// The URIs of its resources, and the templates of such.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub resources: BTreeSet<String>,
    /// Lists that are not known, since they were too long to be kept, or refused.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[serde(alias = "unknown")]
    pub incomplete: BTreeSet<ContractPart>,
}

/// A part of a contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContractPart {
    /// A protocol version.
    Protocol,
    /// A capability, as a path.
    Capability,
    /// A tool, by name.
    Tool,
    /// A prompt, by name.
    Prompt,
    /// A resource or a template of such, by URI.
    Resource,
}

/// What a tool takes and gives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolSchema {
    /// The arguments that it requires.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub required: BTreeSet<String>,
    /// A hash of its input schema, as 16 hexadecimal digits.
    #[serde(alias = "input")]
    pub input_hash: String,
    /// The same of its output schema; empty where it states none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[serde(alias = "output")]
    pub output_hash: String,
}

impl Era {
    /// The era of a protocol version. Versions are dates, so they compare as text.
    pub fn of(protocol: &str) -> Self {
        if protocol < "2026-07-28" { Self::Legacy } else { Self::Modern }
    }
}

impl Contract {
    /// The eras it speaks.
    pub fn eras(&self) -> BTreeSet<Era> {
        self.protocols.iter().map(|protocol| Era::of(protocol)).collect()
    }
}

impl fmt::Display for ContractPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Protocol => "protocol",
            Self::Capability => "capability",
            Self::Tool => "tool",
            Self::Prompt => "prompt",
            Self::Resource => "resource",
        })
    }
}

impl fmt::Display for Era {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Legacy => "legacy",
            Self::Modern => "modern",
        })
    }
}
