//! Puts the script where libvirt looks for it: beside hooks of others, never in their place.

use super::Places;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Where libvirt (6.5 and later) looks for hooks of its QEMU driver, below its folder of hooks.
pub(crate) const SCRIPT: &str = "qemu.d/steadfast";
/// libvirt's folder of hooks.
pub const HOOKS: &str = "/etc/libvirt/hooks";
const MARK: &str = "# Written by `steadfast node install-hook`";

/// Writes the script below `hooks`; true if something changed. It calls `program`, which must be installed where
/// libvirt runs.
///
/// # Errors
/// Something else is in its place, or it cannot be written.
pub fn install(hooks: &Path, program: &Path, places: &Places) -> Result<bool> {
    let path = script_path(hooks);
    let wanted = script(program, places);
    if read_own(&path)?.as_ref() == Some(&wanted) {
        return Ok(false);
    }
    let write = || -> std::io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        // Not beside it: libvirt runs whatever is executable there.
        let draft = hooks.join(".steadfast.new");
        fs::write(&draft, &wanted)?;
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o755))?;
        fs::rename(&draft, &path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(true)
}

/// Removes the script; true if it was there.
///
/// # Errors
/// Something else is in its place, or it cannot be removed.
pub fn remove(hooks: &Path) -> Result<bool> {
    let path = script_path(hooks);
    if read_own(&path)?.is_none() {
        return Ok(false);
    }
    fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    Ok(true)
}

/// Our script is there.
#[must_use]
pub fn is_installed(hooks: &Path) -> bool {
    matches!(read_own(&script_path(hooks)), Ok(Some(_)))
}

/// What to do when libvirt does not ask.
#[must_use]
pub fn remedy() -> &'static str {
    match read_own(&script_path(Path::new(HOOKS))) {
        Ok(Some(_)) => {
            "its hook is installed, but libvirt only looks for hooks when it starts: \
             systemctl restart libvirtd (guests keep running)"
        }
        _ => {
            "install its hook: steadfast node install-hook, then systemctl restart libvirtd (guests keep running)"
        }
    }
}

/// The script as a node has it before it has a configuration: everything lies where it usually does.
#[must_use]
pub(crate) fn standard_script(program: &str) -> String {
    let (socket, starts) = ("/run/steadfast/hook.sock".into(), "/run/steadfast/starts".into());
    let places = Places { socket, list: "/var/lib/steadfast/ha-vms".into(), starts };
    script(Path::new(program), &places)
}

/// A script of ours.
#[must_use]
pub(crate) fn is_ours(text: &str) -> bool {
    text.contains(MARK)
}

fn script_path(hooks: &Path) -> PathBuf {
    hooks.join(SCRIPT)
}

fn read_own(path: &Path) -> Result<Option<String>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let path = path.display();
    ensure!(text.contains(MARK), "{path} is not steadfast's: move it away, then try again");
    Ok(Some(text))
}

/// libvirt reads what the script prints, so it prints nothing but errors. A script whose program is gone must
/// not stop other VMs.
fn script(program: &Path, places: &Places) -> String {
    let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
    let (program, list) = (quoted(program), quoted(&places.list));
    let (socket, starts) = (quoted(&places.socket), quoted(&places.starts));
    format!(
        r#"#!/bin/sh
{MARK}: asks steadfastd before a VM under
# high availability starts or arrives here. $1 name, $2 operation; the definition is on stdin.
case "$2" in prepare | migrate | release) ;; *) exit 0 ;; esac
program={program}
list={list}
if [ -x "$program" ]; then
  exec "$program" hook --socket {socket} --list "$list" --starts {starts} "$1" "$2"
fi
[ "$2" = release ] && exit 0
uuid=$(sed -n 's:.*<uuid>\(.*\)</uuid>.*:\1:p' | head -n 1)
if [ -n "$uuid" ] && grep -qsx armed "$list" && grep -qsiF -- "$uuid" "$list"; then
  echo "$1 is under high availability, but $program is missing: install steadfast again" >&2
  exit 1
fi
exit 0
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn folder(name: &str) -> PathBuf {
        let folder =
            std::env::temp_dir().join(format!("steadfast-hooks-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("folder");
        folder
    }

    fn places(folder: &Path) -> Places {
        let place = |name: &str| folder.join(name);
        Places { socket: place("a b.sock"), list: place("it's a list"), starts: place("starts") }
    }

    /// Exit code of the script, and what it said.
    fn run(hooks: &Path, operation: &str, uuid: &str) -> (i32, String) {
        let definition = hooks.join("definition.xml");
        fs::write(&definition, format!("<domain>\n  <uuid>{uuid}</uuid>\n</domain>\n"))
            .expect("written");
        let mut script = Command::new(hooks.join(SCRIPT));
        script
            .args(["web", operation, "begin", "-"])
            .stdin(fs::File::open(definition).expect("there"));
        let output = script.stdout(Stdio::piped()).output().expect("runs");
        assert_eq!(output.stdout, b"", "libvirt would take it for a definition");
        (output.status.code().expect("ended"), String::from_utf8_lossy(&output.stderr).into())
    }

    #[test]
    fn a_foreign_hook_in_its_place_is_refused_and_one_beside_it_is_left_alone() {
        let hooks = folder("foreign");
        fs::write(hooks.join("qemu"), "#!/bin/sh\n").expect("written");
        let here = places(&hooks);
        assert!(install(&hooks, Path::new("/bin/true"), &here).expect("installed"));
        assert!(!install(&hooks, Path::new("/bin/true"), &here).expect("as it was"));
        assert!(install(&hooks, Path::new("/bin/false"), &here).expect("another program"));
        assert!(remove(&hooks).expect("removed") && !remove(&hooks).expect("gone"));
        fs::write(hooks.join(SCRIPT), "#!/bin/sh\n").expect("written");
        let refusal = install(&hooks, Path::new("/bin/true"), &here).expect_err("refused");
        assert!(refusal.to_string().contains("move it away"), "{refusal}");
        assert!(remove(&hooks).is_err());
        assert_eq!(fs::read_to_string(hooks.join("qemu")).expect("there"), "#!/bin/sh\n");
    }

    #[test]
    fn the_script_asks_the_program_and_only_where_libvirt_can_be_stopped() {
        let hooks = folder("asks");
        install(&hooks, Path::new("/bin/false"), &places(&hooks)).expect("installed");
        for (operation, code) in [("prepare", 1), ("migrate", 1), ("start", 0), ("reconnect", 0)] {
            assert_eq!(run(&hooks, operation, "u1").0, code, "{operation}");
        }
    }

    #[test]
    fn without_its_program_the_script_goes_by_the_list() {
        let hooks = folder("gone");
        let here = places(&hooks);
        install(&hooks, Path::new("/nonexistent/steadfast"), &here).expect("installed");
        assert_eq!(run(&hooks, "prepare", "u-1"), (0, String::new()), "no list");
        fs::write(&here.list, "# armed\narmed\nu-1 web\n").expect("list");
        let (code, said) = run(&hooks, "prepare", "U-1");
        assert!(code == 1 && said.contains("install steadfast again"), "{said}");
        assert_eq!(run(&hooks, "prepare", "u-2").0, 0);
        assert_eq!(run(&hooks, "release", "u-1").0, 0);
        fs::write(&here.list, "# armed\ndisarmed\nu-1 web\n").expect("list");
        assert_eq!(run(&hooks, "prepare", "u-1").0, 0);
    }
}
