//! Disks, by `smartctl --json`: ATA attributes, the NVMe health log, SCSI counters.

use super::history::History;
use super::{Found, Measured, Scene, Trouble, found, tool, word};
use serde_json::Value;
use std::time::Instant;

/// Disks of one node that are asked.
const MOST_DISKS: usize = 64;
/// ATA attributes whose normalised value says how much of a disk's life is left, by the names that smartctl gives them.
const LIFE_LEFT: [&str; 4] =
    ["SSD_Life_Left", "Media_Wearout_Indicator", "Wear_Leveling_Count", "Percent_Lifetime_Remain"];

/// A disk as smartctl wants it named.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Disk {
    path: String,
    /// Its type, where smartctl's scan gave one.
    kind: Option<String>,
}

pub(super) fn measure(scene: &Scene<'_>, history: &mut History) -> Measured {
    let disks = match disks(scene) {
        Ok(disks) => disks,
        Err(trouble) => return trouble.into(),
    };
    if disks.is_empty() {
        return Trouble::Missing("no disk here understands SMART".into()).into();
    }
    let mut all = Measured::default();
    for disk in disks.iter().take(MOST_DISKS) {
        let mut arguments = vec!["--json", "-i", "-H", "-A", "-l", "error", "-n", "standby"];
        arguments.extend(disk.kind.iter().flat_map(|kind| ["-d", kind]));
        arguments.push(&disk.path);
        let name = disk.word();
        match tool::run("smartctl", &arguments, "", scene.limit).and_then(|said| parsed(&said.out))
        {
            Ok(json) => match read(&name, &json, history, scene.now) {
                Ok(readings) => all.readings.extend(readings),
                Err(why) => all.note(Trouble::Failed(format!("{name}: {why}"))),
            },
            Err(trouble) => all.note(trouble.of(&name)),
        }
    }
    all
}

fn parsed(text: &str) -> Result<Value, Trouble> {
    let wrong = |error| Trouble::Failed(format!("smartctl did not answer in JSON: {error}"));
    serde_json::from_str(text).map_err(wrong)
}

fn disks(scene: &Scene<'_>) -> Result<Vec<Disk>, Trouble> {
    if !scene.settings.disks.is_empty() {
        let named = |path: &String| Disk { path: path.clone(), kind: None };
        return Ok(scene.settings.disks.iter().map(named).collect());
    }
    let said = tool::run("smartctl", &["--json", "--scan"], "", scene.limit)?;
    Ok(scanned(&parsed(&said.out)?))
}

fn scanned(json: &Value) -> Vec<Disk> {
    let text = |device: &Value, key: &str| device[key].as_str().map(str::to_owned);
    let disk =
        |device: &Value| Some(Disk { path: text(device, "name")?, kind: text(device, "type") });
    json["devices"].as_array().into_iter().flatten().filter_map(disk).collect()
}

impl Disk {
    /// Its name within readings. Disks behind one controller share a path.
    fn word(&self) -> String {
        let last = self.path.rsplit('/').next().unwrap_or(&self.path);
        match self.kind.as_deref().filter(|kind| kind.contains(',')) {
            Some(kind) => word(&format!("{last}-{kind}")),
            None => word(last),
        }
    }
}

/// Readings of one disk; none of one that sleeps.
fn read(
    disk: &str,
    json: &Value,
    history: &mut History,
    now: Instant,
) -> Result<Vec<Found>, String> {
    let mut found = Vec::new();
    let mut add = |name: &str, value: Option<i64>| {
        found.extend(value.map(|value| self::found(format!("smart.{disk}.{name}"), value)));
    };
    let log = &json["nvme_smart_health_information_log"];
    let passed = json["smart_status"]["passed"].as_bool();
    // Bit 1 of the warning is heat, which passes.
    let warned = log["critical_warning"].as_i64().map(|bits| i64::from(bits & !2 != 0));
    add("failing", warned.or(passed.map(|passed| i64::from(!passed))));
    add("media_errors", log["media_errors"].as_i64());
    add("spare_percent", log["available_spare"].as_i64());
    let scsi = &json["scsi_error_counter_log"];
    let uncorrected = |way: &str| scsi[way]["total_uncorrected_errors"].as_i64();
    let scsi_errors =
        ["read", "write", "verify"].into_iter().filter_map(uncorrected).reduce(|a, b| a + b);
    let table = json["ata_smart_attributes"]["table"].as_array();
    let raw = |id: i64| {
        let line = table.into_iter().flatten().find(|line| line["id"].as_i64() == Some(id))?;
        line["raw"]["value"].as_i64()
    };
    add("reallocated", raw(5).or(json["scsi_grown_defect_list"].as_i64()));
    add("pending", raw(197));
    add("uncorrectable", raw(187).max(raw(198)).or(scsi_errors));
    add("wear_percent", wear(json, table));
    let cable = raw(199).map(|count| history.per_hour(&format!("{disk}.cable"), count, now));
    add("cable_errors_per_hour", cable);
    if found.is_empty() { complaint(json).map_or(Ok(found), Err) } else { Ok(found) }
}

