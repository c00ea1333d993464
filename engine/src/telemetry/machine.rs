//! What the kernel itself knows of memory, heat, fans and pressure: EDAC, hwmon, thermal zones, PSI.

use super::history::History;
use super::{Found, Measured, Scene, Trouble, files, found, number, text, word};
use std::path::Path;

/// Temperatures beyond these are nonsense of a driver, in degrees Celsius.
const SENSIBLE: std::ops::Range<i64> = -50..200;

/// Errors of memory, by controller.
pub(super) fn edac(scene: &Scene<'_>, history: &mut History) -> Measured {
    let controllers = files(&scene.root.join("sys/devices/system/edac/mc"), "mc");
    if controllers.is_empty() {
        return Trouble::Missing("the kernel watches no memory controller (EDAC)".into()).into();
    }
    let mut all = Measured::default();
    for (name, folder) in controllers {
        let count = |file: &str| number(&folder.join(file));
        let uncorrected = count("ue_count");
        all.add(format!("edac.{name}.uncorrectable"), uncorrected);
        let corrected = count("ce_count");
        let per_hour = corrected.map(|count| history.per_hour(&name, count, scene.now));
        all.add(format!("edac.{name}.correctable_per_hour"), per_hour);
    }
    all
}

/// Temperatures with a critical limit, and fans that say that they fail.
pub(super) fn heat(scene: &Scene<'_>, history: &mut History) -> Measured {
    let mut all = Measured::default();
    for (chip, folder) in files(&scene.root.join("sys/class/hwmon"), "hwmon") {
        let name = text(&folder.join("name")).unwrap_or_default();
        all.readings.extend(hwmon(&word(&format!("{chip}-{name}")), &folder));
    }
    for (zone, folder) in files(&scene.root.join("sys/class/thermal"), "thermal_zone") {
        let name = text(&folder.join("type")).unwrap_or_default();
        let distance = thermal_zone(&folder);
        all.add(
            format!("temperature.{}.below_critical_c", word(&format!("{zone}-{name}"))),
            distance,
        );
    }
    let throttled = throttled(scene).map(|count| history.per_hour("throttled", count, scene.now));
    all.add("temperature.cpu.throttled_per_hour".into(), throttled);
    if all.readings.is_empty() {
        all.note(Trouble::Missing("no sensor here has a critical limit".into()));
    }
    all
}

fn hwmon(chip: &str, folder: &Path) -> Vec<Found> {
    let mut found = Vec::new();
    for (file, path) in files(folder, "temp") {
        let Some(sensor) = file.strip_suffix("_input") else { continue };
        let of = |what: &str| number(&folder.join(format!("{sensor}_{what}")));
        let Some(distance) = below_critical(number(&path), of("crit")) else { continue };
        let label = text(&folder.join(format!("{sensor}_label"))).unwrap_or_else(|| sensor.into());
        let name = word(&format!("{chip}-{label}"));
        found.push(self::found(format!("temperature.{name}.below_critical_c"), distance));
    }
    for (file, _) in files(folder, "fan") {
        let Some(fan) = file.strip_suffix("_input") else { continue };
        let of = |what: &str| number(&folder.join(format!("{fan}_{what}")));
        // Without either nobody knows whether a fan that stands still should.
        let Some(failed) = of("fault").max(of("alarm")) else { continue };
        found.push(self::found(format!("fan.{chip}-{fan}.failed"), i64::from(failed != 0)));
    }
    found
}

/// From thousandths of a degree.
fn below_critical(now: Option<i64>, critical: Option<i64>) -> Option<i64> {
    let (now, critical) = (now?.div_euclid(1_000), critical?.div_euclid(1_000));
    let sensible = SENSIBLE.contains(&now) && SENSIBLE.contains(&critical) && critical > 0;
    sensible.then_some(critical - now)
}

fn thermal_zone(folder: &Path) -> Option<i64> {
    let trip = |(file, path): &(String, std::path::PathBuf)| {
        let trip = file.strip_suffix("_type")?;
        let critical = text(path).as_deref() == Some("critical");
        critical.then(|| number(&folder.join(format!("{trip}_temp")))).flatten()
    };
    let critical = files(folder, "trip_point_").iter().find_map(trip);
    below_critical(number(&folder.join("temp")), critical)
}

/// How often any processor was slowed down by heat.
fn throttled(scene: &Scene<'_>) -> Option<i64> {
    let cpus = files(&scene.root.join("sys/devices/system/cpu"), "cpu").into_iter();
    let count = |(_, cpu): (String, std::path::PathBuf)| {
        number(&cpu.join("thermal_throttle/package_throttle_count"))
    };
    cpus.filter_map(count).max()
}

