//! Videos that are not files of their own: tar archives, folders of pictures, GIF and y4m.

use crate::shardtool;
use pipeline::shard::{ClipReader, ShardSet};
use schemas::geometry::FrameSize;
use schemas::report::BuildReport;
use schemas::shard::ClipMeta;
use std::fs;
use std::path::Path;
use std::process::Command;
use tests::{ffmpeg, ffmpeg_frames, parse_report, shown, write_video};

const SIZE: FrameSize = FrameSize {
    width: 96,
    height: 64,
};

const SHORT: [&str; 6] = ["--frames", "8", "--stride", "1", "--payload", "i420"];

fn build(dir: &Path, input: &str, out: &str) -> BuildReport {
    let arguments = ["build", input, "--out", out, "--json"];
    parse_report(&shardtool(dir, &[&arguments, &SHORT[..]].concat()))
}

/// The rows and the I420 frames of all clips.
fn clips(dir: &Path) -> Vec<(ClipMeta, Vec<u8>)> {
    let set = ShardSet::open(dir).expect("shards");
    let mut reader = ClipReader::default();
    let mut clips = Vec::new();
    for shard in set.shards() {
        for (row, meta) in shard.metas().expect("rows").into_iter().enumerate() {
            clips.push((meta, reader.payload(shard, row).expect("a clip").to_vec()));
        }
    }
    clips
}

/// Makes a test picture of this many seconds at this many frames per second.
fn film((seconds, rate): (&str, &str), arguments: &[&str], out: &Path) {
    let source = format!("testsrc2=s=96x64:r={rate}:d={seconds}");
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-y", "-f", "lavfi", "-i", &source])
        .args(arguments)
        .arg(out)
        .output();
    let output = output.expect("ffmpeg runs; scripts/system-packages.sh installs it");
    assert!(output.status.success(), "{}", shown(&output));
}

fn tar(dir: &Path, arguments: &[&str]) {
    let output = Command::new("tar")
        .current_dir(dir)
        .args(arguments)
        .output();
    let output = output.expect("tar runs");
    assert!(output.status.success(), "{}", shown(&output));
}

#[test]
fn members_of_archives_make_the_clips_of_their_files() {
    let dir = tempfile::tempdir().expect("a folder");
    let files_dir = dir.path().join("files/deep");
    let files = &files_dir;
    fs::create_dir_all(files).expect("made");
    for seed in 0..3 {
        write_video(&files.join(format!("{seed:05}.mp4")), seed, 40, 30, SIZE);
        let label = if seed == 0 {
            "{\"label\": \"run\"}"
        } else {
            "{\"label\": null}"
        };
        fs::write(files.join(format!("{seed:05}.json")), label).expect("written");
    }
    fs::create_dir(dir.path().join("tars")).expect("made");
    // As WebDataset names them, with and without "./".
    tar(
        dir.path(),
        &[
            "cf",
            "tars/shard-000.tar",
            "--sort=name",
            "-C",
            "files",
            "./deep",
        ],
    );
    let report = build(dir.path(), "tars", "from-tar");
    assert_eq!(
        (report.videos, report.not_video, report.rejected.len()),
        (3, 3, 0)
    );
    build(dir.path(), "files", "from-files");
    let (tars, files) = (
        clips(&dir.path().join("from-tar")),
        clips(&dir.path().join("from-files")),
    );
    assert_eq!(tars.len(), 15);
    for ((one, pixels), (other, expected)) in tars.iter().zip(&files) {
        assert_eq!(
            one.video,
            other.video.replace("files/", "tars/shard-000.tar/")
        );
        assert_eq!(
            (&one.video_blake3, &one.pts_ns, one.scores),
            (&other.video_blake3, &other.pts_ns, other.scores)
        );
        assert!(pixels == expected, "{}", one.video);
    }
    // The labels beside the videos: of a JSON file, of a cls file, and none.
    fs::write(files_dir.join("00001.cls"), "walk\n").expect("written");
    tar(
        dir.path(),
        &["cf", "labelled.tar", "--sort=name", "-C", "files", "deep"],
    );
    let labelled = shardtool(
        dir.path(),
        &[
            &[
                "build",
                "labelled.tar",
                "--labels",
                "members",
                "--out",
                "labelled",
            ],
            &SHORT[..],
        ]
        .concat(),
    );
    assert!(
        shown(&labelled).contains("1 video without a label"),
        "{}",
        shown(&labelled)
    );
    let classes: Vec<Option<String>> = clips(&dir.path().join("labelled"))
        .into_iter()
        .step_by(5)
        .map(|(meta, _)| meta.class)
        .collect();
    assert_eq!(
        classes,
        [Some("run".to_owned()), Some("walk".to_owned()), None]
    );
    // The build is known when it is repeated, and a member can be listed.
    let again = build(dir.path(), "tars", "from-tar");
    assert_eq!(again.known_videos, 3);
    fs::write(dir.path().join("list.csv"), "path,label\n00001,cat\n").expect("written");
    let listed = shardtool(
        dir.path(),
        &[
            &["build", "tars", "--list", "list.csv", "--out", "one"],
            &SHORT[..],
        ]
        .concat(),
    );
    assert!(listed.status.success(), "{}", shown(&listed));
    let one = clips(&dir.path().join("one"));
    assert!(
        one.iter()
            .all(|(meta, _)| meta.video.ends_with("deep/00001.mp4"))
    );
    assert_eq!(one.len(), 5);
}

