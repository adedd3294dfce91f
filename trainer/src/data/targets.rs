//! The targets of a classifier's batch: labels, smoothed, and mixed as the clips are; and the
//! random scales by which branches and features are dropped.
//!
//! Every random number is a function of the seed and of a sample: of the batch's first sample for
//! mixing, of each clip's own for dropping.

use crate::config::{FinetuneConfig, RecipeConfig};
use half::bf16;
use pipeline::loader::batch::{Batch, ValueType};
use pipeline::sampling::order::{Purpose, SampleId};
use rand::{Rng, RngExt};
use rand_distr::{Beta, Distribution};
use rayon::prelude::*;
use schemas::geometry::PatchGrid;
use std::ops::Range;

/// The targets of a batch, and the scales of what is dropped for it.
#[derive(Debug, Clone, PartialEq)]
pub struct SoftTargets {
    /// `[clips, classes]`: distributions over the classes.
    pub targets: Vec<f32>,
    /// `[blocks, 2, clips]`: scales of the branches of blocks, attention's and the MLP's
    /// ([`crate::cpu::BranchScales`]); empty without stochastic depth.
    pub branches: Vec<f32>,
    /// `[clips, width]`: scales of the head's input; empty without dropout.
    pub dropout: Vec<f32>,
}

/// A clip to learn from has no label among the classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("clip {} of data set {} has no label among the {classes} classes", sample.clip, sample.set)]
pub struct UnlabelledClip {
    /// Which one.
    pub sample: SampleId,
    /// Number of classes.
    pub classes: usize,
}

/// How the clips of a batch are mixed: the first with the last, the second with the last but one,
/// and so on.
#[derive(Debug, Clone, PartialEq)]
enum Mixing {
    /// Not mixed.
    None,
    /// Pixel by pixel: this share of itself, and the rest of the other (mixup, Zhang et al. 2018).
    Blend(f64),
    /// A box of pixels, the same in all frames, is the other's (CutMix, Yun et al. 2019).
    Box {
        rows: Range<usize>,
        columns: Range<usize>,
    },
}

impl SoftTargets {
    /// The targets of some clips of a batch of [`pipeline::loader::batch::Form::Tokens`], which are
    /// mixed with each other in place.
    ///
    /// # Errors
    /// When a clip has no label among the classes.
    pub fn new(
        config: &FinetuneConfig,
        batch: &mut Batch,
        clips: Range<usize>,
    ) -> Result<Self, UnlabelledClip> {
        let classes = config.objective.classes.len();
        let smoothing = config.objective.recipe.smoothing;
        let mut targets = smoothed(batch, clips.clone(), classes, smoothing)?;
        let mut rng = batch.samples[clips.start].stream(Purpose::Mixing, config.common.seed);
        let mixing = Mixing::draw(&config.objective.recipe, config.common.clip.size, &mut rng);
        if clips.len() > 1 && mixing != Mixing::None {
            mix_pixels(&mixing, config.common.clip, batch, clips.clone());
            let share = mixing.share(config.common.clip.size) as f32;
            pairs(&mut targets, classes, |a, b| {
                blend(a, b, |a, b| share * a + (1.0 - share) * b)
            });
        }
        let (branches, dropout) = drops(config, &batch.samples[clips]);
        Ok(Self {
            targets,
            branches,
            dropout,
        })
    }
}

/// `[clips, classes]`: the label of each clip as a distribution, `smoothing` of which is spread
/// over all classes.
fn smoothed(
    batch: &Batch,
    clips: Range<usize>,
    classes: usize,
    smoothing: f64,
) -> Result<Vec<f32>, UnlabelledClip> {
    let even = (smoothing / classes as f64) as f32;
    let top = (1.0 - smoothing) as f32;
    let mut targets = vec![even; clips.len() * classes];
    for (at, clip) in clips.enumerate() {
        let sample = batch.samples[clip];
        let label = batch.labels[clip]
            .and_then(|label| usize::try_from(label).ok())
            .filter(|&label| label < classes);
        targets[at * classes + label.ok_or(UnlabelledClip { sample, classes })?] += top;
    }
    Ok(targets)
}

/// Mixes some clips of a batch of [`pipeline::loader::batch::Form::Tokens`] in place.
fn mix_pixels(mixing: &Mixing, grid: PatchGrid, batch: &mut Batch, clips: Range<usize>) {
    let values = batch.format.values;
    let of_clip = grid.clip_values() * values.bytes();
    let pixels = &mut batch.pixels_mut()[clips.start * of_clip..clips.end * of_clip];
    match values {
        ValueType::U8 => mix(mixing, grid, pixels, |a, b, share| {
            (a.into_f64() * share + b.into_f64() * (1.0 - share)).round() as u8
        }),
        ValueType::F32 => mix(
            mixing,
            grid,
            bytemuck::cast_slice_mut(pixels),
            |a: f32, b, share| (a.into_f64() * share + b.into_f64() * (1.0 - share)) as f32,
        ),
        ValueType::Bf16 => mix(
            mixing,
            grid,
            bytemuck::cast_slice_mut(pixels),
            |a: bf16, b, share| bf16::from_f64(a.into_f64() * share + b.into_f64() * (1.0 - share)),
        ),
    }
}

