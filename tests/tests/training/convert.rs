//! Weights of other code bases: read, compared with what they compute there, and written back.
//! `fixtures/convert` has the files, and the scripts that made them.

use candle_core::{D, Device, Tensor};
use pipeline::sampling::mask::Masks;
use pipeline::transform::{MEAN, STD};
use safetensors::tensor::{Dtype, TensorView};
use schemas::geometry::{PatchGrid, TargetFrames};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tests::{small_classifier, small_mae, values};
use trainer::convert::{Exported, Format, Hints, Imported, Model, export, import, write_folder};
use trainer::model::{
    Classifier, ClassifierConfig, Conventions, DecoderClassToken, Mae, MaeConfig, Masking,
    NormalisePer, PositionKind,
};
use trainer::model::{DeviceBatch, DevicePixels};
use trainer::train::weights::Weights;

type Tensors = BTreeMap<String, Tensor>;

/// ImageNet's mean and deviation, by which transformers' pixels are normalised.
const IMAGENET: [[f64; 3]; 2] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/convert")
        .join(name)
}

fn tensors(path: &Path) -> Tensors {
    candle_core::safetensors::load(path, &Device::Cpu)
        .expect("safetensors")
        .into_iter()
        .collect()
}

/// What the sizes of the tiny models are that their weights do not say.
fn hints() -> Hints {
    Hints {
        heads: Some(2),
        decoder_heads: Some(2),
        frames: Some(4),
        size: Some(16),
        ..Hints::default()
    }
}

fn greatest_difference(got: &Tensor, expected: &Tensor) -> f32 {
    assert_eq!(got.elem_count(), expected.elem_count());
    values(got)
        .iter()
        .zip(values(expected))
        .fold(0.0, |most, (a, b)| most.max((a - b).abs()))
}

/// Compares, and says by how much it differs.
fn assert_near(what: &str, got: &Tensor, expected: &Tensor, most: f32) {
    let difference = greatest_difference(got, expected);
    eprintln!("{what}: differs by {difference:.2e} at most");
    assert!(difference <= most, "{what}: {difference:e} for {most:e}");
}

fn mae(imported: &Imported) -> Mae {
    let Model::Mae(config) = &imported.model else {
        panic!("an autoencoder")
    };
    Mae::from_tensors(
        *config,
        imported.tensors.clone().into_iter().collect(),
        &Device::Cpu,
    )
    .expect("its own weights")
}

fn classifier(imported: &Imported) -> Classifier {
    let Model::Classifier(config) = &imported.model else {
        panic!("a classifier")
    };
    Classifier::from_tensors(
        *config,
        imported.tensors.clone().into_iter().collect(),
        &Device::Cpu,
    )
    .expect("its own weights")
}

/// Clips as ours are, of `[clips, frames, 3, size, size]` as transformers takes them.
fn our_clips(theirs: &Tensor) -> Tensor {
    let (clips, frames, _, size, _) = theirs.dims5().expect("clips");
    let mut pixels = values(&theirs.transpose(1, 2).expect("channels first"));
    let of_channel = frames * size * size;
    for (at, pixel) in pixels.iter_mut().enumerate() {
        let channel = at / of_channel % 3;
        let x = f64::from(*pixel) * IMAGENET[1][channel] + IMAGENET[0][channel];
        *pixel = ((x - f64::from(MEAN)) / f64::from(STD)) as f32;
    }
    Tensor::from_vec(pixels, (clips, 3, frames, size, size), &Device::Cpu).expect("clips")
}

/// Masks as `[clips, tokens]` of 1 where masked says.
fn masking(mask: &Tensor) -> Masking {
    let mask = mask.to_vec2::<f32>().expect("masks");
    let split = |clip: &Vec<f32>| {
        let (masked, visible): (Vec<u32>, Vec<u32>) =
            (0..clip.len() as u32).partition(|&token| clip[token as usize] == 1.0);
        (visible.len(), [visible, masked].concat())
    };
    let rows: Vec<u32> = mask.iter().flat_map(|clip| split(clip).1).collect();
    Masking::new(
        Masks::new(&rows, mask[0].len(), split(&mask[0]).0),
        &Device::Cpu,
    )
    .expect("masks")
}

/// Predictions of the masked tokens only.
fn of_masked(predicted: &Tensor, mask: &Tensor) -> Tensor {
    let (clips, tokens, width) = predicted.dims3().expect("predictions");
    let masked: Vec<u32> = values(mask)
        .iter()
        .zip(0..)
        .filter_map(|(&masked, at)| (masked == 1.0).then_some(at))
        .collect();
    let rows = Tensor::new(masked, &Device::Cpu).expect("rows");
    predicted
        .reshape((clips * tokens, width))
        .and_then(|all| all.index_select(&rows, 0))
        .expect("rows")
}

fn loss(model: &Mae, clips: &Tensor, masking: Masking) -> Tensor {
    model
        .loss(&DeviceBatch {
            pixels: DevicePixels::Clips(clips.clone()),
            masking,
        })
        .expect("a loss")
}

fn exported(imported: &Imported, format: Format) -> Exported {
    export(
        &imported.model,
        imported.classes.as_deref(),
        imported.tensors.clone(),
        format,
    )
    .expect("there is a place for it")
}

/// Checks that an export has the names and values of `expected`, to within `most`.
fn assert_same(what: &str, got: &Tensors, expected: &Tensors, most: f32) {
    assert_eq!(
        got.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>(),
        "{what}"
    );
    let mut greatest = 0f32;
    for (name, tensor) in expected {
        assert_eq!(got[name].dims(), tensor.dims(), "{what}: {name}");
        let difference = greatest_difference(&got[name], tensor);
        assert!(
            difference <= most,
            "{what}: {name}: {difference:e} for {most:e}"
        );
        greatest = greatest.max(difference);
    }
    eprintln!("{what}: values differ by {greatest:.2e} at most");
}

