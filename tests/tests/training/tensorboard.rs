//! TensorBoard's event files: read back record by record, and with TensorBoard itself where there
//! is a Python that has it.

use image::{Rgb, RgbImage};
use schemas::report::{LoaderFigures, StepMetrics};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tests::{TestClip, shard_sources, small_pretraining, small_run, write_shards};
use trainer::log::{History, PICTURE_FILE, PICTURE_TAG, RunLog, TENSORBOARD_DIR, masked_crc32c};
use trainer::train::{self, Event};

/// What a reader finds in a folder of event files: scalars and pictures by tag, in the order of the
/// files.
#[derive(Debug, Default, PartialEq)]
struct Found {
    /// Step and value; no value where it is not a number.
    scalars: BTreeMap<String, Vec<(u64, Option<f32>)>>,
    pictures: BTreeMap<String, Vec<(u64, RgbImage)>>,
}

/// Figures of a step that have no short form in binary.
fn metrics(step: u64) -> StepMetrics {
    let at = step as f64;
    StepMetrics {
        step,
        epoch: at / 7.0,
        loss: 1.0 / (3.0 + at),
        lr: 1e-3 * at,
        grad_norm: at.sqrt(),
        clips_per_second: 100.0 / at,
        step_seconds: 0.8,
        wait_seconds: 0.1 * at,
        nonfinite: 0,
        validation: None,
        ranks: None,
        loader: LoaderFigures::default(),
    }
}

/// What has to be found of these steps.
fn scalars_of(steps: &[StepMetrics]) -> BTreeMap<String, Vec<(u64, Option<f32>)>> {
    type Value = fn(&StepMetrics) -> f64;
    let tags: [(&str, Value); 6] = [
        ("train/loss", |step| step.loss),
        ("train/lr", |step| step.lr),
        ("train/grad_norm", |step| step.grad_norm),
        ("train/epoch", |step| step.epoch),
        ("speed/clips_per_second", |step| step.clips_per_second),
        ("speed/wait_fraction", |step| {
            step.wait_seconds / step.step_seconds
        }),
    ];
    let found = |step: &StepMetrics, value: Value| {
        (
            step.step,
            Some(value(step) as f32).filter(|value| !value.is_nan()),
        )
    };
    tags.into_iter()
        .map(|(tag, value)| {
            (
                tag.to_owned(),
                steps.iter().map(|step| found(step, value)).collect(),
            )
        })
        .collect()
}

fn picture(seed: u32) -> RgbImage {
    RgbImage::from_fn(37, 21, |x, y| {
        Rgb([
            (7 * x + seed) as u8,
            (11 * y) as u8,
            (x * y + 50 * seed) as u8,
        ])
    })
}

/// Checks `dir` with both readers.
fn assert_found(dir: &Path, expected: &Found) {
    match read_by_tensorboard(dir) {
        Some(found) => assert_eq!(&found, expected, "read by TensorBoard"),
        None => eprintln!(
            "TENSORBOARD_PYTHON is not set: the event files are not read with TensorBoard \
             (scripts/test.sh sets it)"
        ),
    }
    assert_eq!(&decoded(dir), expected, "read record by record");
}

#[test]
fn logged_scalars_and_pictures_are_found() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut log = RunLog::open(dir.path(), 0).expect("opened");
    let mut steps: Vec<StepMetrics> = (1..=4).map(metrics).collect();
    // A step that was not finite.
    (steps[2].loss, steps[2].grad_norm) = (f64::NAN, f64::NAN);
    for step in &steps {
        log.push(step).expect("logged");
        if step.step % 2 == 0 {
            log.picture(step.step, &picture(step.step as u32), PICTURE_TAG)
                .expect("logged");
        }
    }
    // Nothing is finished or flushed: this is what a killed run leaves.
    let pictures = [(
        PICTURE_TAG.to_owned(),
        vec![(2, picture(2)), (4, picture(4))],
    )]
    .into();
    assert_found(
        &dir.path().join(TENSORBOARD_DIR),
        &Found {
            scalars: scalars_of(&steps),
            pictures,
        },
    );
    let latest = image::open(dir.path().join(PICTURE_FILE))
        .expect("the latest picture")
        .into_rgb8();
    assert!(latest == picture(4));
}

