//! Damaged video: what the decoder hides is seen, and what is not damaged is kept.

use pipeline::order::{Purpose, stream};
use pipeline::video::decode::{DecodeOptions, VideoDecoder};
use pipeline::video::frame::FrameScaler;
use rand::RngExt;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// Hash and damage mark of every frame by its time, and the number of stretches said to be damaged.
fn judged(path: &Path, threads: u32) -> (HashMap<i64, (u64, bool)>, usize) {
    let options = DecodeOptions { threads, ..DecodeOptions::default() };
    let mut decoder = VideoDecoder::open(path, options).expect("opened");
    let mut frames = HashMap::new();
    let mut bytes = Vec::new();
    while let Ok(Some(frame)) = decoder.next_frame() {
        bytes.clear();
        let mut scaler = FrameScaler::new(frame.size(), Default::default());
        frame.with_planes(|planes| scaler.append(planes, &mut bytes)).expect("converted");
        let hash = bytes.iter().fold(0u64, |hash, &byte| hash.wrapping_mul(0x100_0000_01b3) ^ u64::from(byte));
        frames.insert(frame.pts_ns, (hash, frame.damaged));
    }
    (frames, decoder.damages().len())
}

#[test]
fn measure() {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, flips) in [
        ("bikes.mp4", 3),
        ("bikes.mp4", 20),
        ("bigbuckbunny.mp4", 3),
        ("carphone.mp4", 3),
        ("flipping_a_pancake.mp4", 3),
        ("flipping_a_pancake.mp4", 20),
    ] {
        for threads in [1] {
            let path = Path::new(&std::env::var("TEST_VIDEOS").expect("set")).join("bench").join(name);
            let (clean, damages) = judged(&path, threads);
            assert_eq!(damages, 0, "{name}");
            let bytes = fs::read(&path).expect("read");
            let mdat = bytes.windows(4).position(|window| window == b"mdat").expect("mdat") + 4;
            let moov = bytes.windows(4).position(|window| window == b"moov").expect("moov");
            let (mut wrong, mut unseen, mut flagged, mut sound_flagged, mut missing) = (0, 0, 0, 0, 0);
            for trial in 0..10 {
                let mut rng = stream(Purpose::Synth, 5, trial, flips);
                let mut broken = bytes.clone();
                for _ in 0..flips {
                    let place = rng.random_range(mdat..moov);
                    broken[place] ^= 1 << rng.random_range(0..8);
                }
                let target = dir.path().join("a.mp4");
                fs::write(&target, &broken).expect("written");
                let (frames, _) = judged(&target, threads);
                missing += clean.len() - frames.len().min(clean.len());
                let times: std::collections::BTreeMap<i64, bool> = frames.iter().map(|(&t, f)| (t, f.1)).collect();
                let keys: Vec<i64> = keys(&target);
                for (pts, (hash, damaged)) in &frames {
                    let k = keys.iter().rev().find(|&&k| k <= *pts + 1).copied().unwrap_or(0);
                    let kn = keys.iter().find(|&&k| k > *pts + 1).copied().unwrap_or(i64::MAX);
                    let damaged = &(*damaged || times.range(k - 1..kn - 1).any(|(_, &d)| d) && std::env::var("WHOLE").is_ok());
                    let _ = damaged;
                    let is_wrong = clean.get(pts).is_none_or(|clean| clean.0 != *hash);
                    wrong += usize::from(is_wrong);
                    unseen += usize::from(is_wrong && !damaged);
                    flagged += usize::from(*damaged);
                    sound_flagged += usize::from(*damaged && !is_wrong);
                }
            }
            println!(
                "{name} {flips} flips, {threads} threads: wrong {wrong} unseen {unseen} flagged {flagged} of them sound {sound_flagged} missing {missing} of {}",
                clean.len() * 10
            );
        }
    }
}

fn keys(path: &Path) -> Vec<i64> {
    let o = std::process::Command::new("ffprobe")
        .args(["-v", "quiet", "-select_streams", "v", "-show_entries", "packet=pts_time,flags", "-of", "csv=p=0"])
        .arg(path)
        .output()
        .expect("x");
    let mut v: Vec<i64> = String::from_utf8_lossy(&o.stdout)
        .lines()
        .filter(|l| l.contains(",K"))
        .map(|l| (l.split(',').next().unwrap().parse::<f64>().unwrap() * 1e9) as i64)
        .collect();
    v.sort();
    v
}