fn write(path: &Path, tensors: &Tensors) {
    let tensors: HashMap<String, Tensor> = tensors
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.clone()))
        .collect();
    candle_core::safetensors::save(&tensors, path).expect("written");
}

/// A copy of a fixture's folder whose tensors are changed.
fn changed_folder(name: &str, change: impl FnOnce(&mut Tensors)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::copy(
        fixture(name).join("config.json"),
        folder.path().join("config.json"),
    )
    .expect("copied");
    let mut tensors = tensors(&fixture(name).join("model.safetensors"));
    change(&mut tensors);
    write(&folder.path().join("model.safetensors"), &tensors);
    folder
}

#[test]
fn an_autoencoder_of_transformers_computes_what_it_does_there() {
    let folder = fixture("pretraining");
    let (imported, expected) = (
        import(&folder, &Hints::default()).expect("imported"),
        tensors(&folder.join("expected.safetensors")),
    );
    assert_eq!(imported.format, Format::Huggingface);
    let model = mae(&imported);
    assert_eq!(
        (
            model.config().encoder.heads,
            model.config().encoder.depth,
            model.config().decoder.heads
        ),
        (6, 3, 4)
    );
    let (clips, masks) = (our_clips(&expected["pixels"]), masking(&expected["mask"]));
    assert_near(
        "hidden states",
        &model.features(&clips, &masks).expect("computed"),
        &expected["hidden"],
        2e-5,
    );
    let predicted = model.forward(&clips, &masks).expect("computed");
    assert_near(
        "predictions",
        &of_masked(&predicted, &expected["mask"]),
        &expected["logits"],
        2e-5,
    );
    assert_near(
        "loss",
        &loss(&model, &clips, masks),
        &expected["loss"],
        1e-5,
    );
    let weights = tensors(&folder.join("model.safetensors"));
    assert_same(
        "exported",
        &exported(&imported, Format::Huggingface).tensors,
        &weights,
        1e-6,
    );
}

#[test]
fn an_autoencoder_of_pixels_as_they_are_has_its_loss_in_our_scale() {
    let folder = changed_folder("pretraining", |_| {});
    let config = fs::read_to_string(folder.path().join("config.json")).expect("a configuration");
    let raw = config.replace("\"norm_pix_loss\": true", "\"norm_pix_loss\": false");
    assert_ne!(raw, config);
    fs::write(folder.path().join("config.json"), raw).expect("written");
    let imported = import(folder.path(), &Hints::default()).expect("imported");
    let (model, expected) = (
        mae(&imported),
        tensors(&fixture("pretraining").join("expected.safetensors")),
    );
    let (clips, masks) = (our_clips(&expected["pixels"]), masking(&expected["mask"]));
    let predicted = of_masked(
        &model.forward(&clips, &masks).expect("computed"),
        &expected["mask"],
    );
    let in_their_scale = (predicted * f64::from(STD))
        .and_then(|pixels| pixels + f64::from(MEAN))
        .expect("pixels");
    assert_near(
        "predictions of pixels",
        &in_their_scale,
        &expected["logits"],
        2e-5,
    );
    let in_their_scale = (loss(&model, &clips, masks) * f64::from(STD).powi(2)).expect("a loss");
    assert_near(
        "loss of pixels",
        &in_their_scale,
        &expected["raw_loss"],
        1e-5,
    );
    let weights = tensors(&fixture("pretraining").join("model.safetensors"));
    let back = exported(&imported, Format::Huggingface);
    assert_same("exported, of pixels", &back.tensors, &weights, 1e-6);
    assert_eq!(back.files[0].1["norm_pix_loss"], false);
}

#[test]
fn a_classifier_of_transformers_computes_what_it_does_there() {
    let folder = fixture("classification");
    let (imported, expected) = (
        import(&folder, &Hints::default()).expect("imported"),
        tensors(&folder.join("expected.safetensors")),
    );
    let classes = [
        "riding a bike",
        "clapping",
        "juggling balls",
        "whistling",
        "yoga",
    ];
    assert_eq!(
        imported.classes.as_deref(),
        Some(classes.map(str::to_owned).as_slice())
    );
    let model = classifier(&imported);
    assert_near(
        "logits",
        &model
            .forward(&our_clips(&expected["pixels"]))
            .expect("computed"),
        &expected["logits"],
        2e-5,
    );
    let back = exported(&imported, Format::Huggingface);
    assert_same(
        "exported classifier",
        &back.tensors,
        &tensors(&folder.join("model.safetensors")),
        1e-6,
    );
    let (written, original) = (
        &back.files[0].1,
        fs::read(folder.join("config.json")).expect("a configuration"),
    );
    let original: serde_json::Value = serde_json::from_slice(&original).expect("JSON");
    for (key, value) in original.as_object().expect("an object") {
        if !["dtype", "transformers_version"].contains(&key.as_str()) {
            // Only a decoder has the rest.
            assert!(
                written[key] == *value || (key.starts_with("decoder_") || key == "norm_pix_loss"),
                "{key}: {value}, not {}",
                written[key]
            );
        }
    }
}

