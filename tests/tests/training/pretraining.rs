//! Pre-training: gradients of every parameter, a few clips learned by heart, resumed runs, steps
//! that are not finite, and pictures of reconstructions.

use candle_core::{Device, Tensor};
use pipeline::loader::batch::{Batch, Form, ValueType};
use pipeline::loader::{DEFAULT_MEMORY_BYTES, Loader, LoaderOptions};
use pipeline::sampling::mask::{MaskKind, MaskRule, MaskScratch, Masks};
use pipeline::sampling::order::{Cursor, Purpose, stream};
use pipeline::source::WeightedSource;
use schemas::geometry::PatchGrid;
use schemas::report::StepMetrics;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tests::{
    TestClip, ran_on_each_instruction_set, shard_sources, small_mae, small_pretraining, small_run,
    write_shards,
};
use trainer::backend::{Learner, LearnerError, MaeLearner, NamedValues, SavedLearner};
use trainer::config::{
    CheckpointsConfig, ComputeConfig, Layer, OnNonfinite, PretrainConfig, SafetyConfig,
};
use trainer::cpu::{Part, Precision};
use trainer::data::Uploader;
use trainer::log::METRICS_FILE;
use trainer::model::loss::mean_squared_error;
use trainer::model::{DeviceBatch, DevicePixels};
use trainer::model::{Mae, MaeConfig, Masking, PositionKind, TargetKind, TransformerConfig};
use trainer::train::checkpoint::{Checkpoints, RunState};
use trainer::train::{self, Event, Loading, Run, RunError};

/// A layer of one setting.
fn set(assignment: &str) -> Layer {
    Layer::assignment("the test", assignment).expect("an assignment")
}

/// Targets that the paper compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Pixels,
    Normalised,
    Hog,
}

fn set_target(config: &mut PretrainConfig, target: Target) {
    config.objective.target.kind = if target == Target::Hog {
        TargetKind::Hog
    } else {
        TargetKind::Pixels
    };
    config.objective.target.normalise = target == Target::Normalised;
}

fn data(dir: &Path, clips: u64) -> Arc<[WeightedSource]> {
    let clips: Vec<TestClip> = (0..clips)
        .map(|seed| TestClip::moving(seed, 8, 40, 36))
        .collect();
    write_shards(dir, &clips);
    shard_sources(dir)
}

fn on_cpu(batch: Batch) -> DeviceBatch {
    Uploader::new(&Device::Cpu)
        .and_then(|uploader| uploader.upload(batch))
        .expect("on the device")
}

/// The figures of a step, if one is done.
fn step_of(event: Event<'_>) -> Option<&StepMetrics> {
    match event {
        Event::Step(metrics, _) => Some(metrics),
        _ => None,
    }
}

/// Masks of `clips` clips, two thirds masked, `decoder_keep` of these predicted.
fn random_masking(grid: PatchGrid, decoder_keep: f64, clips: usize) -> Masking {
    let rule = MaskRule {
        decoder_keep,
        ..MaskRule::new(MaskKind::Random, 2.0 / 3.0)
    };
    let mut rows = vec![0; clips * grid.tokens()];
    for (row, clip) in rows.chunks_exact_mut(grid.tokens()).zip(0..) {
        rule.draw(
            &mut stream(Purpose::Mask, 0, 0, clip),
            grid,
            &mut MaskScratch::default(),
            row,
        );
    }
    let masks = Masks::new(&rows, grid.tokens(), rule.visible(grid).expect("a rule"))
        .predicting(rule.predicted(grid).expect("a rule"));
    Masking::new(masks, &Device::Cpu).expect("masks")
}

/// Two clips of noise.
fn two_clips(grid: PatchGrid) -> Tensor {
    let pixels: Vec<f32> = (0..2 * grid.clip_values())
        .map(|at| ((at * 7919 % 1013) as f32 / 1013.0 - 0.5) * 4.0)
        .collect();
    Tensor::from_vec(
        pixels,
        (2, 3, grid.frames, grid.size, grid.size),
        &Device::Cpu,
    )
    .expect("clips")
}

/// All that the paper varies in the model: two kinds of positions, a cls token or none, three
/// targets, all masked tokens predicted or half of them.
fn variants() -> impl Iterator<Item = (PositionKind, bool, Target, f64)> {
    let positions = [PositionKind::Separable, PositionKind::Joint].into_iter();
    let models =
        positions.flat_map(|positions| [true, false].map(|class_token| (positions, class_token)));
    let targets = [Target::Pixels, Target::Normalised, Target::Hog];
    let models = models.flat_map(move |(positions, class_token)| {
        targets.map(|target| (positions, class_token, target))
    });
    models.flat_map(|(positions, class_token, target)| {
        [1.0, 0.5].map(|decoder_keep| (positions, class_token, target, decoder_keep))
    })
}

/// A small model of one of the [`variants`].
fn variant(
    grid: PatchGrid,
    positions: PositionKind,
    class_token: bool,
    target: Target,
) -> MaeConfig {
    MaeConfig {
        positions,
        class_token,
        target: if target == Target::Hog {
            TargetKind::Hog
        } else {
            TargetKind::Pixels
        },
        normalise_target: target == Target::Normalised,
        ..small_mae(grid, [24, 2, 2], [18, 2, 3])
    }
}

