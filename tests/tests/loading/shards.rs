//! Clips come back from shards to the exact byte, and damage is seen.

use arrow::array::{Array, AsArray};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use pipeline::shard::{ClipReader, Shard, ShardError, ShardSet};
use schemas::geometry::FrameSize;
use schemas::manifest::{MANIFEST_FILE, PixelAspect};
use schemas::shard::DATA_COLUMN;
use std::fs::{self, File};
use std::path::Path;
use tests::{TestClip, damage_clip, options, write_shards, write_shards_with};

fn many_clips() -> Vec<TestClip> {
    let odd_sizes = [(33, 17), (40, 24), (1, 1), (64, 48)];
    (0..70)
        .map(|seed| {
            let (width, height) = odd_sizes[seed as usize % odd_sizes.len()];
            if seed % 3 == 0 {
                TestClip::noise(seed, 16, width, height)
            } else {
                TestClip::moving(seed, 16, width, height)
            }
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
        assert_eq!(
            manifest.shards.len() > 1,
            several,
            "level {level}: {} shards",
            manifest.shards.len()
        );
        for entry in &manifest.shards {
            let bytes = fs::metadata(dir.path().join(&entry.file))
                .expect("the shard")
                .len();
            assert_eq!(bytes, entry.bytes);
        }
        let set = ShardSet::open(dir.path()).expect("opened");
        assert_eq!(set.len(), clips.len());
        let mut reader = ClipReader::default();
        // Not in order, so that nothing depends on what was read before.
        for at in (0..clips.len()).rev() {
            let (shard, row) = set.locate(at);
            assert!(
                reader.payload(shard, row).expect("read") == clips[at].payload,
                "clip {at} at level {level}"
            );
        }
        let metas: Vec<_> = set
            .shards()
            .iter()
            .flat_map(|shard| shard.metas().expect("read"))
            .collect();
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
        let batches = ParquetRecordBatchReaderBuilder::try_new(file)
            .and_then(|builder| builder.build())
            .expect("a reader");
        let mut expected = clips.iter();
        for batch in batches {
            let batch = batch.expect("a batch");
            let data = batch
                .column_by_name(DATA_COLUMN)
                .expect("the column")
                .as_binary::<i64>();
            for row in 0..data.len() {
                assert!(data.value(row) == expected.next().expect("a clip").payload);
            }
        }
        assert!(expected.next().is_none(), "clips are missing");
    }
}

/// Writes a few clips, lets `spoil` change the shard's bytes, and returns the first error of
/// opening and reading all of it.
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
    (0..shard.clips().len()).try_for_each(|row| reader.payload(&shard, row).map(|_| ()))
}

#[test]
fn a_flipped_bit_is_damage_of_that_clip_alone() {
    // Two row groups, and clips at their edges.
    let clips: Vec<TestClip> = (0..40)
        .map(|seed| TestClip::moving(seed, 4, 24, 18))
        .collect();
    for (level, row) in [(0, 0), (0, 31), (3, 32), (3, 39)] {
        let dir = tempfile::tempdir().expect("a folder");
        let manifest = write_shards_with(dir.path(), &clips, options(level, 1 << 30));
        let path = dir.path().join(&manifest.shards[0].file);
        damage_clip(&path, row);
        let shard = Shard::open(&path).expect("the footer is whole");
        let mut reader = ClipReader::default();
        for (at, clip) in clips.iter().enumerate() {
            match reader.payload(&shard, at) {
                Ok(payload) => assert!(
                    at != row && payload == clip.payload,
                    "clip {at} at level {level}"
                ),
                Err(error) => {
                    let message = error.to_string();
                    assert!(
                        message.contains(&format!("clip {row} of {}", path.display()))
                            && message.contains("rebuild"),
                        "{message}"
                    );
                    let ShardError::Damaged {
                        path: named,
                        row: damaged,
                        ..
                    } = error
                    else {
                        panic!("{message}")
                    };
                    assert_eq!((named.as_path(), damaged, at), (path.as_path(), row, row));
                }
            }
        }
    }
}

