//! What else may lie on a device that somebody wants to format: somebody's data are not to be lost by a wrong letter.

use super::super::direct::{Access, AlignedBuffer, Area, DirectFile};
use super::super::format::BLOCK;
use super::{MIB, size_of};
use anyhow::Result;
use std::path::Path;
use std::process::Command;

/// This much of both ends must be zero. Every signature below lies there, and those of almost everything else.
pub(super) const BEGIN: usize = 2 << 20;
pub(super) const END: usize = 1 << 20;

/// Where a signature lies, what it is, and whose. The specific ones first: a file system's boot block may look like a
/// partition table.
pub(super) const SIGNATURES: &[(usize, &[u8], &str)] = &[
    (0, super::HEADER_MAGIC, "a Steadfast store"),
    (super::HEADER_COPY, super::HEADER_MAGIC, "a Steadfast store"),
    (0, b"LUKS\xba\xbe", "an encrypted LUKS volume"),
    (0, b"XFSB", "an XFS file system"),
    (0x438, b"\x53\xef", "an ext2, ext3 or ext4 file system"),
    (0x1_0040, b"_BHRfS_M", "a Btrfs file system"),
    (0x1_0000, b"\x01\x16\x19\x70", "a GFS2 file system"),
    (0x2000, b"OCFSV2", "an OCFS2 file system"),
    (0x10_0000, b"\x0d\xd0\x01\xc0", "a VMFS file system"),
    (0x8001, b"CD001", "an ISO 9660 file system"),
    (0x200, b"LABELONE", "an LVM physical volume"),
    (0, b"LABELONE", "an LVM physical volume"),
    (0x1000, b"\xfc\x4e\x2b\xa9", "a member of a RAID array"),
    (0, b"\xfc\x4e\x2b\xa9", "a member of a RAID array"),
    (0xff6, b"SWAPSPACE2", "swap space"),
    (0, b"SBD_SBD_", "an SBD fencing device"),
    (0, b"\x10\x20\x21\x12", "a sanlock lockspace"),
    (0, b"bluestore block device", "a Ceph OSD"),
    (0x20, b"ORCLDISK", "an Oracle ASM disk"),
    (0x200, b"EFI PART", "a GPT partition table"),
    (0x1000, b"EFI PART", "a GPT partition table"),
    (0x1fe, b"\x55\xaa", "a partition table or boot sector"),
];

/// What the device holds, as far as this program knows; `None` if both of its ends are empty.
pub(super) fn identify(device: &Path) -> Result<Option<String>> {
    let begin = read(device, 0, BEGIN)?;
    let tail = size_of(device)?.saturating_sub(END as u64).next_multiple_of(BLOCK as u64);
    let end = read(device, tail, END)?;
    let unknown = |bytes: &[u8], at: u64| {
        let first = bytes.iter().position(|byte| *byte != 0)?;
        Some(format!("data of an unknown kind (from byte {} on)", at + first as u64))
    };
    let found = signature(&begin).or_else(|| unknown(&begin, 0)).or_else(|| unknown(&end, tail));
    Ok(found.map(|what| format!("it holds {what}")))
}

fn signature(begin: &[u8]) -> Option<String> {
    let is_there = |(at, magic, _): &&(usize, &[u8], &str)| begin[*at..].starts_with(magic);
    SIGNATURES.iter().find(is_there).map(|(_, _, name)| (*name).to_owned())
}

/// The words of `blkid`, which knows many more; `None` without it, or if it knows nothing.
pub(super) fn probe(device: &Path) -> Option<String> {
    let output = Command::new("blkid").args(["-p", "-o", "export"]).arg(device).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let told = |line: &&str| ["TYPE=", "PTTYPE=", "LABEL="].iter().any(|key| line.starts_with(key));
    let found: Vec<&str> = text.lines().filter(told).collect();
    (!found.is_empty()).then(|| format!("blkid says {}", found.join(" ")))
}

fn read(device: &Path, at: u64, length: usize) -> Result<Vec<u8>> {
    let mut buffer = AlignedBuffer::new(length);
    let mut file = DirectFile::new(Area::file(device.to_owned()), Access::Read);
    file.read(at, buffer.get_mut())?;
    Ok(buffer.get().to_vec())
}

const _: () = assert!(BEGIN as u64 >= MIB + 4);
