//! The model, its loss, its gradients and steps of training, against the reference's numbers.
//!
//! `PARITY_FIXTURES=DIR cargo nextest run -p tests parity --no-capture` compares with all fixtures
//! in a folder, whatever their sizes (`fixtures/README.md` says how they are laid out), and prints
//! a table of the largest errors.

mod backend;
mod fixture;

use backend::{Backend, run, tokens};
use candle_core::{Device, Tensor, Var};
use fixture::{Fixture, Model, Recipe, list};
use pipeline::sampling::mask::{Masks, from_noise};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tests::ran_on_each_instruction_set;
use trainer::model::loss::{cross_entropy, smoothed_targets};
use trainer::model::{Classifier, ClassifierConfig, Mae, MaeConfig};
use trainer::optim::AdamW;
use trainer::optim::Schedule;
use trainer::optim::layer_decay::rule;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Which tokens are masked.
    Mask,
    /// Predictions, or logits.
    Forward,
    /// The loss.
    Loss,
    /// Gradients.
    Gradient,
    /// Gradients of key biases. They are zero but for rounding: a softmax does not see a constant.
    KeyBias,
    /// Learning rates, of steps or of parameters, and weight decays.
    Rate,
    /// Losses and gradient norms of a trajectory.
    Steps,
    /// Weights at its end, but those of key biases: Adam makes steps of their gradients' rounding
    /// noise.
    Weights,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Mask => "mask",
            Self::Forward => "forward",
            Self::Loss => "loss",
            Self::Gradient => "gradient",
            Self::KeyBias => "key bias",
            Self::Rate => "rate",
            Self::Steps => "steps",
            Self::Weights => "weights",
        }
    }

    /// The most that the error may be. Errors are norms of differences over norms of what is
    /// expected, in f32 against float64; that of a key bias is its largest value.
    const fn bound(self) -> f64 {
        match self {
            Self::Mask => 0.0,
            Self::Forward | Self::Loss | Self::Gradient => 1e-5,
            Self::Rate => 1e-6,
            Self::KeyBias => 1e-7,
            Self::Steps | Self::Weights => 1e-4,
        }
    }
}

/// The errors of one comparison.
#[derive(Debug, Default)]
struct Errors(BTreeMap<Kind, Vec<(String, f64)>>);

impl Errors {
    fn note(&mut self, kind: Kind, what: &str, error: f64) {
        self.0
            .entry(kind)
            .or_default()
            .push((what.to_owned(), error));
    }

    fn note_tensor(&mut self, kind: Kind, what: &str, got: &Tensor, expected: &Tensor) {
        self.note(kind, what, relative_error(got, expected));
    }

    /// Compares gradients by name. All that the reference has must be there, and no others.
    fn note_gradients(
        &mut self,
        got: &BTreeMap<String, Tensor>,
        expected: &BTreeMap<String, Tensor>,
    ) {
        for name in got.keys().filter(|&name| !expected.contains_key(name)) {
            self.note(
                Kind::Gradient,
                &format!("{name} (the reference has none)"),
                f64::INFINITY,
            );
        }
        for (name, expected) in expected {
            match got.get(name) {
                None => self.note(
                    Kind::Gradient,
                    &format!("{name} (there is none)"),
                    f64::INFINITY,
                ),
                Some(got) if is_key_bias(name) => {
                    // Their largest value; maxima would pass over what is not a number.
                    let largest = values(got).into_iter().map(f64::abs).max_by(f64::total_cmp);
                    self.note(Kind::KeyBias, name, largest.unwrap_or_default());
                }
                Some(got) => self.note_tensor(Kind::Gradient, name, got, expected),
            }
        }
    }

