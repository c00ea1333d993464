//! `/v1/settings`: the time-outs in use, and whether others would be safe; `/v1/verification`: the addresses that tell whether this
//! node's VM network is alive.

use super::change::{blocking, parse};
use super::errors::Refusal;
use super::wire::{
    CheckSettings, CheckedSettings, SettingProblem, Settings, Verification, timing_by_key,
};
use crate::config::{Config, TimingOverrides, assumed, bounds};
use crate::driver::Agent;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use std::net::IpAddr;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use steadfast_core::timing_lint;
use toml::de::{DeTable, DeValue};

/// More verification IPs than this are a mistake.
const MOST_ADDRESSES: usize = 32;

type Shared = State<Arc<Agent>>;
type Answer<T> = Result<Json<T>, Refusal>;

pub(super) async fn read(State(agent): Shared) -> Answer<Settings> {
    let live = agent.live()?;
    Ok(Json(Settings {
        preset: agent.config.preset,
        timing: timing_by_key(&live.timing),
        bounds: bounds(&live.timing, &assumed(&agent.config)),
    }))
}

pub(super) async fn check(State(agent): Shared, body: Bytes) -> Answer<CheckedSettings> {
    let CheckSettings { preset, timing } = parse(&body)?;
    if let Some(ms) = timing.too_long() {
        let most = TimingOverrides::LONGEST_MS;
        return Err(Refusal::malformed(format!("a time-out is {ms} ms; write {most} at most")));
    }
    let live = agent.live()?;
    let base = match preset {
        Some(preset) => preset.timing(live.timing.membership),
        None => live.timing.clone(),
    };
    let timing = timing.apply(base);
    let problems: Vec<SettingProblem> = timing_lint::lint(&timing)
        .iter()
        .map(|refusal| SettingProblem {
            text: format!("{}; {}", refusal.what(), refusal.remedy()),
            inequality: refusal.inequality.into(),
        })
        .collect();
    Ok(Json(CheckedSettings {
        ok: problems.is_empty(),
        problems,
        timing: timing_by_key(&timing),
        bounds: bounds(&timing, &assumed(&agent.config)),
    }))
}

pub(super) async fn verification(State(agent): Shared) -> Json<Verification> {
    Json(asked_now(&agent))
}

/// What is asked now, or was asked for.
pub(super) fn asked_now(agent: &Agent) -> Verification {
    let (addresses, quorum) = agent.verification();
    Verification { addresses, quorum: Some(quorum), notes: Vec::new() }
}

pub(super) async fn set_verification(State(agent): Shared, body: Bytes) -> Answer<Verification> {
    let Verification { addresses, quorum, .. } = parse(&body)?;
    let quorum = check_verification(&addresses, quorum)?;
    let live = agent.live()?;
    let (worker, wanted) = (Arc::clone(&agent), addresses.clone());
    blocking(move || persist(worker.config.file.as_deref(), &wanted, quorum)).await?;
    let used = live.verification.ask_others(addresses.clone(), quorum);
    agent.set_verification(addresses.clone(), quorum);
    let mut notes = vec!["these are this node's; set them on the other nodes too".into()];
    if !used {
        notes.push("used once steadfastd was restarted (guests keep running)".into());
    }
    Ok(Json(Verification { addresses, quorum: Some(quorum), notes }))
}

fn check_verification(addresses: &[IpAddr], quorum: Option<usize>) -> Result<usize, Refusal> {
    let count = addresses.len();
    if count > MOST_ADDRESSES {
        let why = format!("{count} addresses; write {MOST_ADDRESSES} at most");
        return Err(Refusal::malformed(why));
    }
    let quorum = quorum.unwrap_or(count / 2 + 1);
    if count > 0 && !(1..=count).contains(&quorum) {
        let why = format!("quorum is {quorum}, but there are {count} addresses");
        return Err(Refusal::refused(why, format!("set it from 1 to {count}, or leave it out")));
    }
    Ok(quorum)
}

/// Puts them into the operator's own file; everything else in it stays as it is.
fn persist(file: Option<&Path>, addresses: &[IpAddr], quorum: usize) -> Result<(), Refusal> {
    let Some(file) = file else {
        let why = "this agent was not started from a configuration file";
        return Err(Refusal::refused(why, "start it with --config FILE"));
    };
    let broken = |error: &dyn std::fmt::Display| {
        let why = format!("{}: {error}", file.display());
        let remedy = "set [verification] addresses there by hand, then restart steadfastd (guests keep running)";
        Refusal::unavailable(why, remedy)
    };
    let text = std::fs::read_to_string(file).map_err(|error| broken(&error))?;
    let text = edit(&text, addresses, quorum).map_err(|error| broken(&error))?;
    replace(file, &text).map_err(|error| broken(&error))
}

