//! Flags for keys of the configuration.
//!
//! `--set KEY=VALUE` sets any key. A [`Flag`] is a shorter spelling for one of them; it needs a
//! line here and nothing anywhere else. Both become [`Layer`]s, in the order in which they are
//! typed.

use super::MaskKindArg;
use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, ValueEnum};
use std::fmt::Write;
use std::marker::PhantomData;
use std::path::Path;
use toml::Value;
use trainer::config::{ConfigError, Layer, OnNonfinite, parse_value};
use trainer::cpu::Precision;
use trainer::model::PositionKind;

const SET: &str = "set";

/// A shorter spelling for a key.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    name: &'static str,
    /// What the flag was called before.
    old_name: Option<&'static str>,
    key: &'static str,
    form: Form,
    help: &'static str,
    /// Whether `--help` has an entry of its own for it.
    shown: bool,
    /// An argument that it cannot be given with.
    conflict: Option<&'static str>,
}

/// What follows the flag, and what the key is set to.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// A value, by its name in the help.
    Value(&'static str),
    /// One of these words, by their name in the help.
    Word(&'static str, fn() -> Vec<PossibleValue>),
    /// One of these words, each with the TOML that it stands for.
    Choice(&'static str, &'static [(&'static str, &'static str)]),
    /// Two numbers, `MIN,MAX`.
    Range,
    /// Text, by its name in the help.
    Text(&'static str),
    /// Words with commas between them, by their name in the help.
    List(&'static str),
    /// Nothing: the flag alone sets this TOML value.
    Constant(&'static str),
}

/// The flags of a command, in the order of its help.
pub trait FlagSet {
    /// Groups of flags, several of which commands share.
    const FLAGS: &'static [&'static [Flag]];

    /// All of them.
    fn flags() -> impl Iterator<Item = &'static Flag> {
        Self::FLAGS.iter().copied().flatten()
    }
}

/// `trainer run`.
#[derive(Debug)]
pub struct RunFlags;

/// `trainer bench loader`, which loads as a run does.
#[derive(Debug)]
pub struct BenchFlags;

/// `trainer finetune`.
#[derive(Debug)]
pub struct FinetuneFlags;

impl FlagSet for RunFlags {
    const FLAGS: &'static [&'static [Flag]] = &[TRAINING, CHOOSING, SAMPLES, PRETRAINING];
}

impl FlagSet for BenchFlags {
    const FLAGS: &'static [&'static [Flag]] = &[CHOOSING, SAMPLES, PRETRAINING];
}

impl FlagSet for FinetuneFlags {
    const FLAGS: &'static [&'static [Flag]] = &[TRAINING, CHOOSING, SAMPLES, FINETUNING];
}

/// Flags of every training.
const TRAINING: &[Flag] = &[
    flag(
    "steps",
    "schedule.length.steps",
    Form::Value("N"),
    "Number of steps",
)
.shown()
.not_with("epochs"),
    flag(
    "epochs",
    "schedule.length.epochs",
    Form::Value("N"),
    "Passes over the data",
)
.shown(),
    flag(
    "lr",
    "optimizer.base_lr",
    Form::Value("RATE"),
    "Learning rate for 256 samples per step; it is scaled in proportion to the samples per step",
)
.shown(),
    flag(
    "grad-accum",
    "data.grad_accum",
    Form::Value("N"),
    "Batches per step, whose gradients are averaged",
)
.was("accumulate"),
    flag(
    "micro-batches",
    "data.micro_batches",
    Form::Value("N"),
    "Micro-batches of each batch, a power of two: as many ranks or fewer give the same results",
),
    flag(
    "gradient-checkpointing",
    "compute.gradient_checkpointing",
    Form::Constant("true"),
    "Save fewer activations and recompute them: less memory, a third more time",
)
.was("recompute"),
    flag(
    "on-nonfinite",
    "safety.on_nonfinite",
    Form::Word("WHAT", words::<OnNonfinite>),
    "What to do about a step whose loss or gradients are not finite",
),
];

