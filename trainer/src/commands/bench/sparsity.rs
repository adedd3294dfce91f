//! `trainer bench sparsity`: compares masked and dense training, as in the paper's Table 1.

use super::step;
use super::{format_number, median};
use crate::cli::{BenchSparsityArgs, loader_threads_beside_training};
use crate::commands::sources;
use anyhow::{Context, ensure};
use candle_core::Device;
use console::output;
use pipeline::loader::Loader;
use pipeline::loader::batch::{Batch, Form};
use pipeline::sampling::mask::Masks;
use pipeline::sampling::order::Cursor;
use pipeline::source::WeightedSource;
use pipeline::{all_cores, physical_cores};
use schemas::report::{
    PaperFigures, PaperSparsity, SparsityFigures, SparsityGain, SparsityReport, StepSpeed,
};
use std::sync::Arc;
use std::time::Instant;
use trainer::backend::patches;
use trainer::config::{Layer, Preset, PretrainConfig};
use trainer::cpu::{CpuMae, Patches, RandomBatch, Values};
use trainer::data::Uploader;
use trainer::model::MaeConfig;
use trainer::model::flops::{ClipTokens, forward};
use trainer::train::{self, Loading};

/// Table 1 of Feichtenhofer et al. 2022.
const PAPER: PaperSparsity = PaperSparsity {
    dense: PaperFigures {
        forward_multiply_adds: 627.5e9,
        computed_hours: 141.1,
        loaded_hours: 147.5,
    },
    sparse: PaperFigures {
        forward_multiply_adds: 81.0e9,
        computed_hours: 24.5,
        loaded_hours: 35.8,
    },
    gain: SparsityGain {
        multiply_adds: 7.7,
        computed: 5.8,
        loaded: Some(4.1),
    },
};

/// Steps that take longer are reported as they end.
const REPORTED_SECONDS: f64 = 2.0;

/// Whether tokens are masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    Dense,
    Sparse,
}

impl Variant {
    const ALL: [Self; 2] = [Self::Dense, Self::Sparse];

    const fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Sparse => "sparse",
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When the data cannot be read, or the flags do not fit.
pub fn sparsity(args: &BenchSparsityArgs) -> anyhow::Result<()> {
    let batch_size = Layer::key("--batch-size", "data.batch_size", args.batch_size as i64)?;
    let config = super::config(args.preset, args.config.as_deref(), &[batch_size])?;
    let data = if args.data.is_empty() {
        None
    } else {
        Some(Arc::from(sources::open(
            &args.data,
            &config.common.data.choose,
            &config.objective.live,
            config.common.clip.frames,
            args.load.cache().as_ref(),
        )?))
    };
    let mut bench = Bench {
        config: &config,
        model: step::model(&config, physical_cores())?,
        steps: args.steps,
    };
    let parameters = bench.model.store().count() as u64;
    let computed = bench.computed()?;
    let loading = args
        .load
        .loading(loader_threads_beside_training(all_cores()));
    // One after the other: an idle loader would fill its buffers while the other variant trains.
    let loaded = match &data {
        None => None,
        Some(data) => Some([
            bench.loaded(Variant::Dense, data, loading)?,
            bench.loaded(Variant::Sparse, data, loading)?,
        ]),
    };
    let figures = |variant: Variant| {
        bench.figures(
            variant,
            computed[variant as usize],
            loaded.map(|loaded| loaded[variant as usize]),
        )
    };
    let dense = figures(Variant::Dense);
    let sparse = figures(Variant::Sparse);
    let report = SparsityReport {
        preset: args.preset.name().to_owned(),
        batch_size: config.common.data.batch_size as u64,
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
    let text = if args.json {
        serde_json::to_string_pretty(&report)?
    } else {
        render_report(&report)
    };
    Ok(output::print(&text)?)
}

/// A model that trains with and without masks.
struct Bench<'a> {
    config: &'a PretrainConfig,
    model: CpuMae,
    steps: u32,
}

impl Bench<'_> {
    /// One training step, which is timed.
    fn step(&mut self, batch: &Patches<'_>) -> anyhow::Result<()> {
        let loss = self.model.accumulate(batch, 1.0);
        let norm = self
            .model
            .update(self.config.common.optimizer.base_lr * 1e-3);
        ensure!(
            loss.is_finite() && norm.is_finite(),
            "the loss of a step is {loss} and the norm of its gradients {norm}: nothing can be \
             measured"
        );
        Ok(())
    }

