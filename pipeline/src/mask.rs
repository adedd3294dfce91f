//! Which tokens stay visible: the only maker of masks.

use rand::{Rng, RngExt};

/// The mask of one clip. Its visible tokens are in ascending order: the encoder's result does not depend on their order, and memory likes
/// this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    /// Visible tokens, ascending.
    pub visible: Vec<u32>,
    /// Masked tokens, ascending.
    pub masked: Vec<u32>,
}

impl Mask {
    /// Random masking: of `tokens` tokens, a uniformly drawn set of `keep` stays visible.
    ///
    /// # Panics
    /// When `keep` is more than `tokens`.
    pub fn random(rng: &mut impl Rng, tokens: usize, keep: usize) -> Self {
        let noise: Vec<f32> = (0..tokens).map(|_| rng.random()).collect();
        Self::from_noise(&noise, keep)
    }

    /// The reference's rule: the `keep` tokens of smallest noise stay visible (`argsort`; equal noise keeps the order of tokens).
    ///
    /// # Panics
    /// When `keep` is more than the number of tokens.
    pub fn from_noise(noise: &[f32], keep: usize) -> Self {
        let mut order: Vec<u32> = (0..noise.len() as u32).collect();
        order.sort_by(|&a, &b| noise[a as usize].total_cmp(&noise[b as usize]));
        let mut masked = order.split_off(keep);
        order.sort_unstable();
        masked.sort_unstable();
        Self { visible: order, masked }
    }

    /// For every token, its row in the list "visible tokens, then masked ones".
    pub fn restore(&self) -> Vec<u32> {
        let mut restore = vec![0; self.visible.len() + self.masked.len()];
        for (row, &token) in self.visible.iter().chain(&self.masked).enumerate() {
            restore[token as usize] = row as u32;
        }
        restore
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::{Purpose, stream};

    #[test]
    fn smallest_noise_stays_visible() {
        let mask = Mask::from_noise(&[0.5, 0.1, 0.9, 0.1, 0.0], 2);
        assert_eq!(mask.visible, [1, 4]);
        assert_eq!(mask.masked, [0, 2, 3]);
        assert_eq!(mask.restore(), [2, 0, 3, 4, 1]);
    }

    #[test]
    fn every_token_is_visible_equally_often() {
        let mut seen = [0; 64];
        let mut rng = stream(Purpose::Mask, 1, 0, 0);
        for _ in 0..4000 {
            let mask = Mask::random(&mut rng, 64, 6);
            assert_eq!(mask.visible.len(), 6);
            mask.visible.iter().for_each(|&token| seen[token as usize] += 1);
        }
        // 4000 * 6 / 64 = 375, give or take five standard deviations.
        assert!(seen.iter().all(|&times| (280..470).contains(&times)), "{seen:?}");
    }
}