/// Flags of whatever reads shards: [`console::choose::ChooseArgs`] are the same for commands without a
/// configuration.
const CHOOSING: &[Flag] = &[
    flag(
        "split",
        "data.choose.split",
        Form::List("NAME,..."),
        "Use these splits only; PATH:NAME is the split of one data set",
    )
    .shown(),
    flag(
        "where",
        "data.choose.where",
        Form::Text("CONDITION"),
        "Use the clips for which this holds, such as \"motion > 0.002 and class != 'none'\"",
    )
    .shown(),
    flag(
        "classes",
        "data.choose.classes",
        Form::List("NAME,..."),
        "Use the clips of these classes only",
    ),
    flag(
        "select",
        "data.choose.select",
        Form::Text("FILE"),
        "Use the clips that a file lists, such as a query's result",
    ),
];

/// Flags of whatever takes samples.
const SAMPLES: &[Flag] = &[
    flag(
    "batch-size",
    "data.batch_size",
    Form::Value("N"),
    "Samples per batch",
)
.shown(),
    flag(
    "dtype",
    "compute.dtype",
    Form::Word("TYPE", words::<Precision>),
    "Type of activations on the CPU; bf16 is faster where the CPU multiplies it. Master weights, \
     moments and sums are f32",
)
.shown(),
    flag("seed", "seed", Form::Value("N"), "Random seed"),
    flag(
    "repeat-aug",
    "data.repeat_aug",
    Form::Value("N"),
    "Samples of a clip (window, crop, flip, mask) each time that it is read",
)
.was("repeat"),
];

/// Flags of pre-training alone.
const PRETRAINING: &[Flag] = &[
    flag(
        "mask-ratio",
        "masking.ratio",
        Form::Value("SHARE"),
        "Share of masked tokens",
    )
    .shown(),
    flag(
        "frames",
        "clip.frames",
        Form::Value("N"),
        "Frames per clip; 1 with --tubelet 1 for still pictures",
    ),
    flag(
        "tubelet",
        "clip.tubelet",
        Form::Value("N"),
        "Frames per tubelet",
    ),
    flag(
        "size",
        "clip.size",
        Form::Value("PIXELS"),
        "Height and width of a clip",
    ),
    flag(
        "mask-kind",
        "masking.kind",
        Form::Word("KIND", words::<MaskKindArg>),
        "Tokens that are masked together",
    ),
    flag(
        "decoder-keep",
        "masking.decoder_keep",
        Form::Value("SHARE"),
        "Share of the masked \
             tokens that the decoder predicts, by running cells (VideoMAE V2: 0.5)",
    ),
    flag(
        "decoder-width",
        "decoder.width",
        Form::Value("N"),
        "Width of the decoder",
    ),
    flag(
        "decoder-depth",
        "decoder.depth",
        Form::Value("N"),
        "Blocks of the decoder",
    ),
    flag(
        "decoder-heads",
        "decoder.heads",
        Form::Value("N"),
        "Heads of the decoder",
    ),
    flag(
        "target",
        "target",
        Form::Choice(
            "TARGET",
            &[
                ("pixels", "{ kind = \"pixels\", normalise = false }"),
                ("normalised", "{ kind = \"pixels\", normalise = true }"),
                ("hog", "{ kind = \"hog\", normalise = false }"),
            ],
        ),
        "What is predicted: pixels, pixels normalised by patch, or histograms of oriented \
             gradients",
    ),
    flag(
        "pred-frames",
        "target.pred_frames",
        Form::Value("N"),
        "Frames per tubelet that are predicted",
    )
    .was("slices"),
    flag(
        "positions",
        "model.positions",
        Form::Word("KIND", words::<PositionKind>),
        "Positional embeddings",
    ),
    flag(
        "class-token",
        "model.class_token",
        Form::Constant("true"),
        "With a cls token",
    ),
    flag(
        "no-class-token",
        "model.class_token",
        Form::Constant("false"),
        "Without a cls token",
    ),
    flag(
        "crop-area",
        "data.area",
        Form::Range,
        "Share of the frame that a crop covers",
    ),
    FLIP,
];