impl Mixing {
    fn draw(recipe: &RecipeConfig, size: usize, rng: &mut impl Rng) -> Self {
        let is_box = match (recipe.mixup > 0.0, recipe.cutmix > 0.0) {
            (false, false) => return Self::None,
            (true, true) => rng.random_bool(recipe.switch),
            (_, is_box) => is_box,
        };
        let parameter = if is_box { recipe.cutmix } else { recipe.mixup };
        let share: f64 = Beta::new(parameter, parameter)
            .expect("a parameter above 0")
            .sample(rng);
        if !is_box {
            return Self::Blend(share);
        }
        // A box of `1 - share` of the area around a random centre, cut off at the edges.
        let half = ((1.0 - share).sqrt() * size as f64 / 2.0) as usize;
        let mut side = || {
            let centre = rng.random_range(0..size);
            centre.saturating_sub(half)..(centre + half).min(size)
        };
        Self::Box {
            rows: side(),
            columns: side(),
        }
    }

    /// The share of each clip that stays its own.
    fn share(&self, size: usize) -> f64 {
        match self {
            Self::None => 1.0,
            Self::Blend(share) => *share,
            Self::Box { rows, columns } => {
                1.0 - (rows.len() * columns.len()) as f64 / (size * size) as f64
            }
        }
    }
}

/// Numbers that can be mixed.
trait Mixed: Copy + Send + Sync {
    fn into_f64(self) -> f64;
}

