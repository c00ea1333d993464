//! Stories in `tests/scenarios`: told to the simulator, compared with their logs. `UPDATE_EXPECT=1` rewrites the logs.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use steadfast_tests::scenario::files;
use steadfast_tests::scenario::story::What;

#[test]
fn every_story_goes_as_it_is_told() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some_and(|value| value == "1");
    let paths = files::all().unwrap();
    let failures = in_parallel(&paths, |path| files::check(path, update).err());
    let report: Vec<String> =
        failures.iter().map(|(path, why)| format!("=== {}\n{why}\n", name(path))).collect();
    let names: Vec<String> = failures.iter().map(|(path, _)| name(path)).collect();
    assert!(
        failures.is_empty(),
        "{}\n{} of {} stories went otherwise: {}\nsee one: cargo sim scenario FILE\n\
         if the new logs are right: UPDATE_EXPECT=1 cargo test --release -p steadfast-tests --test scenarios",
        report.join("\n"),
        failures.len(),
        paths.len(),
        names.join(" "),
    );
}

/// A reader should know from the title what a file shows, and from its last lines that it shows it.
#[test]
fn every_story_has_a_sentence_as_its_title_and_ends_with_an_assertion() {
    let paths = files::all().unwrap();
    for path in &paths {
        let story = files::read(path).unwrap_or_else(|why| panic!("{}: {why}", name(path)));
        let title = &story.title;
        let sentence = title.ends_with('.')
            && title.starts_with(char::is_uppercase)
            && title.split(' ').count() >= 4;
        assert!(sentence, "{}: a title is a sentence: {title}", name(path));
        let steps: Vec<&What> = story.steps.iter().map(|step| &step.what).collect();
        let asserted = matches!(steps.as_slice(), [.., What::Expect(..), What::End])
            || matches!(steps.as_slice(), [.., What::End, What::Expect(..)]);
        assert!(asserted, "{}: the last step before `end` is an `expect`", name(path));
        let updating = std::env::var_os("UPDATE_EXPECT").is_some();
        assert!(
            updating || !story.log.is_empty(),
            "{}: no log; run with UPDATE_EXPECT=1",
            name(path)
        );
        assert!(story.log.iter().all(|line| line.len() <= 240), "{}: long lines", name(path));
    }
}

#[test]
fn a_story_is_the_same_each_time_it_is_told() {
    for path in files::all().unwrap().iter().take(5) {
        let story = files::read(path).unwrap();
        let tell = || steadfast_tests::scenario::runner::tell(&story, true).trace;
        assert_eq!(tell(), tell(), "{}", name(path));
    }
}

fn name(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Runs `work` for each path on all cores; what it returns is kept in order.
fn in_parallel<T: Send>(
    paths: &[PathBuf],
    work: impl Fn(&Path) -> Option<T> + Sync,
) -> Vec<(PathBuf, T)> {
    let next = AtomicUsize::new(0);
    let share = || {
        let mut found = Vec::new();
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
            found.extend(work(path).map(|result| (path.clone(), result)));
        }
        found
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut found: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(share)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a story's thread")).collect()
    });
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    found
}
