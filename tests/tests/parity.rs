//! The model, its loss, its gradients and eight steps of training, against the reference's numbers (`fixtures/README.md`).

use candle_core::{Device, Tensor};
use pipeline::mask::{Masks, from_noise};
use safetensors::SafeTensors;
use schemas::geometry::PatchGrid;
use std::collections::HashMap;
use std::path::Path;
use trainer::loss::masked_mean_squared_error;
use trainer::model::{Mae, MaeConfig, Masking, TransformerConfig};
use trainer::optimizer::{AdamW, AdamWConfig};
use trainer::schedule::Schedule;

/// f32 against float64.
const TOLERANCE: f64 = 1e-4;

struct Fixture {
    tensors: HashMap<String, Tensor>,
    config: MaeConfig,
}

impl Fixture {
    fn read(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
        let bytes = std::fs::read(&path).expect("the fixture");
        let (_, header) = SafeTensors::read_metadata(&bytes).expect("a header");
        let text = &header.metadata().as_ref().expect("metadata")["config"];
        let config: serde_json::Value = serde_json::from_str(text).expect("JSON");
        let number = |key: &str| config[key].as_u64().expect("a number") as usize;
        let grid = PatchGrid {
            frames: number("num_frames"),
            size: number("img_size"),
            tubelet: number("t_patch_size"),
            patch: number("patch_size"),
        };
        let encoder = TransformerConfig { width: number("embed_dim"), depth: number("depth"), heads: number("num_heads") };
        let decoder =
            TransformerConfig { width: number("decoder_embed_dim"), depth: number("decoder_depth"), heads: number("decoder_num_heads") };
        let slices = number("pred_t_dim") / grid.time();
        let normalise_target = config["norm_pix_loss"].as_bool().expect("a bool");
        let tensors = candle_core::safetensors::load(&path, &Device::Cpu).expect("tensors");
        Self { tensors, config: MaeConfig { grid, encoder, decoder, slices, normalise_target } }
    }

    fn model(&self) -> Mae {
        let weights = self.tensors.iter().filter_map(|(name, tensor)| Some((name.strip_prefix("param/")?.to_owned(), tensor.clone())));
        Mae::given(self.config, weights.collect(), &Device::Cpu).expect("the reference's names and shapes")
    }

    fn masking(&self, noise: &Tensor, ratio: f64) -> Masking {
        let (tokens, visible) = (self.config.grid.tokens(), self.config.grid.visible_tokens(ratio));
        let noise = noise.to_vec2::<f32>().expect("noise");
        let mut rows = vec![0; noise.len() * tokens];
        noise.iter().zip(rows.chunks_exact_mut(tokens)).for_each(|(noise, row)| from_noise(noise, visible, row));
        Masking::new(Masks::new(&rows, tokens, visible), &Device::Cpu).expect("masks")
    }
}

fn values(tensor: &Tensor) -> Vec<f64> {
    let flat = tensor.flatten_all().and_then(|flat| flat.to_vec1::<f32>()).expect("values");
    flat.into_iter().map(f64::from).collect()
}

/// Norm of the difference over the norm of what is expected.
fn relative_error(got: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(got.dims(), expected.dims());
    let (got, expected) = (values(got), values(expected));
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    norm(&mut got.iter().zip(&expected).map(|(a, b)| a - b)) / norm(&mut expected.iter().copied())
}

#[track_caller]
fn assert_close(what: &str, got: &Tensor, expected: &Tensor) {
    let error = relative_error(got, expected);
    assert!(error < TOLERANCE, "{what}: relative error {error:e}");
}

fn check_forward_and_gradients(file: &str, ratio: f64) {
    let fixture = Fixture::read(file);
    let expected = |name: &str| &fixture.tensors[&format!("ratio{ratio}/{name}")];
    let model = fixture.model();
    let masking = fixture.masking(expected("noise"), ratio);
    assert_eq!(values(masking.mask()), values(expected("mask")), "the same tokens are masked");

    let clips = &fixture.tensors["input"];
    let predicted = model.forward(clips, &masking).expect("predictions");
    assert_close("predictions", &predicted, expected("pred"));
    let target = model.target(clips).expect("a target").values;
    let loss = masked_mean_squared_error(&predicted, &target, masking.mask()).expect("a loss");
    assert_close("loss", &loss.reshape(1).expect("one value"), expected("loss"));

    let gradients = loss.backward().expect("gradients");
    for (name, variable) in model.parameters().iter() {
        let gradient = gradients.get(variable).unwrap_or_else(|| panic!("{name} has no gradient"));
        let expected = expected(&format!("grad/{name}"));
        if name.ends_with("attn.k.bias") {
            // Zero but for rounding: a softmax does not see a constant.
            assert!(values(gradient).iter().all(|value| value.abs() < 1e-6), "{name} is not zero");
        } else {
            assert_close(name, gradient, expected);
        }
    }
    let known = fixture.tensors.keys().filter(|name| name.starts_with(&format!("ratio{ratio}/grad/"))).count();
    assert_eq!(known, model.parameters().iter().count(), "every gradient of the reference is compared");
}

#[test]
fn normalised_pixels_of_one_slice_at_90_percent() {
    check_forward_and_gradients("mae_st_tiny_normpix_slice.safetensors", 0.9);
}

#[test]
fn normalised_pixels_of_one_slice_at_75_percent() {
    check_forward_and_gradients("mae_st_tiny_normpix_slice.safetensors", 0.75);
}

#[test]
fn raw_pixels_of_all_frames_at_50_percent() {
    check_forward_and_gradients("mae_st_tiny_rawpix_full.safetensors", 0.5);
}

#[test]
fn eight_steps_of_training_follow_the_reference() {
    let fixture = Fixture::read("mae_st_tiny_normpix_slice.safetensors");
    let trajectory = |name: &str| &fixture.tensors[&format!("traj/{name}")];
    let series = |name: &str| values(trajectory(name));
    let rates = series("lr");
    let peak = rates[2];
    let schedule = Schedule { peak, warmup_steps: 2, steps: 8 };
    let model = fixture.model();
    // The paper's, as the metadata says.
    let config = AdamWConfig { base_lr: peak, betas: [0.9, 0.95], epsilon: 1e-8, weight_decay: 0.05, clip_norm: 0.02 };
    let mut optimizer = AdamW::new(model.parameters(), config).expect("an optimiser");
    for (step, &expected_lr) in rates.iter().enumerate() {
        let lr = schedule.rate(step as u64);
        assert!((lr - expected_lr).abs() <= 1e-6 * peak, "rate of step {step}: {lr} for {expected_lr}");
        let clips = trajectory("input").get(step).expect("a batch");
        let masking = fixture.masking(&trajectory("noise").get(step).expect("noise"), 0.75);
        let target = model.target(&clips).expect("a target").values;
        let predicted = model.forward(&clips, &masking).expect("predictions");
        let loss = masked_mean_squared_error(&predicted, &target, masking.mask()).expect("a loss");
        let norm = optimizer.step(&loss.backward().expect("gradients"), lr).expect("a step");
        let loss = f64::from(loss.to_scalar::<f32>().expect("a value"));
        for (what, got, expected) in [("loss", loss, series("loss")[step]), ("norm", norm, series("grad_norm")[step])] {
            assert!((got / expected - 1.0).abs() < TOLERANCE, "{what} of step {step}: {got} for {expected}");
        }
    }
    for (name, variable) in model.parameters().iter().filter(|(name, _)| !name.ends_with("attn.k.bias")) {
        assert_close(name, variable.as_tensor(), trajectory(&format!("param/{name}")));
    }
}
