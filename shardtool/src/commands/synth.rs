//! `shardtool synth`: generates a small labelled set of encoded videos.

use crate::cli::SynthArgs;
use crate::fan_out::fan_out;
use crate::scene::{Motion, Scene};
use anyhow::{Context, ensure};
use console::output::{self, count};
use console::progress::Progress;
use crossbeam_channel::Sender;
use pipeline::all_cores;
use pipeline::sampling::order::{Purpose, stream};
use pipeline::video::encode::H264Writer;
use schemas::geometry::FrameSize;
use schemas::report::SynthReport;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Frames per second of the videos.
const FPS: u32 = 30;

/// Runs the command.
///
/// # Errors
/// When the folder is not empty or cannot be written, or x264 is missing.
pub fn run(args: &SynthArgs) -> anyhow::Result<ExitCode> {
    ensure!(
        args.size.is_multiple_of(2),
        "--size {} is odd; H.264 needs an even size",
        args.size
    );
    let dir = &args.dir;
    let taken = fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
    ensure!(!taken, "{} is not empty; give a new folder", dir.display());
    let motions = &Motion::ALL[..args.classes as usize];
    for motion in motions {
        let folder = dir.join(motion.name());
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let videos: Vec<(u64, Motion, PathBuf)> = (0..u64::from(args.videos))
        .map(|index| {
            let motion = motions[index as usize % motions.len()];
            (
                index,
                motion,
                dir.join(motion.name())
                    .join(format!("{}-{index:05}.mp4", motion.name())),
            )
        })
        .collect();
    let progress = Progress::new(videos.len() as u64, "{pos}/{len} videos");
    let mut bytes = 0;
    let work =
        |(): &mut (), (index, motion, path): &(u64, Motion, PathBuf), results: &Sender<_>| {
            drop(results.send(write_video(args, *index, *motion, path)));
        };
    fan_out(
        &videos,
        all_cores(),
        1,
        || (),
        work,
        |(_, _, path), results| {
            results.recv()??;
            bytes += fs::metadata(path)?.len();
            progress.advance(1, output::bytes(bytes));
            Ok(())
        },
    )?;
    progress.finish();
    let report = SynthReport {
        dir: dir.display().to_string(),
        videos: videos.len() as u64,
        classes: motions
            .iter()
            .map(|motion| motion.name().to_owned())
            .collect(),
        bytes,
    };
    if args.json {
        output::print(&serde_json::to_string_pretty(&report)?)?;
    } else {
        let videos = count(report.videos, "video");
        let classes = report.classes.join(", ");
        output::print(&format!(
            "{videos} of {classes} in {dir} ({})\nnext: shardtool build {dir} --labels dirs",
            output::bytes(report.bytes),
            dir = report.dir
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write_video(args: &SynthArgs, index: u64, motion: Motion, path: &Path) -> anyhow::Result<()> {
    let size = FrameSize {
        width: args.size as usize,
        height: args.size as usize,
    };
    let scene = Scene::draw(
        &mut stream(Purpose::Synth, args.seed, 0, index),
        motion,
        args.shapes,
    );
    let frames = (args.seconds * f64::from(FPS)).round().max(1.0) as u32;
    let mut writer = H264Writer::create(path, size, FPS)?;
    let mut frame = Vec::with_capacity(size.frame_bytes());
    for number in 0..frames {
        frame.clear();
        scene.render(
            f64::from(number) / f64::from(FPS),
            args.seconds,
            size,
            &mut frame,
        );
        writer.push(&frame)?;
    }
    Ok(writer.finish()?)
}
