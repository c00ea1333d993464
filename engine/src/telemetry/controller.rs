//! The management controller: power supplies, fans and sensors, by IPMI (ipmitool) or Redfish (curl).

use super::{Measured, Scene, Settings, Trouble, tool, word};
use serde_json::Value;

/// Chassis of one node that Redfish is asked about.
const MOST_CHASSIS: usize = 8;

// --- IPMI ----------------------------------------------------------------------------------------------

/// By ipmitool, from this machine's own controller or as configured.
pub(super) fn ipmi(scene: &Scene<'_>) -> Measured {
    let ask = |what: &[&str]| {
        let options = scene.settings.ipmi.iter().map(String::as_str);
        let arguments: Vec<&str> = options.chain(what.iter().copied()).collect();
        let said = tool::run("ipmitool", &arguments, "", scene.limit)?;
        let first = || said.err.lines().next().unwrap_or("no error message").to_owned();
        match said.status {
            Some(0) => Ok(said.out),
            _ if said.err.contains("Could not open device") => Err(Trouble::Missing(first())),
            _ => Err(Trouble::Failed(format!("ipmitool: {}", first()))),
        }
    };
    let mut all = Measured::default();
    match ask(&["sdr", "elist"]) {
        Ok(lines) => records(&lines, &mut all),
        Err(trouble) => return trouble.into(),
    }
    match ask(&["sensor"]) {
        Ok(lines) => temperatures(&lines, &mut all),
        Err(trouble) => all.note(trouble),
    }
    all
}

/// `sdr elist`: `PS2 Status | C9h | ok | 10.2 | Presence detected, Power Supply AC lost`.
fn records(lines: &str, all: &mut Measured) {
    for line in lines.lines() {
        let words: Vec<&str> = line.split('|').map(str::trim).collect();
        let [name, _, status, entity, reading] = words[..] else { continue };
        if status == "ns" || name.is_empty() {
            continue; // Nothing is there.
        }
        let sensor = word(name);
        // Entities as IPMI numbers them: 10 is a power supply, 29 a fan.
        match entity.split('.').next() {
            Some("10") if reading.contains("Presence detected") => supply(&sensor, reading, all),
            Some("29" | "30") if reading.ends_with("RPM") || reading.ends_with("percent") => {
                let failed = matches!(status, "cr" | "nr");
                all.add(format!("fan.{sensor}.failed"), Some(i64::from(failed)));
            }
            _ if matches!(status, "cr" | "nr") => {
                all.add(format!("sensor.{sensor}.critical"), Some(1))
            }
            _ if status == "nc" => all.add(format!("sensor.{sensor}.warning"), Some(1)),
            _ => {}
        }
    }
}

fn supply(name: &str, reading: &str, all: &mut Measured) {
    let says = |words: &[&str]| i64::from(words.iter().any(|word| reading.contains(word)));
    let failed = says(&["Failure detected", "Predictive failure", "Config Error"]);
    all.add(format!("power_supply.{name}.failed"), Some(failed));
    let no_input = says(&["AC lost", "input lost", "out-of-range"]);
    all.add(format!("power_supply.{name}.no_input"), Some(no_input));
}

/// `sensor`: `CPU1 Temp | 45.000 | degrees C | ok | lnr | lcr | lnc | unc | ucr | unr`.
fn temperatures(lines: &str, all: &mut Measured) {
    for line in lines.lines() {
        let words: Vec<&str> = line.split('|').map(str::trim).collect();
        if words.len() < 10 || words[2] != "degrees C" {
            continue;
        }
        let critical = whole(words[8]).or_else(|| whole(words[9]));
        let distance = critical.zip(whole(words[1])).map(|(critical, now)| critical - now);
        all.add(format!("temperature.{}.below_critical_c", word(words[0])), distance);
    }
}

/// `45.000` is 45; `na` is nothing.
fn whole(text: &str) -> Option<i64> {
    text.split('.').next()?.parse().ok()
}

// --- Redfish -------------------------------------------------------------------------------------------

/// Where a controller speaks Redfish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redfish {
    /// `https://bmc.example`, without a path.
    pub url: String,
    /// A file with one line: `user:password`. Readable by root only.
    pub credentials: Option<std::path::PathBuf>,
    /// The controller's certificate is not checked.
    pub insecure: bool,
}

/// By curl, which brings its own TLS.
pub(super) fn redfish(scene: &Scene<'_>) -> Measured {
    let Some(redfish) = &scene.settings.redfish else {
        return Trouble::Missing("telemetry.redfish names no controller".into()).into();
    };
    let chassis = match get(redfish, "/redfish/v1/Chassis", scene) {
        Ok(list) => members(&list),
        Err(trouble) => return trouble.into(),
    };
    let mut all = Measured::default();
    for path in chassis.iter().take(MOST_CHASSIS) {
        for part in ["Thermal", "Power"] {
            match get(redfish, &format!("{path}/{part}"), scene) {
                Ok(json) => health(&json, &mut all),
                Err(Trouble::Missing(_)) => {}
                Err(trouble) => all.note(trouble),
            }
        }
    }
    all
}

fn members(list: &Value) -> Vec<String> {
    let path = |member: &Value| member["@odata.id"].as_str().map(str::to_owned);
    list["Members"].as_array().into_iter().flatten().filter_map(path).collect()
}

