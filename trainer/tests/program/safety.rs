//! Runs that are killed, stopped, or meet damage and full disks: what they leave, and how they go
//! on.

use crate::{command, messages, trainer, with_shards};
use schemas::geometry::FrameSize;
use schemas::report::{NonfiniteStep, RunReport, StepMetrics};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tests::{children, json_lines, shown, signal, small_config};

/// Runs `trainer run` in the folder `dir`.
fn train(dir: &Path, arguments: &[&str]) -> Output {
    trainer(dir, &[&["run"], arguments].concat())
}

fn report(dir: &Path, arguments: &[&str]) -> RunReport {
    tests::parse_report(&train(dir, &[arguments, &["--json"]].concat()))
}

/// Starts a run whose output is kept.
fn spawn(dir: &Path, arguments: &[&str]) -> Child {
    command(dir, &[&["run"], arguments].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run")
}

/// Waits until something is so, or the run has ended.
fn wait_until(child: &mut Child, mut is_so: impl FnMut() -> bool) {
    while !is_so() && child.try_wait().expect("a state").is_none() {
        std::thread::yield_now();
    }
}

/// Whole lines of the metrics.
fn steps(run: &Path) -> usize {
    fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |text| text.matches('\n').count())
}

/// Everything in the metrics that does not depend on the clock, to the bit.
fn computed(run: &Path) -> Vec<(u64, [u64; 4])> {
    let steps: Vec<StepMetrics> = json_lines(&run.join("metrics.jsonl"));
    steps
        .into_iter()
        .map(|step| {
            (
                step.step,
                [step.epoch, step.loss, step.lr, step.grad_norm].map(f64::to_bits),
            )
        })
        .collect()
}

