//! A story's text -> what there is, what happens when, and its log.

use super::condition::Condition;
use super::deed::Deed;
use super::setup::Setup;
use super::words::{Names, length};
use crate::sim::clock::{SECOND, Time};

/// Between a story's text and its log.
pub const LINE: &str = "----";
/// A condition that takes longer has not come true.
pub const PATIENCE: Time = 120 * SECOND;

/// A story.
#[derive(Debug, Clone)]
pub struct Story {
    /// Its first line, without `#`.
    pub title: String,
    /// Everything above the log, as it was written.
    pub text: String,
    /// What there is.
    pub setup: Setup,
    /// What happens.
    pub steps: Vec<Step>,
    /// The log as it should be.
    pub log: Vec<String>,
}

/// Something happens.
#[derive(Debug, Clone)]
pub struct Step {
    /// Line of the file, from 1.
    pub line: usize,
    /// When.
    pub when: When,
    /// What.
    pub what: What,
}

/// When something happens.
#[derive(Debug, Clone)]
pub enum When {
    /// At once.
    Now,
    /// At this time of the story.
    At(Time),
    /// So long after the step before.
    After(Time),
    /// When this comes true.
    Once(Condition),
}

/// What happens.
#[derive(Debug, Clone)]
pub enum What {
    /// Somebody does something; with a length, it is undone after that.
    Do(Deed, Option<Time>),
    /// This must be true, or become true.
    Expect(Condition, Within),
    /// The story ends at this time.
    End,
}

/// How long an expectation has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Within {
    /// None: it is true now.
    Now,
    /// It becomes true within this.
    Becomes(Time),
    /// It is true now and stays true for this.
    Stays(Time),
}

impl Story {
    /// Reads a story.
    ///
    /// # Errors
    /// What is wrong, with its line.
    pub fn parse(file: &str) -> Result<Self, String> {
        let (text, log) = split(file);
        let title = text.lines().next().and_then(|line| line.strip_prefix("# "));
        let mut story = Self {
            title: title.ok_or("line 1: a story begins with its title: `# Sentence.`")?.into(),
            text: text.into(),
            setup: Setup::default(),
            steps: Vec::new(),
            log: log.lines().map(|line| line.trim_end().to_string()).collect(),
        };
        for (index, line) in text.lines().enumerate() {
            let at = |why: String| format!("line {}: {why}", index + 1);
            story.take(index + 1, line).map_err(at)?;
        }
        Ok(story)
    }

    fn take(&mut self, line: usize, text: &str) -> Result<(), String> {
        let text = text.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            return Ok(());
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        if self.steps.is_empty() && self.setup.take(&words)? {
            return Ok(());
        }
        if self.steps.last().is_some_and(|step| matches!(step.what, What::End)) {
            return Err("nothing happens after the end".into());
        }
        let step = step(line, text, &self.setup.names())?;
        self.steps.push(step);
        Ok(())
    }
}

/// The story and its log.
fn split(file: &str) -> (&str, &str) {
    let mut at = 0;
    for line in file.split_inclusive('\n') {
        if line.trim_end() == LINE {
            return (&file[..at], &file[at + line.len()..]);
        }
        at += line.len();
    }
    (file, "")
}

fn step(line: usize, text: &str, names: &Names) -> Result<Step, String> {
    if let Some(time) = text.strip_prefix("end ") {
        return Ok(Step { line, when: When::At(length(time)?), what: What::End });
    }
    let (when, rest) = when(text, names)?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let what = match words.as_slice() {
        ["end"] => What::End,
        ["expect", condition @ ..] => expectation(condition, names)?,
        _ => {
            // `operator disarms for 5min` is a wish of its own.
            let wish = words.first() == Some(&"operator");
            let (deed, lasting) = if wish { (&words[..], None) } else { trailing(&words, "for")? };
            let deed = Deed::parse(deed, names)?;
            if lasting.is_some() && deed.opposite().is_none() {
                return Err("this cannot be undone, so it cannot be `for` a time".into());
            }
            What::Do(deed, lasting)
        }
    };
    Ok(Step { line, when, what })
}

