//! Odd video files, made on the spot: a table of what the ffmpeg command line (5.1) makes of its
//! test pictures, and what ffmpeg itself then reads from each file.
//!
//! What is expected of a file comes from ffmpeg and ffprobe only. The frames to compare with are
//! those of `ffmpeg -i FILE` with [`Case::oracle_arguments`] and `-f rawvideo -`. There is no
//! `-map`: the stream that ffmpeg chooses by itself is the right one.

mod edits;
mod table;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

pub use table::CORPUS;

/// One file of the corpus.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// What the file is there for.
    pub group: Group,
    /// The file's name, with its ending.
    pub name: &'static str,
    /// How it is made.
    pub make: Make,
    /// What is done with its bytes afterwards.
    pub edit: Option<Edit>,
    /// How the frames compare with ffmpeg's.
    pub expect: Expect,
    /// What else ffmpeg and ffprobe say, where it is not the default that each [`Fact`] names.
    pub facts: &'static [Fact],
}

/// A change of a file's bytes.
pub type Edit = fn(Vec<u8>) -> Vec<u8>;

/// What a file is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// The coding of the pictures.
    Codec,
    /// The wrapping.
    Container,
    /// Range, matrix, transfer, primaries; pixels that are not 8 bits of 4:2:0.
    Color,
    /// Times of frames.
    Times,
    /// Size, shape of pixels, rotation.
    Shape,
    /// What else is in the file, and which stream is the right one.
    Tracks,
    /// Not a video that can be read.
    Refused,
    /// Not a case by itself: other files are made of it.
    Material,
}

/// How a file is made.
#[derive(Debug, Clone, Copy)]
pub enum Make {
    /// By ffmpeg, with all arguments but the output file, in pieces, separated by blanks. `@name`
    /// stands for the path of the file of that name, which comes earlier in the table.
    Ffmpeg(&'static [&'static str]),
    /// The files of these names, which come earlier in the table, one after the other.
    Joined(&'static [&'static str]),
    /// These bytes.
    Bytes(&'static [u8]),
}

/// How the frames of a file compare with those of ffmpeg, at the file's own size and range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Equal to the byte: ffmpeg decodes to yuv420p or yuvj420p, and nothing is converted.
    Exact,
    /// No sample differs by more than this: ffmpeg's swscale converts, and the row's section says
    /// from what. Everything is drawn smoothly, so that filters of chroma hardly differ.
    Within(u8),
    /// Equal to the byte as far as ffmpeg reads, which is not to the end of the file: more frames
    /// may follow.
    First,
    /// Luma is equal to ffmpeg's `-pix_fmt gray`, and chroma is 128: without chroma, swscale would
    /// take the luma for full range and change it on the way to yuv420p.
    Gray,
    /// Count and size only: the fields of interlaced frames are not kept as ffmpeg keeps them.
    FramesOnly,
    /// Refused, with this in the reason.
    Rejected(&'static str),
}

