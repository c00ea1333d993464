//! The block device that the store lies on, and where last words go, as the kernel lists them: nothing here touches a disk,
//! which may hang.

use super::Check;
use crate::config::Config;
use crate::pages::Place;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

const STORE: &str = "block store";
const WORDS: &str = "last words";
/// File systems that a reset empties.
const VOLATILE: [&str; 2] = ["tmpfs", "ramfs"];

pub(super) fn checks(config: &Config) -> Vec<Check> {
    let root = Path::new("/");
    let words = last_words(root, &config.state);
    store(root, &config.storage).into_iter().chain([words]).collect()
}

/// The store's device, if it is one.
fn store(root: &Path, place: &Place) -> Option<Check> {
    let Place::Device(path) = place else { return None };
    let found = fs::metadata(path).ok().filter(|found| found.file_type().is_block_device());
    let Some(found) = found else {
        let text = format!("{} is not a block device now", path.display());
        return Some(Check::red(STORE, text, "see its paths on this node, or [storage] device"));
    };
    let number = found.rdev();
    let number = format!("{}:{}", libc::major(number), libc::minor(number));
    Some(listed(root, path, &number))
}

/// What the kernel lists of the device with this number.
fn listed(root: &Path, path: &Path, number: &str) -> Check {
    let name = path.display();
    let place = root.join("sys/dev/block").join(number);
    let is_read_only = fs::read_to_string(place.join("ro")).is_ok_and(|ro| ro.trim() == "1");
    if is_read_only {
        let text = format!("{name} is read-only: no page can be written");
        return Check::red(
            STORE,
            text,
            "blockdev --setrw, or the array's access list for this node",
        );
    }
    let mounts = mounts(root);
    if let Some(mount) = mounts.iter().find(|mount| mount.device == number) {
        let text =
            format!("{name} is mounted at {}: its file system overwrites the ledger", mount.place);
        return Check::red(STORE, text, "unmount it, and give the store a device of its own");
    }
    let mut holders = fs::read_dir(place.join("holders")).into_iter().flatten().flatten();
    if let Some(holder) = holders.next() {
        let text = format!("{name} is used by {} too", holder.file_name().to_string_lossy());
        return Check::red(STORE, text, "name the upper device, or take it out of that volume");
    }
    let sectors = fs::read_to_string(place.join("size")).ok();
    let sectors = sectors.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or_default();
    let text = format!("{name} has {} MiB, and nobody else here uses it", sectors / 2_048);
    if is_numbered(path) {
        let remedy = "name it by /dev/disk/by-id or /dev/mapper";
        return Check::yellow(STORE, format!("{text}; its name may change at a boot"), remedy);
    }
    Check::green(STORE, text)
}

/// A name that the kernel gives in the order in which it finds devices.
fn is_numbered(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.parent() == Some(Path::new("/dev"))
        && ["sd", "vd", "nvme", "dm-"].iter().any(|prefix| name.starts_with(prefix))
}

/// Why a node reset itself is told by its next boot, if it could be written down.
fn last_words(root: &Path, directory: &Path) -> Check {
    let told = format!("a reset is explained in {} and in the kernel log", directory.display());
    let mounts = mounts(root);
    let holds = |mount: &&Mount| directory.starts_with(&mount.place);
    let mount = mounts.iter().filter(holds).max_by_key(|mount| mount.place.len());
    if let Some(mount) = mount.filter(|mount| VOLATILE.contains(&mount.kind.as_str())) {
        let text = format!("{} is on {}: a reset loses them", directory.display(), mount.kind);
        return Check::yellow(WORDS, text, "put run.state_directory on a disk of this node");
    }
    if fs::metadata(directory).is_ok_and(|found| found.permissions().readonly()) {
        let text = format!("{} cannot be written", directory.display());
        return Check::yellow(WORDS, text, "see its permissions, or run.state_directory");
    }
    if !root.join("dev/kmsg").exists() {
        let text = format!("only in {}: there is no /dev/kmsg here", directory.display());
        return Check::yellow(WORDS, text, "let the agent's unit see /dev/kmsg");
    }
    Check::green(WORDS, told)
}

/// A line of `/proc/self/mountinfo`.
#[derive(Debug)]
struct Mount {
    device: String,
    place: String,
    kind: String,
}

/// What is mounted; a later one at the same place hides the earlier.
fn mounts(root: &Path) -> Vec<Mount> {
    let text = fs::read_to_string(root.join("proc/self/mountinfo")).unwrap_or_default();
    text.lines().filter_map(mount).collect()
}

fn mount(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut fields = left.split(' ').skip(2);
    let (device, place) = (fields.next()?, fields.nth(1)?);
    let kind = right.split(' ').next()?;
    Some(Mount { device: device.into(), place: place.into(), kind: kind.into() })
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::super::host::tests::Root;
    use super::*;
    use std::path::PathBuf;

    const MOUNTS: &str = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
                          25 22 0:22 / /run rw - tmpfs tmpfs rw\n\
                          40 22 8:48 / /srv/data rw - xfs /dev/sdd rw\n";

    fn found(name: &str, number: &str, more: &[(&str, &str)]) -> Check {
        let size = (format!("sys/dev/block/{number}/size"), "8388608\n");
        let mut files = vec![("proc/self/mountinfo", MOUNTS), (size.0.as_str(), size.1)];
        files.extend(more);
        let test = format!("store-{}-{number}", name.replace('/', "-"));
        let root = Root::new(&test, &files);
        listed(&root.0, Path::new(name), number)
    }

    #[test]
    fn a_device_that_somebody_else_uses_or_that_cannot_be_written_is_red() {
        let mounted = found("/dev/mapper/ha", "8:48", &[]);
        assert!(mounted.level == Level::Red && mounted.text.contains("/srv/data"), "{mounted:?}");
        let ro = found("/dev/mapper/ro", "8:64", &[("sys/dev/block/8:64/ro", "1\n")]);
        assert!(ro.level == Level::Red && ro.text.contains("read-only"), "{ro:?}");
        let held = found("/dev/mapper/pv", "8:80", &[("sys/dev/block/8:80/holders/dm-3", "")]);
        assert!(held.level == Level::Red && held.text.contains("dm-3"), "{held:?}");
    }

    #[test]
    fn a_device_of_its_own_is_green_if_its_name_lasts() {
        let good = found("/dev/mapper/ha", "8:32", &[("sys/dev/block/8:32/ro", "0\n")]);
        assert!(good.level == Level::Green && good.text.contains("4096 MiB"), "{good:?}");
        assert_eq!(found("/dev/sdc", "8:33", &[]).level, Level::Yellow);
    }

    #[test]
    fn a_file_is_no_device_and_a_directory_needs_none() {
        let root = Path::new("/");
        let gone = store(root, &Place::Device("/nonexistent".into()));
        assert_eq!(gone.map(|check| check.level), Some(Level::Red));
        assert_eq!(store(root, &Place::Directory("/srv".into())), None);
    }

    #[test]
    fn last_words_need_a_disk_and_the_kernel_log() {
        let files = [("proc/self/mountinfo", MOUNTS), ("dev/kmsg", "")];
        let root = Root::new("words", &files);
        let on = |directory: &str| last_words(&root.0, &PathBuf::from(directory));
        assert_eq!(on("/var/lib/steadfast").level, Level::Green);
        let lost = on("/run/steadfast");
        assert!(lost.level == Level::Yellow && lost.text.contains("tmpfs"), "{lost:?}");
        let root = Root::new("no-kmsg", &files[..1]);
        assert_eq!(last_words(&root.0, Path::new("/var/lib")).level, Level::Yellow);
    }
}
