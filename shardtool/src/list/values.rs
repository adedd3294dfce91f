//! Times, splits and labels as lists write them.

use super::Bound;
use pipeline::video::discover::VIDEO_EXTENSIONS;

/// Extensions of files that accompany videos and are none.
const OTHER_EXTENSIONS: &[&str] = &[
    "aac", "ass", "bin", "bmp", "csv", "flac", "gz", "h5", "hdf5", "html", "jpeg", "jpg", "json",
    "jsonl", "lock", "m4a", "md", "md5", "mp3", "npy", "npz", "ogg", "opus", "parquet", "part",
    "pkl", "png", "pt", "pth", "srt", "sub", "tar", "tmp", "toml", "tsv", "txt", "vtt", "wav",
    "webp", "xml", "yaml", "yml", "zip",
];

/// What a file is by the ending of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A video.
    Video,
    /// Unknown.
    Unknown,
    /// No video.
    Other,
}

/// Returns the name without its extension, and what the extension stands for. Names that begin with
/// their only dot have none.
pub fn split_extension(name: &str) -> (&str, Kind) {
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    let Some(dot) = name[start..].rfind('.').filter(|&dot| dot > 0) else {
        return (name, Kind::Unknown);
    };
    let (stem, extension) = (&name[..start + dot], &name[start + dot + 1..]);
    let is_in = |list: &[&str]| list.iter().any(|one| extension.eq_ignore_ascii_case(one));
    if is_in(VIDEO_EXTENSIONS) || is_in(&["gif"]) {
        (stem, Kind::Video)
    } else if is_in(OTHER_EXTENSIONS) {
        (stem, Kind::Other)
    } else {
        (stem, Kind::Unknown)
    }
}

/// Whether the name ends like that of a video.
pub fn is_video_name(name: &str) -> bool {
    split_extension(name).1 == Kind::Video
}

/// Parses a time in seconds, or as `HH:MM:SS.ff` or `MM:SS.ff`.
///
/// # Errors
/// With what is wrong, to be written after the line's place.
pub fn seconds(text: &str) -> Result<f64, String> {
    let what = |problem: &str| format!("has the time {text}, {problem}");
    let mut total = 0.0;
    let parts: Vec<&str> = text.split(':').collect();
    let is_clock = parts.len() > 1;
    for (index, part) in parts.iter().enumerate() {
        let is_last = index + 1 == parts.len();
        let digits = |byte: u8| byte.is_ascii_digit() || (is_last && byte == b'.');
        let number: f64 = part
            .parse()
            .map_err(|_| what("which is no number of seconds and no HH:MM:SS.ff"))?;
        if is_clock && (parts.len() > 3 || !part.bytes().all(digits)) {
            return Err(what("which is not of the form HH:MM:SS.ff"));
        }
        if is_clock && index > 0 && number >= 60.0 {
            return Err(what("which has 60 or more minutes or seconds"));
        }
        total = total * 60.0 + number;
    }
    if !total.is_finite() {
        return Err(what("which is not finite"));
    }
    if total < 0.0 {
        return Err(what("which is negative"));
    }
    Ok(total)
}

/// Parses the number of a frame.
///
/// # Errors
/// With what is wrong, to be written after the line's place.
pub fn frame(text: &str) -> Result<u64, String> {
    // Columns with gaps are written as decimals by pandas.
    let digits = text.strip_suffix(".0").unwrap_or(text);
    digits.parse().map_err(|_| {
        let problem = match text.starts_with('-') {
            true => "is negative",
            false => "is no whole number",
        };
        format!("has the frame {text}, which {problem}")
    })
}

/// Returns why a segment has no extent; none if it has one.
pub fn emptiness(start: Option<Bound>, end: Option<Bound>) -> Option<String> {
    let empty = |start: String, end: String| {
        Some(format!(
            "an empty segment: it starts at {start} and ends at {end}"
        ))
    };
    match (start, end) {
        (Some(Bound::Seconds(start)), Some(Bound::Seconds(end))) if end <= start => {
            empty(format!("{start} s"), format!("{end} s"))
        }
        (None, Some(Bound::Seconds(end))) if end <= 0.0 => {
            empty("0 s".to_owned(), format!("{end} s"))
        }
        (Some(Bound::Frame(start)), Some(Bound::Frame(end))) if end <= start => {
            empty(format!("frame {start}"), format!("frame {end}"))
        }
        (None, Some(Bound::Frame(0))) => empty("frame 0".to_owned(), "frame 0".to_owned()),
        _ => None,
    }
}

/// Returns the common name of a split: `train`, `val` or `test`; others remain as they are.
pub fn split(text: &str) -> String {
    known_split(text).map_or_else(|| text.to_owned(), str::to_owned)
}

/// Returns the common name of a split that has one.
pub fn known_split(text: &str) -> Option<&'static str> {
    Some(match text.to_ascii_lowercase().as_str() {
        "train" | "training" => "train",
        "val" | "valid" | "validation" | "validate" | "dev" => "val",
        "test" | "testing" => "test",
        _ => return None,
    })
}

/// Returns the split of which the name of a file speaks: `trainlist01.txt`. None if it speaks of
/// several.
pub fn split_of_file(name: &str) -> Option<&'static str> {
    let words = name.split(|c: char| !c.is_ascii_alphabetic());
    let mut found = None;
    for word in words {
        let word = word.to_ascii_lowercase();
        let stem = word.strip_suffix("list").or(word.strip_suffix("set"));
        let Some(split) = known_split(stem.unwrap_or(&word)).filter(|_| word != "dev") else {
            continue;
        };
        if found.is_some_and(|other| other != split) {
            return None;
        }
        found = Some(split);
    }
    found
}

/// Whether `label` is an integer of any size, or one with `.0`.
pub fn is_number(label: &str) -> bool {
    let digits = label.strip_prefix(['-', '+']).unwrap_or(label);
    let digits = digits.strip_suffix(".0").unwrap_or(digits);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}
