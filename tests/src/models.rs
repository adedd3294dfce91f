//! Small models: their configurations, and runs that train them.

use candle_core::{Device, Tensor};
use pipeline::loader::DEFAULT_MEMORY_BYTES;
use pipeline::source::WeightedSource;
use schemas::geometry::PatchGrid;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use trainer::config::{Length, Preset, PretrainConfig};
use trainer::model::{
    ClassifierConfig, Conventions, MaeConfig, PositionKind, TargetKind, TransformerConfig,
};
use trainer::train::{Loading, Run};

/// A transformer of `[width, depth, heads]`.
const fn transformer([width, depth, heads]: [usize; 3]) -> TransformerConfig {
    TransformerConfig {
        width,
        depth,
        heads,
    }
}

/// An autoencoder of normalised pixels with separable positions and a class token. `encoder` and
/// `decoder` are `[width, depth, heads]`.
pub fn small_mae(grid: PatchGrid, encoder: [usize; 3], decoder: [usize; 3]) -> MaeConfig {
    MaeConfig {
        grid,
        encoder: transformer(encoder),
        decoder: transformer(decoder),
        positions: PositionKind::Separable,
        class_token: true,
        target: TargetKind::Pixels,
        slices: 1,
        normalise_target: true,
        conventions: Conventions::default(),
    }
}

/// A classifier with separable positions and a class token. `encoder` is `[width, depth, heads]`.
pub fn small_classifier(grid: PatchGrid, encoder: [usize; 3], classes: usize) -> ClassifierConfig {
    ClassifierConfig {
        grid,
        encoder: transformer(encoder),
        positions: PositionKind::Separable,
        class_token: true,
        classes,
        conventions: Conventions::default(),
    }
}

/// A pre-training of `steps` steps of 4 clips, which writes a checkpoint every 3. Neither the grid
/// nor the target is that of the paper.
pub fn small_pretraining(steps: u64) -> PretrainConfig {
    let mut config = PretrainConfig::resolve(Preset::Tiny, &[]).expect("a valid preset");
    config.common.schedule.length = Length::Steps(steps);
    config.common.clip = PatchGrid {
        frames: 8,
        size: 32,
        tubelet: 4,
        patch: 8,
    };
    config.common.encoder = transformer([48, 2, 3]);
    config.objective.decoder = transformer([32, 1, 2]);
    config.objective.masking.ratio = 0.75;
    config.common.data.batch_size = 4;
    config.common.checkpoints.every = 3;
    config
}

/// A run of `config` on `data` in the folder `dir`, which is made. It loads and computes with 2
/// threads.
pub fn small_run(dir: &Path, data: &Arc<[WeightedSource]>, config: PretrainConfig) -> Run {
    fs::create_dir_all(dir).expect("a folder");
    let loading = Loading {
        threads: 2,
        memory_bytes: DEFAULT_MEMORY_BYTES,
        max_bad: 0,
    };
    Run {
        task: config.into(),
        data: Arc::clone(data),
        validation: None,
        init_weights: None,
        dir: dir.to_owned(),
        device: Device::Cpu,
        compute_threads: 2,
        loading,
        stop: Arc::default(),
    }
}

/// The configuration file of a model that takes milliseconds per step, on clips of 8 frames: 4 time
/// steps of 16 tokens, and a checkpoint every `every` steps.
pub fn small_config(encoder_depth: usize, every: u64) -> String {
    format!(
        "\
[clip]
frames = 8
size = 32
patch = 8
[encoder]
width = 24
depth = {encoder_depth}
[decoder]
width = 24
depth = 1
[data]
batch_size = 2
[checkpoints]
every = {every}
"
    )
}

/// All values of an f32 tensor, row by row.
pub fn values(tensor: &Tensor) -> Vec<f32> {
    tensor
        .flatten_all()
        .and_then(|flat| flat.to_vec1())
        .expect("values of f32")
}

/// The norm of the difference over the norm of `expected`.
pub fn relative_error(got: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| {
        values.map(|value| value * value).sum::<f64>().sqrt()
    };
    let difference = norm(
        &mut got
            .iter()
            .zip(expected)
            .map(|(&a, &b)| f64::from(a) - f64::from(b)),
    );
    difference / norm(&mut expected.iter().map(|&value| f64::from(value))).max(1e-30)
}