/// How long processes stood still for want of something.
pub(super) fn pressure(scene: &Scene<'_>) -> Measured {
    let mut all = Measured::default();
    for what in ["cpu", "io", "memory"] {
        let Some(lines) = text(&scene.root.join("proc/pressure").join(what)) else { continue };
        for line in lines.lines() {
            let Some((kind, share)) = share(line) else { continue };
            all.add(format!("psi.{what}.{kind}_avg60_permille"), Some(share));
        }
    }
    if all.readings.is_empty() {
        all.note(Trouble::Missing("the kernel does not measure pressure (psi=1)".into()));
    }
    all
}

/// `some avg10=0.00 avg60=1.25 avg300=0.3 total=9` is 12 thousandths of `some`.
fn share(line: &str) -> Option<(&str, i64)> {
    let mut words = line.split_ascii_whitespace();
    let kind = words.next()?;
    let average = words.find_map(|word| word.strip_prefix("avg60="))?;
    let (whole, part) = average.split_once('.').unwrap_or((average, "0"));
    let tenths: i64 = part.get(..1)?.parse().ok()?;
    Some((kind, whole.parse::<i64>().ok()? * 10 + tenths))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Root, told};
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn memory_errors_are_counted_by_controller() {
        let root = Root::new(
            "edac",
            &[
                ("sys/devices/system/edac/mc/mc0/ue_count", "0\n"),
                ("sys/devices/system/edac/mc/mc0/ce_count", "100\n"),
                ("sys/devices/system/edac/mc/power/control", "auto\n"),
            ],
        );
        let (mut history, begin) = (History::default(), Instant::now());
        edac(&root.scene(begin), &mut history);
        root.write("sys/devices/system/edac/mc/mc0/ce_count", "130\n");
        let found = edac(&root.scene(begin + Duration::from_secs(60)), &mut history);
        assert_eq!(
            told(&found),
            [("edac.mc0.uncorrectable", 0), ("edac.mc0.correctable_per_hour", 30)]
        );
        assert!(edac(&Root::new("no-edac", &[]).scene(begin), &mut history).is_missing());
    }

    #[test]
    fn heat_is_the_distance_from_critical_and_nonsense_is_left_out() {
        let root = Root::new(
            "hwmon",
            &[
                ("sys/class/hwmon/hwmon1/name", "coretemp\n"),
                ("sys/class/hwmon/hwmon1/temp1_input", "61000\n"),
                ("sys/class/hwmon/hwmon1/temp1_crit", "100000\n"),
                ("sys/class/hwmon/hwmon1/temp1_label", "Package id 0\n"),
                ("sys/class/hwmon/hwmon1/temp2_input", "55000\n"),
                ("sys/class/hwmon/hwmon1/temp3_input", "55000\n"),
                ("sys/class/hwmon/hwmon1/temp3_crit", "65261850\n"),
                ("sys/class/hwmon/hwmon2/name", "nct6775\n"),
                ("sys/class/hwmon/hwmon2/fan1_input", "0\n"),
                ("sys/class/hwmon/hwmon2/fan1_alarm", "1\n"),
                ("sys/class/hwmon/hwmon2/fan2_input", "0\n"),
                ("sys/class/thermal/thermal_zone0/type", "acpitz\n"),
                ("sys/class/thermal/thermal_zone0/temp", "27800\n"),
                ("sys/class/thermal/thermal_zone0/trip_point_0_type", "critical\n"),
                ("sys/class/thermal/thermal_zone0/trip_point_0_temp", "119000\n"),
                ("sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count", "7\n"),
            ],
        );
        let found = heat(&root.scene(Instant::now()), &mut History::default());
        assert_eq!(
            told(&found),
            [
                ("temperature.hwmon1-coretemp-Package-id-0.below_critical_c", 39),
                ("fan.hwmon2-nct6775-fan1.failed", 1),
                ("temperature.thermal_zone0-acpitz.below_critical_c", 92),
                ("temperature.cpu.throttled_per_hour", 0),
            ]
        );
    }

    #[test]
    fn pressure_is_in_thousandths() {
        let root = Root::new(
            "psi",
            &[
                (
                    "proc/pressure/io",
                    "some avg10=0.00 avg60=1.25 avg300=0.30 total=93\nfull avg10=0.00 avg60=41.70 avg300=0.2 total=8\n",
                ),
                ("proc/pressure/cpu", "some avg10=95.00 avg60=100.00 avg300=12.31 total=1\n"),
            ],
        );
        assert_eq!(
            told(&pressure(&root.scene(Instant::now()))),
            [
                ("psi.cpu.some_avg60_permille", 1_000),
                ("psi.io.some_avg60_permille", 12),
                ("psi.io.full_avg60_permille", 417),
            ]
        );
    }
}
