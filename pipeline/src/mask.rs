//! Which tokens stay visible: the only maker of masks.

use rand::{Rng, RngExt};
use schemas::geometry::PatchGrid;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// How masks are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskRule {
    /// Which tokens are masked together.
    #[serde(default)]
    pub kind: MaskKind,
    /// Share of the tokens that the encoder does not see.
    pub ratio: f64,
}

/// Which tokens are masked together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MaskKind {
    /// Each by itself: the paper's choice.
    #[default]
    Random,
    /// A place in the frame through all of time ("space-only"). Of a time step `int(space x ratio)` tokens are masked, as in VideoMAE: 176 of 196.
    Tube,
    /// A whole time step ("time-only"): `int(time x ratio)` of them.
    Frame,
    /// Boxes of up to half the clip's length, height and width, as many tokens in all as with `random`.
    Block,
}

impl MaskRule {
    /// How many tokens of a clip of `grid` stay visible; `None` unless some are visible and some masked.
    pub fn visible(self, grid: PatchGrid) -> Option<usize> {
        if !(0.0..1.0).contains(&self.ratio) {
            return None;
        }
        let masked = |whole: usize| (whole as f64 * self.ratio) as usize;
        let visible = match self.kind {
            MaskKind::Random | MaskKind::Block => grid.visible_tokens(self.ratio),
            MaskKind::Tube => grid.time() * (grid.space() - masked(grid.space())),
            MaskKind::Frame => (grid.time() - masked(grid.time())) * grid.space(),
        };
        (visible > 0 && visible < grid.tokens()).then_some(visible)
    }

    /// Draws the mask of a clip of `grid`.
    ///
    /// # Panics
    /// When [`Self::visible`] is `None`.
    pub fn draw(self, rng: &mut impl Rng, grid: PatchGrid) -> Mask {
        let visible = self.visible(grid).expect("some tokens are visible and some masked");
        let (time, space) = (grid.time(), grid.space());
        match self.kind {
            MaskKind::Random => Mask::random(rng, grid.tokens(), visible),
            MaskKind::Tube => {
                let places = Mask::random(rng, space, visible / time);
                let through_time =
                    |places: &[u32]| (0..time).flat_map(|step| places.iter().map(move |place| place + (step * space) as u32)).collect();
                Mask { visible: through_time(&places.visible), masked: through_time(&places.masked) }
            }
            MaskKind::Frame => {
                let steps = Mask::random(rng, time, visible / space);
                let whole =
                    |steps: &[u32]| steps.iter().flat_map(|step| (0..space as u32).map(move |place| step * space as u32 + place)).collect();
                Mask { visible: whole(&steps.visible), masked: whole(&steps.masked) }
            }
            MaskKind::Block => blocks(rng, grid, visible),
        }
    }
}

