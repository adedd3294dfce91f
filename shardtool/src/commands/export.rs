//! `shardtool export`: writes one clip as a video or as pictures.

use crate::cli::ExportArgs;
use crate::drawing::{blank, paste, save};
use crate::reading::{clips, for_each_frame, frames_per_second, open, size};
use anyhow::{Context, bail, ensure};
use console::output::{self, count};
use image::RgbImage;
use pipeline::frames::{Color, Frames, padded};
use pipeline::shard::ShardSet;
use pipeline::transform::picture::to_rgb;
use pipeline::video::encode::H264Writer;
use pipeline::video::frame::rgb_to_i420;
use schemas::geometry::FrameSize;
use schemas::report::{ExportReport, InspectedClip};
use std::borrow::Cow;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

/// The form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// An H.264 file.
    Video,
    /// A PNG file with all frames.
    Grid,
    /// A folder with a PNG file per frame.
    Frames,
}

impl Form {
    fn of(path: &Path) -> anyhow::Result<Self> {
        match path
            .extension()
            .map(|extension| extension.to_string_lossy().to_lowercase())
            .as_deref()
        {
            Some("mp4") => Ok(Self::Video),
            Some("png") => Ok(Self::Grid),
            None => Ok(Self::Frames),
            Some(_) => {
                bail!(
                    "{}: give a name that ends in .mp4 or .png, or one without an extension for a \
                     folder of frames",
                    path.display()
                )
            }
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When the clip does not exist or is damaged, or the output exists already or cannot be written.
pub fn run(args: &ExportArgs) -> anyhow::Result<ExitCode> {
    let form = Form::of(&args.out)?;
    let set = open(&args.dir)?;
    let clip = clips(&set, &[args.clip])?
        .pop()
        .context("a clip for its number")?;
    let taken = args.out.symlink_metadata().is_ok();
    ensure!(
        args.force || !taken,
        "{} exists already; give another name, or --force to replace it",
        args.out.display()
    );
    let stored = size(&clip.meta);
    let (written, fps) = match form {
        Form::Video => {
            let fps = frames_per_second(&clip.meta);
            write_video(&set, &clip, fps, &args.out)?;
            (even(stored), Some(fps))
        }
        Form::Grid => {
            write_grid(&set, &clip, &args.out)?;
            (stored, None)
        }
        Form::Frames => {
            write_frames(&set, &clip, &args.out)?;
            (stored, None)
        }
    };
    let report = ExportReport {
        out: args.out.display().to_string(),
        clip: args.clip,
        frames: u64::from(clip.meta.frames),
        width: written.width as u64,
        height: written.height as u64,
        fps,
    };
    if args.json {
        output::print(&serde_json::to_string_pretty(&report)?)?;
    } else {
        let rate = fps.map_or(String::new(), |fps| {
            format!(", {} per second", (fps * 1000.0).round() / 1000.0)
        });
        let frames = count(report.frames, "frame");
        output::print(&format!(
            "clip {} in {}: {frames} of {}x{}{rate}",
            args.clip, report.out, report.width, report.height
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the clip as a video under a temporary name beside `path`, so that it appears complete or
/// not at all.
fn write_video(set: &ShardSet, clip: &InspectedClip, fps: f64, path: &Path) -> anyhow::Result<()> {
    let mut name = path.file_name().context("a file name")?.to_owned();
    name.push(pipeline::atomic_file::TEMPORARY_ENDING);
    let temporary = path.with_file_name(name);
    let stored = size(&clip.meta);
    let color = Color {
        range: clip.meta.color_range,
        matrix: clip.meta.color_matrix,
    };
    let write = || {
        let mut writer = H264Writer::create_with(&temporary, even(stored), fps, color)?;
        for_each_frame(set, clip, |_, frame| {
            let planes = match frame {
                Frames::I420(planes, _) => Cow::Borrowed(planes),
                Frames::Rgb(pixels) => Cow::Owned(rgb_to_i420(pixels, stored, color)?),
            };
            Ok(writer.push(&padded(&planes, stored, even(stored)))?)
        })?;
        writer.finish()?;
        fs::rename(&temporary, path).with_context(|| format!("cannot write {}", path.display()))
    };
    let result = write();
    if result.is_err() {
        // The first failure is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// Returns the smallest even size that holds `size`.
const fn even(size: FrameSize) -> FrameSize {
    FrameSize {
        width: size.width.next_multiple_of(2),
        height: size.height.next_multiple_of(2),
    }
}

/// Writes all frames in one picture.
fn write_grid(set: &ShardSet, clip: &InspectedClip, path: &Path) -> anyhow::Result<()> {
    let size = size(&clip.meta);
    let frames = clip.meta.frames;
    let columns = f64::from(frames).sqrt().ceil().max(1.0) as u32;
    let width = clip.meta.width;
    let height = clip.meta.height;
    let mut grid = blank(
        columns.saturating_mul(width),
        frames.div_ceil(columns).saturating_mul(height),
    )?;
    for_each_frame(set, clip, |number, frame| {
        let place = (
            number as u32 % columns * width,
            number as u32 / columns * height,
        );
        paste(
            &mut grid,
            place,
            &to_rgb(frame, size, size.width, size.height),
            width,
        );
        Ok(())
    })?;
    save(&grid, path)
}

/// Writes a picture per frame. Frames of another clip that are in the folder are removed.
fn write_frames(set: &ShardSet, clip: &InspectedClip, folder: &Path) -> anyhow::Result<()> {
    let size = size(&clip.meta);
    // A damaged clip changes nothing in the folder.
    for_each_frame(set, clip, |_, _| Ok(()))?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("frame-") && name.ends_with(".png") {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    for_each_frame(set, clip, |number, frame| {
        let pixels = to_rgb(frame, size, size.width, size.height);
        let picture = RgbImage::from_raw(clip.meta.width, clip.meta.height, pixels)
            .context("a picture of its size")?;
        save(&picture, &folder.join(format!("frame-{number:04}.png")))
    })
}
