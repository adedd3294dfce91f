//! `trainer visualise`: reconstructs a clip under several masks.

use crate::cli::{DataArg, VisualiseArgs};
use crate::{commands::session, commands::sources};
use anyhow::{Context, bail, ensure};
use console::output;
use pipeline::atomic_file::{self, TEMPORARY_ENDING};
use pipeline::choice::Choice;
use pipeline::live::LiveSpan;
use pipeline::loader;
use pipeline::physical_cores;
use pipeline::sampling::mask::{MaskKind, MaskRule};
use pipeline::source::{Source, Timing, WeightedSource};
use schemas::report::{LookReport, VisualiseReport};
use std::fs;
use std::path::{Path, PathBuf};
use trainer::backend::MaeLearner;
use trainer::config::{LiveConfig, PretrainConfig};
use trainer::cpu::Precision;
use trainer::model::TargetKind;
use trainer::plot::png;
use trainer::plot::reconstruction::{self, MaskedView, animation, strip};
use trainer::train::weights::Weights;

/// Names of the files in an output folder.
const STRIP_FILE: &str = "strip.png";
const GIF_FILE: &str = "animation.gif";
const MP4_FILE: &str = "animation.mp4";

/// Frames per second of a clip whose frames have no times: stride 4 at 30 frames per second.
const USUAL_RATE: f64 = 7.5;

/// Runs the command.
///
/// # Errors
/// Errors that the user can fix: weights of a classifier, a missing clip, a ratio that leaves no
/// token visible or masked, a full disk.
pub fn visualise(args: &VisualiseArgs) -> anyhow::Result<()> {
    let targets = Targets::of(&args.out)?;
    let weights = Weights::open(&args.weights)?;
    weights.skipped_checkpoints.iter().for_each(|invalid| {
        output::say(&format!(
            "warning: skipped an invalid checkpoint: {invalid}"
        ))
    });
    let device = session::device(args.compute.device)?;
    let (config, model) = weights.mae(&device)?;
    ensure!(
        config.objective.target.kind != TargetKind::Hog,
        "{} predicts histograms of gradients, which cannot be drawn",
        weights.path.display()
    );
    let rules = mask_rules(args, config)?;
    let clip = SourceClip::new(args, config)?;
    let batches = loader::example(
        &clip.source,
        clip.number,
        clip.first_frame,
        config.common.clip,
        &rules,
        args.seed,
    )?;
    let counts: Vec<(usize, usize)> = batches
        .iter()
        .map(|batch| (batch.masks().visible(), config.common.clip.tokens()))
        .collect();

    let mut computed = config.clone();
    computed.common.compute.dtype = args.dtype.unwrap_or(Precision::F32);
    computed.common.compute.gradient_checkpointing = false;
    let mut learner = MaeLearner::from_model(
        model,
        &computed,
        &device,
        args.compute.threads(physical_cores()),
    )?;
    let mut views = Vec::with_capacity(batches.len());
    for batch in batches {
        views.extend(reconstruction::masked_view(
            &mut learner,
            batch,
            args.contrast,
        )?);
    }
    let rate = clip.timing.frames_per_second.unwrap_or(USUAL_RATE)
        * config.objective.target.pred_frames as f64
        / config.common.clip.tubelet as f64;
    let files = targets.write(&views, args.fps.unwrap_or(rate))?;

    let looks = views
        .iter()
        .zip(counts)
        .map(|(view, (visible, tokens))| LookReport {
            mask_ratio: view.ratio,
            visible: visible as u64,
            masked: (tokens - visible) as u64,
        });
    let report = VisualiseReport {
        weights: weights.path.display().to_string(),
        video: clip.video,
        clip: clip.number as u64,
        second: clip.second,
        frames: views[0].original.len() as u64,
        repeated_frames: clip.timing.repeated as u64,
        mask_kind: kind_name(rules[0].kind).to_owned(),
        looks: looks.collect(),
        files: files
            .iter()
            .map(|path| path.display().to_string())
            .collect(),
    };
    Ok(output::print(&if args.json {
        serde_json::to_string_pretty(&report)?
    } else {
        render_report(&report)
    })?)
}

