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

    /// Draws the mask of a clip of `grid` into `tokens`: the visible tokens, then the masked ones, both ascending. Uses `scratch` again from call to call.
    ///
    /// # Panics
    /// When [`Self::visible`] is `None`, or `tokens` is not as long as the clip has tokens.
    pub fn draw(self, rng: &mut impl Rng, grid: PatchGrid, scratch: &mut MaskScratch, tokens: &mut [u32]) {
        assert_eq!(tokens.len(), grid.tokens(), "a place for every token");
        let visible = self.visible(grid).expect("some tokens are visible and some masked");
        let (time, space) = (grid.time(), grid.space());
        match self.kind {
            MaskKind::Random => scratch.random(rng, grid.tokens(), visible),
            MaskKind::Tube => {
                scratch.random(rng, space, visible / time);
                for _ in 1..time {
                    scratch.is_masked.extend_from_within(..space);
                }
            }
            MaskKind::Frame => {
                scratch.random(rng, time, visible / space);
                let steps = std::mem::take(&mut scratch.is_masked);
                scratch.is_masked.extend(steps.iter().flat_map(|&is_masked| std::iter::repeat_n(is_masked, space)));
            }
            MaskKind::Block => scratch.blocks(rng, grid, visible),
        }
        scratch.list(visible, tokens);
    }
}

/// The reference's rule: the `keep` tokens of smallest noise stay visible (`argsort`; equal noise keeps the order of tokens). They are written to `tokens`, and
/// the masked ones after them, both ascending.
///
/// # Panics
/// When `tokens` is not as long as `noise`, or `keep` is more.
pub fn from_noise(noise: &[f32], keep: usize, tokens: &mut [u32]) {
    let mut scratch = MaskScratch::default();
    scratch.keep_least(noise.iter().copied(), keep);
    scratch.list(keep, tokens);
}

/// Memory for drawing masks.
#[derive(Debug, Default)]
pub struct MaskScratch {
    /// Noise in the upper half, token in the lower.
    keys: Vec<u64>,
    is_masked: Vec<bool>,
    visible: Vec<u32>,
}

impl MaskScratch {
    /// Of `all` places, a uniformly drawn set of `keep` is not masked.
    fn random(&mut self, rng: &mut impl Rng, all: usize, keep: usize) {
        self.keep_least((0..all).map(|_| rng.random::<f32>()), keep);
    }

    fn keep_least(&mut self, noise: impl Iterator<Item = f32>, keep: usize) {
        self.keys.clear();
        // Noise is not negative, so its bits are in the order of its values.
        self.keys.extend(noise.zip(0u64..).map(|(noise, token)| u64::from(noise.to_bits()) << 32 | token));
        self.is_masked.clear();
        self.is_masked.resize(self.keys.len(), true);
        if keep > 0 {
            let (below, &mut last, _) = self.keys.select_nth_unstable(keep - 1);
            for key in below.iter().copied().chain([last]) {
                self.is_masked[key as u32 as usize] = false;
            }
        }
    }

    /// Masks box after box until `keep` tokens are left. Each box holds a token that was visible; the last one stops where enough are masked.
    fn blocks(&mut self, rng: &mut impl Rng, grid: PatchGrid, keep: usize) {
        let Self { is_masked, visible, .. } = self;
        let sides = [grid.time(), grid.side(), grid.side()];
        visible.clear();
        visible.extend(0..grid.tokens() as u32);
        is_masked.clear();
        is_masked.resize(grid.tokens(), false);
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
    }

    /// Writes the tokens that are not masked, which are `visible`, and then those that are.
    fn list(&self, visible: usize, tokens: &mut [u32]) {
        assert_eq!(tokens.len(), self.is_masked.len(), "a place for every token");
        let (mut next_visible, mut next_masked) = (0, visible);
        for (token, &is_masked) in self.is_masked.iter().enumerate() {
            let next = if is_masked { &mut next_masked } else { &mut next_visible };
            tokens[*next] = token as u32;
            *next += 1;
        }
    }
}