#[test]
fn a_truncated_archive_keeps_its_whole_members() {
    let dir = tempfile::tempdir().expect("a folder");
    for seed in 0..3 {
        write_video(&dir.path().join(format!("{seed}.mp4")), seed, 40, 30, SIZE);
    }
    tar(dir.path(), &["cf", "all.tar", "0.mp4", "1.mp4", "2.mp4"]);
    let bytes = fs::read(dir.path().join("all.tar")).expect("read");
    let whole = fs::metadata(dir.path().join("0.mp4"))
        .expect("a file")
        .len() as usize;
    fs::create_dir(dir.path().join("cut")).expect("made");
    fs::write(dir.path().join("cut/cut.tar"), &bytes[..2 * whole]).expect("written");
    let report = build(dir.path(), "cut", "out");
    assert_eq!(report.videos, 1, "{report:?}");
    let [rejected] = report.rejected.as_slice() else {
        panic!("{report:?}");
    };
    assert_eq!(rejected.path, "cut/cut.tar");
    assert!(
        rejected.reason.contains("damaged after 1 files"),
        "{rejected:?}"
    );
}

#[test]
fn folders_of_pictures_are_videos() {
    let dir = tempfile::tempdir().expect("a folder");
    let lossless = dir.path().join("film.mkv");
    film(
        ("2", "30"),
        &["-c:v", "ffv1", "-pix_fmt", "yuv420p"],
        &lossless,
    );
    for (name, ending) in [("png", "png"), ("jpeg", "jpg")] {
        let folder = dir.path().join("frames").join(name);
        fs::create_dir_all(&folder).expect("made");
        // Without leading zeros, so that their order is not that of their names.
        ffmpeg(
            &lossless,
            &["-q:v", "2"],
            &folder.join(format!("frame%d.{ending}")),
        );
    }
    fs::write(dir.path().join("frames/png/notes.txt"), "no picture").expect("written");
    let report = build(dir.path(), "frames", "out");
    assert_eq!((report.videos, report.not_video), (2, 1), "{report:?}");
    let all = clips(&dir.path().join("out"));
    assert_eq!(all.len(), 14);
    for (meta, pixels) in &all {
        let jpeg = meta.video.ends_with("jpeg");
        let pattern = if jpeg {
            "jpeg/frame%d.jpg"
        } else {
            "png/frame%d.png"
        };
        let pattern = dir.path().join("frames").join(pattern);
        let range = if jpeg { "full" } else { "limited" };
        let filter = format!("scale=out_range={range}:out_color_matrix=bt601");
        let first = meta.clip as usize * 8;
        let times: Vec<i64> = (first..first + 8)
            .map(|frame| (frame as f64 * 1e9 / 30.0).round() as i64)
            .collect();
        assert_eq!(meta.pts_ns, times);
        let expected = ffmpeg_frames(&pattern, &["-vf", &filter, "-pix_fmt", "yuv420p"]);
        let expected = &expected[first * SIZE.frame_bytes()..][..pixels.len()];
        let luma = |frames: &[u8]| -> Vec<u8> {
            let frames = frames.chunks_exact(SIZE.frame_bytes());
            frames
                .flat_map(|frame| &frame[..SIZE.luma_bytes()])
                .copied()
                .collect()
        };
        let differences = luma(pixels).into_iter().zip(luma(expected));
        let most = differences.map(|(a, b)| a.abs_diff(b)).max();
        assert!(most <= Some(3), "{}: {most:?}", meta.video);
    }
    // A picture that is gone is a change.
    fs::remove_file(dir.path().join("frames/png/frame7.png")).expect("removed");
    let changed = shardtool(
        dir.path(),
        &[&["build", "frames", "--out", "out"], &SHORT[..]].concat(),
    );
    assert!(
        shown(&changed).contains("different content"),
        "{}",
        shown(&changed)
    );
}