#[test]
fn every_parameter_gets_a_gradient() {
    let grids = [
        PatchGrid {
            frames: 4,
            size: 32,
            tubelet: 2,
            patch: 16,
        },
        PatchGrid {
            frames: 6,
            size: 24,
            tubelet: 3,
            patch: 8,
        },
        PatchGrid {
            frames: 3,
            size: 20,
            tubelet: 1,
            patch: 5,
        },
        // A still picture.
        PatchGrid {
            frames: 1,
            size: 32,
            tubelet: 1,
            patch: 8,
        },
    ];
    for (grid, (positions, class_token, target, decoder_keep)) in grids
        .into_iter()
        .flat_map(|grid| variants().map(move |of| (grid, of)))
    {
        let case = format!(
            "{grid:?}, {positions:?}, cls token {class_token}, {target:?}, {decoder_keep} kept"
        );
        let model = Mae::seeded(
            variant(grid, positions, class_token, target),
            3,
            &Device::Cpu,
        )
        .expect("a model");
        let has = |name: &str| model.parameters().iter().any(|(known, _)| known == name);
        assert_eq!(
            (has("cls_token"), has("decoder_cls_token")),
            (class_token, class_token),
            "{case}"
        );
        assert_eq!(
            (has("pos_embed"), has("decoder_pos_embed")),
            (
                positions == PositionKind::Joint,
                positions == PositionKind::Joint
            ),
            "{case}"
        );
        let has_class_position = class_token && positions == PositionKind::Separable;
        assert_eq!(
            (has("pos_embed_class"), has("decoder_pos_embed_class")),
            (has_class_position, has_class_position),
            "{case}"
        );
        let clips = two_clips(grid);
        let batch = DeviceBatch {
            pixels: DevicePixels::Clips(clips),
            masking: random_masking(grid, decoder_keep, 2),
        };
        let gradients = model
            .loss(&batch)
            .and_then(|loss| loss.backward())
            .expect("gradients");
        for (name, variable) in model.parameters().iter() {
            let gradient = gradients
                .get(variable)
                .unwrap_or_else(|| panic!("{name} has no gradient: the graph is cut ({case})"));
            let gradient = gradient
                .flatten_all()
                .and_then(|flat| flat.to_vec1::<f32>())
                .expect("values");
            assert!(
                gradient.iter().all(|value| value.is_finite()),
                "{name} ({case})"
            );
            // That of a key bias is zero: a softmax does not see a constant.
            assert!(
                name.ends_with("attn.k.bias") || gradient.iter().any(|&value| value != 0.0),
                "{name} gets a gradient of zero ({case})"
            );
        }
    }
}

#[test]
fn without_masks_every_token_is_seen_and_predicted() {
    let config = small_pretraining(1);
    let (model, grid) = (
        Mae::seeded(config.model(), 1, &Device::Cpu).expect("a model"),
        config.common.clip,
    );
    let pixels: Vec<f32> = (0..2 * grid.clip_values())
        .map(|at| (at * 7919 % 1013) as f32 / 250.0 - 2.0)
        .collect();
    let clips = Tensor::from_vec(
        pixels,
        (2, 3, grid.frames, grid.size, grid.size),
        &Device::Cpu,
    )
    .expect("clips");
    let masking = Masking::all_visible(2, grid.tokens(), &Device::Cpu).expect("no masks");
    assert!(masking.hides_nothing() && !random_masking(grid, 1.0, 2).hides_nothing());
    let predicted = model.forward(&clips, &masking).expect("predictions");
    let target = model
        .config()
        .target_of_clips(&clips)
        .expect("a target")
        .values;
    let expected = mean_squared_error(&predicted, &target)
        .and_then(|loss| loss.to_scalar::<f32>())
        .expect("a loss");
    let loss = model
        .loss(&DeviceBatch {
            pixels: DevicePixels::Clips(clips.clone()),
            masking,
        })
        .expect("a loss");
    assert_eq!(loss.to_scalar::<f32>().expect("a value"), expected);
    // Whatever a token is, its prediction depends on it; and the mask token is nowhere.
    let moved = (&clips + 0.5)
        .and_then(|moved| {
            model.forward(
                &moved,
                &Masking::all_visible(2, grid.tokens(), &Device::Cpu)?,
            )
        })
        .expect("predictions");
    let by_token = (moved - predicted)
        .and_then(|moved| moved.abs()?.sum(2)?.flatten_all()?.to_vec1::<f32>())
        .expect("values");
    assert!(by_token.iter().all(|&moved| moved > 0.0));
    let gradients = loss.backward().expect("gradients");
    for (name, variable) in model.parameters().iter() {
        let gradient = gradients
            .get(variable)
            .unwrap_or_else(|| panic!("{name} has no gradient"));
        let most = gradient
            .abs()
            .and_then(|gradient| gradient.max_all()?.to_scalar::<f32>())
            .expect("a value");
        assert!(
            name.ends_with("attn.k.bias") || (most > 0.0) == (name != "mask_token"),
            "{name}: {most}"
        );
    }
}

