//! How a run loads its clips.

use crate::config::{FinetuneConfig, PretrainConfig, Task};
use pipeline::loader::LoaderOptions;
use pipeline::loader::batch::{BatchFormat, Form};
use pipeline::sampling::order::Cursor;
use schemas::geometry::PatchGrid;

/// How clips are loaded, as far as the results do not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loading {
    /// Number of threads.
    pub threads: usize,
    /// Memory for the batches that are made ahead, in bytes.
    pub memory_bytes: usize,
    /// Bad clips that are skipped before the run stops.
    pub max_bad: usize,
}

impl Loading {
    /// Options for batches of `batch_size` clips of `grid`, all tokens of each as f32.
    pub fn options(self, batch_size: usize, grid: PatchGrid) -> LoaderOptions {
        let Self {
            threads,
            memory_bytes,
            max_bad,
        } = self;
        let tokens = LoaderOptions::tokens(batch_size, grid);
        LoaderOptions {
            threads,
            prefetch: 2 * threads,
            memory_bytes,
            max_bad,
            ..tokens
        }
    }
}

/// Options for the training batches of a run, from `start` in the data.
pub fn task_options(task: &Task, loading: Loading, start: Cursor) -> LoaderOptions {
    match task {
        Task::Pretrain(config) => loader_options(config, loading, start),
        Task::Finetune(config) => classifier_options(config, loading, start),
    }
}

/// [`task_options`] of a pre-training.
pub fn loader_options(config: &PretrainConfig, loading: Loading, start: Cursor) -> LoaderOptions {
    LoaderOptions {
        repeat: config.common.data.repeat_aug,
        format: BatchFormat {
            grid: config.common.clip,
            mask_rule: Some(config.objective.masking),
            form: Form::Patches {
                target: config.model().target_form(),
            },
            values: config.common.data.values,
        },
        augmentation: config.common.augmentation(),
        frame_order: config.common.data.frame_order,
        seed: config.common.seed,
        start,
        ..loading.options(config.common.data.batch_size, config.common.clip)
    }
}

/// [`task_options`] of a fine-tuning.
pub(super) fn classifier_options(
    config: &FinetuneConfig,
    loading: Loading,
    start: Cursor,
) -> LoaderOptions {
    let options = loading.options(config.common.data.batch_size, config.common.clip);
    LoaderOptions {
        repeat: config.common.data.repeat_aug,
        format: BatchFormat {
            values: config.common.data.values,
            ..options.format
        },
        augmentation: config.common.augmentation(),
        frame_order: config.common.data.frame_order,
        policy: config.augment_policy(),
        seed: config.common.seed,
        start,
        ..options
    }
}
