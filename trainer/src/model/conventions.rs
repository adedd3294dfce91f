//! Conventions in which code bases of masked autoencoders differ. The defaults are those of the
//! reference implementation.

use super::embed::PositionKind;
use super::parameters::TOKEN_STD;
use schemas::geometry::TargetFrames;
use serde::{Deserialize, Serialize};

/// Added to the variance in layer normalisation by the reference implementation.
pub const LAYER_NORM_EPSILON: f64 = 1e-6;

/// The part of a [`super::MaeConfig`] and a [`super::ClassifierConfig`] that is not a size: it
/// affects what is computed, but no shape of a weight except those of a decoder's positions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conventions {
    /// Added to the variance in the layer normalisations of the blocks, and in the one after the
    /// encoder.
    pub norm_epsilon: f64,
    /// Added to the variance in the layer normalisation after the decoder.
    pub decoder_norm_epsilon: f64,
    /// Added to the variance in the layer normalisation before a classifier's head.
    pub head_norm_epsilon: f64,
    /// Kind of the decoder's position embeddings; `None` for the encoder's kind.
    pub decoder_positions: Option<PositionKind>,
    /// Standard deviation of learned positions at random initialisation.
    pub position_std: f64,
    /// Source of the decoder's cls token, in a model that has cls tokens.
    pub decoder_class_token: DecoderClassToken,
    /// The values that share a mean and deviation where targets are normalised.
    pub normalise_per: NormalisePer,
    /// The predicted frames.
    pub target_frames: TargetFrames,
}

impl Default for Conventions {
    fn default() -> Self {
        Self {
            norm_epsilon: LAYER_NORM_EPSILON,
            decoder_norm_epsilon: LAYER_NORM_EPSILON,
            head_norm_epsilon: LAYER_NORM_EPSILON,
            decoder_positions: None,
            position_std: TOKEN_STD,
            decoder_class_token: DecoderClassToken::Own,
            normalise_per: NormalisePer::Patch,
            target_frames: TargetFrames::Spread,
        }
    }
}

/// Source of the decoder's cls token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecoderClassToken {
    /// A learned token, as in the reference implementation. The encoder's is dropped.
    #[default]
    Own,
    /// The encoder's token, encoded and embedded like the other tokens, as in PySlowFast.
    Encoded,
}

/// The values that share a mean and deviation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NormalisePer {
    /// All values of a patch, as in the reference implementation.
    #[default]
    Patch,
    /// The values of one channel of a patch, as in VideoMAE.
    Channel,
}
