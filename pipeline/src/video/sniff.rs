//! Finds the type of a file by its first bytes, not by its name.

use super::{iso, media_type};
use gstreamer as gst;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Number of bytes that are read. Transport streams need a few kilobytes; the others need fewer.
pub(super) const SNIFF_BYTES: u64 = 64 << 10;

/// The GUID that WTV files begin with. GStreamer takes them for MPEG.
const WTV: [u8; 16] = [
    0xb7, 0xd8, 0x00, 0x20, 0x37, 0x49, 0xda, 0x11, 0xa6, 0x4e, 0x00, 0x07, 0xe9, 0x5e, 0xad, 0x8d,
];

/// The content of a file, by its first bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A container or stream that may hold video, with its media type.
    Video(String),
    /// A tar archive, which may hold videos.
    Archive,
    /// Moving pictures that cannot be decoded, with their description and what to do about them.
    Unsupported(&'static str),
    /// Anything else, with its media type if that is known.
    Other(Option<String>),
    /// An empty file.
    Empty,
}

/// Finds the type of the file at `path` by its first bytes, with GStreamer's type finders.
///
/// # Errors
/// When the file cannot be read.
///
/// # Panics
/// When GStreamer is not initialised ([`super::init`]).
pub fn sniff(path: &Path) -> io::Result<Content> {
    let content = sniff_bytes(&read_start(path)?);
    Ok(match content {
        // The brand of audio files, which some writers of video use, too.
        Content::Other(Some(media)) if media == "audio/x-m4a" && iso::has_video(path)? => {
            Content::Video(media)
        }
        Content::Other(Some(media)) if media == "image/gif" && is_animated_gif(path)? => {
            Content::Video(media)
        }
        content => content,
    })
}

/// As [`sniff`](fn@sniff), of a file that begins with `start`: types that more of the file would
/// tell are not videos.
pub(super) fn sniff_bytes(start: &[u8]) -> Content {
    if start.is_empty() {
        return Content::Empty;
    }
    if start.starts_with(&WTV) {
        return Content::Unsupported(
            "a recording of Windows TV (WTV), which is not read; copy it: ffmpeg -i FILE.wtv -c \
             copy FILE.ts",
        );
    }
    let Some(caps) = type_of(start) else {
        return Content::Other(None);
    };
    let media = media_type(&caps).to_owned();
    let holds_video = match media.as_str() {
        "application/ogg"
        | "application/vnd.rn-realmedia"
        | "application/mxf"
        | "application/x-3gp"
        | "application/x-yuv4mpeg"
        | "application/x-nuv" => true,
        "application/x-tar" => return Content::Archive,
        "image/webp" if is_animated_webp(start) => {
            return Content::Unsupported(
                "an animated WebP (image/webp), which is not read; make a video of it",
            );
        }
        other => other.starts_with("video/"),
    };
    if holds_video {
        Content::Video(media)
    } else {
        Content::Other(Some(media))
    }
}

/// Reads the first bytes of the file at `path`.
pub(super) fn read_start(path: &Path) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    File::open(path)?
        .take(SNIFF_BYTES)
        .read_to_end(&mut start)?;
    Ok(start)
}

/// Returns the type of data that begin with `start`, by GStreamer's type finders.
pub(super) fn type_of(start: &[u8]) -> Option<gst::Caps> {
    gstreamer_base::functions::type_find_helper_for_data(gst::Object::NONE, start)
        .ok()
        .map(|(caps, _)| caps)
}

/// Whether the GIF at `path` has several pictures, or is damaged. Blocks follow the header and the
/// global colour table: 0x21 an extension, 0x2c a picture, both ending in sub-blocks, of which an
/// empty one is the last (GIF89a, 15 to 26).
fn is_animated_gif(path: &Path) -> io::Result<bool> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    Ok(gif_pictures(&bytes).is_none_or(|pictures| pictures > 1))
}

/// Counts the pictures of a GIF, up to the second; none if it is damaged before that.
fn gif_pictures(bytes: &[u8]) -> Option<u32> {
    let table = |flags: u8| {
        if flags & 0x80 != 0 {
            3 << ((flags & 7) + 1)
        } else {
            0
        }
    };
    let mut at = 13 + table(*bytes.get(10)?);
    let mut pictures = 0;
    loop {
        match *bytes.get(at)? {
            0x21 => at += 2,
            0x2c => {
                pictures += 1;
                if pictures == 2 {
                    return Some(pictures);
                }
                at += 11 + table(*bytes.get(at + 9)?);
            }
            _ => return Some(pictures),
        }
        loop {
            let length = usize::from(*bytes.get(at)?);
            at += 1 + length;
            if length == 0 {
                break;
            }
        }
    }
}

/// Whether a WebP that begins with `bytes` is animated: bit 1 of the flags of its `VP8X` chunk.
fn is_animated_webp(bytes: &[u8]) -> bool {
    bytes.get(12..16) == Some(b"VP8X") && bytes.get(20).is_some_and(|flags| flags & 2 != 0)
}

impl Content {
    /// Returns why a file of this content has no frames; `None` for video.
    pub fn not_video_reason(&self) -> Option<String> {
        match self {
            Self::Video(_) => None,
            Self::Archive => {
                Some("a tar archive within a tar archive, which is not read".to_owned())
            }
            Self::Unsupported(what) => Some((*what).to_owned()),
            Self::Other(Some(media)) => Some(format!("not a video: its content is {media}")),
            Self::Other(None) => Some("not a video: its content is of no known type".to_owned()),
            Self::Empty => Some("the file is empty".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_of_a_gif_are_counted() {
        let picture = [0x2c, 0, 0, 0, 0, 1, 0, 1, 0, 0, 2, 1, 7, 0];
        let control = [0x21, 0xf9, 4, 0, 0, 0, 0, 0];
        let gif = |parts: &[&[u8]]| {
            [
                b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\0\0\0".as_slice(),
                &parts.concat(),
            ]
            .concat()
        };
        assert_eq!(gif_pictures(&gif(&[&control, &picture, &[0x3b]])), Some(1));
        assert_eq!(
            gif_pictures(&gif(&[&control, &picture, &control, &picture, &[0x3b]])),
            Some(2)
        );
        assert_eq!(gif_pictures(&gif(&[&control, &picture])), None, "cut short");
    }
}
