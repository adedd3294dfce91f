//! Builds from stores and into them, in one piece and in parts.

use pipeline::shard::ShardSet;
use schemas::report::{BuildReport, DeriveReport};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tests::object_server::{Faults, ObjectServer};
use tests::{copy_all, parse_report, shown, write_video};

use schemas::geometry::FrameSize;

/// Videos of the bucket.
const VIDEOS: u64 = 6;

/// Clips of 8 frames that follow each other, in shards of a few clips.
const OPTIONS: [&str; 6] = ["--frames", "8", "--stride", "1", "--payload", "i420"];

/// A bucket `b` with `videos`, and a folder for scratch.
struct Store {
    dir: TempDir,
    server: ObjectServer,
}

impl Store {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let size = FrameSize {
            width: 96,
            height: 64,
        };
        for number in 0..VIDEOS {
            let path = dir
                .path()
                .join(format!("b/videos/{}/{number}.mp4", number % 2));
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            write_video(&path, number, 60 + 10 * number as u32, 30, size);
        }
        fs::write(dir.path().join("b/videos/notes.txt"), "no video").expect("written");
        fs::create_dir(dir.path().join("scratch")).expect("made");
        let server = ObjectServer::start(dir.path(), Faults::default());
        Self { dir, server }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shardtool"));
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .env("AWS_ENDPOINT_URL", self.server.url())
            .env("AWS_ACCESS_KEY_ID", "key")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .env("STORE_RETRY_SECONDS", "3")
            .env("TMPDIR", self.dir.path().join("scratch"))
            .stdin(Stdio::null());
        for name in ["SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX"] {
            command.env_remove(name);
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("started")
    }

    #[track_caller]
    fn succeed(&self, arguments: &[&str]) -> Output {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", shown(&output));
        output
    }

    #[track_caller]
    fn fail(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?} did not fail");
        shown(&output)
    }

    fn build(&self, out: &str) -> BuildReport {
        let mut arguments = vec!["build", "s3://b/videos", "--out", out, "--json"];
        arguments.extend(OPTIONS);
        parse_report(&self.succeed(&arguments))
    }

    fn plan(&self, out: &str) {
        let mut arguments = vec!["plan", "s3://b/videos", "--out", out, "--parts", "3"];
        arguments.extend(OPTIONS);
        self.succeed(&arguments);
    }

    fn files(&self, folder: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let root = self.dir.path().join(folder);
        let mut all = BTreeMap::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(&root).expect("below").to_owned();
                    all.insert(name, fs::read(&path).expect("read"));
                }
            }
        }
        all
    }

    fn is_scratch_empty(&self) -> bool {
        let entries = fs::read_dir(self.dir.path().join("scratch"));
        entries.expect("a folder").next().is_none()
    }
}

#[test]
fn a_build_from_a_store_into_one_is_that_of_a_folder() {
    let store = Store::new();
    let report = store.build("s3://b/train");
    assert_eq!((report.videos, report.not_video), (VIDEOS, 1));
    assert!(store.is_scratch_empty());
    let from_store = store.build("local");
    assert_eq!(report.clips, from_store.clips);
    let remote = store.files("b/train");
    assert_eq!(remote, {
        let mut local = store.files("local");
        local.retain(|name, _| name.extension().is_some_and(|end| end != "lock"));
        local
    });
    let set = ShardSet::open(&store.dir.path().join("b/train")).expect("opened");
    let first = &set.shards()[0].metas().expect("read")[0];
    assert_eq!(first.video, "s3://b/videos/0/0.mp4");
    // Done: nothing is downloaded again.
    let before = store.server.requests();
    let again = store.build("s3://b/train");
    assert_eq!((again.clips, again.known_videos), (report.clips, VIDEOS));
    assert!(store.server.requests().bytes_sent - before.bytes_sent < 100_000);
    // A file that gives no clips changes the lists, and no shard.
    let text = store.dir.path().join("b/videos/text.mp4");
    fs::write(&text, "no video").expect("written");
    assert_eq!(store.build("s3://b/train").rejected.len(), 1);
    let verified = shown(&store.succeed(&["verify", "s3://b/train"]));
    assert!(verified.contains("no problems"), "{verified}");
    assert!(store.is_scratch_empty());
}

