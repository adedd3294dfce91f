//! An arm of a study: what an encoder is pre-trained on, and how it is evaluated; and the names of
//! its runs.

use crate::config::PretrainConfig;
use pipeline::sampling::frame_order::FrameOrder;

/// Clips of a pre-training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Footage {
    /// Unlabelled clips of the task.
    OfTheTask,
    /// As many clips of the task as there are other clips.
    AsFew,
    /// Other clips.
    Other,
    /// Clips of the task and other clips.
    Both,
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
    /// Whether all seeds share one run: where neither folds nor labels are in it.
    pub is_shared: bool,
}

impl Pretraining {
    /// Name of the run with a seed: its folder in that of the study.
    pub fn run(&self, seed: u64) -> String {
        format!("pretrain-{}-{}", self.key, self.seed(seed))
    }

    /// The seed of the run for seed `seed` of the study.
    pub const fn seed(&self, seed: u64) -> u64 {
        if self.is_shared { 0 } else { seed }
    }
}

/// One evaluation of an arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// The seed of the pre-training, and the fold.
    pub seed: u64,
    /// Which evaluation of this pre-training it is, from 0.
    pub repeat: u64,
}

impl Draw {
    /// The seed of the evaluation.
    pub const fn evaluation_seed(self) -> u64 {
        self.seed + (self.repeat << 32)
    }
}

/// How an encoder is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Fine-tuned for a number of steps.
    FineTuned {
        /// The steps.
        steps: u64,
    },
    /// By a linear probe.
    Linear,
    /// By an attentive probe.
    Attentive,
}

impl Measure {
    /// Name of its scores among those of a run.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FineTuned { .. } => "fine-tuned",
            Self::Linear => "linear probe",
            Self::Attentive => "attentive probe",
        }
    }

    /// Steps of the training of the encoder, if there is one.
    pub const fn steps(self) -> u64 {
        match self {
            Self::FineTuned { steps } => steps,
            Self::Linear | Self::Attentive => 0,
        }
    }
}

/// One point of a study: an optional pre-training, and an evaluation.
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
    /// How it is evaluated.
    pub measure: Measure,
    /// The order of the frames in the evaluation.
    pub frame_order: FrameOrder,
}

impl Arm {
    /// Name of one of its evaluations: its folder in that of the study. Arms with the same name
    /// share the run, in all studies; both probes are of one run.
    pub fn run(&self, Draw { seed, repeat }: Draw) -> String {
        let init_from = self
            .pretraining
            .as_ref()
            .map_or("scratch", |pretraining| &pretraining.key);
        let videos = self
            .videos_per_class
            .map_or("all".to_owned(), |videos| videos.to_string());
        let order = match self.frame_order {
            FrameOrder::Time => "",
            FrameOrder::Shuffled => "-shuffled",
            FrameOrder::Single => "-single",
        };
        let repeat = match repeat {
            0 => String::new(),
            repeat => format!("-{repeat}"),
        };
        match self.measure {
            Measure::FineTuned { steps } => {
                format!("finetune-{init_from}-{videos}-{steps}{order}-{seed}{repeat}")
            }
            Measure::Linear | Measure::Attentive => {
                format!("probe-{init_from}-{videos}{order}-{seed}{repeat}")
            }
        }
    }
}