#[test]
fn whole_clips_and_patches_have_the_same_loss_and_gradients() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = data(dir.path(), 5);
    let as_they_are = [
        (1, ValueType::F32),
        (2, ValueType::F32),
        (1, ValueType::Bf16),
        (1, ValueType::U8),
    ]
    .into_iter()
    .map(|(slices, values)| {
        let mut config = small_pretraining(1);
        config.objective.target.pred_frames = slices;
        config.common.data.values = values;
        config
    });
    let varied = variants().map(|(positions, class_token, target, decoder_keep)| {
        let mut config = small_pretraining(1);
        config.common.model.positions = positions;
        config.common.model.class_token = class_token;
        set_target(&mut config, target);
        config.objective.target.pred_frames = 2;
        config.objective.masking.decoder_keep = decoder_keep;
        config.check().expect("valid");
        config
    });
    let image = small_pretraining(1).with(&[
        set("clip={ frames = 1, tubelet = 1 }"),
        set("masking.decoder_keep=0.5"),
    ]);
    for config in as_they_are.chain(varied).chain([image.expect("sound")]) {
        let model = Mae::seeded(config.model(), 1, &Device::Cpu).expect("a model");
        let of = |form: Form| {
            let loading = Loading {
                threads: 1,
                memory_bytes: DEFAULT_MEMORY_BYTES,
                max_bad: 0,
            };
            let mut options = train::loader_options(&config, loading, Cursor::default());
            options.format.form = form;
            let batch = Loader::new(Arc::clone(&data), options)
                .expect("a loader")
                .next()
                .expect("endless")
                .expect("a batch");
            let loss = model.loss(&on_cpu(batch)).expect("a loss");
            let gradients = loss.backward().expect("gradients");
            let variables = model
                .parameters()
                .iter()
                .map(|(_, variable)| gradients.get(variable).expect("a gradient"));
            let gradients = variables.map(|gradient| {
                gradient
                    .flatten_all()
                    .and_then(|flat| flat.to_vec1::<f32>())
                    .expect("values")
            });
            (
                loss.to_scalar::<f32>().expect("a value"),
                gradients.collect::<Vec<_>>().concat(),
            )
        };
        let (whole, patches) = (
            of(Form::Clips),
            of(Form::Patches {
                target: config.model().target_form(),
            }),
        );
        let case = config.differences(&small_pretraining(1)).join("; ");
        assert!(
            (whole.0 / patches.0 - 1.0).abs() < 1e-6,
            "{case}: {} and {}",
            whole.0,
            patches.0
        );
        let norm = |values: &mut dyn Iterator<Item = f32>| {
            values
                .map(|value| f64::from(value).powi(2))
                .sum::<f64>()
                .sqrt()
        };
        let difference = norm(&mut whole.1.iter().zip(&patches.1).map(|(a, b)| a - b))
            / norm(&mut whole.1.iter().copied());
        assert!(
            difference < 1e-5,
            "{case}: gradients differ by {difference:e}"
        );
    }
}

/// The weights of a model, by name.
fn weights(model: &Mae) -> HashMap<String, Tensor> {
    model
        .parameters()
        .iter()
        .map(|(name, variable)| (name.to_owned(), variable.as_detached_tensor()))
        .collect()
}

#[test]
fn joint_positions_of_separable_sums_predict_the_same() {
    let grid = PatchGrid {
        frames: 6,
        size: 24,
        tubelet: 3,
        patch: 8,
    };
    for (class_token, decoder_keep) in [(true, 1.0), (true, 0.5), (false, 1.0), (false, 0.5)] {
        let separable = Mae::seeded(
            variant(grid, PositionKind::Separable, class_token, Target::Pixels),
            3,
            &Device::Cpu,
        )
        .expect("a model");
        let mut weights = weights(&separable);
        for prefix in ["", "decoder_"] {
            let mut take = |part: &str| weights.remove(&format!("{prefix}pos_embed_{part}"));
            let (spatial, temporal) = (
                take("spatial").expect("positions"),
                take("temporal").expect("positions"),
            );
            // Time step after time step, and the cls token's before all of them.
            let mut rows: Vec<Tensor> = take("class").into_iter().collect();
            for time in 0..grid.time() {
                rows.push(
                    temporal
                        .narrow(1, time, 1)
                        .and_then(|step| spatial.broadcast_add(&step))
                        .expect("sums"),
                );
            }
            weights.insert(
                format!("{prefix}pos_embed"),
                Tensor::cat(&rows, 1).expect("one table"),
            );
        }
        let joint = Mae::from_tensors(
            variant(grid, PositionKind::Joint, class_token, Target::Pixels),
            weights,
            &Device::Cpu,
        )
        .expect("a model");
        let (clips, masking) = (two_clips(grid), random_masking(grid, decoder_keep, 2));
        let of = |model: &Mae| {
            model
                .forward(&clips, &masking)
                .and_then(|out| out.flatten_all()?.to_vec1::<f32>())
                .expect("predictions")
        };
        assert!(
            of(&separable) == of(&joint),
            "cls token {class_token}, {decoder_keep} kept"
        );
    }
}

#[test]
fn without_attention_a_token_is_predicted_alike_whatever_else_the_decoder_takes() {
    let grid = PatchGrid {
        frames: 6,
        size: 24,
        tubelet: 3,
        patch: 8,
    };
    for (positions, class_token) in [
        (PositionKind::Separable, true),
        (PositionKind::Joint, true),
        (PositionKind::Joint, false),
    ] {
        let config = variant(grid, positions, class_token, Target::Pixels);
        let config = MaeConfig {
            decoder: TransformerConfig {
                depth: 0,
                ..config.decoder
            },
            ..config
        };
        let model = Mae::seeded(config, 3, &Device::Cpu).expect("a model");
        let (clips, [all, half]) = (
            two_clips(grid),
            [1.0, 0.5].map(|keep| random_masking(grid, keep, 2)),
        );
        let of = |masking: &Masking| model.forward(&clips, masking).expect("predictions");
        let values = |x: Tensor| {
            x.flatten_all()
                .and_then(|flat| flat.to_vec1::<f32>())
                .expect("values")
        };
        let (got, wanted) = (
            values(of(&half)),
            values(half.select_decoded(&of(&all)).expect("rows")),
        );
        // 6 of 18 tokens are seen, and 6 of the others predicted. Products of other sizes may round
        // otherwise.
        assert_eq!((half.decoded(), got.len()), (12, wanted.len()));
        assert!(
            got.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-5),
            "{positions:?}, cls token {class_token}"
        );
    }
}

