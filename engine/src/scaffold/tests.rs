use super::*;
use std::process::Command;

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("steadfast-new-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn create(&self, name: &str, kinds: &[Kind], sdk: Option<PathBuf>) -> Result<PathBuf> {
        create(&New { name: name.into(), kinds: kinds.to_vec(), sdk, into: self.0.clone() })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn run(command: &mut Command) -> String {
    let done = command.output().unwrap();
    let words = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?}: {words}");
    words.into_owned()
}

#[test]
fn a_new_policy_of_all_kinds_builds_offline_keeps_the_laws_and_is_a_module_that_the_agent_takes() {
    let folder = Folder::new("all");
    let crate_folder = folder.create("my-policy", &Kind::ALL, None).unwrap();
    // The versions that are here already.
    fs::copy(root().join("Cargo.lock"), crate_folder.join("Cargo.lock")).unwrap();
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root().join("target"), PathBuf::from);
    let target = target.join("new-policy");
    let mut test = Command::new("cargo");
    test.args(["test", "--offline", "--manifest-path"]).arg(crate_folder.join("Cargo.toml"));
    let told = run(test.env("CARGO_TARGET_DIR", &target));
    assert!(told.contains("laws::every_question_has_a_sound_answer ... ok"), "{told}");
    assert!(told.contains("7 passed"), "{told}");
    let modules = folder.0.join("policies");
    fs::create_dir(&modules).unwrap();
    let mut build = Command::new(root().join("policies/build"));
    build.env("CARGO_NET_OFFLINE", "true").env("CARGO_TARGET_DIR", &target);
    run(build.arg("--crate").arg(&crate_folder).arg(modules.join("my-policy.wasm")));
    let store =
        crate::policy::PolicyStore::start(modules, crate::policy::Settings::default(), |_| ())
            .unwrap();
    assert!(store.wait_for_scan(1, std::time::Duration::from_secs(60)));
    for kind in Kind::ALL {
        let status = store.status();
        let ours = status.all().find(|it| it.kind == Some(kind) && it.name == "my-policy");
        assert!(ours.is_some_and(|ours| ours.deciding), "{kind}: {status:#?}");
    }
}

#[test]
fn what_an_author_has_to_read_is_short() {
    let folder = Folder::new("short");
    for kind in Kind::ALL {
        let name = format!("short-{}", kind.name());
        let source = folder.create(&name, &[kind], None).unwrap().join("src/lib.rs");
        let source = fs::read_to_string(source).unwrap();
        let (policy, _) = source.split_once("export_policy!").unwrap();
        let code = policy.lines().map(str::trim);
        let code = code.filter(|line| !line.is_empty() && !line.starts_with("//"));
        assert!(code.clone().count() <= 15, "{:#?}", code.collect::<Vec<_>>());
    }
}

#[test]
fn a_checkout_is_used_where_it_is() {
    let folder = Folder::new("checkout");
    let created = folder.create("near", &[Kind::Placement], Some(root().join("sdk"))).unwrap();
    assert!(!created.join(COPY).exists());
    let manifest: Table = fs::read_to_string(created.join("Cargo.toml")).unwrap().parse().unwrap();
    let path = manifest["dependencies"]["steadfast-sdk"]["path"].as_str().unwrap();
    assert_eq!(Path::new(path).canonicalize().unwrap(), root().join("sdk").canonicalize().unwrap());
}

#[test]
fn what_cannot_be_made_is_refused_in_words() {
    let folder = Folder::new("refused");
    let refused = |name: &str, kinds: &[Kind], sdk: Option<&str>| {
        folder.create(name, kinds, sdk.map(PathBuf::from)).unwrap_err().to_string()
    };
    for name in ["", "Rack", "9lives", "a b", "../up", "std"] {
        assert!(refused(name, &Kind::ALL, None).contains(&format!("{name:?} is ")), "{name}");
    }
    assert!(refused("good", &[], None).contains("--kind"));
    assert!(refused("good", &Kind::ALL, Some("/nowhere")).contains("no SDK at /nowhere"));
    assert!(refused("good", &Kind::ALL, Some("/tmp")).contains("not the folder `sdk`"));
    folder.create("good", &[Kind::Risk], None).unwrap();
    assert!(refused("good", &[Kind::Risk], None).contains("exists"));
}
