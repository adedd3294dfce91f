//! Masks: which tokens stay visible, and which of the others are predicted. All masks are made
//! here.

mod masks;
mod scratch;

pub use masks::{Mask, Masks};
pub use scratch::{MaskScratch, from_noise};

use rand::Rng;
use schemas::geometry::PatchGrid;
use serde::{Deserialize, Serialize};

/// How masks are drawn.
///
/// ```
/// use pipeline::sampling::mask::{MaskKind, MaskRule, MaskScratch, Masks};
/// use pipeline::sampling::order::{Purpose, stream};
/// use schemas::geometry::PatchGrid;
///
/// let grid = PatchGrid { frames: 16, size: 224, tubelet: 2, patch: 16 };
/// let rule = MaskRule::new(MaskKind::Random, 0.9);
/// let visible = rule.visible(grid).expect("some tokens are visible and some masked");
/// assert_eq!((grid.tokens(), visible), (1568, 156));
///
/// let mut tokens = vec![0; grid.tokens()];
/// let mut rng = stream(Purpose::Mask, 0, 0, 0);
/// rule.draw(&mut rng, grid, &mut MaskScratch::default(), &mut tokens);
/// let mask = Masks::new(&tokens, grid.tokens(), visible).get(0);
/// assert_eq!((mask.visible.len(), mask.masked.len()), (156, 1412));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskRule {
    /// Which tokens are masked together.
    #[serde(default)]
    pub kind: MaskKind,
    /// Share of the tokens that the encoder does not see.
    pub ratio: f64,
    /// Share of the masked tokens that the decoder processes and predicts, chosen by running cells;
    /// 1 is all of them. See [`Self::draw`].
    #[serde(default = "all")]
    pub decoder_keep: f64,
}

const fn all() -> f64 {
    1.0
}

/// Which tokens are masked together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MaskKind {
    /// Each on its own: the paper's choice.
    #[default]
    Random,
    /// A patch of the frame at all times ("space-only"). `int(space x ratio)` tokens of each time
    /// step are masked, as in VideoMAE: 176 of 196.
    Tube,
    /// A whole time step ("time-only"): `int(time x ratio)` of them.
    Frame,
    /// Boxes of up to half the clip's length, height and width; as many tokens in total as with
    /// `random`.
    Block,
}

impl MaskRule {
    /// A rule by which all masked tokens are predicted.
    pub const fn new(kind: MaskKind, ratio: f64) -> Self {
        Self {
            kind,
            ratio,
            decoder_keep: all(),
        }
    }

    /// How many tokens of a clip of `grid` stay visible; `None` unless some are visible and some
    /// masked.
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

    /// How many masked tokens of a clip of `grid` are predicted: `int(masked x decoder_keep)`.
    /// `None` if this is 0, `decoder_keep` is not in (0, 1], or [`Self::visible`] is `None`.
    pub fn predicted(self, grid: PatchGrid) -> Option<usize> {
        let masked = grid.tokens() - self.visible(grid)?;
        let is_share = self.decoder_keep > 0.0 && self.decoder_keep <= 1.0;
        Some((masked as f64 * self.decoder_keep) as usize)
            .filter(|&predicted| is_share && predicted > 0)
    }