#[test]
fn what_the_decoder_leaves_out_does_not_matter() {
    let grid = PatchGrid {
        frames: 4,
        size: 32,
        tubelet: 2,
        patch: 8,
    };
    let model = Mae::seeded(
        variant(grid, PositionKind::Separable, true, Target::Normalised),
        3,
        &Device::Cpu,
    )
    .expect("a model");
    let rule = MaskRule {
        decoder_keep: 0.5,
        ..MaskRule::new(MaskKind::Random, 0.75)
    };
    let (visible, predicted) = (
        rule.visible(grid).expect("a rule"),
        rule.predicted(grid).expect("a rule"),
    );
    let mut rows = vec![0; grid.tokens()];
    rule.draw(
        &mut stream(Purpose::Mask, 0, 0, 0),
        grid,
        &mut MaskScratch::default(),
        &mut rows,
    );
    let masks = Masks::new(&rows, grid.tokens(), visible).predicting(predicted);
    let left_out = masks.iter().next().expect("a mask").masked[predicted..].to_vec();
    let predicted_tokens = masks.iter().next().expect("a mask").predicted.to_vec();
    let masking = Masking::new(masks, &Device::Cpu).expect("masks");
    assert_eq!(
        (masking.decoded(), masking.mask().dims()),
        (8 + 12, [1, 20].as_slice())
    );
    // Patches turned to black: of the target's frames.
    let loss = |blackened: &[u32]| {
        let mut pixels = two_clips(grid)
            .get(0)
            .and_then(|clip| clip.flatten_all()?.to_vec1::<f32>())
            .expect("pixels");
        for &token in blackened {
            let (time, place) = (token as usize / grid.space(), token as usize % grid.space());
            for (channel, frame, y, x) in (0..3).flat_map(|c| {
                (0..2)
                    .flat_map(move |f| (0..8).flat_map(move |y| (0..8).map(move |x| (c, f, y, x))))
            }) {
                let (row, column) = (place / grid.side() * 8 + y, place % grid.side() * 8 + x);
                pixels[((channel * 4 + 2 * time + frame) * 32 + row) * 32 + column] = 0.0;
            }
        }
        let clips = Tensor::from_vec(pixels, (1, 3, 4, 32, 32), &Device::Cpu).expect("a clip");
        let batch = DeviceBatch {
            pixels: DevicePixels::Clips(clips),
            masking: masking.clone(),
        };
        model
            .loss(&batch)
            .and_then(|loss| loss.to_scalar::<f32>())
            .expect("a loss")
    };
    assert_eq!(loss(&[]), loss(&left_out));
    assert_ne!(loss(&[]), loss(&predicted_tokens));
}

#[test]
fn a_few_clips_are_learned_by_heart() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = data(&dir.path().join("shards"), 4);
    let mut config = small_pretraining(150);
    config.common.data.area = [1.0, 1.0];
    config.common.data.flip = 0.0;
    let mut losses = Vec::new();
    let on_event = |event: Event<'_>| losses.extend(step_of(event).map(|metrics| metrics.loss));
    train::train(&small_run(&dir.path().join("run"), &data, config), on_event).expect("trained");
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (first, last) = (mean(&losses[..5]), mean(&losses[145..]));
    assert!(last < 0.75 * first, "the loss went from {first} to {last}");
}

#[test]
fn a_run_that_was_cut_ends_as_one_that_was_not() {
    if ran_on_each_instruction_set("pretraining::a_run_that_was_cut_ends_as_one_that_was_not") {
        return;
    }
    cut_and_compare(&small_pretraining(8));
    // In bf16, too, with other numbers of threads, and computing again what was not kept.
    let compute = ComputeConfig {
        dtype: Precision::Bf16,
        gradient_checkpointing: true,
    };
    let mut config = small_pretraining(8);
    config.common.compute = compute;
    cut_and_compare(&config);
}

fn cut_and_compare(config: &PretrainConfig) {
    let dir = tempfile::tempdir().expect("a folder");
    let data = data(&dir.path().join("shards"), 7);
    let whole = small_run(&dir.path().join("whole"), &data, config.clone());
    train::train(&whole, |_| ()).expect("trained");

    // Cut in step 5, beyond the checkpoint of step 3, as a kill would.
    let mut cut = small_run(&dir.path().join("cut"), &data, config.clone());
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        train::train(&cut, |event| {
            assert!(
                step_of(event).is_some_and(|metrics| metrics.step < 5),
                "cut here"
            )
        })
    }));
    assert!(panic.is_err());
    // Neither threads nor recomputation decide what is computed.
    cut.compute_threads = 1;
    let mut other = config.clone();
    other.common.compute.gradient_checkpointing = !config.common.compute.gradient_checkpointing;
    cut.task = other.into();
    let outcome = train::train(&cut, |_| ()).expect("resumed");
    assert_eq!((outcome.resumed_from, outcome.steps), (3, 8));

    for file in ["model.safetensors", "optimizer.safetensors"] {
        let read = |run: &Run| {
            fs::read(run.dir.join("checkpoints/step-000008").join(file)).expect("a checkpoint")
        };
        assert!(read(&whole) == read(&cut), "{file} differs");
    }
    let losses = |run: &Run| {
        let text = fs::read_to_string(run.dir.join(METRICS_FILE)).expect("metrics");
        let steps = text
            .lines()
            .map(|line| serde_json::from_str::<StepMetrics>(line).expect("a step"));
        steps
            .map(|metrics| (metrics.step, metrics.loss))
            .collect::<Vec<_>>()
    };
    assert_eq!(losses(&whole), losses(&cut));
    // Only the last two checkpoints are kept.
    let mut left: Vec<_> = fs::read_dir(cut.dir.join("checkpoints"))
        .expect("listed")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["step-000006", "step-000008"]);
}

