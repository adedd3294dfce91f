use super::*;
use crate::model::{PositionKind, TargetKind};
use pipeline::sampling::mask::MaskKind;
use std::fs;

fn tiny(layers: &[Layer]) -> PretrainConfig {
    PretrainConfig::resolve(Preset::Tiny, layers).expect("valid")
}

fn set(assignment: &str) -> Layer {
    Layer::assignment(format!("--set {assignment}"), assignment).expect("an assignment")
}

/// The preset with a file over it, or the error, in which the file is called FILE.
fn with_file(text: &str) -> Result<PretrainConfig, String> {
    let file = Layer::text("FILE", text).map_err(|error| error.to_string())?;
    PretrainConfig::resolve(Preset::Tiny, &[file]).map_err(|error| match error {
        ConfigError::Grid(error) => error.to_string(),
        error => error.to_string(),
    })
}

#[test]
fn every_preset_is_valid_and_survives_its_own_file() {
    for preset in Preset::ALL {
        let task = Task::from(PretrainConfig::resolve(preset, &[]).expect("a valid preset"));
        assert_eq!(
            Task::parse(&task.to_toml()).expect("its own TOML"),
            task,
            "{preset:?}"
        );
    }
}

#[test]
fn every_recipe_is_valid_and_survives_its_own_file() {
    for recipe in Recipe::ALL {
        for preset in Preset::ALL {
            let encoder = EncoderPart::from(&PretrainConfig::resolve(preset, &[]).expect("valid"));
            let classes = vec!["a".to_owned(), "b \"quoted\"".to_owned()];
            let layers = [
                set("schedule.length.steps=7"),
                set("split.videos_per_class=3"),
            ];
            let init_from = Some("runs/a".to_owned());
            let config = FinetuneConfig::resolve(recipe, &encoder, init_from, classes, &layers);
            let task = Task::from(config.expect("valid"));
            assert_eq!(Task::parse(&task.to_toml()).expect("its own TOML"), task);
        }
    }
}

#[test]
fn the_common_keys_are_those_of_the_struct() {
    let common = Table::try_from(tiny(&[]).common).expect("plain data becomes TOML");
    let mut keys: Vec<&str> = common.keys().map(String::as_str).collect();
    let mut named = CommonConfig::KEYS;
    keys.sort_unstable();
    named.sort_unstable();
    assert_eq!(keys, named);
}

#[test]
fn the_papers_presets_have_the_papers_sizes() {
    // Table of the ViT paper and section 4 of Feichtenhofer et al. 2022.
    for (preset, size) in [
        (Preset::Base, (768, 12, 12)),
        (Preset::Large, (1024, 24, 16)),
        (Preset::Huge, (1280, 32, 16)),
    ] {
        let config = PretrainConfig::resolve(preset, &[]).expect("a valid preset");
        let sizes = |part: crate::model::TransformerConfig| (part.width, part.depth, part.heads);
        let masking = config.objective.masking;
        assert_eq!(sizes(config.common.encoder), size);
        assert_eq!(sizes(config.objective.decoder), (512, 4, 16));
        assert_eq!(masking.visible(config.common.clip), Some(156));
        assert_eq!(config.model().target_values(), 768);
        assert_eq!(config.common.schedule.length, Length::Epochs(800.0));
        let schedule = config.common.schedule(240_000);
        assert_eq!(
            (schedule.steps, schedule.warmup_steps),
            (24_000_000, 3_600_000)
        );
        assert!((schedule.peak - 1.6e-3 * 8.0 / 256.0).abs() < 1e-12);
    }
}

