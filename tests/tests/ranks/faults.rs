//! Ranks that are killed, stopped, slow, short of memory or disk, or started differently: all end
//! together or go on together.

use crate::{PRETRAIN, Work, last_checkpoint, ranks_of};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tests::{children, shown, signal};

#[test]
fn a_rank_that_is_killed_ends_all_and_the_run_resumes_to_the_same_bits() {
    let Some(work) = Work::new() else { return };
    let steps = ["--steps", "40"];
    work.pretrain(4, "whole", &steps);
    let mut resumed = false;
    for round in 0..10u64 {
        let mut arguments = [&PRETRAIN[..], &["--out", "killed"], &steps].concat();
        if resumed {
            arguments.push("--resume");
        }
        let mut mpirun = work.command(4, &arguments);
        let mut mpirun = mpirun
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        thread::sleep(Duration::from_millis(700 + 130 * round));
        if let Some(&victim) = ranks_of(&mpirun).get((round * 7 % 4) as usize) {
            assert!(signal(victim, "KILL"));
            let began = Instant::now();
            mpirun.wait().expect("ended");
            assert!(began.elapsed() < Duration::from_secs(10), "all end at once");
        } else {
            mpirun.wait().expect("ended");
        }
        resumed = work.path("killed").join("config.toml").exists();
    }
    work.pretrain(2, "killed", &[&steps[..], &["--resume"]].concat());
    assert_eq!(work.result("killed").0, work.result("whole").0);
}

#[test]
fn ctrl_c_on_one_rank_stops_all_after_the_step() {
    let Some(work) = Work::new() else { return };
    let (mpirun, ranks) = work.start(2, "stopped", &["--steps", "100000"]);
    assert_eq!(ranks.len(), 2);
    assert!(signal(ranks[1], "INT"));
    let output = mpirun.wait_with_output().expect("ended");
    assert_eq!(output.status.code(), Some(130), "{}", shown(&output));
    let (_, steps) = work.result("stopped");
    assert!(!steps.is_empty());
    assert!(
        shown(&output).contains("to resume: trainer run"),
        "{}",
        shown(&output)
    );
}

