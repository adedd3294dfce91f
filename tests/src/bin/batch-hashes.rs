//! Prints a line for each batch of the shards in a folder: where the next one begins, and a hash of
//! all that the batch holds. Without end: whoever has seen enough kills it.
//!
//!     batch-hashes SHARDS FIRST_SAMPLE THREADS

use pipeline::loader::batch::{Batch, Form, Pixels};
use pipeline::loader::{Loader, LoaderOptions};
use pipeline::sampling::order::Cursor;
use pipeline::transform::TargetForm;
use std::io::Write;
use std::path::Path;
use tests::{loader_options, shard_sources};
use xxhash_rust::xxh3::Xxh3;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |at: usize| arguments[at].parse::<u64>().expect("a number");
    let mut options = LoaderOptions {
        repeat: 3,
        start: Cursor { samples: number(2) },
        ..loader_options(number(3) as usize)
    };
    options.format.form = Form::Patches {
        target: TargetForm::Pixels { slices: 1 },
    };
    for batch in Loader::new(shard_sources(Path::new(&arguments[1])), options).expect("a loader") {
        let batch = batch.expect("a batch");
        let mut stdout = std::io::stdout().lock();
        // Whoever reads has seen enough.
        if writeln!(stdout, "{} {:016x}", batch.next.samples, hash(&batch))
            .and_then(|()| stdout.flush())
            .is_err()
        {
            return;
        }
    }
}

fn hash(batch: &Batch) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(
        serde_json::to_string(&(&batch.samples, &batch.labels))
            .expect("JSON")
            .as_bytes(),
    );
    batch.masks().iter().for_each(|mask| {
        mask.visible
            .iter()
            .chain(mask.masked)
            .for_each(|token| hash.update(&token.to_le_bytes()))
    });
    match batch.pixels() {
        Pixels::Clips(bytes) | Pixels::Tokens(bytes) => hash.update(bytes),
        Pixels::Patches { visible, target } => {
            hash.update(visible);
            hash.update(target);
        }
    }
    hash.digest()
}
