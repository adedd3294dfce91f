//! A window of a clip costs the parts of its page that it touches, and no table of parts is
//! believed without its hashes.

use pipeline::frames::Frames;
use pipeline::shard::{ClipReader, Shard, ShardError, ShardSet, ShardSetWriter, page, payload};
use schemas::geometry::FrameSize;
use schemas::manifest::BuildOptions;
use schemas::shard::{ClipMeta, Parts, Payload};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tests::{TestClip, data_pages, options, write_shards_with};

const KINDS: [Payload; 3] = [Payload::I420, Payload::I420Delta, Payload::Rgb];

const SIZE: FrameSize = FrameSize {
    width: 33,
    height: 18,
};

fn options_of(payload: Payload, level: i32) -> BuildOptions {
    BuildOptions {
        payload,
        ..options(level, 1 << 30)
    }
}

/// Clips of 21 frames: several parts, of which the last has fewer frames.
fn clips() -> Vec<TestClip> {
    vec![
        TestClip::moving(1, 21, SIZE.width, SIZE.height),
        TestClip::noise(2, 21, SIZE.width, SIZE.height),
        TestClip::moving(3, 21, SIZE.width, SIZE.height),
    ]
}

#[test]
fn every_window_has_its_frames() {
    for payload in KINDS {
        for level in [0, 3] {
            let dir = tempfile::tempdir().expect("a folder");
            write_shards_with(dir.path(), &clips(), options_of(payload, level));
            let set = ShardSet::open(dir.path()).expect("opened");
            let shard = &set.shards()[0];
            let (mut whole, mut reader) = (ClipReader::default(), ClipReader::default());
            for row in 0..3 {
                let all = whole.frames(shard, row, 21).expect("read");
                if payload != Payload::Rgb {
                    assert!(
                        all.bytes() == clips()[row].payload,
                        "{payload:?}, clip {row}"
                    );
                }
                let frame_bytes = all.frame_bytes(SIZE);
                // One reader for all, so that what it has read before is in its memory.
                for count in [16, 1, 5, 21, 8] {
                    for start in 0..=21 - count {
                        let window = reader.window(shard, row, start..start + count);
                        let expected = &all.bytes()[start * frame_bytes..][..count * frame_bytes];
                        assert!(
                            window.expect("read").bytes() == expected,
                            "{payload:?} at level {level}, clip {row}: {count} from {start}"
                        );
                    }
                }
                for beyond in [6..22, 21..22, 30..46, 0..usize::MAX / 2] {
                    let error = reader.window(shard, row, beyond).expect_err("too many");
                    assert!(matches!(error, ShardError::Undecodable { .. }), "{error}");
                }
            }
        }
    }
}

/// Flips a bit in the middle of part `part` of clip `row`.
fn damage_part(path: &Path, row: usize, parts: &[u32], part: usize) {
    let page = &data_pages(path)[row];
    let body = page.end - parts.iter().sum::<u32>() as usize;
    let before: u32 = parts[..part].iter().sum();
    let mut bytes = fs::read(path).expect("the shard");
    bytes[body + (before + parts[part] / 2) as usize] ^= 1;
    fs::write(path, bytes).expect("written");
}

fn encoded(clip: &TestClip, options: &BuildOptions) -> page::EncodedClip {
    let color = pipeline::frames::Color {
        range: clip.meta.color_range,
        matrix: clip.meta.color_matrix,
    };
    let payload = payload::encode(&clip.payload, SIZE, color, options).expect("encoded");
    page::encode(&payload, options.payload, clip.meta.frames, options.level).expect("compressed")
}

#[test]
fn only_the_parts_of_a_window_are_read() {
    for payload in KINDS {
        for level in [0, 3] {
            let options = options_of(payload, level);
            let Parts { frames, bytes, .. } = encoded(&clips()[1], &options).parts;
            let (frames, parts) = (frames as usize, bytes.len());
            assert!(parts > 2, "{payload:?}");
            for part in 0..parts {
                let dir = tempfile::tempdir().expect("a folder");
                write_shards_with(dir.path(), &clips(), options.clone());
                let path = dir.path().join("shard-00000.parquet");
                damage_part(&path, 1, &bytes, part);
                let shard = Shard::open(&path).expect("the footer is whole");
                let mut reader = ClipReader::default();
                for start in 0..=21 - 5 {
                    let touches = start < (part + 1) * frames && start + 5 > part * frames;
                    match reader.window(&shard, 1, start..start + 5) {
                        Ok(_) => assert!(!touches, "{payload:?}: part {part}, start {start}"),
                        Err(error) => {
                            let named = format!(
                                "clip 1 of {} is damaged: part {part} (frames {} to {}): ",
                                path.display(),
                                part * frames,
                                20.min((part + 1) * frames - 1)
                            );
                            assert!(
                                touches && error.to_string().starts_with(&named),
                                "part {part}, start {start}: {error}"
                            );
                        }
                    }
                }
                let error = reader.payload(&shard, 1).expect_err("damaged");
                assert!(
                    matches!(error, ShardError::Damaged { row: 1, .. }),
                    "{error}"
                );
            }
        }
    }
}