/// The names in a run's folder of checkpoints.
fn checkpoints(run: &Path) -> Vec<String> {
    let entries = fs::read_dir(run.join("checkpoints"))
        .into_iter()
        .flatten()
        .flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn assert_same_run(a: &Path, b: &Path, step: &str) {
    assert_eq!(computed(a), computed(b));
    for file in ["model.safetensors", "optimizer.safetensors", "state.json"] {
        let read = |run: &Path| {
            fs::read(run.join("checkpoints").join(step).join(file)).expect("a checkpoint")
        };
        assert!(read(a) == read(b), "{file} differs");
    }
}

#[test]
fn a_run_that_is_killed_at_any_moment_ends_as_one_that_was_not() {
    let dir = with_shards(7, 3);
    let run = [
        "--config",
        "small.toml",
        "--steps",
        "60",
        "--repeat",
        "2",
        "--accumulate",
        "2",
    ];
    report(dir.path(), &[run.as_slice(), &["--out", "whole"]].concat());
    let killed = dir.path().join("killed");
    let mut resume = vec!["--out", "killed"];
    // Right away; after some steps, in or between which a checkpoint may be on its way; and while
    // one is written.
    for moment in [
        Some(0),
        Some(1),
        Some(4),
        None,
        Some(14),
        Some(21),
        None,
        Some(33),
        Some(40),
        Some(52),
    ] {
        let mut child = spawn(dir.path(), &[run.as_slice(), &resume].concat());
        let is_writing = || {
            checkpoints(&killed)
                .iter()
                .any(|name| name.ends_with(".tmp"))
        };
        wait_until(&mut child, || {
            killed.join("config.toml").exists()
                && moment.map_or_else(is_writing, |count| steps(&killed) >= count)
        });
        child.kill().expect("killed");
        assert!(
            !child.wait().expect("ended").success(),
            "it was killed in the middle: {moment:?}"
        );
        resume = vec!["--out", "killed", "--resume"];
    }
    // And once by Ctrl-C.
    let done = steps(&killed);
    let mut child = spawn(dir.path(), &[run.as_slice(), &resume].concat());
    wait_until(&mut child, || steps(&killed) > done);
    signal(child.id(), "INT");
    assert_eq!(child.wait().expect("ended").code(), Some(130));
    let ended = report(dir.path(), &[run.as_slice(), &resume].concat());
    assert!(
        ended.finished && ended.steps == 60 && ended.resumed_from > 40,
        "{ended:?}"
    );
    assert_same_run(&dir.path().join("whole"), &killed, "step-000060");
    assert!(
        checkpoints(&killed)
            .iter()
            .all(|name| name.starts_with("step-") && !name.contains('.')),
        "{:?}",
        checkpoints(&killed)
    );
    // Nothing is left to do, and that is no error.
    let again = report(dir.path(), &["--out", "killed", "--resume"]);
    assert_eq!(
        (again.resumed_from, again.steps, again.clips_per_second),
        (60, 60, 0.0)
    );
}

#[test]
fn ctrl_c_finishes_the_step_and_saves() {
    let dir = with_shards(7, 3);
    for (number, (name, at)) in [("INT", 5), ("TERM", 2), ("INT", 0)]
        .into_iter()
        .enumerate()
    {
        let out = format!("run{number}");
        let run = dir.path().join(&out);
        let mut child = spawn(
            dir.path(),
            &[
                "--config",
                "small.toml",
                "--steps",
                "1000000",
                "--out",
                &out,
                "--json",
            ],
        );
        wait_until(&mut child, || {
            run.join("config.toml").exists() && steps(&run) >= at
        });
        signal(child.id(), name);
        let output = child.wait_with_output().expect("ended");
        assert_eq!(output.status.code(), Some(130), "{}", shown(&output));
        if at == 0 && output.stdout.is_empty() {
            // It had not begun to train.
            continue;
        }
        let report: RunReport = serde_json::from_slice(&output.stdout).expect("the report's JSON");
        let done = steps(&run);
        assert!(
            !report.finished && report.steps == done as u64 && report.picture.is_none(),
            "{report:?}"
        );
        assert_eq!(has_report(&run), done > 0);
        if done > 0 {
            assert_eq!(
                report.checkpoint.as_deref(),
                Some(format!("{out}/checkpoints/step-{done:06}").as_str())
            );
        }
        let expected = format!(
            "stopped after step {done} of 1000000; to resume: trainer run --data ./shards --out \
             {out} --resume"
        );
        assert!(messages(&output).contains(&expected), "{}", shown(&output));
    }
}

/// Whether there are a whole report and curves.
fn has_report(run: &Path) -> bool {
    let page = fs::read_to_string(run.join("report.html")).unwrap_or_default();
    page.ends_with("</html>\n") && fs::metadata(run.join("curves.png")).is_ok()
}

#[test]
fn a_second_ctrl_c_ends_at_once() {
    let dir = with_shards(7, 3);
    // A step that does not end.
    let mut child = spawn(
        dir.path(),
        &[
            "--config",
            "small.toml",
            "--accumulate",
            "100000000",
            "--out",
            "a",
        ],
    );
    let run = dir.path().join("a");
    wait_until(&mut child, || run.join("metrics.jsonl").exists());
    while child.try_wait().expect("a state").is_none() {
        signal(child.id(), "INT");
    }
    assert_eq!(child.wait().expect("ended").code(), Some(130));
}

#[test]
fn ctrl_c_ends_a_run_that_waits_for_data() {
    let dir = with_shards(7, 3);
    fs::create_dir(dir.path().join("videos")).expect("a folder");
    tests::write_video(
        &dir.path().join("videos/a.mp4"),
        1,
        120,
        30,
        FrameSize {
            width: 48,
            height: 40,
        },
    );
    // A step that does not end, so that it is waited for data whatever is ready.
    let endless = [
        "--config",
        "small.toml",
        "--data",
        "videos",
        "--accumulate",
        "100000000",
        "--out",
        "a",
    ];
    let mut child = spawn(dir.path(), &endless);
    let decoders = |id: u32| {
        // A process that is stopped before it has become a decoder would hold up the thread that
        // starts it.
        let is_decoder = |id: &u32| {
            fs::read_to_string(format!("/proc/{id}/cmdline"))
                .is_ok_and(|line| line.contains("decode-worker"))
        };
        children(id)
            .into_iter()
            .filter(is_decoder)
            .collect::<Vec<u32>>()
    };
    let id = child.id();
    wait_until(&mut child, || {
        dir.path().join("a/metrics.jsonl").exists() && !decoders(id).is_empty()
    });
    decoders(id)
        .into_iter()
        .for_each(|decoder| assert!(signal(decoder, "STOP")));
    signal(id, "INT");
    let output = child.wait_with_output().expect("ended");
    assert_eq!(output.status.code(), Some(130), "{}", shown(&output));
    // Had it waited until the decoders were given up, clips would be missing.
    assert!(
        messages(&output).contains(
            "stopped after step 0 of 600; to resume: trainer run --data videos --out a --resume"
        ),
        "{}",
        shown(&output)
    );
    assert!(!messages(&output).contains("skipped"), "{}", shown(&output));
}

/// One way to spoil a checkpoint of six steps, and the message about it.
type Damage = (&'static str, fn(&Path), &'static str);

const DAMAGES: &[Damage] = &[
    (
        "a flipped bit in the weights",
        |dir| edit(&dir.join("model.safetensors"), |bytes| flip(bytes)),
        "model.safetensors is damaged: its hash is another",
    ),
    (
        "a flipped bit in the moments",
        |dir| edit(&dir.join("optimizer.safetensors"), |bytes| flip(bytes)),
        "optimizer.safetensors is damaged: its hash",
    ),
    (
        "a file cut short",
        |dir| {
            edit(&dir.join("optimizer.safetensors"), |bytes| {
                bytes.truncate(900)
            })
        },
        "is damaged: it has 900 bytes, not",
    ),
    (
        "a missing file",
        |dir| fs::remove_file(dir.join("model.safetensors")).expect("removed"),
        "model.safetensors is missing",
    ),
    (
        "no state",
        |dir| fs::remove_file(dir.join("state.json")).expect("removed"),
        "state.json is missing",
    ),
    (
        "half a state",
        |dir| edit(&dir.join("state.json"), |bytes| bytes.truncate(40)),
        "state.json is damaged: EOF while parsing",
    ),
    (
        "another digit in the state",
        |dir| edit(&dir.join("state.json"), other_step),
        "state.json is damaged: its hash is another",
    ),
    (
        "a checkpoint of another model",
        of_another_model,
        "it was made with another configuration: encoder.width: 36, not 24",
    ),
];

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("the file");
    change(&mut bytes);
    fs::write(path, bytes).expect("written");
}

