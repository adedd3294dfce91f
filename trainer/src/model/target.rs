//! What a model has to predict: pixels, as they are or normalised patch by patch, or histograms of gradients.

use super::embed::{channel_first_patches, channel_last_patches};
use super::mae::{MaeConfig, TargetKind};
use candle_core::{D, Result, Tensor};
use pipeline::hog::Hog;

/// Added to a patch's variance when its pixels are normalised, as in the reference.
pub(crate) const PATCH_EPSILON: f64 = 1e-6;

/// What the model has to predict: [`MaeConfig::target_of_clips`].
#[derive(Debug, Clone)]
pub struct Target {
    /// `[clips, tokens, values]`: pixels ordered frame, row, column, channel, or histograms as [`pipeline::transform::TargetForm::Hog`] orders them.
    pub values: Tensor,
    /// `[clips, tokens, 1]`: mean and standard deviation that were normalised away; none for raw pixels and for histograms.
    pub statistics: Option<(Tensor, Tensor)>,
}

impl Target {
    /// Undoes the patches' normalisation: predictions in the scale of the clip's pixels. The model does not predict mean and deviation, so they
    /// are borrowed from the true patches.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn denormalise(&self, predicted: &Tensor) -> Result<Tensor> {
        match &self.statistics {
            None => Ok(predicted.clone()),
            Some((mean, deviation)) => predicted.broadcast_mul(deviation)?.broadcast_add(mean),
        }
    }
}

impl MaeConfig {
    /// All patches of clips `[clips, 3, frames, size, size]`: as the encoder sees them, `[clips, tokens, 3 * tubelet * patch * patch]`, and [`Self::pixels`].
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn patches(&self, clips: &Tensor) -> Result<[Tensor; 2]> {
        Ok([channel_first_patches(clips, self.grid)?, self.pixels(clips)?])
    }

    /// The target for `clips`, as [`super::Mae::forward`] takes them, of all tokens.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn target_of_clips(&self, clips: &Tensor) -> Result<Target> {
        match self.target {
            TargetKind::Pixels => self.target_of_patches(&self.pixels(clips)?),
            TargetKind::Hog => self.target_of_patches(&self.histograms(clips)?),
        }
    }

    /// The pixels of the frames that are predicted, `[clips, tokens, slices * patch * patch * 3]`, of clips as [`super::Mae::forward`] takes them.
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

    /// Histograms of the frames that are predicted, `[clips, tokens, values]`. They are made on the host, by the loader's code: batches of patches bring their own.
    fn histograms(&self, clips: &Tensor) -> Result<Tensor> {
        let MaeConfig { grid, slices, .. } = *self;
        let frames = self.predicted_frames(clips)?;
        let (count, area, targets) = (clips.dim(0)?, grid.size * grid.size, grid.time() * slices);
        let pixels = frames.flatten_all()?.to_vec1::<f32>()?;
        let (values, mut hog) = (self.target_values(), Hog::default());
        let mut out = vec![0f32; count * grid.tokens() * values];
        for (clip, target) in (0..count).flat_map(|clip| (0..targets).map(move |target| (clip, target))) {
            let plane = |channel: usize| &pixels[((clip * 3 + channel) * targets + target) * area..][..area];
            hog.compute([plane(0), plane(1), plane(2)], grid.size, grid.patch);
            for place in 0..grid.space() {
                let token = clip * grid.tokens() + target / slices * grid.space() + place;
                let out = &mut out[token * values + target % slices * (values / slices)..];
                out.iter_mut().zip(hog.patch(place / grid.side(), place % grid.side())).for_each(|(out, value)| *out = value);
            }
        }
        Tensor::from_vec(out, (count, grid.tokens(), values), clips.device())
    }

    /// The target of patches of which the loader gives `values`, `[clips, tokens, values]`: all of a clip, or the predicted ones.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn target_of_patches(&self, values: &Tensor) -> Result<Target> {
        if !self.normalise_target {
            return Ok(Target { values: values.clone(), statistics: None });
        }
        let mean = values.mean_keepdim(D::Minus1)?;
        let deviation = (values.var_keepdim(D::Minus1)? + PATCH_EPSILON)?.sqrt()?;
        let values = values.broadcast_sub(&mean)?.broadcast_div(&deviation)?;
        Ok(Target { values, statistics: Some((mean, deviation)) })
    }
}
