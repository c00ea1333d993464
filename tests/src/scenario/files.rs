//! Stories in files: finding, comparing, rewriting.

use super::runner::{Outcome, tell};
use super::story::{LINE, Story};
use std::path::{Path, PathBuf};

/// Where the stories are.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

/// All stories, by name.
///
/// # Errors
/// If the folder cannot be read.
pub fn all() -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Reads a story's file.
///
/// # Errors
/// If it cannot be read, or is no story.
pub fn read(path: &Path) -> Result<Story, String> {
    let text = std::fs::read_to_string(path).map_err(|why| format!("{}: {why}", path.display()))?;
    Story::parse(&text)
}

/// Tells a file's story and compares the log. With `update`, a log that differs is rewritten, if all else is well.
///
/// # Errors
/// What is wrong, for people.
pub fn check(path: &Path, update: bool) -> Result<(), String> {
    let story = read(path)?;
    let outcome = tell(&story, false);
    if let Some(failure) = &outcome.failure {
        return Err(format!("{failure}\n\n{}", outcome.log.join("\n")));
    }
    if outcome.log == story.log {
        return Ok(());
    }
    if update {
        return rewrite(path, &file(&story, &outcome)).map_err(|why| why.to_string());
    }
    Err(format!("the log differs (- expected, + got):\n{}", diff(&story.log, &outcome.log)))
}

/// In one piece: others may be reading it.
fn rewrite(path: &Path, text: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::rename(new, path)
}

/// The story with this log.
#[must_use]
pub fn file(story: &Story, outcome: &Outcome) -> String {
    format!("{}\n{LINE}\n{}\n", story.text.trim_end(), outcome.log.join("\n"))
}

/// Lines of both, in order: common ones with two spaces before, the others with `-` and `+`; long common parts are left out.
#[must_use]
pub fn diff(old: &[String], new: &[String]) -> String {
    let lines = edits(old, new);
    let near = |k: usize| {
        let around = k.saturating_sub(2)..(k + 3).min(lines.len());
        lines[around].iter().any(|(mark, _)| *mark != ' ')
    };
    let mut text = String::new();
    let mut skipped = false;
    for (k, (mark, line)) in lines.iter().enumerate() {
        if near(k) {
            text += &format!("{mark} {line}\n");
        } else if !skipped {
            text += "  ...\n";
        }
        skipped = !near(k);
    }
    text
}

/// The longest common part stays, the rest goes or comes.
fn edits<'a>(old: &'a [String], new: &'a [String]) -> Vec<(char, &'a str)> {
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            let shorter = common[i + 1][j].max(common[i][j + 1]);
            common[i][j] = if old[i] == new[j] { common[i + 1][j + 1] + 1 } else { shorter };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push((' ', old[i].as_str()));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || i < old.len() && common[i + 1][j] >= common[i][j + 1] {
            lines.push(('-', old[i].as_str()));
            i += 1;
        } else {
            lines.push(('+', new[j].as_str()));
            j += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_shows_what_went_and_what_came() {
        let lines = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
        let text = diff(&lines("a b c d e f g h"), &lines("a b c d x f g h"));
        assert_eq!(text, "  ...\n  c\n  d\n- e\n+ x\n  f\n  g\n  ...\n");
        assert!(!diff(&lines("a b"), &lines("a b")).contains(['-', '+']));
    }
}
