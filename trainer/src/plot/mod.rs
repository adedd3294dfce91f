//! Pictures.
//!
//! - [`reconstruction`]: reconstructions of clips under masks, as strips and animations.
//! - [`confusion`]: confusion matrices. [`neighbours`]: nearest clips.
//! - `canvas`: lines, rectangles and text, for these and for the curves of a run.

pub(crate) mod canvas;
pub mod confusion;
pub mod neighbours;
pub mod reconstruction;

use image::{ImageFormat, RgbImage};
use std::io::{self, Cursor};

/// Encodes a picture as a PNG file.
///
/// # Errors
/// When the picture is too large for PNG.
pub fn png(picture: &RgbImage) -> io::Result<Vec<u8>> {
    let mut png = Cursor::new(Vec::new());
    picture
        .write_to(&mut png, ImageFormat::Png)
        .map_err(io::Error::other)?;
    Ok(png.into_inner())
}
