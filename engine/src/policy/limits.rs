//! Every limit of a policy, in one place.

use serde::{Deserialize, Serialize};

/// What a policy may be and use. Part of a generation's digest: the same module under other limits is
/// another decider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Size of a module, in bytes.
    pub module_bytes: u64,
    /// Size of one function's body, in bytes: compile time grows faster than it.
    pub function_bytes: u32,
    /// Size of the parameters, in bytes.
    pub parameters_bytes: u64,
    /// Linear memory, in bytes.
    pub memory_bytes: usize,
    /// Elements of all tables together.
    pub table_elements: usize,
    /// Stack of the module, in bytes. The calling thread needs it twice over.
    pub stack_bytes: usize,
    /// Fuel of a call (about one a Wasm instruction), whatever the question's size.
    pub fuel: u64,
    /// Further fuel for each byte of the question.
    pub fuel_per_byte: u64,
    /// Wall deadline of a call in milliseconds. The backstop: fuel should end a call ten times earlier.
    pub wall_ms: u64,
    /// Size of a verdict, in bytes.
    pub output_bytes: usize,
    /// Log lines a call.
    pub log_lines: usize,
    /// Length of a log line, in bytes; the rest is cut.
    pub log_line_bytes: usize,
    /// So many failures in a row suspend a generation.
    pub failures_in_row: u32,
    /// A suspended generation is tried with one question after so many milliseconds; each failure doubles them, up to
    /// eight times.
    pub suspended_ms: u64,
}

impl Default for Limits {
    /// Twice what 10,000 VMs on 64 nodes take (1.4 thousand million units of fuel for 516 KiB of question in columns); a
    /// loop in a question of three nodes ends after some 20 ms.
    fn default() -> Self {
        Self {
            module_bytes: 4 << 20,
            function_bytes: 512 << 10,
            parameters_bytes: 64 << 10,
            memory_bytes: 64 << 20,
            table_elements: 10_000,
            stack_bytes: 512 << 10,
            fuel: 50_000_000,
            fuel_per_byte: 6_000,
            wall_ms: 2_000,
            output_bytes: 16 << 20,
            log_lines: 64,
            log_line_bytes: 512,
            failures_in_row: 3,
            suspended_ms: 600_000,
        }
    }
}

impl Limits {
    /// Fuel of a call with a question of so many bytes.
    pub(super) fn fuel_for(&self, question_bytes: usize) -> u64 {
        let bytes = u64::try_from(question_bytes).unwrap_or(u64::MAX);
        self.fuel.saturating_add(self.fuel_per_byte.saturating_mul(bytes))
    }
}
