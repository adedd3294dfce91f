//! `nonfinite.jsonl`: the steps whose loss or gradients were not finite, each line with all that is needed to look into it.

use pipeline::sampling::order::SampleId;
use pipeline::source::{Origin, WeightedSource};
use schemas::report::{NonfiniteSample, NonfiniteStep};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Name of the file inside the folder of a run.
pub const NONFINITE_FILE: &str = "nonfinite.jsonl";

/// Appends a line to the file at `path`, and sees it on disk. What is in it stays.
///
/// # Errors
/// When the disk is full.
pub fn append(path: &Path, step: &NonfiniteStep) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    let mut line = Vec::new();
    if !ends_a_line(&mut file)? {
        // A kill, or a full disk, has left a part of one.
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

/// All that can be told of a sample.
pub fn described(sample: &SampleId, data: &[WeightedSource]) -> NonfiniteSample {
    let SampleId { set, epoch, clip, repeat } = *sample;
    let Origin { video, stored } = data[set as usize].source.origin(clip as usize);
    let (shard, row) = stored.map(|(shard, row)| (shard.display().to_string(), row as u64)).unzip();
    NonfiniteSample { set, epoch, clip, repeat, video, shard, row }
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
        let steps: Vec<Option<NonfiniteStep>> = text.lines().map(|line| serde_json::from_str(line).ok()).collect();
        assert_eq!(steps, [Some(step(1)), None, Some(step(3)), Some(step(4))]);
        assert!(text.contains("\"loss\":\"inf\",\"grad_norm\":2.5"), "{text}");
    }
}