fn wear(json: &Value, table: Option<&Vec<Value>>) -> Option<i64> {
    let told = [
        &json["nvme_smart_health_information_log"]["percentage_used"],
        &json["endurance_used"]["current_percent"],
        &json["scsi_percentage_used_endurance_indicator"],
    ];
    let left = |line: &Value| {
        let known = line["name"].as_str().is_some_and(|name| LIFE_LEFT.contains(&name));
        line["value"].as_i64().filter(|_| known)
    };
    let least = || table.into_iter().flatten().filter_map(left).min();
    told.into_iter().find_map(Value::as_i64).or_else(|| Some(100 - least()?))
}

/// Why nothing was read; nothing to complain of if it sleeps.
fn complaint(json: &Value) -> Option<String> {
    let messages = json["smartctl"]["messages"].as_array();
    let texts: Vec<&str> =
        messages.into_iter().flatten().filter_map(|message| message["string"].as_str()).collect();
    if texts.iter().any(|text| text.contains("STANDBY") || text.contains("SLEEP")) {
        return None;
    }
    let status = json["smartctl"]["exit_status"].as_i64().unwrap_or(0);
    Some(match texts.first() {
        Some(text) => (*text).into(),
        None => format!("smartctl reads nothing of it (exit status {status})"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_of(text: &str) -> Result<Vec<(String, i64)>, String> {
        let json = serde_json::from_str(text).expect("JSON");
        let found = read("x", &json, &mut History::default(), Instant::now())?;
        Ok(found
            .into_iter()
            .map(|it| (it.name.trim_start_matches("smart.x.").into(), it.value))
            .collect())
    }

    fn told(pairs: &[(&str, i64)]) -> Result<Vec<(String, i64)>, String> {
        Ok(pairs.iter().map(|(name, value)| ((*name).into(), *value)).collect())
    }

    #[test]
    fn an_ata_disk_with_bad_sectors_is_read() {
        let expected = told(&[
            ("failing", 0),
            ("reallocated", 24),
            ("pending", 8),
            ("uncorrectable", 3),
            ("cable_errors_per_hour", 0),
        ]);
        assert_eq!(read_of(include_str!("fixtures/smart-ata.json")), expected);
    }

    #[test]
    fn a_worn_nvme_disk_is_read() {
        let expected = told(&[
            ("failing", 1),
            ("media_errors", 2),
            ("spare_percent", 8),
            ("wear_percent", 97),
        ]);
        assert_eq!(read_of(include_str!("fixtures/smart-nvme.json")), expected);
    }

    #[test]
    fn a_hot_nvme_disk_does_not_fail() {
        let text = r#"{"nvme_smart_health_information_log": {"critical_warning": 2}}"#;
        assert_eq!(read_of(text), told(&[("failing", 0)]));
    }

    #[test]
    fn a_sas_disk_is_read() {
        let expected = told(&[("failing", 0), ("reallocated", 5), ("uncorrectable", 4)]);
        assert_eq!(read_of(include_str!("fixtures/smart-sas.json")), expected);
    }

    #[test]
    fn a_disk_that_sleeps_says_nothing_and_one_that_may_not_be_opened_says_why() {
        let message = |text: &str| {
            format!(r#"{{"smartctl": {{"exit_status": 2, "messages": [{{"string": "{text}"}}]}}}}"#)
        };
        assert_eq!(read_of(&message("Device is in STANDBY mode, exit(2)")), Ok(vec![]));
        let denied = "Smartctl open device: /dev/nvme0n1 failed: Permission denied";
        assert_eq!(read_of(&message(denied)), Err(denied.into()));
    }

    #[test]
    fn disks_behind_one_controller_have_names_of_their_own() {
        let json = serde_json::from_str(include_str!("fixtures/smart-scan.json")).expect("JSON");
        let words: Vec<String> = scanned(&json).iter().map(Disk::word).collect();
        assert_eq!(words, ["sda", "0-megaraid-1", "nvme0"]);
    }
}