#[test]
fn a_folder_of_two_sequences_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join("mixed");
    fs::create_dir(&folder).expect("made");
    for name in ["left", "right"] {
        let pattern = folder.join(format!("{name}%d.png"));
        film(("0.3", "30"), &[], &pattern);
    }
    let output = shardtool(dir.path(), &["build", "mixed"]);
    assert!(
        shown(&output).contains("several sequences, left#.png and right#.png"),
        "{}",
        shown(&output)
    );
}

#[test]
fn a_damaged_picture_ends_nothing_silently() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join("frames");
    fs::create_dir(&folder).expect("made");
    film(("2", "30"), &["-q:v", "2"], &folder.join("%03d.jpg"));
    fs::write(folder.join("030.jpg"), "no picture at all").expect("written");
    let output = shardtool(
        dir.path(),
        &[&["build", "frames", "--json"], &SHORT[..]].concat(),
    );
    let report: BuildReport = parse_report(&output);
    assert!(!report.rejected.is_empty(), "{report:?}");
    assert!(report.clips >= 3, "{report:?}");
}

#[test]
fn animated_gifs_are_read_as_ffmpeg_reads_them() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::create_dir(dir.path().join("gifs")).expect("made");
    let gif = dir.path().join("gifs/a.gif");
    film(("2", "10"), &[], &gif);
    let report = build(dir.path(), "gifs", "out");
    assert_eq!((report.videos, report.clips), (1, 7), "{report:?}");
    let filter = "fps=30,scale=out_range=limited:out_color_matrix=bt601";
    let expected = ffmpeg_frames(&gif, &["-vf", filter, "-pix_fmt", "yuv420p"]);
    for (number, (meta, pixels)) in clips(&dir.path().join("out")).iter().enumerate() {
        let expected = &expected[number * pixels.len()..][..pixels.len()];
        let frames = pixels.chunks_exact(SIZE.frame_bytes());
        let pairs = frames.zip(expected.chunks_exact(SIZE.frame_bytes()));
        for (frame, expected) in pairs {
            let luma = frame[..SIZE.luma_bytes()].iter().zip(expected);
            let most = luma.map(|(a, b)| a.abs_diff(*b)).max();
            assert!(most <= Some(3), "clip {number}: {most:?}");
        }
        assert!(
            meta.pts_ns.iter().all(|ns| ns % 100_000_000 == 0),
            "{meta:?}"
        );
    }
}
