//! `trainer eval`: evaluates a classifier by clip and by video.

use crate::cli::EvalArgs;
use crate::commands::inference::{ClipInference, InferenceStats, open as open_sets};
use crate::commands::together;
use anyhow::{Context, ensure};
use console::{interrupt, output};
use pipeline::atomic_file;
use pipeline::store;
use schemas::report::{ClassReport, EvalReport};
use std::process::ExitCode;
use trainer::data::classes;
use trainer::eval::Scores;
use trainer::eval::videos::{self, VideoScores};
use trainer::plot::{confusion, png};
use trainer::ranks::Ranks;
use trainer::train::weights::Weights;

/// Maximum number of classes that are printed; the others are counted. --json has all.
const SHOWN_CLASSES: usize = 40;

/// Runs the command.
///
/// # Errors
/// Errors that the user can fix: weights of no classifier, clips without labels, other classes.
pub fn eval(args: &EvalArgs) -> anyhow::Result<ExitCode> {
    let ranks = Ranks::start()?;
    together::end(&ranks, eval_with(&ranks, args))
}

/// [`eval`] on each of `ranks`.
fn eval_with(ranks: &Ranks, args: &EvalArgs) -> anyhow::Result<ExitCode> {
    let (weights, mut inference) = together::agree(ranks, prepare(ranks, args))?;
    inference.check_alike(&weights)?;
    let mut of_clips = Scores::new(weights.classes().len());
    let mut videos = VideoScores::new(inference.catalogues.clone());
    let stats = inference.run(false, |clips| {
        for clip in clips {
            of_clips.add(&clip.probabilities, clip.label);
            videos.add_output(&clip);
        }
        Ok(())
    })?;
    if !ranks.is_root() {
        return Ok(ExitCode::SUCCESS);
    }
    let of_videos = videos::scores_of(&videos.finish(), weights.classes().len());
    ensure!(of_clips.count() > 0, "no clip could be read");
    if let Some(path) = &args.confusion {
        let written = png(&confusion::draw(
            &of_clips.confusion(),
            weights.classes(),
            confusion::HEADING,
        ))
        .and_then(|png| atomic_file::write(path, &png));
        written.with_context(|| format!("cannot write {}", path.display()))?;
    }
    let report = build_report(args, &weights, &inference, [&of_clips, &of_videos], stats);
    output::print(&if args.json {
        serde_json::to_string_pretty(&report)?
    } else {
        render_report(&report)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The classifier, and the clips to evaluate it on.
fn prepare<'a>(ranks: &'a Ranks, args: &EvalArgs) -> anyhow::Result<(Weights, ClipInference<'a>)> {
    interrupt::listen()?;
    store::stop_when(interrupt::flag());
    let weights = Weights::open(&args.weights)?;
    ensure!(
        !weights.classes().is_empty(),
        "{} is of a pre-training, which has no classes: train a classifier with `trainer finetune \
         --weights {0}`",
        weights.path.display()
    );
    let sets = classes::number(
        open_sets(ranks, &args.read, &weights)?,
        weights.classes(),
        true,
    )?;
    let inference = ClipInference::new(ranks, &args.read, &weights, sets)?;
    Ok((weights, inference))
}

fn build_report(
    args: &EvalArgs,
    weights: &Weights,
    inference: &ClipInference<'_>,
    [of_clips, of_videos]: [&Scores; 2],
    stats: InferenceStats,
) -> EvalReport {
    let names = weights.classes();
    let of_class = |(class, name): (usize, &String)| {
        let [clips, clips_top1, clips_top5] = of_clips.of_class(class);
        let [videos, videos_top1, _] = of_videos.of_class(class);
        ClassReport {
            name: name.clone(),
            clips,
            clips_top1,
            clips_top5,
            videos,
            videos_top1,
        }
    };
    EvalReport {
        weights: weights.path.display().to_string(),
        views: [
            inference.views.temporal as u64,
            inference.views.spatial as u64,
        ],
        clips: of_clips.metrics(),
        videos: of_videos.metrics(),
        classes: names.iter().enumerate().map(of_class).collect(),
        confusion: of_clips.confusion(),
        skipped: stats.skipped,
        seconds: stats.seconds,
        views_per_second: of_clips.count() as f64 * inference.views.count() as f64 / stats.seconds,
        confusion_picture: args
            .confusion
            .as_ref()
            .map(|path| path.display().to_string()),
    }
}

/// Renders the report as text.
fn render_report(report: &EvalReport) -> String {
    let EvalReport {
        clips,
        videos,
        views,
        ..
    } = report;
    let mut text = format!(
        "top-1 {:.2} % of {} videos (top-5 {:.2} %), {:.2} % of {} clips (top-5 {:.2} %); {} x {} \
         views per clip, {:.1} views/s",
        100.0 * videos.top1,
        videos.clips,
        100.0 * videos.top5,
        100.0 * clips.top1,
        clips.clips,
        100.0 * clips.top5,
        views[0],
        views[1],
        report.views_per_second
    );
    if report.skipped > 0 {
        text += &format!(
            "; {} clips could not be read and were skipped",
            report.skipped
        );
    }
    let width = report
        .classes
        .iter()
        .map(|class| class.name.chars().count())
        .max()
        .unwrap_or(0)
        .clamp(5, 40);
    text += &format!(
        "\n\n{:width$}  {:>7}  {:>7}  {:>7}  {:>7}  {:>7}\n",
        "class", "videos", "top-1 %", "clips", "top-1 %", "top-5 %"
    );
    let share = |part: u64, all: u64| {
        if all == 0 {
            "-".to_owned()
        } else {
            format!("{:.1}", 100.0 * part as f64 / all as f64)
        }
    };
    for class in report.classes.iter().take(SHOWN_CLASSES) {
        text += &format!(
            "{:width$}  {:>7}  {:>7}  {:>7}  {:>7}  {:>7}\n",
            class.name,
            class.videos,
            share(class.videos_top1, class.videos),
            class.clips,
            share(class.clips_top1, class.clips),
            share(class.clips_top5, class.clips)
        );
    }
    if let Some(more @ 1..) = report.classes.len().checked_sub(SHOWN_CLASSES) {
        text += &format!("and {more} more classes (--json has all)\n");
    }
    if let Some(picture) = &report.confusion_picture {
        text += &format!("confusion matrix: {picture}\n");
    }
    text.trim_end().to_owned()
}
