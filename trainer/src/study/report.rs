//! The report of a study: accuracies, differences, times; and a table of it.

use super::arm::{Arm, Draw};
use super::compare::difference;
use super::plan::Study;
use super::runs::Predictions;
use super::setup::Setup;
use super::{Settings, StudyError};
use crate::eval::videos::{VideoPrediction, scores_of};
use crate::log::History;
use schemas::report::{StudyArm, StudyReport, StudyRun, StudyVideo};
use std::collections::BTreeMap;
use std::path::Path;

/// Steps at the end of a pre-training over which the reported loss is averaged.
const LAST_STEPS: usize = 50;

/// The report on finished runs; `evaluations` by the names of their runs.
pub(super) fn build(
    study: Study,
    setup: Setup,
    settings: &Settings,
    classes: Vec<String>,
    arms: &[Arm],
    evaluations: &BTreeMap<String, Predictions>,
) -> Result<StudyReport, StudyError> {
    let of_run = |arm: &Arm, draw: Draw| {
        let dir = settings.out.join(arm.run(draw));
        let pretraining = arm.pretraining.as_ref();
        let pretrained = pretraining
            .map(|pretraining| Figures::read(&settings.out.join(pretraining.run(draw.seed))))
            .transpose()?;
        let finetune = match arm.measure {
            super::Measure::FineTuned { .. } => Figures::read(&dir)?.seconds,
            super::Measure::Linear | super::Measure::Attentive => 0.0,
        };
        let videos = &evaluations[&arm.run(draw)][arm.measure.name()];
        let scores = scores_of(videos, classes.len()).metrics();
        let pretrained_or_0 = |figure: fn(&Figures) -> f64| pretrained.as_ref().map_or(0.0, figure);
        Ok(StudyRun {
            seed: draw.seed,
            repeat: draw.repeat,
            top1: scores.top1,
            validation_loss: scores.loss,
            pretrain_loss: pretrained.as_ref().map(|figures| figures.loss),
            pretrain_seconds: pretrained_or_0(|figures| figures.seconds),
            pretrain_step_seconds: pretrained_or_0(|figures| figures.step_seconds),
            pretrain_wait_seconds: pretrained_or_0(|figures| figures.wait_seconds),
            finetune_seconds: finetune,
            dir: dir.display().to_string(),
            videos: videos.iter().map(reported).collect(),
        })
    };
    let of_arm = |arm: &Arm| -> Result<StudyArm, StudyError> {
        let runs = settings
            .draws()
            .map(|draw| of_run(arm, draw))
            .collect::<Result<Vec<_>, StudyError>>()?;
        Ok(StudyArm {
            series: arm.series.to_owned(),
            name: arm.name.clone(),
            runs,
            difference: None,
        })
    };
    let mut reported: Vec<StudyArm> = arms.iter().map(of_arm).collect::<Result<_, _>>()?;
    for at in 0..reported.len() {
        let arm = &reported[at];
        let other = reported
            .iter()
            .find(|other| study.compares(setup, arm, other));
        reported[at].difference = other.map(|other| difference(arm, other));
    }
    Ok(StudyReport {
        name: study.name().to_owned(),
        axis: study.axis().to_owned(),
        classes,
        arms: reported,
    })
}

fn reported(video: &VideoPrediction) -> StudyVideo {
    StudyVideo {
        video: video.video.clone(),
        label: video.label,
        predicted: video.predicted() as u32,
    }
}

/// Figures of a training.
struct Figures {
    /// Mean loss over the last steps.
    loss: f64,
    /// Of all steps.
    seconds: f64,
    /// Median of a step.
    step_seconds: f64,
    /// Of waiting for data.
    wait_seconds: f64,
}

impl Figures {
    /// Reads the metrics of the run in `dir`.
    fn read(dir: &Path) -> Result<Self, StudyError> {
        let steps = History::read(dir)?.steps;
        let last = &steps[steps.len().saturating_sub(LAST_STEPS)..];
        let mut sorted: Vec<f64> = steps.iter().map(|step| step.step_seconds).collect();
        sorted.sort_by(f64::total_cmp);
        Ok(Self {
            loss: last.iter().map(|step| step.loss).sum::<f64>() / last.len() as f64,
            seconds: sorted.iter().sum(),
            step_seconds: sorted.get(sorted.len() / 2).copied().unwrap_or(0.0),
            wait_seconds: steps.iter().map(|step| step.wait_seconds).sum(),
        })
    }
}

/// Accuracies of an arm's runs, in %: their mean, standard deviation, minimum and maximum.
pub fn accuracies(arm: &StudyArm) -> [f64; 4] {
    let values = || arm.runs.iter().map(|run| 100.0 * run.top1);
    let count = arm.runs.len() as f64;
    let mean = values().sum::<f64>() / count;
    let squares = values().map(|value| (value - mean).powi(2)).sum::<f64>();
    [
        mean,
        (squares / (count - 1.0).max(1.0)).sqrt(),
        values().fold(f64::INFINITY, f64::min),
        values().fold(f64::NEG_INFINITY, f64::max),
    ]
}

/// A probability with three digits, as tables have it.
fn probability(p: f64) -> String {
    if p < 0.001 {
        "< 0.001".to_owned()
    } else {
        format!("{p:.3}")
    }
}

/// Renders the result as a Markdown table: the accuracy by video with its standard deviation over
/// several runs, and the difference to the arm that each is compared with, with the probabilities
/// of one as large by chance of the videos and by chance of training.
pub fn render_table(report: &StudyReport) -> String {
    let mut text = format!(
        "| | {} | accuracy, % | difference, points | better, worse | p, videos | \
         p, runs | pre-training loss | pre-training, s | ms per step | fine-tuning, s |\n",
        report.axis
    );
    text += "|---|---|---|---|---|---|---|---|---|---|---|\n";
    for arm in &report.arms {
        let [mean, deviation, ..] = accuracies(arm);
        // One run has no deviation.
        let accuracy = if arm.runs.len() > 1 {
            format!("{mean:.1} ± {deviation:.1}")
        } else {
            format!("{mean:.1}")
        };
        let average = |value: &dyn Fn(&StudyRun) -> f64| {
            arm.runs.iter().map(value).sum::<f64>() / arm.runs.len() as f64
        };
        let or_dash = |value: f64, digits: usize| {
            if value > 0.0 {
                format!("{value:.digits$}")
            } else {
                "-".to_owned()
            }
        };
        let difference = arm.difference.as_ref().map_or_else(
            || "- | - | - | -".to_owned(),
            |difference| {
                format!(
                    "{:+.1} vs {} | {}, {} | {} | {}",
                    difference.points,
                    difference.from,
                    difference.better,
                    difference.worse,
                    probability(difference.p_videos),
                    probability(difference.p_runs)
                )
            },
        );
        text += &format!(
            "| {} | {} | {accuracy} | {difference} | {} | {} | {} | {} |\n",
            arm.series,
            arm.name,
            or_dash(average(&|run| run.pretrain_loss.unwrap_or(0.0)), 3),
            or_dash(average(&|run| run.pretrain_seconds), 0),
            or_dash(1e3 * average(&|run| run.pretrain_step_seconds), 0),
            or_dash(average(&|run| run.finetune_seconds), 0),
        );
    }
    text
}