fn flip(bytes: &mut [u8]) {
    let last = bytes.len() - 3;
    bytes[last] ^= 4;
}

fn other_step(bytes: &mut Vec<u8>) {
    let text = String::from_utf8(bytes.clone()).expect("JSON");
    *bytes = text.replacen("\"step\": 6", "\"step\": 5", 1).into_bytes();
}

fn of_another_model(checkpoint: &Path) {
    let work = checkpoint.ancestors().nth(3).expect("run and work folder");
    fs::write(
        work.join("other.toml"),
        small_config(1, 3).replacen("24", "36", 1),
    )
    .expect("written");
    report(
        work,
        &["--config", "other.toml", "--steps", "6", "--out", "other"],
    );
    fs::remove_dir_all(checkpoint).expect("removed");
    fs::rename(work.join("other/checkpoints/step-000006"), checkpoint).expect("moved");
    fs::remove_dir_all(work.join("other")).expect("removed");
}

/// The files in a folder, by name.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(dir)
        .expect("listed")
        .map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = entries
        .map(|path| {
            (
                path.file_name().expect("a name").into(),
                fs::read(path).expect("read"),
            )
        })
        .collect();
    files.sort();
    files
}

#[test]
fn a_damaged_checkpoint_is_named_kept_and_skipped() {
    let dir = with_shards(7, 3);
    report(
        dir.path(),
        &["--config", "small.toml", "--steps", "6", "--out", "whole"],
    );
    for (what, damage, expected) in DAMAGES {
        report(
            dir.path(),
            &["--config", "small.toml", "--steps", "6", "--out", "a"],
        );
        let run = dir.path().join("a");
        damage(&run.join("checkpoints/step-000006"));
        let spoiled = files(&run.join("checkpoints/step-000006"));
        let output = train(dir.path(), &["--out", "a", "--resume", "--json"]);
        assert!(output.status.success(), "{what}: {}", shown(&output));
        let warning = "warning: skipping an invalid checkpoint: a/checkpoints/step-000006: ";
        assert!(
            messages(&output).contains(expected),
            "{what}: {}",
            shown(&output)
        );
        assert!(
            messages(&output).contains(warning),
            "{what}: {}",
            shown(&output)
        );
        let report: RunReport = serde_json::from_slice(&output.stdout).expect("the report's JSON");
        assert_eq!((report.resumed_from, report.steps), (3, 6), "{what}");
        assert_same_run(&dir.path().join("whole"), &run, "step-000006");
        assert_eq!(
            checkpoints(&run),
            ["step-000003", "step-000006", "step-000006.damaged"],
            "{what}"
        );
        assert!(
            files(&run.join("checkpoints/step-000006.damaged")) == spoiled,
            "{what}: it is as it was found"
        );
        fs::remove_dir_all(run).expect("removed");
    }
}