#[test]
fn a_resumed_run_has_no_step_twice() {
    let dir = tempfile::tempdir().expect("a folder");
    let events = dir.path().join(TENSORBOARD_DIR);
    let mut log = RunLog::open(dir.path(), 0).expect("opened");
    let log_steps = |log: &mut RunLog, steps: std::ops::RangeInclusive<u64>, shift: f64| {
        for step in steps {
            log.push(&StepMetrics {
                loss: metrics(step).loss + shift,
                ..metrics(step)
            })
            .expect("logged");
            if step % 3 == 0 {
                log.picture(step, &picture((step as f64 + shift) as u32), PICTURE_TAG)
                    .expect("logged");
            }
        }
    };
    log_steps(&mut log, 1..=8, 0.0);
    drop(log);
    // It was killed in the middle of a record.
    let file = files(&events).pop().expect("a file");
    let bytes = fs::read(&file).expect("read");
    fs::write(&file, &bytes[..bytes.len() - 5]).expect("written");
    // Twice taken up from the checkpoint of step 3, the first time killed again before the next
    // one. Other values, so that it shows whose they are.
    log_steps(
        &mut RunLog::open(dir.path(), 3).expect("resumed"),
        4..=5,
        10.0,
    );
    let mut log = RunLog::open(dir.path(), 3).expect("resumed");
    log_steps(&mut log, 4..=9, 20.0);
    // Pictures up to the checkpoint are there already.
    log.picture(3, &picture(99), PICTURE_TAG).expect("logged");

    let steps = (1..=9).map(|step| StepMetrics {
        loss: metrics(step).loss + if step > 3 { 20.0 } else { 0.0 },
        ..metrics(step)
    });
    let pictures = [(
        PICTURE_TAG.to_owned(),
        vec![(3, picture(3)), (6, picture(26)), (9, picture(29))],
    )]
    .into();
    assert_found(
        &events,
        &Found {
            scalars: scalars_of(&steps.collect::<Vec<_>>()),
            pictures,
        },
    );
}

#[test]
fn training_is_logged_across_a_cut() {
    let dir = tempfile::tempdir().expect("a folder");
    let clips: Vec<TestClip> = (0..5)
        .map(|seed| TestClip::moving(seed, 8, 40, 36))
        .collect();
    write_shards(&dir.path().join("shards"), &clips);
    let mut config = small_pretraining(8);
    config.common.data.batch_size = 2;
    let run = small_run(
        &dir.path().join("run"),
        &shard_sources(&dir.path().join("shards")),
        config,
    );
    let cut = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        train::train(&run, |event| {
            assert!(
                !matches!(event, Event::Step(metrics, _) if metrics.step == 5),
                "cut here"
            )
        })
    }));
    assert!(cut.is_err());
    let mut seen = Vec::new();
    let outcome = train::train(&run, |event| {
        seen.extend(if let Event::Step(metrics, _) = event {
            Some(metrics.clone())
        } else {
            None
        })
    });
    assert_eq!(outcome.expect("resumed").resumed_from, 3);
    // Nothing is left to do the next time, and nothing is logged twice.
    train::train(&run, |_| ()).expect("nothing to do");

    let found = decoded(&run.dir.join(TENSORBOARD_DIR));
    assert_eq!(
        found.scalars["train/loss"][3..],
        scalars_of(&seen)["train/loss"],
        "the steps since the cut"
    );
    let steps = |tag: &str| {
        found.scalars[tag]
            .iter()
            .map(|(step, _)| *step)
            .collect::<Vec<_>>()
    };
    assert!(
        found
            .scalars
            .keys()
            .all(|tag| steps(tag) == (1..=8).collect::<Vec<_>>()),
        "{:?}",
        found.scalars
    );
    let pictures = &found.pictures[PICTURE_TAG];
    assert_eq!(
        pictures.iter().map(|(step, _)| *step).collect::<Vec<_>>(),
        [3, 6, 8]
    );
    assert!(pictures[0].1 != pictures[2].1, "it learns");
    assert!(
        image::open(run.dir.join(PICTURE_FILE))
            .expect("a picture")
            .into_rgb8()
            == pictures[2].1
    );
    assert_found(&run.dir.join(TENSORBOARD_DIR), &found);

    assert_eq!(History::read(&run.dir).expect("metrics").steps.len(), 8);
    assert!(
        image::open(run.dir.join("curves.png"))
            .expect("curves")
            .width()
            > 1000
    );
    assert!(
        fs::read_to_string(run.dir.join("report.html"))
            .expect("a report")
            .contains("</html>")
    );
}

