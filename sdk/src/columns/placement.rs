//! The question and the verdict of a placement in columns.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec,
    vec::Vec,
};

use super::{Malformed, Reader, Sections, Writer, fit, owned};
use crate::ids::Ids;
use crate::tally::{find, sorted_by_id};
use crate::wire::{
    Affinity, Name, NodeFacts, PlacementQuestion, PlacementVerdict, RankedNode, RankedVm, Resident,
    Score, Term, VmFacts,
};

/// Tags of sections. Once given, a tag keeps its meaning; new fields take new tags.
mod tag {
    pub const QUESTION: u8 = 1;
    pub const NODE_COUNT: u8 = 10;
    pub const NODE_ID: u8 = 11;
    pub const NODE_NAME: u8 = 12;
    pub const NODE_STATUS: u8 = 13;
    pub const NODE_MEMORY: u8 = 14;
    pub const NODE_MEMORY_FREE: u8 = 15;
    pub const NODE_CPUS: u8 = 16;
    pub const NODE_CPUS_USED: u8 = 17;
    pub const NODE_LOAD: u8 = 18;
    pub const NODE_STORAGE_LATENCY: u8 = 19;
    pub const NODE_NETWORK_AGE: u8 = 20;
    pub const NODE_FLAPS: u8 = 21;
    pub const NODE_RISK: u8 = 22;
    pub const NODE_CORDONED: u8 = 23;
    pub const NODE_LABELS: u8 = 24;
    pub const NODE_REAL_MEMORY_FREE: u8 = 25;
    pub const VM_ID: u8 = 40;
    pub const VM_NAME: u8 = 41;
    pub const VM_MEMORY: u8 = 42;
    pub const VM_CPUS: u8 = 43;
    pub const VM_PRIORITY: u8 = 44;
    pub const VM_LABELS: u8 = 45;
    pub const VM_LAST_NODE: u8 = 46;
    pub const VM_AFFINITY: u8 = 47;
    pub const VM_AFTER: u8 = 48;
    pub const RESIDENT_ID: u8 = 60;
    pub const RESIDENT_NODE: u8 = 61;
    pub const RESIDENT_LABELS: u8 = 62;
    pub const RESIDENT_AFFINITY: u8 = 63;
    pub const RESIDENT_ALIKE: u8 = 64;
    pub const RANKED_VM: u8 = 80;
    pub const RANKED_COUNT: u8 = 81;
    pub const RANKED_NODE: u8 = 82;
    pub const RANKED_SCORE: u8 = 83;
    pub const TERM_COUNT: u8 = 84;
    pub const TERMS: u8 = 85;
}

type Labels = BTreeMap<String, String>;

pub(crate) fn question_to_columns(question: &PlacementQuestion) -> Vec<u8> {
    let rows = question.nodes.len() + question.vms.len() + question.residents.len();
    let mut writer = Writer::with_capacity(rows * 80 + 512);
    writer.section(tag::QUESTION, |writer| {
        [question.now_ms, question.seed].into_iter().for_each(|number| writer.number(number));
    });
    nodes_to_columns(&mut writer, &question.nodes);
    vms_to_columns(&mut writer, &question.vms);
    residents_to_columns(&mut writer, &question.residents);
    writer.finish()
}

fn nodes_to_columns<'a>(writer: &mut Writer<'a>, nodes: &'a [NodeFacts]) {
    let rows = nodes.iter();
    writer.section(tag::NODE_COUNT, |writer| writer.number(nodes.len() as u64));
    writer.numbers(tag::NODE_ID, rows.clone().map(|node| node.id.into()));
    writer.texts(tag::NODE_NAME, rows.clone().map(|node| node.name.as_str()));
    writer.section(tag::NODE_STATUS, |writer| {
        rows.clone().for_each(|node| writer.word(&node.status));
    });
    writer.numbers(tag::NODE_MEMORY, rows.clone().map(|node| node.memory_mib));
    writer.numbers(tag::NODE_MEMORY_FREE, rows.clone().map(|node| node.memory_free_mib));
    writer.numbers(tag::NODE_REAL_MEMORY_FREE, rows.clone().map(|node| node.real_memory_free_mib));
    writer.numbers(tag::NODE_CPUS, rows.clone().map(|node| node.vcpus.into()));
    writer.numbers(tag::NODE_CPUS_USED, rows.clone().map(|node| node.vcpus_used.into()));
    writer.numbers(tag::NODE_LOAD, rows.clone().map(|node| node.load_permille.into()));
    writer.numbers(tag::NODE_STORAGE_LATENCY, rows.clone().map(|node| node.storage_latency_ms));
    writer.numbers(tag::NODE_NETWORK_AGE, rows.clone().map(|node| node.network_age_ms));
    writer.numbers(tag::NODE_FLAPS, rows.clone().map(|node| node.flaps.into()));
    writer.numbers(tag::NODE_RISK, rows.clone().map(|node| node.risk.into()));
    writer.numbers(tag::NODE_CORDONED, rows.clone().map(|node| node.cordoned.into()));
    labels_to_columns(writer, tag::NODE_LABELS, rows.map(|node| &node.labels));
}

