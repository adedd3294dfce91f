//! `trainer bench`: benchmarks of loading and training.

pub mod loader;
pub mod scaling;
pub mod sparsity;
pub mod step;

use std::path::Path;
use trainer::config::{ConfigError, Layer, Preset, PretrainConfig};

/// The median of `values`.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Formats a number with three significant digits, or all digits before the point.
pub fn format_number(number: f64) -> String {
    let decimals = 2.0 - number.max(0.01).log10().floor();
    format!("{number:.*}", decimals.clamp(0.0, 3.0) as usize)
}

/// The settings of `preset`, with a file and other layers over them.
fn config(
    preset: Preset,
    file: Option<&Path>,
    flags: &[Layer],
) -> Result<PretrainConfig, ConfigError> {
    let file = file.map(Layer::file).transpose()?;
    let layers: Vec<Layer> = file.into_iter().chain(flags.iter().cloned()).collect();
    PretrainConfig::resolve(preset, &layers)
}
