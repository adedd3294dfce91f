//! `trainer bench loader`: how fast this machine loads.

use super::{median, shown, step};
use crate::cli::usage::{cpu_ms, peak_memory_bytes};
use crate::cli::{BenchLoaderArgs, Consumer, FormArg, all_cores, loader_threads_beside_training};
use crate::{cli::output, commands::sources};
use anyhow::{Context, ensure};
use pipeline::loader::Loader;
use pipeline::loader::batch::{Batch, Form, ValueType};
use pipeline::sampling::order::Cursor;
use schemas::report::{LoaderFigures, LoaderLimit, LoaderReport, StepFigures};
use std::time::{Duration, Instant};
use trainer::backend::{LearnerError, patches};
use trainer::config::Config;
use trainer::cpu::CpuMae;
use trainer::train;

/// Clips a second that an A100 trains on: ViT-L at 90 % masking (Feichtenhofer et al. 2022, Table 1: 24.5 hours of 128 A100s for 800 epochs of
/// 240 000 clips).
const CLIPS_PER_SECOND_OF_AN_A100: f64 = 17.0;

/// Share of the time that is for warming up.
const WARM_UP: f64 = 0.1;

/// Measures a loader.
///
/// # Errors
/// When the data cannot be read, or the flags do not fit it.
pub fn loader(args: &BenchLoaderArgs) -> anyhow::Result<()> {
    let config = Config::resolve(args.preset, args.config.as_deref(), &args.overrides())?;
    let is_trainable = args.consumer != Consumer::Step || args.form == FormArg::Patches;
    ensure!(is_trainable, "--consumer step trains on patches: leave --form clips out");
    let data = sources::open(&args.data, &config.live, config.clip.frames)?;
    let data_clips = sources::clips(&data);
    let threads = if args.consumer == Consumer::Step { loader_threads_beside_training() } else { all_cores() };
    let mut options = train::loader_options(&config, args.load.loading(threads), Cursor::default());
    if args.form == FormArg::Clips {
        options.format.form = Form::Clips;
    }
    options.format.values = args.values.map_or(options.format.values, ValueType::from);
    let cpu_before = cpu_ms()?;
    let mut loader = Loader::new(data.into(), options.clone())?;
    let seconds = Duration::from_secs_f64(args.seconds);
    let mut bench = Bench { loader: &mut loader, clips: 0 };
    let step = match args.consumer {
        Consumer::None => bench.run(seconds, |_| Ok(()))?,
        Consumer::Rate(clips_per_second) => {
            // Batches are due at fixed times, as a device takes them; one that comes late delays those after it.
            let mut due = Instant::now();
            bench.run(seconds, |batch| {
                due = due.max(Instant::now()) + Duration::from_secs_f64(batch.len() as f64 / clips_per_second);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                Ok(())
            })?
        }
        Consumer::Step => Some(bench.steps(seconds, &config)?),
    };
    let clips = bench.clips;
    let figures = loader.figures();
    // Decoders of live video are processes of their own: their time is known once they have ended.
    drop(loader);
    let cpu_ms_per_clip = (cpu_ms()? - cpu_before) / clips.max(1) as f64;
    let report = LoaderReport {
        data: args.data.iter().map(ToString::to_string).collect(),
        data_clips,
        consumer: args.consumer.to_string(),
        form: if options.format.form == Form::Clips { "clips" } else { "patches" }.to_owned(),
        values: format!("{:?}", options.format.values).to_lowercase(),
        batch_size: options.batch_size as u64,
        repeat: options.repeat as u64,
        threads: options.threads as u64,
        clips_per_second: figures.clips_per_second,
        stall_fraction: figures.stall_fraction,
        batch_wait_ms: figures.batch_wait_ms,
        cpu_ms_per_clip,
        peak_memory_bytes: peak_memory_bytes()?,
        a100s: figures.clips_per_second / CLIPS_PER_SECOND_OF_AN_A100,
        loader: figures,
        step,
    };
    let text = if args.json { serde_json::to_string_pretty(&report)? } else { table(&report) };
    Ok(output::print(&text)?)
}