fn vms_to_columns<'a>(writer: &mut Writer<'a>, vms: &'a [VmFacts]) {
    let rows = vms.iter();
    writer.texts(tag::VM_ID, rows.clone().map(|vm| vm.id.as_str()));
    writer.texts(tag::VM_NAME, rows.clone().map(|vm| vm.name.as_str()));
    writer.numbers(tag::VM_MEMORY, rows.clone().map(|vm| vm.memory_mib));
    writer.numbers(tag::VM_CPUS, rows.clone().map(|vm| vm.vcpus.into()));
    writer.numbers(tag::VM_PRIORITY, rows.clone().map(|vm| vm.priority.into()));
    labels_to_columns(writer, tag::VM_LABELS, rows.clone().map(|vm| &vm.labels));
    let last = |vm: &VmFacts| vm.last_node.map_or(0, |node| u64::from(node) + 1);
    writer.numbers(tag::VM_LAST_NODE, rows.clone().map(last));
    affinities_to_columns(writer, tag::VM_AFFINITY, rows.map(|vm| &vm.affinity));
    after_to_columns(writer, vms);
}

fn residents_to_columns<'a>(writer: &mut Writer<'a>, residents: &'a [Resident]) {
    let rows = residents.iter();
    writer.texts(tag::RESIDENT_ID, rows.clone().map(|resident| resident.vm.as_str()));
    writer.numbers(tag::RESIDENT_NODE, rows.clone().map(|resident| resident.node.into()));
    labels_to_columns(writer, tag::RESIDENT_LABELS, rows.clone().map(|resident| &resident.labels));
    let affinities = rows.clone().map(|resident| &resident.affinity);
    affinities_to_columns(writer, tag::RESIDENT_AFFINITY, affinities);
    writer.section(tag::RESIDENT_ALIKE, |writer| {
        for resident in rows {
            writer.number(resident.alike.len() as u64);
            for (node, many) in &resident.alike {
                writer.number((*node).into());
                writer.number((*many).into());
            }
        }
    });
}

/// Only the rows that have some: the row's number, how many, then each.
fn after_to_columns<'a>(writer: &mut Writer<'a>, vms: &'a [VmFacts]) {
    if vms.iter().all(|vm| vm.after.is_empty()) {
        return;
    }
    writer.section(tag::VM_AFTER, |writer| {
        for (row, vm) in vms.iter().enumerate().filter(|(_, vm)| !vm.after.is_empty()) {
            writer.number(row as u64);
            writer.number(vm.after.len() as u64);
            vm.after.iter().for_each(|id| writer.word(id));
        }
    });
}

/// A row: how many, then key and value of each.
fn labels_to_columns<'a>(
    writer: &mut Writer<'a>,
    tag: u8,
    rows: impl Iterator<Item = &'a Labels> + Clone,
) {
    if rows.clone().all(Labels::is_empty) {
        return;
    }
    writer.section(tag, |writer| {
        for labels in rows {
            writer.number(labels.len() as u64);
            for (key, value) in labels {
                writer.word(key);
                writer.word(value);
            }
        }
    });
}

/// Only the rows that have one: the row's number, two flags, nodes with their weights, both sorts of words.
fn affinities_to_columns<'a>(
    writer: &mut Writer<'a>,
    tag: u8,
    rows: impl Iterator<Item = &'a Affinity> + Clone,
) {
    if rows.clone().all(is_default) {
        return;
    }
    writer.section(tag, |writer| {
        for (row, affinity) in rows.enumerate().filter(|(_, affinity)| !is_default(affinity)) {
            writer.number(row as u64);
            writer.number(u64::from(affinity.strict) | u64::from(affinity.stays) << 1);
            writer.number(affinity.nodes.len() as u64);
            for (node, weight) in &affinity.nodes {
                writer.word(node);
                writer.number((*weight).into());
            }
            for words in [&affinity.together, &affinity.apart] {
                writer.number(words.len() as u64);
                words.iter().for_each(|word| writer.word(word));
            }
        }
    });
}