impl Mixed for u8 {
    fn into_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Mixed for f32 {
    fn into_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Mixed for bf16 {
    fn into_f64(self) -> f64 {
        f64::from(self)
    }
}

/// Mixes clips of tubelets, `[clips, tokens, 3, tubelet, patch, patch]`, pair by pair; `blended` is
/// the mean of two values, weighted by the first one's share.
fn mix<T: Mixed>(
    mixing: &Mixing,
    grid: PatchGrid,
    pixels: &mut [T],
    blended: impl Fn(T, T, f64) -> T + Sync,
) {
    match mixing {
        Mixing::None => {}
        Mixing::Blend(share) => pairs(pixels, grid.clip_values(), |a, b| {
            let parts = a
                .par_chunks_mut(grid.tubelet_values())
                .zip(b.par_chunks_mut(grid.tubelet_values()));
            parts.for_each(|(a, b)| blend(a, b, |a, b| blended(a, b, *share)));
        }),
        Mixing::Box { rows, columns } => pairs(pixels, grid.clip_values(), |a, b| {
            for (token, (a, b)) in a
                .chunks_exact_mut(grid.tubelet_values())
                .zip(b.chunks_exact_mut(grid.tubelet_values()))
                .enumerate()
            {
                let place = token % grid.space();
                let within = |range: &Range<usize>, first: usize| {
                    range.start.saturating_sub(first).min(grid.patch)
                        ..range.end.saturating_sub(first).min(grid.patch)
                };
                let rows = within(rows, place / grid.side() * grid.patch);
                let columns = within(columns, place % grid.side() * grid.patch);
                for (a, b) in a
                    .chunks_exact_mut(grid.patch * grid.patch)
                    .zip(b.chunks_exact_mut(grid.patch * grid.patch))
                {
                    for row in rows.clone() {
                        let line = row * grid.patch + columns.start..row * grid.patch + columns.end;
                        a[line.clone()].swap_with_slice(&mut b[line]);
                    }
                }
            }
        }),
    }
}

/// Calls `mix` on each pair of clips of `of_clip` values: the first and the last, the second and
/// the last but one, and so on. A clip in the middle has no partner.
fn pairs<T>(values: &mut [T], of_clip: usize, mut mix: impl FnMut(&mut [T], &mut [T])) {
    let mut clips: Vec<&mut [T]> = values.chunks_exact_mut(of_clip).collect();
    let half = clips.len() / 2;
    let (front, back) = clips.split_at_mut(half);
    front
        .iter_mut()
        .zip(back.iter_mut().rev())
        .for_each(|(a, b)| mix(a, b));
}

/// Replaces each pair of values `a` and `b` by `blended(a, b)` and `blended(b, a)`.
fn blend<T: Copy>(a: &mut [T], b: &mut [T], blended: impl Fn(T, T) -> T) {
    for (a, b) in a.iter_mut().zip(b) {
        (*a, *b) = (blended(*a, *b), blended(*b, *a));
    }
}

/// Scales of branches and of the head's input ([`SoftTargets`]). Those of a clip are drawn one
/// after the other from its own stream.
fn drops(config: &FinetuneConfig, samples: &[SampleId]) -> (Vec<f32>, Vec<f32>) {
    let depth = config.common.encoder.depth;
    let width = config.common.encoder.width;
    let clips = samples.len();
    let RecipeConfig {
        drop_path, dropout, ..
    } = config.objective.recipe;
    let mut branches = vec![
        1.0;
        if drop_path > 0.0 {
            depth * 2 * clips
        } else {
            0
        }
    ];
    let mut scales = vec![1.0; if dropout > 0.0 { clips * width } else { 0 }];
    for (clip, sample) in samples.iter().enumerate() {
        let mut rng = sample.stream(Purpose::Dropout, config.common.seed);
        let mut kept = |probability: f64| {
            if rng.random_bool(probability) {
                0.0
            } else {
                (1.0 / (1.0 - probability)) as f32
            }
        };
        for branch in 0..branches.len() / clips {
            // From 0 for the first block to the full rate for the last.
            let rate = drop_path * (branch / 2) as f64 / (depth - 1).max(1) as f64;
            branches[branch * clips + clip] = kept(rate);
        }
        if dropout > 0.0 {
            scales[clip * width..(clip + 1) * width]
                .iter_mut()
                .for_each(|scale| *scale = kept(dropout));
        }
    }
    (branches, scales)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRID: PatchGrid = PatchGrid {
        frames: 4,
        size: 8,
        tubelet: 2,
        patch: 4,
    };

    /// Place of a pixel of a clip of tubelets.
    fn at(frame: usize, channel: usize, row: usize, column: usize) -> usize {
        let token = frame / GRID.tubelet * GRID.space()
            + row / GRID.patch * GRID.side()
            + column / GRID.patch;
        let line = (channel * GRID.tubelet + frame % GRID.tubelet) * GRID.patch + row % GRID.patch;
        token * GRID.tubelet_values() + line * GRID.patch + column % GRID.patch
    }

    #[test]
    fn a_box_is_the_other_clips_in_all_frames_and_channels() {
        let values = GRID.clip_values();
        let mut clips: Vec<f32> = (0..3 * values).map(|at| at as f32).collect();
        let before = clips.clone();
        let (rows, columns) = (2..7, 3..5);
        mix(
            &Mixing::Box {
                rows: rows.clone(),
                columns: columns.clone(),
            },
            GRID,
            &mut clips,
            |_, _, _| unreachable!("nothing is blended"),
        );
        for (frame, channel) in (0..4).flat_map(|frame| (0..3).map(move |channel| (frame, channel)))
        {
            for (row, column) in (0..8).flat_map(|row| (0..8).map(move |column| (row, column))) {
                let at = at(frame, channel, row, column);
                let other = if rows.contains(&row) && columns.contains(&column) {
                    2
                } else {
                    0
                };
                assert_eq!(
                    clips[at],
                    before[other * values + at],
                    "{frame} {channel} {row} {column}"
                );
                assert_eq!(
                    clips[2 * values + at],
                    before[(2 - other) * values + at],
                    "{frame} {channel} {row} {column}"
                );
            }
        }
        assert_eq!(
            clips[values..2 * values],
            before[values..2 * values],
            "the one in the middle"
        );
    }

    #[test]
    fn a_blend_takes_the_same_shares_of_both() {
        let values = GRID.clip_values();
        let mut clips: Vec<f32> = (0..2 * values)
            .map(|at| if at < values { 1.0 } else { 5.0 })
            .collect();
        mix(&Mixing::Blend(0.75), GRID, &mut clips, |a, b, share| {
            (a.into_f64() * share + b.into_f64() * (1.0 - share)) as f32
        });
        assert!(
            clips[..values].iter().all(|&value| value == 2.0)
                && clips[values..].iter().all(|&value| value == 4.0)
        );
    }

    #[test]
    fn shares_are_those_of_the_area_that_is_left() {
        let recipe = RecipeConfig {
            layer_decay: 1.0,
            drop_path: 0.0,
            dropout: 0.0,
            smoothing: 0.0,
            mixup: 0.8,
            cutmix: 1.0,
            switch: 0.5,
            erasing: 0.0,
            rand_augment: None,
        };
        let (mut boxes, mut sum) = (0, 0.0);
        for index in 0..2000 {
            let mixing = Mixing::draw(
                &recipe,
                32,
                &mut pipeline::sampling::order::stream(Purpose::Mixing, 1, 0, index),
            );
            let share = mixing.share(32);
            assert!((0.0..=1.0).contains(&share));
            sum += share;
            if let Mixing::Box { rows, columns } = mixing {
                boxes += 1;
                assert!(rows.end <= 32 && columns.end <= 32);
            }
        }
        assert!((900..1100).contains(&boxes), "{boxes} boxes of 2000");
        assert!(
            (900.0..1400.0).contains(&sum),
            "{sum}: Beta's mean is a half, and boxes are cut off at the edges"
        );
    }
}
