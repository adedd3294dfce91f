//! `trainer finetune --freeze`: trains probes on features of the frozen encoder.

use crate::cli::FinetuneArgs;
use crate::commands::session;
use anyhow::{Context, ensure};
use candle_core::Device;
use console::progress::Progress;
use console::{interrupt, output};
use pipeline::all_cores;
use pipeline::loader::LoaderOptions;
use pipeline::loader::batch::Skipped;
use pipeline::sampling::sample::Views;
use pipeline::source::WeightedSource;
use schemas::report::{ProbeReport, ProbeScores};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use trainer::backend::InferenceModel;
use trainer::config::{FinetuneConfig, Task};
use trainer::data::classes::Split;
use trainer::eval;
use trainer::train::probes::{self, AttentiveProbe, Features, LinearProbe, TokenFile};
use trainer::train::weights::Weights;

/// Clips per batch of inference.
const BATCH: usize = 4;

/// Trains the probes, and prints their scores.
///
/// # Errors
/// When clips cannot be read, or the disk is full.
pub fn probe(
    args: &FinetuneArgs,
    config: &FinetuneConfig,
    weights: &Weights,
    split: Split,
    device: Device,
) -> anyhow::Result<ExitCode> {
    let dir = session::create(args.out.as_deref(), "probe", &Task::from(config.clone()))?;
    let dtype = config.common.compute.dtype;
    let mut encoder =
        weights
            .encoder_only()
            .inference_model(&device, dtype, args.compute.threads())?;
    let mut extract = |sets: &Arc<[WeightedSource]>, name: &str| {
        extract_features(args, config, &mut encoder, &dir, sets, name)
    };
    let train = extract(&split.train, "the training clips")?;
    let validation = split
        .validation
        .as_ref()
        .map(|sets| extract(sets, "the validation clips"))
        .transpose()?;
    ensure!(!train.is_empty(), "no clip could be read");
    let classes = config.objective.classes.len();
    let linear = LinearProbe::train(&train, classes, config.common.seed)?;
    let progress = Progress::new(0, "attentive probe: epoch {pos}/{len}");
    let attentive = AttentiveProbe::train(
        &train,
        classes,
        config.common.encoder.heads,
        config.common.seed,
        |epoch, epochs| {
            progress.set(epoch as u64, epochs as u64, String::new());
        },
    )?;
    progress.finish();
    let scores = |features: &Features| -> anyhow::Result<[schemas::report::ValidationMetrics; 2]> {
        Ok([
            linear.scores(features)?.metrics(),
            attentive.scores(features)?.metrics(),
        ])
    };
    let of_train = scores(&train)?;
    let of_validation = validation.as_ref().map(scores).transpose()?;
    // The linear probe is saved as a classifier.
    let folder = probes::save(&dir, config, weights, &linear, &attentive)?;
    let scores_of = |at: usize| ProbeScores {
        train: of_train[at],
        validation: of_validation.map(|scores| scores[at]),
    };
    let report = ProbeReport {
        weights: weights.path.display().to_string(),
        out: dir.display().to_string(),
        linear: scores_of(0),
        attentive: scores_of(1),
        classifier: folder.display().to_string(),
    };
    output::print(&if args.json {
        serde_json::to_string_pretty(&report)?
    } else {
        render_report(&report)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Runs the encoder on every clip of `sets`, with a progress bar.
fn extract_features(
    args: &FinetuneArgs,
    config: &FinetuneConfig,
    encoder: &mut InferenceModel,
    dir: &Path,
    sets: &Arc<[WeightedSource]>,
    name: &str,
) -> anyhow::Result<Features> {
    let grid = config.common.clip;
    let options = args
        .load
        .loading(all_cores())
        .options(BATCH, grid)
        .once(Views::ONE);
    let options = LoaderOptions {
        memory: encoder.memory(),
        interrupt: interrupt::flag(),
        ..options
    };
    let clips = sets.iter().map(|set| set.len() as u64).sum();
    let progress = Progress::new(clips, &format!("features of {name}: clip {{pos}}/{{len}}"));
    let tokens = TokenFile::create(dir, grid.tokens(), config.common.encoder.width)?;
    let mut features = Features::new(config.common.encoder.width, tokens);
    let on_skipped =
        |skipped: &Skipped| progress.say(&format!("warning: skipped: {}", skipped.reason));
    let take = |clips: Vec<eval::ClipOutput>| {
        progress.advance(clips.len() as u64, String::new());
        clips
            .iter()
            .try_for_each(|clip| features.push(clip))
            .map_err(|error| eval::EvaluateError::Write(error.into()))
    };
    eval::infer_all(
        sets,
        options,
        |batch| encoder.infer(batch, true),
        take,
        on_skipped,
    )?;
    progress.finish();
    features.finish().context("features")
}

/// Renders the report as text.
fn render_report(report: &ProbeReport) -> String {
    let render_scores = |name: &str, scores: &ProbeScores| {
        let validation = scores
            .validation
            .map_or("no validation clips".to_owned(), |metrics| {
                format!(
                    "validation top-1 {:.1} %, top-5 {:.1} % of {} clips",
                    100.0 * metrics.top1,
                    100.0 * metrics.top5,
                    metrics.clips
                )
            });
        format!(
            "{name:<16} {validation}; training top-1 {:.1} % of {} clips",
            100.0 * scores.train.top1,
            scores.train.clips
        )
    };
    format!(
        "{}\n{}\nthe linear probe as a classifier: {}",
        render_scores("linear probe", &report.linear),
        render_scores("attentive probe", &report.attentive),
        report.classifier
    )
}