#[test]
fn without_a_valid_checkpoint_all_are_named_and_nothing_is_changed() {
    let dir = with_shards(7, 3);
    report(
        dir.path(),
        &["--config", "small.toml", "--steps", "6", "--out", "a"],
    );
    let run = dir.path().join("a");
    edit(
        &run.join("checkpoints/step-000003/model.safetensors"),
        |bytes| flip(bytes),
    );
    fs::remove_file(run.join("checkpoints/step-000006/state.json")).expect("removed");
    let metrics = fs::read(run.join("metrics.jsonl")).expect("metrics");
    let output = train(dir.path(), &["--out", "a", "--resume"]);
    assert_eq!(output.status.code(), Some(1));
    let said = messages(&output);
    for expected in [
        "no checkpoint in a can be used, and nothing was changed",
        "a/checkpoints/step-000006: state.json is missing",
        "a/checkpoints/step-000003: model.safetensors is damaged: its hash is another",
    ] {
        assert!(said.contains(expected), "{said}");
    }
    assert_eq!(
        fs::read(run.join("metrics.jsonl")).expect("metrics"),
        metrics
    );
}

#[test]
fn checkpoint_and_safety_settings_may_change_in_a_run() {
    let dir = with_shards(7, 3);
    report(
        dir.path(),
        &["--config", "small.toml", "--steps", "6", "--out", "whole"],
    );
    let mut child = spawn(
        dir.path(),
        &["--config", "small.toml", "--steps", "6", "--out", "a"],
    );
    wait_until(&mut child, || {
        !checkpoints(&dir.path().join("a")).is_empty()
    });
    child.kill().expect("killed");
    child.wait().expect("ended");
    fs::write(
        dir.path().join("often.toml"),
        small_config(1, 1) + "keep = 9\n",
    )
    .expect("written");
    let resumed = [
        "--config",
        "often.toml",
        "--steps",
        "6",
        "--out",
        "a",
        "--resume",
        "--on-nonfinite",
        "skip",
    ];
    assert_eq!(report(dir.path(), &resumed).steps, 6);
    assert_eq!(
        computed(&dir.path().join("whole")),
        computed(&dir.path().join("a"))
    );
}

