//! Steps whose loss or gradients are not finite: they change nothing, are recorded in
//! `nonfinite.jsonl`, and stop the run or are skipped.

use super::TrainLoop;
use super::outcome::{Event, RunError};
use super::step::Step;
use crate::config::{OnNonfinite, SafetyConfig};
use pipeline::sampling::order::SampleId;
use pipeline::source::{Origin, WeightedSource};
use schemas::report::{NonfiniteBatch, NonfiniteSample, NonfiniteStep};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Name of the file inside the folder of a run.
pub const NONFINITE_FILE: &str = "nonfinite.jsonl";

/// A limit of skipped steps that is exceeded.
struct Exceeded {
    /// Its key in the configuration.
    key: &'static str,
    limit: u64,
    /// Whether it is on consecutive steps.
    in_a_row: bool,
}

impl TrainLoop<'_> {
    /// Records and counts a step that is not finite.
    ///
    /// # Errors
    /// When the configuration says to stop, or to skip no more of them, or the disk is full.
    pub(super) fn skip_nonfinite(&mut self, step: &Step) -> Result<(), RunError> {
        self.state.nonfinite += 1;
        self.state.nonfinite_in_a_row += 1;
        let safety = &self.run.task.common().safety;
        let exceeded = self.exceeded(safety);
        let skipped = safety.on_nonfinite == OnNonfinite::Skip && exceeded.is_none();
        let samples = self.samples_of_all(step);
        let record = self.record(step, &samples, skipped);
        let file = self.run.dir.join(NONFINITE_FILE);
        if self.root.is_some() {
            append(&file, &record).map_err(|source| RunError::Write {
                path: file.clone(),
                source,
            })?;
        }
        let NonfiniteStep {
            step: number,
            loss,
            grad_norm,
            ..
        } = record;
        let checkpoint = self.last_checkpoint();
        match (safety.on_nonfinite, exceeded) {
            (OnNonfinite::Stop, _) => Err(RunError::Nonfinite {
                step: number,
                loss,
                grad_norm,
                samples: samples.concat(),
                file,
                checkpoint,
            }),
            (
                OnNonfinite::Skip,
                Some(Exceeded {
                    key,
                    limit,
                    in_a_row,
                }),
            ) => Err(RunError::TooManyNonfinite {
                step: number,
                key,
                limit,
                in_a_row,
                file,
                checkpoint,
            }),
            (OnNonfinite::Skip, None) => {
                (self.on_event)(Event::Nonfinite(&record, &file));
                Ok(())
            }
        }
    }

    /// The first limit that the counts of the run exceed.
    const fn exceeded(&self, safety: &SafetyConfig) -> Option<Exceeded> {
        let SafetyConfig {
            max_nonfinite,
            max_nonfinite_in_a_row,
            ..
        } = *safety;
        if self.state.nonfinite > max_nonfinite {
            Some(Exceeded {
                key: "safety.max_nonfinite",
                limit: max_nonfinite,
                in_a_row: false,
            })
        } else if self.state.nonfinite_in_a_row > max_nonfinite_in_a_row {
            let limit = max_nonfinite_in_a_row;
            Some(Exceeded {
                key: "safety.max_nonfinite_in_a_row",
                limit,
                in_a_row: true,
            })
        } else {
            None
        }
    }

    /// The samples of each batch of a step, of all ranks.
    fn samples_of_all(&self, step: &Step) -> Vec<Vec<SampleId>> {
        let own = step.batches.iter().map(|batch| &batch.samples);
        let own = serde_json::to_vec(&own.collect::<Vec<_>>()).expect("plain data becomes JSON");
        let ranks = self.ranks.gather_bytes(&own);
        let ranks = ranks.iter().map(|rank| serde_json::from_slice(rank));
        let ranks: Vec<Vec<Vec<SampleId>>> =
            ranks.collect::<Result<_, _>>().expect("as it was written");
        (0..step.batches.len())
            .map(|batch| ranks.iter().flat_map(|rank| rank[batch].clone()).collect())
            .collect()
    }

    /// The line of the file for a step, which is not counted yet.
    fn record(&self, step: &Step, samples: &[Vec<SampleId>], skipped: bool) -> NonfiniteStep {
        let batches = step.batches.iter().zip(samples);
        let batches = batches.map(|(batch, samples)| NonfiniteBatch {
            loss: batch.loss,
            samples: samples
                .iter()
                .map(|sample| described(sample, &self.run.data))
                .collect(),
        });
        NonfiniteStep {
            step: self.state.step + 1,
            lr: step.lr,
            loss: step.loss(),
            grad_norm: step.grad_norm,
            skipped,
            batches: batches.collect(),
            config: self.run.task.to_toml(),
        }
    }
}

/// Appends a line to the file at `path`, and syncs it to disk. Earlier lines stay.
///
/// # Errors
/// When the disk is full.
fn append(path: &Path, step: &NonfiniteStep) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)?;
    let mut line = Vec::new();
    if !ends_a_line(&mut file)? {
        // An interrupted write has left a partial line.
        line.push(b'\n');
    }
    serde_json::to_writer(&mut line, step)?;
    line.push(b'\n');
    file.write_all(&line)?;
    file.sync_data()
}

fn ends_a_line(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(true);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// A sample, with the video and the row of a shard that it is from.
fn described(sample: &SampleId, data: &[WeightedSource]) -> NonfiniteSample {
    let SampleId {
        set,
        epoch,
        clip,
        repeat,
    } = *sample;
    let Origin { video, stored } = data[set as usize].source.origin(clip as usize);
    let (shard, row) = stored
        .map(|(shard, row)| (shard.display().to_string(), row as u64))
        .unzip();
    NonfiniteSample {
        set,
        epoch,
        clip,
        repeat,
        video,
        shard,
        row,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_line_is_whole_whatever_was_there() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join(NONFINITE_FILE);
        let step = |step| NonfiniteStep {
            step,
            lr: 0.5,
            loss: f64::INFINITY,
            grad_norm: 2.5,
            skipped: true,
            batches: Vec::new(),
            config: "seed = 1\n".to_owned(),
        };
        append(&path, &step(1)).expect("written");
        let mut file = OpenOptions::new().append(true).open(&path).expect("opened");
        file.write_all(b"{\"step\":2,\"lo").expect("written");
        append(&path, &step(3)).expect("written");
        append(&path, &step(4)).expect("written");
        let text = fs::read_to_string(&path).expect("read");
        let steps: Vec<Option<NonfiniteStep>> = text
            .lines()
            .map(|line| serde_json::from_str(line).ok())
            .collect();
        assert_eq!(steps, [Some(step(1)), None, Some(step(3)), Some(step(4))]);
        assert!(
            text.contains("\"loss\":\"inf\",\"grad_norm\":2.5"),
            "{text}"
        );
    }
}
