//! `steadfast demo`.

use super::args::DemoArgs;
use super::client::Failure;
use super::{say, say_json};
use crate::config::Preset;
use crate::demo::{Deed, Demo, Options, Page, Run, Script, Teller};
use crate::driver::logging;
use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// How long VMs may take to come under HA.
const READY: Duration = Duration::from_secs(60);
/// How often it is looked what is new.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Shorter pauses are those of live migrations.
const NO_OUTAGE_MS: u64 = 200;

enum Input {
    Line(String),
    Interrupt,
}

/// Runs until it is interrupted, or its time is over.
pub(super) fn run(args: &DemoArgs, json: bool) -> Result<(), Failure> {
    logging::to_file(args.log.as_deref()).map_err(|error| Failure::Other(error.into()))?;
    let options = options(args);
    let inputs = inputs(args.script.is_none())?;
    let demo = Arc::new(Demo::start(&options).map_err(Failure::Other)?);
    let page = Page::serve(&demo, args.port).map_err(Failure::Other)?;
    say(&welcome(&demo, &page, &options))?;
    let mut teller = Teller::default();
    get_ready(&demo, &mut teller, &inputs)?;
    let ran = follow(args, &demo, &mut teller, &inputs);
    let truth = demo.truth();
    if json {
        say_json(&truth.runs().collect::<Vec<_>>())?;
    } else {
        say(&summary(truth.runs()))?;
    }
    for twice in truth.twice() {
        say(&format!("ALARM: {twice}\n"))?;
    }
    if truth.twice().is_empty() && !json {
        say("  no VM was ever in two places\n")?;
    }
    // It follows the agents: first it, then they.
    drop(page);
    drop(demo);
    ran.and(if truth.twice().is_empty() { Ok(()) } else { Err(Failure::Told) })
}

fn options(args: &DemoArgs) -> Options {
    Options {
        nodes: args.nodes,
        vms: args.vms,
        preset: args.preset.into(),
        fencing: !args.no_fencing,
        folder: args.folder.clone(),
        policies: modules(args.policies.as_deref()),
    }
}

impl From<super::args::PresetArg> for Preset {
    fn from(arg: super::args::PresetArg) -> Self {
        match arg {
            super::args::PresetArg::Fast => Self::Fast,
            super::args::PresetArg::Standard => Self::Standard,
            super::args::PresetArg::Calm => Self::Calm,
        }
    }
}

/// The shipped policies as modules, if somebody has built them: in the folder that was named, or in the checkout that this
/// program was built in.
fn modules(named: Option<&Path>) -> Vec<PathBuf> {
    let program = std::env::current_exe().unwrap_or_default();
    let mut checkouts = program.ancestors().map(|it| it.join("policies/out"));
    let found = named.map(Path::to_owned).or_else(|| checkouts.find(|it| it.is_dir()));
    let is_shipped = |path: &PathBuf| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        named.is_some() || matches!(&*name, "node-priority" | "placement" | "risk")
    };
    let entries = found.and_then(|folder| std::fs::read_dir(folder).ok());
    let paths = entries.into_iter().flatten().flatten().map(|entry| entry.path());
    let wasm = paths.filter(|path| path.extension().is_some_and(|it| it == "wasm"));
    wasm.filter(is_shipped).collect()
}

fn welcome(demo: &Demo, page: &Page, options: &Options) -> String {
    let Options { nodes, vms, policies, .. } = options;
    let first = demo.nodes().next().unwrap_or_default();
    let deciders = match policies.len() {
        0 => "empty: the agents' own policies decide; `policies/build` makes modules".to_owned(),
        count => format!("{count} modules from the beginning"),
    };
    format!(
        "{nodes} nodes with {vms} VMs under HA, and one without, all in this process. Real: the agents, their storage \
         protocol,\npolicies and API. Not real: network, guests, watchdogs and power, which are this process's memory.\n\n  \
         the page      http://{}/\n  an agent      steadfast --socket {} status\n  drop folder   {} ({deciders})\n  commands      \
         kill n2, boot n2, cut n2, join n2, stall n2, heal n2, stall, heal; Ctrl-C ends it\n\n",
        page.address,
        demo.socket(first).display(),
        demo.drop_folder().display(),
    )
}