/// Renders the report as text.
fn render_report(report: &VisualiseReport) -> String {
    let VisualiseReport {
        video,
        clip,
        second,
        frames,
        mask_kind,
        looks,
        files,
        ..
    } = report;
    let of = video
        .as_ref()
        .map_or(String::new(), |video| format!(" of {video}"));
    let mut text =
        format!("clip {clip}{of}, from {second:.2} s: {frames} frames, {mask_kind} masks");
    for LookReport {
        mask_ratio,
        visible,
        masked,
    } in looks
    {
        text += &format!(
            "\n  {mask_ratio}: {visible} of {} tokens visible",
            visible + masked
        );
    }
    files.iter().for_each(|file| text += &format!("\n{file}"));
    text
}

const fn kind_name(kind: MaskKind) -> &'static str {
    match kind {
        MaskKind::Random => "random",
        MaskKind::Tube => "tube",
        MaskKind::Frame => "frame",
        MaskKind::Block => "block",
    }
}

/// The mask rules of the flags.
fn mask_rules(args: &VisualiseArgs, config: &PretrainConfig) -> anyhow::Result<Vec<MaskRule>> {
    let kind = args
        .mask_kind
        .map_or(config.objective.masking.kind, MaskKind::from);
    let rule = |&ratio: &f64| {
        let rule = MaskRule::new(kind, ratio);
        let grid = config.common.clip;
        ensure!(
            rule.visible(grid).is_some(),
            "--mask-ratio {ratio} leaves nothing visible or nothing masked: a clip has {} time \
             steps of {} tokens, and {} masks take {}",
            grid.time(),
            grid.space(),
            kind_name(kind),
            match kind {
                MaskKind::Random | MaskKind::Block => "tokens",
                MaskKind::Tube => "whole tubes, one for each token of a time step",
                MaskKind::Frame => "whole time steps",
            }
        );
        Ok(rule)
    };
    args.mask_ratio.iter().map(rule).collect()
}

/// The clip to reconstruct.
struct SourceClip {
    source: WeightedSource,
    /// Index of the clip in its source.
    number: usize,
    /// First frame within the clip.
    first_frame: usize,
    video: Option<String>,
    /// Time of the first frame in the video, in seconds.
    second: f64,
    timing: Timing,
}

impl SourceClip {
    fn new(args: &VisualiseArgs, config: &PretrainConfig) -> anyhow::Result<Self> {
        let data = args.data.display();
        let frames = config.common.clip.frames;
        // A time can be anywhere in a video; numbers are those of a build.
        let span = if args.at.is_some() {
            LiveSpan::Video
        } else {
            LiveSpan::Clip
        };
        let live = LiveConfig {
            span,
            ..config.objective.live.clone()
        };
        let asked = DataArg::all(args.data.clone());
        let source = sources::open(
            std::slice::from_ref(&asked),
            &Choice::default(),
            &live,
            frames,
            None,
        )?
        .pop()
        .context("a data set per path")?;
        let clips = source.len();
        ensure!(clips > 0, "{data} has no clips");
        let (number, first_frame) = match (args.at, args.clip) {
            (Some(at), _) => (0, first_frame(at, args, &source, frames)?),
            (None, Some(number)) => {
                ensure!(
                    number < clips,
                    "--clip {number}: {data} has {clips} clips, 0 to {}",
                    clips - 1
                );
                (number, 0)
            }
            (None, None) => (clips / 2, 0),
        };
        let stored = source.clip(number).frames;
        ensure!(
            stored >= frames,
            "clip {number} of {data} has {stored} frames, but the model takes {frames}: build \
             shards with --frames {frames}"
        );
        let timing = source.source.timing(number, first_frame, frames)?;
        if timing.repeated > 0 {
            output::say(&format!(
                "note: the video ends before the clip: the last {} of {frames} frames repeat the \
                 last frame, as in a build",
                timing.repeated
            ));
        }
        let catalogue = source.source.catalogue()?;
        let origin = catalogue.clips[number];
        let video = catalogue
            .videos
            .get(origin.video as usize)
            .map(|video| video.path.clone());
        let second =
            origin.seconds[0] + first_frame as f64 / timing.frames_per_second.unwrap_or(USUAL_RATE);
        Ok(Self {
            source,
            number,
            first_frame,
            video,
            second,
            timing,
        })
    }
}

