//! `trainer visualise`: what a model makes of a clip, under several masks.

use crate::cli::{DataArg, VisualiseArgs};
use crate::{cli::output, commands::session, commands::sources};
use anyhow::{Context, bail, ensure};
use pipeline::atomic_file::{self, TEMPORARY_ENDING};
use pipeline::live::LiveSpan;
use pipeline::loader;
use pipeline::sampling::mask::{MaskKind, MaskRule};
use pipeline::source::{Source, Timing, WeightedSource};
use schemas::report::{LookReport, VisualiseReport};
use std::fs;
use std::path::{Path, PathBuf};
use trainer::backend::MaeLearner;
use trainer::config::{Config, LiveConfig, Task};
use trainer::cpu::Precision;
use trainer::model::TargetKind;
use trainer::plot::png;
use trainer::plot::reconstruction::{self, Look, animation, strip};
use trainer::train::weights::Weights;

/// Names of the files in a folder.
const STRIP_FILE: &str = "strip.png";
const GIF_FILE: &str = "animation.gif";
const MP4_FILE: &str = "animation.mp4";

/// Frames of a clip a second, where its frames have no times: stride 4 of 30 a second.
const USUAL_RATE: f64 = 7.5;

/// Runs the command.
///
/// # Errors
/// What the user can mend: weights of a classifier, a clip that is not there, a ratio that leaves nothing to see or to predict, a full disk.
pub fn visualise(args: &VisualiseArgs) -> anyhow::Result<()> {
    let targets = Targets::of(&args.out)?;
    let weights = Weights::open(&args.weights)?;
    weights.skipped_checkpoints.iter().for_each(|invalid| output::say(&format!("warning: a checkpoint cannot be used: {invalid}")));
    let device = session::device(args.compute.device)?;
    let model = weights.mae(&device)?;
    let Task::Pretrain(config) = &weights.task else { unreachable!("a classifier is no autoencoder") };
    ensure!(
        config.target.kind != TargetKind::Hog,
        "{} predicts histograms of gradients, which are no picture: there is nothing to draw",
        weights.path.display()
    );
    let rules = rules(args, config)?;
    let clip = Chosen::new(args, config)?;
    let batches = loader::example(&clip.source, clip.number, clip.first_frame, config.clip, &rules, args.seed)?;
    let counts: Vec<(usize, usize)> = batches.iter().map(|batch| (batch.masks().visible(), config.clip.tokens())).collect();

    let mut computed = (**config).clone();
    computed.compute.dtype = args.compute.dtype.unwrap_or(Precision::F32);
    computed.compute.recompute = false;
    let mut learner = MaeLearner::from_model(model, &computed, &device, args.compute.threads())?;
    let mut looks = Vec::with_capacity(batches.len());
    for batch in batches {
        looks.extend(reconstruction::look(&mut learner, batch, args.contrast)?);
    }
    let rate = clip.timing.frames_per_second.unwrap_or(USUAL_RATE) * config.target.slices as f64 / config.clip.tubelet as f64;
    let files = targets.write(&looks, args.fps.unwrap_or(rate))?;

    let looked = looks.iter().zip(counts).map(|(look, (visible, tokens))| LookReport {
        mask_ratio: look.ratio,
        visible: visible as u64,
        masked: (tokens - visible) as u64,
    });
    let report = VisualiseReport {
        weights: weights.path.display().to_string(),
        video: clip.video,
        clip: clip.number as u64,
        second: clip.second,
        frames: looks[0].original.len() as u64,
        repeated_frames: clip.timing.repeated as u64,
        mask_kind: kind_name(rules[0].kind).to_owned(),
        looks: looked.collect(),
        files: files.iter().map(|path| path.display().to_string()).collect(),
    };
    Ok(output::print(&if args.json { serde_json::to_string_pretty(&report)? } else { told(&report) })?)
}

