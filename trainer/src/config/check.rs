//! Whether values are valid, by key.

use super::{CommonConfig, ConfigError, Length, ModelConfig, ScheduleConfig};
use crate::model::TransformerConfig;
use crate::optim::AdamWConfig;
use pipeline::sampling::sample::Augmentation;

/// An error unless `valid`: `key` is `value`, and must be `wanted`.
pub(super) fn check<W: Into<String>>(
    key: impl Into<String>,
    value: impl ToString,
    valid: bool,
    wanted: impl FnOnce() -> W,
) -> Result<(), ConfigError> {
    if valid {
        return Ok(());
    }
    Err(ConfigError::Value {
        key: key.into(),
        value: value.to_string(),
        wanted: wanted().into(),
    })
}

pub(super) fn check_common(config: &CommonConfig) -> Result<(), ConfigError> {
    config.clip.validate()?;
    check_transformer("encoder", config.encoder)?;
    check_model(&config.model)?;
    for (key, value) in [
        ("data.batch_size", config.data.batch_size),
        ("data.grad_accum", config.data.grad_accum),
        ("data.repeat_aug", config.data.repeat_aug),
        ("checkpoints.keep", config.checkpoints.keep),
    ] {
        check(key, value, value > 0, || "at least 1")?;
    }
    let micro_batches = config.data.micro_batches;
    let batch_size = config.data.batch_size;
    let fits = micro_batches.is_power_of_two() && batch_size.is_multiple_of(micro_batches);
    check("data.micro_batches", micro_batches, fits, || {
        format!("a power of two that divides data.batch_size = {batch_size}")
    })?;
    check_augmentation(&config.augmentation())?;
    check_optimizer(&config.optimizer)?;
    check_schedule(&config.schedule)?;
    let every = config.checkpoints.every;
    check("checkpoints.every", every, every > 0, || "at least 1")
}

pub(super) fn check_transformer(
    table: &str,
    transformer: TransformerConfig,
) -> Result<(), ConfigError> {
    let TransformerConfig {
        width,
        depth,
        heads,
    } = transformer;
    check(format!("{table}.depth"), depth, depth > 0, || "at least 1")?;
    check(format!("{table}.heads"), heads, heads > 0, || "at least 1")?;
    let fits = width > 0 && width.is_multiple_of(heads);
    check(format!("{table}.width"), width, fits, || {
        format!("a multiple of heads = {heads}")
    })
}

fn check_model(model: &ModelConfig) -> Result<(), ConfigError> {
    for (key, value) in [
        ("model.norm_epsilon", model.norm_epsilon),
        ("model.decoder_norm_epsilon", model.decoder_norm_epsilon),
        ("model.head_norm_epsilon", model.head_norm_epsilon),
        ("model.position_std", model.position_std),
    ] {
        check(
            key,
            value,
            value.is_finite() && value > 0.0,
            || "a number above 0",
        )?;
    }
    Ok(())
}

fn check_augmentation(augmentation: &Augmentation) -> Result<(), ConfigError> {
    let Augmentation { area, aspect, flip } = *augmentation;
    let is_range =
        |[least, most]: [f64; 2], limit: f64| least > 0.0 && least <= most && most <= limit;
    check(
        "data.area",
        format!("{area:?}"),
        is_range(area, 1.0),
        || "a least and a greatest value in (0, 1]",
    )?;
    check(
        "data.aspect",
        format!("{aspect:?}"),
        is_range(aspect, f64::MAX),
        || "a least and a greatest value above 0",
    )?;
    check(
        "data.flip",
        flip,
        (0.0..=1.0).contains(&flip),
        || "a probability",
    )
}

fn check_optimizer(config: &AdamWConfig) -> Result<(), ConfigError> {
    let AdamWConfig {
        base_lr,
        betas,
        epsilon,
        weight_decay,
        clip_norm,
    } = *config;
    let is_positive = |value: f64| value.is_finite() && value > 0.0;
    let are_betas = betas.iter().all(|beta| (0.0..1.0).contains(beta));
    let is_decay = weight_decay.is_finite() && weight_decay >= 0.0;
    check(
        "optimizer.base_lr",
        base_lr,
        is_positive(base_lr),
        || "a number above 0",
    )?;
    check(
        "optimizer.betas",
        format!("{betas:?}"),
        are_betas,
        || "two numbers in [0, 1)",
    )?;
    check(
        "optimizer.epsilon",
        epsilon,
        is_positive(epsilon),
        || "a number above 0",
    )?;
    check(
        "optimizer.weight_decay",
        weight_decay,
        is_decay,
        || "0 or more",
    )?;
    check(
        "optimizer.clip_norm",
        clip_norm,
        clip_norm > 0.0,
        || "a number above 0; inf does not clip",
    )
}

fn check_schedule(schedule: &ScheduleConfig) -> Result<(), ConfigError> {
    match schedule.length {
        Length::Steps(steps) => {
            check(
                "schedule.length",
                format!("steps = {steps}"),
                steps > 0,
                || "at least one step",
            )?;
        }
        Length::Epochs(epochs) => {
            let is_some = epochs.is_finite() && epochs > 0.0;
            check(
                "schedule.length",
                format!("epochs = {epochs}"),
                is_some,
                || "more than 0 epochs",
            )?;
        }
    }
    let warmup = schedule.warmup;
    check(
        "schedule.warmup",
        warmup,
        (0.0..=1.0).contains(&warmup),
        || "a share of the steps, 0 to 1",
    )
}
