//! Videos that are stored as pictures: folders of JPEG or PNG files, and animated GIFs.

use super::discover::{io_reason, numbered_pictures};
use super::facts::Facts;
use super::{VideoError, lock};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use image::codecs::gif::GifDecoder;
use image::{AnimationDecoder, ImageDecoder};
use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Bytes of pictures that wait to be decoded, at most, besides one picture.
const QUEUED_BYTES: u64 = 8 << 20;

/// Shortest delay of a GIF's picture that is followed, in milliseconds, and the delay in place of
/// shorter ones: those of ffmpeg and of browsers, which treat such delays as not set.
const MIN_GIF_DELAY_MS: u64 = 20;
const DEFAULT_GIF_DELAY_MS: u64 = 100;

/// A picture, and when it is shown.
struct Picture {
    bytes: Vec<u8>,
    pts_ns: u64,
    duration_ns: u64,
}

/// The source of a video that is stored as pictures, and its facts.
pub(super) struct PictureSource {
    pub(super) element: gst::Element,
    pub(super) facts: Facts,
}

/// Returns a source of the pictures at `path`, if that is a folder or a GIF. Pictures of a folder
/// are shown at `rate` per second.
///
/// # Errors
/// When a picture cannot be read.
pub(super) fn source(path: &Path, rate: f64) -> Result<Option<PictureSource>, VideoError> {
    if path.is_dir() {
        return folder_source(path, rate).map(Some);
    }
    let is_gif = File::open(path)
        .and_then(|mut file| {
            let mut start = [0; 4];
            std::io::Read::read_exact(&mut file, &mut start).map(|()| &start == b"GIF8")
        })
        .unwrap_or(false);
    if is_gif {
        gif_source(path).map(Some)
    } else {
        Ok(None)
    }
}

fn folder_source(path: &Path, rate: f64) -> Result<PictureSource, VideoError> {
    let files = numbered_pictures(path).map_err(|error| unreadable(io_reason(&error)))?;
    let first = files
        .first()
        .ok_or_else(|| unreadable("the folder holds no numbered pictures".to_owned()))?;
    let start = super::sniff::read_start(first).map_err(|error| unreadable(io_reason(&error)))?;
    let found = super::sniff::type_of(&start).map(|caps| super::media_type(&caps).to_owned());
    let media = match found.as_deref() {
        Some("image/jpeg") => "image/jpeg",
        Some("image/png") => "image/png",
        other => {
            return Err(unreadable(format!(
                "the pictures of a folder must be JPEG or PNG: {} is {}",
                first.display(),
                other.unwrap_or("of no known type")
            )));
        }
    };
    let caps = gst::Caps::builder(media)
        .field("parsed", true)
        .field("framerate", fraction(rate))
        .build();
    let time = move |index: usize| (index as f64 * 1e9 / rate).round() as u64;
    let pictures = files.into_iter().enumerate().map(move |(index, file)| {
        let bytes = fs::read(&file)
            .map_err(|error| format!("{}: {}", file.display(), io_reason(&error)))?;
        Ok(Picture {
            bytes,
            pts_ns: time(index),
            duration_ns: time(index + 1) - time(index),
        })
    });
    make_source(caps, move || Ok(pictures))
}

fn gif_source(path: &Path) -> Result<PictureSource, VideoError> {
    let file = File::open(path).map_err(|error| unreadable(io_reason(&error)))?;
    let decoder = GifDecoder::new(BufReader::new(file));
    let (width, height) = decoder
        .map_err(|error| unreadable(error.to_string()))?
        .dimensions();
    // Without a rate: each picture has a duration of its own. Transparent pixels are black.
    let caps = gst::Caps::builder("video/x-raw")
        .field("format", "RGBx")
        .field("width", width as i32)
        .field("height", height as i32)
        .field("framerate", gst::Fraction::new(0, 1))
        .build();
    let path = path.to_owned();
    make_source(caps, move || {
        let file = File::open(&path).map_err(|error| io_reason(&error))?;
        let decoder = GifDecoder::new(BufReader::new(file)).map_err(|error| error.to_string())?;
        let mut pts_ns = 0;
        Ok(decoder.into_frames().map(move |frame| {
            let frame = frame.map_err(|error| error.to_string())?;
            let (numerator, denominator) = frame.delay().numer_denom_ms();
            let delay_ms = u64::from(numerator) / u64::from(denominator.max(1));
            let delay_ms = if delay_ms < MIN_GIF_DELAY_MS {
                DEFAULT_GIF_DELAY_MS
            } else {
                delay_ms
            };
            let picture = Picture {
                bytes: frame.into_buffer().into_raw(),
                pts_ns,
                duration_ns: delay_ms * 1_000_000,
            };
            pts_ns += picture.duration_ns;
            Ok(picture)
        }))
    })
}

/// Creates a source of `caps` that a thread of its own fills with the pictures that `open` returns.
/// The thread ends with the pipeline.
fn make_source<P>(
    caps: gst::Caps,
    open: impl FnOnce() -> Result<P, String> + Send + 'static,
) -> Result<PictureSource, VideoError>
where
    P: Iterator<Item = Result<Picture, String>>,
{
    let source = gst_app::AppSrc::builder()
        .caps(&caps)
        .format(gst::Format::Time)
        .max_bytes(QUEUED_BYTES)
        .block(true)
        .build();
    let open = Arc::new(Mutex::new(Some(open)));
    // The first request for data comes when the pipeline runs.
    let callbacks = gst_app::AppSrcCallbacks::builder().need_data(move |source, _| {
        if let Some(open) = lock(&open).take() {
            let source = source.clone();
            std::thread::spawn(move || match open() {
                Ok(pictures) => push(&source, pictures),
                Err(error) => fail(&source, &error),
            });
        }
    });
    source.set_callbacks(callbacks.build());
    Ok(PictureSource {
        element: source.upcast(),
        facts: Facts::of_caps(caps),
    })
}

fn push(source: &gst_app::AppSrc, pictures: impl Iterator<Item = Result<Picture, String>>) {
    for picture in pictures {
        let picture = match picture {
            Ok(picture) => picture,
            Err(error) => return fail(source, &error),
        };
        let mut buffer = gst::Buffer::from_mut_slice(picture.bytes);
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(gst::ClockTime::from_nseconds(picture.pts_ns));
            buffer.set_duration(gst::ClockTime::from_nseconds(picture.duration_ns));
        }
        // A push fails only when the pipeline stops.
        if source.push_buffer(buffer).is_err() {
            return;
        }
    }
    // As above.
    let _ = source.end_of_stream();
}

/// Ends the stream: the pictures before the error are kept.
fn fail(source: &gst_app::AppSrc, error: &str) {
    gst::element_error!(source, gst::ResourceError::Read, ("{error}"));
    let _ = source.end_of_stream();
}

/// The rate as a fraction of thousandths.
fn fraction(rate: f64) -> gst::Fraction {
    gst::Fraction::approximate_f64(rate)
        .unwrap_or_else(|| gst::Fraction::new((rate * 1000.0).round() as i32, 1000))
}

fn unreadable(message: String) -> VideoError {
    VideoError::Stream {
        element: String::new(),
        message,
    }
}
