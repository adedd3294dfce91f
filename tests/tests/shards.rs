//! Clips come back from shards to the exact byte, and damage is seen.

use arrow::array::{Array, AsArray};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use pipeline::shard::{ClipReader, Shard, ShardError, ShardSet};
use schemas::manifest::MANIFEST_FILE;
use schemas::shard::DATA_COLUMN;
use std::fs::{self, File};
use std::path::Path;
use tests::{TestClip, options, write_shards, write_shards_with};

fn many_clips() -> Vec<TestClip> {
    let odd_sizes = [(33, 17), (40, 24), (1, 1), (64, 48)];
    (0..70)
        .map(|seed| {
            let (width, height) = odd_sizes[seed as usize % odd_sizes.len()];
            if seed % 3 == 0 { TestClip::noise(seed, 16, width, height) } else { TestClip::moving(seed, 16, width, height) }
        })
        .collect()
}

#[test]
fn clips_come_back_to_the_byte() {
    let clips = many_clips();
    let stored: usize = clips.iter().map(|clip| clip.payload.len()).sum();
    for (level, shard_bytes) in [(3, 1 << 30), (3, 100_000), (0, 150_000), (19, 1 << 30)] {
        let dir = tempfile::tempdir().expect("a folder");
        let manifest = write_shards_with(dir.path(), &clips, options(level, shard_bytes));
        let several = shard_bytes < stored as u64 / 4;
        assert_eq!(manifest.shards.len() > 1, several, "level {level}: {} shards", manifest.shards.len());
        for entry in &manifest.shards {
            let bytes = fs::metadata(dir.path().join(&entry.file)).expect("the shard").len();
            assert_eq!(bytes, entry.bytes);
        }
        let set = ShardSet::open(dir.path()).expect("opened");
        assert_eq!(set.len(), clips.len());
        let mut reader = ClipReader::default();
        // Not in order, so that nothing depends on what was read before.
        for at in (0..clips.len()).rev() {
            let (shard, row) = set.locate(at);
            assert!(reader.read(shard, row).expect("read") == clips[at].payload, "clip {at} at level {level}");
        }
        let metas: Vec<_> = set.shards().iter().flat_map(|shard| shard.metas().expect("read")).collect();
        assert_eq!(metas.len(), clips.len());
        for (mut meta, clip) in metas.into_iter().zip(&clips) {
            assert_ne!(meta.data_xxh3, 0);
            meta.data_xxh3 = 0;
            assert_eq!(meta, clip.meta);
        }
    }
}

#[test]
fn any_parquet_reader_gets_the_same_bytes() {
    let clips = many_clips();
    for level in [0, 3] {
        let dir = tempfile::tempdir().expect("a folder");
        let manifest = write_shards_with(dir.path(), &clips, options(level, 1 << 30));
        let file = File::open(dir.path().join(&manifest.shards[0].file)).expect("the shard");
        let batches = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| builder.build()).expect("a reader");
        let mut expected = clips.iter();
        for batch in batches {
            let batch = batch.expect("a batch");
            let data = batch.column_by_name(DATA_COLUMN).expect("the column").as_binary::<i64>();
            for row in 0..data.len() {
                assert!(data.value(row) == expected.next().expect("a clip").payload);
            }
        }
        assert!(expected.next().is_none(), "clips are missing");
    }
}

/// Writes a few clips, lets `spoil` change the shard's bytes, and returns the first error of opening and reading all of it.
fn spoiled(spoil: impl FnOnce(&mut Vec<u8>)) -> Option<ShardError> {
    let dir = tempfile::tempdir().expect("a folder");
    let manifest = write_shards(dir.path(), &many_clips()[..5]);
    let path = dir.path().join(&manifest.shards[0].file);
    let mut bytes = fs::read(&path).expect("the shard");
    spoil(&mut bytes);
    fs::write(&path, bytes).expect("written");
    read_all(&path).err()
}

fn read_all(path: &Path) -> Result<(), ShardError> {
    let shard = Shard::open(path)?;
    let mut reader = ClipReader::default();
    (0..shard.clips().len()).try_for_each(|row| reader.read(&shard, row).map(|_| ()))
}

#[test]
fn a_flipped_bit_is_damage_with_shard_and_row() {
    assert!(spoiled(|_| ()).is_none());
    // Pixels are about all that a shard holds, so its middle is in one clip's page: here the last one's.
    let error = spoiled(|bytes| {
        let middle = bytes.len() / 4;
        bytes[middle] ^= 1;
    });
    let Some(ShardError::Damaged { path, row, .. }) = &error else { panic!("{error:?}") };
    assert!(path.ends_with("shard-00000.parquet") && *row < 5);
    let message = error.expect("an error").to_string();
    assert!(message.contains("shard-00000.parquet") && message.contains("rebuild"), "{message}");
}

#[test]
fn no_spoiled_shard_panics() {
    assert!(spoiled(Vec::clear).is_some(), "an empty file");
    assert!(spoiled(|bytes| bytes.truncate(bytes.len() / 2)).is_some(), "a cut file");
    assert!(spoiled(|bytes| *bytes = b"PAR1 this is no Parquet PAR1".to_vec()).is_some(), "another file");
    assert!(spoiled(|bytes| bytes.drain(..100).for_each(drop)).is_some(), "a file without its head");
    let length = fs_length();
    // The footer and its surroundings: every 7th byte of the last 4 kB, one at a time. Some bytes matter to nobody; none may panic.
    for back in (1..4000.min(length)).step_by(7) {
        let _ = spoiled(|bytes| {
            let at = bytes.len() - back;
            bytes[at] ^= 0x55;
        });
    }
}

fn fs_length() -> usize {
    let mut length = 0;
    spoiled(|bytes| length = bytes.len());
    length
}

#[test]
fn a_folder_without_a_manifest_is_no_build() {
    let dir = tempfile::tempdir().expect("a folder");
    write_shards(dir.path(), &many_clips()[..2]);
    fs::remove_file(dir.path().join(MANIFEST_FILE)).expect("removed");
    let error = ShardSet::open(dir.path()).expect_err("no manifest");
    assert!(matches!(error, ShardError::NoManifest { .. }));
    assert!(error.to_string().contains("shardtool build"), "{error}");
    fs::write(dir.path().join(MANIFEST_FILE), "{}").expect("written");
    assert!(matches!(ShardSet::open(dir.path()), Err(ShardError::BadManifest { .. })));
}

#[test]
fn a_missing_shard_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    write_shards(dir.path(), &many_clips()[..2]);
    fs::remove_file(dir.path().join("shard-00000.parquet")).expect("removed");
    let error = ShardSet::open(dir.path()).expect_err("no shard").to_string();
    assert!(error.contains("shard-00000.parquet"), "{error}");
}
