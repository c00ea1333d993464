//! The manifest: one JSON line in the custom section `steadfast:manifest`, written at compile time and
//! read by the host without running the module.

use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

use crate::columns;
use crate::params::Parameter;

/// Name of the custom section.
pub const SECTION: &str = "steadfast:manifest";
/// The ABI's major that this SDK speaks.
pub const ABI: u32 = 1;
/// Names that begin so belong to the policies that ship with Steadfast: any other policy wins over them.
pub const DEFAULT_PREFIX: &str = "steadfast.default.";

/// What a module says of itself. Fields are only ever added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Manifest {
    /// The ABI's major.
    pub abi: u32,
    /// Name of the policy.
    pub name: String,
    /// Version of its crate.
    pub version: String,
    /// Kinds that it implements: `node_priority`, `placement`, `risk`.
    pub kinds: Vec<String>,
    /// One sentence for the operator.
    pub about: String,
    /// Version of the SDK that it was built with.
    pub sdk: String,
    /// What it reads besides JSON: `columns` ([`crate::columns`]), or nothing. A host that does not know it asks in JSON.
    pub encoding: String,
    /// Its parameters.
    pub parameters: Vec<ParameterFacts>,
}

impl Manifest {
    /// It reads columns.
    #[must_use]
    pub fn reads_columns(&self) -> bool {
        self.encoding == columns::NAME
    }
}

/// One parameter, as read from a manifest.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ParameterFacts {
    /// Its name, as in the JSON.
    pub name: String,
    /// Its Rust type.
    pub kind: String,
    /// Its default, as a Rust expression.
    pub default: String,
    /// What it does.
    pub about: String,
}

/// What [`export_policy!`](crate::export_policy) knows at compile time.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// Name of the policy.
    pub name: &'static str,
    /// Version of its crate.
    pub version: &'static str,
    /// One sentence for the operator.
    pub about: &'static str,
    /// Kinds, in the words of the ABI.
    pub kinds: &'static [&'static str],
    /// Its parameters.
    pub parameters: &'static [Parameter],
}

impl Source {
    /// Length of the JSON line in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.write(Line::<0>::new()).len
    }

    /// Never: a manifest has at least its braces.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// The JSON line. `N` is [`Source::len`].
    #[must_use]
    pub const fn json<const N: usize>(&self) -> [u8; N] {
        self.write(Line::<N>::new()).bytes
    }

    const fn write<const N: usize>(&self, line: Line<N>) -> Line<N> {
        let mut line = line.raw("{\"abi\":1").field(",\"name\":", self.name);
        line = line.field(",\"version\":", self.version).field(",\"about\":", self.about);
        line = line
            .field(",\"sdk\":", env!("CARGO_PKG_VERSION"))
            .field(",\"encoding\":", columns::NAME);
        line = line.raw(",\"kinds\":[");
        let mut at = 0;
        while at < self.kinds.len() {
            line = line.field(if at == 0 { "" } else { "," }, self.kinds[at]);
            at += 1;
        }
        line = line.raw("],\"parameters\":[");
        at = 0;
        while at < self.parameters.len() {
            let one = &self.parameters[at];
            line = line.raw(if at == 0 { "{" } else { ",{" }).field("\"name\":", one.name);
            line = line.field(",\"kind\":", one.kind).field(",\"default\":", one.default);
            line = line.field(",\"about\":", one.about).raw("}");
            at += 1;
        }
        line.raw("]}")
    }
}

/// A line under construction at compile time. With `N` = 0 it only counts.
struct Line<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Line<N> {
    const fn new() -> Self {
        Self { bytes: [0; N], len: 0 }
    }

    const fn push(mut self, byte: u8) -> Self {
        if N > 0 {
            self.bytes[self.len] = byte;
        }
        self.len += 1;
        self
    }

    const fn raw(mut self, text: &str) -> Self {
        let mut at = 0;
        while at < text.len() {
            self = self.push(text.as_bytes()[at]);
            at += 1;
        }
        self
    }

    /// `before`, then `text` as a JSON string.
    const fn field(self, before: &str, text: &str) -> Self {
        let mut line = self.raw(before).push(b'"');
        let mut at = 0;
        while at < text.len() {
            let byte = text.as_bytes()[at];
            if byte == b'"' || byte == b'\\' {
                line = line.push(b'\\');
            }
            line = line.push(if byte < b' ' { b' ' } else { byte });
            at += 1;
        }
        line.push(b'"')
    }
}