    /// A line of the table: the largest error of each kind, and whose it is where several were
    /// compared.
    fn line(&self) -> String {
        let worst = self.0.iter().filter_map(|(kind, errors)| {
            let (what, error) = errors.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
            Some(match (*error == 0.0, errors.len()) {
                (true, _) => format!("{} 0", kind.name()),
                (false, 1) => format!("{} {error:.1e}", kind.name()),
                (false, _) => format!("{} {error:.1e} ({what})", kind.name()),
            })
        });
        worst.collect::<Vec<_>>().join(", ")
    }

    /// All that is out of its bounds.
    fn failures(&self) -> Vec<String> {
        let all = self.0.iter().flat_map(|(kind, errors)| {
            errors.iter().map(move |(what, error)| (kind, what, *error))
        });
        // What is not a number is in no bounds.
        let out = all.filter(|(kind, _, error)| {
            !matches!(
                error.partial_cmp(&kind.bound()),
                Some(std::cmp::Ordering::Less | std::cmp::Ordering::Equal)
            )
        });
        out.map(|(kind, what, error)| {
            format!(
                "{} of {what}: {error:.2e}, over {:.0e}",
                kind.name(),
                kind.bound()
            )
        })
        .collect()
    }
}

fn is_key_bias(name: &str) -> bool {
    name.ends_with("attn.k.bias")
}

fn values(tensor: &Tensor) -> Vec<f64> {
    let flat = tensor
        .flatten_all()
        .and_then(|flat| flat.to_vec1::<f32>())
        .expect("values");
    flat.into_iter().map(f64::from).collect()
}

/// Norm of the difference over the norm of what is expected, or by itself where that is zero;
/// infinite where shapes differ.
fn relative_error(got: &Tensor, expected: &Tensor) -> f64 {
    if got.dims() != expected.dims() {
        return f64::INFINITY;
    }
    let (got, expected) = (values(got), values(expected));
    let norm = |values: &mut dyn Iterator<Item = f64>| {
        values.map(|value| value * value).sum::<f64>().sqrt()
    };
    let (difference, whole) = (
        norm(&mut got.iter().zip(&expected).map(|(a, b)| a - b)),
        norm(&mut expected.iter().copied()),
    );
    if whole == 0.0 {
        difference
    } else {
        difference / whole
    }
}

/// The error of one number.
fn relative_error_of(got: f64, expected: f64) -> f64 {
    (got - expected).abs() / if expected == 0.0 { 1.0 } else { expected.abs() }
}

/// Masks of the reference's noise, `[clips, tokens]`: of each clip the visible tokens, then the
/// masked ones.
fn mask_rows(noise: &Tensor, visible: usize) -> Vec<u32> {
    let noise = noise.to_vec2::<f32>().expect("noise");
    let mut rows = vec![0; noise.iter().map(Vec::len).sum()];
    let tokens = rows.len() / noise.len();
    noise
        .iter()
        .zip(rows.chunks_exact_mut(tokens))
        .for_each(|(noise, row)| from_noise(noise, visible, row));
    rows
}

type Outcome = Result<Errors, String>;

fn failed(error: candle_core::Error) -> String {
    error.to_string()
}

/// Mask, predictions, loss and gradients at one ratio.
fn compare_step(fixture: &Fixture, config: &MaeConfig, ratio: &str, backend: Backend) -> Outcome {
    let expected = |name: &str| fixture.tensor(&format!("ratio{ratio}/{name}"));
    let (grid, clips) = (config.grid, fixture.tensor("input")?);
    let visible = grid.visible_tokens(
        ratio
            .parse()
            .map_err(|_| format!("ratio{ratio} is no ratio"))?,
    );
    let rows = mask_rows(expected("noise")?, visible);
    let masks = Masks::new(&rows, grid.tokens(), visible);
    let mut errors = Errors::default();
    let mut is_masked = vec![0.0; rows.len()];
    for (clip, mask) in masks.iter().enumerate() {
        mask.masked
            .iter()
            .for_each(|&token| is_masked[clip * grid.tokens() + token as usize] = 1.0);
    }
    errors.note(
        Kind::Mask,
        "tokens",
        f64::from(is_masked != values(expected("mask")?)),
    );

    let weights = fixture.under("param/").into_iter().collect();
    let computed = run(backend, config, &weights, clips, masks).map_err(failed)?;
    if let Some(predictions) = computed.predictions {
        let mut expected = expected("pred")?.clone();
        if predictions.dims() != expected.dims() {
            expected = tokens(
                &expected,
                &masks.iter().map(|mask| mask.masked).collect::<Vec<_>>(),
            )
            .map_err(failed)?;
        }
        errors.note_tensor(Kind::Forward, "predictions", &predictions, &expected);
    }
    errors.note(
        Kind::Loss,
        "loss",
        relative_error_of(computed.loss, values(expected("loss")?)[0]),
    );
    errors.note_gradients(
        &computed.gradients,
        &fixture.under(&format!("ratio{ratio}/grad/")),
    );
    Ok(errors)
}

