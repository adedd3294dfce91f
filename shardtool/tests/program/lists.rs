//! Builds from lists: the official files of data sets, segments, splits, and bad rows.

use crate::shardtool;
use pipeline::shard::{ClipReader, ShardSet};
use schemas::geometry::FrameSize;
use schemas::manifest::Rejected;
use schemas::report::{BuildReport, DryRunReport};
use schemas::shard::ClipMeta;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tempfile::TempDir;
use tests::{ffmpeg_frames, json_lines, parse_report, shown, write_video};

const SIZE: FrameSize = FrameSize {
    width: 96,
    height: 64,
};

/// Clips of 8 frames that follow each other: a second of video has three.
const SHORT: [&str; 6] = ["--frames", "8", "--stride", "1", "--payload", "i420"];

/// A folder with videos of three seconds at these paths in `videos`, and these list files.
fn with(videos: &[&str], lists: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for (seed, video) in (0..).zip(videos) {
        let path = dir.path().join("videos").join(video);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        let film = dir.path().join("film.mp4");
        write_video(&film, seed, 90, 30, SIZE);
        fs::rename(film, path).expect("moved");
    }
    for (name, text) in lists {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }
    dir
}

fn build(dir: &Path, arguments: &[&str]) -> BuildReport {
    let fixed = ["build", "videos", "--json"];
    parse_report(&shardtool(dir, &[&fixed, &SHORT[..], arguments].concat()))
}

fn clips(dir: &Path) -> Vec<ClipMeta> {
    let set = ShardSet::open(&dir.join("shards")).expect("shards");
    let metas = set
        .shards()
        .iter()
        .flat_map(|shard| shard.metas().expect("rows"));
    metas.collect()
}

/// What the list has decided about the clips, one line for each group of equal ones: video, class,
/// label, split, segment, and its times.
fn described(dir: &Path) -> Vec<String> {
    let mut described: BTreeMap<String, u32> = BTreeMap::new();
    for clip in clips(dir) {
        let seconds = |seconds: Option<f64>| seconds.map_or("-".to_owned(), |s| s.to_string());
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let line = format!(
            "{} {} {} @{} #{} {}..{}",
            clip.video.trim_start_matches("videos/"),
            text(&clip.class),
            clip.label.map_or("-".to_owned(), |label| label.to_string()),
            text(&clip.split),
            text(&clip.segment),
            seconds(clip.segment_start),
            seconds(clip.segment_end)
        );
        *described.entry(line).or_default() += 1;
    }
    let lines = described.into_iter();
    lines
        .map(|(line, clips)| format!("{line} x{clips}"))
        .collect()
}

/// The frames of each clip of `video` are ffmpeg's at the same times.
fn assert_frames_are_ffmpegs(dir: &Path) {
    let set = ShardSet::open(&dir.join("shards")).expect("shards");
    let mut reader = ClipReader::default();
    for shard in set.shards() {
        for (row, meta) in shard.metas().expect("rows").iter().enumerate() {
            let payload = reader.payload(shard, row).expect("a clip").to_vec();
            let all = ffmpeg_frames(&dir.join(&meta.video), &[]);
            let frames: Vec<&[u8]> = all.chunks_exact(SIZE.frame_bytes()).collect();
            for (stored, &ns) in payload.chunks_exact(SIZE.frame_bytes()).zip(&meta.pts_ns) {
                let number = (ns as f64 * 30.0 / 1e9).round() as usize;
                assert!(stored == frames[number], "{} at {ns} ns", meta.video);
            }
            let times = meta.pts_ns.iter().map(|&ns| ns as f64 / 1e9);
            let start = meta.segment_start.unwrap_or(0.0);
            let end = meta.segment_end.unwrap_or(f64::MAX);
            assert!(
                times.clone().all(|time| time > start - 0.02 && time < end),
                "{meta:?}"
            );
        }
    }
}