#[test]
fn a_file_is_laid_over_the_preset() {
    let text = "[encoder]\ndepth = 7\n[schedule]\nlength = { epochs = 2.5 }\n";
    let config = with_file(text).expect("valid");
    assert_eq!(
        (config.common.encoder.depth, config.common.encoder.width),
        (7, 192)
    );
    assert_eq!(
        config.common.schedule(1000).steps,
        313,
        "2.5 * 1000 / 8, rounded up"
    );
    let thrice = config
        .with(&[set("data.grad_accum=3")])
        .expect("valid")
        .common;
    assert_eq!(
        thrice.schedule(1000).steps,
        105,
        "2.5 * 1000 / 24, rounded up"
    );
    let peaks = [&thrice, &config.common].map(|common| common.schedule(1000).peak);
    assert!((peaks[0] - 3.0 * peaks[1]).abs() < 1e-12);
    let steps = tiny(&[set("schedule.length.steps=5")]);
    assert_eq!(steps.common.schedule.length, Length::Steps(5));
    assert_eq!(
        config.differences(&steps),
        [
            "encoder.depth: 7, not 4",
            "schedule.length: epochs = 2.5, not steps = 5"
        ]
    );
}

#[test]
fn later_layers_win() {
    let layers = [
        set("masking.ratio=0.5"),
        set("seed=1"),
        set("masking.ratio=0.75"),
    ];
    let config = tiny(&layers);
    assert_eq!(
        (config.objective.masking.ratio, config.common.seed),
        (0.75, 1)
    );
}

#[test]
fn settings_that_do_not_decide_what_is_computed_may_differ() {
    let saved = tiny(&[]);
    let same = tiny(&[
        set("checkpoints.every=7"),
        set("safety.on_nonfinite=skip"),
        set("compute.gradient_checkpointing=true"),
    ]);
    assert_eq!(saved.differences_that_matter(&same), [""; 0]);
    let other = tiny(&[set("compute.dtype=bf16")]);
    assert_eq!(
        other.differences_that_matter(&saved),
        ["compute.dtype: \"bf16\", not \"f32\""]
    );
}

#[test]
fn variants_of_other_papers_fit_every_preset() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("presets/variants");
    let files: Vec<PathBuf> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    assert_eq!(files.len(), 4);
    for file in &files {
        let variant = [Layer::file(file).expect("TOML")];
        for preset in Preset::ALL {
            let config = PretrainConfig::resolve(preset, &variant).expect("valid");
            let plain = PretrainConfig::resolve(preset, &[]).expect("valid");
            assert!(!config.differences(&plain).is_empty());
        }
        if file.ends_with("videomae-v2.toml") {
            let config = PretrainConfig::resolve(Preset::Base, &variant).expect("valid");
            let (masking, grid) = (config.objective.masking, config.common.clip);
            // 160 of 1568 visible, half of the others predicted, 2 frames of 16 x 16 pixels each.
            assert_eq!(
                (masking.visible(grid), masking.predicted(grid)),
                (Some(160), Some(704))
            );
            assert_eq!(config.model().target_values(), 1536);
        }
    }
}

#[test]
fn every_key_can_be_set_and_survives_the_file() {
    let config = tiny(&[
        set("schedule.length.epochs=3"),
        set("masking.kind=block"),
        set("target={ kind = \"hog\", normalise = false, pred_frames = 2 }"),
        set("model.positions=joint"),
        set("data.area=[0.2, 0.8]"),
    ]);
    assert_eq!(
        config.differences(&tiny(&[])),
        [
            "model.positions: \"joint\", not \"separable\"",
            "data.area: [0.2, 0.8], not [0.5, 1.0]",
            "schedule.length: epochs = 3.0, not steps = 600",
            "masking.kind: \"block\", not \"random\"",
            "target.kind: \"hog\", not \"pixels\"",
            "target.pred_frames: 2, not 1",
            "target.normalise: false, not true",
        ]
    );
    assert_eq!(config.objective.masking.kind, MaskKind::Block);
    assert_eq!(config.objective.target.kind, TargetKind::Hog);
    assert_eq!(config.common.model.positions, PositionKind::Joint);
    let task = Task::from(config);
    assert_eq!(Task::parse(&task.to_toml()).expect("its own TOML"), task);
}

