//! The arms of each study.

use super::arm::{Arm, Footage, Measure, Pretraining};
use super::setup::{Budget, Setup};
use crate::config::{Length, PretrainConfig, ScheduleConfig};
use pipeline::sampling::frame_order::FrameOrder;
use pipeline::sampling::mask::MaskKind;
use schemas::report::StudyArm;

/// A finding of the paper, at small scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Study {
    /// Pre-trained vs from scratch, by the number of labelled videos (the paper's Table 2).
    Labels,
    /// Linear and attentive probes: pre-trained vs random encoder.
    Probes,
    /// Frames in time, shuffled, and a single one: how much of the task is motion.
    Order,
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
    /// Pre-trained on other footage, or on the task's (Table 5).
    Footage,
}

const PRETRAINED: &str = "pre-trained";
const SCRATCH: &str = "from scratch";
const SCRATCH_LONGER: &str = "from scratch, same total time";

/// Name of the values of the base, which others are compared with.
const IN_TIME: &str = "in time";
const NOTHING: &str = "nothing";
const RANDOM: &str = "random";

impl Study {
    /// The questions about real footage, in the order of their answers.
    pub const REAL: [Self; 6] = [
        Self::Probes,
        Self::Labels,
        Self::Order,
        Self::Footage,
        Self::Ratio,
        Self::Kind,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Labels => "labels",
            Self::Probes => "probes",
            Self::Order => "order",
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
            Self::Probes => "encoder",
            Self::Order => "frames",
            Self::Ratio => "mask ratio",
            Self::Kind => "masks",
            Self::Slices => "predicted frames per tubelet",
            Self::Depth => "decoder blocks",
            Self::Width => "decoder width",
            Self::Repeat => "samples per read",
            Self::Footage => "pre-trained on",
        }
    }

    /// Whether `arm` is to be compared with `other`: each arm with one, and one with none.
    pub fn compares(self, setup: Setup, arm: &StudyArm, other: &StudyArm) -> bool {
        let base = match self {
            Self::Labels => {
                return arm.series != SCRATCH && other.series == SCRATCH && arm.name == other.name;
            }
            Self::Probes | Self::Kind => RANDOM.to_owned(),
            Self::Order => IN_TIME.to_owned(),
            Self::Ratio => percent(setup.ratio()),
            Self::Slices | Self::Repeat => "1".to_owned(),
            Self::Depth => "2".to_owned(),
            Self::Width => "96".to_owned(),
            Self::Footage => NOTHING.to_owned(),
        };
        arm.name != base && other.name == base && arm.series == other.series
    }

    /// Its arms, in the order in which they are drawn.
    pub fn arms(self, setup: Setup, budget: Budget) -> Vec<Arm> {
        let plan = Plan {
            study: self,
            setup,
            budget,
        };
        match self {
            Self::Labels => plan.labels(),
            Self::Probes => plan.probes(),
            Self::Order => plan.orders(),
            Self::Ratio => plan.vary(setup.ratios(), percent, |ratio, config| {
                config.objective.masking.ratio = ratio;
            }),
            Self::Kind => {
                let kinds = [
                    MaskKind::Random,
                    MaskKind::Tube,
                    MaskKind::Frame,
                    MaskKind::Block,
                ];
                let name = |kind| match kind {
                    MaskKind::Random => RANDOM.to_owned(),
                    MaskKind::Tube => "tube".to_owned(),
                    MaskKind::Frame => "frame".to_owned(),
                    MaskKind::Block => "block".to_owned(),
                };
                plan.vary(&kinds, name, |kind, config| {
                    config.objective.masking.kind = kind;
                })
            }
            Self::Slices => plan.vary(
                &[1, 2],
                |slices| slices.to_string(),
                |slices, config| {
                    config.objective.target.pred_frames = slices;
                },
            ),
            Self::Depth => plan.vary(
                &[1, 2, 4],
                |depth| depth.to_string(),
                |depth, config| {
                    config.objective.decoder.depth = depth;
                },
            ),
            Self::Width => plan.vary(
                &[48, 96, 192],
                |width| width.to_string(),
                |width, config| {
                    config.objective.decoder.width = width;
                },
            ),
            Self::Repeat => plan.vary(
                &[1, 2, 4],
                |repeat| repeat.to_string(),
                |repeat, config| {
                    config.common.data.repeat_aug = repeat;
                },
            ),
            Self::Footage => plan.footage(),
        }
    }
}