/// Values of a checkpoint's file, by name.
fn stored(run: &Run, step: u64, file: &str) -> HashMap<String, Vec<f32>> {
    let path = run
        .dir
        .join(format!("checkpoints/step-{step:06}"))
        .join(file);
    let tensors = candle_core::safetensors::load(path, &Device::Cpu)
        .expect("a checkpoint")
        .into_iter();
    tensors
        .map(|(name, tensor)| {
            (
                name,
                tensor
                    .flatten_all()
                    .and_then(|flat| flat.to_vec1())
                    .expect("values"),
            )
        })
        .collect()
}

#[test]
fn two_batches_of_two_learn_as_one_of_four() {
    if ran_on_each_instruction_set("pretraining::two_batches_of_two_learn_as_one_of_four") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let data = data(&dir.path().join("shards"), 7);
    let trained = |name: &str, batch_size: usize, accumulate: usize| {
        let mut config = small_pretraining(6);
        config.common.data.batch_size = batch_size;
        config.common.data.grad_accum = accumulate;
        let run = small_run(&dir.path().join(name), &data, config);
        let mut steps = Vec::new();
        train::train(&run, |event| {
            steps
                .extend(step_of(event).map(|step| (step.loss, step.grad_norm, step.lr, step.epoch)))
        })
        .expect("trained");
        (run, steps)
    };
    let (one, two) = (trained("one", 4, 1), trained("two", 2, 2));
    assert_eq!((one.1.len(), two.1.len()), (6, 6));
    for (one, two) in one.1.iter().zip(&two.1) {
        assert!(
            (one.0 / two.0 - 1.0).abs() < 1e-5 && (one.1 / two.1 - 1.0).abs() < 1e-5,
            "loss and norm: {one:?} and {two:?}"
        );
        assert_eq!((one.2, one.3), (two.2, two.3), "rate and epoch");
    }
    let (a, b) = (
        stored(&one.0, 6, "model.safetensors"),
        stored(&two.0, 6, "model.safetensors"),
    );
    // The gradient of a key bias is nothing but rounding, which AdamW makes steps of.
    for (name, values) in a.iter().filter(|(name, _)| !name.ends_with("attn.k.bias")) {
        let most = values
            .iter()
            .zip(&b[name])
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(most < 1e-5, "{name} differs by {most}");
    }
    // A step of one batch of two is another one.
    let half = trained("half", 2, 1);
    assert!((half.1[0].1 / one.1[0].1 - 1.0).abs() > 1e-3);
}

/// A clip that is one grey: Y is `luma`, and there is no colour.
fn grey(seed: u64, luma: u8) -> TestClip {
    let mut clip = TestClip::moving(seed, 8, 40, 36);
    let (width, height) = (40, 36);
    for frame in clip.payload.chunks_exact_mut(width * height * 3 / 2) {
        frame[..width * height].fill(luma);
        frame[width * height..].fill(128);
    }
    clip
}

/// Data of seven clips that are nearly the mean of all pictures, and one that is white; and a run
/// on it whose patch embedding overflows for white.
fn with_a_clip_that_overflows(dir: &Path, change: impl FnOnce(&mut PretrainConfig)) -> Run {
    let clips: Vec<TestClip> = (0..8)
        .map(|seed| {
            grey(
                seed,
                if seed == WHITE {
                    235
                } else {
                    114 + (seed % 2) as u8
                },
            )
        })
        .collect();
    write_shards(&dir.join("shards"), &clips);
    let mut config = small_pretraining(12);
    config.common.data.batch_size = 2;
    config.objective.target.normalise = false;
    change(&mut config);
    let loaded = |edit: &dyn Fn(&str, &mut [f32])| {
        let learner = MaeLearner::new(&config, &Device::Cpu, 2).expect("a learner");
        let tensors = |values: Vec<NamedValues<'_>>| {
            let tensor = |named: NamedValues<'_>| {
                let mut values = named.values.to_vec();
                edit(&named.name, &mut values);
                (
                    named.name,
                    Tensor::from_vec(values, named.shape, &Device::Cpu).expect("a tensor"),
                )
            };
            values.into_iter().map(tensor).collect()
        };
        let (weights, moments) = (
            tensors(learner.weights().expect("weights")),
            tensors(learner.moments().expect("moments")),
        );
        (weights, moments)
    };
    // 768 values of a white patch, 2.4 each, sum to more than a float holds. Those of the others,
    // below 0.01, do not, nor does their sum over the width of 48.
    let (weights, moments) = loaded(&|name, values| {
        if name == "patch_embed.proj.weight" {
            values.fill(3e35)
        }
    });
    let saved = SavedLearner {
        weights,
        moments,
        updates: 0,
    };
    let learner = MaeLearner::resumed(&config, saved, &Device::Cpu, 2).expect("a learner");
    let run = small_run(
        &dir.join("run"),
        &shard_sources(&dir.join("shards")),
        config,
    );
    Checkpoints::new(&run.dir, &run.task)
        .save(&learner, RunState::new(8))
        .expect("saved");
    run
}

/// The clip that overflows.
const WHITE: u64 = 5;

