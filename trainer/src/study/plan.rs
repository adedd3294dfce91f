//! The runs of each study, sized so that a study takes less than an hour on two cores.

use crate::config::{
    CheckpointsConfig, EncoderPart, FinetuneConfig, Length, Preset, PretrainConfig, Recipe,
};
use crate::model::TransformerConfig;
use pipeline::sampling::mask::MaskKind;
use schemas::geometry::PatchGrid;

/// A finding of the paper, at small scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Study {
    /// Pre-trained vs from scratch, by the number of labelled videos (the paper's Table 2).
    Labels,
    /// Mask ratios from 50 to 98 % (Figure 6).
    Ratio,
    /// Random, tube, frame and block masks (Table 4a).
    Kind,
    /// One or two predicted frames per tubelet.
    Slices,
    /// Depth of the decoder (Table 4d).
    Depth,
    /// Width of the decoder (Table 4c).
    Width,
    /// 1, 2 and 4 samples per read of a clip, in the same number of steps (Table 4b).
    Repeat,
    /// Pre-trained on other footage, on as few clips of the task's, or on all of the task's (Table
    /// 5).
    Footage,
}

/// The footage that the runs of a study are sized for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setup {
    /// Synthetic shapes of 64 x 64 pixels: 64 tokens a clip.
    Shapes,
    /// Real footage of 112 x 112 pixels: 392 tokens a clip.
    Real,
}

/// Clips of a pre-training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Footage {
    /// Unlabelled clips of the task.
    OfTheTask,
    /// As many clips of the task as there are other clips.
    AsFew,
    /// Other clips.
    Other,
}

/// A pre-training of a study, shared by arms with the same key.
#[derive(Debug, Clone, PartialEq)]
pub struct Pretraining {
    /// Its name.
    pub key: String,
    /// Its configuration, apart from the seed.
    pub config: PretrainConfig,
    /// Its clips.
    pub footage: Footage,
}

impl Pretraining {
    /// Name of the run with a seed: its folder in that of the study.
    pub fn run(&self, seed: u64) -> String {
        format!("pretrain-{}-{seed}", self.key)
    }
}

/// One point of a study: an optional pre-training, and a fine-tuning.
#[derive(Debug, Clone, PartialEq)]
pub struct Arm {
    /// Its curve in the plot.
    pub series: &'static str,
    /// The value that is varied.
    pub name: String,
    /// `None` if the classifier has a random initialisation.
    pub pretraining: Option<Pretraining>,
    /// Labelled videos per class; `None` for all of them.
    pub videos_per_class: Option<usize>,
    /// Steps of the fine-tuning.
    pub steps: u64,
}

impl Arm {
    /// Name of its fine-tuning, shared by arms with the same key in all studies.
    pub fn key(&self) -> String {
        let init_from = self
            .pretraining
            .as_ref()
            .map_or("scratch", |pretraining| &pretraining.key);
        let videos = self
            .videos_per_class
            .map_or("all".to_owned(), |videos| videos.to_string());
        format!("{init_from}-{videos}-{}", self.steps)
    }

    /// Name of its fine-tuning with a seed: its folder in that of the study.
    pub fn run(&self, seed: u64) -> String {
        format!("finetune-{}-{seed}", self.key())
    }
}

/// Steps of the runs of a study.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Steps of a pre-training.
    pub pretrain_steps: u64,
    /// Steps of a fine-tuning.
    pub finetune_steps: u64,
}

const PRETRAINED: &str = "pre-trained";
const SCRATCH: &str = "from scratch";
const SCRATCH_LONGER: &str = "from scratch, 6 times as long";

impl Setup {
    /// Labelled videos per class, unless this is varied.
    const fn videos_per_class(self) -> Option<usize> {
        match self {
            Self::Shapes => Some(256),
            Self::Real => None,
        }
    }

    /// The mask ratio, unless this is varied.
    const fn ratio(self) -> f64 {
        match self {
            // Of 64 tokens the paper's 90 % would leave six.
            Self::Shapes => 0.75,
            Self::Real => 0.9,
        }
    }