/// A share as the name of a value.
fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// Makes the arms of a study.
#[derive(Clone, Copy)]
struct Plan {
    study: Study,
    setup: Setup,
    budget: Budget,
}

impl Plan {
    /// The base, evaluated in one way.
    fn base(self, measure: Measure) -> Arm {
        Arm {
            series: measure.name(),
            name: String::new(),
            pretraining: Some(Pretraining {
                key: "base".to_owned(),
                config: self.setup.base(self.budget),
                footage: Footage::OfTheTask,
                is_shared: false,
            }),
            videos_per_class: self.setup.videos_per_class(),
            measure,
            frame_order: FrameOrder::Time,
        }
    }

    const fn fine_tuned(self) -> Measure {
        Measure::FineTuned {
            steps: self.budget.finetune_steps,
        }
    }

    /// The ways to evaluate an encoder.
    fn measures(self) -> Vec<Measure> {
        match self.setup {
            Setup::Shapes => vec![self.fine_tuned()],
            Setup::Real => vec![self.fine_tuned(), Measure::Linear, Measure::Attentive],
        }
    }

    /// Arms whose pre-trainings differ by `change` to each of `values`, in each way of evaluation.
    /// The base's own value has the same pre-training in all studies.
    fn vary<T: Copy>(
        self,
        values: &[T],
        name: impl Fn(T) -> String,
        change: impl Fn(T, &mut PretrainConfig),
    ) -> Vec<Arm> {
        let arm = |measure, &value: &T| {
            let mut arm = self.base(measure);
            arm.name = name(value);
            if let Some(pretraining) = &mut arm.pretraining {
                let base = pretraining.config.clone();
                change(value, &mut pretraining.config);
                if pretraining.config != base {
                    let name = arm.name.replace([' ', '%'], "");
                    pretraining.key = format!("{}-{name}", self.study.name());
                }
            }
            arm
        };
        let measures = self.measures().into_iter();
        measures
            .flat_map(|measure| values.iter().map(move |value| (measure, value)))
            .map(|(measure, value)| arm(measure, value))
            .collect()
    }

    fn labels(self) -> Vec<Arm> {
        let Budget {
            pretrain_steps,
            finetune_steps,
        } = self.budget;
        let longer = finetune_steps + (pretrain_steps as f64 * self.setup.cost()).round() as u64;
        let budgets = self.setup.label_budgets();
        let series = [
            (PRETRAINED, finetune_steps, budgets),
            (SCRATCH, finetune_steps, budgets),
            (SCRATCH_LONGER, longer, self.setup.longer_label_budgets()),
        ];
        let arm = |(series, steps), &videos_per_class: &Option<usize>| {
            let arm = self.base(Measure::FineTuned { steps });
            Arm {
                series,
                name: videos_per_class.map_or("all".to_owned(), |videos| videos.to_string()),
                videos_per_class,
                pretraining: arm.pretraining.filter(|_| series == PRETRAINED),
                ..arm
            }
        };
        let of_series = |(series, steps, budgets): (_, _, &'static [Option<usize>])| {
            budgets
                .iter()
                .map(move |videos| arm((series, steps), videos))
        };
        series.into_iter().flat_map(of_series).collect()
    }

    /// An encoder that is not pre-trained: a classifier with a random initialisation if it is
    /// fine-tuned, and the initial weights of a pre-training if it is probed.
    fn random(self, measure: Measure) -> Arm {
        let mut arm = self.base(measure);
        if let Measure::FineTuned { .. } = measure {
            arm.pretraining = None;
        }
        if let Some(pretraining) = &mut arm.pretraining {
            // The learning rate begins at 0: a step of warm-up leaves the initial weights.
            pretraining.config.common.schedule = ScheduleConfig {
                length: Length::Steps(1),
                warmup: 1.0,
            };
            pretraining.key = RANDOM.to_owned();
        }
        arm
    }

    fn probes(self) -> Vec<Arm> {
        let arms = |measure| {
            let random = Arm {
                name: RANDOM.to_owned(),
                ..self.random(measure)
            };
            let pretrained = Arm {
                name: PRETRAINED.to_owned(),
                ..self.base(measure)
            };
            [random, pretrained]
        };
        [Measure::Linear, Measure::Attentive]
            .into_iter()
            .flat_map(arms)
            .collect()
    }