/// The file's text with these addresses. Its tables are read for where they stand, so that comments and order stay.
fn edit(text: &str, addresses: &[IpAddr], quorum: usize) -> Result<String, String> {
    let list: Vec<String> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
    let list = format!("[{}]", list.join(", "));
    let quorum = if addresses.is_empty() { 1 } else { quorum };
    let with_list = put(text, "addresses", &list)?;
    let mut edited = with_list;
    // Without addresses a quorum would be a mistake; 1 of none cannot be written either.
    edited = match (addresses.is_empty(), find(&edited, "quorum")?) {
        (true, Place::Value(_)) => remove_line(&edited, "quorum")?,
        (true, _) => edited,
        (false, _) => put(&edited, "quorum", &quorum.to_string())?,
    };
    let config = Config::parse(&edited).map_err(|problems| problems.to_string())?;
    let same = config.verification == addresses;
    same.then_some(edited).ok_or_else(|| "it is written in a way that is not understood".into())
}

/// Where a key of `[verification]` is.
enum Place {
    /// Its value.
    Value(Range<usize>),
    /// It is missing; its section's head ends here.
    Head(usize),
    /// There is no such section.
    Nowhere,
}

fn find(text: &str, key: &str) -> Result<Place, String> {
    let document = DeTable::parse(text).map_err(|error| error.to_string())?;
    let Some((name, section)) =
        document.get_ref().iter().find(|(name, _)| name.get_ref() == "verification")
    else {
        return Ok(Place::Nowhere);
    };
    let DeValue::Table(section) = section.get_ref() else {
        return Err("verification is no section".into());
    };
    if let Some((_, value)) = section.iter().find(|(name, _)| name.get_ref() == key) {
        return Ok(Place::Value(value.span()));
    }
    let rest = &text[name.span().end..];
    let end = rest.find('\n').unwrap_or(rest.len());
    match rest[..end].trim_start().starts_with(']') {
        true => Ok(Place::Head(name.span().end + end)),
        false => Err("[verification] is not a section of its own".into()),
    }
}

fn put(text: &str, key: &str, value: &str) -> Result<String, String> {
    let mut edited = text.to_owned();
    match find(text, key)? {
        Place::Value(span) => edited.replace_range(span, value),
        Place::Head(end) => edited.insert_str(end, &format!("\n{key} = {value}")),
        Place::Nowhere => edited.push_str(&format!("\n[verification]\n{key} = {value}\n")),
    }
    Ok(edited)
}

fn remove_line(text: &str, key: &str) -> Result<String, String> {
    let Place::Value(span) = find(text, key)? else { return Ok(text.into()) };
    let begin = text[..span.start].rfind('\n').map_or(0, |at| at + 1);
    let end = text[span.end..].find('\n').map_or(text.len(), |at| span.end + at + 1);
    Ok(format!("{}{}", &text[..begin], &text[end..]))
}

/// Whole or not at all; who may read it stays.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let new = file.with_extension("toml.new");
    std::fs::write(&new, text)?;
    std::fs::set_permissions(&new, std::fs::metadata(file)?.permissions())?;
    std::fs::File::open(&new)?.sync_all()?;
    std::fs::rename(&new, file)
}

impl Agent {
    /// The verification IPs that were asked for last, and how many of them must answer.
    pub(super) fn verification(&self) -> (Vec<IpAddr>, usize) {
        let set = self.reception.verification.lock().unwrap_or_else(PoisonError::into_inner);
        let configured = || (self.config.verification.clone(), self.config.verification_quorum);
        set.clone().unwrap_or_else(configured)
    }

    fn set_verification(&self, addresses: Vec<IpAddr>, quorum: usize) {
        let mut set = self.reception.verification.lock().unwrap_or_else(PoisonError::into_inner);
        *set = Some((addresses, quorum));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_into_the_operators_file_and_his_comments_stay() {
        let least = "# mine\n[cluster]\nname = \"c\" # ours\n[storage]\ndirectory = \"/s\"\n";
        let head = "[verification] # theirs\n";
        let before = format!("{least}{head}addresses = [\n \"192.0.2.1\"]\n[run]\n");
        let two = [IpAddr::from([192, 0, 2, 7]), IpAddr::from([192, 0, 2, 8])];
        let after = edit(&before, &two, 2).expect("TOML");
        let section = "[verification] # theirs\nquorum = 2\naddresses = [\"192.0.2.7\", \"192.0.2.8\"]\n[run]\n";
        assert_eq!(after, format!("{least}{section}"));
        let none = edit(&after, &[], 1).expect("TOML");
        assert_eq!(none, format!("{least}[verification] # theirs\naddresses = []\n[run]\n"));
        let fresh = edit(least, &two, 1).expect("TOML");
        assert!(
            fresh.starts_with(least) && fresh.contains("[verification]\nquorum = 1\naddresses = "),
            "{fresh}"
        );
        assert!(edit("verification = 3", &two, 1).is_err());
    }

    #[test]
    fn a_quorum_that_cannot_be_is_refused_with_both_numbers() {
        let one = [IpAddr::from([192, 0, 2, 7])];
        assert_eq!(check_verification(&one, None), Ok(1));
        let refused = check_verification(&one, Some(2)).expect_err("more than there are");
        assert!(refused.detail().contains("quorum is 2, but there are 1"), "{refused:?}");
        assert!(check_verification(&one, Some(0)).is_err());
    }
}
