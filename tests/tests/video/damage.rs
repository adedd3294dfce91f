//! Damaged video: damage that the decoder hides is found, and what is not damaged is kept.

use pipeline::sampling::order::{Purpose, stream};
use pipeline::video::clips::ClipDecoder;
use pipeline::video::container::missing_bytes;
use pipeline::video::decode::{DecodeOptions, VideoDecoder};
use pipeline::video::frame::{FrameScaler, Orientation};
use rand::RngExt;
use schemas::geometry::FrameSize;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use tests::{ffmpeg, options, ran_alone, real_videos, write_video};

/// Pixels and damage mark of every frame by its time, and the number of damaged stretches.
fn judged(path: &Path, threads: u32) -> (HashMap<i64, (Vec<u8>, bool)>, usize) {
    pipeline::video::init().expect("GStreamer");
    let mut decoder = VideoDecoder::open(
        path,
        DecodeOptions {
            threads,
            ..DecodeOptions::default()
        },
    )
    .expect("opened");
    let mut frames = HashMap::new();
    while let Ok(Some(frame)) = decoder.next_frame() {
        let mut bytes = Vec::new();
        let mut scaler =
            FrameScaler::new(frame.size(), Orientation::default(), frame.color().range);
        frame
            .with_planes(|planes| scaler.append(planes, &mut bytes))
            .expect("converted");
        frames.insert(frame.pts_ns, (bytes, frame.damaged));
    }
    (frames, decoder.damages().len())
}

/// A film of several groups of pictures.
fn film(dir: &Path) -> PathBuf {
    let path = dir.join("film.mp4");
    write_video(
        &path,
        11,
        300,
        30,
        FrameSize {
            width: 160,
            height: 120,
        },
    );
    path
}

/// Where the media of an mp4 file lies.
fn media(bytes: &[u8]) -> std::ops::Range<usize> {
    let start = bytes
        .windows(4)
        .position(|window| window == b"mdat")
        .expect("media")
        + 4;
    let size =
        u32::from_be_bytes(bytes[start - 8..start - 4].try_into().expect("four bytes")) as usize;
    start..start - 8 + size
}

#[test]
fn intact_files_are_not_marked_damaged() {
    if ran_alone("damage::intact_files_are_not_marked_damaged") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let mut paths = vec![film(dir.path())];
    paths.extend(real_videos("real"));
    paths.extend(
        real_videos("odd")
            .into_iter()
            .filter(|path| !path.ends_with("corrupted.mp4")),
    );
    for path in paths {
        for threads in [1, 2] {
            let (frames, damages) = judged(&path, threads);
            assert_eq!(
                (
                    damages,
                    frames.values().filter(|(_, damaged)| *damaged).count()
                ),
                (0, 0),
                "{}",
                path.display()
            );
        }
        assert_eq!(missing_bytes(&path).expect("read"), 0, "{}", path.display());
    }
}

/// Flips bits of a film, over and over; returns how many frames came out wrong, and how many of
/// these were not marked.
fn flip_and_judge(path: &Path, trials: u64, flips: usize, threads: u32) -> (usize, usize) {
    let dir = tempfile::tempdir().expect("a folder");
    let (clean, _) = judged(path, 1);
    let bytes = fs::read(path).expect("read");
    let (mut wrong, mut unseen) = (0, 0);
    for trial in 0..trials {
        let mut rng = stream(Purpose::Synth, 5, trial, flips as u64);
        let mut broken = bytes.clone();
        for _ in 0..flips {
            broken[rng.random_range(media(&bytes))] ^= 1 << rng.random_range(0..8);
        }
        let target = dir.path().join("a.mp4");
        fs::write(&target, &broken).expect("written");
        for (pts, (pixels, damaged)) in judged(&target, threads).0 {
            let is_wrong = clean.get(&pts).is_none_or(|(clean, _)| *clean != pixels);
            wrong += usize::from(is_wrong);
            unseen += usize::from(is_wrong && !damaged);
        }
    }
    println!(
        "{}: {wrong} wrong frames, {unseen} not marked",
        path.display()
    );
    (wrong, unseen)
}

/// `FLIP_TRIALS` says how many files with flipped bits are made of each video: 50 for a figure to
/// quote.
#[test]
fn flipped_bits_are_seen() {
    if ran_alone("damage::flipped_bits_are_seen") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let (wrong, unseen) = flip_and_judge(&film(dir.path()), 10, 20, 1);
    // Some flips make another picture that is no less valid: no decoder can tell.
    assert!(
        wrong > 200 && unseen * 10 < wrong,
        "{unseen} of {wrong} wrong frames are not marked"
    );
    let trials = std::env::var("FLIP_TRIALS")
        .ok()
        .and_then(|trials| trials.parse().ok())
        .unwrap_or(2);
    let (mut all, mut all_unseen) = (0, 0);
    for path in real_videos("bench") {
        for threads in [1, 2] {
            let (wrong, unseen) = flip_and_judge(&path, trials, 20, threads);
            assert!(
                wrong > 50 && unseen * 10 < wrong,
                "{}: {unseen} of {wrong} wrong frames are not marked",
                path.display()
            );
            (all, all_unseen) = (all + wrong, all_unseen + unseen);
        }
    }
    println!(
        "{all} wrong frames, {all_unseen} not marked: {:.2} %",
        100.0 * all_unseen as f64 / all.max(1) as f64
    );
}