/// Newer versions have the biases beside the weights, with or without the keys' zeros.
#[test]
fn both_layouts_of_biases_are_read() {
    let (old, expected) = (
        import(&fixture("pretraining"), &Hints::default()).expect("imported"),
        "attention.attention.",
    );
    for keys in [None, Some(0f32), Some(0.5)] {
        let folder = changed_folder("pretraining", |tensors| {
            for (short, long) in [("q_bias", "query.bias"), ("v_bias", "value.bias")] {
                let names: Vec<String> = tensors
                    .keys()
                    .filter(|name| name.ends_with(short))
                    .cloned()
                    .collect();
                assert_eq!(names.len(), 4);
                for name in names {
                    let bias = tensors.remove(&name).expect("it is there");
                    if let (Some(value), "q_bias") = (keys, short) {
                        let value = bias
                            .ones_like()
                            .and_then(|ones| ones * f64::from(value))
                            .expect("a tensor");
                        tensors.insert(name.replace(short, "key.bias"), value);
                    }
                    assert!(name.contains(expected));
                    tensors.insert(name.replace(short, long), bias);
                }
            }
        });
        let new = import(folder.path(), &Hints::default()).expect("imported");
        let keys = keys.unwrap_or_default();
        for (name, value) in &old.tensors {
            let off = if name.ends_with("attn.k.bias") {
                keys
            } else {
                0.0
            };
            assert_eq!(
                greatest_difference(value, &new.tensors[name]),
                off,
                "{name}"
            );
        }
        // Nobody sees a key's bias, so it is not exported, whatever it is.
        let back = exported(&new, Format::Huggingface).tensors;
        assert_same(
            "exported",
            &back,
            &tensors(&fixture("pretraining").join("model.safetensors")),
            1e-6,
        );
    }
}

#[test]
fn a_keys_bias_changes_nothing() {
    let imported = import(&fixture("pretraining"), &Hints::default()).expect("imported");
    let expected = tensors(&fixture("pretraining").join("expected.safetensors"));
    let (clips, masks) = (our_clips(&expected["pixels"]), masking(&expected["mask"]));
    let before = mae(&imported).forward(&clips, &masks).expect("computed");
    let mut biased = imported.tensors.clone();
    biased
        .iter_mut()
        .filter(|(name, _)| name.ends_with("attn.k.bias"))
        .for_each(|(_, bias)| *bias = (&*bias + 0.7).expect("a bias"));
    let biased = Mae::from_tensors(
        *mae(&imported).config(),
        biased.into_iter().collect(),
        &Device::Cpu,
    )
    .expect("a model");
    assert_near(
        "with key biases",
        &biased.forward(&clips, &masks).expect("computed"),
        &before,
        2e-5,
    );
}

/// A trained decoder's embedding has a bias, for which VideoMAE has no place: what it computes is
/// the same without.
#[test]
fn a_bias_of_the_decoders_embedding_is_folded() {
    let mut imported = import(&fixture("pretraining"), &Hints::default()).expect("imported");
    let expected = tensors(&fixture("pretraining").join("expected.safetensors"));
    let (clips, masks) = (our_clips(&expected["pixels"]), masking(&expected["mask"]));
    let bias = Tensor::from_vec(
        (0..16)
            .map(|at| (at as f32 * 0.37).sin())
            .collect::<Vec<f32>>(),
        16,
        &Device::Cpu,
    )
    .expect("a bias");
    imported
        .tensors
        .insert("decoder_embed.bias".to_owned(), bias);
    let with_bias = mae(&imported).forward(&clips, &masks).expect("computed");
    let folder = tempfile::tempdir().expect("a folder");
    let back = exported(&imported, Format::Huggingface);
    assert!(
        back.notes
            .iter()
            .any(|note| note.starts_with("the format has no bias of decoder_embed")),
        "{:?}",
        back.notes
    );
    write(&folder.path().join("model.safetensors"), &back.tensors);
    for (name, content) in &back.files {
        fs::write(folder.path().join(name), content.to_string()).expect("written");
    }
    let again = mae(&import(folder.path(), &Hints::default()).expect("imported"));
    assert_near(
        "predictions",
        &again.forward(&clips, &masks).expect("computed"),
        &with_bias,
        2e-5,
    );
    let before = mae(&import(&fixture("pretraining"), &Hints::default()).expect("imported"))
        .forward(&clips, &masks)
        .expect("computed");
    assert!(
        greatest_difference(&before, &with_bias) > 0.01,
        "the bias matters"
    );
}

/// What is not folded is the same to the bit, there and back.
#[test]
fn checkpoints_are_read_to_the_bit_and_written_back() {
    let tiny = PatchGrid {
        frames: 4,
        size: 16,
        tubelet: 2,
        patch: 4,
    };
    for (name, format) in [
        ("mae_st", Format::MaeSt),
        ("mae_st_classifier", Format::MaeSt),
        ("pyslowfast", Format::Pyslowfast),
        ("pyslowfast_separate", Format::Pyslowfast),
        ("videomae", Format::Videomae),
        ("videomae_classifier", Format::Videomae),
    ] {
        let imported = import(&fixture(&format!("{name}.pth")), &hints())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(imported.format, format, "{name}");
        let mut stored = tensors(&fixture(&format!("{name}.safetensors")));
        stored.retain(|name, _| !name.starts_with("expected/"));
        let (grid, depth) = match &imported.model {
            Model::Mae(config) => (config.grid, config.encoder.depth),
            Model::Classifier(config) => (config.grid, config.encoder.depth),
        };
        assert_eq!((grid, depth), (tiny, 3), "{name}");
        // The same tensors as safetensors.
        let folder = tempfile::tempdir().expect("a folder");
        write(&folder.path().join("weights.safetensors"), &stored);
        let again = import(&folder.path().join("weights.safetensors"), &hints()).expect("imported");
        assert_eq!(again.model, imported.model, "{name}");
        let most = if name == "videomae_classifier" {
            2e-3
        } else {
            0.0
        };
        assert_same(name, &again.tensors, &imported.tensors, most);
        for (ours, tensor) in &imported.tensors {
            let theirs = stored
                .get(ours)
                .or_else(|| stored.get(&format!("encoder.{ours}")));
            if let Some(theirs) = theirs.filter(|_| !ours.starts_with("patch_embed")) {
                assert!(
                    greatest_difference(tensor, theirs) <= most,
                    "{name}: {ours}"
                );
            }
        }
        if format == Format::MaeSt {
            let expected = if name == "mae_st" {
                stored
            } else {
                imported.tensors.clone()
            };
            assert_same(name, &exported(&imported, format).tensors, &expected, 0.0);
        } else if format == Format::Videomae {
            assert_same(
                name,
                &exported(&imported, format).tensors,
                &stored,
                if most > 0.0 { most } else { 1e-6 },
            );
        }
    }
}

