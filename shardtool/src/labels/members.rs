//! Labels beside the videos in tar archives, as WebDataset stores them: the files of a sample have
//! one name, up to its first dot.

use anyhow::{Context, ensure};
use pipeline::video::discover::VideoFile;
use pipeline::video::media::{Media, TarMember, tar_members};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Keys of a sample's JSON that hold its label, in the order in which they are tried.
const KEYS: [&str; 4] = ["label", "class", "cls", "category"];

/// Finds the label of each video that is a member of an archive: the text of the sample's `cls`
/// file, or the label in its `json` file.
///
/// # Errors
/// When an archive cannot be read, or a label is neither text nor a number.
pub fn find(videos: &[VideoFile]) -> anyhow::Result<Vec<Option<String>>> {
    let mut samples = Samples::default();
    videos
        .iter()
        .map(|video| match Media::of(&video.path) {
            Ok(Media::Member { archive, member }) => samples
                .label(&archive, &member)
                .with_context(|| format!("cannot read the label of {}", video.path.display())),
            _ => Ok(None),
        })
        .collect()
}

/// The files with labels of the archive that was read last, by sample and extension.
#[derive(Default)]
struct Samples {
    archive: PathBuf,
    files: HashMap<(String, &'static str), TarMember>,
}

impl Samples {
    fn label(&mut self, archive: &Path, video: &TarMember) -> anyhow::Result<Option<String>> {
        if self.archive != archive {
            self.archive = archive.to_owned();
            self.files.clear();
            for member in tar_members(archive)?.members.iter() {
                let extension = member.path.extension().and_then(|text| text.to_str());
                if let Some(kind) = ["cls", "json"]
                    .into_iter()
                    .find(|kind| extension == Some(*kind))
                {
                    self.files.insert((key(&member.path), kind), member.clone());
                }
            }
        }
        let key = key(&video.path);
        if let Some(file) = self.files.get(&(key.clone(), "cls")) {
            let text = String::from_utf8(file.read(archive)?).context("it is not UTF-8")?;
            return Ok(Some(text.trim().to_owned()).filter(|label| !label.is_empty()));
        }
        let Some(file) = self.files.get(&(key, "json")) else {
            return Ok(None);
        };
        let object: Value = serde_json::from_slice(&file.read(archive)?)?;
        match KEYS.iter().find_map(|key| object.get(key)) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(label)) => Ok(Some(label.clone()).filter(|label| !label.is_empty())),
            Some(label) => {
                ensure!(
                    label.is_i64(),
                    "its label is {label}, neither text nor a number"
                );
                Ok(Some(label.to_string()))
            }
        }
    }
}

/// The name of a sample: the path up to the first dot of its last part.
fn key(path: &Path) -> String {
    let text = path.to_string_lossy();
    let name = text.rfind('/').map_or(0, |slash| slash + 1);
    let end = text[name..].find('.').map_or(text.len(), |dot| name + dot);
    text[..end].to_owned()
}