/// One thing that ffmpeg or ffprobe says of a file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fact {
    /// How many frames ffmpeg gives with `-fps_mode passthrough`; 66 by default.
    Frames(u32),
    /// Width and height of ffmpeg's frames, upright; 160x120 by default.
    Size(u32, u32),
    /// `full` or `limited`, of the frames to compare with; limited by default, where the file says
    /// nothing, and for RGB.
    Range(&'static str),
    /// ffprobe's `color_space`; not tested by default.
    Matrix(&'static str),
    /// ffprobe's `color_transfer`; not tested by default.
    Transfer(&'static str),
    /// ffprobe's `color_primaries`; not tested by default.
    Primaries(&'static str),
    /// The shape of a pixel as stored, before rotation; 1:1 by default and where the file says
    /// nothing.
    Aspect(u32, u32),
    /// By how many degrees clockwise the stored frame is turned to be upright (ffprobe counts the
    /// other way), apart from mirroring; 0 by default.
    Rotation(u32),
    /// The frame of this number (from 0) comes this many milliseconds after the one before it.
    Gap(u32, u32),
    /// A line of `ffprobe -show_format -show_streams -show_chapters`.
    Says(&'static str),
}

impl Case {
    /// How many frames ffmpeg gives.
    pub fn frames(&self) -> u32 {
        self.fact(|fact| {
            if let Fact::Frames(frames) = fact {
                Some(frames)
            } else {
                None
            }
        })
        .unwrap_or(66)
    }

    /// Width and height of ffmpeg's frames.
    pub fn size(&self) -> (u32, u32) {
        self.fact(|fact| {
            if let Fact::Size(width, height) = fact {
                Some((width, height))
            } else {
                None
            }
        })
        .unwrap_or((160, 120))
    }

    /// `full` or `limited`.
    pub fn range(&self) -> &'static str {
        self.fact(|fact| {
            if let Fact::Range(range) = fact {
                Some(range)
            } else {
                None
            }
        })
        .unwrap_or("limited")
    }

    /// The shape of a pixel as stored.
    pub fn aspect(&self) -> (u32, u32) {
        self.fact(|fact| {
            if let Fact::Aspect(wide, high) = fact {
                Some((wide, high))
            } else {
                None
            }
        })
        .unwrap_or((1, 1))
    }

    /// Degrees clockwise from the stored frame to the upright one.
    pub fn rotation(&self) -> u32 {
        self.fact(|fact| {
            if let Fact::Rotation(degrees) = fact {
                Some(degrees)
            } else {
                None
            }
        })
        .unwrap_or(0)
    }

    fn fact<T>(&self, take: impl Fn(Fact) -> Option<T>) -> Option<T> {
        self.facts.iter().copied().find_map(take)
    }

    /// What ffmpeg is given after the input for the frames to compare with: each frame once, at
    /// its own size, without a change of range.
    pub fn oracle_arguments(&self) -> [&'static str; 4] {
        let format = match (self.expect, self.range()) {
            (Expect::Gray, _) => "gray",
            (_, "full") => "yuvj420p",
            _ => "yuv420p",
        };
        ["-fps_mode", "passthrough", "-pix_fmt", format]
    }

    /// The names of the files that this one is made of.
    pub fn sources(&self) -> Vec<&'static str> {
        match self.make {
            Make::Ffmpeg(pieces) => words(pieces)
                .filter_map(|word| word.strip_prefix('@'))
                .collect(),
            Make::Joined(names) => names.to_vec(),
            Make::Bytes(_) => Vec::new(),
        }
    }

    /// Makes the file in `dir`, where the files that it is made of already are.
    pub fn write(&self, dir: &Path) {
        let path = dir.join(self.name);
        match self.make {
            Make::Ffmpeg(pieces) => {
                let mut command = Command::new("ffmpeg");
                command
                    .args(["-v", "error", "-nostdin", "-y"])
                    .env("SVT_LOG", "0");
                for word in words(pieces) {
                    match word.strip_prefix('@') {
                        Some(name) => command.arg(dir.join(name)),
                        None => command.arg(word),
                    };
                }
                // Without random numbers and the time of day in the file.
                command
                    .args(["-fflags", "+bitexact"])
                    .arg(&path)
                    .stdin(Stdio::null());
                let output = command.output().expect("ffmpeg runs");
                let errors = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{}: {errors}", self.name);
            }
            Make::Joined(names) => {
                let read = |name| fs::read(dir.join(name)).expect("a file made earlier");
                let parts: Vec<Vec<u8>> = names.iter().map(read).collect();
                fs::write(&path, parts.concat()).expect("written");
            }
            Make::Bytes(bytes) => fs::write(&path, bytes).expect("written"),
        }
        if let Some(edit) = self.edit {
            let bytes = fs::read(&path).expect("the file just made");
            fs::write(&path, edit(bytes)).expect("written");
        }
    }
}

fn words(pieces: &'static [&'static str]) -> impl Iterator<Item = &'static str> {
    pieces
        .iter()
        .flat_map(|piece| piece.split_ascii_whitespace())
}

/// Makes the whole corpus in `dir`, with `threads` files at a time.
pub fn generate(dir: &Path, threads: usize) {
    fs::create_dir_all(dir).expect("a folder");
    // What a file is made of is made a round before it.
    let mut rounds: Vec<Vec<&Case>> = Vec::new();
    let mut round_of = HashMap::new();
    for case in CORPUS {
        let after = |name: &&str| round_of.get(*name).map(|round: &usize| round + 1);
        let sources = case.sources();
        let round = sources
            .iter()
            .map(|name| after(name).expect("earlier in the table"))
            .max();
        let round = round.unwrap_or(0);
        assert!(
            round_of.insert(case.name, round).is_none(),
            "{} twice",
            case.name
        );
        rounds.resize_with(rounds.len().max(round + 1), Vec::new);
        rounds[round].push(case);
    }
    for round in rounds {
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(case) = round.get(next.fetch_add(1, Ordering::Relaxed)) {
                        case.write(dir);
                    }
                });
            }
        });
    }
}
