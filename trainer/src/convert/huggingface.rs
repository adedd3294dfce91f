//! The configuration files of transformers: `config.json` and `preprocessor_config.json`.

use super::fold::Normalisation;
use super::source::Source;
use super::{ConvertError, Model};
use crate::model::{
    ClassifierConfig, Conventions, MLP_RATIO, MaeConfig, NormalisePer, PositionKind, TargetKind,
    TransformerConfig,
};
use schemas::geometry::{PatchGrid, TargetFrames};
use serde_json::{Map, Value, json};

/// Epsilon of the layer normalisation after the decoder, and of the one before a classifier's head:
/// PyTorch's default, independent of `layer_norm_eps`.
pub(crate) const FIXED_EPSILON: f64 = 1e-5;

/// Default of `layer_norm_eps`, the epsilon of all other layer normalisations.
const USUAL_EPSILON: f64 = 1e-12;

/// Reads the values of a configuration, and collects problems.
struct ConfigReader<'a> {
    values: &'a Map<String, Value>,
    problems: Vec<String>,
}

impl ConfigReader<'_> {
    /// A positive integer; transformers always writes these keys.
    fn number(&mut self, key: &str) -> usize {
        match self.values.get(key).map(|value| (value, value.as_u64())) {
            Some((_, Some(number))) if (1..=1 << 20).contains(&number) => return number as usize,
            Some((value, _)) => self
                .problems
                .push(format!("{key} is {value}, not a positive integer")),
            None => self.problems.push(format!("{key} is missing")),
        }
        1
    }

    fn flag(&mut self, key: &str, default: bool) -> bool {
        self.values
            .get(key)
            .map_or(Some(default), Value::as_bool)
            .unwrap_or_else(|| {
                self.problems.push(format!(
                    "{key} is {}, neither true nor false",
                    self.values[key]
                ));
                default
            })
    }

    fn only(&mut self, key: &str, only: &Value, why: &str) {
        if let Some(value) = self.values.get(key).filter(|value| *value != only) {
            self.problems
                .push(format!("{key} is {value}, not {only}: {why}"));
        }
    }
}

/// Reads the model of a folder, the names of its classes, and the normalisation of its pixels.
pub(crate) fn read(
    source: &Source,
    is_classifier: bool,
) -> Result<(Model, Option<Vec<String>>, Normalisation), ConvertError> {
    let path = source.path.with_file_name("config.json");
    let invalid = |reason: String| ConvertError::Invalid {
        path: path.clone(),
        reason,
    };
    let Some(config) = &source.config else {
        return Err(invalid("it is missing beside the weights".to_owned()));
    };
    let values = config
        .as_object()
        .ok_or_else(|| invalid("it is not a JSON object".to_owned()))?;
    let mut reader = ConfigReader {
        values,
        problems: Vec::new(),
    };
    reader.only(
        "model_type",
        &json!("videomae"),
        "other models are not supported",
    );
    reader.only(
        "hidden_act",
        &json!("gelu"),
        "our blocks have the exact GELU",
    );
    reader.only("num_channels", &json!(3), "our clips are RGB");
    let grid = PatchGrid {
        frames: reader.number("num_frames"),
        size: reader.number("image_size"),
        tubelet: reader.number("tubelet_size"),
        patch: reader.number("patch_size"),
    };
    if let Err(error) = grid.validate() {
        reader.problems.push(error.to_string());
    }
    let encoder = blocks(&mut reader, "");
    let decoder = if is_classifier {
        encoder
    } else {
        blocks(&mut reader, "decoder_")
    };
    let epsilon = values
        .get("layer_norm_eps")
        .map_or(Some(USUAL_EPSILON), Value::as_f64)
        .filter(|value| *value > 0.0);
    let Some(norm_epsilon) = epsilon else {
        return Err(invalid(format!(
            "layer_norm_eps is {}",
            values["layer_norm_eps"]
        )));
    };
    let conventions = Conventions {
        norm_epsilon,
        decoder_norm_epsilon: if is_classifier {
            Conventions::default().decoder_norm_epsilon
        } else {
            FIXED_EPSILON
        },
        head_norm_epsilon: if is_classifier {
            FIXED_EPSILON
        } else {
            norm_epsilon
        },
        normalise_per: if is_classifier {
            NormalisePer::Patch
        } else {
            NormalisePer::Channel
        },
        target_frames: TargetFrames::Spread,
        ..Conventions::default()
    };
    let positions = PositionKind::Sinusoid;
    let class_token = false;
    let pools = reader.flag("use_mean_pooling", true);
    let (model, classes) = if is_classifier {
        if !pools {
            reader.problems.push(
                "use_mean_pooling is false: our classifier takes the mean of the tokens".to_owned(),
            );
        }
        let names = class_names(&mut reader);
        let classes = source
            .tensors
            .get("classifier.weight")
            .map_or(1, |head| head.dims().first().copied().unwrap_or(1));
        (
            Model::Classifier(ClassifierConfig {
                grid,
                encoder,
                positions,
                class_token,
                classes,
                conventions,
            }),
            names,
        )
    } else {
        if pools {
            reader.problems.push(
                "use_mean_pooling is true, so that no layer normalisation follows \
                                  the encoder: ours has one"
                    .to_owned(),
            );
        }
        let normalise_target = reader.flag("norm_pix_loss", true);
        let target = TargetKind::Pixels;
        let slices = grid.tubelet;
        let config = MaeConfig {
            grid,
            encoder,
            decoder,
            positions,
            class_token,
            target,
            slices,
            normalise_target,
            conventions,
        };
        (Model::Mae(config), None)
    };
    let problems = reader.problems;
    if problems.is_empty() {
        Ok((model, classes, normalisation(source)?))
    } else {
        Err(invalid(super::render_problems(&problems)))
    }
}

