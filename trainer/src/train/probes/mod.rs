//! Probes of a frozen encoder: a linear classifier of the mean of the tokens, and an attentive
//! classifier of all of them.

mod features;

pub use features::{Features, extract};

use crate::config::{FinetuneConfig, Task};
use crate::eval::Scores;
use crate::log::CONFIG_FILE;
use crate::model::loss::{cross_entropy, smoothed_targets};
use crate::model::ops::softmax_of;
use crate::model::{AttentivePool, Head, Parameters};
use crate::optim::Schedule;
use crate::optim::{AdamW, AdamWConfig};
use crate::train::checkpoint::MODEL_FILE;
use crate::train::weights::Weights;
use candle_core::{Device, Result, Tensor};
use pipeline::atomic_file;
use pipeline::sampling::order::{Purpose, stream};
use rand::seq::SliceRandom;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Folder of the linear probe as a classifier, inside the folder of the probes.
const LINEAR_DIR: &str = "linear";

/// File of the attentive probe's weights.
const ATTENTIVE_FILE: &str = "attentive.safetensors";

/// Training of the heads.
const LINEAR: Recipe = Recipe {
    epochs: 200,
    batch: 256,
    rate: 3e-3,
    weight_decay: 0.01,
};
const ATTENTIVE: Recipe = Recipe {
    epochs: 40,
    batch: 32,
    rate: 1e-3,
    weight_decay: 0.05,
};

#[derive(Debug, Clone, Copy)]
struct Recipe {
    epochs: usize,
    batch: usize,
    /// Peak learning rate, not scaled with the batch.
    rate: f64,
    weight_decay: f64,
}

/// A linear classifier of features.
#[derive(Debug)]
pub struct LinearProbe {
    /// `[classes, width]`
    weight: Vec<f32>,
    /// `[classes]`
    bias: Vec<f32>,
    classes: usize,
}

impl LinearProbe {
    /// Trains by logistic regression on features normalised to mean 0 and variance 1 over the
    /// training clips. The result includes the normalisation: it takes features as they are.
    ///
    /// # Errors
    /// When candle fails.
    pub fn train(features: &Features, config: &FinetuneConfig) -> Result<Self> {
        let (classes, seed) = (config.objective.classes.len(), config.common.seed);
        let (width, count) = (features.width, features.len() as f64);
        let (mut mean, mut deviation) = (vec![0f64; width], vec![0f64; width]);
        let rows = || features.means.chunks_exact(width);
        rows().for_each(|row| {
            mean.iter_mut()
                .zip(row)
                .for_each(|(mean, &value)| *mean += f64::from(value) / count)
        });
        for row in rows() {
            deviation
                .iter_mut()
                .zip(row)
                .zip(&mean)
                .for_each(|((sum, &value), mean)| {
                    *sum += (f64::from(value) - mean).powi(2) / count
                });
        }
        deviation
            .iter_mut()
            .for_each(|variance| *variance = (*variance + 1e-6).sqrt());
        let single = |values: &[f64]| {
            Tensor::from_vec(
                values.iter().map(|&value| value as f32).collect::<Vec<_>>(),
                width,
                &Device::Cpu,
            )
        };
        let (centre, scale) = (single(&mean)?, single(&deviation)?);
        let (head, parameters) = Head::seeded(width, classes, seed)?;
        let logits = |clips: &[usize]| {
            head.forward(
                &features
                    .means_of(clips)?
                    .broadcast_sub(&centre)?
                    .broadcast_div(&scale)?,
            )
        };
        fit(
            LINEAR,
            &parameters,
            &features.labels,
            config,
            logits,
            |_, _| (),
        )?;
        let [weight, bias] = ["head.weight", "head.bias"].map(|name| values(&parameters, name));
        let (mut weight, mut bias) = (weight?, bias?);
        // W (x - mean) / deviation + b = (W / deviation) x + (b - W mean / deviation)
        for (row, bias) in weight.chunks_exact_mut(width).zip(&mut bias) {
            let mut shift = 0.0;
            for ((weight, mean), deviation) in row.iter_mut().zip(&mean).zip(&deviation) {
                *weight = (f64::from(*weight) / deviation) as f32;
                shift += f64::from(*weight) * mean;
            }
            *bias = (f64::from(*bias) - shift) as f32;
        }
        Ok(Self {
            weight,
            bias,
            classes,
        })
    }

