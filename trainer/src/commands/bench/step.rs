//! `trainer bench step`: how long a training step takes on this processor, and where the time goes.

use super::{median, shown};
use crate::cli::output;
use crate::cli::usage::peak_memory_bytes;
use crate::cli::{BenchStepArgs, all_cores};
use candle_core::Device;
use schemas::report::{StepParts, StepReport};
use std::time::{Duration, Instant};
use trainer::backend;
use trainer::config::{Config, Overrides};
use trainer::cpu::{CpuMae, Noise, Patches, Precision, StepTimes, matrix_product_rate};
use trainer::model::Mae;
use trainer::model::flops::{self, ClipTokens};

/// A model to measure.
///
/// # Errors
/// When it cannot be trained on the CPU.
pub fn model(config: &Config, threads: usize) -> anyhow::Result<CpuMae> {
    let model = Mae::seeded(config.model(), config.seed, &Device::Cpu)?;
    Ok(backend::cpu_mae(&model, config, threads)?)
}

/// Seconds of a step, and of its parts.
pub fn timed(fused: &mut CpuMae, batch: &Patches<'_>, rate: f64) -> (f64, StepTimes) {
    fused.take_times();
    let began = Instant::now();
    fused.accumulate(batch, 1.0);
    fused.update(rate);
    (began.elapsed().as_secs_f64(), fused.take_times())
}

/// Measures steps.
///
/// # Errors
/// When the flags make no sense.
pub fn step(args: &BenchStepArgs) -> anyhow::Result<()> {
    let overrides =
        Overrides { batch_size: Some(args.batch_size), dtype: Some(args.dtype), recompute: args.recompute, ..Overrides::default() };
    let mut config = Config::resolve(args.preset, args.config.as_deref(), &overrides)?;
    if let Some(ratio) = args.mask_ratio {
        config.masking.ratio = ratio;
        config = config.with(&Overrides::default())?;
    }
    let threads = args.threads.map_or_else(all_cores, |threads| threads as usize);
    let (model_config, clips) = (config.model(), config.data.batch_size);
    let mut fused = model(&config, threads)?;
    let noise = Noise::new(&model_config, Some(config.masking), clips, config.seed);
    // The first step pays for memory; rates are those of a run's first steps.
    timed(&mut fused, &noise.patches(), 0.0);
    let steps: Vec<(f64, StepTimes)> = (0..args.steps).map(|_| timed(&mut fused, &noise.patches(), 1e-6)).collect();
    let peak_memory_bytes = peak_memory_bytes()?;
    let parameters = fused.store().count() as u64;
    drop(fused);
    let seconds: Vec<f64> = steps.iter().map(|(seconds, _)| *seconds).collect();
    let seconds_per_step = median(seconds.clone());
    let part = |of: fn(&StepTimes) -> Duration| median(steps.iter().map(|(_, times)| of(times).as_secs_f64()).collect());
    let masks = noise.patches().masks;
    let tokens = ClipTokens::sparse(masks.visible(), masks.predicted());
    let gflop_per_step = 2e-9 * (flops::forward(&model_config, tokens).step() * clips as u64) as f64;
    let product_gflop_per_second = matrix_product_rate(args.dtype, threads);
    let gflop_per_second = gflop_per_step / seconds_per_step;
    let report = StepReport {
        preset: args.preset.name().to_owned(),
        batch_size: clips as u64,
        mask_ratio: config.masking.ratio,
        dtype: match args.dtype {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        }
        .to_owned(),
        threads: threads as u64,
        parameters,
        steps: args.steps.into(),
        seconds_per_step,
        least_seconds: seconds.iter().copied().fold(f64::INFINITY, f64::min),
        most_seconds: seconds.iter().copied().fold(0.0, f64::max),
        parts: StepParts {
            encoder_seconds: part(|times| times.encoder),
            decoder_seconds: part(|times| times.decoder),
            decoder_backward_seconds: part(|times| times.decoder_backward),
            encoder_backward_seconds: part(|times| times.encoder_backward),
            optimizer_seconds: part(|times| times.optimizer),
        },
        clips_per_second: clips as f64 / seconds_per_step,
        gflop_per_step,
        gflop_per_second,
        product_gflop_per_second,
        product_share: gflop_per_second / product_gflop_per_second,
        peak_memory_bytes,
    };
    let text = if args.json { serde_json::to_string_pretty(&report)? } else { table(&report) };
    Ok(output::print(&text)?)
}

fn table(report: &StepReport) -> String {
    let StepReport { parts, seconds_per_step, .. } = report;
    let part = |name: &str, seconds: f64| format!("  {name:<18} {seconds:>8.3} s  {:>5.1} %\n", 100.0 * seconds / seconds_per_step);
    let mut text = format!(
        "{} ({} parameters), {} clips, {:.0} % masked, {}, {} threads: random numbers, no loading\n\n\
         step           {:.3} s (median of {}; {:.3} to {:.3})\n\
         trained        {} clips/s\n\
         operations     {:.1} GFLOP a step, counted from the shapes; {:.0} GFLOP/s\n\
         products       {:.0} GFLOP/s is what one large matrix product reaches here: the step comes to {:.0} % of it\n\
         memory         {:.0} MB at most\n\n\
         parts\n",
        report.preset,
        report.parameters,
        report.batch_size,
        100.0 * report.mask_ratio,
        report.dtype,
        report.threads,
        seconds_per_step,
        report.steps,
        report.least_seconds,
        report.most_seconds,
        shown(report.clips_per_second),
        report.gflop_per_step,
        report.gflop_per_second,
        report.product_gflop_per_second,
        100.0 * report.product_share,
        report.peak_memory_bytes as f64 / 1e6,
    );
    text += &part("encoder", parts.encoder_seconds);
    text += &part("decoder, loss", parts.decoder_seconds);
    text += &part("decoder backward", parts.decoder_backward_seconds);
    text += &part("encoder backward", parts.encoder_backward_seconds);
    text += &part("optimiser", parts.optimizer_seconds);
    text
}
