//! Rollbacks outlive the agent: what an operator turned away stays so until the folder says something else.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Kind;
use super::book::Book;
use super::generation::hex;
use super::seats::TurnedAway;
use super::settings::Settings;

/// In the state directory: by kind, the digest of what was turned away.
const FILE: &str = "rolled-back-policies.json";

type Rollbacks = BTreeMap<Kind, String>;

/// Takes up what an earlier incarnation remembered.
pub(super) fn recall(settings: &Settings, book: &mut Book) {
    for (kind, digest) in read(settings) {
        if let Some(digest) = unhex(&digest) {
            let away = TurnedAway { digest, generation: None, expected: false };
            book.seats[kind.seat()].turned_away = Some(away);
        }
    }
}

/// Writes down what is turned away now, if that changed.
pub(super) fn remember(settings: &Settings, book: &Book) {
    let Some(path) = path(settings) else { return };
    let digest = |kind: Kind| Some(hex(&book.seat(kind).turned_away.as_ref()?.digest));
    let now: Rollbacks =
        Kind::ALL.into_iter().filter_map(|kind| Some((kind, digest(kind)?))).collect();
    if now == read(settings) {
        return;
    }
    let part = path.with_extension("part");
    let text = serde_json::to_vec(&now).unwrap_or_default();
    let written = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    let written = written
        .and_then(|()| std::fs::write(&part, text))
        .and_then(|()| std::fs::rename(&part, &path));
    if let Err(error) = written {
        tracing::warn!(path = %path.display(), %error, "a rollback is forgotten when the agent restarts");
    }
}

fn read(settings: &Settings) -> Rollbacks {
    let text = path(settings).and_then(|path| std::fs::read(path).ok()).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn path(settings: &Settings) -> Option<PathBuf> {
    settings.state.as_ref().map(|state| state.join(FILE))
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digest = steadfast_core::ids::Digest::try_from(text.to_string()).ok()?;
    Some(digest.0)
}
