//! `trainer bench`: benchmarks of loading and training.

pub mod loader;
pub mod sparsity;
pub mod step;

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