/// Reads the sizes of the encoder or, with the prefix `decoder_`, of the decoder.
fn blocks(reader: &mut ConfigReader<'_>, prefix: &str) -> TransformerConfig {
    let mut number = |key: &str| reader.number(&format!("{prefix}{key}"));
    let width = number("hidden_size");
    let depth = number("num_hidden_layers");
    let heads = number("num_attention_heads");
    let inner = number("intermediate_size");
    let expected = MLP_RATIO * width;
    if inner != expected {
        let problem = format!(
            "{prefix}intermediate_size is {inner}, not {expected}: our MLPs are {MLP_RATIO} times \
             as wide as the model"
        );
        reader.problems.push(problem);
    }
    TransformerConfig {
        width,
        depth,
        heads,
    }
}

/// The names of the classes, in their order; `None` if the configuration has none.
fn class_names(reader: &mut ConfigReader<'_>) -> Option<Vec<String>> {
    let names = reader
        .values
        .get("id2label")?
        .as_object()
        .cloned()
        .unwrap_or_default();
    let ordered: Option<Vec<String>> = (0..names.len())
        .map(|at| names.get(&at.to_string())?.as_str().map(str::to_owned))
        .collect();
    if ordered.is_none() {
        reader
            .problems
            .push("id2label does not name the classes 0, 1, 2 and so on".to_owned());
    }
    ordered
}

/// The normalisation of pixels: that of the folder, or ImageNet's by default.
fn normalisation(source: &Source) -> Result<Normalisation, ConvertError> {
    let Some(preprocessor) = &source.preprocessor else {
        return Ok(Normalisation::IMAGENET);
    };
    let read = |key: &str, default: [f64; 3]| match preprocessor.get(key) {
        None => Some(default),
        Some(value) => value.as_array().and_then(|values| {
            let values: Vec<f64> = values.iter().filter_map(Value::as_f64).collect();
            <[f64; 3]>::try_from(values).ok()
        }),
    };
    let mean = read("image_mean", Normalisation::IMAGENET.mean);
    let std = read("image_std", Normalisation::IMAGENET.std);
    match (mean, std) {
        (Some(mean), Some(std)) if std.iter().all(|&std| std > 0.0) => {
            Ok(Normalisation { mean, std })
        }
        _ => {
            let path = source.path.with_file_name("preprocessor_config.json");
            Err(ConvertError::Invalid {
                path,
                reason: "image_mean and image_std are not three numbers each, the latter above 0"
                    .to_owned(),
            })
        }
    }
}