fn is_default(affinity: &Affinity) -> bool {
    affinity.is_empty() && !affinity.strict && !affinity.stays
}

#[inline(never)]
pub(crate) fn question_of_columns(message: &[u8]) -> Result<PlacementQuestion, Malformed> {
    let sections = Sections::of(message)?;
    let words = sections.texts(super::WORDS)?;
    let mut question = PlacementQuestion::default();
    if let Some(mut reader) = sections.reader(tag::QUESTION) {
        (question.now_ms, question.seed) = (reader.number()?, reader.number()?);
    }
    question.nodes = nodes_of_columns(&sections, &words)?;
    question.vms = vms_of_columns(&sections, &words)?;
    question.residents = residents_of_columns(&sections, &words)?;
    Ok(question)
}

#[inline(never)]
fn nodes_of_columns(sections: &Sections<'_>, words: &[&str]) -> Result<Vec<NodeFacts>, Malformed> {
    let names = sections.texts(tag::NODE_NAME)?;
    let of_name = |name: &&str| NodeFacts { name: owned(name), ..NodeFacts::default() };
    let mut nodes: Vec<NodeFacts> = names.iter().map(of_name).collect();
    let rows = &mut nodes[..];
    sections.numbers(tag::NODE_ID, rows, |node, id| node.id = fit(id, u32::MAX))?;
    if let Some(mut reader) = sections.reader(tag::NODE_STATUS) {
        for node in &mut *rows {
            node.status = owned(reader.word(words)?);
        }
    }
    sections.numbers(tag::NODE_MEMORY, rows, |node, mib| node.memory_mib = mib)?;
    sections.numbers(tag::NODE_MEMORY_FREE, rows, |node, mib| node.memory_free_mib = mib)?;
    sections.numbers(tag::NODE_REAL_MEMORY_FREE, rows, |node, mib| {
        node.real_memory_free_mib = mib;
    })?;
    sections.numbers(tag::NODE_CPUS, rows, |node, cpus| node.vcpus = fit(cpus, u32::MAX))?;
    sections.numbers(tag::NODE_CPUS_USED, rows, |node, cpus| {
        node.vcpus_used = fit(cpus, u32::MAX);
    })?;
    sections
        .numbers(tag::NODE_LOAD, rows, |node, load| node.load_permille = fit(load, u32::MAX))?;
    sections.numbers(tag::NODE_STORAGE_LATENCY, rows, |node, ms| node.storage_latency_ms = ms)?;
    sections.numbers(tag::NODE_NETWORK_AGE, rows, |node, ms| node.network_age_ms = ms)?;
    sections.numbers(tag::NODE_FLAPS, rows, |node, flaps| node.flaps = fit(flaps, u32::MAX))?;
    sections.numbers(tag::NODE_RISK, rows, |node, risk| node.risk = fit(risk, u16::MAX))?;
    sections.numbers(tag::NODE_CORDONED, rows, |node, cordoned| node.cordoned = cordoned != 0)?;
    labels_of_columns(sections, tag::NODE_LABELS, words, rows, |node| &mut node.labels)?;
    Ok(nodes)
}

#[inline(never)]
fn vms_of_columns(sections: &Sections<'_>, words: &[&str]) -> Result<Vec<VmFacts>, Malformed> {
    let (ids, names) = (sections.texts(tag::VM_ID)?, sections.texts(tag::VM_NAME)?);
    let mut names = names.into_iter();
    let of_id = |id: &&str| VmFacts {
        id: owned(id),
        name: owned(names.next().unwrap_or_default()),
        ..VmFacts::default()
    };
    let mut vms: Vec<VmFacts> = ids.iter().map(of_id).collect();
    let rows = &mut vms[..];
    sections.numbers(tag::VM_MEMORY, rows, |vm, mib| vm.memory_mib = mib)?;
    sections.numbers(tag::VM_CPUS, rows, |vm, cpus| vm.vcpus = fit(cpus, u32::MAX))?;
    sections.numbers(tag::VM_PRIORITY, rows, |vm, priority| {
        vm.priority = fit(priority, u16::MAX);
    })?;
    labels_of_columns(sections, tag::VM_LABELS, words, rows, |vm| &mut vm.labels)?;
    sections.numbers(tag::VM_LAST_NODE, rows, |vm, last| {
        vm.last_node = last.checked_sub(1).map(|node| fit(node, u32::MAX));
    })?;
    affinities_of_columns(sections, tag::VM_AFFINITY, words, rows, |vm| &mut vm.affinity)?;
    if let Some(mut reader) = sections.reader(tag::VM_AFTER) {
        while !reader.rest.is_empty() {
            let row = reader.size()?;
            let Some(vm) = rows.get_mut(row) else { return reader.fail("it names a row beyond") };
            vm.after = words_of_columns(&mut reader, words)?;
        }
    }
    Ok(vms)
}