    fn orders(self) -> Vec<Arm> {
        let orders = [
            (IN_TIME, FrameOrder::Time),
            ("shuffled", FrameOrder::Shuffled),
            ("a single one", FrameOrder::Single),
        ];
        let arm = |(name, frame_order): (&str, FrameOrder)| Arm {
            name: name.to_owned(),
            frame_order,
            ..self.base(self.fine_tuned())
        };
        orders.map(arm).into()
    }

    fn footage(self) -> Vec<Arm> {
        let all: &[(&str, &str, Footage)] = match self.setup {
            Setup::Shapes => &[
                ("any", "other", Footage::Other),
                ("the task's, as few", "few", Footage::AsFew),
                ("the task's, all", "base", Footage::OfTheTask),
            ],
            Setup::Real => &[
                ("other", "other", Footage::Other),
                ("the task's", "base", Footage::OfTheTask),
                ("both", "both", Footage::Both),
            ],
        };
        let mut arms = Vec::new();
        for measure in self.measures() {
            arms.push(Arm {
                name: NOTHING.to_owned(),
                ..self.random(measure)
            });
            arms.extend(all.iter().map(|&(name, key, footage)| {
                let mut arm = self.base(measure);
                arm.name = name.to_owned();
                if let Some(pretraining) = &mut arm.pretraining {
                    pretraining.key = key.to_owned();
                    pretraining.footage = footage;
                    pretraining.is_shared = self.setup == Setup::Real && footage == Footage::Other;
                }
                arm
            }));
        }
        arms
    }
}

#[cfg(test)]
mod tests {
    use super::super::arm::Draw;
    use super::*;
    use crate::config::FinetuneConfig;
    use clap::ValueEnum;
    use std::collections::HashMap;

    #[test]
    fn every_arm_is_valid_and_equal_names_are_equal_runs() {
        [Setup::Shapes, Setup::Real].into_iter().for_each(check);
    }

    fn check(setup: Setup) {
        let budget = Budget {
            pretrain_steps: 7,
            finetune_steps: 5,
        };
        let mut known: HashMap<String, Pretraining> = HashMap::new();
        let mut evaluations: HashMap<String, FinetuneConfig> = HashMap::new();
        for study in Study::value_variants() {
            let arms = study.arms(setup, budget);
            assert!(arms.len() > 1, "{study:?}");
            for arm in arms {
                let config = setup.finetuning(&arm, &["a".to_owned(), "b".to_owned()], 3);
                assert_eq!(
                    config.objective.init_from.is_some(),
                    arm.pretraining.is_some()
                );
                let name = arm.run(Draw { seed: 3, repeat: 0 });
                let same = evaluations.entry(name.clone()).or_insert(config.clone());
                assert_eq!(*same, config, "{name}");
                if let Some(pretraining) = arm.pretraining {
                    let checked = pretraining.config.check();
                    checked.unwrap_or_else(|error| panic!("{study:?}, {}: {error}", arm.name));
                    let of_key = known
                        .entry(pretraining.key.clone())
                        .or_insert(pretraining.clone());
                    assert_eq!(*of_key, pretraining, "{}", pretraining.key);
                }
            }
        }
        assert!(known.contains_key("base") && known.contains_key("kind-tube"));
    }

    /// An arm of a report.
    fn reported(arm: Arm) -> StudyArm {
        StudyArm {
            series: arm.series.to_owned(),
            name: arm.name,
            runs: Vec::new(),
            difference: None,
        }
    }

    #[test]
    fn each_arm_is_compared_with_one_other_at_most() {
        let budget = Budget {
            pretrain_steps: 7,
            finetune_steps: 5,
        };
        for setup in [Setup::Shapes, Setup::Real] {
            for study in Study::value_variants() {
                let arms: Vec<StudyArm> = study
                    .arms(setup, budget)
                    .into_iter()
                    .map(reported)
                    .collect();
                let mut compared = 0;
                for arm in &arms {
                    let others = arms
                        .iter()
                        .filter(|other| study.compares(setup, arm, other));
                    let count = others.count();
                    assert!(count <= 1, "{study:?} {arm:?}");
                    compared += count;
                }
                assert!(compared > 0, "{study:?}");
            }
        }
    }
}
