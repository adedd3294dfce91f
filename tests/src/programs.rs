//! Programs and processes: their files, output, reports, signals and children.

use pipeline::simd::InstructionSet;
use serde::de::DeserializeOwned;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// The exit code and output of a program, as text for a snapshot.
pub fn shown(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    let code = output
        .status
        .code()
        .map_or("killed".to_owned(), |code| code.to_string());
    format!(
        "exit code: {code}\n--- stdout\n{}\n--- stderr\n{}",
        text(&output.stdout),
        text(&output.stderr)
    )
}

/// The report that a program printed as JSON. Panics if the program failed.
pub fn parse_report<T: DeserializeOwned>(output: &Output) -> T {
    assert!(output.status.success(), "{}", shown(output));
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", shown(output)))
}

/// The values in a file of JSON lines.
pub fn json_lines<T: DeserializeOwned>(path: &Path) -> Vec<T> {
    let text =
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect()
}

/// Copies a file, or a folder with everything in it.
pub fn copy_all(from: &Path, to: &Path) {
    if from.is_file() {
        fs::copy(from, to).expect("copied");
        return;
    }
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        copy_all(&entry.path(), &to.join(entry.file_name()));
    }
}

/// Sends the signal `name` (`INT`, `STOP`) to a process, and returns whether it was there to get
/// it.
pub fn signal(process: u32, name: &str) -> bool {
    let kill = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(process.to_string())
        .output();
    kill.expect("kill runs").status.success()
}

/// The processes that threads of a process have started. None if the process has ended.
pub fn children(process: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{process}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let lists =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|child| child.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}

/// Whether a process has ended, waited for or not.
pub fn has_ended(process: u32) -> bool {
    fs::read_to_string(format!("/proc/{process}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

/// Returns false in a process where no other test runs; elsewhere, starts the binary again for the
/// test `name` alone and returns true when that has passed. For tests of what belongs to the whole
/// process: its threads, its children, the log that reports damaged video. nextest gives each test
/// a process, `cargo test` does not.
#[must_use]
pub fn ran_alone(name: &str) -> bool {
    const ALONE: &str = "TEST_RUNS_ALONE";
    let nextest =
        std::env::var("NEXTEST_EXECUTION_MODE").is_ok_and(|mode| mode == "process-per-test");
    if nextest || std::env::var_os(ALONE).is_some() {
        return false;
    }
    run_again(name, (ALONE, "1"));
    true
}

/// Returns false in a process whose instruction set was chosen; elsewhere, starts the binary again
/// for the test `name`, once for each instruction set of this CPU, and returns true when all have
/// passed. For tests of whole steps.
#[must_use]
pub fn ran_on_each_instruction_set(name: &str) -> bool {
    const VARIABLE: &str = "INSTRUCTION_SET";
    if std::env::var_os(VARIABLE).is_some() {
        return false;
    }
    for set in InstructionSet::supported() {
        println!("{VARIABLE}={}", set.name());
        run_again(name, (VARIABLE, set.name()));
    }
    true
}

/// Runs the test `name` of this binary in a process of its own, with one more variable.
fn run_again(name: &str, (variable, value): (&str, &str)) {
    let binary = std::env::current_exe().expect("this test's binary");
    let output = Command::new(binary)
        .args(["--exact", name, "--nocapture"])
        .env(variable, value)
        .output()
        .expect("run");
    let shown = shown(&output);
    assert!(
        output.status.success() && shown.contains("1 passed"),
        "{variable}={value}\n{shown}"
    );
    println!("{shown}");
}
