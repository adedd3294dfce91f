//! An animation of a clip under several masks: a row of three panels per mask, the original, the
//! visible patches, and the reconstruction.

use super::{GAP, GAP_COLOR, MaskedView, enlargement, percent};
use crate::plot::canvas::{self, Align, Letters};
use image::codecs::gif::{GifEncoder, Repeat};
use image::imageops::replace;
use image::{Delay, DynamicImage, Frame, ImageError, Rgb, RgbImage};
use pipeline::frames::Color;
use pipeline::video::VideoError;
use pipeline::video::encode::H264Writer;
use schemas::geometry::FrameSize;
use schemas::shard::{ColorMatrix, ColorRange};
use std::path::Path;

/// Minimum width of a frame.
const LEAST_FRAME: u32 = 144;

/// Height of the captions above a row of panels.
const CAPTION: u32 = 22;

const INK: Rgb<u8> = Rgb([36, 40, 46]);

/// Quality of a GIF's palette: 1 is best and slowest, 30 fastest.
const GIF_SPEED: i32 = 5;

/// Minimum duration of an H.264 file, which repeats a short clip; a GIF repeats by itself.
const LEAST_SECONDS: f64 = 6.0;

/// Draws the frames of an animation of views of the same clip; all have the same size.
///
/// # Panics
/// When the views have different numbers of frames, or there is none.
pub fn animation(views: &[MaskedView]) -> Vec<RgbImage> {
    let times = enlargement(views[0].original[0].width(), LEAST_FRAME);
    let views: Vec<MaskedView> = views.iter().map(|view| view.enlarged(times)).collect();
    let side = views[0].original[0].width();
    let gap = GAP as u32;
    // Width and height are even: H.264's chroma has half the resolution.
    let even = |pixels: u32| pixels.next_multiple_of(2);
    let width = even(3 * (side + gap) + gap);
    let height = even(views.len() as u32 * (CAPTION + side + gap));
    let draw = |frame: usize| {
        let mut picture = RgbImage::from_pixel(width, height, GAP_COLOR);
        for (view, top) in views
            .iter()
            .zip((0..).step_by((CAPTION + side + gap) as usize))
        {
            let masked = format!("{} % masked", percent(view.ratio));
            let panels = [
                ("original", &view.original),
                (masked.as_str(), &view.masked),
                ("reconstruction", &view.reconstruction),
            ];
            for ((caption, film), left) in panels
                .into_iter()
                .zip((gap..).step_by((side + gap) as usize))
            {
                let text_top = top + (CAPTION - Letters::Small.height()) / 2;
                canvas::text(
                    &mut picture,
                    (left + side / 2, text_top),
                    Align::Middle,
                    Letters::Small,
                    INK,
                    caption,
                );
                replace(
                    &mut picture,
                    &film[frame],
                    i64::from(left),
                    i64::from(top + CAPTION),
                );
            }
        }
        picture
    };
    (0..views[0].original.len()).map(draw).collect()
}

/// Encodes `frames` as a GIF of `fps` frames per second, which repeats forever.
///
/// # Errors
/// When a frame is too large for GIF.
pub fn gif(frames: &[RgbImage], fps: f64) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new_with_speed(&mut bytes, GIF_SPEED);
    encoder.set_repeat(Repeat::Infinite)?;
    // GIF counts hundredths of a second, and viewers treat less than two as ten.
    let hundredths = (100.0 / fps).round().clamp(2.0, 6000.0) as u32;
    for frame in frames {
        let frame = DynamicImage::ImageRgb8(frame.clone()).into_rgba8();
        encoder.encode_frame(Frame::from_parts(
            frame,
            0,
            0,
            Delay::from_numer_denom_ms(10 * hundredths, 1),
        ))?;
    }
    drop(encoder);
    Ok(bytes)
}

/// Number of times that an H.264 file shows a clip of `frames` frames.
pub fn mp4_rounds(frames: usize, fps: f64) -> usize {
    ((LEAST_SECONDS * fps / frames.max(1) as f64).ceil() as usize).clamp(1, 100)
}

/// Writes `frames` as an H.264 file of `fps` frames per second, repeated [`mp4_rounds`] times.
///
/// # Errors
/// When GStreamer or its encoder is missing, or the file cannot be written.
///
/// # Panics
/// When `frames` is empty.
pub fn mp4(path: &Path, frames: &[RgbImage], fps: f64) -> Result<(), VideoError> {
    let size = FrameSize {
        width: frames[0].width() as usize,
        height: frames[0].height() as usize,
    };
    let color = Color {
        range: ColorRange::Limited,
        matrix: ColorMatrix::Bt601,
    };
    let mut writer = H264Writer::create_with(path, size, fps, color)?;
    let planes: Vec<Vec<u8>> = frames.iter().map(planes).collect();
    for _ in 0..mp4_rounds(frames.len(), fps) {
        planes.iter().try_for_each(|frame| writer.push(frame))?;
    }
    writer.finish()
}

/// Converts a picture with even width and height to limited-range I420 of ITU-R BT.601
/// (coefficients of ITU-T H.273); chroma is the mean of four pixels.
fn planes(picture: &RgbImage) -> Vec<u8> {
    let (width, height) = picture.dimensions();
    // Kr 0.299 and Kb 0.114; 219 steps of luma from 16, 224 of chroma about 128.
    let luma = |[red, green, blue]: [f32; 3]| 0.299 * red + 0.587 * green + 0.114 * blue;
    let values = |x: u32, y: u32| picture.get_pixel(x, y).0.map(f32::from);
    let mut planes: Vec<u8> = Vec::with_capacity((width * height) as usize * 3 / 2);
    for y in 0..height {
        planes
            .extend((0..width).map(|x| (16.0 + luma(values(x, y)) * 219.0 / 255.0).round() as u8));
    }
    for (channel, difference) in [(2, 2.0 * (1.0 - 0.114)), (0, 2.0 * (1.0 - 0.299))] {
        for y in (0..height).step_by(2) {
            planes.extend((0..width).step_by(2).map(|x| {
                let four = [(0, 0), (1, 0), (0, 1), (1, 1)].map(|(right, down)| {
                    let rgb = values(x + right, y + down);
                    (rgb[channel] - luma(rgb)) / difference
                });
                (128.0 + four.iter().sum::<f32>() / 4.0 * 224.0 / 255.0).round() as u8
            }));
        }
    }
    planes
}