/// Flags of fine-tuning alone.
const FINETUNING: &[Flag] = &[
    FLIP.shown(),
    flag(
        "holdout",
        "split.holdout",
        Form::Value("SHARE"),
        "Share of each class's videos that \
             is held out for validation: whole videos, never clips",
    )
    .shown()
    .not_with("val"),
    flag(
        "videos-per-class",
        "split.videos_per_class",
        Form::Value("N"),
        "Maximum number of videos per class to train on",
    )
    .shown(),
];

const FLIP: Flag = flag(
    "flip",
    "data.flip",
    Form::Value("P"),
    "Probability of a flip left to right",
);

/// The words of an enum of arguments.
fn words<T: ValueEnum>() -> Vec<PossibleValue> {
    T::value_variants()
        .iter()
        .filter_map(T::to_possible_value)
        .collect()
}

const fn flag(name: &'static str, key: &'static str, form: Form, help: &'static str) -> Flag {
    Flag {
        name,
        old_name: None,
        key,
        form,
        help,
        shown: false,
        conflict: None,
    }
}

impl Flag {
    const fn shown(mut self) -> Self {
        self.shown = true;
        self
    }

    const fn not_with(mut self, conflict: &'static str) -> Self {
        self.conflict = Some(conflict);
        self
    }

    const fn was(mut self, old_name: &'static str) -> Self {
        self.old_name = Some(old_name);
        self
    }

    fn arg(&self) -> Arg {
        let arg = Arg::new(self.name)
            .long(self.name)
            .help(self.help)
            .hide(!self.shown);
        let arg = match self.old_name {
            Some(old_name) => arg.alias(old_name),
            None => arg,
        };
        let arg = match self.conflict {
            Some(conflict) => arg.conflicts_with(conflict),
            None => arg,
        };
        match self.form {
            Form::Value(name) => arg.value_name(name).allow_hyphen_values(true),
            Form::Range => arg.value_name("MIN,MAX"),
            Form::Text(name) | Form::List(name) => arg.value_name(name),
            Form::Word(name, words) => arg
                .value_name(name)
                .value_parser(PossibleValuesParser::new(words())),
            Form::Choice(name, choices) => {
                let words = choices.iter().map(|(word, _)| *word);
                arg.value_name(name)
                    .value_parser(PossibleValuesParser::new(words))
            }
            Form::Constant(_) => arg.action(ArgAction::SetTrue),
        }
    }

    /// The layer for the flag with `text` after it.
    fn layer(&self, text: &str) -> Result<Layer, ConfigError> {
        let name = format!("--{} {text}", self.name);
        let value = match self.form {
            Form::Value(_) | Form::Word(..) => parse_value(text),
            Form::Range => parse_value(&format!("[{text}]")),
            Form::Text(_) => Value::from(text),
            Form::List(_) => Value::from(text.split(',').map(str::trim).collect::<Vec<_>>()),
            Form::Constant(toml) => parse_value(toml),
            Form::Choice(_, choices) => {
                let chosen = choices.iter().find(|(word, _)| *word == text);
                parse_value(chosen.map_or(text, |(_, toml)| toml))
            }
        };
        Layer::key(name.trim_end(), self.key, value)
    }
}

/// The settings that were typed, in the order in which they were typed.
#[derive(Debug)]
pub struct Settings<F> {
    layers: Vec<Layer>,
    flags: PhantomData<F>,
}

