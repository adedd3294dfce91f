//! Functions of the commands that read shards: opening them, finding a clip, decoding it.

use anyhow::{Context, anyhow, bail};
use console::output::{self, count};
use pipeline::choice::{self, Choice};
use pipeline::frames::Frames;
use pipeline::shard::{ClipReader, Shard, ShardError, ShardSet};
use schemas::geometry::FrameSize;
use schemas::manifest::Manifest;
use schemas::report::InspectedClip;
use schemas::shard::ClipMeta;
use std::path::Path;

/// Opens the build in folder `dir`, and prints a note if it is incomplete.
///
/// # Errors
/// When the folder holds no build, or a shard of it is missing or damaged.
pub fn open(dir: &Path) -> anyhow::Result<ShardSet> {
    let set = ShardSet::open(dir).map_err(|error| match error {
        ShardError::NoManifest { .. }
        | ShardError::BadManifest { .. }
        | ShardError::Store(_)
        | ShardError::Cache { .. } => anyhow!(error),
        error => anyhow!(
            "{error}\n`shardtool verify {}` lists all damage",
            dir.display()
        ),
    })?;
    note_unfinished(dir, set.manifest());
    set.note().iter().for_each(|note| output::say(note));
    Ok(set)
}

/// Returns the numbers of the clips of `set` that `choice` chooses, and says how many that are.
///
/// # Errors
/// When the choice is invalid, or leaves no clip.
pub fn choose(set: &ShardSet, choice: &Choice) -> anyhow::Result<Vec<u64>> {
    if choice.is_all() {
        return Ok((0..set.len() as u64).collect());
    }
    let chosen = choice::choose(choice, set)?;
    output::say(&chosen.render());
    Ok(chosen.clips.into_iter().map(u64::from).collect())
}

/// Prints a note if the build is incomplete.
pub fn note_unfinished(dir: &Path, manifest: &Manifest) {
    if !manifest.finished {
        let dir = dir.display();
        let clips = count(manifest.clips, "clip");
        output::say(&format!(
            "note: the build in {dir} is incomplete, with {clips} so far; `shardtool build` \
             resumes it"
        ));
    }
}

/// Returns the details of the clips with the sorted indices `numbers`.
///
/// # Errors
/// When there is no clip with an index, or a shard cannot be read.
pub fn clips(set: &ShardSet, numbers: &[u64]) -> anyhow::Result<Vec<InspectedClip>> {
    let mut clips = Vec::with_capacity(numbers.len());
    // The rows of the last clip's shard.
    let mut metas: (Option<&Path>, Vec<ClipMeta>) = (None, Vec::new());
    for &number in numbers {
        let (shard, row) = locate(set, number)?;
        if metas.0 != Some(shard.path()) {
            metas = (Some(shard.path()), shard.metas()?);
        }
        let meta = metas
            .1
            .get(row)
            .with_context(|| format!("{} has no row {row}; verify it", shard.path().display()))?;
        clips.push(InspectedClip {
            clip: number,
            shard: shard
                .path()
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            row: row as u64,
            stored_bytes: shard.clips()[row].stored_bytes() as u64,
            decoded_bytes: decoded_bytes(meta),
            meta: meta.clone(),
        });
    }
    Ok(clips)
}

/// Returns the shard and the row of clip `number`.
///
/// # Errors
/// When there is no such clip.
pub fn locate(set: &ShardSet, number: u64) -> anyhow::Result<(&Shard, usize)> {
    match usize::try_from(number) {
        Ok(index) if index < set.len() => Ok(set.locate(index)),
        _ if set.is_empty() => bail!(
            "there is no clip {number}: {} has no clips yet",
            set.dir().display()
        ),
        _ => bail!(
            "there is no clip {number}: {} has {}, numbered from 0",
            set.dir().display(),
            count(set.len() as u64, "clip")
        ),
    }
}

/// Returns the size of a clip's frames.
pub const fn size(meta: &ClipMeta) -> FrameSize {
    FrameSize {
        width: meta.width as usize,
        height: meta.height as usize,
    }
}

/// Returns the bytes of a clip's frames as I420.
pub const fn decoded_bytes(meta: &ClipMeta) -> u64 {
    meta.frames as u64 * size(meta).frame_bytes() as u64
}

/// Returns the frames per second of a clip as a video. If its ticks are the source's frames, the
/// source is taken to have 30 per second.
pub fn frames_per_second(meta: &ClipMeta) -> f64 {
    meta.fps.unwrap_or(30.0) / f64::from(meta.stride.max(1))
}

/// Reads and decodes `clip` of `set`, and passes each of its frames to `use_frame` with its index.
///
/// # Errors
/// When the clip is damaged, and the errors of `use_frame`.
pub fn for_each_frame(
    set: &ShardSet,
    clip: &InspectedClip,
    mut use_frame: impl FnMut(usize, Frames<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (shard, row) = locate(set, clip.clip)?;
    let mut reader = ClipReader::default();
    let frames = reader.frames(shard, row, clip.meta.frames as usize)?;
    frames
        .each(size(&clip.meta))
        .enumerate()
        .try_for_each(|(number, frame)| use_frame(number, frame))
}

/// Returns the file name of a clip's video, printable on one line.
pub fn video_name(meta: &ClipMeta) -> String {
    let name = Path::new(&meta.video)
        .file_name()
        .map_or(meta.video.as_str().into(), |name| name.to_string_lossy());
    printable(&name)
}

/// Escapes the control characters of `text`, which could control a terminal.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() {
                c.escape_default().to_string()
            } else {
                c.to_string()
            }
        })
        .collect()
}

/// Returns the name of a clip's class, else the number of its label, if it has one.
pub fn class(meta: &ClipMeta) -> Option<String> {
    meta.class
        .as_deref()
        .map(printable)
        .or_else(|| meta.label.map(|label| label.to_string()))
}

/// Returns the start of a clip in its video, in seconds.
pub fn start_seconds(meta: &ClipMeta) -> f64 {
    meta.pts_ns.first().map_or(0.0, |&pts| pts as f64 / 1e9)
}

/// Returns the pixel aspect ratio of the source as text, such as `64:45`; `unknown` before format
/// version 3.
pub fn pixel_aspect(meta: &ClipMeta) -> String {
    match (meta.pixel_aspect_num, meta.pixel_aspect_den) {
        (0, _) | (_, 0) => "unknown".to_owned(),
        (num, den) if num == den => "1:1".to_owned(),
        (num, den) => format!("{num}:{den}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("a\u{1b}[2J\nö"), "a\\u{1b}[2J\\nö");
    }
}