/// The first frame of a clip that starts at `at` seconds of a video.
fn first_frame(
    at: f64,
    args: &VisualiseArgs,
    source: &WeightedSource,
    frames: usize,
) -> anyhow::Result<usize> {
    let data = args.data.display();
    let Source::Live(videos) = &*source.source else {
        bail!(
            "--at {at} is a time in a video, but {data} has shards: choose a clip with --clip 0 to \
             {}",
            source.len() - 1
        );
    };
    ensure!(
        videos.videos() == 1,
        "--at {at} is a time in one video, but {data} has {}: give one video with --data, or \
         choose a clip with --clip",
        videos.videos()
    );
    let rate = source
        .source
        .timing(0, 0, frames)?
        .frames_per_second
        .unwrap_or(USUAL_RATE);
    let (_, [_, end]) = videos.origin(0);
    ensure!(at <= end, "--at {at}: {data} ends at {end:.2} s");
    let wanted = (at * rate).round() as usize;
    let last = source.clip(0).frames - frames;
    if wanted > last {
        output::say(&format!(
            "note: the video ends at {end:.2} s, so the clip starts at {:.2} s",
            last as f64 / rate
        ));
    }
    Ok(wanted.min(last))
}

/// The files to write.
struct Targets {
    /// The folder of the files, to be created if needed.
    dir: Option<PathBuf>,
    strip: Option<PathBuf>,
    gif: Option<PathBuf>,
    mp4: Option<PathBuf>,
}

impl Targets {
    /// Interprets `out`: one file by its extension, or a folder, which is created when files are
    /// written.
    fn of(out: &Path) -> anyhow::Result<Self> {
        let none = Self {
            dir: None,
            strip: None,
            gif: None,
            mp4: None,
        };
        let path = Some(out.to_owned());
        let extension = out
            .extension()
            .map(|extension| extension.to_string_lossy().to_lowercase());
        if !out.is_dir() {
            match extension.as_deref() {
                Some("png") => {
                    return Ok(Self {
                        strip: path,
                        ..none
                    });
                }
                Some("gif") => return Ok(Self { gif: path, ..none }),
                Some("mp4") => return Ok(Self { mp4: path, ..none }),
                Some(
                    "jpg" | "jpeg" | "webp" | "bmp" | "tif" | "tiff" | "avi" | "mkv" | "mov"
                    | "webm",
                ) => {
                    bail!(
                        "--out {}: only .png, .gif and .mp4 can be written, or all three into a \
                         folder",
                        out.display()
                    )
                }
                _ => {}
            }
        }
        let file = |name: &str| Some(out.join(name));
        Ok(Self {
            dir: path,
            strip: file(STRIP_FILE),
            gif: file(GIF_FILE),
            mp4: file(MP4_FILE),
        })
    }

    /// Writes the files, with `fps` frames per second in animations, and returns their paths.
    fn write(&self, views: &[MaskedView], fps: f64) -> anyhow::Result<Vec<PathBuf>> {
        let cannot = |path: &Path| format!("cannot write {}", path.display());
        if let Some(dir) = &self.dir {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        let mut written = Vec::new();
        if let Some(path) = &self.strip {
            png(&strip::strip(views))
                .and_then(|bytes| atomic_file::write(path, &bytes))
                .with_context(|| cannot(path))?;
            written.push(path.clone());
        }
        let frames = animation::animation(views);
        if let Some(path) = &self.gif {
            let bytes = animation::gif(&frames, fps).with_context(|| cannot(path))?;
            atomic_file::write(path, &bytes).with_context(|| cannot(path))?;
            written.push(path.clone());
        }
        if let Some(path) = &self.mp4 {
            let mut temporary = path.clone().into_os_string();
            temporary.push(TEMPORARY_ENDING);
            let temporary = PathBuf::from(temporary);
            // GStreamer does not report why a file cannot be created.
            fs::File::create(&temporary).with_context(|| cannot(path))?;
            let result = animation::mp4(&temporary, &frames, fps);
            if result.is_err() {
                // The first failure is the one to report.
                let _ = fs::remove_file(&temporary);
            }
            result?;
            fs::rename(&temporary, path).with_context(|| cannot(path))?;
            written.push(path.clone());
        }
        Ok(written)
    }
}