#[test]
fn official_lists_are_built_as_they_are() {
    type Case = (
        &'static [&'static str],
        &'static [(&'static str, &'static str)],
        &'static [&'static str],
    );
    let cases: [Case; 8] = [
        // Kinetics: untrimmed by its id, trimmed by the name of its times.
        (
            &[
                "yoga/-abc.mp4",
                "juggling/def_000012_000022.mp4",
                "other.mp4",
            ],
            &[(
                "kinetics_train.csv",
                "label,youtube_id,time_start,time_end,split\nyoga,-abc,1,2,train\n\
                 juggling,def,12,22,train\nyoga,gone,3,13,train\n",
            )],
            &[
                "juggling/def_000012_000022.mp4 juggling 0 @train #- -..- x11",
                "yoga/-abc.mp4 yoga 1 @train #- 1..2 x3",
            ],
        ),
        (
            &[
                "Run/v_Run_g08_c01.avi",
                "Jump/v_Jump_g01_c01.avi",
                "Run/unlisted.avi",
            ],
            &[
                ("trainlist01.txt", "Run/v_Run_g08_c01.avi 2\n"),
                ("testlist01.txt", "Jump/v_Jump_g01_c01.avi\n"),
                ("classInd.txt", "1 Jump\n2 Run\n"),
            ],
            &[
                "Jump/v_Jump_g01_c01.avi Jump 0 @test #- -..- x11",
                "Run/v_Run_g08_c01.avi Run 1 @train #- -..- x11",
            ],
        ),
        (
            &["brush_hair/a.avi", "wave/b.avi", "wave/c.avi"],
            &[
                ("brush_hair_test_split1.txt", "a.avi 1 \n"),
                ("wave_test_split1.txt", "b.avi 2 \nc.avi 0 \n"),
            ],
            &[
                "brush_hair/a.avi brush_hair 0 @train #- -..- x11",
                "wave/b.avi wave 1 @test #- -..- x11",
            ],
        ),
        (
            &["78687.webm", "1420.webm"],
            &[
                (
                    "something-something-v2-train.json",
                    "[{\"id\":\"78687\",\"label\":\"holding potato next to bottle\",\
                     \"template\":\"Holding [something] next to [something]\",\
                     \"placeholders\":[\"potato\",\"bottle\"]}]",
                ),
                (
                    "something-something-v2-labels.json",
                    "{\"Approaching something with your camera\":\"0\",\
                     \"Holding something next to something\":\"1\"}",
                ),
            ],
            &["78687.webm Holding something next to something 1 @train #- -..- x11"],
        ),
        (
            &["singing/yt-0.mp4", "running/yt-1.mp4"],
            &[(
                "trainingSet.csv",
                "singing/yt-0.mp4,singing,3,0\nrunning/yt-1.mp4,running,4,1\n",
            )],
            &[
                "running/yt-1.mp4 running 0 @train #- -..- x11",
                "singing/yt-0.mp4 singing 1 @train #- -..- x11",
            ],
        ),
        (
            &["P01/P01_11.MP4"],
            &[
                (
                    "EPIC_100_validation.csv",
                    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,\
                     stop_timestamp,start_frame,stop_frame,narration,verb,verb_class,noun,\
                     noun_class,all_nouns,all_noun_classes\n\
                     P01_11_0,P01,P01_11,00:00:00.00,00:00:00.00,00:00:01.00,1,60,take plate,take,\
                     0,plate,2,['plate'],[2]\n\
                     P01_11_1,P01,P01_11,00:00:00.50,00:00:00.50,00:00:01.50,30,90,put cup,put,1,\
                     cup,13,['cup'],[13]\n",
                ),
                (
                    "EPIC_100_verb_classes.csv",
                    "id,key,instances\n0,take,x\n1,put,x\n",
                ),
            ],
            &[
                "P01/P01_11.MP4 put 1 @val #P01_11_1 0.5..1.5 x3",
                "P01/P01_11.MP4 take 0 @val #P01_11_0 0..1 x3",
            ],
        ),
        (
            &["dd08.mp4"],
            &[(
                "moments_train.json",
                "{\"version\":\"1\",\"date\":\"1\",\"description\":\"moments\",\"videos\":[\
                 {\"video_uid\":\"dd08\",\"split\":\"train\",\"clips\":[{\"clip_uid\":\"9df4\",\
                 \"video_start_sec\":0.0,\"video_end_sec\":3.0,\"clip_start_sec\":0,\
                 \"clip_end_sec\":3.0,\"annotations\":[{\"annotator_uid\":\"a\",\"labels\":[\
                 {\"primary\":true,\"start_time\":0.5,\"end_time\":1.5,\"label\":\"use_phone\",\
                 \"video_start_time\":0.5,\"video_end_time\":1.5}]}]}]}]}",
            )],
            &["dd08.mp4 use_phone 0 @train #9df4 0.5..1.5 x3"],
        ),
        (
            &["train/a.mp4", "validation/b.mp4"],
            &[(
                "videos/metadata.jsonl",
                "{\"file_name\":\"train/a.mp4\",\"label\":\"cat\"}\n\
                 {\"file_name\":\"validation/b.mp4\",\"label\":\"dog\"}\n",
            )],
            &[
                "train/a.mp4 cat 0 @train #- -..- x11",
                "validation/b.mp4 dog 1 @val #- -..- x11",
            ],
        ),
    ];
    for (videos, lists, expected) in cases {
        let dir = with(videos, lists);
        let files: Vec<&str> = lists.iter().map(|(name, _)| *name).collect();
        let output = shardtool(
            dir.path(),
            &[&["build", "videos"], &SHORT[..], &["--list"], &files].concat(),
        );
        assert!(output.status.success(), "{}", shown(&output));
        let text = shown(&output);
        assert!(
            text.contains(&format!(
                "recognised {}",
                lists[0].0.trim_start_matches("videos/")
            )),
            "{text}"
        );
        assert_eq!(described(dir.path()), expected, "{text}");
        assert_frames_are_ffmpegs(dir.path());
    }
}

