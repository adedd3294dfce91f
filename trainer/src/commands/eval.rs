//! `trainer eval`: how right a classifier is, by clip and by video.

use crate::cli::EvalArgs;
use crate::commands::inference::{self, Inference, Tally};
use anyhow::{Context, ensure};
use console::{interrupt, output};
use pipeline::atomic_file;
use schemas::report::{ClassReport, EvalReport};
use std::collections::BTreeMap;
use trainer::data::classes;
use trainer::eval::Scores;
use trainer::plot::{confusion, png};
use trainer::train::weights::Weights;

/// Classes whose lines are printed, at most; the others are counted. --json has all.
const SHOWN_CLASSES: usize = 40;

/// Runs the command.
///
/// # Errors
/// What the user can mend: weights that are no classifier's, clips without labels, classes that differ.
pub fn eval(args: &EvalArgs) -> anyhow::Result<()> {
    interrupt::listen()?;
    let weights = Weights::open(&args.weights)?;
    ensure!(
        !weights.classes().is_empty(),
        "{} is of a pre-training, which knows no classes: `trainer finetune --weights {0}` makes a classifier of it",
        weights.path.display()
    );
    let sets = classes::number(inference::open(&args.read, &weights)?, weights.classes(), true)?;
    let mut reading = Inference::new(&args.read, &weights, sets)?;
    let (mut of_clips, mut of_videos) = (Scores::new(weights.classes().len()), Scores::new(weights.classes().len()));
    // Of each video the sum of its clips' probabilities, and its class.
    let mut videos: BTreeMap<(u32, u32), (Vec<f32>, Option<i32>)> = BTreeMap::new();
    let catalogues = reading.catalogues.clone();
    let tally = reading.run(false, |clips| {
        for clip in clips {
            of_clips.add(&clip.probabilities, clip.label);
            let video = catalogues[clip.set as usize].clips[clip.clip as usize].video;
            let (sum, _) = videos.entry((clip.set, video)).or_insert_with(|| (vec![0.0; clip.probabilities.len()], clip.label));
            sum.iter_mut().zip(&clip.probabilities).for_each(|(sum, &probability)| *sum += probability);
        }
        Ok(())
    })?;
    for (mut probabilities, label) in videos.into_values() {
        let sum: f32 = probabilities.iter().sum();
        probabilities.iter_mut().for_each(|probability| *probability /= sum);
        of_videos.add(&probabilities, label);
    }
    ensure!(of_clips.count() > 0, "no clip could be read");
    if let Some(path) = &args.confusion {
        let written = png(&confusion::draw(&of_clips, weights.classes())).and_then(|png| atomic_file::write(path, &png));
        written.with_context(|| format!("cannot write {}", path.display()))?;
    }
    let report = report(args, &weights, &reading, [&of_clips, &of_videos], tally);
    Ok(output::print(&if args.json { serde_json::to_string_pretty(&report)? } else { table(&report) })?)
}

fn report(args: &EvalArgs, weights: &Weights, reading: &Inference, [of_clips, of_videos]: [&Scores; 2], tally: Tally) -> EvalReport {
    let names = weights.classes();
    let of_class = |(class, name): (usize, &String)| {
        let ([clips, clips_top1, clips_top5], [videos, videos_top1, _]) = (of_clips.of_class(class), of_videos.of_class(class));
        ClassReport { name: name.clone(), clips, clips_top1, clips_top5, videos, videos_top1 }
    };
    EvalReport {
        weights: weights.path.display().to_string(),
        views: [reading.views.temporal as u64, reading.views.spatial as u64],
        clips: of_clips.metrics(),
        videos: of_videos.metrics(),
        classes: names.iter().enumerate().map(of_class).collect(),
        confusion: (0..names.len()).map(|class| (0..names.len()).map(|told| of_clips.confused(class, told)).collect()).collect(),
        skipped: tally.skipped,
        seconds: tally.seconds,
        views_per_second: of_clips.count() as f64 * reading.views.count() as f64 / tally.seconds,
        confusion_picture: args.confusion.as_ref().map(|path| path.display().to_string()),
    }
}

/// The report for people.
fn table(report: &EvalReport) -> String {
    let EvalReport { clips, videos, views, .. } = report;
    let mut text = format!(
        "top-1 {:.2} % of {} videos (top-5 {:.2} %), {:.2} % of {} clips (top-5 {:.2} %); {} x {} views of a clip, {:.1} views/s",
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
        text += &format!("; {} clips could not be read and count for nothing", report.skipped);
    }
    let width = report.classes.iter().map(|class| class.name.chars().count()).max().unwrap_or(0).clamp(5, 40);
    text += &format!("\n\n{:width$}  {:>7}  {:>7}  {:>7}  {:>7}  {:>7}\n", "class", "videos", "top-1 %", "clips", "top-1 %", "top-5 %");
    let share = |part: u64, all: u64| if all == 0 { "-".to_owned() } else { format!("{:.1}", 100.0 * part as f64 / all as f64) };
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