/// The report for people.
fn told(report: &VisualiseReport) -> String {
    let VisualiseReport { video, clip, second, frames, mask_kind, looks, files, .. } = report;
    let of = video.as_ref().map_or(String::new(), |video| format!(" of {video}"));
    let mut text = format!("clip {clip}{of}, from {second:.2} s: {frames} frames, {mask_kind} masks");
    for LookReport { mask_ratio, visible, masked } in looks {
        text += &format!("\n  {mask_ratio}: {visible} of {} tokens visible", visible + masked);
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

/// The masks that are asked for.
fn rules(args: &VisualiseArgs, config: &Config) -> anyhow::Result<Vec<MaskRule>> {
    let kind = args.mask_kind.map_or(config.masking.kind, MaskKind::from);
    let rule = |&ratio: &f64| {
        let rule = MaskRule::new(kind, ratio);
        let grid = config.clip;
        ensure!(
            rule.visible(grid).is_some(),
            "--mask-ratio {ratio} leaves nothing visible or nothing masked: a clip has {} time steps of {} tokens, and {} masks take {}",
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

/// The clip that is looked at.
struct Chosen {
    source: WeightedSource,
    /// Number of it in its source.
    number: usize,
    /// Where in it the frames begin.
    first_frame: usize,
    video: Option<String>,
    /// Where in the video the frames begin, in seconds.
    second: f64,
    timing: Timing,
}

impl Chosen {
    fn new(args: &VisualiseArgs, config: &Config) -> anyhow::Result<Self> {
        let (data, frames) = (args.data.display(), config.clip.frames);
        // A place can lie anywhere in a video; numbers are those of a build.
        let span = if args.at.is_some() { LiveSpan::Video } else { LiveSpan::Clip };
        let live = LiveConfig { span, ..config.live.clone() };
        let asked = DataArg { path: args.data.clone(), weight: 1.0 };
        let source = sources::open(std::slice::from_ref(&asked), &live, frames)?.pop().context("a data set for each that is named")?;
        let clips = source.len();
        ensure!(clips > 0, "{data} holds no clips");
        let (number, first_frame) = match (args.at, args.clip) {
            (Some(at), _) => (0, first_frame(at, args, &source, frames)?),
            (None, Some(number)) => {
                ensure!(number < clips, "--clip {number}: {data} holds {clips} clips, 0 to {}", clips - 1);
                (number, 0)
            }
            (None, None) => (clips / 2, 0),
        };
        let stored = source.clip(number).frames;
        ensure!(
            stored >= frames,
            "clip {number} of {data} has {stored} frames, and the model takes {frames}: build shards with --frames {frames}"
        );
        let timing = source.source.timing(number, first_frame, frames)?;
        if timing.repeated > 0 {
            output::say(&format!(
                "note: the video ends before the clip does: the last {} of {frames} frames repeat the last one, as in a build",
                timing.repeated
            ));
        }
        let catalogue = source.source.catalogue()?;
        let origin = catalogue.clips[number];
        let video = catalogue.videos.get(origin.video as usize).map(|video| video.path.clone());
        let second = origin.seconds[0] + first_frame as f64 / timing.frames_per_second.unwrap_or(USUAL_RATE);
        Ok(Self { source, number, first_frame, video, second, timing })
    }
}

/// The frame of a whole video with which a clip begins that is to begin at `at` seconds.
fn first_frame(at: f64, args: &VisualiseArgs, source: &WeightedSource, frames: usize) -> anyhow::Result<usize> {
    let data = args.data.display();
    let Source::Live(videos) = &*source.source else {
        bail!("--at {at} is a place in a video, and {data} holds shards: choose a clip of them with --clip 0 to {}", source.len() - 1);
    };
    ensure!(
        videos.videos() == 1,
        "--at {at} is a place in one video, and {data} holds {}: give one of them as --data, or a clip by its number with --clip",
        videos.videos()
    );
    let rate = source.source.timing(0, 0, frames)?.frames_per_second.unwrap_or(USUAL_RATE);
    let (_, _, [_, end]) = videos.origin(0);
    ensure!(at <= end, "--at {at}: {data} ends at {end:.2} s");
    let (wanted, last) = ((at * rate).round() as usize, source.clip(0).frames - frames);
    if wanted > last {
        output::say(&format!("note: the video ends at {end:.2} s, so the clip begins at {:.2} s", last as f64 / rate));
    }
    Ok(wanted.min(last))
}

/// The files that are to be written.
struct Targets {
    /// The folder that they are in, where it may have to be made.
    dir: Option<PathBuf>,
    strip: Option<PathBuf>,
    gif: Option<PathBuf>,
    mp4: Option<PathBuf>,
}

impl Targets {
    /// What `out` names: one file by its ending, or a folder, which is made when they are written.
    fn of(out: &Path) -> anyhow::Result<Self> {
        let none = Self { dir: None, strip: None, gif: None, mp4: None };
        let path = Some(out.to_owned());
        let ending = out.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        if !out.is_dir() {
            match ending.as_deref() {
                Some("png") => return Ok(Self { strip: path, ..none }),
                Some("gif") => return Ok(Self { gif: path, ..none }),
                Some("mp4") => return Ok(Self { mp4: path, ..none }),
                Some("jpg" | "jpeg" | "webp" | "bmp" | "tif" | "tiff" | "avi" | "mkv" | "mov" | "webm") => {
                    bail!("--out {}: only .png, .gif and .mp4 can be written, or all three into a folder", out.display())
                }
                _ => {}
            }
        }
        let file = |name: &str| Some(out.join(name));
        Ok(Self { dir: path, strip: file(STRIP_FILE), gif: file(GIF_FILE), mp4: file(MP4_FILE) })
    }

    /// Writes the files, of which what moves shows `fps` frames a second; gives their names.
    fn write(&self, looks: &[Look], fps: f64) -> anyhow::Result<Vec<PathBuf>> {
        let cannot = |path: &Path| format!("cannot write {}", path.display());
        if let Some(dir) = &self.dir {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        let mut written = Vec::new();
        if let Some(path) = &self.strip {
            png(&strip::strip(looks)).and_then(|bytes| atomic_file::write(path, &bytes)).with_context(|| cannot(path))?;
            written.push(path.clone());
        }
        let frames = animation::animation(looks);
        if let Some(path) = &self.gif {
            let bytes = animation::gif(&frames, fps).with_context(|| cannot(path))?;
            atomic_file::write(path, &bytes).with_context(|| cannot(path))?;
            written.push(path.clone());
        }
        if let Some(path) = &self.mp4 {
            let mut temporary = path.clone().into_os_string();
            temporary.push(TEMPORARY_ENDING);
            let temporary = PathBuf::from(temporary);
            // GStreamer would not say why a file cannot be made.
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
