//! Every parameter learns, a few clips can be learned by heart, and a run that was cut goes on as if it had not been.

use candle_core::Device;
use pipeline::batch::{Batch, Form, ValueType};
use pipeline::loader::{DEFAULT_MEMORY_BYTES, Loader};
use pipeline::mask::{MaskKind, MaskRule, MaskScratch, Masks};
use pipeline::order::{Cursor, Purpose, stream};
use pipeline::source::WeightedSource;
use schemas::geometry::PatchGrid;
use schemas::report::StepMetrics;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tests::{TestClip, shard_sources, write_shards};
use trainer::config::{Config, Overrides, Preset};
use trainer::data::{DeviceBatch, DevicePixels, Uploader};
use trainer::engine::{self, Event, Loading, Run, RunError};
use trainer::learner::Learner;
use trainer::loss::masked_mean_squared_error;
use trainer::metrics::METRICS_FILE;
use trainer::model::{Mae, MaeConfig, Masking, TransformerConfig};

/// A small model of small clips, with grid and target other than the paper's.
fn config(steps: u64) -> Config {
    let mut config = Config::resolve(Preset::Tiny, None, &Overrides { steps: Some(steps), ..Overrides::default() }).expect("sound");
    config.clip = PatchGrid { frames: 8, size: 32, tubelet: 4, patch: 8 };
    config.encoder = TransformerConfig { width: 48, depth: 2, heads: 3 };
    config.decoder = TransformerConfig { width: 32, depth: 1, heads: 2 };
    config.masking.ratio = 0.75;
    config.data.batch_size = 4;
    config.checkpoints.every = 3;
    config
}

fn run(dir: &Path, data: &Arc<[WeightedSource]>, config: Config) -> Run {
    fs::create_dir_all(dir).expect("a folder");
    let loading = Loading { threads: 2, memory_bytes: DEFAULT_MEMORY_BYTES, max_bad: 0 };
    Run { config, data: Arc::clone(data), dir: dir.to_owned(), device: Device::Cpu, loading, stop: Arc::default() }
}

fn data(dir: &Path, clips: u64) -> Arc<[WeightedSource]> {
    let clips: Vec<TestClip> = (0..clips).map(|seed| TestClip::moving(seed, 8, 40, 36)).collect();
    write_shards(dir, &clips);
    shard_sources(dir)
}

fn on_cpu(batch: Batch) -> DeviceBatch {
    Uploader::new(&Device::Cpu).and_then(|uploader| uploader.upload(batch)).expect("on the device")
}

/// The figures of a step, if one is done.
fn step_of(event: Event<'_>) -> Option<&StepMetrics> {
    match event {
        Event::Step(metrics, _) => Some(metrics),
        _ => None,
    }
}

/// Masks of `clips` clips, two thirds masked.
fn random_masking(grid: PatchGrid, clips: usize) -> Masking {
    let rule = MaskRule { kind: MaskKind::Random, ratio: 2.0 / 3.0 };
    let mut rows = vec![0; clips * grid.tokens()];
    let (mut rng, mut scratch) = (stream(Purpose::Mask, 0, 0, 0), MaskScratch::default());
    rows.chunks_exact_mut(grid.tokens()).for_each(|row| rule.draw(&mut rng, grid, &mut scratch, row));
    Masking::new(Masks::new(&rows, grid.tokens(), rule.visible(grid).expect("a rule")), &Device::Cpu).expect("masks")
}