/// Writes a shard of one clip whose row, hash or table of parts `lie` changes.
fn shard_of_a_lie(
    dir: &Path,
    payload: Payload,
    level: i32,
    lie: impl Fn(&mut ClipMeta, &mut page::EncodedClip),
) -> PathBuf {
    let options = options_of(payload, level);
    let clip = &clips()[0];
    let mut encoded = encoded(clip, &options);
    let mut meta = ClipMeta {
        payload,
        ..clip.meta.clone()
    };
    lie(&mut meta, &mut encoded);
    let mut writer = ShardSetWriter::new(dir, options, Vec::new());
    writer.push(meta, encoded).expect("written");
    let shards = writer.finish().expect("finished");
    dir.join(&shards[0].file)
}

#[test]
fn no_table_of_parts_is_believed() {
    type Lie = (&'static str, fn(&mut ClipMeta, &mut page::EncodedClip));
    let lies: [Lie; 15] = [
        ("no parts", |_, clip| {
            clip.parts.bytes.clear();
            clip.parts.xxh3.clear();
        }),
        ("a size is missing", |_, clip| clip.parts.bytes.truncate(1)),
        ("a hash is missing", |_, clip| clip.parts.xxh3.truncate(1)),
        ("a part more", |_, clip| {
            clip.parts.bytes.push(0);
            clip.parts.xxh3.push(0);
        }),
        ("parts of no frames", |_, clip| clip.parts.frames = 0),
        ("parts of other frames", |_, clip| clip.parts.frames += 1),
        ("one part of all frames", |_, clip| {
            clip.parts.frames = u32::MAX
        }),
        ("a size beyond the page", |_, clip| {
            clip.parts.bytes[1] = u32::MAX
        }),
        ("a first part of no bytes", |_, clip| {
            clip.parts.bytes[1] += clip.parts.bytes[0];
            clip.parts.bytes[0] = 0;
        }),
        ("a boundary that is elsewhere", |_, clip| {
            clip.parts.bytes[0] += 7;
            clip.parts.bytes[1] -= 7;
        }),
        ("another hash", |_, clip| clip.parts.xxh3[0] ^= 1),
        ("another hash of the whole", |_, clip| clip.xxh3 ^= 1),
        ("more frames", |meta, _| meta.frames = u32::MAX),
        ("frames of the largest size", |meta, _| {
            (meta.width, meta.height) = (u32::MAX, u32::MAX);
        }),
        ("frames of no size", |meta, _| {
            (meta.width, meta.height) = (0, 0)
        }),
    ];
    for payload in KINDS {
        for level in [0, 3] {
            for (name, lie) in lies {
                let dir = tempfile::tempdir().expect("a folder");
                let path = shard_of_a_lie(dir.path(), payload, level, lie);
                let mut reader = ClipReader::default();
                let read = Shard::open(&path).and_then(|shard| {
                    reader.payload(&shard, 0).map(drop)?;
                    reader.window(&shard, 0, 0..8).map(drop)
                });
                // Where parts are not compressed, their places follow from their frames.
                let is_moot = level == 0
                    && matches!(
                        name,
                        "a first part of no bytes" | "a boundary that is elsewhere"
                    );
                match read {
                    Ok(()) => assert!(is_moot, "{payload:?} at level {level}: {name}"),
                    Err(error) => assert!(
                        error.to_string().contains(&path.display().to_string()),
                        "{name}: {error}"
                    ),
                }
            }
        }
    }
}

#[test]
fn a_part_that_cannot_hold_its_frames_gets_no_memory() {
    // 1.5 GB of pixels, said of a few bytes.
    let options = options_of(Payload::I420, 3);
    let dir = tempfile::tempdir().expect("a folder");
    let clip = &clips()[0];
    let mut encoded = encoded(clip, &options);
    let meta = ClipMeta {
        width: 32_768,
        height: 32_768,
        frames: 1,
        pts_ns: vec![0],
        ..clip.meta.clone()
    };
    let size = FrameSize {
        width: 32_768,
        height: 32_768,
    };
    encoded.uncompressed_bytes = 4 + size.frame_bytes();
    encoded.body.truncate(100);
    encoded.parts = Parts {
        frames: 1,
        bytes: vec![100],
        xxh3: vec![0],
    };
    let mut writer = ShardSetWriter::new(dir.path(), options, Vec::new());
    writer.push(meta, encoded).expect("written");
    writer.finish().expect("finished");
    let shard = Shard::open(&dir.path().join("shard-00000.parquet")).expect("opened");
    let error = ClipReader::default()
        .payload(&shard, 0)
        .expect_err("refused")
        .to_string();
    assert!(error.contains("shorter than its header says"), "{error}");
    let status = fs::read_to_string("/proc/self/status").expect("the status of this process");
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
        .expect("its peak memory in kB");
    assert!(peak < 1 << 20, "{peak} kB");
}

/// Writes what pyarrow, DuckDB and polars read of the column `data`, each to a file, and the planes
/// that numpy makes of differences as `docs/shard-format.md` says.
const READERS: &str = "
import sys, numpy, pyarrow.parquet, duckdb, polars
shard, out = sys.argv[1:]
def planes(row):
    height, width = row['height'], row['width']
    half = (height + 1) // 2, (width + 1) // 2
    data = numpy.frombuffer(row['data'], numpy.uint8).reshape(row['frames'], -1)
    luma = data[:, : height * width].reshape(-1, height, width)
    chroma = data[:, height * width :].reshape(-1, 2, *half)
    if row['payload'] == 'i420-delta':
        luma = luma.cumsum(-1, dtype='u1').cumsum(-2, dtype='u1')
        chroma = chroma.cumsum(-1, dtype='u1').cumsum(-2, dtype='u1')
    both = [part.reshape(row['frames'], -1) for part in (luma, chroma)]
    return numpy.concatenate(both, axis=1).tobytes()
rows = pyarrow.parquet.read_table(shard).to_pylist()
if rows[0]['payload'] != 'rgb':
    with open(f'{out}/planes', 'wb') as file:
        file.write(b''.join(planes(row) for row in rows))
tables = {
    'pyarrow': pyarrow.parquet.read_table(shard)['data'].to_pylist(),
    'duckdb': [row[0] for row in duckdb.sql(f\"select data from '{shard}'\").fetchall()],
    'polars': polars.read_parquet(shard)['data'].to_list(),
}
for name, rows in tables.items():
    with open(f'{out}/{name}', 'wb') as file:
        file.write(b''.join(rows))
";

#[test]
fn other_programs_read_pages_of_several_parts() {
    let Some(python) = std::env::var_os("PARQUET_PYTHON") else {
        eprintln!("PARQUET_PYTHON is not set: no other Parquet reader is tested");
        return;
    };
    for payload in KINDS {
        for level in [0, 3] {
            let dir = tempfile::tempdir().expect("a folder");
            let options = options_of(payload, level);
            write_shards_with(dir.path(), &clips(), options);
            let path = dir.path().join("shard-00000.parquet");
            let output = Command::new(&python)
                .args(["-c", READERS])
                .args([&path, dir.path()])
                .output()
                .expect("Python runs");
            assert!(
                output.status.success(),
                "{payload:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            let shard = Shard::open(&path).expect("opened");
            let mut reader = ClipReader::default();
            let expected: Vec<u8> = (0..3)
                .flat_map(|row| reader.payload(&shard, row).expect("read").to_vec())
                .collect();
            for name in ["pyarrow", "duckdb", "polars"] {
                let read = fs::read(dir.path().join(name)).expect("what it read");
                assert!(read == expected, "{name} reads other bytes of {payload:?}");
            }
            if payload != Payload::Rgb {
                let planes: Vec<u8> = clips().into_iter().flat_map(|clip| clip.payload).collect();
                let read = fs::read(dir.path().join("planes")).expect("what numpy made");
                assert!(read == planes, "numpy makes other planes of {payload:?}");
            }
        }
    }
}

#[test]
fn differences_are_smaller_than_planes() {
    // With a little noise, as footage has: without it, the texture repeats.
    let mut clip = TestClip::moving(1, 16, 160, 120);
    let noise = TestClip::noise(1, 16, 160, 120).payload;
    for (sample, noise) in clip.payload.iter_mut().zip(noise) {
        *sample = sample.wrapping_add(noise % 4);
    }
    let size = |payload| {
        let dir = tempfile::tempdir().expect("a folder");
        write_shards_with(
            dir.path(),
            std::slice::from_ref(&clip),
            options_of(payload, 3),
        );
        let set = ShardSet::open(dir.path()).expect("opened");
        let mut reader = ClipReader::default();
        let frames = reader.frames(&set.shards()[0], 0, 16).expect("read");
        assert!(matches!(frames, Frames::I420(bytes, _) if bytes == clip.payload));
        set.shards()[0].clips()[0].stored_bytes()
    };
    let (planes, differences) = (size(Payload::I420), size(Payload::I420Delta));
    assert!(differences < planes, "{differences} and {planes} bytes");
}