#[test]
fn joined_queries_keys_and_values_are_split_in_their_order() {
    let (joined, stored) = (
        import(&fixture("mae_st_classifier.pth"), &hints()).expect("imported"),
        tensors(&fixture("mae_st_classifier.safetensors")),
    );
    for (at, part) in ["q", "k", "v"].into_iter().enumerate() {
        for what in ["weight", "bias"] {
            let expected = stored[&format!("blocks.2.attn.qkv.{what}")]
                .narrow(0, 8 * at, 8)
                .expect("a third");
            assert_eq!(
                greatest_difference(
                    &joined.tensors[&format!("blocks.2.attn.{part}.{what}")],
                    &expected
                ),
                0.0,
                "{part} {what}"
            );
        }
    }
}

/// PySlowFast's decoder takes the encoder's cls token, and predicts every second frame.
#[test]
fn an_autoencoder_of_pyslowfast_computes_what_its_layout_says() {
    let imported = import(&fixture("pyslowfast.pth"), &hints()).expect("imported");
    let expected = tensors(&fixture("pyslowfast.safetensors"));
    let model = mae(&imported);
    let conventions = model.config().conventions;
    assert_eq!(
        (model.config().positions, conventions.decoder_positions),
        (PositionKind::Separable, Some(PositionKind::Joint))
    );
    assert_eq!(
        (conventions.decoder_class_token, conventions.target_frames),
        (DecoderClassToken::Encoded, TargetFrames::Strided)
    );
    assert_eq!(model.config().target_frames(), [0, 2]);
    let clips = expected["expected/clip"].unsqueeze(0).expect("one clip");
    let mask = expected["expected/mask"].unsqueeze(0).expect("one mask");
    let masks = masking(&mask);
    let predicted = model.forward(&clips, &masks).expect("computed");
    assert_near(
        "predictions of PySlowFast",
        &predicted,
        &expected["expected/predicted"],
        1e-5,
    );
    assert_near(
        "its loss",
        &loss(&model, &clips, masks),
        &expected["expected/loss"],
        1e-5,
    );
}

/// Its decoder has a head for every 64 values, so this model is a little larger.
#[test]
fn pyslowfasts_layout_is_written_as_it_is_read() {
    let mut imported = import(&fixture("pyslowfast_separate.pth"), &hints()).expect("imported");
    let error = export(
        &imported.model,
        None,
        imported.tensors.clone(),
        Format::Pyslowfast,
    )
    .expect_err("two heads of 4 values")
    .to_string();
    assert_eq!(
        error,
        "PySlowFast cannot represent this model: decoder.heads = 2 of width 4: its decoder has one \
         for every 64 values"
    );
    let Model::Mae(config) = &mut imported.model else {
        panic!("an autoencoder")
    };
    (config.decoder.width, config.decoder.heads) = (128, 2);
    let model = Mae::seeded(*config, 5, &Device::Cpu).expect("a model");
    imported.tensors = model
        .parameters()
        .iter()
        .map(|(name, value)| (name.to_owned(), value.as_detached_tensor()))
        .collect();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("weights.safetensors");
    let back = exported(&imported, Format::Pyslowfast);
    for name in [
        "pred_head.transforms.0.0.attn.qkv.weight",
        "pred_head.transforms.0.1.weight",
        "pred_head.projections.0.bias",
    ] {
        assert!(back.tensors.contains_key(name), "{name}");
    }
    assert!(
        back.tensors.contains_key("dec_pos_embed_class")
            && !back.tensors.contains_key("decoder_pos_embed_class")
    );
    write(&file, &back.tensors);
    let again = import(
        &file,
        &Hints {
            heads: Some(2),
            ..Hints::default()
        },
    )
    .expect("imported");
    assert_eq!(again.model, imported.model);
    assert_same("there and back", &again.tensors, &imported.tensors, 0.0);
}

#[test]
fn videomaes_targets_are_normalised_channel_by_channel() {
    let imported = import(&fixture("videomae.pth"), &hints()).expect("imported");
    let model = mae(&imported);
    assert_eq!(
        (
            model.config().conventions.normalise_per,
            model.config().slices
        ),
        (NormalisePer::Channel, 2)
    );
    let clips: Vec<f32> = (0..3 * 4 * 16 * 16)
        .map(|at| ((at * 7919 % 1013) as f32 / 1013.0 - 0.5) * 4.0)
        .collect();
    let clips = Tensor::from_vec(clips, (1, 3, 4, 16, 16), &Device::Cpu).expect("a clip");
    let target = model.config().target_of_clips(&clips).expect("a target");
    let channels = target
        .values
        .reshape((1, 32, 32, 3))
        .expect("channels last");
    let zero = channels
        .mean(2)
        .and_then(|mean| mean.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>())
        .expect("a number");
    assert!(zero < 1e-6, "each channel's mean is zero: {zero}");
    // What is normalised away comes back.
    let pixels = model.config().pixels(&clips).expect("pixels");
    assert_near(
        "denormalised",
        &target.denormalise(&target.values).expect("pixels"),
        &pixels,
        1e-5,
    );
    let raw = import(
        &fixture("videomae.pth"),
        &Hints {
            normalise_target: Some(false),
            ..hints()
        },
    )
    .expect("imported");
    assert!(
        greatest_difference(
            &raw.tensors["decoder_pred.weight"],
            &imported.tensors["decoder_pred.weight"]
        ) > 0.1
    );
    let deviation = pixels
        .reshape((1, 32, 32, 3))
        .and_then(|pixels| pixels.var_keepdim(D::Minus2)?.sqrt()?.squeeze(2))
        .expect("deviations");
    assert_near(
        "deviations",
        &target.statistics.expect("normalised").1,
        &deviation,
        2e-5,
    );
}