#[test]
fn two_runs_in_one_folder_are_refused() {
    let dir = with_shards(7, 3);
    report(
        dir.path(),
        &["--config", "small.toml", "--steps", "3", "--out", "a"],
    );
    let lock = File::open(dir.path().join("a")).expect("the folder");
    lock.lock().expect("locked");
    let output = train(dir.path(), &["--out", "a", "--resume"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        messages(&output)
            .contains("another run is at work in a; wait for it, or give another --out"),
        "{}",
        shown(&output)
    );
    assert!(
        !messages(&output).contains("to resume"),
        "{}",
        shown(&output)
    );
    drop(lock);
    report(dir.path(), &["--out", "a", "--resume"]);
}

#[test]
fn steps_that_are_not_finite_are_recorded_and_can_be_skipped() {
    let dir = with_shards(7, 3);
    // Such a rate makes the weights overflow right after the first steps, for good.
    let config = small_config(1, 3)
        + "[optimizer]\nbase_lr = 1e38\nclip_norm = 1e300\n[schedule]\nwarmup = \
           0.0\n[safety]\nmax_nonfinite_in_a_row = 4\n";
    fs::write(dir.path().join("small.toml"), config).expect("written");
    let output = train(
        dir.path(),
        &["--config", "small.toml", "--steps", "50", "--out", "a"],
    );
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    let lines = || {
        let text = fs::read_to_string(dir.path().join("a/nonfinite.jsonl")).expect("written down");
        text.lines()
            .map(|line| serde_json::from_str::<NonfiniteStep>(line).expect("a whole line"))
            .collect::<Vec<_>>()
    };
    let [line] = lines().try_into().expect("one line");
    assert!(
        messages(&output).contains(&format!("error: step {}: loss ", line.step)),
        "{}",
        shown(&output)
    );
    assert!(
        messages(&output).contains("a/nonfinite.jsonl")
            && messages(&output).contains("--resume --on-nonfinite skip"),
        "{}",
        shown(&output)
    );
    assert!(
        !line.skipped
            && line.config
                == fs::read_to_string(dir.path().join("a/config.toml")).expect("the configuration")
    );
    assert!(has_report(&dir.path().join("a")), "on the steps before it");
    let sample = &line.batches[0].samples[0];
    assert_eq!(
        sample.video.as_deref(),
        Some(format!("video-{}.mp4", sample.clip).as_str())
    );
    assert_eq!(
        (sample.shard.as_deref(), sample.row),
        (Some("./shards/shard-00000.parquet"), Some(sample.clip))
    );

    // Skipped, they count, until there are too many.
    let output = train(
        dir.path(),
        &["--out", "a", "--resume", "--on-nonfinite", "skip"],
    );
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(
        messages(&output)
            .contains("not finite in more than 4 steps in a row (safety.max_nonfinite_in_a_row)"),
        "{}",
        shown(&output)
    );
    assert_eq!(
        messages(&output)
            .matches("gradient norm NaN; its clips are in a/nonfinite.jsonl")
            .count(),
        4,
        "{}",
        shown(&output)
    );
    let lines = lines();
    assert_eq!(lines.len(), 6);
    assert_eq!(
        lines.iter().map(|line| line.skipped).collect::<Vec<_>>(),
        [false, true, true, true, true, false]
    );
    assert!(
        lines[1..]
            .windows(2)
            .all(|pair| pair[1].step == pair[0].step + 1),
        "one after the other"
    );
    assert!(has_report(&dir.path().join("a")));
    let metrics = fs::read_to_string(dir.path().join("a/metrics.jsonl")).expect("metrics");
    assert_eq!(
        metrics.matches("\"loss\":null").count(),
        4,
        "steps without a loss, and the report is drawn all the same"
    );
}

#[test]
fn a_full_disk_leaves_the_checkpoints_before_it() {
    let dir = with_shards(7, 3);
    report(
        dir.path(),
        &["--config", "small.toml", "--steps", "30", "--out", "whole"],
    );
    let checkpoint: usize = files(&dir.path().join("whole/checkpoints/step-000030"))
        .iter()
        .map(|(_, bytes)| bytes.len())
        .sum();
    let small = dir.path().join("small");
    fs::create_dir(&small).expect("made");
    let mount = |arguments: &[&str]| {
        let mut command = Command::new("mount");
        command
            .args(arguments)
            .arg(&small)
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    let picture = fs::read(dir.path().join("whole/reconstruction.png"))
        .expect("a picture")
        .len();
    assert!(2 * picture < checkpoint, "{picture} and {checkpoint}");
    // Two checkpoints and a half, and what else there is by then, mostly three pictures for
    // TensorBoard and two while one replaces the other: the third checkpoint does not fit.
    if !mount(&[
        "-t",
        "tmpfs",
        "-o",
        &format!("size={}k", (checkpoint * 5 / 2 + 5 * picture) / 1024),
        "tmpfs",
    ]) {
        eprintln!("a small file system cannot be mounted here: not tested");
        return;
    }
    let output = train(
        dir.path(),
        &[
            "--config",
            "small.toml",
            "--steps",
            "30",
            "--out",
            "small/a",
        ],
    );
    let left = checkpoints(&small.join("a"));
    let more_room = mount(&["-o", "remount,size=20m"]);
    let resumed = train(dir.path(), &["--out", "small/a", "--resume", "--json"]);
    let same = computed(&small.join("a")) == computed(&dir.path().join("whole"));
    assert!(
        Command::new("umount")
            .arg(&small)
            .status()
            .expect("umount runs")
            .success()
    );
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    let expected = "cannot save small/a/checkpoints/step-000009: No space left on device (os error \
                    28); the checkpoints before it are as they were\n";
    assert!(messages(&output).contains(expected), "{}", shown(&output));
    assert!(
        messages(&output).contains(
            "once the cause is fixed, resume from the last checkpoint: trainer run \
                       --data ./shards --out small/a --resume"
        ),
        "{}",
        shown(&output)
    );
    assert_eq!(left, ["step-000003", "step-000006"]);
    let report: RunReport = serde_json::from_slice(&resumed.stdout).expect("the report's JSON");
    assert!(more_room && same && (report.resumed_from, report.steps) == (6, 30));
}

#[test]
fn a_folder_or_data_that_disappears_is_named() {
    let dir = with_shards(7, 3);
    let mut child = spawn(
        dir.path(),
        &["--config", "small.toml", "--steps", "1000000", "--out", "a"],
    );
    wait_until(&mut child, || {
        checkpoints(&dir.path().join("a")).contains(&"step-000003".to_owned())
    });
    fs::rename(dir.path().join("a"), dir.path().join("b")).expect("moved");
    let output = child.wait_with_output().expect("ended");
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(
        messages(&output).contains("the run's folder a is gone, or another is in its place"),
        "{}",
        shown(&output)
    );
    assert!(!dir.path().join("a").exists(), "it is not made again");

    let done = steps(&dir.path().join("b"));
    let mut child = spawn(dir.path(), &["--out", "b", "--resume"]);
    wait_until(&mut child, || steps(&dir.path().join("b")) > done + 3);
    let shard = dir.path().join("shards/shard-00000.parquet");
    File::options()
        .write(true)
        .open(&shard)
        .expect("the shard")
        .set_len(100)
        .expect("cut short");
    let output = child.wait_with_output().expect("ended");
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(
        messages(&output).contains("shard-00000.parquet"),
        "{}",
        shown(&output)
    );
    assert!(
        messages(&output).contains(
            "once the cause is fixed, resume from the last checkpoint: trainer run \
                       --data ./shards --out b --resume"
        ),
        "{}",
        shown(&output)
    );
    assert!(!checkpoints(&dir.path().join("b")).is_empty());
}

#[test]
fn a_read_only_folder_is_named() {
    let dir = with_shards(7, 3);
    if Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout == b"0\n")
    {
        eprintln!("permissions mean nothing to root: not tested");
        return;
    }
    report(
        dir.path(),
        &["--config", "small.toml", "--steps", "3", "--out", "a"],
    );
    let run = dir.path().join("a");
    fs::remove_dir_all(run.join("checkpoints")).expect("removed");
    fs::set_permissions(&run, fs::Permissions::from_mode(0o500)).expect("set");
    let output = train(dir.path(), &["--out", "a", "--resume"]);
    fs::set_permissions(&run, fs::Permissions::from_mode(0o700)).expect("set");
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(
        messages(&output).contains("cannot write a/metrics.jsonl: Permission denied"),
        "{}",
        shown(&output)
    );
}
