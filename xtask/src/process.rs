//! Running other programs: where they are, how they are named in an error, how they end.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use crate::Outcome;

/// Debian keeps `mkfs.*` and friends where the `PATH` of an ordinary user does not look.
const ADMIN_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The repository this program was built from.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the repository")
}

/// Where programs are that were built for comparison and not installed.
pub(crate) fn peers() -> PathBuf {
    repository().join("target/peers")
}

/// A command that starts in the repository and also finds the administrator's programs.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(repository()).env("PATH", search_path());
    command
}

/// The same cargo that runs this program.
pub(crate) fn cargo() -> Command {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    command(&cargo)
}

/// Runs to the end with the terminal attached; anything but success is an error that names
/// the command line.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let line = describe(command);
    let status = command.status().map_err(|e| format!("cannot start `{line}`: {e}"))?;
    expect_success(&line, status)
}

/// Turns an exit status that is not success into a sentence.
pub(crate) fn expect_success(line: &str, status: ExitStatus) -> Outcome {
    if status.success() { Ok(()) } else { Err(format!("`{line}` failed ({status})")) }
}

/// The command as one would type it.
pub(crate) fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut line = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

/// The file a program name stands for.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&search_path()).map(|folder| folder.join(name)).find(|p| p.is_file())
}

fn search_path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    for folder in ADMIN_FOLDERS.map(PathBuf::from).into_iter().chain([peers().join("bin")]) {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    std::env::join_paths(folders).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_is_named_with_its_arguments() {
        let failure = run(command("sh").args(["-c", "exit 3"])).unwrap_err();
        assert_eq!(failure, "`sh -c exit 3` failed (exit status: 3)");
    }

    #[test]
    fn a_program_that_does_not_exist_is_named() {
        let failure = run(&mut command("no-such-program-here")).unwrap_err();
        assert!(failure.starts_with("cannot start `no-such-program-here`: "), "{failure}");
    }

    #[test]
    fn the_repository_is_the_folder_with_the_workspace_manifest() {
        let manifest = std::fs::read_to_string(repository().join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[workspace]"));
    }

    #[test]
    fn programs_of_the_administrator_are_found() {
        let found = find_program("losetup").unwrap();
        assert!(found.ends_with("losetup"));
    }
}
