//! The plan of a build by many machines: its parts, and which of them a machine builds.

use crate::inputs::{Input, Listed};
use crate::journal::xxh3_hex;
use anyhow::{Context, ensure};
use pipeline::store::{self, ObjectMeta, Url};
use pipeline::video::discover::VideoFile;
use schemas::manifest::{BuildOptions, PlanEntry, Rejected};
use serde::{Deserialize, Serialize};
use std::env;
use std::io::Read;
use std::path::{Path, PathBuf};

/// File name of the plan, in the output folder or place in a store.
pub const PLAN_FILE: &str = "plan.json";

/// Folder of the parts, beside the plan.
const PARTS: &str = "parts";

/// Version of the plan's form.
const VERSION: u32 = 1;

/// A plan.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    version: u32,
    /// Options of the build.
    pub options: BuildOptions,
    /// Names of the classes in the order of their numbers.
    pub classes: Vec<String>,
    /// Files that are not used.
    pub rejected: Vec<Rejected>,
    /// The parts, in order.
    pub parts: Vec<Part>,
}

/// A part of a plan.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Its videos, in order.
    pub videos: Vec<Video>,
}

/// A video of a plan.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Video {
    /// Its path, or its URL.
    path: String,
    /// Its path below the folder that was searched.
    relative: String,
    /// If it is in a store: its size, ETag, and time of modification in nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    object: Option<Object>,
    /// What of it is built.
    segments: Vec<Listed>,
    is_listed: bool,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Object {
    bytes: u64,
    etag: Option<String>,
    modified_ns: i64,
}

/// A plan that was read, with its hash.
pub struct Known {
    /// The plan.
    pub plan: Plan,
    xxh3: String,
    place: PathBuf,
}

impl Plan {
    /// Cuts `inputs`, of which each has a weight, into `parts` parts of about equal weight: each of
    /// them is a stretch of the inputs.
    ///
    /// # Errors
    /// When a path is not UTF-8.
    pub fn cut(
        options: BuildOptions,
        classes: Vec<String>,
        rejected: Vec<Rejected>,
        inputs: Vec<(Input, f64)>,
        parts: usize,
    ) -> anyhow::Result<Self> {
        let parts = parts.clamp(1, inputs.len().max(1));
        let all: f64 = inputs.iter().map(|(_, weight)| weight).sum();
        let count = inputs.len();
        let mut cut = Vec::new();
        cut.resize_with(parts, Part::default);
        let (mut part, mut before) = (0, 0.0);
        for (index, (input, weight)) in inputs.into_iter().enumerate() {
            // A video belongs where its middle lies, and each part gets one.
            let middle = (before + weight / 2.0) / all.max(f64::MIN_POSITIVE);
            let wanted = ((middle * parts as f64) as usize).min(parts - 1);
            let is_empty = cut[part].videos.is_empty();
            let must = parts - part > count - index;
            if !is_empty && (must || (wanted > part && part + 1 < parts)) {
                part += 1;
            }
            before += weight;
            cut[part].videos.push(Video::of(input)?);
        }
        Ok(Self {
            version: VERSION,
            options,
            classes,
            rejected,
            parts: cut,
        })
    }

    /// The file.
    pub fn to_json(&self) -> anyhow::Result<Vec<u8>> {
        Ok(serde_json::to_vec_pretty(self)?)
    }
}

impl Video {
    fn of(input: Input) -> anyhow::Result<Self> {
        let text = |path: &Path| {
            let text = path.to_str().map(str::to_owned);
            text.with_context(|| format!("{} is not UTF-8: rename it", path.display()))
        };
        let object = input.file.object.as_ref().map(|object| Object {
            bytes: object.bytes,
            etag: object.etag.clone(),
            modified_ns: object.modified_ns,
        });
        Ok(Self {
            path: text(&input.file.path)?,
            relative: text(&input.file.relative)?,
            object,
            segments: input.segments,
            is_listed: input.is_listed,
        })
    }

