//! Progress: a spinner where somebody looks at a terminal, plain lines elsewhere.

use super::step::{Line, State};
use crate::doctor::Level;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;

/// Tells what is being done, on standard error.
#[derive(Debug)]
pub struct Tell {
    to: To,
    step: &'static str,
}

#[derive(Debug)]
enum To {
    Nobody,
    Lines,
    Terminal(Box<ProgressBar>),
}

impl Tell {
    /// As standard error is.
    #[must_use]
    pub fn people() -> Self {
        let to = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{spinner} {prefix}: {wide_msg} {elapsed}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            To::Terminal(Box::new(bar))
        } else {
            To::Lines
        };
        Self { to, step: "" }
    }

    /// Nobody.
    #[must_use]
    pub fn nobody() -> Self {
        Self { to: To::Nobody, step: "" }
    }

    /// A step begins.
    pub fn begin(&mut self, step: &'static str, why: &str) {
        self.step = step;
        if let To::Terminal(bar) = &self.to {
            bar.reset_elapsed();
            bar.enable_steady_tick(Duration::from_millis(120));
            bar.set_prefix(step);
            bar.set_message(why.to_owned());
        }
    }

    /// It is at this now.
    pub fn doing(&mut self, what: &str) {
        match &self.to {
            To::Nobody => {}
            To::Lines => self.line(&format!("  {}: {what}", self.step)),
            To::Terminal(bar) => bar.set_message(what.to_owned()),
        }
    }

    /// It has ended.
    pub fn end(&mut self, line: &Line) {
        if let To::Terminal(bar) = &self.to {
            bar.disable_steady_tick();
            bar.set_message("");
        }
        self.line(&summary(line));
        for check in line.checks.iter().filter(|check| check.level > Level::Green) {
            let remedy = if check.remedy.is_empty() { "" } else { "; " };
            let (word, text) = (check.level.word(), &check.text);
            self.line(&format!("    {word}: {text}{remedy}{}", check.remedy));
        }
    }

    /// A line that stays.
    pub fn line(&self, text: &str) {
        match &self.to {
            To::Nobody => {}
            To::Lines => eprintln!("{text}"),
            To::Terminal(bar) => bar.suspend(|| eprintln!("{text}")),
        }
    }

    /// Nothing comes after this.
    pub fn finish(&mut self) {
        if let To::Terminal(bar) = &self.to {
            bar.finish_and_clear();
        }
    }
}

fn summary(line: &Line) -> String {
    let told = |check: &crate::doctor::Check| {
        (check.level == Level::Green && !check.text.is_empty()).then(|| check.text.clone())
    };
    let mut what: Vec<String> = line.checks.iter().filter_map(told).collect();
    let word = match line.state {
        State::InOrder => "in order",
        State::Changed | State::WouldChange => {
            what.splice(0..0, line.changes.iter().cloned());
            "done"
        }
        State::Refused => "refused",
    };
    let what = if what.is_empty() { String::new() } else { format!(": {}", what.join("; ")) };
    format!("{:<10} {word}{what}", line.step)
}
