//! `trainer bench loader`: benchmarks the loader.

use super::{format_number, median, step};
use crate::cli::usage::{cpu_ms, peak_memory_bytes};
use crate::cli::{BenchLoaderArgs, Consumer, FormArg, loader_threads_beside_training};
use crate::commands::sources;
use anyhow::{Context, ensure};
use console::output;
use pipeline::loader::Loader;
use pipeline::loader::batch::{Batch, Form, ValueType};
use pipeline::sampling::order::Cursor;
use pipeline::{all_cores, physical_cores};
use schemas::report::{LoaderFigures, LoaderLimit, LoaderReport, StepFigures, StoreFigures};
use std::time::{Duration, Instant};
use trainer::backend::{LearnerError, patches};
use trainer::config::PretrainConfig;
use trainer::cpu::CpuMae;
use trainer::train;

/// Clips per second on which an A100 trains: ViT-L at 90 % masking (Feichtenhofer et al. 2022,
/// Table 1: 24.5 hours on 128 A100s for 800 epochs of 240 000 clips).
const CLIPS_PER_SECOND_OF_AN_A100: f64 = 17.0;

/// Share of the time for warm-up.
const WARM_UP: f64 = 0.1;

/// Runs the command.
///
/// # Errors
/// When the data cannot be read, or the flags do not fit the data.
pub fn loader(args: &BenchLoaderArgs) -> anyhow::Result<()> {
    let config =
        PretrainConfig::resolve(args.preset, &args.settings.layers(args.config.as_deref())?)?;
    let is_trainable = args.consumer != Consumer::Step || args.form == FormArg::Patches;
    ensure!(
        is_trainable,
        "--consumer step trains on patches: leave --form clips out"
    );
    let began = Instant::now();
    let data = sources::open(
        &args.data,
        &config.common.data.choose,
        &config.objective.live,
        config.common.clip.frames,
        args.load.cache().as_ref(),
    )?;
    let open_seconds = began.elapsed().as_secs_f64();
    let data_clips = sources::clips(&data);
    let threads = if args.consumer == Consumer::Step {
        loader_threads_beside_training(all_cores())
    } else {
        all_cores()
    };
    let mut options = train::loader_options(&config, args.load.loading(threads), Cursor::default());
    if args.form == FormArg::Clips {
        options.format.form = Form::Clips;
    }
    options.format.values = args.values.map_or(options.format.values, ValueType::from);
    let cpu_before = cpu_ms()?;
    let mut loader = Loader::new(data.into(), options.clone())?;
    let seconds = Duration::from_secs_f64(args.seconds);
    let mut bench = Bench {
        loader: &mut loader,
        clips: 0,
    };
    let step = match args.consumer {
        Consumer::None => bench.run(seconds, |_| Ok(()))?,
        Consumer::Rate(clips_per_second) => {
            // Batches are due at fixed times; a late one delays those after it.
            let mut due = Instant::now();
            bench.run(seconds, |batch| {
                due = due.max(Instant::now())
                    + Duration::from_secs_f64(batch.len() as f64 / clips_per_second);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                Ok(())
            })?
        }
        Consumer::Step => Some(bench.steps(seconds, &config)?),
    };
    let clips = bench.clips;
    let figures = loader.figures();
    // Decoders of live video are separate processes, whose CPU time is known once they have ended.
    drop(loader);
    let cpu_ms_per_clip = (cpu_ms()? - cpu_before) / clips.max(1) as f64;
    let report = LoaderReport {
        data: args.data.iter().map(ToString::to_string).collect(),
        data_clips,
        consumer: args.consumer.to_string(),
        form: if options.format.form == Form::Clips {
            "clips"
        } else {
            "patches"
        }
        .to_owned(),
        values: format!("{:?}", options.format.values).to_lowercase(),
        batch_size: options.batch_size as u64,
        repeat: options.repeat as u64,
        threads: options.threads as u64,
        open_seconds,
        clips_per_second: figures.clips_per_second,
        stall_fraction: figures.stall_fraction,
        batch_wait_ms: figures.batch_wait_ms,
        cpu_ms_per_clip,
        peak_memory_bytes: peak_memory_bytes()?,
        a100s: figures.clips_per_second / CLIPS_PER_SECOND_OF_AN_A100,
        loader: figures,
        step,
    };
    let text = if args.json {
        serde_json::to_string_pretty(&report)?
    } else {
        render_report(&report)
    };
    Ok(output::print(&text)?)
}

/// A loader under measurement.
struct Bench<'a> {
    loader: &'a mut Loader,
    /// Clips consumed, including warm-up.
    clips: u64,
}

