//! The pre-training step of the CPU against candle's.

use candle_core::{Device, Tensor};
use pipeline::sampling::mask::{MaskKind, MaskRule, Masks};
use pipeline::sampling::order::{Purpose, stream};
use rand::RngExt;
use schemas::geometry::{PatchGrid, TargetFrames};
use tests::{ran_on_each_instruction_set, relative_error, small_mae, values};
use trainer::cpu::{CpuMae, Patches, Precision, RandomBatch, Resources, Values};
use trainer::model::{
    Conventions, Mae, MaeConfig, Masking, NormalisePer, PositionKind, TargetKind,
};
use trainer::model::{DeviceBatch, DevicePixels};
use trainer::optim::{AdamW, AdamWConfig};

const OPTIMIZER: AdamWConfig = AdamWConfig {
    base_lr: 1e-3,
    betas: [0.9, 0.95],
    epsilon: 1e-8,
    weight_decay: 0.05,
    clip_norm: 0.02,
};

/// A batch of noise for each seed; of every other one the decoder takes half of the masked tokens.
fn noise(config: &MaeConfig, clips: usize, ratio: f64, seed: u64) -> RandomBatch {
    let decoder_keep = if seed.is_multiple_of(2) { 1.0 } else { 0.5 };
    RandomBatch::new(
        config,
        Some(MaskRule {
            decoder_keep,
            ..MaskRule::new(MaskKind::Random, ratio)
        }),
        clips,
        seed,
    )
}

/// The same as tensors.
fn on_device(noise: &RandomBatch) -> DeviceBatch {
    let Patches {
        masks,
        visible,
        target,
    } = noise.patches();
    let tensor = |values: Values<'_>, tokens: usize| {
        let Values::F32(values) = values else {
            panic!("noise is f32")
        };
        Tensor::from_slice(
            values,
            (masks.len(), tokens, values.len() / masks.len() / tokens),
            &Device::Cpu,
        )
        .expect("a tensor")
    };
    let pixels = DevicePixels::Patches {
        visible: tensor(visible, masks.visible()),
        target: tensor(target, masks.predicted()),
    };
    DeviceBatch {
        pixels,
        masking: Masking::new(masks, &Device::Cpu).expect("masks"),
    }
}

fn cpu(model: &Mae, precision: Precision, threads: usize, recomputes: bool) -> CpuMae {
    CpuMae::new(
        *model.config(),
        model.parameters(),
        OPTIMIZER,
        precision,
        Resources {
            threads,
            recomputes,
        },
    )
    .expect("a model")
}

fn configs() -> Vec<(MaeConfig, usize, f64)> {
    let config = |grid, encoder, decoder, slices, normalise_target| MaeConfig {
        slices,
        normalise_target,
        ..small_mae(grid, encoder, decoder)
    };
    let grid = |frames, size, tubelet, patch| PatchGrid {
        frames,
        size,
        tubelet,
        patch,
    };
    // Epsilons so large that they are seen.
    let others = Conventions {
        norm_epsilon: 0.02,
        decoder_norm_epsilon: 0.03,
        normalise_per: NormalisePer::Channel,
        target_frames: TargetFrames::Strided,
        ..Conventions::default()
    };
    let positions = PositionKind::Sinusoid;
    vec![
        (
            MaeConfig {
                positions,
                class_token: false,
                conventions: others,
                ..config(grid(4, 24, 2, 8), [12, 2, 3], [16, 2, 2], 2, true)
            },
            2,
            0.6,
        ),
        (
            MaeConfig {
                positions,
                conventions: Conventions {
                    decoder_positions: Some(PositionKind::Joint),
                    ..others
                },
                ..config(grid(6, 16, 3, 4), [10, 1, 2], [14, 1, 2], 1, true)
            },
            3,
            0.7,
        ),
        (
            config(grid(4, 32, 2, 16), [24, 2, 2], [18, 2, 3], 1, true),
            2,
            0.75,
        ),
        (
            config(grid(6, 24, 3, 8), [10, 1, 2], [7, 1, 1], 3, false),
            3,
            0.5,
        ),
        (
            config(grid(3, 20, 1, 5), [33, 2, 3], [40, 1, 1], 1, true),
            1,
            0.9,
        ),
        (
            config(grid(16, 96, 2, 16), [64, 1, 4], [96, 1, 3], 2, true),
            2,
            0.9,
        ),
        // More keys, and more rows, than are taken at a time.
        (
            config(grid(8, 80, 1, 8), [16, 1, 2], [16, 1, 2], 1, true),
            6,
            0.9,
        ),
        (
            MaeConfig {
                positions: PositionKind::Joint,
                ..config(grid(4, 24, 2, 8), [12, 2, 3], [16, 1, 2], 1, true)
            },
            2,
            0.6,
        ),
        (
            MaeConfig {
                class_token: false,
                ..config(grid(1, 64, 1, 8), [24, 1, 2], [16, 2, 2], 1, true)
            },
            3,
            0.75,
        ),
        (
            MaeConfig {
                positions: PositionKind::Joint,
                class_token: false,
                target: TargetKind::Hog,
                ..config(grid(4, 32, 2, 16), [20, 1, 2], [16, 1, 2], 1, false)
            },
            2,
            0.5,
        ),
    ]
}

