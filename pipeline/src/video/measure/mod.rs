//! Measures of video: the changes between source frames, by which cuts are found, and the scores
//! of clips.
//!
//! - [`picture`]: a frame at a fixed grid of points; [`cuts`]: the changes between such pictures,
//!   and the frames at which scenes begin.
//! - [`scores`]: scores of the frames of a clip; `shrink`: area averages of luma; `motion`: block
//!   matching; `phash`: perceptual hashes.

pub mod cuts;
mod motion;
mod phash;
pub mod picture;
pub mod scores;
mod shrink;