fn get(redfish: &Redfish, path: &str, scene: &Scene<'_>) -> Result<Value, Trouble> {
    let mut input = format!("url = \"{}{path}\"\n", redfish.url.trim_end_matches('/'));
    if let Some(file) = &redfish.credentials {
        let user = std::fs::read_to_string(file)
            .map_err(|error| Trouble::Failed(format!("{}: {error}", file.display())))?;
        // On stdin, so that nobody sees it in the list of processes.
        input +=
            &format!("user = \"{}\"\n", user.trim().replace('\\', "\\\\").replace('"', "\\\""));
    }
    let mut arguments = vec!["--silent", "--show-error", "--fail", "--globoff", "--config", "-"];
    arguments.extend(redfish.insecure.then_some("--insecure"));
    let said = tool::run("curl", &arguments, &input, scene.limit)?;
    match said.status {
        Some(0) => serde_json::from_str(&said.out)
            .map_err(|error| Trouble::Failed(format!("{path}: no JSON: {error}"))),
        Some(22) if said.err.contains("404") => Err(Trouble::Missing(format!("no {path}"))),
        _ => Err(Trouble::Failed(format!("{path}: {}", said.err.trim()))),
    }
}

/// `Thermal` and `Power` of a chassis.
fn health(json: &Value, all: &mut Measured) {
    let list = |key: &str| json[key].as_array().into_iter().flatten().enumerate();
    let name = |at: usize, item: &Value| {
        let name = item["Name"].as_str().or(item["FanName"].as_str());
        word(&format!("{}-{at}", name.unwrap_or_default()))
    };
    let is_there = |item: &Value| item["Status"]["State"].as_str() == Some("Enabled");
    let failed = |item: &Value| {
        item["Status"]["Health"].as_str().map(|health| i64::from(health == "Critical"))
    };
    for (at, item) in list("Temperatures").filter(|(_, item)| is_there(item)) {
        let (now, critical) = (&item["ReadingCelsius"], &item["UpperThresholdCritical"]);
        let distance = rounded(critical).zip(rounded(now)).map(|(critical, now)| critical - now);
        all.add(format!("temperature.{}.below_critical_c", name(at, item)), distance);
    }
    for (at, item) in list("Fans").filter(|(_, item)| is_there(item)) {
        all.add(format!("fan.{}.failed", name(at, item)), failed(item));
    }
    for (at, item) in list("PowerSupplies").filter(|(_, item)| is_there(item)) {
        all.add(format!("power_supply.{}.failed", name(at, item)), failed(item));
    }
}

#[allow(clippy::cast_possible_truncation)]
fn rounded(value: &Value) -> Option<i64> {
    value.as_f64().filter(|value| value.abs() < 1e6).map(|value| value.round() as i64)
}

/// It is asked only where an operator says how.
pub(super) fn wants_redfish(settings: &Settings) -> bool {
    settings.redfish.is_some()
}

#[cfg(test)]
mod tests {
    use super::super::tests::told;
    use super::*;

    #[test]
    fn power_supplies_fans_and_sensors_are_read_from_ipmitool() {
        let mut all = Measured::default();
        records(include_str!("fixtures/ipmi-sdr.txt"), &mut all);
        assert_eq!(
            told(&all),
            [
                ("fan.FAN1.failed", 0),
                ("fan.FAN2.failed", 1),
                ("sensor.VBAT.warning", 1),
                ("sensor.P1-DIMMA1.critical", 1),
                ("power_supply.PS1-Status.failed", 0),
                ("power_supply.PS1-Status.no_input", 0),
                ("power_supply.PS2-Status.failed", 1),
                ("power_supply.PS2-Status.no_input", 1),
            ]
        );
    }

    #[test]
    fn temperatures_are_read_with_their_critical_limits() {
        let mut all = Measured::default();
        temperatures(include_str!("fixtures/ipmi-sensor.txt"), &mut all);
        assert_eq!(
            told(&all),
            [
                ("temperature.CPU1-Temp.below_critical_c", 45),
                ("temperature.Inlet-Temp.below_critical_c", 18),
            ]
        );
    }

    #[test]
    fn redfish_tells_of_what_is_there() {
        let mut all = Measured::default();
        for text in [
            include_str!("fixtures/redfish-thermal.json"),
            include_str!("fixtures/redfish-power.json"),
        ] {
            health(&serde_json::from_str(text).expect("JSON"), &mut all);
        }
        assert_eq!(
            told(&all),
            [
                ("temperature.CPU-1-Temp-0.below_critical_c", 39),
                ("fan.Fan-1-0.failed", 0),
                ("fan.Fan-2-1.failed", 1),
                ("power_supply.PSU-1-0.failed", 0),
                ("power_supply.PSU-2-1.failed", 1),
            ]
        );
    }

    #[test]
    fn chassis_are_found_in_their_list() {
        let list =
            r#"{"Members": [{"@odata.id": "/redfish/v1/Chassis/1"}], "Members@odata.count": 1}"#;
        assert_eq!(members(&serde_json::from_str(list).expect("JSON")), ["/redfish/v1/Chassis/1"]);
    }
}
