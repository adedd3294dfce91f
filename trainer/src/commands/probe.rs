//! `trainer finetune --freeze`: trains probes on features of the frozen encoder.

use crate::cli::FinetuneArgs;
use crate::commands::{session, together};
use anyhow::ensure;
use candle_core::Device;
use console::progress::Progress;
use console::{interrupt, output};
use pipeline::loader::LoaderOptions;
use pipeline::source::WeightedSource;
use pipeline::{all_cores, physical_cores};
use schemas::report::{ProbeReport, ProbeScores};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use trainer::backend::InferenceModel;
use trainer::config::{FinetuneConfig, Task};
use trainer::data::classes::Split;
use trainer::ranks::Ranks;
use trainer::train::Loading;
use trainer::train::probes::{self, AttentiveProbe, Features, LinearProbe};
use trainer::train::weights::Weights;

/// Clips per batch of inference.
const BATCH: usize = 4;

/// What probes are trained on.
pub struct Probe {
    /// Of the clips and classes.
    pub config: FinetuneConfig,
    /// Whose encoder is used.
    pub weights: Weights,
    /// The clips.
    pub split: Split,
    /// Where the encoder computes.
    pub device: Device,
}

impl Probe {
    /// Trains the probes, and prints their scores. The features are made by all ranks, the rest by
    /// rank 0.
    ///
    /// # Errors
    /// When clips cannot be read, or the disk is full.
    pub fn train(&self, ranks: &Ranks, args: &FinetuneArgs) -> anyhow::Result<ExitCode> {
        let Self {
            config,
            weights,
            split,
            device,
        } = self;
        let task = Task::from(config.clone());
        let sets = [Some(&split.train), split.validation.as_ref()]
            .into_iter()
            .flatten();
        let all: Vec<WeightedSource> = sets.flat_map(|sets| sets.iter().cloned()).collect();
        together::check_inference(ranks, &all, weights, &task.to_toml())?;
        let dir = together::folder(ranks, || {
            session::create(args.out.as_deref(), "probe", &task)
        })?;
        let threads = args.compute.threads(ranks.share_of(physical_cores()));
        let dtype = config.common.compute.dtype;
        let encoder = weights
            .encoder_only()
            .inference_model(device, dtype, threads)?;
        let mut extractor = Extractor {
            ranks,
            loading: args.load.loading(ranks.share_of(all_cores())),
            config,
            encoder,
            dir: &dir,
        };
        let train = extractor.extract(&split.train, "the training clips")?;
        let validation = split.validation.as_ref();
        let validation = validation
            .map(|sets| extractor.extract(sets, "the validation clips"))
            .transpose()?;
        let Some(train) = train else {
            return Ok(ExitCode::SUCCESS);
        };
        let report = self.train_on(&dir, &train, validation.flatten().as_ref())?;
        output::print(&if args.json {
            serde_json::to_string_pretty(&report)?
        } else {
            render_report(&report)
        })?;
        Ok(ExitCode::SUCCESS)
    }

    /// Trains on features, and saves the probes in `dir`.
    fn train_on(
        &self,
        dir: &Path,
        train: &Features,
        validation: Option<&Features>,
    ) -> anyhow::Result<ProbeReport> {
        let Self {
            config, weights, ..
        } = self;
        ensure!(!train.is_empty(), "no clip could be read");
        let linear = LinearProbe::train(train, config)?;
        let progress = Progress::new(0, "attentive probe: epoch {pos}/{len}");
        let attentive = AttentiveProbe::train(train, config, |epoch, epochs| {
            progress.set(epoch as u64, epochs as u64, String::new());
        })?;
        progress.finish();
        let scores =
            |features: &Features| -> anyhow::Result<[schemas::report::ValidationMetrics; 2]> {
                Ok([
                    linear.scores(features).metrics(),
                    attentive.scores(features)?.metrics(),
                ])
            };
        let of_train = scores(train)?;
        let of_validation = validation.map(scores).transpose()?;
        // The linear probe is saved as a classifier.
        let folder = probes::save(dir, config, weights, &linear, &attentive)?;
        let scores_of = |at: usize| ProbeScores {
            train: of_train[at],
            validation: of_validation.map(|scores| scores[at]),
        };
        Ok(ProbeReport {
            weights: weights.path.display().to_string(),
            out: dir.display().to_string(),
            linear: scores_of(0),
            attentive: scores_of(1),
            classifier: folder.display().to_string(),
        })
    }
}

/// What features are made with.
struct Extractor<'a> {
    ranks: &'a Ranks,
    loading: Loading,
    config: &'a FinetuneConfig,
    encoder: InferenceModel,
    /// Folder of the files of tokens.
    dir: &'a Path,
}

impl Extractor<'_> {
    /// Runs the encoder on every clip of `sets`, with a progress bar. Rank 0 gets the features.
    fn extract(
        &mut self,
        sets: &Arc<[WeightedSource]>,
        name: &str,
    ) -> anyhow::Result<Option<Features>> {
        let Self { ranks, config, .. } = self;
        let options = LoaderOptions {
            interrupt: interrupt::flag(),
            frame_order: config.common.data.frame_order,
            ..self
                .loading
                .options(BATCH * ranks.count(), config.common.clip)
        };
        let clips = sets.iter().map(|set| set.len() as u64).sum();
        let progress = ranks
            .is_root()
            .then(|| Progress::new(clips, &format!("features of {name}: clip {{pos}}/{{len}}")));
        let features = probes::extract(
            (ranks, &mut self.encoder),
            (self.dir, config.common.encoder.width),
            sets,
            options,
            |clips| {
                if let Some(progress) = &progress {
                    progress.advance(clips as u64, String::new());
                }
            },
            |reason| {
                if let Some(progress) = &progress {
                    progress.say(&format!("warning: skipped: {reason}"));
                }
            },
        );
        if let Some(progress) = progress {
            progress.finish();
        }
        Ok(features?)
    }
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