#[test]
fn every_parameter_gets_a_gradient() {
    let grids = [
        PatchGrid { frames: 4, size: 32, tubelet: 2, patch: 16 },
        PatchGrid { frames: 6, size: 24, tubelet: 3, patch: 8 },
        PatchGrid { frames: 3, size: 20, tubelet: 1, patch: 5 },
    ];
    for (grid, normalise_target) in grids.into_iter().zip([true, false, true]) {
        let encoder = TransformerConfig { width: 24, depth: 2, heads: 2 };
        let decoder = TransformerConfig { width: 18, depth: 2, heads: 3 };
        let model_config = MaeConfig { grid, encoder, decoder, slices: 1, normalise_target };
        let model = Mae::seeded(model_config, 3, &Device::Cpu).expect("a model");
        let masking = random_masking(grid, 2);
        let pixels: Vec<f32> = (0..2 * grid.clip_values()).map(|at| ((at * 7919 % 1013) as f32 / 1013.0 - 0.5) * 4.0).collect();
        let shape = (2, 3, grid.frames, grid.size, grid.size);
        let clips = candle_core::Tensor::from_vec(pixels, shape, &Device::Cpu).expect("clips");
        let predicted = model.forward(&clips, &masking).expect("predictions");
        let target = model.target(&clips).expect("a target").values;
        let gradients = masked_mean_squared_error(&predicted, &target, masking.mask()).and_then(|loss| loss.backward()).expect("gradients");
        for (name, variable) in model.parameters().iter() {
            let gradient = gradients.get(variable).unwrap_or_else(|| panic!("{name} has no gradient: the graph is cut"));
            let gradient = gradient.flatten_all().and_then(|flat| flat.to_vec1::<f32>()).expect("values");
            assert!(gradient.iter().all(|value| value.is_finite()), "{name}");
            // That of a key bias is zero: a softmax does not see a constant.
            assert!(name.ends_with("attn.k.bias") || gradient.iter().any(|&value| value != 0.0), "{name} gets a gradient of zero");
        }
    }
}

#[test]
fn whole_clips_and_patches_have_the_same_loss_and_gradients() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = data(dir.path(), 5);
    for (slices, values) in [(1, ValueType::F32), (2, ValueType::F32), (1, ValueType::Bf16), (1, ValueType::U8)] {
        let mut config = config(1);
        config.target.slices = slices;
        config.data.values = values;
        let model = Mae::seeded(config.model(), 1, &Device::Cpu).expect("a model");
        let of = |form: Form| {
            let loading = Loading { threads: 1, memory_bytes: DEFAULT_MEMORY_BYTES, max_bad: 0 };
            let mut options = engine::loader_options(&config, loading, Cursor::default());
            options.format.form = form;
            let batch = Loader::new(Arc::clone(&data), options).expect("a loader").next().expect("endless").expect("a batch");
            let loss = model.loss(&on_cpu(batch)).expect("a loss");
            let gradients = loss.backward().expect("gradients");
            let variables = model.parameters().iter().map(|(_, variable)| gradients.get(variable).expect("a gradient"));
            let gradients = variables.map(|gradient| gradient.flatten_all().and_then(|flat| flat.to_vec1::<f32>()).expect("values"));
            (loss.to_scalar::<f32>().expect("a value"), gradients.collect::<Vec<_>>().concat())
        };
        let (whole, patches) = (of(Form::Clips), of(Form::Patches { slices }));
        assert!((whole.0 / patches.0 - 1.0).abs() < 1e-6, "{slices} slices of {values:?}: {} and {}", whole.0, patches.0);
        let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|value| f64::from(value).powi(2)).sum::<f64>().sqrt();
        let difference = norm(&mut whole.1.iter().zip(&patches.1).map(|(a, b)| a - b)) / norm(&mut whole.1.iter().copied());
        assert!(difference < 1e-5, "{slices} slices of {values:?}: gradients differ by {difference:e}");
    }
}

#[test]
fn a_few_clips_are_learned_by_heart() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = data(&dir.path().join("shards"), 4);
    let mut config = config(150);
    config.data.area = [1.0, 1.0];
    config.data.flip = 0.0;
    let mut losses = Vec::new();
    let on_event = |event: Event<'_>| losses.extend(step_of(event).map(|metrics| metrics.loss));
    engine::pretrain(&run(&dir.path().join("run"), &data, config), on_event).expect("trained");
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (first, last) = (mean(&losses[..5]), mean(&losses[145..]));
    assert!(last < 0.75 * first, "the loss went from {first} to {last}");
}