#[test]
fn a_step_that_is_not_finite_changes_nothing_and_the_others_learn() {
    for (accumulate, repeat) in [(1, 1), (2, 2)] {
        let dir = tempfile::tempdir().expect("a folder");
        let run = with_a_clip_that_overflows(dir.path(), |config| {
            config.common.data.grad_accum = accumulate;
            config.common.data.repeat_aug = repeat;
            config.common.safety.on_nonfinite = OnNonfinite::Skip;
            config.common.checkpoints = CheckpointsConfig { every: 1, keep: 99 };
        });
        let (mut finite, mut skipped) = (Vec::new(), Vec::new());
        let outcome = train::train(&run, |event| match event {
            Event::Step(step, _) => finite.push(step.loss.is_finite()),
            Event::Nonfinite(step, _) => skipped.push(step.clone()),
            _ => {}
        });
        let outcome = outcome.expect("trained");
        let bad: Vec<u64> = (1..=12)
            .filter(|&step| !finite[step as usize - 1])
            .collect();
        assert_eq!(
            (outcome.steps, outcome.nonfinite, bad.len()),
            (12, bad.len() as u64, skipped.len())
        );
        assert!(!bad.is_empty() && bad.len() < 12, "{bad:?}");
        // Those are the steps with this clip in them, and it is named.
        assert_eq!(
            bad,
            skipped.iter().map(|step| step.step).collect::<Vec<_>>()
        );
        for step in &skipped {
            assert_eq!(step.batches.len(), accumulate);
            let samples = step
                .batches
                .iter()
                .flat_map(|batch| batch.samples.iter().map(|sample| (sample, batch.loss)));
            let (white, loss) = samples
                .clone()
                .find(|(sample, _)| sample.clip == WHITE)
                .expect("it is in the step");
            assert_eq!(white.video.as_deref(), Some("video-5.mp4"));
            assert!(!loss.is_finite() && step.skipped && step.config == run.task.to_toml());
        }
        // Weights and moments stay where they were, and change in all other steps.
        for file in ["model.safetensors", "optimizer.safetensors"] {
            for step in 1..=12 {
                let is_changed = stored(&run, step, file) != stored(&run, step - 1, file);
                // The first step has a rate of 0.
                let is_to_change =
                    !bad.contains(&step) && (step > 1 || file == "optimizer.safetensors");
                assert_eq!(
                    is_changed, is_to_change,
                    "{file} in step {step}, of which {bad:?} are bad"
                );
            }
        }
        // Taken up in the middle, the run comes to the same end: the optimiser counts the steps
        // that it has done.
        let last = run.dir.join("checkpoints/step-000012");
        let whole = fs::read(last.join("model.safetensors")).expect("weights");
        (8..=12).for_each(|step| {
            fs::remove_dir_all(run.dir.join(format!("checkpoints/step-{step:06}")))
                .expect("removed")
        });
        let resumed = train::train(&run, |_| ()).expect("resumed");
        assert_eq!(
            (resumed.resumed_from, resumed.nonfinite),
            (7, outcome.nonfinite)
        );
        assert!(fs::read(last.join("model.safetensors")).expect("weights") == whole);
    }
}

