//! A bounded ring of files of JSON lines: the newest are kept.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// `NAME.jsonl` is written; `NAME.1.jsonl` and so on are older.
#[derive(Debug)]
pub(crate) struct Ring {
    directory: PathBuf,
    shape: Shape,
    file: File,
    size: u64,
}

/// What a ring is called and how much it holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// The files' name without its ending.
    pub name: &'static str,
    /// Number of files.
    pub files: usize,
    /// Size of one in bytes.
    pub file_bytes: u64,
}

impl Ring {
    /// Makes the directory and goes on where the newest file ends.
    pub(crate) fn open(directory: &Path, shape: Shape) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let file = append_to(&shape.path(directory, 0))?;
        let size = file.metadata()?.len();
        Ok(Self { directory: directory.into(), shape, file, size })
    }

    /// Appends a line (without its end). Unbuffered, so that the last ones survive a killed agent.
    pub(crate) fn append(&mut self, mut line: Vec<u8>) -> io::Result<()> {
        line.push(b'\n');
        let length = line.len() as u64;
        if self.size > 0 && self.size + length > self.shape.file_bytes {
            self.turn()?;
        }
        self.file.write_all(&line)?;
        self.size += length;
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        let name = |age| self.shape.path(&self.directory, age);
        for older in (1..self.shape.files).rev() {
            match std::fs::rename(name(older - 1), name(older)) {
                // Somebody removed it: then it is not in the way.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.file = append_to(&name(0))?;
        self.size = 0;
        Ok(())
    }
}

impl Shape {
    fn path(&self, directory: &Path, age: usize) -> PathBuf {
        match age {
            0 => directory.join(format!("{}.jsonl", self.name)),
            _ => directory.join(format!("{}.{age}.jsonl", self.name)),
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_the_newest_and_stays_bounded() {
        let directory = std::env::temp_dir().join(format!("ring-{}", std::process::id()));
        let shape = Shape { name: "test", files: 2, file_bytes: 100 };
        let mut ring = Ring::open(&directory, shape).expect("temporary directory");
        for number in 0..100 {
            ring.append(format!("{{\"number\":{number}}}").into()).expect("written");
        }
        let newest = std::fs::read_to_string(shape.path(&directory, 0)).expect("there");
        assert!(newest.ends_with("{\"number\":99}\n"), "{newest}");
        let older = std::fs::metadata(shape.path(&directory, 1)).expect("there");
        assert!(older.len() <= 100);
        assert_eq!(std::fs::read_dir(&directory).expect("there").count(), 2);
        std::fs::remove_dir_all(&directory).expect("removed");
    }
}