#[test]
fn a_run_that_was_cut_ends_as_one_that_was_not() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = data(&dir.path().join("shards"), 7);
    let whole = run(&dir.path().join("whole"), &data, config(8));
    engine::pretrain(&whole, |_| ()).expect("trained");

    // Cut in step 5, beyond the checkpoint of step 3, as a kill would.
    let cut = run(&dir.path().join("cut"), &data, config(8));
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        engine::pretrain(&cut, |event| assert!(step_of(event).is_some_and(|metrics| metrics.step < 5), "cut here"))
    }));
    assert!(panic.is_err());
    let outcome = engine::pretrain(&cut, |_| ()).expect("resumed");
    assert_eq!((outcome.resumed_from, outcome.steps), (3, 8));

    for file in ["model.safetensors", "optimizer.safetensors", "state.json"] {
        let read = |run: &Run| fs::read(run.dir.join("checkpoints/step-000008").join(file)).expect("a checkpoint");
        assert!(read(&whole) == read(&cut), "{file} differs");
    }
    let losses = |run: &Run| {
        let text = fs::read_to_string(run.dir.join(METRICS_FILE)).expect("metrics");
        let steps = text.lines().map(|line| serde_json::from_str::<StepMetrics>(line).expect("a step"));
        steps.map(|metrics| (metrics.step, metrics.loss)).collect::<Vec<_>>()
    };
    assert_eq!(losses(&whole), losses(&cut));
    // Only the last two checkpoints are kept.
    let mut left: Vec<_> =
        fs::read_dir(cut.dir.join("checkpoints")).expect("listed").map(|entry| entry.expect("an entry").file_name()).collect();
    left.sort();
    assert_eq!(left, ["step-000006", "step-000008"]);
}

#[test]
fn other_data_does_not_continue_a_run() {
    let dir = tempfile::tempdir().expect("a folder");
    let first = data(&dir.path().join("shards"), 5);
    engine::pretrain(&run(&dir.path().join("run"), &first, config(3)), |_| ()).expect("trained");
    let other = data(&dir.path().join("others"), 6);
    let error = engine::pretrain(&run(&dir.path().join("run"), &other, config(3)), |_| ()).expect_err("other data");
    assert!(matches!(error, RunError::OtherData { began: 5, now: 6 }), "{error}");
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_and_keeps_its_checkpoint() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = data(&dir.path().join("shards"), 5);
    let mut config = config(6);
    // Such a rate makes the weights overflow right after the first steps.
    config.optimizer.base_lr = 1e38;
    config.optimizer.clip_norm = f64::MAX;
    config.schedule.warmup = 0.0;
    config.checkpoints.every = 1;
    let error = engine::pretrain(&run(&dir.path().join("run"), &data, config), |_| ()).expect_err("no finite loss");
    let RunError::Nonfinite { samples, checkpoint: Some(checkpoint), .. } = error else { panic!("{error}") };
    assert_eq!(samples.len(), 4, "the batch is named");
    assert!(checkpoint.join("model.safetensors").exists());
}

#[test]
fn the_picture_shows_frames_masks_and_the_visible_patches() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = data(&dir.path().join("shards"), 2);
    let config = config(1);
    let learner = Learner::new(&config, &Device::Cpu).expect("a learner");
    let examples = || pipeline::loader::examples(&data, config.clip, config.masking, 0, 3).expect("examples");
    let picture = trainer::visualise::reconstruction(&learner, examples()).expect("a picture");
    // Two clips of three rows, two predicted frames each, with gaps of 2.
    assert_eq!(picture.dimensions(), (2 * 34 - 2, 6 * 34 - 2));
    let batch = on_cpu(examples());
    let DevicePixels::Clips(clips) = &batch.pixels else { panic!("whole clips") };
    let visible = examples().masks().iter().next().expect("a mask").visible.to_vec();
    let frames = clips.get(0).and_then(|clip| clip.to_dtype(candle_core::DType::F32)).expect("the first clip");
    let grid = config.clip;
    for token in 0..grid.tokens() {
        let (time, place) = (token / grid.space(), token % grid.space());
        let (y, x) = (place / grid.side() * grid.patch, place % grid.side() * grid.patch);
        // Target frames of 8 frames and 2 tubelets: the first and the last.
        let frame = [0, 7][time];
        let pixel = |channel: usize| {
            let value = frames.get(channel).and_then(|c| c.get(frame)?.get(y)?.get(x)?.to_scalar::<f32>()).expect("a value");
            pipeline::transform::denormalise(value)
        };
        let truth = [pixel(0), pixel(1), pixel(2)];
        let shown = |row: u32| picture.get_pixel((time * 34 + x) as u32, row * 34 + y as u32).0;
        let near = |a: [u8; 3], b: [u8; 3]| a.iter().zip(b).all(|(&a, b)| a.abs_diff(b) <= 1);
        assert!(near(shown(0), truth), "token {token}: {:?} for {truth:?}", shown(0));
        if visible.contains(&(token as u32)) {
            assert!(near(shown(1), truth) && near(shown(2), truth), "token {token} is visible");
        } else {
            assert_eq!(shown(1), [96; 3], "token {token} is hidden");
        }
    }
}
