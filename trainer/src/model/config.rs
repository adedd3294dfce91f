//! What decides an autoencoder's shapes, and what it learns.

use super::block::TransformerConfig;
use super::conventions::Conventions;
use super::embed::PositionKind;
use pipeline::transform::TargetForm;
use schemas::geometry::{PatchGrid, TargetFrames};
use serde::{Deserialize, Serialize};

/// What decides the model's shapes and its target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MaeConfig {
    /// Clips and patches.
    pub grid: PatchGrid,
    /// The encoder.
    pub encoder: TransformerConfig,
    /// The decoder.
    pub decoder: TransformerConfig,
    /// How positions are given: separable in the paper.
    pub positions: PositionKind,
    /// Whether encoder and decoder have a cls token: yes in the paper.
    pub class_token: bool,
    /// What is predicted of a masked token: pixels in the paper.
    pub target: TargetKind,
    /// Frames of each tubelet that are predicted: 1 in the paper.
    pub slices: usize,
    /// Whether the pixels of each patch are predicted normalised by the patch's own mean and variance. Histograms are not.
    pub normalise_target: bool,
    /// Other code bases' ways.
    pub conventions: Conventions,
}

/// What is predicted of a masked token.
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
    /// Frames that are predicted: [`PatchGrid::target_frames`].
    pub fn target_frames(&self) -> Vec<u32> {
        self.grid.target_frames(self.slices, self.target_form().frames()).map(|frame| frame as u32).collect()
    }

    /// The target as the loader makes it.
    pub const fn target_form(&self) -> TargetForm {
        match self.target {
            TargetKind::Pixels => match self.conventions.target_frames {
                TargetFrames::Spread => TargetForm::Pixels { slices: self.slices },
                TargetFrames::Strided => TargetForm::StridedPixels { slices: self.slices },
            },
            TargetKind::Hog => TargetForm::Hog { slices: self.slices },
        }
    }

    /// How the decoder's positions are given.
    pub const fn decoder_positions(&self) -> PositionKind {
        match self.conventions.decoder_positions {
            Some(positions) => positions,
            None => self.positions,
        }
    }

    /// Values that are predicted of a token.
    pub const fn target_values(&self) -> usize {
        self.target_form().values(self.grid)
    }
}
