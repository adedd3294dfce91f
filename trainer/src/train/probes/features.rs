//! Features of a frozen encoder, which probes are trained on.

use crate::backend::InferenceModel;
use crate::eval::videos::{VideoPrediction, VideoScores};
use crate::eval::{ClipOutput, EvaluateError, Scores, infer_all};
use crate::model::normalise;
use crate::ranks::Ranks;
use candle_core::{Device, Result as CandleResult, Tensor};
use half::bf16;
use half::slice::HalfFloatSliceExt;
use memmap2::Mmap;
use pipeline::loader::LoaderOptions;
use pipeline::sampling::sample::Views;
use pipeline::source::{Catalogue, WeightedSource};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

/// Tokens of clips in a temporary file, `[clips, tokens, width]` in bf16.
#[derive(Debug)]
struct TokenFile {
    file: BufWriter<File>,
    tokens: usize,
    width: usize,
}

impl TokenFile {
    /// Creates an empty file in the folder `dir`.
    ///
    /// # Errors
    /// When it cannot be created.
    fn create(dir: &Path, tokens: usize, width: usize) -> io::Result<Self> {
        Ok(Self {
            file: BufWriter::with_capacity(1 << 20, tempfile::tempfile_in(dir)?),
            tokens,
            width,
        })
    }
}

/// Features of clips, and their classes.
#[derive(Debug)]
pub struct Features {
    pub(super) width: usize,
    /// `[clips, width]`
    pub(super) means: Vec<f32>,
    pub(super) labels: Vec<u32>,
    /// Data set and number of each clip.
    pub(super) clips: Vec<(u32, u64)>,
    tokens: TokenFile,
    map: Option<Mmap>,
}

impl Features {
    /// Features of no clips yet, with their tokens to be written to `tokens`.
    const fn new(width: usize, tokens: TokenFile) -> Self {
        Self {
            width,
            means: Vec::new(),
            labels: Vec::new(),
            clips: Vec::new(),
            tokens,
            map: None,
        }
    }

    /// Adds a clip; one without a class is skipped.
    ///
    /// # Errors
    /// When the disk is full.
    fn push(&mut self, clip: &ClipOutput) -> io::Result<()> {
        let Some(label) = clip.label.and_then(|label| u32::try_from(label).ok()) else {
            return Ok(());
        };
        self.means.extend_from_slice(&clip.features);
        self.labels.push(label);
        self.clips.push((clip.set, clip.clip));
        let rounded: Vec<bf16> = clip
            .tokens
            .iter()
            .map(|&value| bf16::from_f32(value))
            .collect();
        self.tokens.file.write_all(bytemuck::cast_slice(&rounded))
    }

    /// Maps the tokens into memory, when all clips are added.
    ///
    /// # Errors
    /// When the disk is full.
    fn finish(mut self) -> io::Result<Self> {
        self.tokens.file.flush()?;
        if !self.labels.is_empty() {
            // SAFETY: the file has no name: no other process can write to it or truncate it.
            self.map = Some(unsafe { Mmap::map(self.tokens.file.get_ref()) }?);
        }
        Ok(self)
    }

    /// Number of clips.
    pub const fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no clips.
    pub const fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Scores of the probabilities of each clip, of `classes` classes.
    pub fn scores(&self, probabilities: &[Vec<f32>], classes: usize) -> Scores {
        let mut scores = Scores::new(classes);
        for (probabilities, &label) in probabilities.iter().zip(&self.labels) {
            scores.add(probabilities, Some(label as i32));
        }
        scores
    }

    /// Predictions of the videos, from the probabilities of each clip. `catalogues` are those of the
    /// data sets.
    pub fn videos(
        &self,
        probabilities: &[Vec<f32>],
        catalogues: Vec<Catalogue>,
    ) -> Vec<VideoPrediction> {
        let mut scores = VideoScores::new(catalogues);
        for ((probabilities, &label), &clip) in
            probabilities.iter().zip(&self.labels).zip(&self.clips)
        {
            scores.add(clip, Some(label as i32), probabilities);
        }
        scores.finish()
    }

    /// `[clips, width]`: the means of some clips.
    pub(super) fn means_of(&self, clips: &[usize]) -> CandleResult<Tensor> {
        let values: Vec<f32> = clips
            .iter()
            .flat_map(|&clip| &self.means[clip * self.width..][..self.width])
            .copied()
            .collect();
        Tensor::from_vec(values, (clips.len(), self.width), &Device::Cpu)
    }

    /// `[clips, tokens, width]`: the tokens of some clips, each normalised.
    pub(super) fn normal_tokens_of(&self, clips: &[usize]) -> CandleResult<Tensor> {
        let (tokens, width) = (self.tokens.tokens, self.tokens.width);
        let all: &[bf16] = bytemuck::cast_slice(self.map.as_deref().unwrap_or(&[]));
        let of_clip = tokens * width;
        let mut values = vec![0.0; clips.len() * of_clip];
        for (values, &clip) in values.chunks_exact_mut(of_clip).zip(clips) {
            all[clip * of_clip..][..of_clip].convert_to_f32_slice(values);
            values.chunks_exact_mut(width).for_each(normalise);
        }
        Tensor::from_vec(values, (clips.len(), tokens, width), &Device::Cpu)
    }
}

/// Runs the encoder, `width` wide, on every clip of `sets` with all `ranks`, in batches as `options`
/// says. Rank 0 gets the features, with the tokens in a temporary file in the folder `dir`;
/// `on_clips` gets the number of clips done at a time, `on_skipped` why a clip cannot be read.
///
/// # Errors
/// When too many clips are bad, the device fails, or the disk is full.
pub fn extract(
    (ranks, encoder): (&Ranks, &mut InferenceModel),
    (dir, width): (&Path, usize),
    sets: &Arc<[WeightedSource]>,
    options: LoaderOptions,
    mut on_clips: impl FnMut(usize),
    on_skipped: impl FnMut(&str),
) -> Result<Option<Features>, EvaluateError> {
    let options = LoaderOptions {
        memory: encoder.memory(),
        ..options.once(Views::ONE)
    };
    let tokens = options.format.grid.tokens();
    let mut infer = |batch| encoder.infer(batch, true);
    if !ranks.is_root() {
        infer_all(ranks, sets, options, infer, |_| Ok(()), |_| {})?;
        return Ok(None);
    }
    let unwritten = |error: io::Error| EvaluateError::Write(error.into());
    let file = TokenFile::create(dir, tokens, width).map_err(unwritten)?;
    let mut features = Features::new(width, file);
    let take = |clips: Vec<ClipOutput>| {
        on_clips(clips.len());
        clips
            .iter()
            .try_for_each(|clip| features.push(clip))
            .map_err(unwritten)
    };
    infer_all(ranks, sets, options, &mut infer, take, on_skipped)?;
    features.finish().map(Some).map_err(unwritten)
}