fn when<'a>(text: &'a str, names: &Names) -> Result<(When, &'a str), String> {
    let (head, rest) = match text.split(' ').next() {
        Some("at" | "after" | "when") => split_at_colon(text).ok_or("`at 10s: ...` has a colon")?,
        _ => return Ok((When::Now, text)),
    };
    let words: Vec<&str> = head.split_whitespace().collect();
    let when = match words.as_slice() {
        ["at", time] => When::At(length(time)?),
        ["after", time] => When::After(length(time)?),
        ["when", condition @ ..] => When::Once(Condition::parse(condition, names)?),
        _ => return Err(format!("not understood: {head}; write at, after or when")),
    };
    Ok((when, rest))
}

/// At the first colon that is not in quotes.
#[must_use]
pub fn split_at_colon(text: &str) -> Option<(&str, &str)> {
    let mut quoted = false;
    let end = text.char_indices().find(|(_, letter)| {
        quoted ^= *letter == '"';
        *letter == ':' && !quoted
    });
    end.map(|(at, _)| (text[..at].trim(), text[at + 1..].trim()))
}

fn expectation(words: &[&str], names: &Names) -> Result<What, String> {
    let (rest, within) = trailing(words, "within")?;
    let (rest, stays) = trailing(rest, "for")?;
    let within = match (within, stays) {
        (Some(time), None) => Within::Becomes(time),
        (None, Some(time)) => Within::Stays(time),
        (None, None) => Within::Now,
        _ => return Err("either `within` or `for`".into()),
    };
    Ok(What::Expect(Condition::parse(rest, names)?, within))
}

/// Takes `for 5s` or `within 5s` from the end.
fn trailing<'a, 'b>(
    words: &'a [&'b str],
    key: &str,
) -> Result<(&'a [&'b str], Option<Time>), String> {
    match words {
        [rest @ .., word, time] if *word == key => Ok((rest, Some(length(time)?))),
        _ => Ok((words, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# A title that is a sentence.\nnodes 3\nvm web on n2\n\
        at 10s: power n2 off # comment\nexpect web runs on n3 within 5s\nend 60s\n----\n  10.0  x\n";

    #[test]
    fn a_story_has_a_setup_steps_and_a_log() {
        let story = Story::parse(TEXT).unwrap();
        assert_eq!(story.title, "A title that is a sentence.");
        assert_eq!(story.setup.vms.len(), 1);
        assert_eq!(story.steps.len(), 3);
        assert!(matches!(story.steps[0].when, When::At(10_000_000)));
        assert!(matches!(story.steps[1].what, What::Expect(_, Within::Becomes(5_000_000))));
        assert_eq!(story.log, ["  10.0  x"]);
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_line() {
        let wrong = |line: &str| {
            let text = format!("# T.\nvm web on n1\n{line}\nend 9s\n");
            Story::parse(&text).unwrap_err()
        };
        assert!(wrong("at 10: power n1 off").starts_with("line 3: not a length of time"));
        assert!(wrong("power n9 off").contains("no such node: n9"));
        assert!(wrong("expect web2 runs").contains("no such VM: web2"));
        assert!(wrong("explode").contains("not understood"));
        assert!(wrong("guest web dies for 5s").contains("cannot be undone"));
        assert!(wrong("end 5s").contains("line 4: nothing happens after the end"));
    }

    #[test]
    fn a_colon_in_quotes_ends_nothing() {
        let split = split_at_colon("when \"n1 sees itself: No\": power n1 off");
        assert_eq!(split, Some(("when \"n1 sees itself: No\"", "power n1 off")));
        assert_eq!(split_at_colon("expect \"a: b\""), None);
    }

    #[test]
    fn a_story_without_a_title_is_refused() {
        assert!(Story::parse("nodes 3\n").unwrap_err().contains("title"));
    }
}