/// What an import of the file at `path` says.
fn refusal(path: &Path, hints: &Hints) -> String {
    let error = import(path, hints)
        .expect_err("it does not fit")
        .to_string();
    error.replace(&path.display().to_string(), "FILE").replace(
        &path.parent().unwrap_or(path).display().to_string(),
        "FOLDER",
    )
}

/// A file of the tensors of `mae_st.safetensors`, changed.
fn changed(folder: &Path, change: impl FnOnce(&mut Tensors)) -> PathBuf {
    let (file, mut tensors) = (
        folder.join("weights.safetensors"),
        tensors(&fixture("mae_st.safetensors")),
    );
    change(&mut tensors);
    write(&file, &tensors);
    file
}

#[test]
fn every_name_is_accounted_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let tensor = |shape: &[usize]| {
        Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).expect("a tensor")
    };
    let file = changed(folder.path(), |tensors| {
        tensors.remove("blocks.1.attn.k.bias");
        tensors.remove("decoder_norm.weight");
        tensors.insert("blocks.2.mlp.fc1.weight".to_owned(), tensor(&[31, 8]));
        tensors.insert("blocks.0.attn.relative".to_owned(), tensor(&[2]));
    });
    assert_eq!(
        refusal(&file, &hints()),
        "FILE looks like mae_st weights, but does not fit: blocks.1.attn.k.bias is missing; \
         blocks.2.mlp.fc1.weight is [31, 8], not [32, 8]; \
         decoder_norm.weight is missing; blocks.0.attn.relative is not part of it"
    );
    // A block that is missing as a whole, among many names.
    let file = changed(folder.path(), |tensors| {
        tensors.retain(|name, _| !name.starts_with("blocks.1.") && !name.starts_with("blocks.0."))
    });
    let error = refusal(&file, &hints());
    assert!(
        error.contains("blocks.0.norm1.weight is missing; ") && error.ends_with("; and 12 more"),
        "{error}"
    );
    // What the sizes come from.
    let file = changed(folder.path(), |tensors| {
        tensors.remove("mask_token");
        tensors.remove("patch_embed.proj.weight");
    });
    let error = refusal(&file, &hints());
    assert!(
        error.contains("patch_embed.proj.weight is missing")
            && error.contains("mask_token is missing"),
        "{error}"
    );
    // Sizes that nobody means.
    let file = changed(folder.path(), |tensors| {
        drop(tensors.insert(
            "patch_embed.proj.weight".to_owned(),
            tensor(&[8, 3, 0, 4, 4]),
        ))
    });
    let error = refusal(&file, &hints());
    assert!(
        error.contains(
            "patch_embed.proj.weight is [8, 3, 0, 4, 4], not of three channels and square patches"
        ),
        "{error}"
    );
    let huge = changed_folder("pretraining", |_| {});
    let config = fs::read_to_string(huge.path().join("config.json")).expect("a configuration");
    fs::write(
        huge.path().join("config.json"),
        config.replace("\"image_size\": 16", "\"image_size\": 1048576"),
    )
    .expect("written");
    let error = import(huge.path(), &hints())
        .expect_err("too many tokens")
        .to_string();
    assert!(
        error.ends_with("its clips would have 274877906944 tokens, more than 1048576"),
        "{error}"
    );
    // A decoder's weights without what is before it.
    let file = changed(folder.path(), |tensors| {
        tensors.retain(|name, _| name.starts_with("decoder"))
    });
    assert_eq!(
        refusal(&file, &hints()),
        "FILE has weights of an unknown format (known: mae_st, PySlowFast, VideoMAE, Hugging Face \
         VideoMAE); its first names: decoder_blocks.0.attn.k.bias, \
         decoder_blocks.0.attn.k.weight, decoder_blocks.0.attn.proj.bias, \
         decoder_blocks.0.attn.proj.weight, decoder_blocks.0.attn.q.bias, \
         decoder_blocks.0.attn.q.weight"
    );
}

#[test]
fn missing_settings_are_asked_for() {
    let file = fixture("mae_st.pth");
    assert_eq!(
        refusal(&file, &Hints::default()),
        "FILE does not specify how many heads its encoder of width 8 has; set it with --heads"
    );
    let hints = Hints {
        heads: Some(2),
        ..Hints::default()
    };
    assert_eq!(
        refusal(&file, &hints),
        "FILE does not specify how many heads its decoder of width 4 has; set it with \
         --decoder-heads"
    );
}

