//! Finds cuts: the frames at which a scene begins.
//!
//! Two detectors follow those of PySceneDetect 0.7, with its default settings:
//!
//! - `Content`: the content value, the mean change of hue, saturation and value from the frame
//!   before, is at least 27. Several such changes in less than 15 frames (flashes, shaking) are one
//!   cut, at the first of them. If they go on for longer, the last one is a cut, too.
//! - `Adaptive`: the content value is at least 15, and at least three times the mean of those of
//!   the two frames before and the two after, so that fast motion is no cut. A cut less than 15
//!   frames after the last one is dropped.
//!
//! The decision about a frame is made two frames later, or 15 by the content detector, which must
//! know that a change was the last one of many.

use super::picture::SmallPicture;
use schemas::manifest::SceneDetector;
use std::collections::VecDeque;

/// Content value from which on the content detector finds a cut.
const CONTENT_THRESHOLD: f64 = 27.0;

/// Content value from which on the adaptive detector may find a cut.
const ADAPTIVE_CONTENT: f64 = 15.0;

/// Ratio to the content values around it from which on the adaptive detector finds a cut.
const ADAPTIVE_RATIO: f64 = 3.0;

/// Mean content value below which the values around a frame count as zero.
const ADAPTIVE_ZERO: f64 = 0.00001;

/// Number of frames on either side that the adaptive detector compares a change with.
const WINDOW: usize = 2;

/// Least number of frames of a scene.
const MIN_SCENE: u64 = 15;

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Change {
    /// Mean absolute change of hue, saturation and value from the frame before; 0 for the first.
    pub content: f32,
    /// Whether a scene begins at this frame. Never so at the first.
    pub is_cut: bool,
}

/// Finds cuts in a stream of frames.
#[derive(Debug, Clone)]
pub struct CutFinder {
    detector: Option<SceneDetector>,
    last: Option<SmallPicture>,
    /// Content values of the frames around the next one to be decided on, in order.
    contents: VecDeque<f64>,
    /// Number of frames at the front of `contents` that were decided on.
    decided: usize,
    /// Index of the next frame to be decided on.
    frame: u64,
    /// Last cut; at first, the first frame.
    last_cut: u64,
    /// Last frame with a large change, for the content detector; at first, the first frame.
    last_large: u64,
    merging: Merging,
}

/// How the content detector merges large changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Merging {
    /// There was no cut yet: early changes are dropped.
    Never,
    /// The next change that comes too early begins to be merged.
    Idle,
    /// Changes are merged from this frame on.
    Since(u64),
}

impl CutFinder {
    /// Number of frames that are pushed after a frame before the decision about it.
    const fn delay(&self) -> usize {
        match self.detector {
            Some(SceneDetector::Content) => MIN_SCENE as usize,
            Some(SceneDetector::Adaptive) | None => WINDOW,
        }
    }

    /// Creates a finder. Without a detector, it finds no cuts but computes the content values.
    pub const fn new(detector: Option<SceneDetector>) -> Self {
        Self {
            detector,
            last: None,
            contents: VecDeque::new(),
            decided: 0,
            frame: 0,
            last_cut: 0,
            last_large: 0,
            merging: Merging::Never,
        }
    }

    /// Takes the next frame. Returns the decision about an earlier one, if there is one: one for
    /// each frame, in order.
    pub fn push(&mut self, picture: &SmallPicture) -> Option<Change> {
        let content = if let Some(last) = &mut self.last {
            let content = picture.change_from(last);
            last.copy_from(picture);
            content
        } else {
            self.last = Some(picture.clone());
            0.0
        };
        self.push_content(content)
    }

    /// Takes the content value of the next frame.
    fn push_content(&mut self, content: f64) -> Option<Change> {
        self.contents.push_back(content);
        if self.contents.len() - self.decided > self.delay() {
            self.decide()
        } else {
            None
        }
    }

    /// Returns the decisions about the last frames, one per call, then `None`.
    pub fn finish(&mut self) -> Option<Change> {
        self.decide()
    }