#[test]
fn invalid_values_are_named() {
    let fails = |text: &str| with_file(text).expect_err("it does not fit");
    assert_eq!(
        fails("[clip]\nsize = 100"),
        "size = 100 is not a multiple of patch = 16; choose size = 96, or another patch"
    );
    assert_eq!(
        fails("[encoder]\nheads = 5"),
        "encoder.width is 192; it must be a multiple of heads = 5"
    );
    assert_eq!(
        fails("[masking]\nratio = 0.9999"),
        "masking.ratio is 0.9999; it must be such that of 392 tokens some are visible and some are \
         masked"
    );
    assert_eq!(
        fails("[masking]\ndecoder_keep = 0.001"),
        "masking.decoder_keep is 0.001; it must be above 0 and at most 1, and such that of 392 \
         tokens some are predicted"
    );
    assert!(
        fails("[target]\nkind = \"hog\"")
            .starts_with("target.normalise is true; it must be false with target.kind = \"hog\"")
    );
    assert_eq!(
        fails("[target]\nkind = \"hog\"\nnormalise = false\n[data]\nvalues = \"u8\""),
        "data.values is \"u8\"; it must be \"f32\" or \"bf16\" with target.kind = \"hog\": shares \
         of votes are no bytes"
    );
    assert_eq!(
        fails("[target]\npred_frames = 3"),
        "target.pred_frames is 3; it must be from 1 to clip.tubelet = 2"
    );
    assert_eq!(
        fails("[schedule]\nlength = { steps = 0 }"),
        "schedule.length is steps = 0; it must be at least one step"
    );
}

#[test]
fn unknown_keys_and_wrong_types_are_named_with_their_layer() {
    let fails = |text: &str| with_file(text).expect_err("it does not fit");
    assert!(
        fails("[masking]\nkind = \"tubes\"\nratio = 0.9").starts_with(
            "FILE: unknown variant `tubes`, expected one of `random`, `tube`, `frame`, `block`"
        )
    );
    assert!(fails("[model]\npositions = \"fixed\"").starts_with(
        "FILE: unknown variant `fixed`, expected one of `separable`, `joint`, `sinusoid`"
    ));
    assert!(fails("[encoder]\nwidht = 5").starts_with("FILE: unknown field `widht`"));
    assert!(fails("[encodr]\nwidth = 5").starts_with("FILE: unknown field `encodr`"));
    assert!(fails("[encoder\n").starts_with("FILE: TOML parse error at line 1"));
    assert!(fails("[schedule]\nlength = { hours = 5 }").contains("unknown variant `hours`"));
    assert_eq!(
        fails("task = \"finetune\""),
        "FILE: not a configuration of `trainer run`"
    );
    let layers = [set("seed=1"), set("masking.ratio=abc")];
    let error = PretrainConfig::resolve(Preset::Tiny, &layers).expect_err("a word");
    assert_eq!(
        error.to_string(),
        "--set masking.ratio=abc: invalid type: string \"abc\", expected f64\nin `masking.ratio`"
    );
}

#[test]
fn invalid_values_of_a_fine_tuning_are_named() {
    let encoder = EncoderPart::from(&tiny(&[]));
    let fails = |classes: &[&str], layers: &[Layer]| {
        let classes = classes.iter().map(|&class| class.to_owned()).collect();
        let config = FinetuneConfig::resolve(Recipe::Light, &encoder, None, classes, layers);
        config.expect_err("invalid").to_string()
    };
    assert_eq!(
        fails(&["a"], &[]),
        "classes is 1; it must be two or more: one class needs no classifier"
    );
    let holdout = [set("split.holdout=1.0")];
    assert_eq!(
        fails(&["a", "b"], &holdout),
        "split.holdout is 1; it must be a share below 1"
    );
    let videos = [set("split.videos_per_class=0")];
    assert_eq!(
        fails(&["a", "b"], &videos),
        "split.videos_per_class is 0; it must be at least 1"
    );
}

#[test]
fn a_single_key_of_a_table_that_recipes_do_not_have_can_be_set() {
    let encoder = EncoderPart::from(&tiny(&[]));
    let classes = vec!["a".to_owned(), "b".to_owned()];
    let layers = [set("safety.on_nonfinite=skip")];
    let config = FinetuneConfig::resolve(Recipe::Paper, &encoder, None, classes, &layers);
    let safety = config.expect("valid").common.safety;
    assert_eq!(
        safety,
        SafetyConfig {
            on_nonfinite: OnNonfinite::Skip,
            ..SafetyConfig::default()
        }
    );
}