/// Masks box after box until `keep` tokens are left. Each box holds a token that was visible; the last one stops where enough are masked.
fn blocks(rng: &mut impl Rng, grid: PatchGrid, keep: usize) -> Mask {
    let sides = [grid.time(), grid.side(), grid.side()];
    let mut visible: Vec<u32> = (0..grid.tokens() as u32).collect();
    let mut is_masked = vec![false; grid.tokens()];
    while visible.len() > keep {
        let token = visible[rng.random_range(0..visible.len())] as usize;
        let place = [token / grid.space(), token % grid.space() / grid.side(), token % grid.side()];
        let mut around = |axis: usize| -> Range<usize> {
            let length = rng.random_range(1..=sides[axis].div_ceil(2));
            // Of all boxes of this length that hold the token and lie in the clip, each is drawn alike.
            let (first, last) = ((place[axis] + 1).saturating_sub(length), place[axis].min(sides[axis] - length));
            let start = rng.random_range(first..=last);
            start..start + length
        };
        let (times, rows, columns) = (around(0), around(1), around(2));
        let mut left = visible.len() - keep;
        for time in times {
            for row in rows.clone() {
                for column in columns.clone() {
                    let token = &mut is_masked[time * grid.space() + row * grid.side() + column];
                    if left > 0 && !*token {
                        *token = true;
                        left -= 1;
                    }
                }
            }
        }
        visible.retain(|&token| !is_masked[token as usize]);
    }
    let masked = (0..grid.tokens() as u32).filter(|&token| is_masked[token as usize]).collect();
    Mask { visible, masked }
}

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

    const GRID: PatchGrid = PatchGrid { frames: 16, size: 224, tubelet: 2, patch: 16 };

    fn draws(kind: MaskKind, ratio: f64) -> impl Iterator<Item = Mask> {
        (0..50).map(move |clip| MaskRule { kind, ratio }.draw(&mut stream(Purpose::Mask, 1, 0, clip), GRID))
    }

    #[test]
    fn every_kind_masks_as_many_in_every_clip_and_each_token_once() {
        for (kind, ratio, visible) in [
            (MaskKind::Random, 0.9, 156),
            (MaskKind::Tube, 0.9, 160),
            (MaskKind::Frame, 0.75, 2 * 196),
            (MaskKind::Block, 0.75, 392),
            (MaskKind::Block, 0.9, 156),
            (MaskKind::Random, 0.1, 1411),
            (MaskKind::Tube, 0.01, 195 * 8),
            (MaskKind::Block, 0.999, 1),
        ] {
            for mask in draws(kind, ratio) {
                assert_eq!(mask.visible.len(), visible, "{kind:?} {ratio}");
                assert!(mask.visible.is_sorted() && mask.masked.is_sorted(), "{kind:?}");
                let mut all = [mask.visible, mask.masked].concat();
                all.sort_unstable();
                assert!(all.into_iter().eq(0..1568), "{kind:?} {ratio}");
            }
        }
    }

    #[test]
    fn tubes_are_alike_at_all_times_and_frames_are_whole() {
        let (mut tubes, mut frames) = ([0; 196], [0; 8]);
        for mask in draws(MaskKind::Tube, 0.9) {
            let places = |step: u32| mask.visible.iter().filter(move |&token| token / 196 == step).map(|token| token % 196);
            assert!((1..8).all(|step| places(step).eq(places(0))));
            places(0).for_each(|place| tubes[place as usize] += 1);
        }
        for mask in draws(MaskKind::Frame, 0.75) {
            let steps: Vec<u32> = mask.visible.chunks(196).map(|step| step[0] / 196).collect();
            assert!(mask.visible.iter().copied().eq(steps.iter().flat_map(|step| 196 * step..196 * (step + 1))));
            steps.iter().for_each(|&step| frames[step as usize] += 1);
        }
        assert!(tubes.iter().filter(|&&times| times > 0).count() > 180 && frames.iter().all(|&times| times > 3), "{tubes:?} {frames:?}");
    }

    #[test]
    fn blocks_hang_together() {
        // Pairs of neighbours in a row of which one is visible and one is not: edges.
        let edges = |kind| {
            let edges = draws(kind, 0.75).map(|mask| {
                let mut visible = [false; 1568];
                mask.visible.iter().for_each(|&token| visible[token as usize] = true);
                visible.chunks(14).flat_map(|row| row.windows(2)).filter(|pair| pair[0] != pair[1]).count()
            });
            edges.sum::<usize>()
        };
        let (blocks, random) = (edges(MaskKind::Block), edges(MaskKind::Random));
        assert!(2 * blocks < random, "{blocks} edges of blocks, {random} at random");
    }

    #[test]
    fn what_leaves_nothing_visible_or_masked_is_no_rule() {
        for (kind, ratio) in [
            (MaskKind::Random, 0.9999),
            (MaskKind::Random, 1.0),
            (MaskKind::Random, f64::NAN),
            (MaskKind::Frame, 0.1),
            (MaskKind::Tube, 0.0),
        ] {
            assert_eq!(MaskRule { kind, ratio }.visible(GRID), None, "{kind:?} {ratio}");
        }
    }
}
