//! What makes no sense in a configuration, by its key.

use super::{CheckpointsConfig, ConfigError, Length, ModelConfig, ScheduleConfig};
use crate::model::TransformerConfig;
use crate::optim::AdamWConfig;
use pipeline::sampling::sample::Augmentation;

pub(super) fn check_transformer(
    [depth_key, heads_key, width_key]: [&'static str; 3],
    transformer: TransformerConfig,
) -> Result<(), ConfigError> {
    let TransformerConfig { width, depth, heads } = transformer;
    check(depth_key, depth, depth > 0, "at least 1")?;
    check(heads_key, heads, heads > 0, "at least 1")?;
    check(width_key, width, width > 0 && width.is_multiple_of(heads), format!("a multiple of heads = {heads}"))
}

pub(super) fn check_augmentation(augmentation: &Augmentation) -> Result<(), ConfigError> {
    let Augmentation { area, aspect, flip } = *augmentation;
    let is_range = |[least, most]: [f64; 2], limit: f64| least > 0.0 && least <= most && most <= limit;
    check("data.area", format!("{area:?}"), is_range(area, 1.0), "a least and a greatest value in (0, 1]")?;
    check("data.aspect", format!("{aspect:?}"), is_range(aspect, f64::MAX), "a least and a greatest value above 0")?;
    check("data.flip", flip, (0.0..=1.0).contains(&flip), "a probability")
}

pub(super) fn check_optimizer(config: &AdamWConfig) -> Result<(), ConfigError> {
    let AdamWConfig { base_lr, betas, epsilon, weight_decay, clip_norm } = *config;
    let finite = |value: f64| value.is_finite() && value > 0.0;
    check("optimizer.base_lr", base_lr, finite(base_lr), "a number above 0")?;
    check("optimizer.betas", format!("{betas:?}"), betas.iter().all(|beta| (0.0..1.0).contains(beta)), "two numbers in [0, 1)")?;
    check("optimizer.epsilon", epsilon, finite(epsilon), "a number above 0")?;
    check("optimizer.weight_decay", weight_decay, weight_decay.is_finite() && weight_decay >= 0.0, "0 or more")?;
    check("optimizer.clip_norm", clip_norm, clip_norm > 0.0, "a number above 0; inf does not clip")
}

pub(super) fn check_schedule(schedule: &ScheduleConfig, checkpoints: &CheckpointsConfig) -> Result<(), ConfigError> {
    match schedule.length {
        Length::Steps(steps) => check("schedule.length", format!("steps = {steps}"), steps > 0, "at least one step")?,
        Length::Epochs(epochs) => {
            let is_some = epochs.is_finite() && epochs > 0.0;
            check("schedule.length", format!("epochs = {epochs}"), is_some, "more than 0 epochs")?;
        }
    }
    check("schedule.warmup", schedule.warmup, (0.0..=1.0).contains(&schedule.warmup), "a share of the steps, 0 to 1")?;
    check("checkpoints.every", checkpoints.every, checkpoints.every > 0, "at least 1")?;
    check("checkpoints.keep", checkpoints.keep, checkpoints.keep > 0, "at least 1")
}

pub(super) fn check(key: &'static str, value: impl ToString, good: bool, wanted: impl Into<String>) -> Result<(), ConfigError> {
    if good { Ok(()) } else { Err(ConfigError::Value { key, value: value.to_string(), wanted: wanted.into() }) }
}

/// What encoder and decoder share, in [`Config`] and [`FinetuneConfig`].
pub(super) fn check_model(model: &ModelConfig) -> Result<(), ConfigError> {
    for (key, value) in [
        ("model.norm_epsilon", model.norm_epsilon),
        ("model.decoder_norm_epsilon", model.decoder_norm_epsilon),
        ("model.head_norm_epsilon", model.head_norm_epsilon),
    ] {
        check(key, value, value.is_finite() && value > 0.0, "a number above 0")?;
    }
    Ok(())
}
