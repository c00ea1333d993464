use super::*;

/// A root with files of a kernel that is not this one.
pub(super) struct Root(PathBuf, Settings);

impl Root {
    pub fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let root =
            std::env::temp_dir().join(format!("steadfast-telemetry-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let root = Self(root, Settings::default());
        files.iter().for_each(|(path, text)| root.write(path, text));
        root
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("written");
        fs::write(path, text).expect("written");
    }

    pub fn scene(&self, now: Instant) -> Scene<'_> {
        Scene { root: &self.0, settings: &self.1, limit: self.1.limit, now }
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(super) fn told(measured: &Measured) -> Vec<(&str, i64)> {
    assert_eq!(measured.trouble, None);
    measured.readings.iter().map(|found| (found.name.as_str(), found.value)).collect()
}

#[test]
fn load_is_read_in_thousandths() {
    assert_eq!(load_permille("0.52 0.58 0.59 1/467 12345\n"), 520);
    assert_eq!(load_permille("12.05 1 1"), 12_050);
    assert_eq!(load_permille("3"), 3_000);
    assert_eq!(load_permille("nonsense"), 0);
}

#[test]
fn memory_that_is_free_is_told_in_steps() {
    let text = "MemTotal:       24576000 kB\nMemFree:  1 kB\nMemAvailable:   12345678 kB\n";
    assert_eq!(available_mib(text), 12_032);
    assert_eq!(available_mib("nonsense"), 0);
}

#[test]
fn a_word_of_a_readings_name_has_no_dots() {
    assert_eq!(word("eth0.100"), "eth0-100");
    assert_eq!(word(" Package id 0 "), "Package-id-0");
    assert_eq!(word("+3.3V"), "3-3V");
}

#[test]
fn every_source_is_watched_and_says_how_it_is() {
    let root = Root::new(
        "watch",
        &[("proc/mdstat", "md0 : active raid1 sda1[0]\n 9 blocks [2/1] [U_]\n")],
    );
    let off: BTreeSet<String> =
        ["smart", "ipmi", "paths", "clock"].into_iter().map(str::to_owned).collect();
    let settings = Settings { off, root: root.0.clone(), ..Settings::default() };
    let hub = Arc::new(Hub::default());
    watch(&Arc::new(settings), &hub).expect("threads");
    let end = Instant::now() + Duration::from_secs(10);
    let waits = |hub: &Hub| hub.report("n1").sources.iter().any(|it| it.state == State::Waiting);
    while waits(&hub) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    let states: BTreeMap<String, State> =
        hub.report("n1").sources.into_iter().map(|it| (it.name, it.state)).collect();
    assert_eq!(states.keys().collect::<Vec<_>>(), SOURCES);
    let of = |name: &str| states[name];
    assert_eq!(
        [of("smart"), of("redfish"), of("arrays"), of("edac")],
        [State::Off, State::Off, State::Ok, State::Missing]
    );
    assert_eq!(hub.readings()[0].name, "md.md0.missing");
}
