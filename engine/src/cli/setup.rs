//! `steadfast node prepare` and `steadfast node forget`.

use super::client::Failure;
use super::format::table;
use super::setup_args::{ForgetArgs, PrepareArgs};
use super::{say, say_json};
use crate::setup::host::Host;
use crate::setup::prepare::{self, Options};
use crate::setup::step::{Line, State};
use crate::setup::tell::Tell;
use std::path::Path;

pub(super) fn prepare(args: &PrepareArgs, json: bool) -> Result<(), Failure> {
    let host = Host::new(&args.root.root);
    let options = Options {
        time_servers: args.time_servers.clone(),
        program: own_program(&host),
        wait_s: if args.no_wait { 0 } else { Options::default().wait_s },
    };
    let lines = prepare::preview(&host, &options).map_err(Failure::Other)?;
    if args.dry_run {
        return if json { say_json(&lines) } else { say(&plan(&lines)) };
    }
    let opens = |line: &&Line| line.state == State::WouldChange;
    if !json && lines.iter().any(|line| opens(&line)) {
        say(&format!("{}\n", plan(&lines)))?;
    }
    let mut tell = if json { Tell::nobody() } else { Tell::people() };
    let done = prepare::prepare(&host, &options, &mut tell);
    tell.finish();
    let done = done.map_err(Failure::Other)?;
    if json {
        return say_json(&done);
    }
    let changed = done.iter().filter(|line| line.state == State::Changed).count();
    say(&match changed {
        0 => "nothing to do: this node is prepared\n".to_owned(),
        count => {
            format!("{count} of {} steps changed something; this node is prepared\n", done.len())
        }
    })
}

pub(super) fn forget(args: &ForgetArgs) -> Result<(), Failure> {
    let host = Host::new(&args.root.root);
    let tell = |text: &str| eprintln!("  {text}");
    let found = prepare::forget(&host, args.dry_run, tell).map_err(Failure::Other)?;
    say(match (found, args.dry_run) {
        (false, _) => "`steadfast node prepare` has changed nothing here\n",
        (true, true) => "that would be done\n",
        (true, false) => "this machine is as it was before `steadfast node prepare`\n",
    })
}

/// Where libvirt's hook finds this program.
fn own_program(host: &Host) -> String {
    let usual = Options::default().program;
    let own = std::env::current_exe().ok().map(|path| path.display().to_string());
    match own {
        Some(own) if !Path::new(&usual).exists() && host.is_this_machine() => own,
        _ => usual,
    }
}

/// A plan as a table.
pub(super) fn plan(lines: &[Line]) -> String {
    let mut steps = table(&["STEP", "STATE", "WHAT", "WHY"]);
    for line in lines {
        let state = match line.state {
            State::InOrder => "in order",
            State::WouldChange => "would change",
            State::Changed => "changed",
            State::Refused => "refused",
        };
        let told = line.checks.iter().filter(|check| !check.text.is_empty());
        let told = told.map(|check| {
            let remedy = if check.remedy.is_empty() { "" } else { "; " };
            format!("{}: {}{remedy}{}", check.level.word(), check.text, check.remedy)
        });
        let what: Vec<String> = line.changes.iter().cloned().chain(told).collect();
        steps.add_row([line.step, state, &what.join("\n"), &line.why]);
    }
    format!("{}\n", steps.trim_fmt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Check;

    #[test]
    fn a_plan_says_what_it_changes_and_why() {
        let line = Line {
            step: "watchdog",
            state: State::WouldChange,
            why: "a node that hangs must reset itself".into(),
            changes: vec!["load softdog".into()],
            checks: vec![Check::yellow("watchdog", "no hardware", "add one")],
        };
        let text = plan(&[line]);
        for part in ["would change", "load softdog", "yellow: no hardware; add one", "reset itself"]
        {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
}
