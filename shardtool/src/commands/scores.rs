//! The scores of clips, by which `shardtool stats` draws them.

use schemas::report::ScoreSpread;
use schemas::shard::{ClipMeta, Scores};
use std::collections::BTreeMap;

/// Scores of all clips, by score.
#[derive(Default)]
pub struct ScoreTable {
    /// For each name the scores with the numbers of their clips.
    columns: [Vec<(f32, u64)>; Scores::NAMES.len()],
}

impl ScoreTable {
    /// Adds the scores of clip `number`, if it has any.
    pub fn add(&mut self, number: u64, meta: &ClipMeta) {
        if let Some(scores) = &meta.scores {
            let columns = self.columns.iter_mut().zip(scores.numbers());
            columns.for_each(|(column, value)| column.push((value, number)));
        }
    }

    /// Sorts each column, so that its tails are at its ends.
    pub fn sort(&mut self) {
        for column in &mut self.columns {
            column.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        }
    }

    /// The sorted scores with the numbers of their clips, by name; nothing without scores.
    pub fn columns(&self) -> impl Iterator<Item = (&'static str, &[(f32, u64)])> {
        let columns = Scores::NAMES.into_iter().zip(self.columns.iter());
        columns
            .map(|(name, column)| (name, column.as_slice()))
            .filter(|(_, column)| !column.is_empty())
    }

    /// The distribution of each score.
    pub fn spreads(&self) -> BTreeMap<String, ScoreSpread> {
        self.columns()
            .map(|(name, sorted)| (name.to_owned(), spread(sorted)))
            .collect()
    }
}

fn spread(sorted: &[(f32, u64)]) -> ScoreSpread {
    let at = |share: f64| {
        let index = (share * (sorted.len() - 1) as f64).round() as usize;
        f64::from(sorted[index].0)
    };
    let sum: f64 = sorted.iter().map(|&(value, _)| f64::from(value)).sum();
    ScoreSpread {
        min: at(0.0),
        p05: at(0.05),
        median: at(0.5),
        mean: sum / sorted.len() as f64,
        p95: at(0.95),
        max: at(1.0),
    }
}