    /// The common configuration of pre-trainings.
    ///
    /// # Panics
    /// Never: a test checks it.
    fn base(self, budget: Budget) -> PretrainConfig {
        let mut config = PretrainConfig::resolve(Preset::Tiny, &[]).expect("a valid preset");
        config.objective.masking.ratio = self.ratio();
        config.common.schedule.length = Length::Steps(budget.pretrain_steps);
        config.common.checkpoints = CheckpointsConfig {
            every: 1000,
            keep: 1,
        };
        match self {
            Self::Shapes => {
                // Four frames per token show motion, and 64 tokens per clip are fast.
                config.common.clip = PatchGrid {
                    frames: 16,
                    size: 64,
                    tubelet: 4,
                    patch: 16,
                };
                config.common.encoder = TransformerConfig {
                    width: 128,
                    depth: 4,
                    heads: 4,
                };
                config.objective.decoder = TransformerConfig {
                    width: 96,
                    depth: 2,
                    heads: 3,
                };
                config.common.data.batch_size = 64;
                // Left and right are different classes.
                config.common.data.flip = 0.0;
                config.common.optimizer.base_lr = 0.006;
            }
            Self::Real => {
                config.common.data.batch_size = 32;
                config.common.optimizer.base_lr = 0.012;
            }
        }
        config
    }

    /// The fine-tuning of an arm, with `classes` classes; the seed is that of the run.
    ///
    /// # Panics
    /// Never: a test checks it.
    pub fn finetuning(self, arm: &Arm, classes: &[String], seed: u64) -> FinetuneConfig {
        let encoder = EncoderPart::from(&self.base(Budget {
            pretrain_steps: 1,
            finetune_steps: 1,
        }));
        let init_from = arm
            .pretraining
            .as_ref()
            .map(|pretraining| pretraining.key.clone());
        let resolved =
            FinetuneConfig::resolve(Recipe::Light, &encoder, init_from, classes.to_vec(), &[]);
        let mut config = resolved.expect("a valid recipe");
        config.common.seed = seed;
        config.common.schedule.length = Length::Steps(arm.steps);
        config.objective.split.videos_per_class = arm.videos_per_class;
        config.common.checkpoints = CheckpointsConfig {
            every: 100_000,
            keep: 1,
        };
        config.objective.validation.every = 100_000;
        // The same for both initialisations.
        let recipe = &mut config.objective.recipe;
        match self {
            Self::Shapes => {
                config.common.data.batch_size = 32;
                config.common.optimizer.base_lr = 0.008;
                config.common.data.flip = 0.0;
                // Early layers detect motion; low rates or dropped branches would keep them from
                // learning it.
                recipe.layer_decay = 1.0;
                recipe.drop_path = 0.0;
                recipe.smoothing = 0.0;
                // Small crops would cut off moving shapes.
                config.common.data.area = [0.8, 1.0];
            }
            Self::Real => {
                config.common.data.batch_size = 16;
                recipe.drop_path = 0.1;
                config.common.data.area = [0.4, 1.0];
            }
        }
        config
    }
}