#[test]
fn ranks_that_were_started_differently_say_how() {
    let Some(work) = Work::new() else { return };
    let with = |more: &[&'static str]| [&PRETRAIN[..], &["--out", "x"], more].concat();
    let cases: [(Vec<&str>, Vec<&str>, &str); 4] = [
        (
            with(&[]),
            with(&["--seed", "7"]),
            "the configuration of rank 1 is not that of rank 0: seed = 7, not seed = 0;",
        ),
        (
            with(&[]),
            [&PRETRAIN[..5], &["--data", "gone=1"], &["--out", "x"]].concat(),
            "rank 1: ",
        ),
        (
            with(&["--data", "gone"]),
            with(&["--data", "gone"]),
            "error: ",
        ),
        (
            with(&[]),
            [&PRETRAIN[..5], &PRETRAIN[7..], &["--out", "x"]].concat(),
            "the data of rank 1 is not that of rank 0",
        ),
    ];
    for (first, second, message) in cases {
        let parts: [(usize, &[&str]); 2] = [(1, &first), (1, &second)];
        let began = Instant::now();
        let output = work.commands(&parts).output().expect("started");
        assert!(!output.status.success(), "{message}");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(stderr.matches(message).count(), 1, "{message}: {stderr}");
        assert!(began.elapsed() < Duration::from_secs(20), "{message}");
    }
    assert!(!work.path("x").join("metrics.jsonl").exists());
}

#[test]
fn a_signal_that_mpirun_passes_on_stops_all_after_the_step() {
    let Some(work) = Work::new() else { return };
    let (mpirun, _) = work.start(3, "stopped", &["--batch-size", "48", "--steps", "100000"]);
    children(mpirun.id())
        .into_iter()
        .for_each(|mpirun| assert!(signal(mpirun, "USR1")));
    let output = mpirun.wait_with_output().expect("ended");
    assert_eq!(output.status.code(), Some(130), "{}", shown(&output));
    let done = work.result("stopped").1.len();
    let last = last_checkpoint(&work.path("stopped"));
    assert!(
        last.ends_with(format!("step-{done:06}")),
        "{done}: {last:?}"
    );
}

#[test]
fn ctrl_c_at_mpirun_saves_and_ends_all() {
    let Some(work) = Work::new() else { return };
    // mpirun passes the signal on after a second, and kills a second later.
    let steps = ["--steps", "400"];
    let (mut mpirun, _) = work.start(2, "stopped", &steps);
    children(mpirun.id())
        .into_iter()
        .for_each(|mpirun| assert!(signal(mpirun, "INT")));
    mpirun.wait().expect("ended");
    let done = work.result("stopped").1.len();
    assert!(done < 400, "mpirun waits");
    // The step in hand was saved, not only the even ones.
    let last = last_checkpoint(&work.path("stopped"));
    assert!(
        last.ends_with(format!("step-{done:06}")),
        "{done}: {last:?}"
    );
    work.pretrain(1, "stopped", &[&steps[..], &["--resume"]].concat());
    work.pretrain(2, "whole", &steps);
    assert_eq!(work.result("stopped"), work.result("whole"));
}

#[test]
fn the_others_wait_for_a_slow_rank() {
    let Some(work) = Work::new() else { return };
    let steps = ["--steps", "60"];
    work.pretrain(2, "whole", &steps);
    let (mpirun, ranks) = work.start(2, "slow", &steps);
    for rank in ranks {
        assert!(signal(rank, "STOP"));
        thread::sleep(Duration::from_secs(1));
        assert!(signal(rank, "CONT"));
    }
    let output = mpirun.wait_with_output().expect("ended");
    assert!(output.status.success(), "{}", shown(&output));
    assert_eq!(work.result("slow"), work.result("whole"));
}

#[test]
fn a_rank_without_memory_ends_all() {
    let Some(mut work) = Work::new() else { return };
    // Rank 1 has less than weights and moments take.
    let script = work.path("limited.sh");
    let text = format!(
        "#!/bin/sh\n[ \"$OMPI_COMM_WORLD_RANK\" = 0 ] || ulimit -v 1500000\nexec {} \"$@\"\n",
        work.trainer.display()
    );
    fs::write(&script, text).expect("written");
    fs::set_permissions(&script, Permissions::from_mode(0o755)).expect("a program");
    work.trainer = script;
    let large = ["--set", "encoder.width=960", "--set", "encoder.depth=12"];
    let arguments = [&PRETRAIN[..], &["--out", "x"], &large].concat();
    let output = work.command(2, &arguments).output().expect("started");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{stderr}");
    assert_ne!(output.status.code(), Some(124), "it hangs: {stderr}");
    assert!(stderr.contains("memory allocation of "), "{stderr}");
    assert!(!work.path("x").join("metrics.jsonl").exists());
}

#[test]
fn a_full_disk_of_rank_0_ends_all_and_the_run_resumes_to_the_same_bits() {
    let Some(work) = Work::new() else { return };
    work.pretrain(2, "whole", &[]);
    let small = work.path("small");
    fs::create_dir(&small).expect("made");
    let size = |path: &Path| fs::metadata(path).expect("a file").len();
    let last = last_checkpoint(&work.path("whole"));
    let files = fs::read_dir(&last).expect("a checkpoint");
    let checkpoint: u64 = files
        .map(|file| size(&file.expect("an entry").path()))
        .sum();
    let picture = size(&work.path("whole").join("reconstruction.png"));
    let mount = |arguments: &[&str]| {
        let mut mount = Command::new("mount");
        mount.args(arguments).arg(&small).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success())
    };
    // One checkpoint of three fits, with its pictures.
    let size = format!("size={}k", (checkpoint * 3 / 2 + 4 * picture) / 1024);
    if !mount(&["-t", "tmpfs", "-o", &size, "tmpfs"]) {
        println!("a small file system cannot be mounted here: not tested");
        return;
    }
    let arguments = [&PRETRAIN[..], &["--out", "small/run"]].concat();
    let output = work.command(2, &arguments).output().expect("started");
    let more_room = mount(&["-o", "remount,size=20m"]);
    let resumed = [&arguments[..], &["--resume"]].concat();
    let resumed = work.command(2, &resumed).output().expect("started");
    let result = work.result("small/run");
    let unmounted = Command::new("umount").arg(&small).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{stderr}");
    assert_eq!(stderr.matches("rank 0: error: ").count(), 1, "{stderr}");
    assert_eq!(
        stderr.matches("No space left on device").count(),
        1,
        "{stderr}"
    );
    assert!(more_room && resumed.status.success(), "{}", shown(&resumed));
    assert_eq!(result, work.result("whole"));
}
