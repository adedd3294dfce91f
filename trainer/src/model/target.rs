//! Prediction targets: raw pixels, pixels normalised patch by patch, or histograms of gradients.

use super::config::{MaeConfig, TargetKind};
use super::conventions::NormalisePer;
use super::embed::{channel_first_patches, channel_last_patches};
use candle_core::{D, Result, Tensor};
use pipeline::transform::STD;
use pipeline::transform::hog::Hog;

/// Added to a patch's variance when its pixels are normalised, as in the reference implementation.
pub(crate) const PATCH_EPSILON: f64 = 1e-6;

/// Added to the standard deviation of a patch's channel when its pixels are normalised channel by
/// channel. VideoMAE adds 1e-6 to that of pixels in [0, 1]; pixels here are `(x - MEAN) / STD` of
/// these, so the deviation is larger by `1 / STD`.
pub(crate) const CHANNEL_EPSILON: f64 = 1e-6 / STD as f64;

/// The prediction target of a batch: [`MaeConfig::target_of_clips`].
#[derive(Debug, Clone)]
pub struct Target {
    /// `[clips, tokens, values]`: pixels ordered frame, row, column, channel, or histograms in the
    /// order of [`pipeline::transform::TargetForm::Hog`].
    pub values: Tensor,
    /// Mean and standard deviation that were normalised away, `[clips, tokens, 1]`, or `[clips,
    /// tokens, 3]` per channel; `None` for raw pixels and histograms.
    pub statistics: Option<(Tensor, Tensor)>,
}

impl Target {
    /// Undoes the normalisation of patches: predictions in the scale of the clip's pixels. The
    /// model predicts neither mean nor deviation, so those of the true patches are used.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn denormalise(&self, predicted: &Tensor) -> Result<Tensor> {
        match &self.statistics {
            None => Ok(predicted.clone()),
            Some((mean, deviation)) => {
                // Values are ordered channel last.
                let (clips, tokens, channels) = mean.dims3()?;
                let statistics = |x: &Tensor| x.reshape((clips, tokens, 1, channels));
                let values = predicted.reshape((clips, tokens, (), channels))?;
                values
                    .broadcast_mul(&statistics(deviation)?)?
                    .broadcast_add(&statistics(mean)?)?
                    .reshape(predicted.shape())
            }
        }
    }
}

impl MaeConfig {
    /// All patches of clips `[clips, 3, frames, size, size]`: the encoder's input, `[clips, tokens,
    /// 3 * tubelet * patch * patch]`, and [`Self::pixels`].
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn patches(&self, clips: &Tensor) -> Result<[Tensor; 2]> {
        Ok([
            channel_first_patches(clips, self.grid)?,
            self.pixels(clips)?,
        ])
    }

    /// The target of all tokens of `clips`, in the shape that [`super::Mae::forward`] takes.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn target_of_clips(&self, clips: &Tensor) -> Result<Target> {
        match self.target {
            TargetKind::Pixels => self.target_of_patches(&self.pixels(clips)?),
            TargetKind::Hog => self.target_of_patches(&self.histograms(clips)?),
        }
    }

    /// The pixels of the predicted frames, `[clips, tokens, slices * patch * patch * 3]`, of clips
    /// in the shape that [`super::Mae::forward`] takes.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn pixels(&self, clips: &Tensor) -> Result<Tensor> {
        channel_last_patches(&self.predicted_frames(clips)?, self.grid, self.slices)
    }

    /// `[clips, 3, time * slices, size, size]`
    fn predicted_frames(&self, clips: &Tensor) -> Result<Tensor> {
        clips.index_select(&Tensor::new(self.target_frames(), clips.device())?, 2)
    }

    /// Histograms of the predicted frames, `[clips, tokens, values]`, computed on the host by the
    /// loader's code. Batches of patches carry their own.
    fn histograms(&self, clips: &Tensor) -> Result<Tensor> {
        let MaeConfig { grid, slices, .. } = *self;
        let frames = self.predicted_frames(clips)?;
        let count = clips.dim(0)?;
        let area = grid.size * grid.size;
        let targets = grid.time() * slices;
        let pixels = frames.flatten_all()?.to_vec1::<f32>()?;
        let values = self.target_values();
        let mut hog = Hog::default();
        let mut out = vec![0f32; count * grid.tokens() * values];
        for (clip, target) in
            (0..count).flat_map(|clip| (0..targets).map(move |target| (clip, target)))
        {
            let plane = |channel: usize| {
                &pixels[((clip * 3 + channel) * targets + target) * area..][..area]
            };
            hog.compute([plane(0), plane(1), plane(2)], grid.size, grid.patch);
            for place in 0..grid.space() {
                let token = clip * grid.tokens() + target / slices * grid.space() + place;
                let out = &mut out[token * values + target % slices * (values / slices)..];
                out.iter_mut()
                    .zip(hog.patch(place / grid.side(), place % grid.side()))
                    .for_each(|(out, value)| *out = value);
            }
        }
        Tensor::from_vec(out, (count, grid.tokens(), values), clips.device())
    }

    /// The target from the loader's `values`, `[clips, tokens, values]`, of all tokens of a clip or
    /// of the predicted ones.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn target_of_patches(&self, values: &Tensor) -> Result<Target> {
        if !self.normalise_target {
            return Ok(Target {
                values: values.clone(),
                statistics: None,
            });
        }
        if self.conventions.normalise_per == NormalisePer::Channel {
            return normalise_channels(values);
        }
        let mean = values.mean_keepdim(D::Minus1)?;
        let deviation = (values.var_keepdim(D::Minus1)? + PATCH_EPSILON)?.sqrt()?;
        let values = values.broadcast_sub(&mean)?.broadcast_div(&deviation)?;
        Ok(Target {
            values,
            statistics: Some((mean, deviation)),
        })
    }
}

/// Normalises each channel of pixels `[clips, tokens, pixels * 3]` by its own mean and unbiased
/// deviation: VideoMAE's target.
fn normalise_channels(values: &Tensor) -> Result<Target> {
    let (clips, tokens, count) = values.dims3()?;
    let pixels = values.reshape((clips, tokens, count / 3, 3))?;
    let mean = pixels.mean_keepdim(2)?;
    let deviation = (pixels.var_keepdim(2)?.sqrt()? + CHANNEL_EPSILON)?;
    let values = pixels
        .broadcast_sub(&mean)?
        .broadcast_div(&deviation)?
        .reshape((clips, tokens, count))?;
    Ok(Target {
        values,
        statistics: Some((mean.squeeze(2)?, deviation.squeeze(2)?)),
    })
}
