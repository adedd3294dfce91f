//! `trainer finetune --freeze`: heads on features of the encoder as it is.

use crate::cli::{FinetuneArgs, all_cores};
use crate::{cli::output, commands::session};
use anyhow::{Context, ensure};
use candle_core::Device;
use indicatif::{ProgressBar, ProgressDrawTarget};
use pipeline::loader::LoaderOptions;
use pipeline::loader::batch::Skipped;
use pipeline::sampling::sample::Views;
use pipeline::source::WeightedSource;
use schemas::report::{ProbeReport, ProbeScores};
use std::process::ExitCode;
use std::sync::Arc;
use trainer::config::{FinetuneConfig, Task};
use trainer::data::classes::Split;
use trainer::eval;
use trainer::train::probes::{self, AttentiveProbe, Features, LinearProbe, TokenFile};
use trainer::train::weights::Weights;

/// Clips that are read at a time.
const BATCH: usize = 4;

/// Trains the probes and says how they do.
///
/// # Errors
/// When clips cannot be read, or the disk is full.
pub fn probe(args: &FinetuneArgs, config: &FinetuneConfig, weights: &Weights, split: Split, device: Device) -> anyhow::Result<ExitCode> {
    let dir = session::create(args.out.as_deref(), "probe", &Task::from(config.clone()))?;
    let mut encoder = weights.encoder_only().reader(&device, config.compute.dtype, args.compute.threads())?;
    let mut read = |sets: &Arc<[WeightedSource]>, what: &str| -> anyhow::Result<Features> {
        let grid = config.clip;
        let options = args.load.loading(all_cores()).options(BATCH, grid).once(Views::ONE);
        let options = LoaderOptions { memory: encoder.memory(), interrupt: crate::cli::interrupt::flag(), ..options };
        let clips = sets.iter().map(|set| set.len() as u64).sum();
        let bar = ProgressBar::with_draw_target(Some(clips), ProgressDrawTarget::stderr());
        bar.set_style(output::bar_style(&format!("features of {what}: clip {{pos}}/{{len}}  {{per_sec}}")));
        let tokens = TokenFile::create(&dir, grid.tokens(), config.encoder.width)?;
        let mut features = Features::new(config.encoder.width, tokens);
        let on_skipped = |skipped: &Skipped| bar.suspend(|| output::say(&format!("warning: left out: {}", skipped.reason)));
        let take = |clips: Vec<eval::ClipOutput>| {
            bar.inc(clips.len() as u64);
            clips.iter().try_for_each(|clip| features.push(clip)).map_err(|error| eval::EvaluateError::Write(error.into()))
        };
        eval::read_all(sets, options, |batch| encoder.infer(batch, true), take, on_skipped)?;
        bar.finish_and_clear();
        features.finish().context("features")
    };
    let train = read(&split.train, "the training clips")?;
    let validation = split.validation.as_ref().map(|sets| read(sets, "the validation clips")).transpose()?;
    ensure!(!train.is_empty(), "no clip could be read");
    let classes = config.classes.len();
    let spinner = ProgressBar::new_spinner().with_message("linear probe");
    let linear = LinearProbe::train(&train, classes, config.seed)?;
    spinner.set_message("attentive probe");
    let attentive = AttentiveProbe::train(&train, classes, config.encoder.heads, config.seed, |epoch, epochs| {
        spinner.set_message(format!("attentive probe: epoch {epoch}/{epochs}"));
        spinner.tick();
    })?;
    spinner.finish_and_clear();
    let scores = |features: &Features| -> anyhow::Result<[schemas::report::ValidationMetrics; 2]> {
        Ok([linear.scores(features)?.metrics(), attentive.scores(features)?.metrics()])
    };
    let of_train = scores(&train)?;
    let of_validation = validation.as_ref().map(scores).transpose()?;
    // The linear probe is a classifier like any other.
    let folder = probes::save(&dir, config, weights, &linear, &attentive)?;
    let report = |at: usize| ProbeScores { train: of_train[at], validation: of_validation.map(|scores| scores[at]) };
    let report = ProbeReport {
        weights: weights.path.display().to_string(),
        out: dir.display().to_string(),
        linear: report(0),
        attentive: report(1),
        classifier: folder.display().to_string(),
    };
    let line = |name: &str, scores: &ProbeScores| {
        let validation = scores.validation.map_or("no validation clips".to_owned(), |metrics| {
            format!("validation top-1 {:.1} %, top-5 {:.1} % of {} clips", 100.0 * metrics.top1, 100.0 * metrics.top5, metrics.clips)
        });
        format!("{name:<16} {validation}; training top-1 {:.1} % of {} clips", 100.0 * scores.train.top1, scores.train.clips)
    };
    output::print(&if args.json {
        serde_json::to_string_pretty(&report)?
    } else {
        format!(
            "{}\n{}\nthe linear probe as a classifier: {}",
            line("linear probe", &report.linear),
            line("attentive probe", &report.attentive),
            report.classifier
        )
    })?;
    Ok(ExitCode::SUCCESS)
}
