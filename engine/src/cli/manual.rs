//! Completions for shells and manual pages, from the description of the command line itself.

use super::args::Cli;
use super::client::Failure;
use super::say;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use std::io;
use std::path::Path;

/// What the exit codes mean; the same words in `--help` and in the manual.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  refused, or it failed; the message says what to do
  2  wrong usage or configuration
  3  the agent cannot be reached
`doctor` has its own: 0 all green, 1 something yellow, 2 something red.";

/// Prints the script that lets `shell` complete our commands.
pub(super) fn complete(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "steadfast", &mut script);
    say(&String::from_utf8_lossy(&script))
}

/// Prints the manual page, or writes one a command into `directory`.
pub(super) fn man(directory: Option<&Path>) -> Result<(), Failure> {
    let Some(directory) = directory else {
        let page = page(Cli::command()).map_err(Failure::from_output)?;
        return say(&String::from_utf8_lossy(&page));
    };
    let describe = |error: io::Error| {
        Failure::Usage(format!("cannot write into {}: {error}", directory.display()))
    };
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    write_all(&command, directory).map_err(describe)
}

fn write_all(command: &Command, directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    std::fs::write(directory.join(format!("{name}.1")), page(command.clone())?)?;
    let mut shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    shown.try_for_each(|command| write_all(command, directory))
}

fn page(command: Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use clap::error::ErrorKind;

    #[test]
    fn every_command_has_a_manual_page_and_the_first_one_tells_the_exit_codes() {
        let directory = std::env::temp_dir().join(format!("steadfast-man-{}", std::process::id()));
        man(Some(&directory)).expect("written");
        let read = |name: &str| std::fs::read_to_string(directory.join(name)).expect(name);
        assert!(read("steadfast.1").contains("the agent cannot be reached"));
        assert!(read("steadfast-vm-enable.1").contains("priority"));
        assert!(!directory.join("steadfast-hook.1").exists(), "libvirt calls it, nobody else");
        std::fs::remove_dir_all(&directory).expect("removed");
    }

    /// Words as a shell splits them, up to a comment; double quotes only.
    fn words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut quoted = false;
        for letter in line.split(" #").next().unwrap_or_default().chars() {
            match letter {
                '"' => quoted = !quoted,
                ' ' if !quoted => words.push(String::new()),
                letter => words.last_mut().expect("one").push(letter),
            }
        }
        words.retain(|word| !word.is_empty() && word != "...");
        words
    }

    /// What stands in backticks or in a block of code, and begins with our name.
    fn commands(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut in_block = false;
        for line in text.lines() {
            let line = line.trim();
            if line.starts_with("```") {
                in_block = !in_block;
            } else if in_block {
                found.push(line.to_owned());
            } else {
                found.extend(line.split('`').skip(1).step_by(2).map(String::from));
            }
        }
        let ours = |line: &String| line.starts_with("steadfast ");
        let first = |line: String| line.split(&['>', '|', ';'][..]).next().map(String::from);
        found.into_iter().filter(ours).filter_map(first).collect()
    }

    #[test]
    fn every_command_of_the_guide_is_understood() {
        let commands = commands(include_str!("../../GUIDE.md"));
        assert!(commands.len() > 20, "{commands:?}");
        for command in commands {
            let words = words(&command);
            // A command that is only named, like `steadfast node maintenance begin`, is there with its help.
            let found = Cli::try_parse_from(&words).err().map(|error| error.kind());
            let named = Cli::try_parse_from(words.iter().map(String::as_str).chain(["--help"]));
            let named = named.err().map(|error| error.kind());
            let fine = found.is_none() || found == Some(ErrorKind::MissingRequiredArgument);
            assert!(fine, "{command}: {found:?}");
            assert_eq!(named, Some(ErrorKind::DisplayHelp), "{command}");
        }
    }
}