/// `config.json` and `preprocessor_config.json` of a model that transformers supports.
pub(crate) fn write(model: &Model, classes: Option<&[String]>) -> [(&'static str, Value); 2] {
    let (grid, encoder, conventions) = match model {
        Model::Mae(MaeConfig {
            grid,
            encoder,
            conventions,
            ..
        }) => (grid, encoder, conventions),
        Model::Classifier(ClassifierConfig {
            grid,
            encoder,
            conventions,
            ..
        }) => (grid, encoder, conventions),
    };
    let (architecture, pools) = match model {
        Model::Mae(_) => ("VideoMAEForPreTraining", false),
        Model::Classifier(_) => ("VideoMAEForVideoClassification", true),
    };
    let mut config = json!({
        "architectures": [architecture],
        "model_type": "videomae",
        "image_size": grid.size,
        "patch_size": grid.patch,
        "num_channels": 3,
        "num_frames": grid.frames,
        "tubelet_size": grid.tubelet,
        "hidden_size": encoder.width,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": encoder.heads,
        "intermediate_size": MLP_RATIO * encoder.width,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "layer_norm_eps": conventions.norm_epsilon,
        "qkv_bias": true,
        "use_mean_pooling": pools,
    });
    let mut set = |key: &str, value: Value| {
        drop(
            config
                .as_object_mut()
                .map(|config| config.insert(key.to_owned(), value)),
        )
    };
    match model {
        Model::Mae(MaeConfig {
            decoder,
            normalise_target,
            ..
        }) => {
            set("decoder_hidden_size", json!(decoder.width));
            set("decoder_num_hidden_layers", json!(decoder.depth));
            set("decoder_num_attention_heads", json!(decoder.heads));
            set(
                "decoder_intermediate_size",
                json!(MLP_RATIO * decoder.width),
            );
            set("norm_pix_loss", json!(normalise_target));
        }
        Model::Classifier(ClassifierConfig { classes: count, .. }) => {
            let name = |at: usize| {
                classes
                    .and_then(|names| names.get(at))
                    .cloned()
                    .unwrap_or_else(|| format!("LABEL_{at}"))
            };
            let numbered = (0..*count).map(|at| (at.to_string(), Value::from(name(at))));
            set("id2label", Value::Object(numbered.collect()));
            set(
                "label2id",
                Value::Object((0..*count).map(|at| (name(at), Value::from(at))).collect()),
            );
        }
    }
    let preprocessor = json!({
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": true,
        "size": { "shortest_edge": grid.size },
        "resample": 2,
        "do_center_crop": true,
        "crop_size": { "height": grid.size, "width": grid.size },
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": Normalisation::IMAGENET.mean,
        "image_std": Normalisation::IMAGENET.std,
    });
    [
        ("config.json", config),
        ("preprocessor_config.json", preprocessor),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let grid = PatchGrid {
            frames: 8,
            size: 32,
            tubelet: 2,
            patch: 8,
        };
        let encoder = TransformerConfig {
            width: 24,
            depth: 3,
            heads: 6,
        };
        let decoder = TransformerConfig {
            width: 12,
            depth: 1,
            heads: 3,
        };
        let conventions = Conventions {
            norm_epsilon: 1e-6,
            decoder_norm_epsilon: FIXED_EPSILON,
            normalise_per: NormalisePer::Channel,
            ..Conventions::default()
        };
        let positions = PositionKind::Sinusoid;
        let target = TargetKind::Pixels;
        let mae = MaeConfig {
            grid,
            encoder,
            decoder,
            positions,
            class_token: false,
            target,
            slices: 2,
            normalise_target: false,
            conventions,
        };
        let [(_, config), (_, preprocessor)] = write(&Model::Mae(mae), None);
        let source = |config, preprocessor| Source {
            path: "model.safetensors".into(),
            tensors: std::collections::BTreeMap::new(),
            config,
            preprocessor,
            notes: Vec::new(),
        };
        let (model, classes, normalisation) =
            read(&source(Some(config.clone()), Some(preprocessor)), false).expect("its own");
        assert_eq!(
            (model, classes, normalisation),
            (Model::Mae(mae), None, Normalisation::IMAGENET)
        );

        let fails = |key: &str, value: Value, is_classifier| {
            let mut config = config.clone();
            config[key] = value;
            read(&source(Some(config), None), is_classifier)
                .expect_err("it does not fit")
                .to_string()
        };
        for (key, value, is_classifier, expected) in [
            (
                "hidden_act",
                json!("gelu_new"),
                false,
                "hidden_act is \"gelu_new\", not \"gelu\": our blocks have the exact GELU",
            ),
            (
                "model_type",
                json!("vit"),
                false,
                "model_type is \"vit\", not \"videomae\": other models are not supported",
            ),
            (
                "intermediate_size",
                json!(97),
                false,
                "intermediate_size is 97, not 96: our MLPs are 4 times as wide as the model",
            ),
            (
                "num_hidden_layers",
                json!(-1),
                false,
                "num_hidden_layers is -1, not a positive integer",
            ),
            (
                "patch_size",
                json!(7),
                false,
                "size = 32 is not a multiple of patch = 7; choose size = 35, or another patch",
            ),
            (
                "use_mean_pooling",
                json!(true),
                false,
                "use_mean_pooling is true, so that no layer normalisation follows the encoder: \
                 ours has one",
            ),
            (
                "use_mean_pooling",
                json!(false),
                true,
                "use_mean_pooling is false: our classifier takes the mean of the tokens",
            ),
        ] {
            assert_eq!(
                fails(key, value, is_classifier),
                format!("cannot read config.json: {expected}")
            );
        }
    }
}