    /// The input of a build.
    ///
    /// # Errors
    /// When the URL cannot be used.
    pub fn input(&self) -> anyhow::Result<Input> {
        let object = match &self.object {
            None => None,
            Some(object) => Some(ObjectMeta {
                url: Url::parse(&self.path)?,
                bytes: object.bytes,
                etag: object.etag.clone(),
                modified_ns: object.modified_ns,
            }),
        };
        Ok(Input {
            file: VideoFile {
                path: PathBuf::from(&self.path),
                relative: PathBuf::from(&self.relative),
                object,
            },
            segments: self.segments.clone(),
            is_listed: self.is_listed,
        })
    }
}

impl Known {
    /// Reads the plan in `place`.
    ///
    /// # Errors
    /// When there is none, or it is of another version.
    pub fn read(place: &Path) -> anyhow::Result<Self> {
        let path = place.join(PLAN_FILE);
        let mut bytes = Vec::new();
        store::open_file(&path)
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .with_context(|| {
                format!(
                    "cannot read the plan {}; `shardtool plan VIDEOS --out {}` makes it",
                    path.display(),
                    place.display()
                )
            })?;
        let plan: Plan = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is not a plan of this version", path.display()))?;
        ensure!(
            plan.version == VERSION,
            "{} is a plan of version {}, this program reads {VERSION}",
            path.display(),
            plan.version
        );
        Ok(Self {
            plan,
            xxh3: xxh3_hex(&bytes),
            place: place.to_owned(),
        })
    }

    /// Number of parts.
    pub fn parts(&self) -> u32 {
        self.plan.parts.len() as u32
    }

    /// Its entry in the manifest of part `part`, or of all parts joined.
    pub fn entry(&self, part: Option<u32>) -> PlanEntry {
        PlanEntry {
            xxh3: self.xxh3.clone(),
            parts: self.parts(),
            part,
        }
    }

    /// Name of the folder of part `part`, below the plan's place.
    pub fn part_name(part: u32) -> String {
        format!("{PARTS}/part-{part:05}")
    }

    /// The folder, or the place in a store, of part `part`.
    pub fn part_place(&self, part: u32) -> PathBuf {
        self.place.join(Self::part_name(part))
    }

    /// The command that builds part `part`.
    pub fn command(&self, part: u32) -> String {
        let place = self.place.display().to_string();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-:".contains(c);
        let place = if place.chars().all(is_plain) {
            place
        } else {
            format!("'{}'", place.replace('\'', r"'\''"))
        };
        format!(
            "shardtool build --plan {place} --part {part}/{}",
            self.parts()
        )
    }
}

/// The share of a machine: parts I, I + N, I + 2N and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    index: u32,
    of: u32,
}

impl Share {
    /// Parses `I/N`.
    ///
    /// # Errors
    /// When it is something else.
    pub fn parse(text: &str) -> Result<Self, String> {
        let numbers = text
            .split_once('/')
            .and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
        match numbers {
            Some((index, of)) if index < of => Ok(Self { index, of }),
            Some((index, of)) => Err(format!(
                "there is no part {index} of {of}: they count from 0"
            )),
            None => Err("not I/N, such as 0/8".to_owned()),
        }
    }