#[test]
fn no_damaged_shard_panics() {
    assert!(spoiled(Vec::clear).is_some(), "an empty file");
    assert!(
        spoiled(|bytes| bytes.truncate(bytes.len() / 2)).is_some(),
        "a cut file"
    );
    assert!(
        spoiled(|bytes| *bytes = b"PAR1 this is no Parquet PAR1".to_vec()).is_some(),
        "another file"
    );
    assert!(
        spoiled(|bytes| bytes.drain(..100).for_each(drop)).is_some(),
        "a file without its head"
    );
    let length = fs_length();
    // The footer and its surroundings: every 7th byte of the last 4 kB, one at a time. Some bytes
    // matter to nobody; none may panic.
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
fn pixels_are_never_wrong_whichever_byte_is() {
    let clips: Vec<TestClip> = (0..3).map(|seed| TestClip::noise(seed, 2, 6, 4)).collect();
    for level in [0, 3] {
        let dir = tempfile::tempdir().expect("a folder");
        let manifest = write_shards_with(dir.path(), &clips, options(level, 1 << 30));
        let whole = fs::read(dir.path().join(&manifest.shards[0].file)).expect("the shard");
        let path = dir.path().join("spoiled.parquet");
        let mut refused = 0;
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x55;
            fs::write(&path, &bytes).expect("written");
            let Ok(shard) = Shard::open(&path) else {
                refused += 1;
                continue;
            };
            let mut reader = ClipReader::default();
            for (row, clip) in clips.iter().enumerate().take(shard.clips().len()) {
                match reader.payload(&shard, row) {
                    Ok(payload) => assert!(
                        payload == clip.payload,
                        "byte {at}, clip {row} at level {level}"
                    ),
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(
            refused > whole.len() / 4,
            "{refused} refusals in {} bytes",
            whole.len()
        );
    }
}

#[test]
fn a_manifest_and_a_shard_that_disagree_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut manifest = write_shards(dir.path(), &many_clips()[..3]);
    manifest.shards[0].clips = 4;
    fs::write(
        dir.path().join(MANIFEST_FILE),
        serde_json::to_vec(&manifest).expect("JSON"),
    )
    .expect("written");
    let error = ShardSet::open(dir.path())
        .expect_err("another number of clips")
        .to_string();
    assert!(
        error.contains("it has 3 clips, the manifest says 4"),
        "{error}"
    );
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
    assert!(matches!(
        ShardSet::open(dir.path()),
        Err(ShardError::BadManifest { .. })
    ));
}

#[test]
fn a_missing_shard_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    write_shards(dir.path(), &many_clips()[..2]);
    fs::remove_file(dir.path().join("shard-00000.parquet")).expect("removed");
    let error = ShardSet::open(dir.path())
        .expect_err("no shard")
        .to_string();
    assert!(error.contains("shard-00000.parquet"), "{error}");
}

#[test]
fn shards_of_version_2_are_read() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/shards-v2");
    for (name, clips, size) in [("i420", 2, (42, 32)), ("h264", 1, (42, 32))] {
        let set = ShardSet::open(&fixtures.join(name)).expect("opened");
        assert_eq!(
            (set.len(), set.manifest().format_version),
            (clips, 2),
            "{name}"
        );
        // What version 3 added was not recorded, and says so.
        let metas = set.shards()[0].metas().expect("read");
        let first = &metas[0];
        assert_eq!((first.width, first.height), size, "{name}");
        assert_eq!(
            (
                first.pixel_aspect_num,
                first.pixel_aspect_den,
                first.damaged
            ),
            (0, 0, false),
            "{name}"
        );
        assert_eq!(
            (
                first.color_transfer.as_str(),
                first.color_primaries.as_str()
            ),
            ("unknown", "unknown")
        );
        let options = &set.manifest().options;
        assert_eq!(
            (options.pixel_aspect, options.gap_seconds),
            (PixelAspect::Keep, None),
            "{name}"
        );
        let mut reader = ClipReader::default();
        for (row, meta) in metas.iter().enumerate() {
            // The reader compares the payload with its hash, and decodes it.
            let frames = reader.frames(&set.shards()[0], row, 8).expect("read");
            let frame_bytes = frames.frame_bytes(FrameSize {
                width: meta.width as usize,
                height: meta.height as usize,
            });
            assert_eq!(frames.bytes().len(), 8 * frame_bytes, "{name}");
        }
    }
}