impl<F> Settings<F> {
    /// The layers over a preset or recipe: that of the `--config` file, then one per setting.
    ///
    /// # Errors
    /// When the file cannot be read or is not TOML.
    pub fn layers(&self, file: Option<&Path>) -> Result<Vec<Layer>, ConfigError> {
        let file = file.map(Layer::file).transpose()?;
        Ok(file
            .into_iter()
            .chain(self.layers.iter().cloned())
            .collect())
    }
}

impl<F: FlagSet> Args for Settings<F> {
    fn augment_args(command: Command) -> Command {
        let set = Arg::new(SET)
            .long(SET)
            .value_name("KEY=VALUE")
            .action(ArgAction::Append)
            .help("Set any key of the configuration, such as masking.kind=tube");
        command.arg(set).args(F::flags().map(Flag::arg))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<F: FlagSet> FromArgMatches for Settings<F> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut layers = Vec::new();
        for (index, text) in values(matches, SET) {
            layers.push((index, Layer::assignment(format!("--set {text}"), text)));
        }
        for flag in F::flags() {
            if matches!(flag.form, Form::Constant(_)) {
                if matches.get_flag(flag.name) {
                    let index = matches.index_of(flag.name).unwrap_or(0);
                    layers.push((index, flag.layer("")));
                }
                continue;
            }
            for (index, text) in values(matches, flag.name) {
                layers.push((index, flag.layer(text)));
            }
        }
        layers.sort_by_key(|(index, _)| *index);
        let layers: Result<_, ConfigError> = layers.into_iter().map(|(_, layer)| layer).collect();
        let invalid =
            |error: ConfigError| clap::Error::raw(ErrorKind::ValueValidation, format!("{error}\n"));
        Ok(Self {
            layers: layers.map_err(invalid)?,
            flags: PhantomData,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The values of an argument, each with its place on the command line.
fn values<'a>(matches: &'a ArgMatches, name: &str) -> impl Iterator<Item = (usize, &'a String)> {
    let indices = matches.indices_of(name).into_iter().flatten();
    indices.zip(matches.get_many::<String>(name).into_iter().flatten())
}

/// Renders the end of the help: the flags that have no entry of their own, and `examples`.
pub fn render_help<F: FlagSet>(examples: &str) -> String {
    let mut text = "Other flags, and the keys that they set:".to_owned();
    for flag in F::flags().filter(|flag| !flag.shown) {
        let value = match flag.form {
            Form::Value(name) | Form::Text(name) | Form::List(name) => format!(" {name}"),
            Form::Range => " MIN,MAX".to_owned(),
            Form::Word(_, words) => {
                let words = words();
                let names: Vec<&str> = words.iter().map(PossibleValue::get_name).collect();
                format!(" {}", names.join("|"))
            }
            Form::Choice(_, choices) => {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                format!(" {}", words.join("|"))
            }
            Form::Constant(_) => String::new(),
        };
        let spelling = format!("--{}{value}", flag.name);
        let _ = write!(text, "\n  {spelling:<44} {}", flag.key);
    }
    text += "\n\nLoading: --loader-threads N, --loader-memory MIB, --max-bad N";
    format!("{text}\n\n{examples}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use trainer::config::{Preset, PretrainConfig};

    #[derive(Debug, Parser)]
    struct Run {
        #[command(flatten)]
        settings: Settings<RunFlags>,
    }

    fn differences(flags: &[&str]) -> Vec<String> {
        let run = Run::try_parse_from([&["run"], flags].concat()).expect("flags");
        let config =
            PretrainConfig::resolve(Preset::Tiny, &run.settings.layers(None).expect("no file"))
                .expect("valid");
        config.differences(&PretrainConfig::resolve(Preset::Tiny, &[]).expect("valid"))
    }

    #[test]
    fn each_flag_sets_its_key_and_no_other() {
        for (flags, difference) in [
            (&["--steps", "5"][..], "schedule.length.steps: 5, not 600"),
            (
                &["--epochs", "3"],
                "schedule.length: epochs = 3.0, not steps = 600",
            ),
            (&["--batch-size", "2"], "data.batch_size: 2, not 8"),
            (&["--lr", "2e-3"], "optimizer.base_lr: 0.002, not 0.032"),
            (
                &["--split", "a, b"],
                "data.choose.split: [\"a\", \"b\"], not set",
            ),
            (
                &["--where", "label = 3"],
                "data.choose.where: \"label = 3\", not set",
            ),
            (&["--classes", "3"], "data.choose.classes: [\"3\"], not set"),
            (
                &["--select", "a.csv"],
                "data.choose.select: \"a.csv\", not set",
            ),
            (&["--mask-ratio", ".75"], "masking.ratio: 0.75, not 0.9"),
            (
                &["--mask-kind", "tube"],
                "masking.kind: \"tube\", not \"random\"",
            ),
            (
                &["--decoder-keep", "0.5"],
                "masking.decoder_keep: 0.5, not 1.0",
            ),
            (&["--decoder-width", "48"], "decoder.width: 48, not 96"),
            (&["--decoder-depth", "1"], "decoder.depth: 1, not 2"),
            (&["--decoder-heads", "4"], "decoder.heads: 4, not 3"),
            (&["--target", "pixels"], "target.normalise: false, not true"),
            (&["--pred-frames", "2"], "target.pred_frames: 2, not 1"),
            (&["--slices", "2"], "target.pred_frames: 2, not 1"),
            (
                &["--positions", "joint"],
                "model.positions: \"joint\", not \"separable\"",
            ),
            (&["--no-class-token"], "model.class_token: false, not true"),
            (&["--frames", "8"], "clip.frames: 8, not 16"),
            (&["--tubelet", "4"], "clip.tubelet: 4, not 2"),
            (&["--size", "64"], "clip.size: 64, not 112"),
            (
                &["--crop-area", "0.2,0.8"],
                "data.area: [0.2, 0.8], not [0.5, 1.0]",
            ),
            (&["--flip", "0"], "data.flip: 0.0, not 0.5"),
            (&["--dtype", "bf16"], "compute.dtype: \"bf16\", not \"f32\""),
            (&["--seed", "7"], "seed: 7, not 0"),
            (&["--grad-accum", "4"], "data.grad_accum: 4, not 1"),
            (&["--accumulate", "4"], "data.grad_accum: 4, not 1"),
            (&["--micro-batches", "4"], "data.micro_batches: 4, not 1"),
            (&["--repeat-aug", "2"], "data.repeat_aug: 2, not 1"),
            (&["--repeat", "2"], "data.repeat_aug: 2, not 1"),
            (
                &["--recompute"],
                "compute.gradient_checkpointing: true, not false",
            ),
            (
                &["--on-nonfinite", "skip"],
                "safety.on_nonfinite: \"skip\", not \"stop\"",
            ),
            (
                &["--set", "data.values=u8"],
                "data.values: \"u8\", not \"f32\"",
            ),
        ] {
            assert_eq!(differences(flags), [difference], "{flags:?}");
        }
    }

    #[test]
    fn what_is_typed_later_wins() {
        let flags = [
            "--set",
            "seed=1",
            "--seed",
            "2",
            "--class-token",
            "--no-class-token",
        ];
        assert_eq!(
            differences(&flags),
            ["seed: 2, not 0", "model.class_token: false, not true"]
        );
        let flags = [
            "--seed",
            "2",
            "--set",
            "seed=1",
            "--no-class-token",
            "--class-token",
        ];
        assert_eq!(differences(&flags), ["seed: 1, not 0"]);
    }

    #[test]
    fn every_flag_is_shown_or_listed() {
        let list = render_help::<RunFlags>("");
        for flag in RunFlags::flags() {
            assert_ne!(
                list.contains(&format!("\n  --{} ", flag.name)),
                flag.shown,
                "{flag:?}"
            );
        }
    }
}
