//! How `top` looks.

use super::super::format::{age, priority, utc};
use super::super::{events, plan, status};
use super::scene::{Pane, Scene, Story};
use crate::api::wire::{LiveState, NodePlan};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row, Table, Wrap};
use steadfast_core::proactive::Level;
use steadfast_core::snapshot::{NodeView, Status, VmView};
use steadfast_core::time::Millis;

/// Cells of a full lease.
const BAR: u64 = 8;
const KEYS: &str = "arrows: select   tab: nodes or VMs   enter: explain   /: find VMs   q: quit";

pub(super) fn draw(frame: &mut Frame<'_>, scene: &mut Scene) {
    let Some(state) = scene.state.take() else {
        let text = scene.lost.as_deref().unwrap_or("waiting for the agent's first answer");
        return frame.render_widget(Paragraph::new(text.to_owned()), frame.area());
    };
    let head = head(&state, scene.lost.as_deref());
    let [top, nodes, vms, decisions, keys] = Layout::vertical([
        Constraint::Length(u16::try_from(head.len()).unwrap_or(u16::MAX).min(8)),
        Constraint::Length(node_lines(&state, frame.area())),
        Constraint::Fill(1),
        Constraint::Length(frame.area().height / 5 + 1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(head), top);
    let table = nodes_table(&state, scene.pane == Pane::Nodes);
    frame.render_stateful_widget(table, nodes, &mut scene.nodes);
    scene.state = Some(state);
    draw_vms(frame, vms, scene);
    draw_decisions(frame, decisions, scene);
    frame.render_widget(Paragraph::new(KEYS).style(faint()), keys);
    if let Some(story) = &scene.story {
        draw_story(frame, story);
    }
}

/// All of them with their header, but never more than 40 percent.
fn node_lines(state: &LiveState, area: Rect) -> u16 {
    let most = usize::from(area.height) * 2 / 5;
    u16::try_from((state.nodes.len() + 2).min(most.max(3))).unwrap_or(u16::MAX)
}

/// Colours say nothing that words do not say too; `NO_COLOR` switches them off (no-color.org).
fn colour(colour: Color) -> Style {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if wanted { Style::new().fg(colour) } else { Style::new() }
}

fn faint() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn head(state: &LiveState, lost: Option<&str>) -> Vec<Line<'static>> {
    let red = colour(Color::Red).patch(bold());
    let leader = match &state.leader {
        Some(leader) => format!("leader {} (term {})", leader.name, state.term),
        None => format!("no leader (term {}): {}", state.term, state.election.reason),
    };
    let quorum = if state.quorate { Span::raw("quorum") } else { Span::styled("NO QUORUM", red) };
    let (seen, all) = (state.view.len(), state.nodes.len());
    let mut lines = vec![Line::from(vec![
        Span::styled(format!("{}  ", state.cluster), bold()),
        Span::raw(format!("seen from {}: {leader}, ", state.node.name)),
        quorum,
        Span::raw(format!(" ({seen} of {all} in view)   {} UTC", utc(state.wall_ms))),
    ])];
    let mut warn = |text: String, style| lines.push(Line::styled(text, style));
    if let Some(why) = lost {
        warn(format!("THIS IS OLD: {why}"), red);
    }
    if let Some(disarm) = &state.disarm {
        let is = if disarm.pending { "WILL BE" } else { "IS" };
        let until = status::until(disarm);
        warn(format!("HIGH AVAILABILITY {is} OFF{until}: {}", disarm.reason), red);
    }
    if state.lease.text != "good" {
        warn(format!("lease of this node: {}", state.lease.text), colour(Color::Yellow));
    }
    for warning in &state.warnings {
        warn(format!("WARNING: {warning}"), colour(Color::Yellow));
    }
    if let Some(known) = &state.plan {
        let told = plan::verdict(known);
        let style =
            if known.values().any(|one| one.lacks > 0) { Color::Yellow } else { Color::Green };
        warn(told.lines().next().unwrap_or_default().to_owned(), colour(style));
    }
    lines
}

fn header<'a>(names: &[&'a str]) -> Row<'a> {
    Row::new(names.iter().map(|name| Cell::from(*name))).style(faint())
}

fn selected(is_here: bool) -> Style {
    if is_here { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() }
}

fn nodes_table(state: &LiveState, is_here: bool) -> Table<'static> {
    let names = [
        "NODE",
        "STATUS",
        "NETWORK",
        "STORAGE",
        "LEASE LEFT",
        "PRIORITY",
        "RISK",
        "VCPUS",
        "FREE MIB",
        "VMS",
        "IF IT DIED",
        "NOTE",
    ];
    let widths = [8, 18, 8, 8, 7 + BAR, 13, 5, 7, 9, 5, 16]
        .map(|width| Constraint::Length(u16::try_from(width).unwrap_or(u16::MAX)));
    let widths = widths.into_iter().chain([Constraint::Fill(1)]);
    let rows: Vec<_> = state.nodes.values().map(|node| node_row(state, node)).collect();
    let block = Block::new().title(Line::styled("Nodes", bold()));
    Table::new(rows, widths)
        .header(header(&names))
        .block(block)
        .row_highlight_style(selected(is_here))
}