#[test]
fn more_steps_that_are_not_finite_than_may_be_end_the_run() {
    let dir = tempfile::tempdir().expect("a folder");
    let run = with_a_clip_that_overflows(dir.path(), |config| {
        config.common.safety = SafetyConfig {
            on_nonfinite: OnNonfinite::Skip,
            max_nonfinite: 1,
            max_nonfinite_in_a_row: 9,
        };
    });
    let mut skipped = 0;
    let error = train::train(&run, |event| {
        skipped += u32::from(matches!(event, Event::Nonfinite(..)))
    })
    .expect_err("too many");
    assert!(
        matches!(
            error,
            RunError::TooManyNonfinite {
                key: "safety.max_nonfinite",
                limit: 1,
                in_a_row: false,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(skipped, 1);
    let text = fs::read_to_string(run.dir.join("nonfinite.jsonl")).expect("written down");
    assert_eq!(text.lines().count(), 2);
}

#[test]
fn weights_and_moments_that_do_not_fit_are_named_one_by_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = data(&dir.path().join("shards"), 5);
    let run = small_run(&dir.path().join("run"), &data, small_pretraining(3));
    let mut other = small_pretraining(3);
    other.objective.decoder.depth = 2;
    let learner = MaeLearner::new(&other, &Device::Cpu, 2).expect("a learner");
    // As if it were this run's.
    Checkpoints::new(&run.dir, &run.task)
        .save(&learner, RunState::new(5))
        .expect("saved");
    let error = train::train(&run, |_| ()).expect_err("it does not fit");
    let RunError::NoneValid { invalid, .. } = &error else {
        panic!("{error}")
    };
    let [invalid] = invalid.as_slice() else {
        panic!("{error}")
    };
    assert!(
        invalid
            .reason
            .contains("the weights do not fit this model: "),
        "{error}"
    );
    assert!(
        invalid
            .reason
            .contains("decoder_blocks.1.attn.k.bias is not part of it; "),
        "{error}"
    );
    assert!(
        invalid
            .reason
            .contains("decoder_blocks.1.norm2.weight is not part of it"),
        "{error}"
    );

    // The moments alone.
    let path = run.dir.join("checkpoints/step-000000");
    fs::remove_dir_all(&path).expect("removed");
    let learner = MaeLearner::new(&small_pretraining(3), &Device::Cpu, 2).expect("a learner");
    let checkpoints = Checkpoints::new(&run.dir, &run.task);
    checkpoints.save(&learner, RunState::new(5)).expect("saved");
    let mut loaded = checkpoints.load(&path).expect("sound");
    let moment = loaded.moments.remove("first/norm.bias").expect("a moment");
    loaded
        .moments
        .insert("third/norm.bias".to_owned(), moment.clone());
    loaded
        .moments
        .insert("second/mask_token".to_owned(), moment);
    let saved = SavedLearner {
        weights: loaded.weights,
        moments: loaded.moments,
        updates: 0,
    };
    let error = MaeLearner::resumed(&small_pretraining(3), saved, &Device::Cpu, 2)
        .expect_err("three do not fit")
        .to_string();
    let expected = "the optimizer's moments do not fit this model: second/mask_token is [48], not \
                    [1, 1, 32]; first/norm.bias is missing; \
                    third/norm.bias is not part of it";
    assert_eq!(error, expected);
}

#[test]
fn other_data_does_not_continue_a_run() {
    let dir = tempfile::tempdir().expect("a folder");
    let first = data(&dir.path().join("shards"), 5);
    let go_on = |data: &Arc<[WeightedSource]>, steps| {
        train::train(
            &small_run(&dir.path().join("run"), data, small_pretraining(steps)),
            |_| (),
        )
    };
    go_on(&first, 3).expect("trained");
    let more = data(&dir.path().join("more"), 6);
    let error = go_on(&more, 3).expect_err("other data");
    assert!(
        matches!(error, RunError::OtherData { began: 5, now: 6 }),
        "{error}"
    );
    let shards = dir.path().join("others");
    write_shards(
        &shards,
        &(10..15)
            .map(|seed| TestClip::moving(seed, 8, 40, 36))
            .collect::<Vec<_>>(),
    );
    let error = go_on(&shard_sources(&shards), 3).expect_err("as many other clips");
    assert!(
        matches!(error, RunError::OtherData { began: 5, now: 5 }),
        "{error}"
    );
    // The same clips in another order.
    let turned = first
        .iter()
        .map(|set| WeightedSource {
            chosen: Some([0, 1, 2, 4, 3].into()),
            ..set.clone()
        })
        .collect();
    assert!(matches!(go_on(&turned, 3), Err(RunError::OtherData { .. })));
    // The same data in another folder.
    assert_eq!(
        go_on(&data(&dir.path().join("moved"), 5), 3)
            .expect("the same data")
            .resumed_from,
        3
    );
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_and_keeps_its_checkpoint() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = data(&dir.path().join("shards"), 5);
    let mut config = small_pretraining(6);
    // Such a rate makes the weights overflow right after the first steps.
    config.common.optimizer.base_lr = 1e38;
    config.common.optimizer.clip_norm = f64::MAX;
    config.common.schedule.warmup = 0.0;
    config.common.checkpoints.every = 1;
    let error = train::train(&small_run(&dir.path().join("run"), &data, config), |_| ())
        .expect_err("no finite loss");
    let RunError::Nonfinite {
        samples,
        checkpoint: Some(checkpoint),
        ..
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(samples.len(), 4, "the batch is named");
    assert!(checkpoint.join("model.safetensors").exists());
}

#[test]
fn the_picture_shows_frames_masks_and_the_visible_patches() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = data(&dir.path().join("shards"), 2);
    let config = small_pretraining(1);
    let mut learner = MaeLearner::new(&config, &Device::Cpu, 2).expect("a learner");
    let examples = || {
        pipeline::loader::examples(&data, config.common.clip, config.objective.masking, 0, 3)
            .expect("examples")
    };
    let picture =
        trainer::plot::reconstruction::reconstruction(&mut learner, examples()).expect("a picture");
    // Two clips of four rows, two predicted frames each, with gaps of 2.
    assert_eq!(picture.dimensions(), (2 * 34 - 2, 8 * 34 - 2));
    let batch = on_cpu(examples());
    let DevicePixels::Clips(clips) = &batch.pixels else {
        panic!("whole clips")
    };
    let visible = examples()
        .masks()
        .iter()
        .next()
        .expect("a mask")
        .visible
        .to_vec();
    let frames = clips
        .get(0)
        .and_then(|clip| clip.to_dtype(candle_core::DType::F32))
        .expect("the first clip");
    let grid = config.common.clip;
    for token in 0..grid.tokens() {
        let (time, place) = (token / grid.space(), token % grid.space());
        let (y, x) = (
            place / grid.side() * grid.patch,
            place % grid.side() * grid.patch,
        );
        // Target frames of 8 frames and 2 tubelets: the first and the last.
        let frame = [0, 7][time];
        let pixel = |channel: usize| {
            let value = frames
                .get(channel)
                .and_then(|c| c.get(frame)?.get(y)?.get(x)?.to_scalar::<f32>())
                .expect("a value");
            pipeline::transform::denormalise(value)
        };
        let truth = [pixel(0), pixel(1), pixel(2)];
        let shown = |row: u32| {
            picture
                .get_pixel((time * 34 + x) as u32, row * 34 + y as u32)
                .0
        };
        let near = |a: [u8; 3], b: [u8; 3]| a.iter().zip(b).all(|(&a, b)| a.abs_diff(b) <= 1);
        assert!(
            near(shown(0), truth),
            "token {token}: {:?} for {truth:?}",
            shown(0)
        );
        if visible.contains(&(token as u32)) {
            assert!(
                (1..4).all(|row| near(shown(row), truth)),
                "token {token} is visible"
            );
        } else {
            assert_eq!(shown(1), [96; 3], "token {token} is hidden");
        }
    }
}

#[test]
fn both_backends_draw_the_same_picture() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = data(&dir.path().join("shards"), 2);
    let config = small_pretraining(1);
    let model = Mae::seeded(config.model(), config.common.seed, &Device::Cpu).expect("a model");
    let candle = MaeLearner::candle(model, &config, &Device::Cpu).expect("a learner");
    let cpu = MaeLearner::new(&config, &Device::Cpu, 2).expect("a learner");
    let [one, other] = [candle, cpu].map(|mut learner| {
        let examples =
            pipeline::loader::examples(&data, config.common.clip, config.objective.masking, 0, 3)
                .expect("examples");
        trainer::plot::reconstruction::reconstruction(&mut learner, examples).expect("a picture")
    });
    assert_eq!(one.dimensions(), other.dimensions());
    assert!(
        one.as_raw()
            .iter()
            .zip(other.as_raw())
            .all(|(&a, &b)| a.abs_diff(b) <= 1)
    );
}

#[test]
fn a_picture_of_a_model_of_histograms_shows_frames_and_masks() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = data(&dir.path().join("shards"), 2);
    let draw = |target| {
        let mut config = small_pretraining(1);
        set_target(&mut config, target);
        config.objective.masking.decoder_keep = 0.5;
        let mut learner = MaeLearner::new(&config, &Device::Cpu, 2).expect("a learner");
        let examples =
            pipeline::loader::examples(&data, config.common.clip, config.objective.masking, 0, 3)
                .expect("examples");
        trainer::plot::reconstruction::reconstruction(&mut learner, examples).expect("a picture")
    };
    let (pixels, hog) = (draw(Target::Pixels), draw(Target::Hog));
    assert_eq!(
        (pixels.dimensions(), hog.dimensions()),
        ((2 * 34 - 2, 6 * 34 - 2), (2 * 34 - 2, 4 * 34 - 2))
    );
    // The first two rows of each clip are those of any other model.
    for (clip, row, y) in
        (0..2).flat_map(|clip| (0..2).flat_map(move |row| (0..32).map(move |y| (clip, row, y))))
    {
        for x in 0..66 {
            assert_eq!(
                hog.get_pixel(x, (2 * clip + row) * 34 + y),
                pixels.get_pixel(x, (3 * clip + row) * 34 + y)
            );
        }
    }
}