/// The event files of a folder, in the order of their names.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files
}

/// Reads `dir` as TensorBoard does: a START forgets the steps from its own on, and a file ends at a
/// record that is not whole.
fn decoded(dir: &Path) -> Found {
    let mut found = Found::default();
    for file in files(dir) {
        let bytes = fs::read(&file).expect("read");
        for (number, event) in records(&bytes).into_iter().enumerate() {
            let fields = fields(event);
            let step = fields.iter().find_map(|field| {
                if let (2, Value::Integer(step)) = field {
                    Some(*step)
                } else {
                    None
                }
            });
            let step = step.expect("a step");
            assert!(
                matches!(fields[0], (1, Value::Double(time)) if time > 1.7e9),
                "a time: {fields:?}"
            );
            for field in &fields[2..] {
                match *field {
                    (3, Value::Bytes(version)) => {
                        assert!(number == 0 && version == b"brain.Event:2")
                    }
                    (7, Value::Bytes(session)) => {
                        assert_eq!(self::fields(session), [(1, Value::Integer(1))], "START");
                        found
                            .scalars
                            .values_mut()
                            .for_each(|values| values.retain(|(known, _)| *known < step));
                        found
                            .pictures
                            .values_mut()
                            .for_each(|values| values.retain(|(known, _)| *known < step));
                    }
                    (5, Value::Bytes(summary)) => self::fields(summary)
                        .into_iter()
                        .for_each(|entry| take(&mut found, step, &entry)),
                    ref other => panic!("{other:?}"),
                }
            }
        }
    }
    found
}