    /// `[clips, classes]`: probabilities of clips.
    pub fn probabilities(&self, features: &Features) -> Vec<Vec<f32>> {
        let logit = |(row, bias): (&[f32], &f32), feature: &[f32]| {
            let products = row
                .iter()
                .zip(feature)
                .map(|(weight, value)| weight * value);
            products.sum::<f32>() + bias
        };
        let of_clip = |feature: &[f32]| {
            let rows = self.weight.chunks_exact(features.width).zip(&self.bias);
            softmax_of(&rows.map(|row| logit(row, feature)).collect::<Vec<f32>>())
        };
        let clips = features.means.chunks_exact(features.width);
        clips.map(of_clip).collect()
    }

    /// Scores on clips.
    pub fn scores(&self, features: &Features) -> Scores {
        features.scores(&self.probabilities(features), self.classes)
    }
}

/// A classifier of tokens, pooled by attention.
#[derive(Debug)]
pub struct AttentiveProbe {
    pool: AttentivePool,
    parameters: Parameters,
    classes: usize,
}

impl AttentiveProbe {
    /// Trains with as many heads as the encoder has; calls `on_epoch` with the epochs done and their
    /// total.
    ///
    /// # Errors
    /// When candle fails.
    pub fn train(
        features: &Features,
        config: &FinetuneConfig,
        on_epoch: impl FnMut(usize, usize),
    ) -> Result<Self> {
        let (classes, seed) = (config.objective.classes.len(), config.common.seed);
        let heads = config.common.encoder.heads;
        let (pool, parameters) = AttentivePool::seeded(features.width, heads, classes, seed)?;
        let logits = |clips: &[usize]| pool.forward(&features.normal_tokens_of(clips)?);
        fit(
            ATTENTIVE,
            &parameters,
            &features.labels,
            config,
            logits,
            on_epoch,
        )?;
        Ok(Self {
            pool,
            parameters,
            classes,
        })
    }

    /// `[clips, classes]`: probabilities of clips.
    ///
    /// # Errors
    /// When candle fails.
    pub fn probabilities(&self, features: &Features) -> Result<Vec<Vec<f32>>> {
        let all: Vec<usize> = (0..features.len()).collect();
        let mut probabilities = Vec::with_capacity(all.len());
        for clips in all.chunks(ATTENTIVE.batch) {
            let logits = self.pool.forward(&features.normal_tokens_of(clips)?)?;
            let logits = logits.to_vec2::<f32>()?;
            probabilities.extend(logits.iter().map(|logits| softmax_of(logits)));
        }
        Ok(probabilities)
    }

    /// Scores on clips.
    ///
    /// # Errors
    /// When candle fails.
    pub fn scores(&self, features: &Features) -> Result<Scores> {
        Ok(features.scores(&self.probabilities(features)?, self.classes))
    }
}