    fn decide(&mut self) -> Option<Change> {
        let content = *self.contents.get(self.decided)?;
        let is_cut = match self.detector {
            None => false,
            Some(SceneDetector::Content) => self.is_content_cut(content),
            Some(SceneDetector::Adaptive) => self.is_adaptive_cut(content),
        };
        if is_cut {
            self.last_cut = self.frame;
        }
        self.frame += 1;
        self.decided += 1;
        if self.decided > WINDOW {
            self.contents.pop_front();
            self.decided -= 1;
        }
        Some(Change {
            content: content as f32,
            is_cut,
        })
    }

    fn is_content_cut(&mut self, content: f64) -> bool {
        let is_large = content >= CONTENT_THRESHOLD;
        let is_apart = self.frame - self.last_large >= MIN_SCENE;
        let run_end = self.last_large;
        if is_large {
            self.last_large = self.frame;
        }
        match self.merging {
            Merging::Since(start) if is_large => {
                let mut following = self.contents.iter().skip(self.decided + 1);
                self.frame - start >= MIN_SCENE
                    && following.len() >= MIN_SCENE as usize
                    && following.all(|&content| content < CONTENT_THRESHOLD)
            }
            Merging::Since(start) => {
                // The frame `run_end` was a cut, and was found then.
                if is_apart && run_end - start >= MIN_SCENE {
                    self.merging = Merging::Idle;
                }
                false
            }
            _ if !is_large => false,
            Merging::Never | Merging::Idle if is_apart => {
                self.merging = Merging::Idle;
                true
            }
            Merging::Never => false,
            Merging::Idle => {
                self.merging = Merging::Since(self.frame);
                false
            }
        }
    }

