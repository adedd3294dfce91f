//! Scenes and scores.

use crate::shardtool;
use pipeline::shard::ShardSet;
use schemas::manifest::VideoRecord;
use schemas::report::BuildReport;
use schemas::shard::ClipMeta;
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;
use tests::{json_lines, parse_report, shown};

/// Makes a video with ffmpeg's filters.
fn film(filters: &str, out: &Path) {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-y", "-filter_complex", filters])
        .args(["-map", "[v]", "-pix_fmt", "yuv420p", "-r", "30"])
        .arg(out)
        .output();
    let output = output.expect("ffmpeg runs; scripts/system-packages.sh installs it");
    assert!(output.status.success(), "{}", shown(&output));
}

/// A folder with a film of four scenes, which begin at 0, 1.5, 2.9 and 6.0 s.
fn with_film() -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    fs::create_dir(dir.path().join("videos")).expect("made");
    film(
        "testsrc2=s=160x120:r=30:d=1.5[a];mandelbrot=s=160x120:r=30:start_scale=1,\
         trim=duration=1.4[b];testsrc=s=160x120:r=30:d=3.1,negate[c];\
         smptebars=s=160x120:r=30:d=2[d];[a][b][c][d]concat=n=4[v]",
        &dir.path().join("videos/film.mp4"),
    );
    dir
}

fn build(dir: &Path, arguments: &[&str]) -> BuildReport {
    let fixed = [
        "build", "videos", "--force", "--json", "--frames", "8", "--stride", "2",
    ];
    parse_report(&shardtool(dir, &[&fixed[..], arguments].concat()))
}

fn clips(dir: &Path) -> Vec<ClipMeta> {
    let set = ShardSet::open(&dir.join("shards")).expect("shards");
    let shards = set.shards().iter();
    shards
        .flat_map(|shard| shard.metas().expect("rows"))
        .collect()
}

#[test]
fn no_clip_straddles_a_cut() {
    const CUTS: [f64; 3] = [1.5, 2.9, 6.0];
    let dir = with_film();
    build(dir.path(), &[]);
    let straddling = |clip: &ClipMeta| {
        let (first, last) = (clip.pts_ns[0], clip.pts_ns[7]);
        let (first, last) = (first as f64 / 1e9, last as f64 / 1e9);
        CUTS.iter()
            .any(|cut| first < cut - 0.01 && last > cut - 0.01)
    };
    let plain = clips(dir.path());
    assert_eq!(plain.iter().filter(|clip| straddling(clip)).count(), 3);
    for clip in &plain {
        assert_eq!(clip.scene, None);
        let cut = clip.scores.expect("scores").cut;
        assert_eq!(
            cut > 27.0,
            straddling(clip),
            "{cut} from {} ns",
            clip.pts_ns[0]
        );
    }
    for arguments in [
        &["--scenes"][..],
        &["--scenes=content"],
        &["--scenes=adaptive", "--clips-per-video", "9"],
        &["--scenes", "--sample", "frames"],
        &["--scenes", "--every", "0.25"],
    ] {
        build(dir.path(), arguments);
        let clips = clips(dir.path());
        assert!(clips.len() >= 9, "{arguments:?}: {}", clips.len());
        for clip in &clips {
            assert!(!straddling(clip), "{arguments:?}: {:?}", clip.pts_ns);
            let scene = CUTS
                .iter()
                .filter(|&&cut| clip.pts_ns[0] as f64 / 1e9 > cut - 0.01)
                .count();
            assert_eq!(clip.scene, Some(scene as u32), "{arguments:?}");
        }
        // Each scene has clips, and the first one begins with it.
        for (scene, start) in (0..).zip([0.0, 1.5, 2.9, 6.0]) {
            let first = clips
                .iter()
                .find(|clip| clip.scene == Some(scene))
                .expect("a clip");
            let begins = (first.pts_ns[0] as f64 / 1e9 - start).abs() < 0.01;
            assert!(
                begins || arguments.contains(&"--clips-per-video"),
                "{arguments:?} {scene}"
            );
        }
        let records: Vec<VideoRecord> = json_lines(&dir.path().join("shards/videos.jsonl"));
        let cuts = records[0].cuts.as_ref().expect("cuts");
        assert!(
            cuts.len() == 3
                && cuts
                    .iter()
                    .zip(CUTS)
                    .all(|(found, cut)| (found - cut).abs() < 0.01),
            "{arguments:?}: {cuts:?}"
        );
    }
}

#[test]
fn scores_tell_what_a_clip_is_like() {
    let dir = tempfile::tempdir().expect("a folder");
    let videos = dir.path().join("videos");
    fs::create_dir(&videos).expect("made");
    let source = "mandelbrot=s=320x240:r=30:start_scale=1,trim=duration=2";
    for (name, filters) in [
        ("black", "color=black:s=320x240:r=30:d=2[v]".to_owned()),
        ("blurred", format!("{source},gblur=sigma=8[v]")),
        (
            "boxed",
            format!("{source},scale=320:160,pad=320:240:0:40[v]"),
        ),
        (
            "moving",
            "mandelbrot=s=640x240:r=30:start_scale=1,trim=end_frame=1,loop=60:1,crop=320:240:x='2*n':y=0[v]".to_owned(),
        ),
        ("sharp", format!("{source}[v]")),
        ("still", "smptebars=s=320x240:r=30:d=2[v]".to_owned()),
    ] {
        film(&filters, &videos.join(format!("{name}.mp4")));
    }
    build(dir.path(), &["--clips-per-video", "1"]);
    let clips = clips(dir.path());
    let names: Vec<&str> = clips.iter().map(|clip| clip.video.as_str()).collect();
    assert_eq!(names.len(), 6, "{names:?}");
    let scores = clips.iter().map(|clip| clip.scores.expect("scores"));
    let scores: Vec<_> = scores.collect();
    let [black, blurred, boxed, moving, sharp, still] = scores.as_slice() else {
        panic!("{names:?}");
    };
    assert_eq!(
        (black.black, black.letterbox, black.frozen),
        (1.0, 1.0, 1.0)
    );
    assert!(black.luma_mean < 2.0 && sharp.luma_mean > 40.0);
    assert!(
        blurred.sharpness < 100.0 && sharp.sharpness > 300.0,
        "{blurred:?} {sharp:?}"
    );
    assert!((boxed.letterbox - 1.0 / 3.0).abs() < 0.03, "{boxed:?}");
    assert!(sharp.letterbox < 0.05 && sharp.black == 0.0, "{sharp:?}");
    assert!((still.frozen, still.motion) == (1.0, 0.0), "{still:?}");
    // Two pixels per frame, every second frame stored: 4 of 560.
    assert!((moving.motion - 4.0 / 560.0).abs() < 0.002, "{moving:?}");
    // Black clips are dark in both ways, and a condition leaves them out.
    let chosen = [
        "inspect",
        "shards",
        "--where",
        "black < 0.5 and frozen < 1 and sharpness > 100",
    ];
    let text = shown(&shardtool(dir.path(), &chosen));
    assert!(
        text.contains("sharp.mp4") && !text.contains("still.mp4"),
        "{text}"
    );
}