/// A loader that is measured.
struct Bench<'a> {
    loader: &'a mut Loader,
    /// Clips handed out, those while warming up included.
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
            .for_each(|skipped| output::say(&format!("warning: left out: {}", skipped.reason)));
        Ok(batch)
    }

    /// Hands batches to `consume` for so long.
    fn run(&mut self, time: Duration, mut consume: impl FnMut(Batch) -> anyhow::Result<()>) -> anyhow::Result<Option<StepFigures>> {
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

    /// Trains for so long: steps with a new batch and with one batch over and over, in pairs whose order changes, so that both meet the same machine. Beside the
    /// second kind the loader has nothing to do: all that it may make ahead is there.
    fn steps(&mut self, time: Duration, config: &Config) -> anyhow::Result<StepFigures> {
        let mut model = step::model(config, all_cores())?;
        let rate = config.optimizer.base_lr * 1e-3;
        let cached = self.next()?;
        train_on(&mut model, &cached, rate)?;
        self.loader.restart_figures();
        let (mut loaded_seconds, mut cached_seconds) = (Vec::new(), Vec::new());
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
        let (loaded_seconds, cached_seconds) = (median(loaded_seconds), median(cached_seconds));
        Ok(StepFigures { pairs, loaded_seconds, cached_seconds, ratio: loaded_seconds / cached_seconds })
    }
}

/// Takes a step of training.
fn train_on(model: &mut CpuMae, batch: &Batch, rate: f64) -> Result<(), LearnerError> {
    model.accumulate(&patches(batch)?, 1.0);
    model.update(rate);
    Ok(())
}

/// The report for people.
fn table(report: &LoaderReport) -> String {
    let LoaderReport { loader, batch_wait_ms: wait, .. } = report;
    let megabytes = |bytes: f64| bytes / 1e6;
    let stage = |name: &str, stage: schemas::report::StageFigures| {
        format!("  {name:<10} {:>6.2} ms a clip read  {:>5.1} % of the threads' time\n", stage.ms_per_clip, 100.0 * stage.busy_fraction)
    };
    let mut text = format!(
        "{} ({} clips), batches of {} as {} of {}, repeat {}, {} threads, consumer {}\n\n\
         loaded       {} clips/s, {:.0} frames/s, {:.0} MB/s stored, {:.0} MB/s decoded\n\
         batch wait   {:.2} ms median, {:.2} ms p99, {:.2} ms longest\n\
         stall        {:.2} % of the time, with {:.1} batches ready on average\n\
         processor    {:.2} ms a clip, consumer and decoders included\n\
         memory       {:.0} MB at most\n\
         first batch  after {:.2} s\n\
         left out     {} clips\n\n\
         stages\n",
        report.data.join(", "),
        report.data_clips,
        report.batch_size,
        report.form,
        report.values,
        report.repeat,
        report.threads,
        report.consumer,
        shown(loader.clips_per_second),
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
        loader.first_batch_seconds,
        loader.skipped,
    );
    text += &stage("read", loader.read);
    text += &stage("decode", loader.decode);
    text += &stage("transform", loader.transform);
    text += &format!("  {:<10} {:>38.1} % of the threads' time\n\n", "no room", 100.0 * loader.idle_fraction);
    if let Some(step) = &report.step {
        text += &format!(
            "A step takes {:.3} s with a new batch each and {:.3} s with one batch over and over: loading makes it {:.3} times as long ({} pairs).\n",
            step.loaded_seconds, step.cached_seconds, step.ratio, step.pairs
        );
    }
    text += &sentence(loader, report.a100s);
    text
}

/// What limits, in words.
fn sentence(loader: &LoaderFigures, a100s: f64) -> String {
    let (clips, a100s) = (shown(loader.clips_per_second), shown(a100s));
    let fed = format!("{clips} clips/s, as many as {a100s} A100s train ViT-L on at 90 % masking");
    match loader.limit {
        LoaderLimit::Consumer => format!("The consumer limits: it is fed as fast as it asks ({fed}) and never waits long."),
        LoaderLimit::Read => format!("Inference and decompressing limits: this machine feeds {fed}."),
        LoaderLimit::Decode => format!("Decoding limits: this machine feeds {fed}."),
        LoaderLimit::Transform => format!("Cropping and converting limits: this machine feeds {fed}."),
    }
}
