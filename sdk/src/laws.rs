//! The laws that every policy keeps, and the questions that try it.
//!
//! | law | what it means |
//! |-----|---------------|
//! | it answers | no panic and no refusal, for any cluster: empty, one node, none alive, absurd numbers, huge |
//! | it is sound | only ids that it was given, none twice; scores in range that are the sum of their terms |
//! | it is deterministic | the same question has the same answer, whatever was asked before |
//! | order means nothing | the same nodes, VMs, residents or readings in another order have the same answer |
//!
//! The last law says nothing about ids: equal nodes are told apart by them, so *renaming* nodes may change an answer, moving them in
//! the array may not. The host always asks in the order of ids; a policy that depends on it would answer differently
//! once a node is known by another number.
//!
//! An author writes `laws!(MyPolicy);` and runs `cargo test`. The host tries the same [`questions`] with the same [`check`] in the
//! sandbox before a module may decide: `ask` is a native call there, a call of the module here. A law about fuel, memory
//! and time is the host's: it alone can measure, with [`largest`].

use alloc::{format, string::String, vec::Vec};
use core::fmt;

use crate::check::{Fault, Question};
use crate::generate::{Dice, Generate};
use crate::run::{self, Guard, Policy};
use crate::wire::{NodePriorityQuestion, PlacementQuestion, RiskQuestion};

/// Which law was broken. That a policy answers at all is told by what asks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Law {
    /// Only ids that it was given, none twice, scores in range that are the sum of their terms.
    Sound,
    /// The same question has the same answer.
    Deterministic,
    /// The order of the arrays in the question means nothing.
    Order,
}

/// A law that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken<E> {
    /// It did not answer. `E` is the error of what asked.
    NoAnswer(E),
    /// It answered against a law.
    Against {
        /// The law.
        law: Law,
        /// What shows it: the first place where answers differ, or what is wrong with one.
        fault: Fault,
    },
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sound => {
                "a verdict names only what it was asked about, each once, with sound scores"
            }
            Self::Deterministic => "the same question has the same answer",
            Self::Order => "the order of nodes, VMs and readings in the question means nothing",
        })
    }
}

impl<E: fmt::Display> fmt::Display for Broken<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer(error) => error.fmt(f),
            Self::Against { law, fault } => write!(f, "against the law: {law}; {fault}"),
        }
    }
}

/// Generated questions of one kind: first the edges ([`Generate::edges`]), then `count` of any sort.
pub fn questions<Q: Generate>(seed: u64, count: usize) -> impl Iterator<Item = Q> {
    let mut dice = Dice::new(seed);
    let random = core::iter::repeat_with(move || Q::random(&mut dice));
    Q::edges().into_iter().chain(random.take(count))
}

/// The question of a cluster of this size after a blackout, when every VM needs a place at once.
#[must_use]
pub fn largest<Q: Generate>(nodes: u32, vms: u32) -> Q {
    Q::largest(nodes, vms)
}

/// Asks until every law is tried on this question; returns the verdict.
///
/// # Errors
/// The first law that does not hold.
pub fn check<Q: Generate, E>(
    question: &Q,
    mut ask: impl FnMut(&Q) -> Result<Q::Verdict, E>,
) -> Result<Q::Verdict, Broken<E>> {
    let verdict = check_sound(question, &mut ask)?;
    check_deterministic(question, &verdict, &mut ask)?;
    check_order(question, &verdict, &mut ask)?;
    Ok(verdict)
}

/// Asks once: the verdict names only what it was asked about.
///
/// # Errors
/// It does not answer, or against [`Law::Sound`].
pub fn check_sound<Q: Question, E>(
    question: &Q,
    mut ask: impl FnMut(&Q) -> Result<Q::Verdict, E>,
) -> Result<Q::Verdict, Broken<E>> {
    let verdict = ask(question).map_err(Broken::NoAnswer)?;
    let sound = question.check(&verdict);
    sound.map_err(|fault| Broken::Against { law: Law::Sound, fault })?;
    Ok(verdict)
}

