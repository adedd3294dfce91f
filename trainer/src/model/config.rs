//! The configuration of a masked autoencoder: its shapes and its target.

use super::block::TransformerConfig;
use super::conventions::Conventions;
use super::embed::PositionKind;
use pipeline::transform::TargetForm;
use schemas::geometry::{PatchGrid, TargetFrames};
use serde::{Deserialize, Serialize};

/// Shapes, target and conventions of a masked autoencoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MaeConfig {
    /// Sizes of clips and patches.
    pub grid: PatchGrid,
    /// The encoder.
    pub encoder: TransformerConfig,
    /// The decoder.
    pub decoder: TransformerConfig,
    /// Kind of position embeddings: separable in the paper.
    pub positions: PositionKind,
    /// Whether encoder and decoder have a cls token: true in the paper.
    pub class_token: bool,
    /// Prediction target of a masked token: pixels in the paper.
    pub target: TargetKind,
    /// Predicted frames per tubelet: 1 in the paper.
    pub slices: usize,
    /// Whether target pixels are normalised by the mean and variance of their patch. Histograms are
    /// not.
    pub normalise_target: bool,
    /// Conventions of other code bases.
    pub conventions: Conventions,
}

/// Prediction target of a masked token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetKind {
    /// Its pixels.
    #[default]
    Pixels,
    /// Histograms of oriented gradients ([`pipeline::transform::hog`]).
    Hog,
}

impl MaeConfig {
    /// Indices of the predicted frames: [`PatchGrid::target_frames`].
    pub fn target_frames(&self) -> Vec<u32> {
        self.grid
            .target_frames(self.slices, self.target_form().frames())
            .map(|frame| frame as u32)
            .collect()
    }

    /// The form of the target that the loader produces.
    pub const fn target_form(&self) -> TargetForm {
        match self.target {
            TargetKind::Pixels => match self.conventions.target_frames {
                TargetFrames::Spread => TargetForm::Pixels {
                    slices: self.slices,
                },
                TargetFrames::Strided => TargetForm::StridedPixels {
                    slices: self.slices,
                },
            },
            TargetKind::Hog => TargetForm::Hog {
                slices: self.slices,
            },
        }
    }

    /// Kind of the decoder's position embeddings.
    pub const fn decoder_positions(&self) -> PositionKind {
        match self.conventions.decoder_positions {
            Some(positions) => positions,
            None => self.positions,
        }
    }

    /// Predicted values per token.
    pub const fn target_values(&self) -> usize {
        self.target_form().values(self.grid)
    }
}