#[test]
fn damage_in_a_store_is_found() {
    let store = Store::new();
    store.build("s3://b/train");
    let path = store.dir.path().join("b/train/shard-00000.parquet");
    let mut bytes = fs::read(&path).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).expect("written");
    fs::write(path.with_file_name("shard-00009.parquet"), "left").expect("written");
    let said = store.fail(&["verify", "s3://b/train"]);
    assert!(
        said.contains("shard-00000.parquet") && said.contains("shard-00009"),
        "{said}"
    );
}

#[test]
fn a_list_and_labels_may_be_in_a_store() {
    let store = Store::new();
    let list = "path,label,split\n0/0.mp4,walk,train\n1/1.mp4,run,val\n";
    fs::write(store.dir.path().join("b/list.csv"), list).expect("written");
    let mut arguments = vec!["build", "s3://b/videos", "--list", "s3://b/list.csv"];
    arguments.extend(["--out", "s3://b/listed", "--json"]);
    arguments.extend(OPTIONS);
    let report: BuildReport = parse_report(&store.succeed(&arguments));
    assert_eq!((report.videos, report.classes.len()), (2, 2));
    fs::write(
        store.dir.path().join("b/labels.csv"),
        "0.mp4,walk\n2.mp4,run\n",
    )
    .expect("written");
    let mut arguments = vec!["build", "s3://b/videos/0", "--labels", "s3://b/labels.csv"];
    arguments.extend(["--out", "labelled", "--json"]);
    arguments.extend(OPTIONS);
    let report: BuildReport = parse_report(&store.succeed(&arguments));
    assert_eq!((report.videos, report.unlabelled), (3, 1));
}

#[test]
fn a_build_that_is_killed_is_continued_to_the_same_bytes() {
    let store = Store::new();
    store.build("s3://b/whole");
    let mut arguments = vec!["build", "s3://b/videos", "--out", "s3://b/train"];
    arguments.extend(OPTIONS);
    // At ten moments of the whole build.
    for moment in 1..=10 {
        let mut child = store.command(&arguments);
        let child = child.stderr(Stdio::null()).stdout(Stdio::null());
        let mut child = child.spawn().expect("started");
        std::thread::sleep(Duration::from_millis(100 * moment));
        child.kill().expect("killed");
        child.wait().expect("ended");
    }
    store.build("s3://b/train");
    assert_eq!(store.files("b/train"), store.files("b/whole"));
    assert!(
        store.is_scratch_empty(),
        "the next build removes what a killed one has left"
    );
}

#[test]
fn a_store_that_fails_stops_the_build_and_loses_nothing() {
    let store = Store::new();
    store.build("s3://b/whole");
    // Now and then: requests are repeated.
    store.server.set(Faults {
        error_every: Some((5, 503)),
        short_every: Some(7),
        ..Faults::default()
    });
    store.build("s3://b/train");
    assert_eq!(store.files("b/train"), store.files("b/whole"));
    // For good: a video that cannot be had is not a bad video.
    fs::remove_dir_all(store.dir.path().join("b/train")).expect("removed");
    store.server.set(Faults {
        error_every: Some((1, 503)),
        only: Some("videos/1/3.mp4".to_owned()),
        ..Faults::default()
    });
    let mut arguments = vec!["build", "s3://b/videos", "--out", "s3://b/train"];
    arguments.extend(OPTIONS);
    let said = store.fail(&arguments);
    assert!(
        said.contains("gave up after 3 s") && said.contains("3.mp4"),
        "{said}"
    );
    store.server.set(Faults::default());
    store.build("s3://b/train");
    assert_eq!(store.files("b/train"), store.files("b/whole"));
}