impl Study {
    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Labels => "labels",
            Self::Ratio => "ratio",
            Self::Kind => "kind",
            Self::Slices => "slices",
            Self::Depth => "depth",
            Self::Width => "width",
            Self::Repeat => "repeat",
            Self::Footage => "footage",
        }
    }

    /// Name of the value that is varied.
    pub const fn axis(self) -> &'static str {
        match self {
            Self::Labels => "labelled videos per class",
            Self::Ratio => "mask ratio",
            Self::Kind => "masks",
            Self::Slices => "predicted frames per tubelet",
            Self::Depth => "decoder blocks",
            Self::Width => "decoder width",
            Self::Repeat => "samples per read",
            Self::Footage => "pre-trained on",
        }
    }

    /// Its arms, in the order in which they are drawn.
    pub fn arms(self, setup: Setup, budget: Budget) -> Vec<Arm> {
        let steps = budget.finetune_steps;
        let pretrained =
            |name: String, key: String, footage: Footage, change: &dyn Fn(&mut PretrainConfig)| {
                let mut config = setup.base(budget);
                change(&mut config);
                let pretraining = Some(Pretraining {
                    key,
                    config,
                    footage,
                });
                Arm {
                    series: PRETRAINED,
                    name,
                    pretraining,
                    videos_per_class: setup.videos_per_class(),
                    steps,
                }
            };
        let base_key = "base".to_owned();
        // The base value has the same key in all studies.
        let varied = |name: String, is_base: bool, change: &dyn Fn(&mut PretrainConfig)| {
            let key = if is_base {
                base_key.clone()
            } else {
                format!("{}-{}", self.name(), name.replace([' ', '%'], ""))
            };
            pretrained(name, key, Footage::OfTheTask, change)
        };
        match self {
            Self::Labels => {
                let budgets = match setup {
                    Setup::Shapes => [Some(16), Some(64), Some(256)],
                    Setup::Real => [Some(4), Some(8), None],
                };
                // Six times as long is about as long as pre-training and fine-tuning together.
                let arms = [
                    (PRETRAINED, true, 1),
                    (SCRATCH, false, 1),
                    (SCRATCH_LONGER, false, 6),
                ];
                let arm = |series, is_pretrained: bool, times, videos_per_class: Option<usize>| {
                    let arm = pretrained(
                        videos_per_class.map_or("all".to_owned(), |videos| videos.to_string()),
                        base_key.clone(),
                        Footage::OfTheTask,
                        &|_| (),
                    );
                    Arm {
                        series,
                        videos_per_class,
                        steps: steps * times,
                        pretraining: arm.pretraining.filter(|_| is_pretrained),
                        ..arm
                    }
                };
                arms.into_iter()
                    .flat_map(|(series, is, times)| {
                        budgets.map(|videos| arm(series, is, times, videos))
                    })
                    .collect()
            }
            Self::Ratio => [0.5, 0.75, 0.9, 0.95, 0.98]
                .map(|ratio: f64| {
                    varied(
                        format!("{:.0} %", 100.0 * ratio),
                        ratio == setup.ratio(),
                        &|config| config.objective.masking.ratio = ratio,
                    )
                })
                .into(),
            Self::Kind => [
                ("random", MaskKind::Random),
                ("tube", MaskKind::Tube),
                ("frame", MaskKind::Frame),
                ("block", MaskKind::Block),
            ]
            .map(|(name, kind)| {
                varied(name.to_owned(), kind == MaskKind::Random, &|config| {
                    config.objective.masking.kind = kind
                })
            })
            .into(),
            Self::Slices => [1, 2]
                .map(|slices| {
                    varied(slices.to_string(), slices == 1, &|config| {
                        config.objective.target.pred_frames = slices
                    })
                })
                .into(),
            Self::Depth => [1, 2, 4]
                .map(|depth| {
                    varied(depth.to_string(), depth == 2, &|config| {
                        config.objective.decoder.depth = depth
                    })
                })
                .into(),
            Self::Width => [48, 96, 192]
                .map(|width| {
                    varied(width.to_string(), width == 96, &|config| {
                        config.objective.decoder.width = width
                    })
                })
                .into(),
            Self::Repeat => [1, 2, 4]
                .map(|repeat| {
                    varied(repeat.to_string(), repeat == 1, &|config| {
                        config.common.data.repeat_aug = repeat
                    })
                })
                .into(),
            Self::Footage => {
                let scratch = pretrained(
                    "nothing".to_owned(),
                    String::new(),
                    Footage::OfTheTask,
                    &|_| (),
                );
                let scratch = Arm {
                    pretraining: None,
                    ..scratch
                };
                let other = pretrained(
                    "any".to_owned(),
                    "other".to_owned(),
                    Footage::Other,
                    &|_| (),
                );
                let few = pretrained(
                    "the task's, as few".to_owned(),
                    "few".to_owned(),
                    Footage::AsFew,
                    &|_| (),
                );
                let of_task = pretrained(
                    "the task's, all".to_owned(),
                    base_key.clone(),
                    Footage::OfTheTask,
                    &|_| (),
                );
                vec![scratch, other, few, of_task]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;
    use std::collections::HashMap;

    #[test]
    fn every_arm_is_valid_and_equal_keys_are_equal_runs() {
        [Setup::Shapes, Setup::Real].into_iter().for_each(check);
    }

    fn check(setup: Setup) {
        let budget = Budget {
            pretrain_steps: 7,
            finetune_steps: 5,
        };
        let mut known: HashMap<String, Pretraining> = HashMap::new();
        let mut finetunings: HashMap<String, FinetuneConfig> = HashMap::new();
        for study in Study::value_variants() {
            let arms = study.arms(setup, budget);
            assert!(arms.len() > 1, "{study:?}");
            for arm in arms {
                let finetuning = setup.finetuning(&arm, &["a".to_owned(), "b".to_owned()], 3);
                assert_eq!(
                    finetuning.objective.init_from.is_some(),
                    arm.pretraining.is_some()
                );
                let first = finetunings
                    .entry(arm.key())
                    .or_insert_with(|| finetuning.clone());
                assert_eq!(*first, finetuning, "{}", arm.key());
                let Some(pretraining) = arm.pretraining else {
                    continue;
                };
                pretraining
                    .config
                    .check()
                    .unwrap_or_else(|error| panic!("{study:?}, {}: {error}", arm.name));
                let first = known
                    .entry(pretraining.key.clone())
                    .or_insert_with(|| pretraining.clone());
                assert_eq!(*first, pretraining);
            }
        }
    }
}