/// Asks once more: the answer is `verdict` again.
///
/// # Errors
/// It does not answer, or against [`Law::Deterministic`].
pub fn check_deterministic<Q: Question, E>(
    question: &Q,
    verdict: &Q::Verdict,
    mut ask: impl FnMut(&Q) -> Result<Q::Verdict, E>,
) -> Result<(), Broken<E>> {
    let again = ask(question).map_err(Broken::NoAnswer)?;
    same(Law::Deterministic, verdict, &again)
}

/// Asks with the arrays of the question in other orders: the answer is `verdict` again.
///
/// # Errors
/// It does not answer, or against [`Law::Order`].
pub fn check_order<Q: Generate, E>(
    question: &Q,
    verdict: &Q::Verdict,
    mut ask: impl FnMut(&Q) -> Result<Q::Verdict, E>,
) -> Result<(), Broken<E>> {
    question.reordered().iter().try_for_each(|other| {
        let answer = ask(other).map_err(Broken::NoAnswer)?;
        same(Law::Order, verdict, &answer)
    })
}

fn same<V: serde::Serialize, E>(law: Law, one: &V, other: &V) -> Result<(), Broken<E>> {
    let bytes = |verdict| serde_json::to_string(verdict).unwrap_or_default();
    let (one, other) = (bytes(one), bytes(other));
    let equal = one.bytes().zip(other.bytes()).take_while(|(one, other)| one == other).count();
    if equal == one.len() && equal == other.len() {
        return Ok(());
    }
    let from = equal.saturating_sub(40);
    let shown = |text: &str| {
        let part = text.bytes().skip(from).take(120).collect::<Vec<u8>>();
        String::from_utf8_lossy(&part).into_owned()
    };
    let what = format!("first …{}…, then …{}…", shown(&one), shown(&other));
    Err(Broken::Against { law, fault: Fault { path: format!("byte {equal}"), what } })
}

/// What `laws!` tries natively.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// Only whether it answers, and soundly.
    Sound,
    /// Twice the same question.
    Deterministic,
    /// The same question in other orders.
    Order,
    /// A huge cluster.
    Huge,
}

/// So many clusters of each kind that a policy implements `laws!` tries for each law.
const TRIED: usize = 300;
/// Nodes and VMs of the huge cluster. Smaller than what the host tries: tests are often built without optimisation.
const HUGE: (u32, u32) = (64, 2_000);

/// Tries a policy with its default parameters natively; for [`laws!`](crate::laws!).
///
/// # Panics
/// A law does not hold: with the question in JSON.
pub fn try_policy<P: Policy>(trial: Trial, guard: Guard) {
    for kind in P::KINDS {
        match *kind {
            NodePriorityQuestion::KIND => try_kind::<P, NodePriorityQuestion>(trial, guard),
            PlacementQuestion::KIND => try_kind::<P, PlacementQuestion>(trial, guard),
            RiskQuestion::KIND => try_kind::<P, RiskQuestion>(trial, guard),
            _ => {}
        }
    }
}