/// Minimises the cross entropy of `logits` of clips.
fn fit(
    recipe: Recipe,
    parameters: &Parameters,
    labels: &[u32],
    config: &FinetuneConfig,
    logits: impl Fn(&[usize]) -> Result<Tensor>,
    mut on_epoch: impl FnMut(usize, usize),
) -> Result<()> {
    let Recipe {
        epochs,
        batch,
        rate,
        weight_decay,
    } = recipe;
    let adamw = AdamWConfig {
        base_lr: rate,
        betas: [0.9, 0.999],
        epsilon: 1e-8,
        weight_decay,
        clip_norm: f64::INFINITY,
    };
    let mut optimizer = AdamW::new(parameters, adamw)?;
    let (classes, seed) = (config.objective.classes.len(), config.common.seed);
    let mut order = if config.objective.split.balance {
        balanced(labels)
    } else {
        (0..labels.len()).collect()
    };
    let steps = (epochs * order.len().div_ceil(batch)) as u64;
    let schedule = Schedule {
        peak: rate,
        warmup_steps: steps / 20,
        steps,
    };
    for epoch in 0..epochs {
        order.shuffle(&mut stream(Purpose::Order, seed, epoch as u64, 0));
        for clips in order.chunks(batch) {
            let of_clips: Vec<u32> = clips.iter().map(|&clip| labels[clip]).collect();
            let loss = cross_entropy(
                &logits(clips)?,
                &smoothed_targets(&of_clips, classes, 0.0, &Device::Cpu)?,
            )?;
            optimizer.step(&loss.backward()?, schedule.rate(optimizer.steps()))?;
        }
        on_epoch(epoch + 1, epochs);
    }
    Ok(())
}

/// The clips, those of smaller classes several times, so that all classes are of the size of the
/// largest.
fn balanced(labels: &[u32]) -> Vec<usize> {
    let mut of_class: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (clip, &label) in labels.iter().enumerate() {
        of_class.entry(label).or_default().push(clip);
    }
    let largest = of_class.values().map(Vec::len).max().unwrap_or(0);
    let repeated = |clips: &Vec<usize>| clips.iter().copied().cycle().take(largest).collect();
    of_class
        .values()
        .flat_map(|clips| -> Vec<usize> { repeated(clips) })
        .collect()
}

fn values(parameters: &Parameters, name: &str) -> Result<Vec<f32>> {
    let (_, variable) = parameters
        .iter()
        .find(|(known, _)| *known == name)
        .expect("a head has these two");
    variable.as_tensor().flatten_all()?.to_vec1()
}

/// Writes both probes into the folder `dir`: the linear one with its encoder as a folder of
/// weights, whose path is returned, and the attentive one beside it.
///
/// # Errors
/// When the disk is full.
pub fn save(
    dir: &Path,
    config: &FinetuneConfig,
    weights: &Weights,
    linear: &LinearProbe,
    attentive: &AttentiveProbe,
) -> io::Result<PathBuf> {
    let folder = dir.join(LINEAR_DIR);
    fs::create_dir_all(&folder)?;
    let tensor = |values: &[f32], shape: &[usize]| {
        Tensor::from_slice(values, shape, &Device::Cpu).map_err(io::Error::other)
    };
    let mut tensors: HashMap<String, Tensor> = weights.encoder_only().tensors;
    tensors.insert(
        "head.weight".to_owned(),
        tensor(
            &linear.weight,
            &[linear.classes, config.common.encoder.width],
        )?,
    );
    tensors.insert(
        "head.bias".to_owned(),
        tensor(&linear.bias, &[linear.classes])?,
    );
    write_tensors(&folder.join(MODEL_FILE), &tensors)?;
    atomic_file::write(
        &folder.join(CONFIG_FILE),
        Task::from(config.clone()).to_toml().as_bytes(),
    )?;
    let of_probe = attentive
        .parameters
        .iter()
        .map(|(name, variable)| (name.to_owned(), variable.as_detached_tensor()))
        .collect();
    write_tensors(&dir.join(ATTENTIVE_FILE), &of_probe)?;
    Ok(folder)
}

/// Writes tensors to a file atomically.
fn write_tensors(path: &Path, tensors: &HashMap<String, Tensor>) -> io::Result<()> {
    let bytes = safetensors::serialize(tensors, None).map_err(io::Error::other)?;
    atomic_file::write(path, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clips_of_small_classes_are_repeated() {
        assert_eq!(
            balanced(&[2, 0, 2, 2, 0, 2, 5]),
            [1, 4, 1, 4, 0, 2, 3, 5, 6, 6, 6, 6]
        );
        assert!(balanced(&[]).is_empty());
    }
}