    /// Median seconds of a step with a repeated batch, dense and sparse. The two alternate, so that
    /// both run under the same conditions.
    fn computed(&mut self) -> anyhow::Result<[f64; 2]> {
        let model = self.config.model();
        let clips = self.config.common.data.batch_size;
        let batches = [None, Some(self.config.objective.masking)]
            .map(|rule| RandomBatch::new(&model, rule, clips, self.config.common.seed));
        let mut seconds = [Vec::new(), Vec::new()];
        for round in 0..=self.steps {
            for variant in Variant::ALL {
                let began = Instant::now();
                self.step(&batches[variant as usize].patches())?;
                let taken = began.elapsed().as_secs_f64();
                self.report_slow_step(variant, "computed", round, taken);
                // The first is a warm-up.
                if round > 0 {
                    seconds[variant as usize].push(taken);
                }
            }
        }
        Ok(seconds.map(median))
    }

    /// Median seconds of a step with new batches, including waits.
    fn loaded(
        &mut self,
        variant: Variant,
        data: &Arc<[WeightedSource]>,
        loading: Loading,
    ) -> anyhow::Result<f64> {
        let mut options = train::loader_options(self.config, loading, Cursor::default());
        if variant == Variant::Dense {
            options.format.form = Form::Clips;
        }
        let mut loader = Loader::new(Arc::clone(data), options)?;
        let mut seconds = Vec::new();
        for round in 0..=self.steps {
            let began = Instant::now();
            let batch = loader.next().context("the loader has ended")??;
            let skipped = batch.skipped.iter().filter(|skipped| skipped.is_new);
            skipped
                .for_each(|skipped| output::say(&format!("warning: skipped: {}", skipped.reason)));
            match variant {
                Variant::Sparse => self.step(&patches(&batch, 0..batch.len())?)?,
                Variant::Dense => {
                    let all = AllPatches::of_clips(&self.config.model(), batch)?;
                    self.step(&all.patches())?;
                }
            }
            let taken = began.elapsed().as_secs_f64();
            self.report_slow_step(variant, "with loading", round, taken);
            if round > 0 {
                seconds.push(taken);
            }
        }
        Ok(median(seconds))
    }

    fn report_slow_step(&self, variant: Variant, what: &str, round: u32, seconds: f64) {
        if seconds > REPORTED_SECONDS {
            output::say(&format!(
                "{}, {what}: step {} of {} took {seconds:.2} s",
                variant.name(),
                round + 1,
                self.steps + 1
            ));
        }
    }

    /// Predicted tokens per masked clip.
    fn predicted(&self) -> usize {
        self.config
            .objective
            .masking
            .predicted(self.config.common.clip)
            .expect("a checked configuration has masks")
    }

    /// Visible tokens per masked clip.
    fn visible(&self) -> usize {
        self.config
            .objective
            .masking
            .visible(self.config.common.clip)
            .expect("a checked configuration has masks")
    }