#[inline(never)]
fn residents_of_columns(
    sections: &Sections<'_>,
    words: &[&str],
) -> Result<Vec<Resident>, Malformed> {
    let of_id = |id: &&str| Resident { vm: owned(id), ..Resident::default() };
    let mut residents: Vec<Resident> =
        sections.texts(tag::RESIDENT_ID)?.iter().map(of_id).collect();
    let rows = &mut residents[..];
    sections.numbers(tag::RESIDENT_NODE, rows, |it, node| it.node = fit(node, u32::MAX))?;
    labels_of_columns(sections, tag::RESIDENT_LABELS, words, rows, |it| &mut it.labels)?;
    affinities_of_columns(sections, tag::RESIDENT_AFFINITY, words, rows, |it| &mut it.affinity)?;
    if let Some(mut reader) = sections.reader(tag::RESIDENT_ALIKE) {
        for resident in rows {
            resident.alike = (0..reader.count()?)
                .map(|_| Ok((fit(reader.number()?, u32::MAX), fit(reader.number()?, u32::MAX))))
                .collect::<Result<_, _>>()?;
        }
        reader.end()?;
    }
    Ok(residents)
}

fn labels_of_columns<R>(
    sections: &Sections<'_>,
    tag: u8,
    words: &[&str],
    rows: &mut [R],
    labels: impl Fn(&mut R) -> &mut Labels,
) -> Result<(), Malformed> {
    let Some(mut reader) = sections.reader(tag) else { return Ok(()) };
    for row in rows {
        for _ in 0..reader.size()? {
            let (key, value) = (reader.word(words)?, reader.word(words)?);
            labels(row).insert(owned(key), owned(value));
        }
    }
    reader.end()
}

fn affinities_of_columns<R>(
    sections: &Sections<'_>,
    tag: u8,
    words: &[&str],
    rows: &mut [R],
    of: impl Fn(&mut R) -> &mut Affinity,
) -> Result<(), Malformed> {
    let Some(mut reader) = sections.reader(tag) else { return Ok(()) };
    while !reader.rest.is_empty() {
        let row = reader.size()?;
        let Some(row) = rows.get_mut(row) else { return reader.fail("it names a row beyond") };
        let affinity = of(row);
        let flags = reader.number()?;
        (affinity.strict, affinity.stays) = (flags & 1 != 0, flags & 2 != 0);
        for _ in 0..reader.size()? {
            let (node, weight) = (reader.word(words)?, reader.number()?);
            affinity.nodes.insert(owned(node), fit(weight, u32::MAX));
        }
        affinity.together = words_of_columns(&mut reader, words)?;
        affinity.apart = words_of_columns(&mut reader, words)?;
    }
    Ok(())
}

fn words_of_columns<'m>(
    reader: &mut Reader<'m>,
    words: &[&'m str],
) -> Result<BTreeSet<String>, Malformed> {
    let count = reader.size()?;
    let mut set = BTreeSet::new();
    for _ in 0..count {
        // Not collected: that is a sort, for one or two words.
        set.insert(owned(reader.word(words)?));
    }
    Ok(set)
}

/// `None` if it names what the question does not: then it goes as JSON, and the host says what is wrong with it.
#[inline(never)]
pub(crate) fn verdict_to_columns(
    question: &PlacementQuestion,
    verdict: &PlacementVerdict,
) -> Option<Vec<u8>> {
    let mut vms = Ids::of(&question.vms);
    if vms.len() != question.vms.len() {
        return None;
    }
    let places = places(question);
    let pairs = verdict.vms.iter().map(|vm| vm.nodes.len()).sum();
    let [mut ranked, mut counts, mut nodes, mut scores, mut term_counts, mut terms] =
        [verdict.vms.len() * 2, verdict.vms.len(), pairs, pairs * 4, pairs, verdict.vms.len() * 32]
            .map(Writer::part);
    ranked.number(verdict.vms.len() as u64);
    for vm in &verdict.vms {
        ranked.number(vms.find(&vm.vm)? as u64);
        counts.number(vm.nodes.len() as u64);
        for RankedNode { node, score } in &vm.nodes {
            nodes.number(place(&places, *node)?);
            scores.signed(score.value);
            term_counts.number(score.terms.len() as u64);
            for term in &score.terms {
                terms.literal(&term.name);
                terms.signed(term.value);
            }
        }
    }
    let mut writer = Writer::with_capacity(pairs * 8 + terms.bytes.len() + 1024);
    writer.payload(tag::RANKED_VM, &ranked.bytes);
    writer.payload(tag::RANKED_COUNT, &counts.bytes);
    writer.payload(tag::RANKED_NODE, &nodes.bytes);
    writer.payload(tag::RANKED_SCORE, &scores.bytes);
    writer.payload(tag::TERM_COUNT, &term_counts.bytes);
    writer.payload(tag::TERMS, &terms.bytes);
    writer.words = terms.words;
    Some(writer.finish())
}

