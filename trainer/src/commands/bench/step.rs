//! `trainer bench step`: benchmarks a training step on the CPU.

use super::{format_number, median};
use crate::cli::usage::peak_memory_bytes;
use crate::cli::{BenchStepArgs, StepArgs};
use crate::commands::together;
use candle_core::Device;
use console::output;
use pipeline::physical_cores;
use schemas::report::{RanksFigures, StepParts, StepReport};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use toml::Value;
use trainer::backend;
use trainer::config::{ConfigError, Layer, PretrainConfig};
use trainer::cpu::{CpuMae, Part, Patches, Precision, RandomBatch, StepTimes, gemm_rate};
use trainer::model::Mae;
use trainer::model::flops::{self, ClipTokens};
use trainer::ranks::{Ranks, SumTimes};

/// Creates the model of a configuration.
///
/// # Errors
/// When it cannot be trained on the CPU.
pub fn model(config: &PretrainConfig, threads: usize) -> anyhow::Result<CpuMae> {
    let model = Mae::seeded(config.model(), config.common.seed, &Device::Cpu)?;
    Ok(backend::cpu_mae(&model, config, threads)?)
}

/// Learning rate: that of the first steps of a run.
pub const RATE: f64 = 1e-6;

/// The name of a type of activations.
pub const fn dtype_name(dtype: Precision) -> &'static str {
    match dtype {
        Precision::F32 => "f32",
        Precision::Bf16 => "bf16",
    }
}

/// What a step took.
pub struct TimedStep {
    /// All of it, in seconds.
    pub seconds: f64,
    /// Its parts.
    pub parts: StepTimes,
    /// Sums over ranks.
    pub sums: SumTimes,
}

/// Runs `steps` steps after one that allocates memory, on a batch of each of `ranks`.
pub fn timed_steps(
    ranks: &Ranks,
    model: &mut CpuMae,
    batch: &Patches<'_>,
    steps: u32,
) -> Vec<TimedStep> {
    let steps = (0..=steps).map(|_| timed_step(ranks, model, batch));
    steps.skip(1).collect()
}

/// Runs a step, which all of `ranks` begin together.
fn timed_step(ranks: &Ranks, model: &mut CpuMae, batch: &Patches<'_>) -> TimedStep {
    model.take_times();
    ranks.wait();
    let began = Instant::now();
    let mut sums = SumTimes::default();
    if ranks.count() == 1 {
        model.accumulate(batch, 1.0);
    } else {
        let share = 1.0 / ranks.count() as f64;
        let part = |buckets| Part::Micro {
            index: 0,
            count: 1,
            buckets: Some(buckets),
        };
        (_, sums) = ranks.sum_while(|buckets| model.accumulate_part(batch, share, part(buckets)));
        model.store_mut().add_batch();
    }
    model.update(RATE);
    TimedStep {
        seconds: began.elapsed().as_secs_f64(),
        parts: model.take_times(),
        sums,
    }
}

/// The settings of the flags.
fn layers(args: &StepArgs) -> Result<Vec<Layer>, ConfigError> {
    let dtype = Value::try_from(args.dtype).expect("plain data becomes TOML");
    let checkpointing = args.gradient_checkpointing;
    let mut layers = vec![
        Layer::key("--batch-size", "data.batch_size", args.batch_size as i64)?,
        Layer::key("--dtype", "compute.dtype", dtype)?,
    ];
    if checkpointing {
        let key = "compute.gradient_checkpointing";
        layers.push(Layer::key("--gradient-checkpointing", key, true)?);
    }
    if let Some(ratio) = args.mask_ratio {
        layers.push(Layer::key("--mask-ratio", "masking.ratio", ratio)?);
    }
    Ok(layers)
}

/// The configuration of the flags, the same on all ranks, and the number of threads of this one.
pub fn settings(ranks: &Ranks, args: &StepArgs) -> anyhow::Result<(PretrainConfig, usize)> {
    let config =
        layers(args).and_then(|layers| super::config(args.preset, args.config.as_deref(), &layers));
    let config = together::agree(ranks, config.map_err(Into::into))?;
    let text = config.to_toml();
    ranks.check("configuration", &format!("{text}steps = {}", args.steps))?;
    let threads = args.threads.map_or_else(
        || ranks.share_of(physical_cores()),
        |threads| threads as usize,
    );
    Ok((config, threads))
}

/// Runs the command.
///
/// # Errors
/// When the flags are invalid.
pub fn step(args: &BenchStepArgs) -> anyhow::Result<ExitCode> {
    let ranks = Ranks::start()?;
    together::end(&ranks, step_with(&ranks, args))
}