    fn figures(&self, variant: Variant, computed: f64, loaded: Option<f64>) -> SparsityFigures {
        let model = self.config.model();
        let grid = self.config.common.clip;
        let tokens = match variant {
            Variant::Dense => ClipTokens::dense(grid),
            Variant::Sparse => ClipTokens::sparse(self.visible(), self.predicted()),
        };
        let operations = forward(&model, tokens);
        let clips = self.config.common.data.batch_size as f64;
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

/// All patches of whole clips, for a dense step.
#[derive(Debug)]
struct AllPatches {
    tokens: usize,
    rows: Vec<u32>,
    visible: Vec<f32>,
    target: Vec<f32>,
}

impl AllPatches {
    /// Splits a batch of whole clips into patches.
    fn of_clips(config: &MaeConfig, batch: Batch) -> anyhow::Result<Self> {
        let tokens = config.grid.tokens();
        let batch = Uploader::new(&Device::Cpu)?.upload(batch)?;
        let clips = batch.clips().context("the batch is not of whole clips")?;
        let [visible, target] = config
            .patches(clips)?
            .map(|patches| patches.flatten_all().and_then(|flat| flat.to_vec1::<f32>()));
        let rows = (0..batch.masking.clips())
            .flat_map(|_| 0..tokens as u32)
            .collect();
        Ok(Self {
            tokens,
            rows,
            visible: visible?,
            target: target?,
        })
    }

    /// The patches as input of a step.
    fn patches(&self) -> Patches<'_> {
        let masks = Masks::new(&self.rows, self.tokens, self.tokens);
        Patches {
            masks,
            visible: Values::F32(&self.visible),
            target: Values::F32(&self.target),
        }
    }
}

/// Renders the report as text.
fn render_report(report: &SparsityReport) -> String {
    let SparsityReport {
        dense,
        sparse,
        gain,
        ..
    } = report;
    let giga = |count: u64| format!("{} G", format_number(count as f64 / 1e9));
    let row = |what: &str, cells: [String; 3]| {
        format!(
            "{what:<31} {:>12} {:>12} {:>9}",
            cells[0], cells[1], cells[2]
        )
        .trim_end()
        .to_owned()
            + "\n"
    };
    let times = |gain: f64| format!("{}x", format_number(gain));
    let mut text = format!(
        "{}: {:.1} M parameters, {} clips per step, {} of {} tokens visible; medians of {} \
         steps\n\n",
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
    text += &row(
        "multiply-adds per clip, forward",
        [of_dense, of_sparse, times(gain.multiply_adds)],
    );
    let [of_dense, of_sparse] = [dense, sparse].map(|figures| giga(figures.operations.decoder()));
    text += &row(
        "  of these in the decoder",
        [of_dense, of_sparse, String::new()],
    );
    let mut speeds = vec![("computed", dense.computed, sparse.computed, gain.computed)];
    if let (Some(dense), Some(sparse), Some(gain)) = (dense.loaded, sparse.loaded, gain.loaded) {
        speeds.push(("with loading", dense, sparse, gain));
    }
    for (what, dense, sparse, gain) in speeds {
        let [of_dense, of_sparse] =
            [dense, sparse].map(|speed| format!("{} s", format_number(speed.step_seconds)));
        text += &row(
            &format!("a step, {what}"),
            [of_dense, of_sparse, times(gain)],
        );
        let [of_dense, of_sparse] =
            [dense, sparse].map(|speed| format_number(speed.clips_per_second));
        text += &row("  clips/s", [of_dense, of_sparse, String::new()]);
        let [of_dense, of_sparse] = [dense, sparse].map(|speed| format_number(speed.gflops));
        text += &row("  GFLOP/s", [of_dense, of_sparse, String::new()]);
    }
    if let Some(PaperSparsity {
        dense,
        sparse,
        gain,
    }) = &report.paper
    {
        text += "\nThe paper's: 800 epochs on 128 A100s\n";
        let [of_dense, of_sparse] =
            [dense, sparse].map(|figures| format!("{:.1} G", figures.forward_multiply_adds / 1e9));
        text += &row(
            "multiply-adds per clip, forward",
            [of_dense, of_sparse, times(gain.multiply_adds)],
        );
        let [of_dense, of_sparse] =
            [dense, sparse].map(|figures| format!("{:.1} h", figures.computed_hours));
        text += &row("computed", [of_dense, of_sparse, times(gain.computed)]);
        let [of_dense, of_sparse] =
            [dense, sparse].map(|figures| format!("{:.1} h", figures.loaded_hours));
        text += &row(
            "with loading",
            [
                of_dense,
                of_sparse,
                gain.loaded.map_or(String::new(), times),
            ],
        );
    }
    text.trim_end().to_owned()
}
