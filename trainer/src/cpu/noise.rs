//! Batches of random numbers.

use super::{Patches, Values};
use crate::model::MaeConfig;
use pipeline::sampling::mask::{MaskRule, MaskScratch, Masks};
use pipeline::sampling::order::{Purpose, stream};
use rand::RngExt;

/// A batch of random numbers, as the loader would hand it out: to measure and to test with.
#[derive(Debug)]
pub struct Noise {
    tokens: usize,
    visible: usize,
    predicted: usize,
    rows: Vec<u32>,
    pixels: Vec<f32>,
    target: Vec<f32>,
}

impl Noise {
    /// For a model, masked by `rule`; without one, with every token visible and compared.
    ///
    /// # Panics
    /// When the rule leaves nothing visible or predicted.
    pub fn new(model: &MaeConfig, rule: Option<MaskRule>, clips: usize, seed: u64) -> Self {
        let (grid, mut rng) = (model.grid, stream(Purpose::Synth, seed, 0, 0));
        let tokens = grid.tokens();
        let mut rows: Vec<u32> = (0..clips).flat_map(|_| 0..tokens as u32).collect();
        let (mut visible, mut predicted) = (tokens, 0);
        if let Some(rule) = rule {
            visible = rule.visible(grid).expect("a rule that fits");
            predicted = rule.predicted(grid).expect("a rule that fits");
            rows.chunks_exact_mut(tokens).for_each(|row| rule.draw(&mut rng, grid, &mut MaskScratch::default(), row));
        }
        let compared = if predicted == 0 { visible } else { predicted };
        let mut noise = |count: usize| (0..count).map(|_| rng.random::<f32>() * 2.0 - 1.0).collect();
        let pixels = noise(clips * visible * grid.tubelet_values());
        Self { tokens, visible, predicted, rows, pixels, target: noise(clips * compared * model.target_values()) }
    }

    /// As a step takes it.
    pub fn patches(&self) -> Patches<'_> {
        let masks = Masks::new(&self.rows, self.tokens, self.visible).predicting(self.predicted);
        Patches { masks, visible: Values::F32(&self.pixels), target: Values::F32(&self.target) }
    }
}