fn node_row(state: &LiveState, node: &NodeView) -> Row<'static> {
    let own = |vm: &&VmView| vm.owner.id == node.id;
    let ballot = state.election.ballots.iter().find(|ballot| ballot.node == node.id);
    let risk = node.risk.as_ref();
    let score = risk.and_then(|risk| risk.report.as_ref()).map(|report| report.score);
    let calm = risk.is_none_or(|risk| risk.level == Level::Calm);
    let plan = state.plan.as_ref().and_then(|plan| plan.get(&node.name));
    let number = |value: Option<String>| value.unwrap_or_else(|| "-".into());
    Row::new([
        Cell::from(node.name.clone()).style(bold()),
        Cell::from(node.status_text.clone()).style(colour(status_colour(node.status))),
        Cell::from(age(node.beat_age)),
        Cell::from(age(node.page_age)),
        Cell::from(lease(node.lease_left, state.timing.get("lease_ms").copied())),
        Cell::from(number(ballot.map(|ballot| priority(&ballot.priority)))),
        Cell::from(number(score.map(|score| score.to_string()))).style(if calm {
            Style::new()
        } else {
            colour(Color::Yellow)
        }),
        Cell::from(format!("{}/{}", node.facts.vcpus_used, node.facts.vcpus)),
        Cell::from(node.facts.memory_free_mib.to_string()),
        Cell::from(state.vms.values().filter(own).count().to_string()),
        Cell::from(plan.map_or_else(|| "-".into(), fate)),
        Cell::from(status::note(node)),
    ])
}

fn fate(plan: &NodePlan) -> String {
    let NodePlan { vms, fits, waits, lacks, .. } = plan;
    match (vms, waits, lacks) {
        (0, ..) => "nothing to move".into(),
        (_, 0, 0) => format!("{fits} start"),
        (_, waits, 0) => format!("{fits} start, {waits} wait"),
        (_, _, lacks) => format!("{lacks} NO PLACE"),
    }
}

fn lease(left: Option<Millis>, whole: Option<u64>) -> String {
    let (Some(Millis(left)), Some(whole @ 1..)) = (left, whole) else { return age(left) };
    let full = usize::try_from((left * BAR).div_ceil(whole).min(BAR)).unwrap_or_default();
    format!("{:<6}{}", age(Some(Millis(left))), "\u{25ae}".repeat(full))
}

fn status_colour(status: Status) -> Color {
    match status {
        Status::Leader | Status::Member => Color::Green,
        Status::Joining | Status::Suspect | Status::NetworkUnstable | Status::Maintenance => {
            Color::Yellow
        }
        Status::Disarmed => Color::Magenta,
        _ => Color::Red,
    }
}

fn state_colour(state: &str) -> Color {
    match state {
        "running" => Color::Green,
        "starting" | "stopping" => Color::Cyan,
        "stopped" => Color::Reset,
        "waiting" | "orphan" => Color::Yellow,
        _ => Color::Red,
    }
}

fn draw_vms(frame: &mut Frame<'_>, area: Rect, scene: &mut Scene) {
    let shown = scene.shown_vms();
    let all = scene.state.as_ref().map_or(0, |state| state.vms.len());
    let title = match (scene.is_filtering, scene.filter.as_str()) {
        (true, filter) => format!("VMs: /{filter}_  ({} of {all})", shown.len()),
        (false, "") => format!("VMs ({all})"),
        (false, filter) => format!("VMs with {filter:?} ({} of {all}; esc: all)", shown.len()),
    };
    let rows: Vec<_> = shown.into_iter().map(vm_row).collect();
    let widths = [24, 10, 10, 9, 11].map(Constraint::Length).into_iter();
    let table = Table::new(rows, widths.chain([Constraint::Fill(1)]))
        .header(header(&["VM", "OWNER", "STATE", "PRIORITY", "MEMORY MIB", "NOTE"]))
        .block(Block::new().title(Line::styled(title, bold())))
        .row_highlight_style(selected(scene.pane == Pane::Vms));
    frame.render_stateful_widget(table, area, &mut scene.vms);
}

fn vm_row(vm: &VmView) -> Row<'static> {
    Row::new([
        Cell::from(vm.name.clone()).style(bold()),
        Cell::from(vm.owner.name.clone()),
        Cell::from(vm.state.clone()).style(colour(state_colour(&vm.state))),
        Cell::from(vm.priority.to_string()),
        Cell::from(vm.memory_mib.to_string()),
        Cell::from(status::vm_note(vm)),
    ])
}

fn draw_decisions(frame: &mut Frame<'_>, area: Rect, scene: &Scene) {
    let room = usize::from(area.height.saturating_sub(1));
    let newest = scene.decisions.iter().rev().take(room).collect::<Vec<_>>();
    let lines: Vec<_> = newest
        .into_iter()
        .rev()
        .map(|report| {
            let [time, kind, _, _, text] = events::columns(report);
            let time = time.split(' ').nth(1).unwrap_or_default().to_owned();
            Line::from(vec![
                Span::styled(format!("{time}  "), faint()),
                Span::styled(format!("{kind:<13} "), bold()),
                Span::raw(text),
            ])
        })
        .collect();
    let block = Block::new().title(Line::styled("Decisions", bold()));
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn draw_story(frame: &mut Frame<'_>, story: &Story) {
    let area = frame.area();
    let inner = Rect {
        x: area.x + area.width / 20,
        y: area.y + area.height / 20,
        width: area.width - area.width / 10,
        height: area.height - area.height / 10,
    };
    let title = format!(" {}: arrows scroll, esc closes ", story.name);
    let text = Paragraph::new(story.text.as_str())
        .wrap(Wrap { trim: false })
        .scroll((story.scroll, 0))
        .block(Block::bordered().title(title));
    frame.render_widget(Clear, inner);
    frame.render_widget(text, inner);
}