/// The places of nodes in the question, by id.
enum Places {
    /// Ids are small, as they mostly are: places plus one by id.
    Direct(Vec<u32>),
    /// See [`sorted_by_id`].
    Sorted(Vec<u64>),
}

fn places(question: &PlacementQuestion) -> Places {
    let nodes = || question.nodes.iter().zip(0_u32..);
    let largest = nodes().map(|(node, _)| node.id).max().unwrap_or(0);
    if largest < 4096 {
        let mut direct = vec![0; largest as usize + 1];
        nodes().for_each(|(node, place)| direct[node.id as usize] = place + 1);
        return Places::Direct(direct);
    }
    Places::Sorted(sorted_by_id(nodes().map(|(node, _)| node.id)))
}

#[inline]
fn place(places: &Places, node: u32) -> Option<u64> {
    match places {
        Places::Direct(direct) => direct.get(node as usize)?.checked_sub(1).map(u64::from),
        Places::Sorted(sorted) => find(sorted, node).map(|place| place as u64),
    }
}

pub(crate) fn verdict_of_columns(
    question: &PlacementQuestion,
    message: &[u8],
) -> Result<PlacementVerdict, Malformed> {
    let sections = Sections::of(message)?;
    // Shared, not copied: a verdict names few reasons, each many times.
    let names: Vec<Name> =
        sections.texts(super::WORDS)?.into_iter().map(|it| owned(it).into()).collect();
    let mut verdict = PlacementVerdict { vms: ranked_vms(question, &sections)? };
    let mut counts = vec![0_usize; verdict.vms.len()];
    sections.numbers(tag::RANKED_COUNT, &mut counts, |count, number| {
        *count = fit(number, usize::MAX);
    })?;
    let section =
        |tag| Reader { section: tag, rest: sections.reader(tag).map_or(&[], |it| it.rest) };
    let (mut nodes, mut scores) = (section(tag::RANKED_NODE), section(tag::RANKED_SCORE));
    let mut term_counts = sections.reader(tag::TERM_COUNT);
    let mut terms = section(tag::TERMS);
    for (vm, count) in verdict.vms.iter_mut().zip(counts) {
        if count > question.nodes.len() {
            return nodes.fail("more candidates than the question has nodes");
        }
        vm.nodes.reserve_exact(count);
        for _ in 0..count {
            let Some(node) = question.nodes.get(nodes.size()?) else {
                return nodes.fail("a candidate that the question does not have");
            };
            let value = scores.signed()?;
            let many = term_counts.as_mut().map_or(Ok(0), Reader::size)?;
            let score = Score { value, terms: terms_of(&mut terms, many, &names)? };
            vm.nodes.push(RankedNode { node: node.id, score });
        }
    }
    [nodes, scores, terms].iter().try_for_each(Reader::end)?;
    term_counts.map_or(Ok(()), |counts| counts.end())?;
    Ok(verdict)
}

fn ranked_vms(
    question: &PlacementQuestion,
    sections: &Sections<'_>,
) -> Result<Vec<RankedVm>, Malformed> {
    let Some(mut reader) = sections.reader(tag::RANKED_VM) else { return Ok(Vec::new()) };
    let count = reader.count()?;
    let mut vms = Vec::with_capacity(count);
    for _ in 0..count {
        let Some(vm) = question.vms.get(reader.size()?) else {
            return reader.fail("a VM that was not asked about");
        };
        vms.push(RankedVm { vm: vm.id.clone(), nodes: Vec::new() });
    }
    reader.end()?;
    Ok(vms)
}

fn terms_of(reader: &mut Reader<'_>, many: usize, names: &[Name]) -> Result<Vec<Term>, Malformed> {
    if many > reader.rest.len() {
        return reader.fail("fewer terms than were counted");
    }
    let mut terms = Vec::with_capacity(many);
    for _ in 0..many {
        let Some(name) = names.get(reader.size()?) else {
            return reader.fail("there is no word of that number");
        };
        terms.push(Term { name: name.clone(), value: reader.signed()? });
    }
    Ok(terms)
}
