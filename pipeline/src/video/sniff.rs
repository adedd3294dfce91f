//! What a file is, by its first bytes and not by its name.

use super::media_type;
use gstreamer as gst;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Bytes that are looked at. Transport streams need a few kilobytes; the rest need less.
const SNIFF_BYTES: u64 = 64 << 10;

/// What the first bytes of a file say that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A container or stream that may hold video; its media type.
    Video(String),
    /// Something else; its media type, where it has a known one.
    Other(Option<String>),
    /// Nothing at all.
    Empty,
}

/// Looks at the first bytes of the file at `path` with GStreamer's type finders.
///
/// # Errors
/// When the file cannot be read.
///
/// # Panics
/// When GStreamer was not started ([`super::init`]).
pub fn sniff(path: &Path) -> io::Result<Content> {
    let mut start = Vec::new();
    File::open(path)?.take(SNIFF_BYTES).read_to_end(&mut start)?;
    if start.is_empty() {
        return Ok(Content::Empty);
    }
    let Ok((caps, _)) = gstreamer_base::functions::type_find_helper_for_data(gst::Object::NONE, &start) else {
        return Ok(Content::Other(None));
    };
    let media = media_type(&caps).to_owned();
    let holds_video =
        media.starts_with("video/") || matches!(media.as_str(), "application/ogg" | "application/vnd.rn-realmedia" | "application/mxf");
    Ok(if holds_video { Content::Video(media) } else { Content::Other(Some(media)) })
}

impl Content {
    /// Why a file of this content gives no frames; `None` for video.
    pub fn not_video_reason(&self) -> Option<String> {
        match self {
            Self::Video(_) => None,
            Self::Other(Some(media)) => Some(format!("not a video: its content is {media}")),
            Self::Other(None) => Some("not a video: its content is of no known type".to_owned()),
            Self::Empty => Some("the file is empty".to_owned()),
        }
    }
}
