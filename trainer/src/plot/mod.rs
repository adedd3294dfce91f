//! Pictures for people.
//!
//! - [`reconstruction`]: what a model makes of clips under masks, as strips and animations.
//! - [`confusion`]: confusion matrices. [`neighbours`]: the nearest clips.
//! - `canvas`: lines, areas and letters, for these and the curves of a run.

pub(crate) mod canvas;
pub mod confusion;
pub mod neighbours;
pub mod reconstruction;

use image::{ImageFormat, RgbImage};
use std::io::{self, Cursor};

/// The bytes of a PNG file.
///
/// # Errors
/// When the picture is too large for one.
pub fn png(picture: &RgbImage) -> io::Result<Vec<u8>> {
    let mut png = Cursor::new(Vec::new());
    picture.write_to(&mut png, ImageFormat::Png).map_err(io::Error::other)?;
    Ok(png.into_inner())
}
