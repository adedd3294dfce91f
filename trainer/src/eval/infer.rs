//! Inference on every clip once, averaged over its views, on one rank or several.

use super::EvaluateError;
use crate::backend::{LearnerError, ModelOutput};
use crate::model::ops::softmax_of;
use crate::ranks::{Ranks, RanksError};
use pipeline::loader::batch::Batch;
use pipeline::loader::{LoadError, Loader, LoaderOptions};
use pipeline::source::WeightedSource;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Outputs of a model for a clip.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClipOutput {
    /// Index of its data set.
    pub set: u32,
    /// Index of the clip in its source.
    pub clip: u64,
    /// Class index, if labelled.
    pub label: Option<i32>,
    /// `[width]`: features, [`ModelOutput::features`], averaged over the views.
    #[serde(skip)]
    pub features: Vec<f32>,
    /// `[tokens, width]`: tokens averaged over the views; empty if not requested.
    #[serde(skip)]
    pub tokens: Vec<f32>,
    /// `[classes]`: probabilities averaged over the views; empty for an encoder alone.
    #[serde(skip)]
    pub probabilities: Vec<f32>,
}

/// Runs `infer`, the model, on every clip of `data` once, at the views of `options`. The batches of
/// `options` are those of all ranks together, and each rank computes its part.
///
/// Rank 0 calls `take` with the outputs of all ranks in the order of the clips, several at a time,
/// as soon as all of their views are done, and `on_skipped` with the reason for each clip that
/// cannot be read.
///
/// # Errors
/// When too many clips are bad, the device fails, or `take` does, on the rank where it happens: the
/// others wait until it aborts them ([`Ranks::abort`]). [`LoadError::Interrupted`] on all ranks when
/// the options' flag is set on one.
pub fn infer_all(
    ranks: &Ranks,
    data: &Arc<[WeightedSource]>,
    options: LoaderOptions,
    mut infer: impl FnMut(Batch) -> Result<ModelOutput, LearnerError>,
    mut take: impl FnMut(Vec<ClipOutput>) -> Result<(), EvaluateError>,
    mut on_skipped: impl FnMut(&str),
) -> Result<(), EvaluateError> {
    let limit = options.max_bad;
    let interrupt = Arc::clone(&options.interrupt);
    let views = options.repeat;
    let options = LoaderOptions {
        rank: ranks.rank(),
        keeps_empty: true,
        ..options
    };
    let mut loader = Loader::new(Arc::clone(data), options)?;
    let mut bad = 0;
    loop {
        let mut own = Part::default();
        for view in 0..views {
            let batch = match loader.next() {
                Some(Err(LoadError::Interrupted)) => None,
                Some(batch) => Some(batch?),
                None => break,
            };
            // The loader checks the flag only while it waits.
            let batch = batch.filter(|_| !interrupt.load(Ordering::SeqCst));
            let Some(batch) = batch else {
                own.state = State::Stopped;
                break;
            };
            own.state = State::Running;
            own.add(batch, view, views, &mut infer)?;
        }
        let parts = own.of_all(ranks)?;
        if ranks.is_root() {
            let reasons = parts.iter().flat_map(|part| &part.skipped);
            reasons.for_each(|reason| on_skipped(reason));
        }
        bad += parts.iter().map(|part| part.skipped.len()).sum::<usize>();
        if bad > limit {
            let last = parts.into_iter().flat_map(|part| part.skipped).next_back();
            let last = last.unwrap_or_default();
            return Err(RanksError::TooManyBad { limit, last }.into());
        }
        if parts.iter().all(|part| part.state == State::Ended) {
            return Ok(());
        }
        let outputs: Vec<ClipOutput> = parts.into_iter().flat_map(|part| part.clips).collect();
        if ranks.is_root() && !outputs.is_empty() {
            take(outputs)?;
        }
    }
}

/// What a rank has made of its part of a batch, or why it has none.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Part {
    state: State,
    /// Why clips could not be read.
    skipped: Vec<String>,
    /// With their values on the rank that made them, and on rank 0.
    clips: Vec<ClipOutput>,
    /// Values of a clip: of features, tokens and probabilities.
    lengths: [usize; 3],
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    /// There are no more clips.
    #[default]
    Ended,
    Running,
    /// The user wants to stop.
    Stopped,
}

impl Part {
    /// Adds view `view` of the clips, one of `views`.
    fn add(
        &mut self,
        batch: Batch,
        view: usize,
        views: usize,
        infer: impl FnOnce(Batch) -> Result<ModelOutput, LearnerError>,
    ) -> Result<(), LearnerError> {
        let skipped = batch.skipped.iter().map(|skipped| skipped.reason.clone());
        self.skipped.extend(skipped);
        if batch.is_empty() {
            return Ok(());
        }
        let samples = batch.samples.clone();
        let labels = batch.labels.clone();
        let ModelOutput {
            features,
            tokens,
            logits,
        } = infer(batch)?;
        if view == 0 {
            self.lengths = [&features, &tokens, &logits].map(|all| all.len() / samples.len());
            let [width, values, classes] = self.lengths;
            let clips = samples.iter().zip(labels);
            self.clips = clips
                .map(|(sample, label)| ClipOutput {
                    set: sample.set,
                    clip: sample.clip,
                    label,
                    features: vec![0.0; width],
                    tokens: vec![0.0; values],
                    probabilities: vec![0.0; classes],
                })
                .collect();
        }
        let [width, values, classes] = self.lengths;
        for (at, clip) in self.clips.iter_mut().enumerate() {
            let features = &features[at * width..(at + 1) * width];
            add_share(&mut clip.features, features, views);
            add_share(
                &mut clip.tokens,
                &tokens[at * values..(at + 1) * values],
                views,
            );
            if classes > 0 {
                let logits = &logits[at * classes..(at + 1) * classes];
                add_share(&mut clip.probabilities, &softmax_of(logits), views);
            }
        }
        Ok(())
    }

    /// The parts of all ranks; rank 0 gets the values too.
    fn of_all(self, ranks: &Ranks) -> Result<Vec<Self>, LoadError> {
        let mut parts = if ranks.count() == 1 {
            vec![self]
        } else {
            let own = serde_json::to_vec(&self).expect("plain data becomes JSON");
            let all = ranks.gather_bytes(&own);
            let parts = all.iter().map(|part| serde_json::from_slice(part));
            let mut parts: Vec<Self> = parts.collect::<Result<_, _>>().expect("as it was written");
            parts[ranks.number()] = self;
            parts
        };
        if parts.iter().any(|part| part.state == State::Stopped) {
            return Err(LoadError::Interrupted);
        }
        if !ranks.is_root() {
            let own = &parts[ranks.number()].clips;
            let values = own
                .iter()
                .flat_map(|clip| [&clip.features, &clip.tokens, &clip.probabilities])
                .flatten();
            ranks.send_to_root(&values.copied().collect::<Vec<f32>>());
            return Ok(parts);
        }
        for (rank, part) in parts.iter_mut().enumerate().skip(1) {
            let length = part.clips.len() * part.lengths.iter().sum::<usize>();
            let mut values = ranks.receive(rank, length).into_iter();
            let [width, tokens, classes] = part.lengths;
            for clip in &mut part.clips {
                clip.features = values.by_ref().take(width).collect();
                clip.tokens = values.by_ref().take(tokens).collect();
                clip.probabilities = values.by_ref().take(classes).collect();
            }
        }
        Ok(parts)
    }
}

fn add_share(sum: &mut [f32], values: &[f32], of: usize) {
    sum.iter_mut()
        .zip(values)
        .for_each(|(sum, &value)| *sum += value / of as f32);
}