    /// The share of this task of an array, by the variables of its scheduler, for a plan of `parts`
    /// parts; none if there is no such task.
    ///
    /// # Errors
    /// When the array has gaps, or the variables are no numbers.
    pub fn of_environment(
        variable: impl Fn(&str) -> Option<String>,
        parts: u32,
    ) -> anyhow::Result<Option<Self>> {
        let number = |name: &str| {
            variable(name)
                .filter(|text| !text.is_empty())
                .map(|text| text.parse::<u32>())
                .transpose()
                .with_context(|| format!("{name} is not a number"))
        };
        if let Some(id) = number("SLURM_ARRAY_TASK_ID")? {
            let first = number("SLURM_ARRAY_TASK_MIN")?.unwrap_or(0);
            let of = number("SLURM_ARRAY_TASK_COUNT")?.unwrap_or(parts);
            let last = number("SLURM_ARRAY_TASK_MAX")?;
            ensure!(
                last.is_none_or(|last| last - first + 1 == of) && id - first < of,
                "the array of Slurm has gaps, so its tasks do not say which part each is: give \
                 --part I/N"
            );
            return Ok(Some(Self {
                index: id - first,
                of,
            }));
        }
        let index = match number("JOB_COMPLETION_INDEX")? {
            Some(index) => Some((index, parts)),
            None => number("AWS_BATCH_JOB_ARRAY_INDEX")?
                .map(|index| {
                    let of = number("AWS_BATCH_JOB_ARRAY_SIZE")?.unwrap_or(parts);
                    anyhow::Ok((index, of))
                })
                .transpose()?,
        };
        let Some((index, of)) = index else {
            return Ok(None);
        };
        ensure!(
            index < of,
            "this is task {index} of the array, and the plan has {parts} parts: make the array as \
             large, or give --part I/N"
        );
        Ok(Some(Self { index, of }))
    }

    /// The parts to build, by --part, the environment, or else all.
    ///
    /// # Errors
    /// As [`Self::of_environment`].
    pub fn parts(given: Option<Self>, parts: u32) -> anyhow::Result<Vec<u32>> {
        let share = match given {
            Some(share) => Some(share),
            None => Self::of_environment(|name| env::var(name).ok(), parts)?,
        };
        let Self { index, of } = share.unwrap_or(Self { index: 0, of: 1 });
        Ok((index..parts).step_by(of as usize).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)], parts: u32) -> anyhow::Result<Option<Share>> {
        let find = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Share::of_environment(find, parts)
    }

    fn share(index: u32, of: u32) -> Option<Share> {
        Some(Share { index, of })
    }

    #[test]
    fn tasks_of_arrays_know_their_share() {
        let slurm = |id, first, last, count| {
            of(
                &[
                    ("SLURM_ARRAY_TASK_ID", id),
                    ("SLURM_ARRAY_TASK_MIN", first),
                    ("SLURM_ARRAY_TASK_MAX", last),
                    ("SLURM_ARRAY_TASK_COUNT", count),
                ],
                8,
            )
        };
        assert_eq!(slurm("3", "0", "7", "8").expect("valid"), share(3, 8));
        assert_eq!(slurm("1", "1", "4", "4").expect("valid"), share(0, 4));
        let error = slurm("7", "3", "7", "2").expect_err("gaps").to_string();
        assert!(error.contains("--part I/N"), "{error}");
        let kubernetes = |index| of(&[("JOB_COMPLETION_INDEX", index)], 8);
        assert_eq!(kubernetes("5").expect("valid"), share(5, 8));
        assert!(kubernetes("8").is_err());
        assert!(kubernetes("x").is_err());
        let batch = [
            ("AWS_BATCH_JOB_ARRAY_INDEX", "1"),
            ("AWS_BATCH_JOB_ARRAY_SIZE", "2"),
        ];
        assert_eq!(of(&batch, 8).expect("valid"), share(1, 2));
        assert_eq!(of(&[], 8).expect("valid"), None);
    }

    #[test]
    fn a_share_is_every_nth_part() {
        let parts = |text: &str, parts| {
            let share = Share::parse(text).expect("a share");
            Share::parts(Some(share), parts).expect("parts")
        };
        assert_eq!(parts("1/3", 8), [1, 4, 7]);
        assert_eq!(parts("0/1", 3), [0, 1, 2]);
        assert_eq!(parts("5/8", 3), [0; 0]);
        for text in ["", "3", "3/3", "-1/2", "a/b"] {
            assert!(Share::parse(text).is_err(), "{text}");
        }
    }
}
