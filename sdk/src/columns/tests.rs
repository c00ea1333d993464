use super::*;
use crate::abi::Wire;
use crate::generate::{Dice, Generate};
use crate::kinds::Placement;
use crate::situation::Situation;
use crate::wire::{NodeFacts, PlacementQuestion, PlacementVerdict, Score, VmFacts};
use alloc::vec;

/// Leaves some nodes out and gives odd scores.
struct Odd;

impl Placement for Odd {
    fn score(&self, vm: &VmFacts, node: &NodeFacts, _: &Situation<'_>) -> Option<Score> {
        let value = i64::try_from(vm.memory_mib % 7_000).unwrap_or(0) - i64::from(node.id) * 900;
        let score = Score::new().term("odd", value).term(node.name.clone(), value / 3);
        (value % 5 != 0).then_some(score)
    }
}

fn questions() -> impl Iterator<Item = PlacementQuestion> {
    let mut dice = Dice::new(0xc01);
    let random = core::iter::repeat_with(move || PlacementQuestion::random(&mut dice));
    PlacementQuestion::edges().into_iter().chain(random.take(500))
}

#[test]
fn every_question_comes_back_as_it_was() {
    for question in questions() {
        let message = question.to_columns().unwrap();
        assert_eq!(PlacementQuestion::of_columns(&message), Ok(question));
    }
}

#[test]
fn every_verdict_comes_back_as_it_was() {
    for question in questions() {
        let verdict = Odd.placement(&question);
        let message = question.verdict_to_columns(&verdict).unwrap();
        assert_eq!(question.verdict_of_columns(&message), Ok(verdict));
    }
}

#[test]
fn what_the_question_does_not_name_cannot_be_said_in_columns() {
    let question = PlacementQuestion::largest(3, 3);
    let verdict = Odd.placement(&question);
    let with = |change: fn(&mut PlacementVerdict)| {
        let mut other = verdict.clone();
        change(&mut other);
        question.verdict_to_columns(&other)
    };
    assert!(with(|_| ()).is_some());
    assert_eq!(with(|verdict| verdict.vms[0].vm.push('x')), None);
    assert_eq!(with(|verdict| verdict.vms[1].nodes[0].node = 9), None);
}

#[test]
fn a_message_of_a_newer_minor_is_read_without_what_is_new() {
    let question = PlacementQuestion::largest(3, 3);
    let mut message = question.to_columns().unwrap();
    message.extend_from_slice(&[200, 3, 0, 0, 0, 1, 2, 3]);
    assert_eq!(PlacementQuestion::of_columns(&message), Ok(question));
}

#[test]
fn damaged_messages_are_refused_or_read_but_never_believed_beyond_their_length() {
    let question = PlacementQuestion::largest(4, 5);
    let asked = question.to_columns().unwrap();
    let answered = question.verdict_to_columns(&Odd.placement(&question)).unwrap();
    for message in [asked, answered] {
        for at in 0..message.len() {
            let _ = PlacementQuestion::of_columns(&message[..at]);
            let _ = question.verdict_of_columns(&message[..at]);
            for bit in [0x01, 0x80, 0xff] {
                let mut damaged = message.clone();
                damaged[at] ^= bit;
                let _ = PlacementQuestion::of_columns(&damaged);
                let _ = question.verdict_of_columns(&damaged);
            }
        }
    }
    let huge = vec![MAGIC, 80, 6, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    assert!(question.verdict_of_columns(&huge).is_err());
}

#[test]
fn numbers_of_every_length_come_back() {
    let mut writer = Writer::with_capacity(0);
    let numbers: Vec<u64> = (0..64).flat_map(|bit| [(1 << bit) - 1, 1 << bit, u64::MAX]).collect();
    numbers.iter().for_each(|number| writer.number(*number));
    numbers.iter().for_each(|number| writer.signed(number.cast_signed()));
    let mut reader = Reader { section: 0, rest: &writer.bytes[1..] };
    assert!(numbers.iter().all(|number| reader.number() == Ok(*number)));
    assert!(numbers.iter().all(|number| reader.signed() == Ok(number.cast_signed())));
    reader.rest = &[0xff; 10];
    assert!(reader.number().is_err(), "70 bits");
}
