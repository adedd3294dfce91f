//! One training on several ranks, by `mpirun`: the same bits as on one, and one end for all.
//!
//! `TRAINER_MPI` names a trainer that was built with the feature `mpi` (`scripts/test-mpi.sh`).
//! Without it these tests do nothing.

mod faults;
mod inference;
mod scaling;
mod training;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;
use tests::{TestClip, children, json_lines, shown, write_labelled_shards, write_shards};

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

    /// Writes labelled shards `name` of two clips of each of some videos, of two classes.
    fn write_labelled(&self, name: &str, videos: usize) {
        let names: Vec<String> = (0..videos)
            .map(|number| format!("video{number:02}"))
            .collect();
        let videos: Vec<(&str, &str)> = names
            .iter()
            .enumerate()
            .map(|(at, name)| (name.as_str(), ["dark", "bright"][at % 2]))
            .collect();
        write_labelled_shards(&self.path(name), &["bright", "dark"], &videos);
    }

    /// Runs the trainer's `arguments` on some ranks, and returns what it prints.
    fn run(&self, ranks: usize, arguments: &[&str]) -> Output {
        let output = self.command(ranks, arguments).output().expect("started");
        assert!(output.status.success(), "{ranks} ranks: {}", shown(&output));
        output
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
        self.run(ranks, &arguments)
    }

    /// Starts a pre-training in the folder `out`, and waits until its first step is done. With the
    /// numbers of the ranks' processes.
    fn start(&self, ranks: usize, out: &str, more: &[&str]) -> (Child, Vec<u32>) {
        let arguments = [&PRETRAIN[..], &["--out", out], more].concat();
        let mut command = self.command(ranks, &arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("started");
        let metrics = self.path(out).join("metrics.jsonl");
        wait_until(&mut child, || {
            fs::metadata(&metrics).is_ok_and(|metadata| metadata.len() > 0)
        });
        let ranks = ranks_of(&child);
        (child, ranks)
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

/// Waits until `condition` is true while `child` runs.
fn wait_until(child: &mut Child, condition: impl Fn() -> bool) {
    while !condition() {
        assert_eq!(child.try_wait().expect("a child"), None, "it has ended");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Numbers of the processes that a command of [`Work::command`] has started.
fn ranks_of(timeout: &Child) -> Vec<u32> {
    let mpirun = children(timeout.id());
    mpirun.into_iter().flat_map(children).collect()
}

fn last_checkpoint(run: &Path) -> PathBuf {
    let entries = fs::read_dir(run.join("checkpoints")).expect("checkpoints");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.max().expect("one of them")
}