/// Takes one value of a summary.
fn take(found: &mut Found, step: u64, entry: &(u64, Value<'_>)) {
    let (1, Value::Bytes(entry)) = *entry else {
        panic!("{entry:?}")
    };
    let [(1, Value::Bytes(tag)), ref value] = fields(entry)[..] else {
        panic!("a tag and a value")
    };
    let tag = String::from_utf8(tag.to_vec()).expect("UTF-8");
    match *value {
        (2, Value::Single(value)) => {
            found
                .scalars
                .entry(tag)
                .or_default()
                .push((step, Some(value).filter(|value| !value.is_nan())));
        }
        (4, Value::Bytes(picture)) => {
            let [
                (1, Value::Integer(height)),
                (2, Value::Integer(width)),
                (3, Value::Integer(3)),
                (4, Value::Bytes(png)),
            ] = fields(picture)[..]
            else {
                panic!("a picture")
            };
            found
                .pictures
                .entry(tag)
                .or_default()
                .push((step, opened(png, width, height)));
        }
        ref other => panic!("{other:?}"),
    }
}

fn opened(png: &[u8], width: u64, height: u64) -> RgbImage {
    let picture = image::load_from_memory(png).expect("a PNG");
    assert_eq!(
        (u64::from(picture.width()), u64::from(picture.height())),
        (width, height)
    );
    picture.into_rgb8()
}

/// The whole records of a file; their checksums are checked.
fn records(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
    while bytes.len() >= 12 {
        let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
        assert_eq!(
            word(&bytes[8..12]),
            masked_crc32c(&bytes[..8]),
            "checksum of a length"
        );
        let Some(record) = bytes.get(12..12 + length + 4) else {
            break;
        };
        let (event, checksum) = record.split_at(length);
        assert_eq!(word(checksum), masked_crc32c(event), "checksum of an event");
        records.push(event);
        bytes = &bytes[12 + length + 4..];
    }
    records
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Value<'a> {
    Integer(u64),
    Double(f64),
    Single(f32),
    Bytes(&'a [u8]),
}

/// Numbers and values of a protobuf message's fields.
fn fields(mut message: &[u8]) -> Vec<(u64, Value<'_>)> {
    fn varint(message: &mut &[u8]) -> u64 {
        let length = message
            .iter()
            .position(|byte| byte & 0x80 == 0)
            .expect("an end")
            + 1;
        let (bytes, rest) = message.split_at(length);
        *message = rest;
        bytes
            .iter()
            .rev()
            .fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f))
    }
    fn split<'a>(message: &mut &'a [u8], length: usize) -> &'a [u8] {
        let (bytes, rest) = message.split_at(length);
        *message = rest;
        bytes
    }
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        let value = match key & 7 {
            0 => Value::Integer(varint(&mut message)),
            1 => Value::Double(f64::from_le_bytes(
                split(&mut message, 8).try_into().expect("eight bytes"),
            )),
            2 => {
                let length = varint(&mut message) as usize;
                Value::Bytes(split(&mut message, length))
            }
            5 => Value::Single(f32::from_le_bytes(
                split(&mut message, 4).try_into().expect("four bytes"),
            )),
            other => panic!("wire type {other}"),
        };
        fields.push((key >> 3, value));
    }
    fields
}

/// Reads a folder with TensorBoard's own reader and prints all of it as JSON, pictures as
/// hexadecimal PNG. Of pictures it would keep a few, of scalars 10 000.
const READER: &str = "\
import json, math, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1], size_guidance={'scalars': 0, 'images': 0}).Reload()
tags = events.Tags()
print(json.dumps({
    'scalars': {tag: [[e.step, None if math.isnan(e.value) else e.value] for e in events.Scalars(tag)] for tag in tags['scalars']},
    'pictures': {tag: [[e.step, e.width, e.height, e.encoded_image_string.hex()] for e in events.Images(tag)] for tag in tags['images']},
}))
";

/// What the Python that the environment variable `TENSORBOARD_PYTHON` names finds with TensorBoard;
/// none where it is not set.
fn read_by_tensorboard(dir: &Path) -> Option<Found> {
    let python = std::env::var_os("TENSORBOARD_PYTHON").filter(|python| !python.is_empty())?;
    let output = Command::new(&python).args(["-c", READER]).arg(dir).output();
    let output = output.unwrap_or_else(|error| {
        panic!(
            "TENSORBOARD_PYTHON names no program, {}: {error}",
            python.display()
        )
    });
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    type Read = BTreeMap<String, BTreeMap<String, Vec<serde_json::Value>>>;
    let mut read: Read = serde_json::from_slice(&output.stdout).expect("JSON");
    let number = |value: &serde_json::Value| value.as_u64().expect("a whole number");
    let scalar = |entry: &serde_json::Value| {
        (
            number(&entry[0]),
            entry[1].as_f64().map(|value| value as f32),
        )
    };
    let picture = |entry: &serde_json::Value| {
        let text = entry[3].as_str().expect("hexadecimal");
        let png: Vec<u8> = (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal"))
            .collect();
        (
            number(&entry[0]),
            opened(&png, number(&entry[1]), number(&entry[2])),
        )
    };
    let mut part = |name: &str| read.remove(name).expect("a part").into_iter();
    Some(Found {
        scalars: part("scalars")
            .map(|(tag, values)| (tag, values.iter().map(scalar).collect()))
            .collect(),
        pictures: part("pictures")
            .map(|(tag, values)| (tag, values.iter().map(picture).collect()))
            .collect(),
    })
}
