//! Decoded frames to the bytes that a shard stores, and back.

use super::delta;
use crate::frames::{Color, Frames};
use crate::transform::picture::to_rgb;
use crate::video::VideoError;
use crate::video::gop::{GopDecoder, encode_gop};
use schemas::geometry::FrameSize;
use schemas::manifest::BuildOptions;
use schemas::shard::{ColorMatrix, ColorRange, Payload};
use std::borrow::Cow;

/// Default of x264's constant rate factor: hard to tell from the original.
pub const DEFAULT_CRF: u32 = 18;

/// Encodes the tightly packed I420 `frames` of a clip as the payload that `options` ask for.
///
/// # Errors
/// When x264 is missing or fails.
pub fn encode<'a>(
    frames: &'a [u8],
    size: FrameSize,
    color: Color,
    options: &BuildOptions,
) -> Result<Cow<'a, [u8]>, VideoError> {
    Ok(match options.payload {
        Payload::I420 => Cow::Borrowed(frames),
        Payload::I420Delta => Cow::Owned(delta::apply(frames, size)),
        Payload::Rgb => {
            let each = Frames::I420(frames, color).each(size);
            Cow::Owned(
                each.flat_map(|frame| to_rgb(frame, size, size.width, size.height))
                    .collect(),
            )
        }
        Payload::H264 => Cow::Owned(encode_gop(
            frames,
            size,
            color,
            options.crf.unwrap_or(DEFAULT_CRF),
        )?),
    })
}

/// Checks that [`encode`] works with `options`.
///
/// # Errors
/// [`VideoError::Setup`] when x264 is missing.
pub fn check(options: &BuildOptions) -> Result<(), VideoError> {
    let size = FrameSize {
        width: 16,
        height: 16,
    };
    let color = Color {
        range: ColorRange::Limited,
        matrix: ColorMatrix::Bt601,
    };
    encode(&vec![128; size.frame_bytes()], size, color, options).map(drop)
}

/// What a payload is.
#[derive(Debug, Clone, Copy)]
pub struct PayloadFormat {
    /// How frames are stored.
    pub kind: Payload,
    /// Size of a frame.
    pub size: FrameSize,
    /// What samples of luma and chroma mean.
    pub color: Color,
}

/// Turns payloads into frames. Reuses its memory and its decoder from clip to clip.
#[derive(Debug, Default)]
pub struct PayloadDecoder {
    gop: Option<GopDecoder>,
    frames: Vec<u8>,
}

impl PayloadDecoder {
    /// Decodes the first `count` frames of a payload, of which differences have been undone.
    ///
    /// # Errors
    /// When the payload does not hold `count` frames of that size; [`VideoError::Setup`] when a
    /// plugin is missing.
    pub fn decode<'a>(
        &'a mut self,
        format: PayloadFormat,
        payload: &'a [u8],
        count: usize,
    ) -> Result<Frames<'a>, VideoError> {
        let PayloadFormat { kind, size, color } = format;
        let frames = match kind {
            Payload::I420 | Payload::I420Delta => Frames::I420(payload, color),
            Payload::Rgb => Frames::Rgb(payload),
            Payload::H264 => {
                let gop = match &mut self.gop {
                    Some(gop) => gop,
                    None => self.gop.insert(GopDecoder::new()?),
                };
                self.frames.clear();
                gop.decode(payload, size, count, &mut self.frames)?;
                Frames::I420(&self.frames, color)
            }
        };
        frames.window(0, count, size).ok_or_else(|| {
            let got = frames.bytes().len() / frames.frame_bytes(size).max(1);
            VideoError::Frame {
                reason: format!(
                    "it holds {got} frames of {}x{}, expected {count}",
                    size.width, size.height
                ),
            }
        })
    }
}