    /// Draws the mask of a clip of `grid` into `tokens`: the visible tokens, then the masked ones
    /// that are predicted, then those that the decoder drops, each ascending. Reuses `scratch`.
    ///
    /// The predicted tokens are chosen by running cells (VideoMAE V2, Wang et al. 2023). A cell is
    /// 2 x 2 patches of the frame. Its patches have ranks 0 to 3, clockwise, from a start that is
    /// drawn for each cell and moves on by one patch from each time step to the next. The masked
    /// tokens of the lowest ranks are predicted: at a share of 0.5 those of ranks 0 and 1, so every
    /// patch of a cell is predicted in two of four time steps, and the pattern runs around in the
    /// cell. Every clip has exactly [`Self::predicted`] predicted tokens: those of the last rank
    /// are drawn at random. So any share is possible, and which tokens are visible does not depend
    /// on it.
    ///
    /// # Panics
    /// When [`Self::predicted`] is `None`, or `tokens` is not as long as the clip has tokens.
    pub fn draw(
        self,
        rng: &mut impl Rng,
        grid: PatchGrid,
        scratch: &mut MaskScratch,
        tokens: &mut [u32],
    ) {
        assert_eq!(tokens.len(), grid.tokens(), "a place for every token");
        let visible = self
            .visible(grid)
            .expect("some tokens are visible and some masked");
        let predicted = self.predicted(grid).expect("some tokens are predicted");
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
                scratch.is_masked.extend(
                    steps
                        .iter()
                        .flat_map(|&is_masked| std::iter::repeat_n(is_masked, space)),
                );
            }
            MaskKind::Block => scratch.blocks(rng, grid, visible),
        }
        scratch.list(visible, tokens);
        let masked = &mut tokens[visible..];
        if predicted < masked.len() {
            scratch.run_cells(rng, grid, predicted, masked);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::order::{Purpose, stream};

    #[test]
    fn smallest_noise_stays_visible() {
        let mut tokens = [0; 5];
        from_noise(&[0.5, 0.1, 0.9, 0.1, 0.0], 2, &mut tokens);
        assert_eq!(tokens, [1, 4, 0, 2, 3]);
        let mask = Masks::new(&tokens, 5, 2).iter().next().expect("one clip");
        assert_eq!(
            (mask.visible, mask.masked),
            ([1, 4].as_slice(), [0, 2, 3].as_slice())
        );
    }

    #[test]
    fn every_token_is_visible_equally_often() {
        let mut seen = [0; 64];
        let grid = PatchGrid {
            frames: 4,
            size: 8,
            tubelet: 1,
            patch: 2,
        };
        let (mut rng, mut scratch, mut tokens) = (
            stream(Purpose::Mask, 1, 0, 0),
            MaskScratch::default(),
            [0; 64],
        );
        for _ in 0..4000 {
            MaskRule::new(MaskKind::Random, 0.9).draw(&mut rng, grid, &mut scratch, &mut tokens);
            tokens[..6]
                .iter()
                .for_each(|&token| seen[token as usize] += 1);
        }
        // 4000 * 6 / 64 = 375, give or take five standard deviations.
        assert!(
            seen.iter().all(|&times| (280..470).contains(&times)),
            "{seen:?}"
        );
    }

    const GRID: PatchGrid = PatchGrid {
        frames: 16,
        size: 224,
        tubelet: 2,
        patch: 16,
    };

    struct Drawn {
        visible: Vec<u32>,
        masked: Vec<u32>,
    }

    fn draws(kind: MaskKind, ratio: f64) -> impl Iterator<Item = Drawn> {
        let rule = MaskRule::new(kind, ratio);
        let (visible, mut scratch) = (rule.visible(GRID).expect("a rule"), MaskScratch::default());
        (0..50).map(move |clip| {
            let mut tokens = vec![0; 1568];
            rule.draw(
                &mut stream(Purpose::Mask, 1, 0, clip),
                GRID,
                &mut scratch,
                &mut tokens,
            );
            let masked = tokens.split_off(visible);
            Drawn {
                visible: tokens,
                masked,
            }
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
                assert!(
                    mask.visible.is_sorted() && mask.masked.is_sorted(),
                    "{kind:?}"
                );
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
            let places = |step: u32| {
                mask.visible
                    .iter()
                    .filter(move |&token| token / 196 == step)
                    .map(|token| token % 196)
            };
            assert!((1..8).all(|step| places(step).eq(places(0))));
            places(0).for_each(|place| tubes[place as usize] += 1);
        }
        for mask in draws(MaskKind::Frame, 0.75) {
            let steps: Vec<u32> = mask.visible.chunks(196).map(|step| step[0] / 196).collect();
            assert!(
                mask.visible
                    .iter()
                    .copied()
                    .eq(steps.iter().flat_map(|step| 196 * step..196 * (step + 1)))
            );
            steps.iter().for_each(|&step| frames[step as usize] += 1);
        }
        assert!(
            tubes.iter().filter(|&&times| times > 0).count() > 180
                && frames.iter().all(|&times| times > 3),
            "{tubes:?} {frames:?}"
        );
    }

    #[test]
    fn blocks_hang_together() {
        // Pairs of neighbours in a row of which one is visible and one is not: edges.
        let edges = |kind| {
            let edges = draws(kind, 0.75).map(|mask| {
                let mut visible = [false; 1568];
                mask.visible
                    .iter()
                    .for_each(|&token| visible[token as usize] = true);
                visible
                    .chunks(14)
                    .flat_map(|row| row.windows(2))
                    .filter(|pair| pair[0] != pair[1])
                    .count()
            });
            edges.sum::<usize>()
        };
        let (blocks, random) = (edges(MaskKind::Block), edges(MaskKind::Random));
        assert!(
            2 * blocks < random,
            "{blocks} edges of blocks, {random} at random"
        );
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
            assert_eq!(
                MaskRule::new(kind, ratio).visible(GRID),
                None,
                "{kind:?} {ratio}"
            );
        }
    }

    #[test]
    fn masks_are_those_of_earlier_versions() {
        // Computed before there was `decoder_keep`: runs from then resume with the same masks.
        let hash = |kind| {
            let mut rows = vec![0; GRID.tokens()];
            let mut hash = xxhash_rust::xxh3::Xxh3::new();
            for clip in 0..5 {
                MaskRule::new(kind, 0.75).draw(
                    &mut stream(Purpose::Mask, 1, 0, clip),
                    GRID,
                    &mut MaskScratch::default(),
                    &mut rows,
                );
                rows.iter()
                    .for_each(|token| hash.update(&token.to_le_bytes()));
            }
            hash.digest()
        };
        let kinds = [
            MaskKind::Random,
            MaskKind::Tube,
            MaskKind::Frame,
            MaskKind::Block,
        ];
        assert_eq!(
            kinds.map(hash),
            [
                373994485013406488,
                32446550999197473,
                4889338882090767876,
                9660078736667990243
            ]
        );
    }

    /// Masks of `clips` clips in which `decoder_keep` of what is masked is predicted.
    fn running(rule: MaskRule, grid: PatchGrid, clips: u64) -> (Vec<u32>, usize, usize) {
        let (visible, predicted) = (
            rule.visible(grid).expect("a rule"),
            rule.predicted(grid).expect("a rule"),
        );
        let mut rows = vec![0; clips as usize * grid.tokens()];
        let mut scratch = MaskScratch::default();
        for (clip, row) in rows.chunks_exact_mut(grid.tokens()).enumerate() {
            rule.draw(
                &mut stream(Purpose::Mask, 1, 0, clip as u64),
                grid,
                &mut scratch,
                row,
            );
        }
        (rows, visible, predicted)
    }

    #[test]
    fn what_is_predicted_has_exact_counts_and_leaves_what_is_visible_alone() {
        let odd = PatchGrid {
            frames: 5,
            size: 15,
            tubelet: 1,
            patch: 3,
        };
        let image = PatchGrid {
            frames: 1,
            size: 12,
            tubelet: 1,
            patch: 3,
        };
        for (grid, kind, ratio, decoder_keep, expected) in [
            (GRID, MaskKind::Random, 0.9, 0.5, 706),
            (GRID, MaskKind::Tube, 0.9, 0.5, 704),
            (GRID, MaskKind::Block, 0.75, 0.3, 352),
            (GRID, MaskKind::Frame, 0.75, 0.999, 1174),
            (GRID, MaskKind::Random, 0.9, 1.0, 1412),
            // 24 of 125 are visible: 1 - 0.8 is a little below 0.2.
            (odd, MaskKind::Random, 0.8, 0.25, 25),
            (image, MaskKind::Random, 0.75, 0.5, 6),
        ] {
            let rule = MaskRule {
                decoder_keep,
                ..MaskRule::new(kind, ratio)
            };
            let (rows, visible, predicted) = running(rule, grid, 20);
            assert_eq!(predicted, expected, "{kind:?} {decoder_keep}");
            let (all_predicted, ..) = running(MaskRule::new(kind, ratio), grid, 20);
            let whole = Masks::new(&all_predicted, grid.tokens(), visible);
            for (mask, whole) in Masks::new(&rows, grid.tokens(), visible)
                .predicting(predicted)
                .iter()
                .zip(whole.iter())
            {
                assert_eq!(mask.visible, whole.visible, "the encoder sees the same");
                assert_eq!(
                    (mask.predicted.len(), mask.predicted),
                    (predicted, &mask.masked[..predicted])
                );
                assert!(mask.predicted.is_sorted() && mask.masked[predicted..].is_sorted());
                let mut masked = mask.masked.to_vec();
                masked.sort_unstable();
                assert_eq!(masked, whole.predicted, "each masked token once");
            }
        }
    }

    #[test]
    fn predicted_places_run_around_their_cells() {
        // Nearly all tokens are masked, so every cell shows its pattern.
        let rule = MaskRule {
            decoder_keep: 0.5,
            ..MaskRule::new(MaskKind::Random, 0.99)
        };
        let (rows, visible, predicted) = running(rule, GRID, 20);
        let mut starts_seen = [0; 4];
        for mask in Masks::new(&rows, GRID.tokens(), visible)
            .predicting(predicted)
            .iter()
        {
            let (mut is_predicted, mut is_visible) =
                (vec![false; GRID.tokens()], vec![false; GRID.tokens()]);
            mask.predicted
                .iter()
                .for_each(|&token| is_predicted[token as usize] = true);
            mask.visible
                .iter()
                .for_each(|&token| is_visible[token as usize] = true);
            let mut exceptions = 0;
            for (row, column) in (0..14)
                .step_by(2)
                .flat_map(|row| (0..14).step_by(2).map(move |column| (row, column)))
            {
                // Clockwise patches of the cell; the pattern moves on by one patch per time step.
                let around = [(0, 0), (0, 1), (1, 1), (1, 0)]
                    .map(|(down, right)| (row + down) * 14 + column + right);
                let differences = |start: usize| {
                    let at =
                        |time: usize, place: usize| time * 196 + around[(start + time + place) % 4];
                    let wrong = |time, place: usize| {
                        !is_visible[at(time, place)] && is_predicted[at(time, place)] != (place < 2)
                    };
                    (0..8)
                        .flat_map(|time| (0..4).map(move |place| (time, place)))
                        .filter(|&(time, place)| wrong(time, place))
                        .count()
                };
                let start = (0..4)
                    .min_by_key(|&start| differences(start))
                    .expect("one of four");
                starts_seen[start] += 1;
                exceptions += differences(start);
            }
            // Half of the masked tokens are nearly those of ranks 0 and 1; the difference is
            // random.
            assert!(exceptions < 20, "{exceptions} of 1568 tokens");
        }
        // 20 * 49 / 4 = 245, give or take five standard deviations.
        assert!(
            starts_seen.iter().all(|&times| (177..313).contains(&times)),
            "{starts_seen:?}"
        );
    }

    #[test]
    fn every_place_is_predicted_equally_often() {
        for decoder_keep in [0.5, 0.25, 0.4] {
            let rule = MaskRule {
                decoder_keep,
                ..MaskRule::new(MaskKind::Random, 0.9)
            };
            let (rows, visible, predicted) = running(rule, GRID, 500);
            let mut times = vec![0; 196];
            for mask in Masks::new(&rows, GRID.tokens(), visible)
                .predicting(predicted)
                .iter()
            {
                mask.predicted
                    .iter()
                    .for_each(|&token| times[token as usize % 196] += 1);
            }
            let mean = 500.0 * predicted as f64 / 196.0;
            assert!(
                times
                    .iter()
                    .all(|&times| (f64::from(times) / mean - 1.0).abs() < 0.1),
                "{decoder_keep}: {times:?} for {mean}"
            );
        }
    }

    #[test]
    fn a_share_that_predicts_nothing_is_no_rule() {
        for decoder_keep in [0.0, -0.5, 1.001, f64::NAN, 0.0001] {
            assert_eq!(
                MaskRule {
                    decoder_keep,
                    ..MaskRule::new(MaskKind::Random, 0.9)
                }
                .predicted(GRID),
                None,
                "{decoder_keep}"
            );
        }
    }
}