/// Steps of training.
fn compare_trajectory(fixture: &Fixture, config: &MaeConfig, backend: Backend) -> Outcome {
    let trajectory = |name: &str| fixture.tensor(&format!("traj/{name}"));
    let recipe = Recipe::parse(fixture.metadata.get("traj").map_or("", String::as_str));
    let ratios = fixture.ratios();
    let only = ratios
        .first()
        .filter(|_| ratios.len() == 1)
        .and_then(|ratio| ratio.parse().ok());
    let ratio = recipe
        .ratio
        .or(only)
        .ok_or("the metadata does not say the trajectory's mask ratio")?;
    let visible = config.grid.visible_tokens(ratio);
    let (rates, losses, norms) = (
        values(trajectory("lr")?),
        values(trajectory("loss")?),
        values(trajectory("grad_norm")?),
    );
    let mut errors = Errors::default();
    if let Some(warmup_steps) = recipe.warmup {
        let peak = rates.iter().copied().fold(0.0, f64::max);
        let schedule = Schedule {
            peak,
            warmup_steps,
            steps: rates.len() as u64,
        };
        for (step, &rate) in rates.iter().enumerate() {
            errors.note(
                Kind::Rate,
                &format!("step {step}"),
                (schedule.rate(step as u64) - rate).abs() / peak,
            );
        }
    }
    let weights = fixture.under("param/").into_iter().collect();
    let model =
        Mae::from_tensors(*config, weights, &Device::Cpu).map_err(|error| error.to_string())?;
    let mut optimizer = AdamW::new(model.parameters(), recipe.optimizer).map_err(failed)?;
    for (step, &rate) in rates.iter().enumerate() {
        let of_step = |name: &str| trajectory(name)?.get(step).map_err(failed);
        let rows = mask_rows(&of_step("noise")?, visible);
        let masks = Masks::new(&rows, config.grid.tokens(), visible);
        let weights = model
            .parameters()
            .iter()
            .map(|(name, variable)| (name.to_owned(), variable.as_detached_tensor()))
            .collect();
        let computed = run(backend, config, &weights, &of_step("input")?, masks).map_err(failed)?;
        // The optimiser takes gradients as candle's backward gives them; any will do that can be
        // filled with the backend's.
        let mut gradients = Var::zeros(1, candle_core::DType::F32, &Device::Cpu)
            .and_then(|nothing| nothing.backward())
            .map_err(failed)?;
        for (name, variable) in model.parameters().iter() {
            gradients.insert(variable, computed.gradients[name].clone());
        }
        let norm = optimizer.step(&gradients, rate).map_err(failed)?;
        errors.note(
            Kind::Steps,
            &format!("loss {step}"),
            relative_error_of(computed.loss, losses[step]),
        );
        errors.note(
            Kind::Steps,
            &format!("norm {step}"),
            relative_error_of(norm, norms[step]),
        );
    }
    for (name, variable) in model
        .parameters()
        .iter()
        .filter(|(name, _)| !is_key_bias(name))
    {
        errors.note_tensor(
            Kind::Weights,
            name,
            variable.as_tensor(),
            trajectory(&format!("param/{name}"))?,
        );
    }
    Ok(errors)
}

