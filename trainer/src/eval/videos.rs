//! Predictions of whole videos: the mean of the probabilities of their clips.

use super::{ClipOutput, Scores};
use pipeline::source::Catalogue;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a classifier predicts of a labelled video.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VideoPrediction {
    /// Path of the video, as it was given to the build.
    pub video: String,
    /// Its class.
    pub label: u32,
    /// `[classes]`: probabilities, the mean over its clips.
    pub probabilities: Vec<f32>,
}

impl VideoPrediction {
    /// The most probable class; of equal ones the first.
    pub fn predicted(&self) -> usize {
        Scores::most_probable(&self.probabilities)
    }
}

/// Sums the probabilities of clips by video.
#[derive(Debug)]
pub struct VideoScores {
    /// Of each data set.
    catalogues: Vec<Catalogue>,
    /// Of each video, by data set and number: the sum of probabilities, and its label.
    sums: BTreeMap<(u32, u32), (Vec<f32>, u32)>,
}

impl VideoScores {
    /// Sums of no clips yet, of data sets with these catalogues.
    pub const fn new(catalogues: Vec<Catalogue>) -> Self {
        Self {
            catalogues,
            sums: BTreeMap::new(),
        }
    }

    /// Adds clip `clip` of data set `set`. Without a label it is ignored.
    pub fn add(&mut self, (set, clip): (u32, u64), label: Option<i32>, probabilities: &[f32]) {
        let Some(label) = label.and_then(|label| u32::try_from(label).ok()) else {
            return;
        };
        let video = self.catalogues[set as usize].clips[clip as usize].video;
        let (sum, _) = self
            .sums
            .entry((set, video))
            .or_insert_with(|| (vec![0.0; probabilities.len()], label));
        sum.iter_mut()
            .zip(probabilities)
            .for_each(|(sum, &probability)| *sum += probability);
    }

    /// Adds the output of a classifier.
    pub fn add_output(&mut self, clip: &ClipOutput) {
        self.add((clip.set, clip.clip), clip.label, &clip.probabilities);
    }

    /// The predictions, in the order of the videos.
    pub fn finish(self) -> Vec<VideoPrediction> {
        let Self { catalogues, sums } = self;
        let prediction =
            |((set, video), (mut probabilities, label)): ((u32, u32), (Vec<f32>, u32))| {
                let sum: f32 = probabilities.iter().sum();
                probabilities
                    .iter_mut()
                    .for_each(|probability| *probability /= sum);
                VideoPrediction {
                    video: catalogues[set as usize].videos[video as usize].path.clone(),
                    label,
                    probabilities,
                }
            };
        sums.into_iter().map(prediction).collect()
    }
}

/// Scores of videos, of `classes` classes.
pub fn scores_of(videos: &[VideoPrediction], classes: usize) -> Scores {
    let mut scores = Scores::new(classes);
    for video in videos {
        scores.add(&video.probabilities, Some(video.label as i32));
    }
    scores
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline::source::{ClipOrigin, VideoOrigin};

    #[test]
    fn clips_of_a_video_are_averaged() {
        let video = |path: &str| VideoOrigin {
            path: path.to_owned(),
            blake3: None,
        };
        let clip = |video| ClipOrigin {
            video,
            number: 0,
            seconds: [0.0; 2],
        };
        let catalogue = Catalogue {
            videos: vec![video("a"), video("b")],
            clips: vec![clip(0), clip(0), clip(1)],
        };
        let mut scores = VideoScores::new(vec![catalogue]);
        scores.add((0, 0), Some(0), &[0.4, 0.6]);
        scores.add((0, 1), Some(0), &[0.8, 0.2]);
        scores.add((0, 2), Some(0), &[0.3, 0.7]);
        scores.add((0, 2), None, &[1.0, 0.0]);
        let videos = scores.finish();
        assert_eq!(videos.len(), 2);
        assert_eq!((&*videos[0].video, videos[0].label), ("a", 0));
        assert!((videos[0].probabilities[0] - 0.6).abs() < 1e-6);
        assert_eq!(
            [&videos[0], &videos[1]].map(VideoPrediction::predicted),
            [0, 1]
        );
        assert_eq!(scores_of(&videos, 2).metrics().top1, 0.5);
    }
}
