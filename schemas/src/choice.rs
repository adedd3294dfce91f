//! Which clips of a data set to use.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Which clips of a data set to use: those for which all conditions hold. The default is all clips.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Choice {
    /// Names of classes, or their numbers if classes have no names; empty for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// Names of splits; empty for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub split: Vec<String>,
    /// A condition over the columns of shards, in a subset of SQL.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// A file that lists clips, by one of: `video` and `clip`; `video_blake3` and `clip`;
    /// `data_xxh3`; `number`, as `shardtool inspect` counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub select: Option<PathBuf>,
}

impl Choice {
    /// Whether all clips are chosen.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }
}
