//! What code bases of masked autoencoders do each in its own way. The default is the reference's.

use super::embed::PositionKind;
use schemas::geometry::TargetFrames;
use serde::{Deserialize, Serialize};

/// Added to the variance in layer normalisation, in the reference.
pub const LAYER_NORM_EPSILON: f64 = 1e-6;

/// Of a [`super::MaeConfig`] and a [`super::ClassifierConfig`], what is no size: it decides what is computed, and no weight's shape but those of a decoder's positions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conventions {
    /// Added to the variance in the layer normalisations of the blocks, and in the one after the encoder.
    pub norm_epsilon: f64,
    /// Added to the variance in the layer normalisation after the decoder.
    pub decoder_norm_epsilon: f64,
    /// Added to the variance in the layer normalisation before a classifier's head.
    pub head_norm_epsilon: f64,
    /// How the decoder's positions are given; none where as the encoder's.
    pub decoder_positions: Option<PositionKind>,
    /// Where the decoder's cls token comes from, in a model that has cls tokens.
    pub decoder_class_token: DecoderClassToken,
    /// What is normalised by its own mean and deviation where targets are normalised.
    pub normalise_per: NormalisePer,
    /// Which frames are predicted.
    pub target_frames: TargetFrames,
}

impl Default for Conventions {
    fn default() -> Self {
        Self {
            norm_epsilon: LAYER_NORM_EPSILON,
            decoder_norm_epsilon: LAYER_NORM_EPSILON,
            head_norm_epsilon: LAYER_NORM_EPSILON,
            decoder_positions: None,
            decoder_class_token: DecoderClassToken::Own,
            normalise_per: NormalisePer::Patch,
            target_frames: TargetFrames::Spread,
        }
    }
}

/// Where the decoder's cls token comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecoderClassToken {
    /// It is learned: the reference's way. The encoder's is dropped.
    #[default]
    Own,
    /// It is the encoder's, encoded and embedded as the other tokens: PySlowFast's way.
    Encoded,
}

/// What is normalised by its own mean and deviation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NormalisePer {
    /// All values of a patch together: the reference's way.
    #[default]
    Patch,
    /// The values of each channel of a patch: VideoMAE's way.
    Channel,
}
