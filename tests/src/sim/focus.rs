//! Faults with a direction: what a planted bug needs to show, drawn far oftener than a mixed run would.

use super::aims::{Aim, Trigger};
use super::clock::{SECOND, Time};
use super::faults::{Fault, Kind};
use super::plan::{Class, Plan, Wish};
use super::policy::Mood;
use super::rng::Rng;
use super::scenes::Scene;

/// A direction for the faults of a plan. What it leaves open the seed decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Focus {
    /// Its name on the command line.
    pub name: &'static str,
    /// Class of the run.
    pub class: Class,
    /// Number of nodes.
    pub nodes: Option<usize>,
    /// Fault kinds, all of them; empty: a random subset, as in any mixed run.
    pub kinds: &'static [Kind],
    /// At most this long between two faults, on average.
    pub pace: Time,
    /// When directed faults hit, and what they are; empty: any.
    pub shots: (&'static [Trigger], &'static [Kind]),
    /// Every node has a fence agent, or none has.
    pub fencing: Option<bool>,
    /// How policies behave.
    pub mood: Option<Mood>,
    /// Operators want many things.
    pub wishes: bool,
    /// What is played instead of faults at random.
    pub scene: Option<Scene>,
}

impl Focus {
    /// No direction: a mixed run.
    pub const ANY: Self = Self::any("any");

    /// No direction yet.
    #[must_use]
    pub const fn any(name: &'static str) -> Self {
        Self {
            name,
            class: Class::Swarm,
            nodes: None,
            kinds: &[],
            pace: 25 * SECOND,
            shots: (&[], &[]),
            fencing: None,
            mood: None,
            wishes: false,
            scene: None,
        }
    }

    /// A run of this class.
    #[must_use]
    pub const fn class(self, class: Class) -> Self {
        Self { class, ..self }
    }

    /// Only these kinds of faults, beside directed ones.
    #[must_use]
    pub const fn at(name: &'static str, kinds: &'static [Kind]) -> Self {
        Self { kinds, ..Self::any(name) }
    }

    /// When one of these things happens, one of these faults hits.
    #[must_use]
    pub const fn when(self, triggers: &'static [Trigger], kinds: &'static [Kind]) -> Self {
        Self { shots: (triggers, kinds), ..self }
    }

    /// So many nodes.
    #[must_use]
    pub const fn nodes(self, nodes: usize) -> Self {
        Self { nodes: Some(nodes), ..self }
    }

    /// Only time, a word or another boot proves anything.
    #[must_use]
    pub const fn without_fencing(self) -> Self {
        Self { fencing: Some(false), ..self }
    }

    /// Every node has a fence agent.
    #[must_use]
    pub const fn with_fencing(self) -> Self {
        Self { fencing: Some(true), ..self }
    }

    /// Policies are like this.
    #[must_use]
    pub const fn policies(self, mood: Mood) -> Self {
        Self { mood: Some(mood), ..self }
    }

    /// Operators want many things.
    #[must_use]
    pub const fn wished(self) -> Self {
        Self { wishes: true, ..self }
    }

    /// This is played, again and again.
    #[must_use]
    pub const fn scene(name: &'static str, scene: Scene) -> Self {
        Self { scene: Some(scene), ..Self::any(name) }
    }

    /// A fault every few seconds.
    #[must_use]
    pub const fn fast(self) -> Self {
        Self { pace: 4 * SECOND, ..self }
    }

    /// The wish for a run with this direction.
    #[must_use]
    pub fn wish(self) -> Wish {
        let (class, nodes) = (Some(self.class), self.nodes);
        Wish { class, nodes, focus: Some(self), ..Wish::default() }
    }
}

impl Plan {
    /// Fixes what the focus fixes.
    pub fn take_focus(&mut self) {
        let Some(focus) = self.focus else { return };
        self.mood = focus.mood.unwrap_or(self.mood);
        if let Some(fencing) = focus.fencing {
            self.fence_agents = if fencing { self.all() } else { 0 };
            // Without fence agents the rule of time is the only way out for the dead.
            self.never_paused |= !fencing;
        }
    }

    /// Draws the focus's directed faults.
    pub fn draw_shots(&mut self, (from, until): (Time, Time), rng: &mut Rng) {
        let Some((triggers, kinds)) = self.focus.map(|focus| focus.shots) else { return };
        if triggers.is_empty() {
            return;
        }
        self.aims.clear();
        for _ in 0..rng.range(3, 8) {
            let trigger = rng.pick(triggers);
            let fault = Fault::draw(rng.pick(kinds), self, rng);
            let aim = Aim::draw(rng.range(from, until), self, rng);
            self.aims.push(Aim { trigger, fault, ..aim });
        }
    }
}