#[test]
fn what_is_wrong_with_a_store_is_said() {
    let store = Store::new();
    let said = store.fail(&["build", "s3://nothing/videos", "--out", "out"]);
    assert!(said.contains("there is no such bucket"), "{said}");
    store.server.set(Faults {
        deny: true,
        ..Faults::default()
    });
    let said = store.fail(&["build", "s3://b/videos", "--out", "out"]);
    assert!(said.contains("access denied"), "{said}");
    let mut command = store.command(&["build", "s3://b/videos", "--out", "out"]);
    for name in [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ENDPOINT_URL",
    ] {
        command.env_remove(name);
    }
    command
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("HOME", "/nowhere");
    let output = command.output().expect("started");
    let said = shown(&output);
    assert!(
        said.contains("no credentials") && said.contains("AWS_ACCESS_KEY_ID"),
        "{said}"
    );
    assert!(!store.dir.path().join("out").exists());
}

#[test]
fn two_builds_into_one_place_do_not_mix() {
    let store = Store::new();
    store.build("s3://b/train");
    let other = [
        "build",
        "s3://b/videos",
        "--out",
        "s3://b/train",
        "--frames",
        "4",
    ];
    let said = store.fail(&other);
    assert!(said.contains("a build with other options"), "{said}");
}

#[test]
fn of_two_builds_at_once_one_takes_the_place() {
    let store = Store::new();
    let build = |frames: &str| {
        let mut command = store.command(&["build", "s3://b/videos", "--out", "s3://b/train"]);
        command.args(["--frames", frames, "--stride", "1", "--payload", "i420"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("started")
    };
    let outputs = [build("8"), build("4")].map(|child| child.wait_with_output().expect("ended"));
    let failed: Vec<_> = outputs
        .iter()
        .filter(|output| !output.status.success())
        .collect();
    assert_eq!(failed.len(), 1, "{:?}", outputs.each_ref().map(shown));
    let said = shown(failed[0]);
    let expected = ["another build has written", "a build with other options"];
    assert!(expected.iter().any(|text| said.contains(text)), "{said}");
    store.succeed(&["verify", "s3://b/train"]);
}

#[test]
fn parts_make_the_data_set_of_one_machine() {
    let store = Store::new();
    for out in ["s3://b/parts", "parts"] {
        store.plan(out);
        let said = store.fail(&["merge", "--plan", out]);
        for part in 0..3 {
            assert!(
                said.contains(&format!("parts/part-0000{part} is missing")),
                "{said}"
            );
            let command = format!("shardtool build --plan {out} --part {part}/3");
            assert!(said.contains(&command), "{said}");
        }
        // In another order, one of them twice, by the variables of schedulers and by hand.
        let slurm = |id: &str| {
            let mut command = store.command(&["build", "--plan", out]);
            command
                .env("SLURM_ARRAY_TASK_ID", id)
                .env("SLURM_ARRAY_TASK_MIN", "0")
                .env("SLURM_ARRAY_TASK_MAX", "2")
                .env("SLURM_ARRAY_TASK_COUNT", "3");
            command
        };
        assert!(slurm("2").status().expect("started").success());
        let mut twice =
            [slurm("1"), slurm("1")].map(|mut command| command.spawn().expect("started"));
        for child in &mut twice {
            assert!(
                child.wait().expect("ended").success(),
                "{out}: the same part twice at once"
            );
        }
        let said = store.fail(&["merge", "--plan", out]);
        assert!(said.contains("1 part of 3 cannot be joined"), "{said}");
        store.succeed(&["build", "--plan", out, "--part", "0/3"]);
        // Twice at once: one of them may be refused, and the result is whole.
        let merges = [(), ()].map(|()| {
            let mut merge = store.command(&["merge", "--plan", out]);
            merge.stdout(Stdio::piped()).stderr(Stdio::piped());
            merge.spawn().expect("started")
        });
        let outputs = merges.map(|merge| merge.wait_with_output().expect("ended"));
        for output in outputs.iter().filter(|output| !output.status.success()) {
            assert!(
                shown(output).contains("another merge is at work"),
                "{}",
                shown(output)
            );
        }
        assert!(outputs.iter().any(|output| output.status.success()));
        store.succeed(&["verify", out]);
        let report: DeriveReport =
            parse_report(&store.succeed(&["merge", "--plan", out, "--json"]));
        assert_eq!(report.videos, VIDEOS);
    }
    // One machine, all parts in turn.
    store.plan("one");
    store.succeed(&["build", "--plan", "one"]);
    store.succeed(&["merge", "--plan", "one"]);
    assert_eq!(store.files("one"), store.files("parts"));
    assert_eq!(store.files("one"), store.files("b/parts"));
    for place in ["one", "s3://b/parts"] {
        let verified = shown(&store.succeed(&["verify", place]));
        assert!(verified.contains("no problems"), "{verified}");
    }
    // The clips are those of a build without a plan, in the same order.
    store.build("whole");
    let clips = |name: &str| {
        let set = ShardSet::open(&store.dir.path().join(name)).expect("opened");
        let shards = set.shards().iter();
        let metas = shards.flat_map(|shard| shard.metas().expect("read"));
        metas.collect::<Vec<_>>()
    };
    assert_eq!(clips("one"), clips("whole"));
    // It can be moved as a whole.
    copy_all(
        &store.dir.path().join("one"),
        &store.dir.path().join("moved"),
    );
    store.succeed(&["verify", "moved"]);
}

#[test]
fn parts_of_another_plan_are_named() {
    let store = Store::new();
    store.plan("out");
    store.succeed(&["build", "--plan", "out"]);
    let again = ["plan", "s3://b/videos", "--out", "out", "--parts", "2"];
    let said = store.fail(&again);
    assert!(said.contains("is another plan"), "{said}");
    store.succeed(&[&again[..], &["--force"]].concat());
    let said = store.fail(&["merge", "--plan", "out"]);
    assert!(
        said.contains("was built by another plan") && said.contains("--force"),
        "{said}"
    );
    let said = store.fail(&["build", "--plan", "out", "--part", "0/2"]);
    assert!(
        said.contains("other options") && said.contains("another plan"),
        "{said}"
    );
    store.succeed(&["build", "--plan", "out", "--force"]);
    store.succeed(&["merge", "--plan", "out"]);
    let said = store.fail(&["build", "--plan", "nothing"]);
    assert!(said.contains("cannot read the plan"), "{said}");
    let said = store.fail(&["build", "--plan", "out", "--frames", "4"]);
    assert!(said.contains("cannot be used with"), "{said}");
}

#[test]
fn scratch_space_is_bounded() {
    let store = Store::new();
    let mut arguments = vec![
        "build",
        "s3://b/videos",
        "--out",
        "out",
        "--scratch-size",
        "1B",
    ];
    arguments.extend(OPTIONS);
    // Each video is larger: one at a time.
    store.succeed(&arguments);
    let set = ShardSet::open(&store.dir.path().join("out")).expect("opened");
    assert_eq!(set.manifest().videos, VIDEOS);
    let mut arguments = vec!["build", "s3://b/videos", "--out", "other"];
    arguments.extend(["--scratch", "/proc/nothing"]);
    arguments.extend(OPTIONS);
    let said = store.fail(&arguments);
    assert!(said.contains("/proc/nothing"), "{said}");
}

#[test]
fn files_in_a_store_that_are_no_videos_are_rejected() {
    let store = Store::new();
    let videos = store.dir.path().join("b/videos");
    fs::write(videos.join("text.mp4"), "no video at all").expect("written");
    fs::write(videos.join("empty.mkv"), "").expect("written");
    fs::write(videos.join("shard.tar"), [0; 10240]).expect("written");
    let report = store.build("out");
    let rejected: Vec<&str> = report
        .rejected
        .iter()
        .map(|rejected| Path::new(&rejected.path).file_name())
        .map(|name| name.and_then(|name| name.to_str()).expect("a name"))
        .collect();
    assert_eq!(report.videos, VIDEOS);
    assert_eq!(rejected.len(), 3, "{:?}", report.rejected);
}
