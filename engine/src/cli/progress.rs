//! A sign of life for whoever waits: a spinner on the terminal with what is being waited for, once it takes longer than a second.
//!
//! It is on stderr, and only if that is a terminal: pipes, logs and scripts never see it. It is gone before anything else is printed,
//! because whoever waits drops it first.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Quicker than this, nobody wonders.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often the spinner turns.
const TURN: Duration = Duration::from_millis(120);

/// A wait that is shown for as long as this lives.
///
/// A thread draws it, so that it also turns while a command computes or blocks.
#[derive(Debug)]
pub(crate) struct Progress(Option<Shown>);

#[derive(Debug)]
struct Shown {
    tell: Sender<String>,
    thread: JoinHandle<()>,
}

impl Progress {
    /// Waits for `what`: "the leader", "the module to be compiled".
    pub(crate) fn begin(what: impl Into<String>) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(None);
        }
        Self::on(ProgressDrawTarget::stderr(), PATIENCE, what.into())
    }

    /// Waits for something else now: the next step of several.
    pub(crate) fn tell(&self, what: impl Into<String>) {
        if let Self(Some(shown)) = self {
            let _ = shown.tell.send(what.into());
        }
    }

    fn on(target: ProgressDrawTarget, patience: Duration, what: String) -> Self {
        let (tell, told) = channel();
        let spawned = std::thread::Builder::new()
            .name("progress".into())
            .spawn(move || draw(target, patience, what, &told));
        // Without a thread the command works as well, only silently.
        Self(spawned.ok().map(|thread| Shown { tell, thread }))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(Shown { tell, thread }) = self.0.take() {
            drop(tell);
            // The terminal is clean before anybody prints.
            let _ = thread.join();
        }
    }
}

fn draw(target: ProgressDrawTarget, patience: Duration, mut what: String, told: &Receiver<String>) {
    let since = Instant::now();
    loop {
        match told.recv_timeout(patience.saturating_sub(since.elapsed())) {
            Ok(next) => what = next,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => break,
        }
    }
    let bar = ProgressBar::with_draw_target(None, target).with_elapsed(since.elapsed());
    bar.set_style(style());
    bar.set_message(what);
    bar.enable_steady_tick(TURN);
    while let Ok(next) = told.recv() {
        bar.set_message(next);
    }
    bar.finish_and_clear();
}

fn style() -> ProgressStyle {
    let plain = ProgressStyle::default_spinner();
    plain
        .template("{spinner} {msg} ({elapsed})")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use indicatif::TermLike;
    use std::io;
    use std::sync::{Arc, Mutex};

    /// Remembers all that was ever written.
    #[derive(Debug, Clone, Default)]
    struct Terminal(Arc<Mutex<String>>);

    impl Terminal {
        fn target(&self) -> ProgressDrawTarget {
            ProgressDrawTarget::term_like_with_hz(Box::new(self.clone()), 100)
        }

        fn text(&self) -> String {
            self.0.lock().expect("text").clone()
        }

        fn wait_for(&self, what: &str) {
            while !self.text().contains(what) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    impl TermLike for Terminal {
        fn width(&self) -> u16 {
            80
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().expect("text").push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            self.write_str("<clear>")
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_waits_long_sees_what_for_and_then_a_clean_line() {
        let terminal = Terminal::default();
        let progress = Progress::on(terminal.target(), Duration::ZERO, "the leader".into());
        terminal.wait_for("the leader (0s)");
        progress.tell("the storage");
        terminal.wait_for("the storage (");
        drop(progress);
        assert!(terminal.text().ends_with("<clear>"), "{:?}", terminal.text());
    }

    #[test]
    fn who_waits_shortly_sees_nothing() {
        let terminal = Terminal::default();
        let progress = Progress::on(terminal.target(), Duration::from_secs(3_600), "it".into());
        progress.tell("something else");
        drop(progress);
        assert_eq!(terminal.text(), "");
    }

    #[test]
    fn nothing_is_drawn_where_no_terminal_is() {
        if !std::io::stderr().is_terminal() {
            assert!(Progress::begin("it").0.is_none());
        }
    }
}