/// Logits, loss and gradients of a classifier, and the rates and decays of its parameters.
fn compare_classifier(fixture: &Fixture, config: ClassifierConfig, smoothing: f64) -> Outcome {
    let mut errors = Errors::default();
    let weights = fixture.under("param/").into_iter().collect();
    let model = Classifier::from_tensors(config, weights, &Device::Cpu)
        .map_err(|error| error.to_string())?;
    let logits = model.forward(fixture.tensor("input")?).map_err(failed)?;
    errors.note_tensor(Kind::Forward, "logits", &logits, fixture.tensor("logits")?);
    let labels = fixture
        .tensor("label")?
        .to_dtype(candle_core::DType::U32)
        .and_then(|labels| labels.to_vec1::<u32>())
        .map_err(failed)?;
    let targets =
        smoothed_targets(&labels, config.classes, smoothing, &Device::Cpu).map_err(failed)?;
    let loss = cross_entropy(&logits, &targets).map_err(failed)?;
    let value = f64::from(loss.to_scalar::<f32>().map_err(failed)?);
    errors.note(
        Kind::Loss,
        "loss",
        relative_error_of(value, values(fixture.tensor("loss")?)[0]),
    );
    let gradients = loss.backward().map_err(failed)?;
    let gradient =
        |(name, variable): (&str, &Var)| Some((name.to_owned(), gradients.get(variable)?.clone()));
    errors.note_gradients(
        &model.parameters().iter().filter_map(gradient).collect(),
        &fixture.under("grad/"),
    );

    // The one of the CPU, on the same tokens.
    let targets = targets
        .flatten_all()
        .and_then(|flat| flat.to_vec1::<f32>())
        .map_err(failed)?;
    let cpu =
        backend::cpu_classifier(&model, fixture.tensor("input")?, &targets).map_err(failed)?;
    errors.note_tensor(
        Kind::Forward,
        "CPU logits",
        &cpu.logits,
        fixture.tensor("logits")?,
    );
    errors.note(
        Kind::Loss,
        "CPU loss",
        relative_error_of(cpu.loss, values(fixture.tensor("loss")?)[0]),
    );
    errors.note_gradients(&cpu.gradients, &fixture.under("grad/"));

    if let Some(table) = fixture
        .metadata
        .get("lr_scale_and_weight_decay_by_parameter")
    {
        let table: BTreeMap<String, [f64; 2]> =
            serde_json::from_str(table).map_err(|error| format!("its table of rates: {error}"))?;
        let decay = fixture
            .metadata
            .get("layer_decay")
            .and_then(|decay| decay.parse().ok())
            .ok_or("its metadata has no `layer_decay`")?;
        let weight_decay = table.values().map(|[_, decay]| *decay).fold(0.0, f64::max);
        for (name, variable) in model.parameters().iter() {
            let rule = rule(
                name,
                variable.rank(),
                config.encoder.depth,
                decay,
                weight_decay,
            );
            let [rate, decay] = table
                .get(name)
                .ok_or_else(|| format!("its table of rates lacks {name}"))?;
            // To the bit.
            let is_same = rule.rate == *rate && rule.weight_decay == *decay;
            errors.note(
                Kind::Rate,
                &format!("{name}, {rule:?} for {rate} and {decay},"),
                f64::from(!is_same),
            );
        }
    }
    Ok(errors)
}