#[test]
fn segments_of_one_video_overlap_end_early_and_are_padded() {
    let rows = "path,start,end,label,split,id\n\
                a,0.5,1.5,x,train,one\n\
                a,1.0,2.0,y,train,two\n\
                a,2.8,9.0,x,val,late\n\
                a,2.95,3.05,y,val,short\n\
                a,7,8,x,val,beyond\n\
                a,1.0,2.0,y,train,again\n\
                a,2.0,2.0,y,train,empty\n\
                gone,0,1,x,train,none\n\
                a,1.0,1.1,y,train,tiny\n";
    let dir = with(&["deep/a.mp4"], &[("rows.csv", rows)]);
    let report = build(dir.path(), &["--list", "rows.csv"]);
    assert_eq!(
        described(dir.path()),
        [
            "deep/a.mp4 x 0 @train #one 0.5..1.5 x3",
            "deep/a.mp4 x 0 @val #late 2.8..9 x1",
            "deep/a.mp4 y 1 @train #tiny 1..1.1 x1",
            "deep/a.mp4 y 1 @train #two 1..2 x3",
            "deep/a.mp4 y 1 @val #short 2.95..3.05 x1",
        ]
    );
    assert_frames_are_ffmpegs(dir.path());
    assert_eq!(report.padded_clips, 3, "{report:?}");
    assert_eq!((report.unmatched_labels, report.videos), (1, 1));
    let rejected: Vec<Rejected> = json_lines(&dir.path().join("shards/rejected.jsonl"));
    let reason = |path: &str, part: &str| {
        rejected
            .iter()
            .any(|line| line.path.contains(path) && line.reason.contains(part))
    };
    assert!(reason("gone", "line 9 of rows.csv"), "{rejected:?}");
    assert!(
        reason("line 8 of rows.csv", "empty segment"),
        "{rejected:?}"
    );
    assert!(reason("a.mp4", "no frames in the video"), "{rejected:?}");
    assert!(
        reason("a.mp4", "ends at 9.00 s, the video at 3.00 s"),
        "{rejected:?}"
    );
    // Clips are in the order of their starts, whatever their segments.
    let starts: Vec<i64> = clips(dir.path())
        .iter()
        .map(|clip| clip.pts_ns[0])
        .collect();
    assert!(starts.is_sorted(), "{starts:?}");
    // The same again is nothing to do; a changed row is a change.
    let again = build(dir.path(), &["--list", "rows.csv"]);
    assert_eq!(again.known_videos, 1);
    fs::write(dir.path().join("rows.csv"), rows.replace("1.5,x", "1.4,x")).expect("written");
    let changed = shardtool(
        dir.path(),
        &[&["build", "videos", "--list", "rows.csv"], &SHORT[..]].concat(),
    );
    assert!(
        shown(&changed).contains("different rows in the list"),
        "{}",
        shown(&changed)
    );
}

