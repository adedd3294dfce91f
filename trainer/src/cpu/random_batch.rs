//! Batches of random numbers.

use super::{Patches, Values};
use crate::model::MaeConfig;
use pipeline::sampling::mask::{MaskRule, MaskScratch, Masks};
use pipeline::sampling::order::{Purpose, stream};
use rand::RngExt;

/// A batch of random numbers in the form of the loader's batches, for benchmarks and tests.
#[derive(Debug)]
pub struct RandomBatch {
    tokens: usize,
    visible: usize,
    predicted: usize,
    rows: Vec<u32>,
    pixels: Vec<f32>,
    target: Vec<f32>,
}

impl RandomBatch {
    /// Creates a batch for a model, masked by `rule`; without a rule, every token is visible and
    /// has a target.
    ///
    /// # Panics
    /// When the rule leaves nothing visible or predicted.
    pub fn new(model: &MaeConfig, rule: Option<MaskRule>, clips: usize, seed: u64) -> Self {
        let grid = model.grid;
        let mut rng = stream(Purpose::Synth, seed, 0, 0);
        let tokens = grid.tokens();
        let mut rows: Vec<u32> = (0..clips).flat_map(|_| 0..tokens as u32).collect();
        let mut visible = tokens;
        let mut predicted = 0;
        if let Some(rule) = rule {
            visible = rule.visible(grid).expect("a rule that fits");
            predicted = rule.predicted(grid).expect("a rule that fits");
            rows.chunks_exact_mut(tokens)
                .for_each(|row| rule.draw(&mut rng, grid, &mut MaskScratch::default(), row));
        }
        let compared = if predicted == 0 { visible } else { predicted };
        let mut noise = |count: usize| {
            (0..count)
                .map(|_| rng.random::<f32>() * 2.0 - 1.0)
                .collect()
        };
        let pixels = noise(clips * visible * grid.tubelet_values());
        Self {
            tokens,
            visible,
            predicted,
            rows,
            pixels,
            target: noise(clips * compared * model.target_values()),
        }
    }

    /// The batch as input of a training step.
    pub fn patches(&self) -> Patches<'_> {
        let masks = Masks::new(&self.rows, self.tokens, self.visible).predicting(self.predicted);
        Patches {
            masks,
            visible: Values::F32(&self.pixels),
            target: Values::F32(&self.target),
        }
    }
}