#[test]
fn loss_and_gradients_are_those_of_candle() {
    if ran_on_each_instruction_set("cpu_step::loss_and_gradients_are_those_of_candle") {
        return;
    }
    for (at, (config, clips, ratio)) in configs().into_iter().enumerate() {
        let model = Mae::seeded(config, at as u64, &Device::Cpu).expect("a model");
        let noise = noise(&config, clips, ratio, at as u64);
        let loss = model.loss(&on_device(&noise)).expect("a loss");
        let expected = loss.backward().expect("gradients");
        let loss = f64::from(loss.to_scalar::<f32>().expect("a value"));
        for (precision, tolerance, of_all) in
            [(Precision::F32, 1e-5, 1e-5), (Precision::Bf16, 0.2, 0.04)]
        {
            let mut cpu = cpu(&model, precision, 2, false);
            let got = cpu.accumulate(&noise.patches(), 1.0);
            assert!(
                (got / loss - 1.0).abs() < tolerance,
                "model {at} in {precision:?}: loss {got} for {loss}"
            );
            let mut all = [Vec::new(), Vec::new()];
            for (name, variable) in model.parameters().iter() {
                let view = cpu
                    .store()
                    .gradients()
                    .find(|view| view.name == name)
                    .expect("a gradient");
                let expected = values(expected.get(variable).expect("a gradient"));
                all[0].extend_from_slice(view.values);
                all[1].extend_from_slice(&expected);
                let error = relative_error(view.values, &expected);
                if name.ends_with("attn.k.bias") {
                    assert!(
                        view.values.iter().all(|value| value.abs()
                            < if precision == Precision::F32 {
                                1e-6
                            } else {
                                1e-2
                            }),
                        "{name}"
                    );
                } else {
                    assert!(
                        error < tolerance,
                        "model {at} in {precision:?}: {name} differs by {error:e}"
                    );
                }
            }
            // Rounding shows in small gradients; together they are near.
            let error = relative_error(&all[0], &all[1]);
            assert!(
                error < of_all,
                "model {at} in {precision:?}: all gradients differ by {error:e}"
            );
        }
    }
}

#[test]
fn threads_and_recomputation_change_nothing() {
    if ran_on_each_instruction_set("cpu_step::threads_and_recomputation_change_nothing") {
        return;
    }
    for (at, (config, clips, ratio)) in configs().into_iter().enumerate() {
        let model = Mae::seeded(config, at as u64, &Device::Cpu).expect("a model");
        let noise = noise(&config, clips, ratio, at as u64);
        for precision in [Precision::F32, Precision::Bf16] {
            let results = [(1, false), (3, false), (2, true)].map(|(threads, recomputes)| {
                let mut cpu = cpu(&model, precision, threads, recomputes);
                let losses = [
                    cpu.accumulate(&noise.patches(), 0.5),
                    cpu.accumulate(&noise.patches(), 0.5),
                ];
                let norm = cpu.update(1e-2);
                (
                    losses,
                    norm,
                    cpu.store()
                        .weights()
                        .flat_map(|view| view.values.to_vec())
                        .collect::<Vec<_>>(),
                )
            });
            assert!(
                results[0] == results[1],
                "model {at} in {precision:?} depends on threads"
            );
            assert!(
                results[0] == results[2],
                "model {at} in {precision:?} depends on recomputation"
            );
        }
    }
}