/// [`step`] on each of `ranks`.
fn step_with(
    ranks: &Ranks,
    BenchStepArgs { step: args, json }: &BenchStepArgs,
) -> anyhow::Result<ExitCode> {
    let (config, threads) = settings(ranks, args)?;
    let model_config = config.model();
    let clips = config.common.data.batch_size;
    let mut model = together::agree(ranks, model(&config, threads))?;
    let seed = config.common.seed + ranks.number() as u64;
    let batch = RandomBatch::new(&model_config, Some(config.objective.masking), clips, seed);
    let steps = timed_steps(ranks, &mut model, &batch.patches(), args.steps);
    let peak_memory_bytes = peak_memory_bytes()?;
    let parameters = model.store().count() as u64;
    drop(model);
    let seconds: Vec<f64> = steps.iter().map(|step| step.seconds).collect();
    let seconds_per_step = median(seconds.clone());
    let masks = batch.patches().masks;
    let tokens = ClipTokens::sparse(masks.visible(), masks.predicted());
    let all_clips = clips * ranks.count();
    let gflop_per_step =
        2e-9 * (flops::forward(&model_config, tokens).step() * all_clips as u64) as f64;
    let product_gflop_per_second = ranks.gather(&[gemm_rate(args.dtype, threads)]).iter().sum();
    if !ranks.is_root() {
        return Ok(ExitCode::SUCCESS);
    }
    let gflop_per_second = gflop_per_step / seconds_per_step;
    let report = StepReport {
        preset: args.preset.name().to_owned(),
        batch_size: clips as u64,
        mask_ratio: config.objective.masking.ratio,
        dtype: dtype_name(args.dtype).to_owned(),
        threads: threads as u64,
        parameters,
        steps: args.steps.into(),
        ranks: (ranks.count() > 1).then(|| RanksFigures {
            count: ranks.count(),
            sum_seconds: median_of(&steps, |step| step.sums.all),
            exposed_seconds: median_of(&steps, |step| step.sums.exposed),
        }),
        seconds_per_step,
        least_seconds: seconds.iter().copied().fold(f64::INFINITY, f64::min),
        most_seconds: seconds.iter().copied().fold(0.0, f64::max),
        parts: median_parts(&steps),
        clips_per_second: all_clips as f64 / seconds_per_step,
        gflop_per_step,
        gflop_per_second,
        product_gflop_per_second,
        product_share: gflop_per_second / product_gflop_per_second,
        peak_memory_bytes,
    };
    let text = if *json {
        serde_json::to_string_pretty(&report)?
    } else {
        render_report(&report)
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The median of a duration of steps, in seconds.
pub fn median_of(steps: &[TimedStep], duration: impl Fn(&TimedStep) -> Duration) -> f64 {
    let seconds = steps.iter().map(|step| duration(step).as_secs_f64());
    median(seconds.collect())
}

/// Median durations of the parts of a step.
fn median_parts(steps: &[TimedStep]) -> StepParts {
    StepParts {
        encoder_seconds: median_of(steps, |step| step.parts.encoder),
        decoder_seconds: median_of(steps, |step| step.parts.decoder),
        decoder_backward_seconds: median_of(steps, |step| step.parts.decoder_backward),
        encoder_backward_seconds: median_of(steps, |step| step.parts.encoder_backward),
        optimizer_seconds: median_of(steps, |step| step.parts.optimizer),
    }
}

/// Renders the report as text.
fn render_report(report: &StepReport) -> String {
    let StepReport {
        parts,
        seconds_per_step,
        ..
    } = report;
    let part = |name: &str, seconds: f64| {
        format!(
            "  {name:<18} {seconds:>8.3} s  {:>5.1} %\n",
            100.0 * seconds / seconds_per_step
        )
    };
    let mut text = format!(
        "{} ({} parameters), {}{} clips, {:.0} % masked, {}, {} threads; random data, no loading\n\n\
         step           {:.3} s (median of {}; {:.3} to {:.3})\n\
         trained        {} clips/s\n\
         flops          {:.1} GFLOP per step, counted from shapes; {:.0} GFLOP/s\n\
         gemm           {:.0} GFLOP/s with one large matrix product; the step reaches {:.0} % of \
         it\n\
         memory         {:.0} MB peak\n\n\
         parts\n",
        report.preset,
        report.parameters,
        report
            .ranks
            .map_or(String::new(), |ranks| format!("{} ranks of ", ranks.count)),
        report.batch_size,
        100.0 * report.mask_ratio,
        report.dtype,
        report.threads,
        seconds_per_step,
        report.steps,
        report.least_seconds,
        report.most_seconds,
        format_number(report.clips_per_second),
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
    text += &part("optimizer", parts.optimizer_seconds);
    if let Some(ranks) = &report.ranks {
        text += &part("sums over ranks", ranks.sum_seconds);
        text += &part("  not hidden", ranks.exposed_seconds);
    }
    text
}
