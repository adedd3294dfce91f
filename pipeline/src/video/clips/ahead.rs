//! Frames with the change from the one before. Whether a scene begins at a frame is known only
//! after the next few, so that many are decoded ahead of the one that is returned.

use crate::video::VideoError;
use crate::video::decode::{DecodedFrame, VideoDecoder};
use crate::video::measure::cuts::{Change, CutFinder};
use crate::video::measure::picture::SmallPicture;
use schemas::manifest::SceneDetector;
use std::collections::VecDeque;

/// Decodes frames and measures the changes between them.
pub(super) struct Ahead {
    finder: CutFinder,
    picture: SmallPicture,
    /// Frames whose changes are not decided yet, and those that are decided and not returned.
    frames: VecDeque<DecodedFrame>,
    changes: VecDeque<Change>,
    /// The result of the decoder after the last frame.
    end: Option<Result<(), VideoError>>,
}

impl Ahead {
    pub(super) fn new(detector: Option<SceneDetector>) -> Self {
        Self {
            finder: CutFinder::new(detector),
            picture: SmallPicture::default(),
            frames: VecDeque::new(),
            changes: VecDeque::new(),
            end: None,
        }
    }

    /// Returns the next frame of `decoder` with its change, or `None` at the end.
    ///
    /// # Errors
    /// Those of [`VideoDecoder::next_frame`], after the frames before them.
    pub(super) fn next(
        &mut self,
        decoder: &mut VideoDecoder,
    ) -> Result<Option<(DecodedFrame, Change)>, VideoError> {
        loop {
            if let Some(change) = self.changes.pop_front() {
                let frame = self.frames.pop_front();
                return Ok(frame.map(|frame| (frame, change)));
            }
            if let Some(end) = &self.end {
                return end.clone().map(|()| None);
            }
            match decoder.next_frame() {
                Ok(Some(frame)) => {
                    frame.sample_into(&mut self.picture)?;
                    self.changes.extend(self.finder.push(&self.picture));
                    self.frames.push_back(frame);
                }
                end => {
                    self.end = Some(end.map(drop));
                    while let Some(change) = self.finder.finish() {
                        self.changes.push_back(change);
                    }
                }
            }
        }
    }
}