#[test]
fn updates_are_those_of_candles_optimizer() {
    if ran_on_each_instruction_set("cpu_step::updates_are_those_of_candles_optimizer") {
        return;
    }
    let (config, clips, ratio) = configs().remove(0);
    let model = Mae::seeded(config, 1, &Device::Cpu).expect("a model");
    let mut cpu = cpu(&model, Precision::F32, 2, false);
    let mut optimizer = AdamW::new(model.parameters(), OPTIMIZER).expect("an optimizer");
    for step in 0..5 {
        let noise = noise(&config, clips, ratio, step);
        let loss = model.loss(&on_device(&noise)).expect("a loss");
        let norm = optimizer
            .step(&loss.backward().expect("gradients"), 1e-3)
            .expect("a step");
        let got = cpu.accumulate(&noise.patches(), 1.0);
        assert!(
            (got / f64::from(loss.to_scalar::<f32>().expect("a value")) - 1.0).abs() < 1e-5,
            "step {step}"
        );
        let got = cpu.update(1e-3);
        assert!(
            (got / norm - 1.0).abs() < 1e-5,
            "step {step}: norm {got} for {norm}"
        );
    }
    for (view, (name, variable)) in model
        .parameters()
        .iter()
        .filter(|(name, _)| !name.ends_with("attn.k.bias"))
        .map(|(name, variable)| {
            (
                cpu.store()
                    .weights()
                    .find(|view| view.name == name)
                    .expect("a weight"),
                (name, variable),
            )
        })
    {
        let error = relative_error(view.values, &values(variable.as_tensor()));
        // Adam amplifies the rounding of gradients near zero.
        assert!(error < 1e-3, "{name} differs by {error:e}");
    }
}

#[test]
fn gradients_of_several_batches_add_up_and_none_are_left_over() {
    if ran_on_each_instruction_set(
        "cpu_step::gradients_of_several_batches_add_up_and_none_are_left_over",
    ) {
        return;
    }
    let (config, clips, ratio) = configs().remove(0);
    let model = Mae::seeded(config, 1, &Device::Cpu).expect("a model");
    let noise = [1, 2].map(|seed| noise(&config, clips, ratio, seed));
    let gradients = |cpu: &CpuMae| {
        cpu.store()
            .gradients()
            .flat_map(|view| view.values.to_vec())
            .collect::<Vec<_>>()
    };
    let alone = [&noise[0], &noise[1]].map(|noise| {
        let mut cpu = cpu(&model, Precision::F32, 2, false);
        cpu.accumulate(&noise.patches(), 0.5);
        gradients(&cpu)
    });
    let mut cpu = cpu(&model, Precision::F32, 2, false);
    assert!(cpu.update(1e-3).is_nan(), "no gradients wait");
    // What was discarded, or used by an update at rate 0, leaves no trace.
    cpu.accumulate(&noise[1].patches(), 3.0);
    cpu.store_mut().discard();
    cpu.accumulate(&noise[0].patches(), 0.5);
    cpu.accumulate(&noise[1].patches(), 0.5);
    let sums: Vec<f32> = alone[0].iter().zip(&alone[1]).map(|(a, b)| a + b).collect();
    assert!(relative_error(&gradients(&cpu), &sums) < 1e-6);
    assert!(cpu.update(0.0) > 0.0);
    cpu.accumulate(&noise[0].patches(), 0.5);
    assert!(relative_error(&gradients(&cpu), &alone[0]) < 1e-6);
}