    fn is_adaptive_cut(&mut self, content: f64) -> bool {
        // At either end, frames to compare with are missing.
        if self.contents.len() < 2 * WINDOW + 1 || self.decided < WINDOW {
            return false;
        }
        let around = self.contents.iter().enumerate();
        let sum: f64 = around
            .filter(|&(index, _)| index != self.decided)
            .map(|(_, &content)| content)
            .sum();
        let mean = sum / (2 * WINDOW) as f64;
        content >= ADAPTIVE_CONTENT
            && (mean < ADAPTIVE_ZERO || content / mean >= ADAPTIVE_RATIO)
            && self.frame - self.last_cut >= MIN_SCENE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::video::measure::picture::{Colors, Component};

    /// Returns the frames at which the detector finds cuts among content values: those given with
    /// their frames, and `rest` for all others of `frames` frames.
    fn cuts(
        detector: SceneDetector,
        frames: usize,
        rest: f64,
        values: &[(usize, f64)],
    ) -> Vec<usize> {
        let mut finder = CutFinder::new(Some(detector));
        let mut contents = vec![rest; frames];
        for &(frame, content) in values {
            contents[frame] = content;
        }
        let mut changes = Vec::new();
        for (index, &content) in contents.iter().enumerate() {
            let change = finder.push_content(content);
            assert_eq!(change.is_some(), index >= finder.delay());
            changes.extend(change);
        }
        changes.extend(std::iter::from_fn(|| finder.finish()));
        let found: Vec<f32> = changes.iter().map(|change| change.content).collect();
        let expected: Vec<f32> = contents.iter().map(|&content| content as f32).collect();
        assert_eq!(found, expected, "one decision per frame, in order");
        let cuts = changes.iter().enumerate();
        cuts.filter(|(_, change)| change.is_cut)
            .map(|(frame, _)| frame)
            .collect()
    }

    /// Returns large changes at the given frames.
    fn large(frames: impl IntoIterator<Item = usize>) -> Vec<(usize, f64)> {
        frames.into_iter().map(|frame| (frame, 50.0)).collect()
    }

    /// Returns a picture of one level.
    fn gray(level: u8) -> SmallPicture {
        let component = Component {
            data: &[level; 64],
            row_bytes: 8,
            pixel_bytes: 1,
            width: 8,
            height: 8,
            bits: 8,
            shift: 0,
        };
        let mut picture = SmallPicture::default();
        picture.sample([component; 3], Colors::Gray);
        picture
    }

    #[test]
    fn a_hard_cut_is_found_at_its_frame_and_a_fade_is_not() {
        for detector in [
            None,
            Some(SceneDetector::Content),
            Some(SceneDetector::Adaptive),
        ] {
            let mut finder = CutFinder::new(detector);
            // A cut at frame 20; a fade of 9 levels, which change the value by 3, from 40 on.
            let levels = (0..80).map(|frame: u8| match frame {
                0..20 => 0,
                20..40 => 120,
                _ => 120 - (frame - 39).min(13) * 9,
            });
            let pictures: Vec<SmallPicture> = levels.map(gray).collect();
            let mut changes: Vec<Change> = pictures
                .iter()
                .filter_map(|picture| finder.push(picture))
                .collect();
            assert_eq!(changes.len(), 80 - finder.delay());
            changes.extend(std::iter::from_fn(|| finder.finish()));
            assert_eq!(changes.len(), 80);
            assert_eq!(finder.finish(), None);
            let contents = [0, 19, 20, 21, 41].map(|frame| changes[frame].content);
            assert_eq!(contents, [0.0, 0.0, 40.0, 0.0, 3.0]);
            for (frame, change) in changes.iter().enumerate() {
                assert_eq!(change.is_cut, detector.is_some() && frame == 20, "{frame}");
            }
        }
    }

    #[test]
    fn thresholds_are_met_at_their_value() {
        let content = |value| cuts(SceneDetector::Content, 50, 1.0, &[(20, value)]);
        assert_eq!(content(27.0), [20]);
        assert_eq!(content(26.99), [0_usize; 0]);
        let adaptive = |rest, value| cuts(SceneDetector::Adaptive, 50, rest, &[(20, value)]);
        assert_eq!(adaptive(1.0, 15.0), [20]);
        assert_eq!(adaptive(1.0, 14.99), [0_usize; 0]);
        assert_eq!(adaptive(10.0, 30.0), [20]);
        assert_eq!(adaptive(10.0, 29.9), [0_usize; 0], "fast motion");
        assert_eq!(adaptive(0.0, 15.0), [20], "after a still");
    }

    #[test]
    fn flashes_are_one_cut() {
        // As PySceneDetect 0.7.2 finds them.
        let content = |values: &[(usize, f64)]| cuts(SceneDetector::Content, 120, 0.0, values);
        assert_eq!(content(&large([20, 22])), [20], "on and off");
        assert_eq!(
            content(&large([20, 22, 60])),
            [20, 60],
            "a cut after a flash"
        );
        assert_eq!(content(&large([20, 35])), [20, 35], "two scenes");
        assert_eq!(content(&large([20, 34])), [20], "too short a scene");
        assert_eq!(content(&large(30..41)), [30], "short shaking");
        assert_eq!(content(&large(30..51)), [30, 50], "long shaking");
        assert_eq!(content(&large([14])), [0_usize; 0], "too early");
        assert_eq!(content(&large([15])), [15]);
        assert_eq!(
            content(&large([10, 15, 40])),
            [40],
            "early ones are not merged"
        );
        assert_eq!(content(&large([119])), [119], "the last frame");
        let adaptive = |values: &[(usize, f64)]| cuts(SceneDetector::Adaptive, 120, 1.0, values);
        assert_eq!(adaptive(&large([20, 22])), [20]);
        assert_eq!(adaptive(&large([20, 34, 50])), [20, 50]);
        assert_eq!(adaptive(&large([20, 35])), [20, 35]);
        assert_eq!(adaptive(&large([14])), [0_usize; 0]);
        assert_eq!(adaptive(&large(30..51)), [0_usize; 0]);
        assert_eq!(adaptive(&large([117])), [117]);
        assert_eq!(
            adaptive(&large([118])),
            [0_usize; 0],
            "the two frames after are missing"
        );
    }

    #[test]
    fn merging_that_goes_on_ends_with_its_last_change() {
        // As PySceneDetect finds them.
        let found = cuts(
            SceneDetector::Content,
            120,
            0.0,
            &large([20, 25, 40, 45, 90]),
        );
        assert_eq!(found, [20, 45, 90], "and goes on alike");
    }

    #[test]
    fn short_streams_end() {
        for frames in 0..5 {
            for detector in [SceneDetector::Content, SceneDetector::Adaptive] {
                assert_eq!(cuts(detector, frames, 0.0, &[]), [0_usize; 0]);
            }
        }
    }
}
