//! `trainer bench sparsity`: what masking saves, as in the paper's Table 1.

use crate::bench::shown;
use crate::cli::{BenchSparsityArgs, loader_threads_beside_training};
use crate::{output, sources};
use anyhow::{Context, ensure};
use candle_core::{Device, Tensor};
use pipeline::batch::Form;
use pipeline::loader::Loader;
use pipeline::mask::{MaskScratch, Masks};
use pipeline::order::{Cursor, Purpose, stream};
use pipeline::source::WeightedSource;
use rand::RngExt;
use schemas::report::{PaperFigures, PaperSparsity, SparsityFigures, SparsityGain, SparsityReport, StepSpeed};
use std::sync::Arc;
use std::time::Instant;
use trainer::config::{Config, Overrides, Preset};
use trainer::data::{DeviceBatch, DevicePixels, Uploader};
use trainer::engine::{self, Loading};
use trainer::model::{Mae, Masking};
use trainer::operations::{ClipTokens, forward};
use trainer::optimizer::AdamW;

/// Table 1 of Feichtenhofer et al. 2022.
const PAPER: PaperSparsity = PaperSparsity {
    dense: PaperFigures { forward_multiply_adds: 627.5e9, computed_hours: 141.1, loaded_hours: 147.5 },
    sparse: PaperFigures { forward_multiply_adds: 81.0e9, computed_hours: 24.5, loaded_hours: 35.8 },
    gain: SparsityGain { multiply_adds: 7.7, computed: 5.8, loaded: Some(4.1) },
};

/// Steps that take longer are told as they end.
const TOLD_SECONDS: f64 = 2.0;

/// Whether tokens are masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Dense,
    Sparse,
}

impl Way {
    const ALL: [Self; 2] = [Self::Dense, Self::Sparse];

    const fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Sparse => "sparse",
        }
    }
}

/// Measures what masking saves.
///
/// # Errors
/// When the data cannot be read, or the flags do not fit.
pub fn sparsity(args: &BenchSparsityArgs) -> anyhow::Result<()> {
    let overrides = Overrides { batch_size: Some(args.batch_size), ..Overrides::default() };
    let config = Config::resolve(args.preset, args.config.as_deref(), &overrides)?;
    let data = if args.data.is_empty() { None } else { Some(sources::open(&args.data, &config)?) };
    let device = Device::Cpu;
    let model = Mae::seeded(config.model(), config.seed, &device)?;
    let optimizer = AdamW::new(model.parameters(), config.optimizer.clone())?;
    let parameters = model.parameters().count() as u64;
    let mut bench = Bench { config: &config, device, model, optimizer, steps: args.steps };
    let computed = bench.computed()?;
    let loading = args.load.loading(loader_threads_beside_training());
    // One after the other: a loader that stood by while the other way trains would be ahead.
    let loaded = match &data {
        None => None,
        Some(data) => Some([bench.loaded(Way::Dense, data, loading)?, bench.loaded(Way::Sparse, data, loading)?]),
    };
    let figures = |way: Way| bench.figures(way, computed[way as usize], loaded.map(|loaded| loaded[way as usize]));
    let (dense, sparse) = (figures(Way::Dense), figures(Way::Sparse));
    let report = SparsityReport {
        preset: args.preset.name().to_owned(),
        batch_size: config.data.batch_size as u64,
        steps: u64::from(args.steps),
        parameters,
        data: args.data.iter().map(ToString::to_string).collect(),
        gain: SparsityGain {
            multiply_adds: dense.forward_multiply_adds as f64 / sparse.forward_multiply_adds as f64,
            computed: computed[0] / computed[1],
            loaded: loaded.map(|[dense, sparse]| dense / sparse),
        },
        paper: (args.preset == Preset::Large && args.config.is_none()).then_some(PAPER),
        dense,
        sparse,
    };
    let text = if args.json { serde_json::to_string_pretty(&report)? } else { table(&report) };
    Ok(output::print(&text)?)
}

/// A model that trains both ways.
struct Bench<'a> {
    config: &'a Config,
    device: Device,
    model: Mae,
    optimizer: AdamW,
    steps: u32,
}