/// The masks of a batch, all with the same number of visible tokens. Visible tokens are in ascending order: the encoder's result does not depend on their
/// order, and memory likes this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Masks<'a> {
    /// `[clips, tokens]`: of each clip the visible tokens, then the masked ones.
    rows: &'a [u32],
    tokens: usize,
    visible: usize,
}

/// The mask of one clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mask<'a> {
    /// Visible tokens, ascending.
    pub visible: &'a [u32],
    /// Masked tokens, ascending.
    pub masked: &'a [u32],
}

impl<'a> Masks<'a> {
    /// Of `rows`, `[clips, tokens]`, as [`MaskRule::draw`] and [`from_noise`] write them, with `visible` visible tokens each.
    ///
    /// # Panics
    /// When there are no tokens, or `rows` is not a multiple of them.
    pub fn new(rows: &'a [u32], tokens: usize, visible: usize) -> Self {
        assert!(rows.len().is_multiple_of(tokens) && visible <= tokens, "{} tokens of clips of {tokens}", rows.len());
        Self { rows, tokens, visible }
    }

    /// Tokens of a clip.
    pub const fn tokens(self) -> usize {
        self.tokens
    }

    /// Visible tokens of a clip.
    pub const fn visible(self) -> usize {
        self.visible
    }

    /// Number of clips.
    pub const fn len(self) -> usize {
        self.rows.len() / self.tokens
    }

    /// Whether there are no clips.
    pub const fn is_empty(self) -> bool {
        self.rows.is_empty()
    }

    /// Each clip's mask.
    pub fn iter(self) -> impl Iterator<Item = Mask<'a>> {
        self.rows.chunks_exact(self.tokens).map(move |row| {
            let (visible, masked) = row.split_at(self.visible);
            Mask { visible, masked }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::{Purpose, stream};

    #[test]
    fn smallest_noise_stays_visible() {
        let mut tokens = [0; 5];
        from_noise(&[0.5, 0.1, 0.9, 0.1, 0.0], 2, &mut tokens);
        assert_eq!(tokens, [1, 4, 0, 2, 3]);
        let mask = Masks::new(&tokens, 5, 2).iter().next().expect("one clip");
        assert_eq!((mask.visible, mask.masked), ([1, 4].as_slice(), [0, 2, 3].as_slice()));
    }

    #[test]
    fn every_token_is_visible_equally_often() {
        let mut seen = [0; 64];
        let grid = PatchGrid { frames: 4, size: 8, tubelet: 1, patch: 2 };
        let (mut rng, mut scratch, mut tokens) = (stream(Purpose::Mask, 1, 0, 0), MaskScratch::default(), [0; 64]);
        for _ in 0..4000 {
            MaskRule { kind: MaskKind::Random, ratio: 0.9 }.draw(&mut rng, grid, &mut scratch, &mut tokens);
            tokens[..6].iter().for_each(|&token| seen[token as usize] += 1);
        }
        // 4000 * 6 / 64 = 375, give or take five standard deviations.
        assert!(seen.iter().all(|&times| (280..470).contains(&times)), "{seen:?}");
    }

    const GRID: PatchGrid = PatchGrid { frames: 16, size: 224, tubelet: 2, patch: 16 };

    struct Drawn {
        visible: Vec<u32>,
        masked: Vec<u32>,
    }

    fn draws(kind: MaskKind, ratio: f64) -> impl Iterator<Item = Drawn> {
        let rule = MaskRule { kind, ratio };
        let (visible, mut scratch) = (rule.visible(GRID).expect("a rule"), MaskScratch::default());
        (0..50).map(move |clip| {
            let mut tokens = vec![0; 1568];
            rule.draw(&mut stream(Purpose::Mask, 1, 0, clip), GRID, &mut scratch, &mut tokens);
            let masked = tokens.split_off(visible);
            Drawn { visible: tokens, masked }
        })
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