#[test]
fn files_that_are_no_weights_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, pth) = (
        folder.path().join("file"),
        fs::read(fixture("mae_st.pth")).expect("a checkpoint"),
    );
    let says = |bytes: &[u8]| {
        fs::write(&path, bytes).expect("written");
        refusal(&path, &hints())
    };
    assert_eq!(
        says(b"PK"),
        "cannot read FILE: it is neither a safetensors file nor a PyTorch checkpoint"
    );
    assert_eq!(
        says(&[]),
        "cannot read FILE: it is neither a safetensors file nor a PyTorch checkpoint"
    );
    for cut in [5000, pth.len() / 2, pth.len() - 10] {
        let error = says(&pth[..cut]);
        assert!(
            error.starts_with("cannot read FILE: its zip archive is damaged: "),
            "cut to {cut}: {error}"
        );
    }
    let mut flipped = pth.clone();
    let at = pth.len() / 2;
    flipped[at] ^= 0xff;
    assert!(
        says(&flipped).starts_with("cannot read FILE: "),
        "a byte is another"
    );
    let safetensors = fs::read(fixture("mae_st.safetensors")).expect("safetensors");
    for cut in [100, safetensors.len() - 1] {
        let error = says(&safetensors[..cut]);
        assert!(
            error.starts_with("cannot read FILE: its safetensors are damaged: "),
            "cut to {cut}: {error}"
        );
    }
    // An empty zip, which is whole.
    let mut empty = b"PK\x05\x06".to_vec();
    empty.resize(22, 0);
    assert_eq!(
        says(&empty),
        "cannot read FILE: it is neither a safetensors file nor a PyTorch checkpoint"
    );
    assert_eq!(
        says(&one_stored_file("notes.txt", b"hello")),
        "cannot read FILE: it is a zip archive, but not a PyTorch checkpoint: it has no data.pkl"
    );
    // A pickle of the number 7.
    assert_eq!(
        says(&one_stored_file("archive/data.pkl", b"\x80\x02K\x07.")),
        "cannot read FILE: it does not hold a dictionary"
    );
    // {"head.weight": 7}
    let number = one_stored_file(
        "archive/data.pkl",
        b"\x80\x02}X\x0b\x00\x00\x00head.weightK\x07s.",
    );
    assert_eq!(
        says(&number),
        "cannot read FILE: head.weight is not a tensor"
    );
    assert_eq!(
        says(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."),
        "cannot read FILE: it was written by PyTorch before 1.6; load it with torch.load, and save \
         it again with torch.save"
    );
    assert!(
        refusal(&folder.path().join("nowhere"), &hints())
            .starts_with("cannot read FILE: No such file")
    );
    let empty = tempfile::tempdir().expect("a folder");
    assert_eq!(
        refusal(empty.path(), &hints()),
        "cannot read FILE: the folder has neither model.safetensors nor pytorch_model.bin"
    );
    fs::copy(
        fixture("pretraining").join("model.safetensors"),
        empty.path().join("model.safetensors"),
    )
    .expect("copied");
    assert!(
        import(empty.path(), &hints())
            .expect_err("no configuration")
            .to_string()
            .ends_with("config.json: it is missing beside the weights")
    );
}

/// A zip of one file, as it is.
fn one_stored_file(name: &str, content: &[u8]) -> Vec<u8> {
    let crc = !content.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 {
                crc >> 1 ^ 0xedb8_8320
            } else {
                crc >> 1
            }
        })
    });
    let (size, length) = (
        (content.len() as u32).to_le_bytes(),
        (name.len() as u16).to_le_bytes(),
    );
    let common = [
        &[20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0][..],
        &crc.to_le_bytes(),
        &size,
        &size,
        &length,
        &[0, 0],
    ]
    .concat();
    let local = [b"PK\x03\x04", &common[..], name.as_bytes(), content].concat();
    let central = [
        b"PK\x01\x02\x14\x00",
        &common[..],
        &[0; 14],
        name.as_bytes(),
    ]
    .concat();
    let (of_central, offset) = (
        (central.len() as u32).to_le_bytes(),
        (local.len() as u32).to_le_bytes(),
    );
    [
        &local[..],
        &central,
        b"PK\x05\x06\0\0\0\0\x01\0\x01\0",
        &of_central,
        &offset,
        &[0, 0],
    ]
    .concat()
}

#[test]
fn other_types_are_widened_or_refused() {
    let halves = import(&fixture("videomae_classifier.pth"), &hints()).expect("imported");
    assert_eq!(
        halves.notes[0],
        "45 of 45 tensors are f16, and were converted to f32"
    );
    let folder = tempfile::tempdir().expect("a folder");
    let file = changed(folder.path(), |tensors| {
        let norm = tensors["norm.weight"]
            .to_dtype(candle_core::DType::BF16)
            .expect("bf16");
        tensors.insert("norm.weight".to_owned(), norm);
    });
    let widened = import(&file, &hints()).expect("imported");
    // bf16 has 8 bits of precision.
    let exact = &tensors(&fixture("mae_st.safetensors"))["norm.weight"];
    let off = greatest_difference(&widened.tensors["norm.weight"], exact);
    assert!(off > 0.0 && off < 0.01, "{off}");
    let notes = widened.notes;
    assert!(
        notes[0].starts_with("1 of ")
            && notes[0].ends_with("tensors are bf16, and were converted to f32"),
        "{notes:?}"
    );
    let bytes = [0u8; 64];
    let view = |dtype| {
        TensorView::new(
            dtype,
            vec![64 / if dtype == Dtype::F64 { 8 } else { 4 }],
            &bytes,
        )
        .expect("a view")
    };
    safetensors::serialize_to_file(
        [("norm.bias", view(Dtype::F64)), ("epoch", view(Dtype::I32))],
        None,
        &file,
    )
    .expect("written");
    assert_eq!(
        refusal(&file, &hints()),
        "cannot read FILE: epoch is of I32: weights must be F32, F16 or BF16; norm.bias is of F64: \
         weights must be F32, F16 or BF16"
    );
}

#[test]
fn a_head_has_as_many_classes_as_are_named() {
    let hints = Hints {
        classes: Some(vec!["one".to_owned(), "two".to_owned()]),
        ..hints()
    };
    assert_eq!(
        refusal(&fixture("mae_st_classifier.pth"), &hints),
        "2 class names are given, but the head of FILE has 3 classes"
    );
    let folder = changed_folder("classification", |tensors| {
        for name in ["classifier.weight", "classifier.bias"] {
            let shorter = tensors[name]
                .narrow(0, 0, 4)
                .and_then(|shorter| shorter.contiguous())
                .expect("four classes");
            tensors.insert(name.to_owned(), shorter);
        }
    });
    let error = import(folder.path(), &Hints::default())
        .expect_err("five are named")
        .to_string();
    assert!(
        error.starts_with("5 class names are given, but the head of ")
            && error.ends_with("model.safetensors has 4 classes"),
        "{error}"
    );
}