impl Bench<'_> {
    /// One step of training: what is timed.
    fn step(&mut self, batch: &DeviceBatch) -> anyhow::Result<()> {
        let rate = self.config.optimizer.base_lr * 1e-3;
        let (loss, norm) = engine::step(&self.model, &mut self.optimizer, batch, rate)?;
        ensure!(
            loss.is_finite() && norm.is_finite(),
            "the loss of a step is {loss}, and the norm of its gradients {norm}: nothing can be measured"
        );
        Ok(())
    }

    /// Seconds of a step with one batch over and over, dense and sparse. The two take turns, so that both meet the same machine.
    fn computed(&mut self) -> anyhow::Result<[f64; 2]> {
        let batches = [self.random_batch(Way::Dense)?, self.random_batch(Way::Sparse)?];
        let mut seconds = [0.0; 2];
        for round in 0..=self.steps {
            for way in Way::ALL {
                let began = Instant::now();
                self.step(&batches[way as usize])?;
                let taken = began.elapsed().as_secs_f64();
                self.tell(way, "computed", round, taken);
                // The first is for warming up.
                if round > 0 {
                    seconds[way as usize] += taken / f64::from(self.steps);
                }
            }
        }
        Ok(seconds)
    }

    /// Seconds of a step with a new batch each, waits included.
    fn loaded(&mut self, way: Way, data: &Arc<[WeightedSource]>, loading: Loading) -> anyhow::Result<f64> {
        let uploader = Uploader::new(&self.device)?;
        let mut options = engine::loader_options(self.config, loading, Cursor::default());
        if way == Way::Dense {
            options.format.form = Form::Clips;
        }
        let mut loader = Loader::new(Arc::clone(data), options)?;
        let mut began = Instant::now();
        for round in 0..=self.steps {
            let round_began = Instant::now();
            let batch = loader.next().context("the loader has ended")??;
            let skipped = batch.skipped.iter().filter(|skipped| skipped.is_new);
            skipped.for_each(|skipped| output::say(&format!("warning: left out: {}", skipped.reason)));
            let mut batch = uploader.upload(batch)?;
            if way == Way::Dense {
                batch.masking = self.all_visible(batch.masking.clips())?;
            }
            self.step(&batch)?;
            self.tell(way, "with loading", round, round_began.elapsed().as_secs_f64());
            if round == 0 {
                began = Instant::now();
            }
        }
        Ok(began.elapsed().as_secs_f64() / f64::from(self.steps))
    }

    fn tell(&self, way: Way, what: &str, round: u32, seconds: f64) {
        if seconds > TOLD_SECONDS {
            output::say(&format!("{}, {what}: step {} of {} took {seconds:.2} s", way.name(), round + 1, self.steps + 1));
        }
    }

    fn all_visible(&self, clips: usize) -> anyhow::Result<Masking> {
        Ok(Masking::all_visible(clips, self.config.clip.tokens(), &self.device)?)
    }

    /// A batch of random numbers in the form in which it trains: whole clips, or patches with masks as the preset has them.
    fn random_batch(&self, way: Way) -> anyhow::Result<DeviceBatch> {
        let (grid, clips, seed) = (self.config.clip, self.config.data.batch_size, self.config.seed);
        let mut rng = stream(Purpose::Init, seed, 1, 0);
        let mut random = |shape: &[usize]| {
            let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(-2.0..2.0)).collect();
            Tensor::from_vec(values, shape, &self.device)
        };
        if way == Way::Dense {
            let pixels = DevicePixels::Clips(random(&[clips, 3, grid.frames, grid.size, grid.size])?);
            return Ok(DeviceBatch { pixels, masking: self.all_visible(clips)? });
        }
        let (tokens, visible) = (grid.tokens(), self.visible());
        let pixels = DevicePixels::Patches {
            visible: random(&[clips, visible, grid.tubelet_values()])?,
            target: random(&[clips, tokens - visible, grid.target_values(self.config.target.slices)])?,
        };
        let (mut rows, mut scratch) = (vec![0; clips * tokens], MaskScratch::default());
        for (clip, row) in rows.chunks_exact_mut(tokens).enumerate() {
            self.config.masking.draw(&mut stream(Purpose::Mask, seed, 0, clip as u64), grid, &mut scratch, row);
        }
        Ok(DeviceBatch { pixels, masking: Masking::new(Masks::new(&rows, tokens, visible), &self.device)? })
    }

    /// Visible tokens of a masked clip.
    fn visible(&self) -> usize {
        self.config.masking.visible(self.config.clip).expect("a checked configuration has masks")
    }

    fn figures(&self, way: Way, computed: f64, loaded: Option<f64>) -> SparsityFigures {
        let (model, grid) = (self.config.model(), self.config.clip);
        let tokens = match way {
            Way::Dense => ClipTokens::dense(grid),
            Way::Sparse => ClipTokens::sparse(grid, self.visible()),
        };
        let operations = forward(&model, tokens);
        let clips = self.config.data.batch_size as f64;
        let speed = |step_seconds: f64| StepSpeed {
            step_seconds,
            clips_per_second: clips / step_seconds,
            gflops: 2e-9 * operations.step() as f64 * clips / step_seconds,
        };
        SparsityFigures {
            tokens: grid.tokens() as u64,
            visible_tokens: tokens.encoded as u64,
            operations,
            forward_multiply_adds: operations.forward(),
            step_multiply_adds: operations.step(),
            computed: speed(computed),
            loaded: loaded.map(speed),
        }
    }
}

