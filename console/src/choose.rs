//! The arguments that choose clips of shards, which all commands that read shards take.

use clap::Args;
use schemas::choice::Choice;
use std::path::PathBuf;

/// Which clips of shards to use.
#[derive(Debug, Clone, Default, Args)]
pub struct ChooseArgs {
    /// Use the clips of these classes only.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub classes: Vec<String>,
    /// Use the clips of these splits only.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub split: Vec<String>,
    /// Use the clips for which this holds, such as "motion > 0.002 and class != 'none'".
    #[arg(long = "where", value_name = "CONDITION")]
    pub condition: Option<String>,
    /// Use the clips that a file lists, such as a query's result: CSV, JSON or Parquet with the
    /// columns video and clip, video_blake3 and clip, data_xxh3, or number.
    #[arg(long, value_name = "FILE")]
    pub select: Option<PathBuf>,
}

impl ChooseArgs {
    /// Returns the choice.
    pub fn choice(&self) -> Choice {
        Choice {
            classes: self.classes.clone(),
            split: self.split.clone(),
            condition: self.condition.clone(),
            select: self.select.clone(),
        }
    }
}