#[test]
fn what_a_format_has_no_place_for_is_named() {
    let imported = import(&fixture("mae_st.pth"), &hints()).expect("imported");
    let refused = |format| {
        export(&imported.model, None, imported.tensors.clone(), format)
            .expect_err("no place")
            .to_string()
    };
    assert_eq!(
        refused(Format::Huggingface),
        "Hugging Face cannot represent this model: model.positions are learned: it has \
         only \"sinusoid\"; model.class_token = true: it has no cls token; \
         target.slices = 1: it predicts all 2 frames of a tubelet"
    );
    assert!(refused(Format::Pyslowfast).contains(
        "model.decoder_class_token = \"own\": its decoder takes the encoder's cls token"
    ));
    let slowfast = import(&fixture("pyslowfast.pth"), &hints()).expect("imported");
    let error = export(&slowfast.model, None, slowfast.tensors, Format::MaeSt)
        .expect_err("no place")
        .to_string();
    assert!(
        error.contains("model.decoder_positions: ")
            && error.contains("model.decoder_class_token = \"encoded\": "),
        "{error}"
    );
}

/// What transformers computes with the folder `folder`; nothing where there is no Python that has
/// it.
fn computed_there(kind: &str, folder: &Path, inputs: &Tensors) -> Option<(Tensors, String)> {
    let Some(python) = std::env::var_os("TRANSFORMERS_PYTHON") else {
        eprintln!(
            "TRANSFORMERS_PYTHON is not set: the folder is not loaded with transformers (it names \
             a Python that has transformers and torch)"
        );
        return None;
    };
    let (given, made) = (folder.join("inputs"), folder.join("outputs"));
    write(&given, inputs);
    let run = Command::new(python)
        .arg(fixture("check.py"))
        .arg(kind)
        .args([folder, &given, &made])
        .output()
        .expect("python runs");
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
    Some((
        tensors(&made),
        String::from_utf8_lossy(&run.stdout).into_owned(),
    ))
}

/// Pixels as transformers takes them, and a mask of three quarters of the tokens.
fn their_inputs(grid: PatchGrid) -> Tensors {
    let clips = 2;
    let pixels: Vec<f32> = (0..clips * grid.clip_values())
        .map(|at| ((at * 7919 % 1013) as f32 / 1013.0 - 0.5) * 4.0)
        .collect();
    let mask: Vec<f32> = (0..clips * grid.tokens())
        .map(|at| {
            if (at * 5 + at / grid.tokens()).is_multiple_of(4) {
                0.0
            } else {
                1.0
            }
        })
        .collect();
    let shape = (clips, grid.frames, 3, grid.size, grid.size);
    [
        (
            "pixels".to_owned(),
            Tensor::from_vec(pixels, shape, &Device::Cpu).expect("pixels"),
        ),
        (
            "mask".to_owned(),
            Tensor::from_vec(mask, (clips, grid.tokens()), &Device::Cpu).expect("a mask"),
        ),
    ]
    .into()
}

/// Random values for every weight but the keys' biases, of which there are none there.
fn shaken(parameters: &trainer::model::Parameters) -> Tensors {
    let mut seed = 1u32;
    let mut noise = move || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as f32 / (1u32 << 24) as f32 - 0.5
    };
    let tensors = parameters.iter().map(|(name, variable)| {
        let (base, spread) = if name.contains("norm") && name.ends_with("weight") {
            (1.0, 0.5)
        } else {
            (0.0, 0.4)
        };
        let values: Vec<f32> = (0..variable.elem_count())
            .map(|_| base + spread * noise())
            .collect();
        (
            name.to_owned(),
            Tensor::from_vec(values, variable.dims(), &Device::Cpu).expect("a weight"),
        )
    });
    tensors.collect()
}

fn write_exported(folder: &Path, exported: &Exported) {
    let texts: Vec<(&str, String)> = exported
        .files
        .iter()
        .map(|(name, content)| (*name, content.to_string()))
        .collect();
    write_folder(folder, &exported.tensors, &texts).expect("written");
}

/// A model of ours that transformers has a place for: many heads, an odd number of blocks, a bias
/// of the decoder's embedding.
#[test]
fn transformers_loads_what_is_exported_and_computes_the_same() {
    for (normalise_target, encoder, decoder) in [
        (true, [48, 3, 12], [24, 1, 6]),
        (false, [40, 1, 1], [36, 3, 9]),
    ] {
        let grid = PatchGrid {
            frames: 6,
            size: 24,
            tubelet: 3,
            patch: 8,
        };
        let conventions = Conventions {
            decoder_norm_epsilon: 1e-5,
            normalise_per: NormalisePer::Channel,
            ..Conventions::default()
        };
        let config = MaeConfig {
            positions: PositionKind::Sinusoid,
            class_token: false,
            slices: 3,
            normalise_target,
            conventions,
            ..small_mae(grid, encoder, decoder)
        };
        let weights = shaken(
            Mae::seeded(config, 3, &Device::Cpu)
                .expect("a model")
                .parameters(),
        );
        let model = Mae::from_tensors(config, weights.clone().into_iter().collect(), &Device::Cpu)
            .expect("a model");
        let (dir, inputs) = (tempfile::tempdir().expect("a folder"), their_inputs(grid));
        let folder = dir.path().join("exported");
        write_exported(
            &folder,
            &export(&Model::Mae(config), None, weights, Format::Huggingface).expect("exported"),
        );
        let (clips, masks) = (our_clips(&inputs["pixels"]), masking(&inputs["mask"]));
        let predicted = of_masked(
            &model.forward(&clips, &masks).expect("computed"),
            &inputs["mask"],
        );
        let (predicted, our_loss) = match normalise_target {
            true => (predicted, loss(&model, &clips, masks.clone())),
            false => (
                (predicted * f64::from(STD))
                    .and_then(|pixels| pixels + f64::from(MEAN))
                    .expect("pixels"),
                (loss(&model, &clips, masks.clone()) * f64::from(STD).powi(2)).expect("a loss"),
            ),
        };
        // And back.
        let again = mae(&import(&folder, &Hints::default()).expect("imported"));
        let Some((theirs, _)) = computed_there("pretraining", &folder, &inputs) else {
            continue;
        };
        assert_near(
            "predictions in transformers",
            &predicted,
            &theirs["logits"],
            1e-4,
        );
        assert_near("loss in transformers", &our_loss, &theirs["loss"], 1e-4);
        // The bias of the decoder's embedding has moved before it: of the exported weights, the
        // hidden states are those of the import.
        assert_near(
            "hidden states in transformers",
            &again.features(&clips, &masks).expect("computed"),
            &theirs["hidden"],
            1e-4,
        );
    }
}