/// The report for people.
fn table(report: &SparsityReport) -> String {
    let SparsityReport { dense, sparse, gain, .. } = report;
    let giga = |count: u64| format!("{} G", shown(count as f64 / 1e9));
    let row = |what: &str, cells: [String; 3]| {
        format!("{what:<30} {:>12} {:>12} {:>9}", cells[0], cells[1], cells[2]).trim_end().to_owned() + "\n"
    };
    let times = |gain: f64| format!("{}x", shown(gain));
    let mut text = format!(
        "{}: {:.1} M parameters, {} clips a step, {} of {} tokens visible; means of {} steps\n\n",
        report.preset,
        report.parameters as f64 / 1e6,
        report.batch_size,
        sparse.visible_tokens,
        sparse.tokens,
        report.steps,
    );
    text += &row("", ["dense", "sparse", "gain"].map(str::to_owned));
    let operations = [dense, sparse].map(|figures| giga(figures.forward_multiply_adds));
    let [of_dense, of_sparse] = operations;
    text += &row("multiply-adds a clip, forward", [of_dense, of_sparse, times(gain.multiply_adds)]);
    let [of_dense, of_sparse] = [dense, sparse].map(|figures| giga(figures.operations.decoder()));
    text += &row("  of these the decoder's", [of_dense, of_sparse, String::new()]);
    let mut speeds = vec![("computed", dense.computed, sparse.computed, gain.computed)];
    if let (Some(dense), Some(sparse), Some(gain)) = (dense.loaded, sparse.loaded, gain.loaded) {
        speeds.push(("with loading", dense, sparse, gain));
    }
    for (what, dense, sparse, gain) in speeds {
        let [of_dense, of_sparse] = [dense, sparse].map(|speed| format!("{} s", shown(speed.step_seconds)));
        text += &row(&format!("a step, {what}"), [of_dense, of_sparse, times(gain)]);
        let [of_dense, of_sparse] = [dense, sparse].map(|speed| shown(speed.clips_per_second));
        text += &row("  clips/s", [of_dense, of_sparse, String::new()]);
        let [of_dense, of_sparse] = [dense, sparse].map(|speed| shown(speed.gflops));
        text += &row("  GFLOP/s", [of_dense, of_sparse, String::new()]);
    }
    if let Some(PaperSparsity { dense, sparse, gain }) = &report.paper {
        text += "\nThe paper's, 800 epochs on 128 A100s\n";
        let [of_dense, of_sparse] = [dense, sparse].map(|figures| format!("{:.1} G", figures.forward_multiply_adds / 1e9));
        text += &row("multiply-adds a clip, forward", [of_dense, of_sparse, times(gain.multiply_adds)]);
        let [of_dense, of_sparse] = [dense, sparse].map(|figures| format!("{:.1} h", figures.computed_hours));
        text += &row("computed", [of_dense, of_sparse, times(gain.computed)]);
        let [of_dense, of_sparse] = [dense, sparse].map(|figures| format!("{:.1} h", figures.loaded_hours));
        text += &row("with loading", [of_dense, of_sparse, gain.loaded.map_or(String::new(), times)]);
    }
    text.trim_end().to_owned()
}
