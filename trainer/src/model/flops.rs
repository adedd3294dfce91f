//! Counts the multiply-adds of pre-training from shapes.
//!
//! Only matrix products are counted, as in the paper, whose "FLOPs" are multiply-adds: one
//! multiply-add is two floating-point operations. With `n` tokens (including the cls token), width
//! `d` and an MLP of hidden width `4 d`, a transformer block has
//! - `12 n d^2` in its linear layers: query, key, value and output projections `d x d` each, the
//!   MLP `d x 4d` and `4d x d`;
//! - `2 n^2 d` in its attention: queries with keys, and weights with values, over all heads.

use crate::model::{MLP_RATIO, MaeConfig, TransformerConfig};
use schemas::geometry::PatchGrid;
use schemas::report::OperationFigures;

/// Tokens per clip that each part processes, not counting the cls token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClipTokens {
    /// Embedded patches.
    pub embedded: usize,
    /// Tokens in the encoder's blocks.
    pub encoded: usize,
    /// Tokens in the decoder's blocks.
    pub decoded: usize,
    /// Tokens with a prediction.
    pub predicted: usize,
}

impl ClipTokens {
    /// Training here, with `visible` visible and `predicted` predicted tokens: masked patches are
    /// not embedded, and visible ones not predicted.
    pub const fn sparse(visible: usize, predicted: usize) -> Self {
        Self {
            embedded: visible,
            encoded: visible,
            decoded: visible + predicted,
            predicted,
        }
    }

    /// Training without masks: every token is visible and predicted.
    pub const fn dense(grid: PatchGrid) -> Self {
        Self {
            embedded: grid.tokens(),
            encoded: grid.tokens(),
            decoded: grid.tokens(),
            predicted: grid.tokens(),
        }
    }
}

/// Multiply-adds of the forward pass of one clip: with `v` values per tubelet, `p` predicted values
/// per token, encoder width `d` and decoder width `e`,
/// - patch embedding: `embedded v d`;
/// - encoder: its blocks on the encoded tokens and the cls token;
/// - decoder: `encoded d e` for the projection to its width, and its blocks on the decoded tokens
///   and its cls token;
/// - prediction: `predicted e p`.
///
/// [`OperationFigures::step`] adds the backward pass.
pub fn forward(config: &MaeConfig, tokens: ClipTokens) -> OperationFigures {
    let MaeConfig {
        grid,
        encoder,
        decoder,
        ..
    } = *config;
    let product = |sizes: [usize; 3]| sizes.into_iter().map(|size| size as u64).product::<u64>();
    let class = usize::from(config.class_token);
    let encoded = tokens.encoded + class;
    let decoded = tokens.decoded + class;
    OperationFigures {
        patch_embedding: product([tokens.embedded, grid.tubelet_values(), encoder.width]),
        encoder_linear: blocks_linear(encoder, encoded),
        encoder_attention: blocks_attention(encoder, encoded),
        decoder_linear: product([tokens.encoded, encoder.width, decoder.width])
            + blocks_linear(decoder, decoded),
        decoder_attention: blocks_attention(decoder, decoded),
        prediction: product([tokens.predicted, decoder.width, config.target_values()]),
    }
}

/// `depth (4 + 2 ratio) n d^2`
const fn blocks_linear(transformer: TransformerConfig, tokens: usize) -> u64 {
    let TransformerConfig { width, depth, .. } = transformer;
    (depth * (4 + 2 * MLP_RATIO)) as u64 * tokens as u64 * (width * width) as u64
}

/// `depth 2 n^2 d`
const fn blocks_attention(transformer: TransformerConfig, tokens: usize) -> u64 {
    let TransformerConfig { width, depth, .. } = transformer;
    (depth * 2) as u64 * (tokens * tokens) as u64 * width as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Preset, PretrainConfig};
    use crate::model::{Conventions, PositionKind, TargetKind};

    #[track_caller]
    fn assert_near(count: u64, paper: f64) {
        assert!(
            (count as f64 / paper - 1.0).abs() < 0.01,
            "{count} for {paper}"
        );
    }

    #[test]
    fn counts_of_vit_large_are_the_papers() {
        let config = PretrainConfig::resolve(Preset::Large, &[]).expect("a preset");
        let model = config.model();
        let visible = config
            .objective
            .masking
            .visible(config.common.clip)
            .expect("a rule");
        let dense = forward(&model, ClipTokens::dense(model.grid));
        // The reference implementation embeds all patches and predicts all tokens, used or not.
        let sparse = forward(
            &model,
            ClipTokens {
                encoded: visible,
                ..ClipTokens::dense(model.grid)
            },
        );
        // Table 1 of Feichtenhofer et al. 2022.
        assert_near(dense.forward(), 627.5e9);
        assert_near(sparse.forward(), 81.0e9);
        assert_near(sparse.decoder(), 30.5e9);
        let gain = dense.forward() as f64 / sparse.forward() as f64;
        assert!((gain - 7.7).abs() < 0.05, "{gain}");
        // Unneeded work is skipped here: 2.2 G of embedding and 0.06 G of predictions.
        let ours = forward(
            &model,
            ClipTokens::sparse(visible, model.grid.tokens() - visible),
        );
        assert_eq!(
            sparse.forward() - ours.forward(),
            1412 * 1536 * 1024 + 156 * 512 * 768
        );
    }

    #[test]
    fn counts_of_a_small_model_are_those_by_hand() {
        let model = MaeConfig {
            grid: PatchGrid {
                frames: 4,
                size: 8,
                tubelet: 2,
                patch: 4,
            },
            encoder: TransformerConfig {
                width: 6,
                depth: 2,
                heads: 2,
            },
            decoder: TransformerConfig {
                width: 4,
                depth: 1,
                heads: 1,
            },
            positions: PositionKind::Separable,
            class_token: true,
            target: TargetKind::Pixels,
            slices: 1,
            normalise_target: true,
            conventions: Conventions::default(),
        };
        // 8 tokens of 96 values, 3 of them visible; 48 values of each of 5 tokens are predicted.
        let counted = forward(&model, ClipTokens::sparse(3, 5));
        let by_hand = OperationFigures {
            patch_embedding: 3 * 96 * 6,
            // Two blocks on 4 tokens: q, k, v, proj 6 x 6, MLP 6 x 24 and 24 x 6.
            encoder_linear: 2 * 4 * (4 * 36 + 2 * 144),
            // Scores 4 x 4 of 6 values, and the same for the weighted sums of values.
            encoder_attention: 2 * (4 * 4 * 6 + 4 * 4 * 6),
            // 3 tokens from 6 to 4, and one block on 9 tokens.
            decoder_linear: 3 * 6 * 4 + 9 * (4 * 16 + 2 * 64),
            decoder_attention: 9 * 9 * 4 + 9 * 9 * 4,
            prediction: 5 * 4 * 48,
        };
        assert_eq!(counted, by_hand);
        assert_eq!(
            by_hand.forward(),
            1728 + 3456 + 384 + (72 + 1728) + 648 + 960
        );
        // Everything but the embedding counts three times, the embedding twice.
        assert_eq!(
            by_hand.step(),
            3 * (3456 + 384 + 1800 + 648 + 960) + 2 * 1728
        );
    }
}
