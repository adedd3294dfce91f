//! `trainer embed`: features of clips as a file, and the nearest clips as a picture.

use crate::cli::{DataArg, EmbedArgs, Per};
use crate::commands::inference::{self, Inference};
use crate::commands::sources;
use anyhow::{Context, bail, ensure};
use console::{interrupt, output};
use pipeline::atomic_file;
use pipeline::source::WeightedSource;
use schemas::report::{EmbedReport, NeighbourReport, QueryReport};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use trainer::eval::features::{FeatureFile, FeatureRow, Neighbours};
use trainer::plot::neighbours::{self, Shown};
use trainer::plot::png;
use trainer::train::weights::Weights;

/// Clips that are asked for where nobody says which.
const QUERIES: usize = 6;

/// Runs the command.
///
/// # Errors
/// What the user can mend: weights or data that cannot be used, a video that is not there, a full disk.
pub fn embed(args: &EmbedArgs) -> anyhow::Result<()> {
    interrupt::listen()?;
    ensure!(!args.tokens || (args.read.views.count() == 1 && args.per == Per::Clip), "--tokens takes one view and a row a clip");
    let weights = Weights::open(&args.weights)?;
    let mut sets = inference::open(&args.read, &weights)?;
    let asked = args.read.data.len();
    let names = names(&sets);
    sets.extend(strangers(args, &weights, &sets)?);
    let mut reading = Inference::new(&args.read, &weights, sets)?;
    let grid = weights.task.common().clip;
    let width = weights.task.common().encoder.width;
    let about = [
        ("weights", weights.path.display().to_string()),
        ("views", format!("{}x{}", reading.views.temporal, reading.views.spatial)),
        ("clip", format!("{} frames of {} x {} pixels", grid.frames, grid.size, grid.size)),
    ];
    let about = about.map(|(key, value)| (format!("embed.{key}"), value)).into_iter().collect();
    let mut file = FeatureFile::create(&args.out, width, if args.tokens { grid.tokens() } else { 0 }, about)?;
    let wants_sheet = args.sheet.is_some() || !args.query.is_empty();
    let (mut rows, mut written): (Vec<Embedded>, u64) = (Vec::new(), 0);
    let mut open: Option<Pooled> = None;
    let catalogues = reading.catalogues.clone();
    let tally = reading.run(args.tokens, |clips| {
        for clip in clips {
            let (set, number) = (clip.set as usize, clip.clip as usize);
            let (catalogue, origin) = (&catalogues[set], catalogues[set].clips[number]);
            if wants_sheet {
                rows.push(Embedded { set, clip: number, feature: clip.features.clone() });
            }
            // What was only asked about is no part of the data.
            if set >= asked {
                continue;
            }
            let class = clip.label.and_then(|label| names[set].get(label as usize).cloned());
            let video = catalogue.videos[origin.video as usize].path.clone();
            let row = FeatureRow {
                video,
                clip: Some(origin.number),
                seconds: origin.seconds,
                label: clip.label,
                class,
                feature: clip.features,
                tokens: clip.tokens,
            };
            match args.per {
                Per::Clip => {
                    written += 1;
                    file.push(row)?;
                }
                Per::Video => {
                    let key = (set, origin.video);
                    match &mut open {
                        Some(pooled) if pooled.key == key => pooled.add(&row),
                        _ => {
                            if let Some(done) = open.replace(Pooled { key, clips: 1, row }) {
                                written += 1;
                                file.push(done.row())?;
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    })?;
    if let Some(done) = open {
        written += 1;
        file.push(done.row())?;
    }
    ensure!(written > 0, "no clip could be read");
    file.finish()?;
    let sheet = wants_sheet.then(|| args.sheet.clone().unwrap_or_else(|| args.out.with_extension("png")));
    let queries = match &sheet {
        Some(path) => draw(args, &reading, &names, &rows, asked, path)?,
        None => Vec::new(),
    };
    let report = EmbedReport {
        weights: weights.path.display().to_string(),
        out: args.out.display().to_string(),
        rows: written,
        width: width as u64,
        tokens: if args.tokens { grid.tokens() as u64 } else { 0 },
        skipped: tally.skipped,
        seconds: tally.seconds,
        clips_per_second: sources::clips(&reading.data) as f64 / tally.seconds,
        sheet: sheet.map(|path| path.display().to_string()),
        queries,
    };
    Ok(output::print(&if args.json { serde_json::to_string_pretty(&report)? } else { told(&report, args.per) })?)
}

/// A clip's feature, to be compared.
struct Embedded {
    set: usize,
    clip: usize,
    feature: Vec<f32>,
}

/// The clips of a video so far.
struct Pooled {
    key: (usize, u32),
    clips: usize,
    /// The sum of the features.
    row: FeatureRow,
}

impl Pooled {
    fn add(&mut self, row: &FeatureRow) {
        self.clips += 1;
        self.row.seconds[1] = row.seconds[1];
        self.row.feature.iter_mut().zip(&row.feature).for_each(|(sum, value)| *sum += value);
    }

    fn row(mut self) -> FeatureRow {
        let clips = self.clips as f32;
        self.row.feature.iter_mut().for_each(|value| *value /= clips);
        FeatureRow { clip: None, ..self.row }
    }
}

/// Class names of each set by number; none where it has none.
fn names(sets: &[WeightedSource]) -> Vec<Vec<String>> {
    sets.iter().map(|set| trainer::data::classes::of_shards(&set.source).unwrap_or_default()).collect()
}

/// Data sets of the videos that are asked about and are not among the data.
fn strangers(args: &EmbedArgs, weights: &Weights, sets: &[WeightedSource]) -> anyhow::Result<Vec<WeightedSource>> {
    let mut known = BTreeSet::new();
    for set in sets {
        known.extend(set.source.catalogue()?.videos.into_iter().map(|video| video.path));
    }
    let unknown = args.query.iter().filter(|query| !known.iter().any(|video| video.contains(query.as_str())));
    let mut files: Vec<DataArg> = Vec::new();
    for query in unknown {
        if !Path::new(query).is_file() {
            let some: Vec<&str> = known.iter().take(5).map(String::as_str).collect();
            bail!(
                "--query {query}: no video of the data has this in its path, and there is no such file; the data has {}, ...",
                some.join(", ")
            );
        }
        files.push(DataArg { path: PathBuf::from(query), weight: 1.0 });
    }
    sources::open(&files, &inference::live(&args.read, weights), weights.task.common().clip.frames)
}

/// Draws the queries with their nearest clips, and says which they are.
fn draw(
    args: &EmbedArgs,
    reading: &Inference,
    names: &[Vec<String>],
    rows: &[Embedded],
    asked: usize,
    path: &Path,
) -> anyhow::Result<Vec<QueryReport>> {
    let origin = |row: &Embedded| {
        let catalogue = &reading.catalogues[row.set];
        let clip = catalogue.clips[row.clip];
        (&catalogue.videos[clip.video as usize], clip)
    };
    let queries: Vec<usize> = if args.query.is_empty() {
        let among: Vec<usize> = (0..rows.len()).filter(|&at| rows[at].set < asked).collect();
        let count = QUERIES.min(among.len());
        (0..count).map(|at| among[(2 * at + 1) * among.len() / (2 * count)]).collect()
    } else {
        // Of each video that is asked about the clip in its middle.
        let of =
            |query: &String| -> Vec<usize> { (0..rows.len()).filter(|&at| origin(&rows[at]).0.path.contains(query.as_str())).collect() };
        let found = args
            .query
            .iter()
            .map(|query| of(query).get(of(query).len() / 2).copied().with_context(|| format!("{query} could not be read")));
        found.collect::<Result<_, _>>()?
    };
    let neighbours = Neighbours::new(&rows.iter().map(|row| row.feature.as_slice()).collect::<Vec<_>>());
    let identity = |row: &Embedded| {
        let (video, _) = origin(row);
        video.blake3.clone().unwrap_or_else(|| video.path.clone())
    };
    let shown = |at: usize, similarity: Option<f32>| {
        let (video, clip) = origin(&rows[at]);
        let label = reading.data[rows[at].set].clip(rows[at].clip).label;
        let class = label.and_then(|label| names.get(rows[at].set)?.get(label as usize).cloned());
        Shown { set: rows[at].set, clip: rows[at].clip, video: video.path.clone(), second: clip.seconds[0], class, similarity }
    };
    let mut lines = Vec::new();
    for &query in &queries {
        let own = identity(&rows[query]);
        let nearest = neighbours.nearest(query, args.neighbours as usize, |at| rows[at].set < asked && identity(&rows[at]) != own);
        lines.push(
            std::iter::once(shown(query, None))
                .chain(nearest.iter().map(|near| shown(near.index, Some(near.similarity))))
                .collect::<Vec<_>>(),
        );
    }
    let sheet = neighbours::sheet(&reading.data, reading.reader_frames(), &lines)?;
    png(&sheet).and_then(|png| atomic_file::write(path, &png)).with_context(|| format!("cannot write {}", path.display()))?;
    let report = |shown: &Shown| NeighbourReport {
        video: shown.video.clone(),
        second: shown.second,
        class: shown.class.clone(),
        similarity: shown.similarity.map(f64::from),
    };
    Ok(lines.iter().map(|line| QueryReport { query: report(&line[0]), nearest: line[1..].iter().map(report).collect() }).collect())
}

/// The report for people.
fn told(report: &EmbedReport, per: Per) -> String {
    let EmbedReport { out, rows, width, clips_per_second, skipped, .. } = report;
    let rows = format!("{rows} {}{}", if per == Per::Clip { "clip" } else { "video" }, if *rows == 1 { "" } else { "s" });
    let mut text = format!("{rows} in {out}, {width} values each; {clips_per_second:.1} clips/s");
    if *skipped > 0 {
        text += &format!("; {skipped} clips could not be read and are not in it");
    }
    for query in &report.queries {
        let named = |shown: &NeighbourReport| {
            let class = shown.class.as_ref().map_or(String::new(), |class| format!(" ({class})"));
            let similarity = shown.similarity.map_or(String::new(), |similarity| format!("{similarity:.2}  "));
            format!("{similarity}{} at {:.1} s{class}", shown.video, shown.second)
        };
        text += &format!("\nnearest to {}:", named(&query.query));
        query.nearest.iter().for_each(|near| text += &format!("\n  {}", named(near)));
        if query.nearest.is_empty() {
            text += "\n  there is no other video";
        }
    }
    if let Some(sheet) = &report.sheet {
        text += &format!("\npicture: {sheet}");
    }
    text
}