/// One loader thread.
const LOADING: Loading = Loading {
    threads: 1,
    memory_bytes: DEFAULT_MEMORY_BYTES,
    max_bad: 0,
};

fn first_batch(data: &Arc<[WeightedSource]>, options: LoaderOptions) -> Batch {
    let mut loader = Loader::new(Arc::clone(data), options).expect("a loader");
    loader.next().expect("a batch").expect("loaded")
}

/// The first batch of a pre-training.
fn patches(data: &Arc<[WeightedSource]>, config: &PretrainConfig) -> Batch {
    let options = train::loader_options(config, LOADING, Cursor::default());
    first_batch(data, options)
}

#[test]
fn a_batch_of_another_form_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = data(&dir.path().join("shards"), 4);
    let config = small_pretraining(1);
    let patches = || patches(&data, &config);
    let tokens = || first_batch(&data, LOADING.options(4, config.common.clip));
    let model = Mae::seeded(config.model(), config.common.seed, &Device::Cpu).expect("a model");
    let candle = MaeLearner::candle(model, &config, &Device::Cpu).expect("a learner");
    let cpu = MaeLearner::new(&config, &Device::Cpu, 2).expect("a learner");
    for mut learner in [candle, cpu] {
        assert!(matches!(
            learner.accumulate(tokens(), 1.0),
            Err(LearnerError::BatchForm { .. })
        ));
        assert!(matches!(
            learner.reconstruct(patches()),
            Err(LearnerError::BatchForm { .. })
        ));
        assert!(
            learner.update(1e-3).expect("nothing to do").is_nan(),
            "no gradients wait"
        );
        learner.accumulate(patches(), 1.0).expect("its own form");
        assert!(learner.update(1e-3).expect("a step").is_finite());
        assert_eq!(learner.updates(), 1);
    }
}

/// Micro-batches, with sums over ranks as if others had the same gradients, on both backends.
#[test]
fn micro_batches_are_a_batch_in_parts() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = data(&dir.path().join("shards"), 4);
    let config = small_pretraining(1);
    let batch = || patches(&data, &config);
    let learners = || {
        let model = Mae::seeded(config.model(), config.common.seed, &Device::Cpu).expect("a model");
        let candle = MaeLearner::candle(model, &config, &Device::Cpu).expect("a learner");
        let cpu = MaeLearner::new(&config, &Device::Cpu, 2).expect("a learner");
        [candle, cpu]
    };
    for (mut whole, mut parts) in learners().into_iter().zip(learners()) {
        let wanted = [1.0, 0.5].map(|share| whole.accumulate(batch(), share).expect("a loss"));
        // Four parts, one of them without clips; then two, whose sum is doubled on its way.
        for (count, scale) in [(4, 1.0), (2, 2.0)] {
            let batch = batch();
            let mut losses = 0.0;
            for index in 0..count {
                let clips = match (count, index) {
                    (4, 3) => 4..4,
                    (4, 2) => 2..4,
                    (4, _) => index..index + 1,
                    _ => 2 * index..2 * index + 2,
                };
                let share = clips.len() as f64 / 4.0;
                let (buckets, sums) = std::sync::mpsc::channel();
                let part = Part::Micro {
                    index,
                    count,
                    buckets: (index + 1 == count).then_some(buckets),
                };
                if clips.is_empty() {
                    parts.accumulate_nothing(part).expect("zeros");
                } else {
                    let share = share * 0.5 * (3.0 - scale) / scale;
                    let loss = parts.accumulate_part(&batch, clips.clone(), share, part);
                    losses += clips.len() as f64 / 4.0 * loss.expect("a loss");
                }
                for sum in sums {
                    sum.iter_mut()
                        .for_each(|value: &mut f32| *value *= scale as f32);
                }
            }
            parts.add_batch().expect("added");
            assert!(
                (losses / wanted[0] - 1.0).abs() < 1e-5,
                "{losses} {wanted:?}"
            );
        }
        let norms = [&mut whole, &mut parts].map(|learner| learner.update(1e-3).expect("a step"));
        assert!((norms[1] / norms[0] - 1.0).abs() < 1e-4, "{norms:?}");
    }
}