#[test]
fn transformers_loads_a_classifier_that_is_exported() {
    let grid = PatchGrid {
        frames: 4,
        size: 16,
        tubelet: 2,
        patch: 4,
    };
    let config = ClassifierConfig {
        positions: PositionKind::Sinusoid,
        class_token: false,
        conventions: Conventions {
            norm_epsilon: 1e-12,
            head_norm_epsilon: 1e-5,
            ..Conventions::default()
        },
        ..small_classifier(grid, [36, 5, 9], 3)
    };
    let names = [
        "stand up".to_owned(),
        "\"sit\" down".to_owned(),
        "jump".to_owned(),
    ];
    let weights = shaken(
        Classifier::seeded(config, 3, &Device::Cpu)
            .expect("a model")
            .parameters(),
    );
    let model =
        Classifier::from_tensors(config, weights.clone().into_iter().collect(), &Device::Cpu)
            .expect("a model");
    let (dir, mut inputs) = (tempfile::tempdir().expect("a folder"), their_inputs(grid));
    inputs.remove("mask");
    let folder = dir.path().join("exported");
    write_exported(
        &folder,
        &export(
            &Model::Classifier(config),
            Some(&names),
            weights,
            Format::Huggingface,
        )
        .expect("exported"),
    );
    let logits = model
        .forward(&our_clips(&inputs["pixels"]))
        .expect("computed");
    let again = import(&folder, &Hints::default()).expect("imported");
    assert_eq!(
        (again.model, again.classes.as_deref()),
        (Model::Classifier(config), Some(names.as_slice()))
    );
    if let Some((theirs, labels)) = computed_there("classification", &folder, &inputs) {
        assert_near("logits in transformers", &logits, &theirs["logits"], 1e-4);
        assert_eq!(labels.lines().collect::<Vec<_>>(), names);
    }
}

/// What is imported is what the rest of the program opens: a folder of weights.
#[test]
fn a_folder_of_weights_is_opened_as_it_was_imported() {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, hints) in [
        ("pretraining", Hints::default()),
        ("classification", Hints::default()),
        ("pyslowfast.pth", hints()),
    ] {
        let imported = import(&fixture(name), &hints).expect("imported");
        let (folder, task) = (
            dir.path().join(name),
            imported.task("there").expect("a configuration"),
        );
        write_folder(
            &folder,
            &imported.tensors,
            &[("config.toml", task.to_toml())],
        )
        .expect("written");
        let opened = Weights::open(&folder).expect("opened");
        assert_eq!(
            (Model::from(&opened.task), &opened.task),
            (imported.model, &task),
            "{name}"
        );
        assert_same(
            name,
            &opened.tensors.clone().into_iter().collect(),
            &imported.tensors,
            0.0,
        );
        assert_eq!(
            opened.classes(),
            imported.classes.as_deref().unwrap_or_default(),
            "{name}"
        );
        let again = write_folder(&folder, &imported.tensors, &[])
            .expect_err("it is there")
            .to_string();
        assert_eq!(
            again,
            format!(
                "{} already exists; choose another --out, or remove it",
                folder.display()
            )
        );
        let left: Vec<_> = fs::read_dir(dir.path())
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        assert!(
            !left
                .iter()
                .any(|name| name.to_string_lossy().contains(".tmp")),
            "{left:?}"
        );
    }
}

/// VideoMAE adds 1e-6 to the deviation of pixels in [0, 1], not to the variance: it shows where a
/// patch is nearly of one colour.
#[test]
fn the_epsilon_of_channels_is_added_to_the_deviation_of_pixels() {
    let imported = import(&fixture("videomae.pth"), &hints()).expect("imported");
    let Model::Mae(config) = imported.model else {
        panic!("an autoencoder")
    };
    // Around zero, where f32 has digits enough: 0.45 of [0, 1].
    let ours: Vec<f32> = (0..3 * 4 * 16 * 16)
        .map(|at| ((at * 7919 % 1013) as f32 / 1013.0 - 0.5) * 3e-5)
        .collect();
    let clips = Tensor::from_vec(ours, (1, 3, 4, 16, 16), &Device::Cpu).expect("a clip");
    let pixels = config
        .pixels(&clips)
        .and_then(|pixels| pixels.flatten_to(1)?.to_vec2::<f32>())
        .expect("pixels");
    let target = config
        .target_of_clips(&clips)
        .and_then(|target| target.values.flatten_to(1)?.to_vec2::<f32>())
        .expect("a target");
    for (pixels, target) in pixels.iter().zip(&target) {
        for channel in 0..3 {
            let of_channel = |values: &[f32]| {
                values
                    .iter()
                    .skip(channel)
                    .step_by(3)
                    .map(|&value| f64::from(value))
                    .collect::<Vec<f64>>()
            };
            let x: Vec<f64> = of_channel(pixels)
                .iter()
                .map(|y| y * f64::from(STD) + f64::from(MEAN))
                .collect();
            let mean = x.iter().sum::<f64>() / x.len() as f64;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (x.len() - 1) as f64;
            for (x, got) in x.iter().zip(of_channel(target)) {
                let expected = (x - mean) / (variance.sqrt() + 1e-6);
                assert!((got - expected).abs() < 1e-4, "{got} for {expected}");
            }
        }
    }
}
