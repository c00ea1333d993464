//! What `top` shows, and what keys do to it.

use crate::api::wire::{DecisionReport, LiveState};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::widgets::TableState;
use std::collections::VecDeque;
use steadfast_core::snapshot::VmView;

/// What a key asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    Quit,
    /// The story of a VM or a node.
    Explain(String),
}

/// Where the arrows go.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pane {
    #[default]
    Nodes,
    Vms,
}

/// A text over everything else.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) name: String,
    pub(super) text: String,
    pub(super) scroll: u16,
}

#[derive(Debug, Default)]
pub(super) struct Scene {
    pub(super) state: Option<LiveState>,
    pub(super) decisions: VecDeque<DecisionReport>,
    /// The agent is gone, in words.
    pub(super) lost: Option<String>,
    pub(super) pane: Pane,
    pub(super) nodes: TableState,
    pub(super) vms: TableState,
    /// Only VMs with these letters in their name, owner or state.
    pub(super) filter: String,
    pub(super) is_filtering: bool,
    pub(super) story: Option<Story>,
    /// To be drawn.
    pub(super) is_new: bool,
}

impl Scene {
    /// Decisions that are kept.
    pub(super) const DECISIONS: usize = 50;

    pub(super) fn set(&mut self, state: LiveState) {
        (self.state, self.lost, self.is_new) = (Some(state), None, true);
    }

    pub(super) fn add(&mut self, report: DecisionReport) {
        // Told again after a stream broke.
        if self.decisions.iter().any(|known| known.id == report.id && !known.id.is_empty()) {
            return;
        }
        self.decisions.push_back(report);
        let above = self.decisions.len().saturating_sub(Self::DECISIONS);
        drop(self.decisions.drain(..above));
        self.is_new = true;
    }

    pub(super) fn lose(&mut self, why: String) {
        (self.lost, self.is_new) = (Some(why), true);
    }

    pub(super) fn show(&mut self, name: &str, text: String) {
        self.story = Some(Story { name: name.into(), text, scroll: 0 });
        self.is_new = true;
    }

    /// VMs that pass the filter, by name.
    pub(super) fn shown_vms(&self) -> Vec<&VmView> {
        let wanted = self.filter.to_lowercase();
        let has = |text: &str| text.to_lowercase().contains(&wanted);
        let all = self.state.iter().flat_map(|state| state.vms.values());
        let mut shown: Vec<_> =
            all.filter(|vm| has(&vm.name) || has(&vm.owner.name) || has(&vm.state)).collect();
        shown.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        shown
    }

    pub(super) fn press(&mut self, key: KeyEvent) -> Wish {
        self.is_new = true;
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Wish::Quit;
        }
        if self.story.is_some() {
            self.press_in_story(key.code);
            return Wish::Nothing;
        }
        if self.is_filtering {
            self.press_in_filter(key.code);
            return Wish::Nothing;
        }
        self.press_in_tables(key.code)
    }

    fn press_in_story(&mut self, code: KeyCode) {
        let Some(story) = &mut self.story else { return };
        match code {
            KeyCode::Down | KeyCode::Char('j') => story.scroll = story.scroll.saturating_add(1),
            KeyCode::Up | KeyCode::Char('k') => story.scroll = story.scroll.saturating_sub(1),
            KeyCode::PageDown | KeyCode::Char(' ') => {
                story.scroll = story.scroll.saturating_add(10);
            }
            KeyCode::PageUp => story.scroll = story.scroll.saturating_sub(10),
            KeyCode::Esc | KeyCode::Enter | KeyCode::Char('q') => self.story = None,
            _ => {}
        }
    }

    fn press_in_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.is_filtering = false,
            KeyCode::Esc => {
                self.filter.clear();
                self.is_filtering = false;
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(letter) => self.filter.push(letter),
            _ => {}
        }
        self.vms.select(None);
    }

    fn press_in_tables(&mut self, code: KeyCode) -> Wish {
        let table = if self.pane == Pane::Nodes { &mut self.nodes } else { &mut self.vms };
        match code {
            KeyCode::Char('q') => return Wish::Quit,
            KeyCode::Down | KeyCode::Char('j') => table.select_next(),
            KeyCode::Up | KeyCode::Char('k') => table.select_previous(),
            KeyCode::PageDown => table.scroll_down_by(10),
            KeyCode::PageUp => table.scroll_up_by(10),
            KeyCode::Home => table.select_first(),
            KeyCode::End => table.select_last(),
            KeyCode::Tab | KeyCode::BackTab => {
                self.pane = if self.pane == Pane::Nodes { Pane::Vms } else { Pane::Nodes };
            }
            KeyCode::Char('/') => (self.pane, self.is_filtering) = (Pane::Vms, true),
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Enter => return self.selected().map_or(Wish::Nothing, Wish::Explain),
            _ => {}
        }
        Wish::Nothing
    }

    fn selected(&self) -> Option<String> {
        match self.pane {
            Pane::Nodes => self.state.as_ref()?.nodes.keys().nth(self.nodes.selected()?).cloned(),
            Pane::Vms => self.shown_vms().get(self.vms.selected()?).map(|vm| vm.id.0.to_string()),
        }
    }
}