/// Every comparison that a fixture allows, with its name.
fn compare(fixture: &Fixture) -> Vec<(String, Outcome)> {
    match fixture.model {
        Model::Classifier(config, smoothing) => vec![(
            "classifier".to_owned(),
            compare_classifier(fixture, config, smoothing),
        )],
        Model::Autoencoder(config) => {
            let mut outcomes = Vec::new();
            for backend in Backend::ALL {
                for ratio in fixture.ratios() {
                    outcomes.push((
                        format!("{} at {ratio}", backend.name()),
                        compare_step(fixture, &config, &ratio, backend),
                    ));
                }
                if fixture.tensors.contains_key("traj/loss") {
                    outcomes.push((
                        format!("{} in training", backend.name()),
                        compare_trajectory(fixture, &config, backend),
                    ));
                }
            }
            outcomes
        }
    }
}

/// The folder of fixtures that is asked for, from the repository's root on where it is relative,
/// and whether it is the project's own.
fn folder() -> (PathBuf, bool) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    match std::env::var_os("PARITY_FIXTURES").filter(|folder| !folder.is_empty()) {
        Some(folder) => (here.join("..").join(folder), false),
        None => (here.join("fixtures"), true),
    }
}

#[test]
fn parity_with_the_reference() {
    if ran_on_each_instruction_set("parity::parity_with_the_reference") {
        return;
    }
    let (folder, is_own) = folder();
    let (mut failures, mut compared) = (Vec::new(), Vec::new());
    for path in list(&folder).unwrap_or_else(|problem| panic!("{problem}")) {
        let fixture = match Fixture::read(&path) {
            Ok(fixture) => fixture,
            Err(problem) => {
                failures.push(problem);
                continue;
            }
        };
        let outcomes = compare(&fixture);
        if outcomes.is_empty() {
            failures.push(format!(
                "{}: it holds nothing to compare with",
                fixture.name
            ));
        }
        println!("{}", fixture.name);
        for (name, outcome) in outcomes {
            let problems = match outcome {
                Ok(errors) => {
                    println!("  {name:<20} {}", errors.line());
                    errors.failures()
                }
                Err(problem) => vec![problem],
            };
            failures.extend(
                problems
                    .into_iter()
                    .map(|problem| format!("{}, {name}: {problem}", fixture.name)),
            );
            compared.push(name);
        }
    }
    assert!(
        failures.is_empty(),
        "{} comparisons fail:\n{}",
        failures.len(),
        failures.join("\n")
    );
    if is_own {
        let has = |name: &str| {
            compared
                .iter()
                .filter(|compared| compared.contains(name))
                .count()
        };
        assert_eq!(
            (
                has("clips at"),
                has("patches at"),
                has("cpu at"),
                has("in training"),
                has("classifier")
            ),
            (3, 3, 3, 3, 1),
            "the project's own fixtures: {compared:?}"
        );
    }
}

#[test]
fn parity_errors_are_seen() {
    let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).expect("a tensor");
    assert!((relative_error(&tensor(&[3.0, 4.5]), &tensor(&[3.0, 4.0])) - 0.1).abs() < 1e-12);
    assert_eq!(
        relative_error(&tensor(&[1.0]), &tensor(&[1.0, 2.0])),
        f64::INFINITY
    );
    let mut errors = Errors::default();
    errors.note_tensor(Kind::Forward, "sound", &tensor(&[1.0]), &tensor(&[1.0]));
    assert_eq!(errors.failures(), [""; 0]);
    errors.note_tensor(
        Kind::Forward,
        "broken",
        &tensor(&[f32::NAN]),
        &tensor(&[1.0]),
    );
    let of = |name: &str, value: f32| BTreeMap::from([(name.to_owned(), tensor(&[value]))]);
    errors.note_gradients(&of("a", 1.0), &of("b", 1.0));
    errors.note_gradients(&of("c", 1.001), &of("c", 1.0));
    errors.note_gradients(
        &of("blocks.0.attn.k.bias", f32::NAN),
        &of("blocks.0.attn.k.bias", 0.0),
    );
    let failures = errors.failures();
    assert_eq!(failures.len(), 5, "{failures:?}");
    assert_eq!(failures[3], "gradient of c: 1.00e-3, over 1e-5");
}