#[test]
fn clips_before_and_after_the_damage_are_kept() {
    if ran_alone("damage::clips_before_and_after_the_damage_are_kept") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let path = film(dir.path());
    let clips = |path: &Path| {
        let options = schemas::manifest::BuildOptions {
            frames: 8,
            stride: 3,
            ..options(3, 1 << 30)
        };
        let mut decoder =
            ClipDecoder::open(path, &options, DecodeOptions::default()).expect("opened");
        let clips: Vec<_> = std::iter::from_fn(|| decoder.next_clip().expect("decoded")).collect();
        (clips, decoder.faults())
    };
    let (clean, faults) = clips(&path);
    assert_eq!((clean.len(), faults.len()), (12, 0));
    // A hundred bytes in the middle.
    let mut bytes = fs::read(&path).expect("read");
    let media = media(&bytes);
    let middle = media.start.midpoint(media.end);
    bytes[middle..middle + 100]
        .iter_mut()
        .for_each(|byte| *byte ^= 0x55);
    fs::write(&path, bytes).expect("written");
    let (broken, faults) = clips(&path);
    let [fault] = faults.as_slice() else {
        panic!("{faults:?}")
    };
    assert!(fault.seconds.0 > 2.0 && fault.seconds.1 < 8.1, "{fault:?}");
    let kept = broken.iter().filter(|clip| !clip.damaged).count();
    assert!((6..12).contains(&kept), "{kept} clips are kept");
    for clip in broken.iter().filter(|clip| !clip.damaged) {
        assert!(
            *clip == clean[clip.index as usize],
            "clip {} is not what it was",
            clip.index
        );
    }
}

#[test]
fn a_file_that_was_cut_short_is_seen_in_every_container() {
    if ran_alone("damage::a_file_that_was_cut_short_is_seen_in_every_container") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let film = film(dir.path());
    for name in ["a.mp4", "a.mov", "a.mkv", "a.webm", "a.avi"] {
        let path = dir.path().join(name);
        let codec: &[&str] = if name == "a.webm" {
            &["-c:v", "libvpx", "-b:v", "300k"]
        } else {
            &["-c", "copy", "-movflags", "+faststart"]
        };
        ffmpeg(&film, codec, &path);
        assert_eq!(missing_bytes(&path).expect("read"), 0, "{name}");
        let bytes = fs::read(&path).expect("read");
        fs::write(&path, &bytes[..bytes.len() * 2 / 3]).expect("written");
        assert_eq!(
            missing_bytes(&path).expect("read"),
            (bytes.len() - bytes.len() * 2 / 3) as u64,
            "{name}"
        );
        let mut decoder = ClipDecoder::open(&path, &options(3, 1 << 30), DecodeOptions::default())
            .expect("opened");
        while decoder.next_clip().expect("decoded").is_some() {}
        let faults = decoder.faults();
        assert!(
            faults
                .iter()
                .any(|fault| fault.reason.starts_with("cut short")),
            "{name}: {faults:?}"
        );
    }
}

#[test]
fn an_index_of_frames_that_the_file_does_not_hold_is_seen() {
    if ran_alone("damage::an_index_of_frames_that_the_file_does_not_hold_is_seen") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("a.mp4");
    ffmpeg(
        &film(dir.path()),
        &["-c", "copy", "-movflags", "+faststart"],
        &path,
    );
    // The media's box says that it is shorter, and is: only the table of frames knows of the rest.
    let mut bytes = fs::read(&path).expect("read");
    let media = media(&bytes);
    let keep = media.len() / 2;
    bytes.truncate(media.start + keep);
    bytes[media.start - 8..media.start - 4].copy_from_slice(&(keep as u32 + 8).to_be_bytes());
    fs::write(&path, bytes).expect("written");
    assert_eq!(missing_bytes(&path).expect("read"), 0);
    let mut decoder =
        ClipDecoder::open(&path, &options(3, 1 << 30), DecodeOptions::default()).expect("opened");
    let clips = std::iter::from_fn(|| decoder.next_clip().expect("decoded")).count();
    assert_eq!(clips, 2);
    let faults = decoder.faults();
    assert!(
        faults.iter().any(|fault| fault
            .reason
            .contains("lists frames that the file does not hold")),
        "{faults:?}"
    );
}