fn try_kind<P: Policy, Q: Generate>(trial: Trial, guard: Guard) {
    let policy = P::default();
    let tried: Vec<Q> = match trial {
        Trial::Huge => [largest(HUGE.0, HUGE.1)].into(),
        _ => questions(0x57ea_dfa5, TRIED).collect(),
    };
    for question in &tried {
        let mut ask = |question: &Q| {
            let mut answer = Err(String::new());
            let calm = guard(&mut || answer = run::ask(&policy, question));
            calm.map_err(|words| format!("it panics: {words}"))?;
            answer
        };
        let result = check_sound(question, &mut ask).and_then(|verdict| match trial {
            Trial::Sound | Trial::Huge => Ok(()),
            Trial::Deterministic => check_deterministic(question, &verdict, &mut ask),
            Trial::Order => check_order(question, &verdict, &mut ask),
        });
        if let Err(broken) = result {
            let asked = serde_json::to_string(question).unwrap_or_default();
            let shown: String = asked.chars().take(2_000).collect();
            panic!("{} {broken}\nasked: {shown}", Q::KIND);
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;
    use crate::fixture::Fixture;
    use crate::wire::{PlacementVerdict, RankedNode, RankedVm, Score, Term};

    fn asked() -> PlacementQuestion {
        Fixture::cluster(2).vm("a").vm("b").placement()
    }

    fn all_on(question: &PlacementQuestion, node: u32) -> PlacementVerdict {
        let nodes = || [RankedNode { node, score: Score::new() }].into();
        let vms = question.vms.iter().map(|vm| RankedVm { vm: vm.id.clone(), nodes: nodes() });
        PlacementVerdict { vms: vms.collect() }
    }

    fn by_id(question: &PlacementQuestion) -> PlacementVerdict {
        let mut verdict = all_on(question, 1);
        verdict.vms.sort_by(|one, next| one.vm.cmp(&next.vm));
        verdict
    }

    fn broken(
        ask: impl FnMut(&PlacementQuestion) -> Result<PlacementVerdict, String>,
    ) -> Option<String> {
        check(&asked(), ask).err().map(|broken| broken.to_string())
    }

    fn breaks(words: &str, change: impl Fn(&mut PlacementVerdict)) {
        let said = broken(|question| {
            let mut verdict = by_id(question);
            change(&mut verdict);
            Ok(verdict)
        });
        assert!(said.as_ref().is_some_and(|said| said.contains(words)), "{said:?}");
    }

    #[test]
    fn a_lawful_policy_is_let_through() {
        assert_eq!(broken(|question| Ok(by_id(question))), None);
    }

    #[test]
    fn every_unsound_verdict_is_told_with_its_place() {
        breaks("vms[1]: VM \"no\" was not asked about", |it| it.vms[1].vm = "no".into());
        breaks("vms[1]: VM \"00000000-0000-4000-8000-000000000001\" stands there twice", |it| {
            it.vms[1] = it.vms[0].clone();
        });
        breaks("vms[0].nodes[0]: node 9 is not", |it| it.vms[0].nodes[0].node = 9);
        breaks("vms[0].nodes[1]: node 1 stands there twice", |it| {
            let again = it.vms[0].nodes[0].clone();
            it.vms[0].nodes.push(again);
        });
        breaks("vms[0].nodes[0].score: score 1000000001 is not in", |it| {
            it.vms[0].nodes[0].score.value = Score::MAX + 1;
        });
        breaks("score 7 is not the sum of its terms, 5", |it| {
            let terms = [Term { name: "five".into(), value: 5 }].into();
            it.vms[0].nodes[0].score = Score { value: 7, terms };
        });
    }

    #[test]
    fn a_policy_that_remembers_is_not_deterministic() {
        let mut calls = 0;
        let said = broken(|question| {
            calls += 1;
            Ok(all_on(question, if calls > 1 { 2 } else { 1 }))
        });
        assert!(said.is_some_and(|said| said.contains("the same question has the same answer")));
    }

    #[test]
    fn a_policy_that_goes_by_the_order_of_the_question_is_found() {
        let said = broken(|question| Ok(all_on(question, 1)));
        assert!(said.is_some_and(|said| said.contains("order of nodes, VMs")));
    }

    #[test]
    fn who_does_not_answer_says_why() {
        assert_eq!(broken(|_| Err("no fuel".into())), Some("no fuel".into()));
    }

    mod clumsy {
        use crate::prelude::*;

        parameters! {
            /// Divides by what may be nothing.
            pub struct Clumsy {}
        }

        impl NodePriority for Clumsy {
            fn priority(&self, node: &NodeFacts) -> Score {
                Score::new().term("memory", mib(node.memory_free_mib / node.memory_mib))
            }
        }

        export_policy! { Clumsy: NodePriority, name = "clumsy", about = "Divides by nothing." }
    }

    #[test]
    #[should_panic(expected = "it panics: attempt to divide by zero\nasked: {\"now_ms\":0,")]
    fn a_policy_that_panics_is_told_with_the_question() {
        try_policy::<clumsy::Clumsy>(Trial::Sound, crate::__guard!());
    }
}
