//! One training on several ranks, by `mpirun`: the same bits as on one, and one end for all.
//!
//! `TRAINER_MPI` names a trainer that was built with the feature `mpi` (`scripts/test-mpi.sh`).
//! Without it these tests do nothing.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tests::{
    TestClip, children, damage_clip, json_lines, shown, signal, write_labelled_shards, write_shards,
};

/// A configuration whose steps have several of everything: 16 clips a batch as 8 micro-batches, two
/// batches a step, two samples of a clip.
const CONFIG: &str = "\
[clip]
frames = 8
size = 32
patch = 8
[encoder]
width = 24
depth = 3
[data]
batch_size = 16
micro_batches = 8
grad_accum = 2
repeat_aug = 2
[schedule]
length = { steps = 6 }
[checkpoints]
every = 2
keep = 10
";

/// The trainer with MPI; none where these tests cannot run.
fn trainer() -> Option<PathBuf> {
    let trainer = env::var_os("TRAINER_MPI").map(PathBuf::from);
    if trainer.is_none() {
        println!("skipped: TRAINER_MPI does not name a trainer with MPI");
    }
    trainer
}

/// Folders of a test.
struct Work {
    trainer: PathBuf,
    dir: tempfile::TempDir,
}

impl Work {
    /// With two data sets `a` and `b`, and the decoder's settings in the configuration.
    fn new() -> Option<Self> {
        let trainer = trainer()?;
        let dir = tempfile::tempdir().expect("a folder");
        let clips = |seed: u64, count| {
            let clips = (seed..seed + count).map(|seed| TestClip::moving(seed, 12, 40, 36));
            clips.collect::<Vec<_>>()
        };
        write_shards(&dir.path().join("a"), &clips(0, 20));
        write_shards(&dir.path().join("b"), &clips(100, 9));
        let config = format!("{CONFIG}[decoder]\nwidth = 24\ndepth = 1\n");
        fs::write(dir.path().join("config.toml"), config).expect("written");
        Some(Self { trainer, dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The trainer's `arguments` on some ranks.
    fn command(&self, ranks: usize, arguments: &[&str]) -> Command {
        self.commands(&[(ranks, arguments)])
    }

    /// The trainer with other arguments on some of the ranks.
    fn commands(&self, parts: &[(usize, &[&str])]) -> Command {
        // A hang is a failure, not a test without an end.
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", "120", "mpirun", "--oversubscribe"]);
        command.args(["--bind-to", "none"]);
        for (at, (ranks, arguments)) in parts.iter().enumerate() {
            if at > 0 {
                command.arg(":");
            }
            command.args(["-n", &ranks.to_string()]).arg(&self.trainer);
            command.args(*arguments);
        }
        command
            .current_dir(self.dir.path())
            .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
            .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
            .stdin(Stdio::null());
        command
    }

    /// Runs a pre-training in the folder `out`.
    fn pretrain(&self, ranks: usize, out: &str, more: &[&str]) -> Output {
        let arguments = [&PRETRAIN[..], &["--out", out], more].concat();
        let output = self.command(ranks, &arguments).output().expect("started");
        assert!(output.status.success(), "{}", shown(&output));
        output
    }

    /// Weights and moments of the last checkpoint.
    fn result_files(&self, out: &str) -> Vec<Vec<u8>> {
        let last = last_checkpoint(&self.path(out));
        let entries = fs::read_dir(last).expect("a checkpoint");
        let mut paths: Vec<PathBuf> = entries
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|name| name == "safetensors"))
            .collect();
        paths.sort();
        assert_eq!(paths.len(), 2, "weights and moments");
        paths
            .iter()
            .map(|path| fs::read(path).expect("read"))
            .collect()
    }

    /// [`Self::result_files`], and losses and norms of the steps.
    fn result(&self, out: &str) -> (Vec<Vec<u8>>, Vec<(f64, f64)>) {
        let metrics: Vec<serde_json::Value> = json_lines(&self.path(out).join("metrics.jsonl"));
        let number = |step: &serde_json::Value, name: &str| step[name].as_f64().expect("a number");
        let steps = metrics.iter();
        let steps = steps.map(|step| (number(step, "loss"), number(step, "grad_norm")));
        (self.result_files(out), steps.collect())
    }
}

/// A pre-training on both data sets.
const PRETRAIN: [&str; 11] = [
    "run",
    "--config",
    "config.toml",
    "--data",
    "a=2",
    "--data",
    "b=1",
    "--threads",
    "1",
    "--loader-threads",
    "1",
];

fn last_checkpoint(run: &Path) -> PathBuf {
    let entries = fs::read_dir(run.join("checkpoints")).expect("checkpoints");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.max().expect("one of them")
}

#[test]
fn a_pre_training_is_the_same_on_1_2_4_and_8_ranks() {
    let Some(work) = Work::new() else { return };
    for dtype in ["f32", "bf16"] {
        let results = [1, 2, 4, 8].map(|ranks| {
            let out = format!("{dtype}-{ranks}");
            work.pretrain(ranks, &out, &["--dtype", dtype]);
            work.result(&out)
        });
        assert_eq!(results[0].1.len(), 6, "a line for each step");
        assert!(
            results[1..].iter().all(|other| *other == results[0]),
            "{dtype}"
        );
    }
    // Three ranks sum in another order.
    let three = [&PRETRAIN[..], &["--out", "three", "--batch-size", "48"]].concat();
    let output = work.command(3, &three).output().expect("started");
    assert!(output.status.success(), "{}", shown(&output));
    let one = [&PRETRAIN[..], &["--out", "one", "--batch-size", "48"]].concat();
    let output = work.command(1, &one).output().expect("started");
    assert!(output.status.success(), "{}", shown(&output));
    let (three, one) = (work.result("three").1, work.result("one").1);
    let differences = three.iter().zip(&one).map(|(three, one)| {
        let relative = |three: f64, one: f64| (three / one - 1.0).abs();
        relative(three.0, one.0).max(relative(three.1, one.1))
    });
    let differences: Vec<f64> = differences.collect();
    assert!(differences[0] < 1e-6, "{differences:?}");
    assert!(
        differences.iter().all(|&difference| difference < 1e-3),
        "{differences:?}"
    );
}

#[test]
fn a_fine_tuning_is_the_same_on_1_2_4_and_8_ranks() {
    let Some(work) = Work::new() else { return };
    let names: Vec<String> = (0..16).map(|number| format!("video{number:02}")).collect();
    let videos: Vec<(&str, &str)> = names
        .iter()
        .enumerate()
        .map(|(at, name)| (name.as_str(), ["dark", "bright"][at % 2]))
        .collect();
    write_labelled_shards(&work.path("labelled"), &["bright", "dark"], &videos);
    work.pretrain(1, "pretrained", &["--steps", "1"]);
    let results = [1, 2, 4, 8].map(|ranks| {
        let out = format!("tuned-{ranks}");
        let mut arguments = vec!["finetune", "--weights", "pretrained"];
        arguments.extend(["--data", "labelled", "--out", &out]);
        let settings = [
            "data.batch_size=16",
            "data.micro_batches=8",
            "recipe.mixup=0.8",
            "recipe.cutmix=1.0",
            "recipe.drop_path=0.2",
            "recipe.dropout=0.3",
            "schedule.length.steps=4",
        ];
        for setting in settings {
            arguments.extend(["--set", setting]);
        }
        arguments.extend(["--threads", "1", "--loader-threads", "1"]);
        let output = work.command(ranks, &arguments).output().expect("started");
        assert!(output.status.success(), "{}", shown(&output));
        work.result(&out)
    });
    assert!(results[1..].iter().all(|other| *other == results[0]));
}

#[test]
fn a_run_goes_on_with_another_number_of_ranks() {
    let Some(work) = Work::new() else { return };
    work.pretrain(2, "whole", &[]);
    for (first, then) in [(2, 4), (2, 1), (1, 8)] {
        let out = format!("{first}-{then}");
        work.pretrain(first, &out, &[]);
        // As if it had been killed after the first checkpoint.
        let run = work.path(&out);
        while last_checkpoint(&run) != run.join("checkpoints").join("step-000002") {
            fs::remove_dir_all(last_checkpoint(&run)).expect("removed");
        }
        work.pretrain(then, &out, &["--resume"]);
        assert_eq!(work.result(&out), work.result("whole"), "{out}");
    }
}

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
        let ranks: Vec<u32> = children(mpirun.id())
            .into_iter()
            .flat_map(children)
            .collect();
        if let Some(&victim) = ranks.get((round * 7 % 4) as usize) {
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
    let arguments = [&PRETRAIN[..], &["--out", "stopped", "--steps", "100000"]].concat();
    let mut mpirun = work.command(2, &arguments);
    let mpirun = mpirun
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let metrics = work.path("stopped").join("metrics.jsonl");
    while fs::metadata(&metrics).map_or(0, |metadata| metadata.len()) == 0 {
        thread::sleep(Duration::from_millis(20));
    }
    let ranks: Vec<u32> = children(mpirun.id())
        .into_iter()
        .flat_map(children)
        .collect();
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
fn clips_that_are_bad_on_one_rank_are_left_out_as_on_one() {
    let Some(work) = Work::new() else { return };
    let shard = work.path("b").join("shard-00000.parquet");
    for row in 0..9 {
        damage_clip(&shard, row);
    }
    let results = [1, 2, 8].map(|ranks| {
        let out = format!("bad-{ranks}");
        work.pretrain(ranks, &out, &["--data", "b=4"]);
        work.result(&out)
    });
    assert!(results[1..].iter().all(|other| *other == results[0]));
}

#[test]
fn a_loss_that_is_not_finite_stops_all_or_is_skipped_by_all() {
    let Some(work) = Work::new() else { return };
    let diverging = ["--lr", "1e30"];
    let stopped = [&PRETRAIN[..], &["--out", "stop"], &diverging].concat();
    let output = work.command(2, &stopped).output().expect("started");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.matches("Nothing was changed").count(), 1, "{stderr}");
    let skipped = |ranks, out: &str| {
        work.pretrain(
            ranks,
            out,
            &[&diverging[..], &["--on-nonfinite", "skip"]].concat(),
        );
        let steps: Vec<serde_json::Value> = json_lines(&work.path(out).join("metrics.jsonl"));
        (work.result_files(out), steps[5]["nonfinite"].clone())
    };
    let one = skipped(1, "skip-1");
    assert!(one.1.as_u64() > Some(0), "{:?}", one.1);
    assert_eq!(skipped(4, "skip-4"), one);
}