/// Lines of standard input, and interrupts.
fn inputs(reads: bool) -> Result<Receiver<Input>, Failure> {
    let (tell, told) = channel();
    let lines = tell.clone();
    let other = |error: std::io::Error| Failure::Other(error.into());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(other)?;
    std::thread::spawn(move || {
        if runtime.block_on(end()).is_ok() {
            let _ = tell.send(Input::Interrupt);
        }
    });
    if reads {
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                if lines.send(Input::Line(line)).is_err() {
                    return;
                }
            }
        });
    }
    Ok(told)
}

/// Waits until somebody wants it to end.
async fn end() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted,
    }
}

fn tell(demo: &Demo, teller: &mut Teller) -> Result<(), Failure> {
    let news = teller.news(demo);
    let lines: String = news.iter().map(|told| format!("{}\n", told.text)).collect();
    say(&lines)
}

fn get_ready(demo: &Demo, teller: &mut Teller, inputs: &Receiver<Input>) -> Result<(), Failure> {
    let end = Instant::now() + READY;
    while !demo.wait_until_ready(LOOK_EVERY) {
        tell(demo, teller)?;
        if matches!(inputs.try_recv(), Ok(Input::Interrupt)) {
            return Err(Failure::Unheard);
        }
        if Instant::now() >= end {
            return Err(Failure::Other(anyhow::anyhow!(
                "not all VMs came under HA within {} s: is this machine very busy? `--log FILE` tells more",
                READY.as_secs()
            )));
        }
    }
    tell(demo, teller)?;
    teller.is_ready();
    say(&format!("\nready after {:.1} s\n\n", demo.elapsed().as_secs_f64()))
}

fn follow(
    args: &DemoArgs,
    demo: &Demo,
    teller: &mut Teller,
    inputs: &Receiver<Input>,
) -> Result<(), Failure> {
    let mut script = args.script.clone().unwrap_or(Script(Vec::new())).0;
    script.reverse();
    let began = Instant::now();
    loop {
        while script.last().is_some_and(|(at, _)| began.elapsed() >= *at)
            && let Some((_, deed)) = script.pop()
        {
            say(&format!("> {deed}\n"))?;
            demo.act(&deed).map_err(Failure::Other)?;
        }
        if args.limit.is_some_and(|limit| began.elapsed() >= limit) {
            return Ok(());
        }
        match inputs.recv_timeout(LOOK_EVERY) {
            Ok(Input::Interrupt) => return Ok(()),
            Ok(Input::Line(line)) => obey(demo, line.trim())?,
            Err(_) => {}
        }
        tell(demo, teller)?;
    }
}

fn obey(demo: &Demo, line: &str) -> Result<(), Failure> {
    if line.is_empty() {
        return Ok(());
    }
    let done =
        line.parse::<Deed>().and_then(|deed| demo.act(&deed).map_err(|error| format!("{error:#}")));
    let echo = !std::io::stdin().is_terminal();
    match done {
        Ok(()) if echo => say(&format!("> {line}\n")),
        Ok(()) => Ok(()),
        Err(why) => say(&format!("{why}\n")),
    }
}

/// How long each VM was away, as the witness saw it.
fn summary<'a>(runs: impl Iterator<Item = &'a Run>) -> String {
    let mut last: BTreeMap<&str, &Run> = BTreeMap::new();
    let mut text = String::new();
    for run in runs {
        if let Some(before) = last.insert(&run.vm, run)
            && let Some(ended) = before.ended_ms
            && let away = run.began_ms.saturating_sub(ended)
            && away >= NO_OUTAGE_MS
        {
            let seconds = away as f64 / 1_000.0;
            let Run { vm, node, .. } = run;
            text.push_str(&format!(
                "  {vm:<10} away for {seconds:.1} s: {} -> {node}\n",
                before.node
            ));
        }
    }
    let down: Vec<&str> =
        last.values().filter(|run| run.ended_ms.is_some()).map(|run| &*run.vm).collect();
    if !down.is_empty() {
        text.push_str(&format!("  not running at the end: {}\n", down.join(", ")));
    }
    format!("\n{text}")
}