impl Bench<'_> {
    fn next(&mut self) -> anyhow::Result<Batch> {
        let batch = self.loader.next().context("the loader has ended")??;
        self.clips += batch.len() as u64;
        batch
            .skipped
            .iter()
            .filter(|skipped| skipped.is_new)
            .for_each(|skipped| output::say(&format!("warning: skipped: {}", skipped.reason)));
        Ok(batch)
    }

    /// Passes batches to `consume` for `time`, after a warm-up.
    fn run(
        &mut self,
        time: Duration,
        mut consume: impl FnMut(Batch) -> anyhow::Result<()>,
    ) -> anyhow::Result<Option<StepFigures>> {
        for part in [time.mul_f64(WARM_UP), time] {
            self.loader.restart_figures();
            let began = Instant::now();
            while began.elapsed() < part {
                let batch = self.next()?;
                consume(batch)?;
            }
        }
        Ok(None)
    }

    /// Trains for `time`: pairs of a step with a new batch and a step with a repeated batch, in
    /// alternating order, so that both run under the same conditions. During the second kind the
    /// loader is idle, because its buffers are full.
    fn steps(&mut self, time: Duration, config: &PretrainConfig) -> anyhow::Result<StepFigures> {
        let mut model = step::model(config, physical_cores())?;
        let rate = config.common.optimizer.base_lr * 1e-3;
        let cached = self.next()?;
        train_on(&mut model, &cached, rate)?;
        self.loader.restart_figures();
        let mut loaded_seconds = Vec::new();
        let mut cached_seconds = Vec::new();
        let began = Instant::now();
        for pair in 0u64.. {
            if began.elapsed() >= time && pair > 0 {
                break;
            }
            for is_loaded in [pair.is_multiple_of(2), !pair.is_multiple_of(2)] {
                let step_began = Instant::now();
                if is_loaded {
                    let batch = self.next()?;
                    train_on(&mut model, &batch, rate)?;
                    loaded_seconds.push(step_began.elapsed().as_secs_f64());
                } else {
                    train_on(&mut model, &cached, rate)?;
                    cached_seconds.push(step_began.elapsed().as_secs_f64());
                }
            }
        }
        let pairs = loaded_seconds.len() as u64;
        let loaded_seconds = median(loaded_seconds);
        let cached_seconds = median(cached_seconds);
        Ok(StepFigures {
            pairs,
            loaded_seconds,
            cached_seconds,
            ratio: loaded_seconds / cached_seconds,
        })
    }
}

/// Takes a training step.
fn train_on(model: &mut CpuMae, batch: &Batch, rate: f64) -> Result<(), LearnerError> {
    model.accumulate(&patches(batch, 0..batch.len())?, 1.0);
    model.update(rate);
    Ok(())
}

/// Renders the report as text.
fn render_report(report: &LoaderReport) -> String {
    let LoaderReport {
        loader,
        batch_wait_ms: wait,
        ..
    } = report;
    let megabytes = |bytes: f64| bytes / 1e6;
    let stage = |name: &str, stage: schemas::report::StageFigures| {
        format!(
            "  {name:<10} {:>6.2} ms per clip read  {:>5.1} % of thread time\n",
            stage.ms_per_clip,
            100.0 * stage.busy_fraction
        )
    };
    let mut text = format!(
        "{} ({} clips), batches of {} as {} of {}, repeat {}, {} threads, consumer {}\n\n\
         loaded       {} clips/s, {:.0} frames/s, {:.0} MB/s stored, {:.0} MB/s decoded\n\
         batch wait   {:.2} ms median, {:.2} ms p99, {:.2} ms longest\n\
         stall        {:.2} % of the time, with {:.1} batches ready on average\n\
         CPU          {:.2} ms per clip, consumer and decoders included\n\
         memory       {:.0} MB peak\n\
         first batch  after {:.2} s, {:.2} s of which to open the data\n\
         skipped      {} clips\n\n\
         stages\n",
        report.data.join(", "),
        report.data_clips,
        report.batch_size,
        report.form,
        report.values,
        report.repeat,
        report.threads,
        report.consumer,
        format_number(loader.clips_per_second),
        loader.frames_per_second,
        megabytes(loader.stored_bytes_per_second),
        megabytes(loader.decoded_bytes_per_second),
        wait.p50,
        wait.p99,
        wait.max,
        100.0 * loader.stall_fraction,
        loader.ready_batches,
        report.cpu_ms_per_clip,
        megabytes(report.peak_memory_bytes as f64),
        report.open_seconds + loader.first_batch_seconds,
        report.open_seconds,
        loader.skipped,
    );
    if loader.store.is_some() {
        text += &stage("fetch", loader.fetch);
    }
    text += &stage("read", loader.read);
    text += &stage("decode", loader.decode);
    text += &stage("transform", loader.transform);
    text += &format!(
        "  {:<10} {:>30.1} % of thread time\n\n",
        "idle",
        100.0 * loader.idle_fraction
    );
    if let Some(store) = &loader.store {
        text += &render_store(store);
    }
    if let Some(step) = &report.step {
        text += &format!(
            "A step takes {:.3} s with new batches and {:.3} s with a repeated batch: loading \
             makes it {:.3} times as long ({} pairs).\n",
            step.loaded_seconds, step.cached_seconds, step.ratio, step.pairs
        );
    }
    text += &render_limit(loader, report.a100s);
    text
}

/// Renders the traffic with stores.
fn render_store(store: &StoreFigures) -> String {
    format!(
        "store        {} requests, {} repeated after a failure, {} received\n\
         cache        {:.1} % of the clips ({} of {}){}; {} fetched again because of a wrong \
         hash\n\n",
        store.requests,
        store.retries,
        output::bytes(store.bytes),
        100.0 * store.hit_rate,
        store.hits,
        store.hits + store.misses,
        if store.is_cache_full { ", full" } else { "" },
        store.repeated
    )
}

/// Renders the bottleneck as a sentence.
fn render_limit(loader: &LoaderFigures, a100s: f64) -> String {
    let clips = format_number(loader.clips_per_second);
    let a100s = format_number(a100s);
    let fed =
        format!("{clips} clips/s, as many as {a100s} A100s need to train ViT-L at 90 % masking");
    match loader.limit {
        LoaderLimit::Consumer => {
            format!(
                "The consumer is the bottleneck: it gets batches as fast as it takes them ({fed}) \
                 and never waits long."
            )
        }
        LoaderLimit::Network => {
            format!("The network or the store is the bottleneck: this machine feeds {fed}.")
        }
        LoaderLimit::Read => {
            format!("Reading and decompressing are the bottleneck: this machine feeds {fed}.")
        }
        LoaderLimit::Decode => format!("Decoding is the bottleneck: this machine feeds {fed}."),
        LoaderLimit::Transform => {
            format!("Cropping and converting are the bottleneck: this machine feeds {fed}.")
        }
    }
}