#[test]
fn segments_in_frames_are_those_in_seconds() {
    let seconds = "path,start,end\na,0.5,1.5\na,2,3\n";
    let frames = "path,start_frame,end_frame\na,15,45\na,60,90\n";
    let dir = with(&["a.mp4"], &[("s.csv", seconds), ("f.csv", frames)]);
    for extra in [
        &[][..],
        &["--clips-per-video", "2"],
        &["--sample", "frames"],
    ] {
        let mut times = Vec::new();
        for list in ["s.csv", "f.csv"] {
            build(dir.path(), &[&["--list", list, "--force"], extra].concat());
            let of_build: Vec<Vec<i64>> = clips(dir.path())
                .into_iter()
                .map(|clip| clip.pts_ns)
                .collect();
            times.push(of_build);
        }
        assert_eq!(times[0], times[1], "{extra:?}");
        assert!(times[0].len() >= 4, "{extra:?}");
        let counted: DryRunReport = parse_report(&shardtool(
            dir.path(),
            &[
                &[
                    "build",
                    "videos",
                    "--dry-run",
                    "--json",
                    "--list",
                    "f.csv",
                    "--out",
                    "none",
                ],
                &SHORT[..],
                extra,
            ]
            .concat(),
        ));
        assert_eq!(counted.clips, times[0].len() as u64, "{extra:?}");
    }
}

#[test]
fn splits_are_by_content_and_stay_when_videos_are_added() {
    let names: Vec<String> = (0..12).map(|number| format!("{number}.mp4")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let dir = with(&names, &[]);
    let extra = ["--split", "train=0.5,val=0.5", "--clips-per-video", "1"];
    let splits = || -> BTreeMap<String, String> {
        let clips = clips(dir.path()).into_iter();
        clips
            .map(|clip| (clip.video, clip.split.expect("a split")))
            .collect()
    };
    let hold_back = dir.path().join("3.mp4");
    fs::rename(dir.path().join("videos/3.mp4"), &hold_back).expect("moved");
    build(dir.path(), &extra);
    let before = splits();
    assert_eq!(before.len(), 11);
    assert!(
        ["train", "val"]
            .iter()
            .all(|name| before.values().any(|split| split == name))
    );
    fs::rename(&hold_back, dir.path().join("videos/3.mp4")).expect("moved");
    fs::copy(
        dir.path().join("videos/5.mp4"),
        dir.path().join("videos/copy.mp4"),
    )
    .expect("copied");
    build(dir.path(), &extra);
    let after = splits();
    assert_eq!(after.len(), 13);
    assert!(before.iter().all(|(video, split)| after[video] == *split));
    assert_eq!(after["videos/5.mp4"], after["videos/copy.mp4"]);
    let refused = shardtool(dir.path(), &["build", "videos", "--split", "train=0.5"]);
    assert!(
        shown(&refused).contains("the shares sum to 0.5"),
        "{}",
        shown(&refused)
    );
}

#[test]
fn lists_that_cannot_be_used_say_why() {
    let dir = with(
        &["a.mp4"],
        &[
            ("columns.csv", "foo,bar\n1,2\n"),
            ("elsewhere.csv", "path,label\nb.mp4,x\n"),
            ("leak.csv", "path,split\na.mp4,train\na.mp4,val\n"),
            ("splits.csv", "path,split\na.mp4,train\n"),
        ],
    );
    for (arguments, part) in [
        (&["--list", "columns.csv"][..], "List files are recognised"),
        (&["--list", "elsewhere.csv"], "none of the listed videos"),
        (
            &["--list", "leak.csv"],
            "what is trained on would be tested on",
        ),
        (
            &["--split", "train=1", "--list", "splits.csv"],
            "the list gives splits already",
        ),
        (&["--list", "none.csv"], "none.csv"),
        (
            &["--list", "splits.csv", "--labels", "dirs"],
            "cannot be used with",
        ),
    ] {
        let output = shardtool(dir.path(), &[&["build", "videos"], arguments].concat());
        assert!(!output.status.success());
        assert!(
            shown(&output).contains(part),
            "{arguments:?}: {}",
            shown(&output)
        );
        assert!(!dir.path().join("shards/manifest.json").exists());
    }
}