#[test]
fn a_step_that_masks_nothing_is_that_of_candle() {
    if ran_on_each_instruction_set("cpu_step::a_step_that_masks_nothing_is_that_of_candle") {
        return;
    }
    for (at, (config, clips, _)) in configs()
        .into_iter()
        .enumerate()
        .filter(|(_, (config, ..))| config.target == TargetKind::Pixels)
    {
        let (grid, model) = (
            config.grid,
            Mae::seeded(config, at as u64, &Device::Cpu).expect("a model"),
        );
        let mut rng = stream(Purpose::Synth, at as u64, 3, 4);
        let pixels: Vec<f32> = (0..clips * grid.clip_values())
            .map(|_| rng.random::<f32>() * 4.0 - 2.0)
            .collect();
        let pixels = Tensor::from_vec(
            pixels,
            (clips, 3, grid.frames, grid.size, grid.size),
            &Device::Cpu,
        )
        .expect("clips");
        let [visible, target] = config
            .patches(&pixels)
            .expect("patches")
            .map(|patches| values(&patches));
        let masking = Masking::all_visible(clips, grid.tokens(), &Device::Cpu).expect("masks");
        let loss = model
            .loss(&DeviceBatch {
                pixels: DevicePixels::Clips(pixels),
                masking,
            })
            .expect("a loss");
        let gradients = loss.backward().expect("gradients");
        let rows: Vec<u32> = (0..clips).flat_map(|_| 0..grid.tokens() as u32).collect();
        let masks = Masks::new(&rows, grid.tokens(), grid.tokens());
        let mut cpu = cpu(&model, Precision::F32, 2, false);
        let got = cpu.accumulate(
            &Patches {
                masks,
                visible: Values::F32(&visible),
                target: Values::F32(&target),
            },
            1.0,
        );
        assert!(
            (got / f64::from(loss.to_scalar::<f32>().expect("a value")) - 1.0).abs() < 1e-5,
            "model {at}"
        );
        // Nobody uses the mask token.
        for (name, variable) in model
            .parameters()
            .iter()
            .filter(|(name, _)| !name.ends_with("attn.k.bias") && *name != "mask_token")
        {
            let expected = values(gradients.get(variable).expect("a gradient"));
            let view = cpu
                .store()
                .gradients()
                .find(|view| view.name == name)
                .expect("a gradient");
            let error = relative_error(view.values, &expected);
            assert!(error < 1e-5, "model {at}: {name} differs by {error:e}");
        }
    }
}

/// A parameter, and where to move it.
struct Moved {
    name: String,
    values: Vec<f32>,
    direction: Vec<f32>,
    shape: Vec<usize>,
}

#[test]
fn gradients_agree_with_finite_differences() {
    if ran_on_each_instruction_set("cpu_step::gradients_agree_with_finite_differences") {
        return;
    }
    for (at, (config, clips, ratio)) in configs().into_iter().enumerate() {
        let model = Mae::seeded(config, at as u64, &Device::Cpu).expect("a model");
        let noise = noise(&config, clips, ratio, at as u64);
        // Along a random direction, with steps in proportion to the weights.
        let mut rng = stream(Purpose::Synth, at as u64, 5, 6);
        let weights: Vec<Moved> = model
            .parameters()
            .iter()
            .map(|(name, variable)| {
                let values = values(variable.as_tensor());
                let direction = values
                    .iter()
                    .map(|_| rng.random::<f32>() * 0.2 - 0.1)
                    .collect();
                Moved {
                    name: name.to_owned(),
                    values,
                    direction,
                    shape: variable.dims().to_vec(),
                }
            })
            .collect();
        let loss = |by: f32| {
            let moved = weights.iter().map(
                |Moved {
                     name,
                     values,
                     direction,
                     shape,
                 }| {
                    let values: Vec<f32> = values
                        .iter()
                        .zip(direction)
                        .map(|(value, direction)| value + by * direction)
                        .collect();
                    (
                        name.clone(),
                        Tensor::from_vec(values, shape.as_slice(), &Device::Cpu).expect("a tensor"),
                    )
                },
            );
            let model =
                Mae::from_tensors(config, moved.collect(), &Device::Cpu).expect("the same shapes");
            let mut cpu = cpu(&model, Precision::F32, 2, false);
            let loss = cpu.accumulate(&noise.patches(), 1.0);
            (loss, cpu)
        };
        let (_, cpu) = loss(0.0);
        let slope: f64 = weights
            .iter()
            .map(
                |Moved {
                     name, direction, ..
                 }| {
                    let view = cpu
                        .store()
                        .gradients()
                        .find(|view| view.name == name)
                        .expect("a gradient");
                    view.values
                        .iter()
                        .zip(direction)
                        .map(|(&gradient, &direction)| f64::from(gradient) * f64::from(direction))
                        .sum::<f64>()
                },
            )
            .sum();
        let difference = (loss(0.003).0 - loss(-0.003).0) / 0.006;
        assert!(
            (slope - difference).abs() < 1e-3 * (1.0 + difference.abs()),
            "model {at}: {slope} for {difference}"
        );
    }
}
