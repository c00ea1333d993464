//! One incident: what belongs to it, and how it is told.

use crate::api::wire::DecisionReport;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use steadfast_core::decision::Kind;

/// What happens again so soon is the same incident.
const AGAIN_MS: u64 = 30_000;
/// Several nodes say the same of another within this.
const ECHO_MS: u64 = 15_000;
/// Steps of VMs, of which there may be thousands: those of the first ones are told, and all are in the events.
const VM_STEPS: [&str; 5] = ["decided", "waiting", "start_ordered", "vm_running", "vm_exited"];
const MOST_VM_STEPS: usize = 300;
/// Milestones of one incident.
const MOST_MILESTONES: usize = 500;

/// What went wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub(in crate::watch) struct Incident {
    /// Its number in the history.
    pub(in crate::watch) id: i64,
    pub(in crate::watch) opened_wall_ms: u64,
    pub(in crate::watch) closed_wall_ms: Option<u64>,
    pub(in crate::watch) title: String,
    pub(in crate::watch) severity: Severity,
    /// The node that it is about.
    pub(in crate::watch) node: Option<String>,
    /// VMs that it touched.
    pub(in crate::watch) vms: Vec<Touched>,
    /// First things first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::watch) milestones: Vec<Milestone>,
    pub(in crate::watch) summary: String,
    /// The node was evicted: its VMs were to run elsewhere.
    #[serde(default)]
    pub(in crate::watch) evicted: bool,
    /// When the node was well again.
    #[serde(default)]
    pub(in crate::watch) back_wall_ms: Option<u64>,
}

/// How bad.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::watch) enum Severity {
    /// Nothing stood still.
    #[default]
    Warning,
    /// VMs stood still.
    Critical,
}

/// A VM that an incident touched.
#[derive(Debug, Clone, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub(in crate::watch) struct Touched {
    pub(in crate::watch) id: String,
    pub(in crate::watch) name: String,
    /// When it ran again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::watch) running_wall_ms: Option<u64>,
}

/// A step of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub(in crate::watch) struct Milestone {
    pub(in crate::watch) at_wall_ms: u64,
    /// The kind of decision, or what was seen.
    pub(in crate::watch) name: String,
    pub(in crate::watch) text: String,
    /// The decision that it is.
    pub(in crate::watch) decision_id: Option<String>,
}

pub(super) fn milestone(report: &DecisionReport) -> Milestone {
    let name = serde_json::to_value(report.kind).unwrap_or_default();
    Milestone {
        at_wall_ms: report.wall_ms,
        name: name.as_str().unwrap_or_default().into(),
        text: report.text.clone(),
        decision_id: Some(report.id.clone()),
    }
}

impl Incident {
    pub(super) fn begun(at: u64) -> Self {
        Self { opened_wall_ms: at, ..Self::default() }
    }

    /// What happens at `at` may belong to it.
    pub(super) fn covers(&self, at: u64) -> bool {
        let end = self.closed_wall_ms.map_or(u64::MAX, |end| end.saturating_add(AGAIN_MS));
        (self.opened_wall_ms.saturating_sub(AGAIN_MS)..=end).contains(&at)
    }

    pub(super) fn add(&mut self, step: Milestone) {
        let head = |text: &str| text.split(':').next().unwrap_or_default().to_string();
        let echo = |known: &&mut Milestone| {
            known.name == step.name
                && head(&known.text) == head(&step.text)
                && known.at_wall_ms.abs_diff(step.at_wall_ms) < ECHO_MS
        };
        if let Some(known) = self.milestones.iter_mut().find(echo) {
            // A decision says more than what was seen of it.
            if known.decision_id.is_none() {
                *known = Milestone { at_wall_ms: known.at_wall_ms.min(step.at_wall_ms), ..step };
            }
            return;
        }
        let is_of_vm = |name: &str| VM_STEPS.contains(&name);
        let most = if is_of_vm(&step.name) { MOST_VM_STEPS } else { MOST_MILESTONES };
        if self.milestones.len() >= most {
            return;
        }
        self.opened_wall_ms = self.opened_wall_ms.min(step.at_wall_ms);
        let place = self.milestones.partition_point(|it| it.at_wall_ms <= step.at_wall_ms);
        self.milestones.insert(place, step);
    }

    pub(super) fn learn(&mut self, report: &DecisionReport) {
        let at = report.wall_ms;
        match report.kind {
            Kind::Evicted => {
                self.evicted = true;
                self.back_wall_ms = None;
            }
            Kind::Admitted => self.back_wall_ms = Some(at),
            _ => {}
        }
        let (Some(id), Some(name)) = (&report.vm_id, &report.vm) else { return };
        match report.kind {
            Kind::VmRunning => {
                self.touch(&id.0, name);
                self.runs_again(&id.0, at);
            }
            Kind::Decided | Kind::Waiting | Kind::StartOrdered => self.touch(&id.0, name),
            _ => {}
        }
    }

    pub(super) fn touch(&mut self, id: &str, name: &str) {
        if !self.vms.iter().any(|touched| touched.id == id) {
            let (id, name) = (id.into(), name.into());
            self.vms.push(Touched { id, name, running_wall_ms: None });
        }
    }

    pub(super) fn runs_again(&mut self, id: &str, at: u64) {
        let after = self.opened_wall_ms;
        if let Some(touched) = self.vms.iter_mut().find(|touched| touched.id == id)
            && touched.running_wall_ms.is_none()
            && at >= after
        {
            touched.running_wall_ms = Some(at);
        }
    }

    /// Title, severity and summary, from what is known now.
    pub(super) fn sum_up(&mut self) {
        if let Some(node) = self
            .node
            .clone()
            .filter(|_| self.closed_wall_ms.is_none() || self.back_wall_ms.is_some())
        {
            self.title = match self.evicted {
                true => format!("{node} failed"),
                false if self.closed_wall_ms.is_some() => format!("{node} was silent for a while"),
                false => format!("{node} is not well"),
            };
        }
        if !self.vms.is_empty() {
            self.severity = Severity::Critical;
        }
        let told: Vec<String> =
            [self.sum_up_vms(), self.sum_up_node()].into_iter().flatten().collect();
        self.summary = told.join("; ");
        if self.summary.is_empty() {
            self.summary = self.milestones.last().map(|it| it.text.clone()).unwrap_or_default();
        }
    }

    pub(super) fn sum_up_vms(&self) -> Option<String> {
        let all = self.vms.len();
        let ran: Vec<u64> = self.vms.iter().filter_map(|vm| vm.running_wall_ms).collect();
        let longest = ran.iter().max().map(|at| span(at - self.opened_wall_ms));
        let vms = if all == 1 { "VM" } else { "VMs" };
        match (all, longest) {
            (0, _) => None,
            (_, None) => Some(format!("{all} {vms} down")),
            (_, Some(longest)) if ran.len() == all => {
                Some(format!("{all} {vms} ran again within {longest}"))
            }
            (_, Some(_)) => Some(format!("{} of {all} {vms} run again", ran.len())),
        }
    }

    pub(super) fn sum_up_node(&self) -> Option<String> {
        let (node, back) = (self.node.as_ref()?, self.back_wall_ms?);
        let passed = span(back.saturating_sub(self.opened_wall_ms));
        Some(format!("{node} was well again after {passed}"))
    }
}

fn span(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        10_000..120_000 => format!("{} s", ms / 1_000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}
