//! `trainer embed`: extracts features of clips to a file, and draws nearest neighbours.

use crate::cli::{DataArg, EmbedArgs, Per};
use crate::commands::inference::{self, ClipInference};
use crate::commands::sources;
use crate::commands::together;
use anyhow::{Context, bail, ensure};
use console::{interrupt, output};
use pipeline::atomic_file;
use pipeline::choice::Choice;
use pipeline::source::{ClipOrigin, Source, VideoOrigin, WeightedSource};
use pipeline::store;
use pipeline::video::media::Media;
use schemas::report::{EmbedReport, NeighbourReport, QueryReport};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use trainer::eval::ClipOutput;
use trainer::eval::features::{FeatureError, FeatureFile, FeatureRow, Neighbours};
use trainer::plot::neighbours::{self, SheetClip};
use trainer::plot::png;
use trainer::ranks::Ranks;
use trainer::train::weights::Weights;

/// Number of query clips if no query is given.
const QUERIES: usize = 6;

/// Runs the command.
///
/// # Errors
/// Errors that the user can fix: invalid weights or data, a missing video, a full disk.
pub fn embed(args: &EmbedArgs) -> anyhow::Result<ExitCode> {
    let ranks = Ranks::start()?;
    together::end(&ranks, embed_with(&ranks, args))
}

/// [`embed`] on each of `ranks`. Rank 0 writes and reports.
fn embed_with(ranks: &Ranks, args: &EmbedArgs) -> anyhow::Result<ExitCode> {
    let Prepared {
        weights,
        mut inference,
        data_sets,
        class_names,
    } = together::agree(ranks, prepare(ranks, args))?;
    inference.check_alike(&weights)?;
    if !ranks.is_root() {
        inference.run(args.tokens, |_| Ok(()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let width = weights.task.common().encoder.width;
    let tokens = if args.tokens {
        weights.task.common().clip.tokens()
    } else {
        0
    };
    let mut rows = RowWriter {
        file: FeatureFile::create(&args.out, width, tokens, metadata(&weights, &inference))?,
        per: args.per,
        video: None,
        written: 0,
    };
    let wants_sheet = args.sheet.is_some() || !args.query.is_empty();
    let mut embedded: Vec<EmbeddedClip> = Vec::new();
    let catalogues = inference.catalogues.clone();
    let stats = inference.run(args.tokens, |clips| {
        for clip in clips {
            let set = clip.set as usize;
            let number = clip.clip as usize;
            if wants_sheet {
                embedded.push(EmbeddedClip {
                    set,
                    clip: number,
                    feature: clip.features.clone(),
                });
            }
            // Clips of query files are not part of the data.
            if set < data_sets {
                let origin = catalogues[set].clips[number];
                let video = catalogues[set].videos[origin.video as usize].path.clone();
                let class = clip
                    .label
                    .and_then(|label| class_names[set].get(label as usize).cloned());
                rows.push((set, origin.video), feature_row(clip, video, origin, class))?;
            }
        }
        Ok(())
    })?;
    let written = rows.finish()?;
    if wants_sheet {
        identify_videos(&mut inference);
    }
    let sheet = wants_sheet.then(|| {
        args.sheet
            .clone()
            .unwrap_or_else(|| args.out.with_extension("png"))
    });
    let queries = match &sheet {
        Some(path) => Sheet {
            args,
            inference: &inference,
            class_names: &class_names,
            clips: &embedded,
            data_sets,
        }
        .write(path)?,
        None => Vec::new(),
    };
    let report = EmbedReport {
        weights: weights.path.display().to_string(),
        out: args.out.display().to_string(),
        rows: written,
        width: width as u64,
        tokens: tokens as u64,
        skipped: stats.skipped,
        seconds: stats.seconds,
        clips_per_second: sources::clips(&inference.data) as f64 / stats.seconds,
        sheet: sheet.map(|path| path.display().to_string()),
        queries,
    };
    output::print(&if args.json {
        serde_json::to_string_pretty(&report)?
    } else {
        render_report(&report, args.per)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What is known before the first clip is read.
struct Prepared<'a> {
    weights: Weights,
    inference: ClipInference<'a>,
    /// Number of data sets; later sets of the inference are query files.
    data_sets: usize,
    /// Class names of each data set, by index.
    class_names: Vec<Vec<String>>,
}

fn prepare<'a>(ranks: &'a Ranks, args: &EmbedArgs) -> anyhow::Result<Prepared<'a>> {
    interrupt::listen()?;
    store::stop_when(interrupt::flag());
    ensure!(
        !args.tokens || (args.read.views.count() == 1 && args.per == Per::Clip),
        "--tokens requires one view and one row per clip"
    );
    let weights = Weights::open(&args.weights)?;
    let mut sets = inference::open(ranks, &args.read, &weights)?;
    let data_sets = sets.len();
    let class_names = class_names(&sets);
    sets.extend(open_query_files(args, &weights, &sets)?);
    let inference = ClipInference::new(ranks, &args.read, &weights, sets)?;
    Ok(Prepared {
        weights,
        inference,
        data_sets,
        class_names,
    })
}

/// Hashes the videos that are not in shards, so that copies of a video are known as such: a video
/// that cannot be read is known by its path.
fn identify_videos(inference: &mut ClipInference<'_>) {
    for (set, catalogue) in inference.data.iter().zip(&mut inference.catalogues) {
        let Source::Live(videos) = &*set.source else {
            continue;
        };
        for (clip, origin) in catalogue.clips.iter().enumerate() {
            let video = &mut catalogue.videos[origin.video as usize];
            if video.blake3.is_none() {
                let path = videos.path(clip);
                let mut hasher = blake3::Hasher::new();
                let read = Media::of(path).and_then(|media| {
                    media.read(path, |block| {
                        hasher.update(block);
                        Ok(())
                    })
                });
                video.blake3 = read.ok().map(|()| hasher.finalize().to_hex().to_string());
            }
        }
    }
}

/// Metadata of the feature file.
fn metadata(
    weights: &Weights,
    inference: &ClipInference<'_>,
) -> std::collections::HashMap<String, String> {
    let grid = weights.task.common().clip;
    let entries = [
        ("weights", weights.path.display().to_string()),
        (
            "views",
            format!("{}x{}", inference.views.temporal, inference.views.spatial),
        ),
        (
            "clip",
            format!(
                "{} frames of {} x {} pixels",
                grid.frames, grid.size, grid.size
            ),
        ),
    ];
    entries
        .map(|(key, value)| (format!("embed.{key}"), value))
        .into_iter()
        .collect()
}

fn feature_row(
    clip: ClipOutput,
    video: String,
    origin: ClipOrigin,
    class: Option<String>,
) -> FeatureRow {
    FeatureRow {
        video,
        clip: Some(origin.number),
        seconds: origin.seconds,
        label: clip.label,
        class,
        feature: clip.features,
        tokens: clip.tokens,
    }
}

/// Writes a row per clip, or the mean of the clips of each video.
struct RowWriter {
    file: FeatureFile,
    per: Per,
    /// The current video, if rows are per video.
    video: Option<VideoMean>,
    written: u64,
}

impl RowWriter {
    /// Adds the row of a clip of the video `key`, which are the indices of data set and video.
    fn push(&mut self, key: (usize, u32), row: FeatureRow) -> Result<(), FeatureError> {
        if self.per == Per::Clip {
            self.written += 1;
            return self.file.push(row);
        }
        match &mut self.video {
            Some(mean) if mean.key == key => {
                mean.add(&row);
                Ok(())
            }
            video => {
                let previous = video.replace(VideoMean { key, clips: 1, row });
                self.write_video(previous)
            }
        }
    }

    fn write_video(&mut self, video: Option<VideoMean>) -> Result<(), FeatureError> {
        let Some(video) = video else { return Ok(()) };
        self.written += 1;
        self.file.push(video.row())
    }

    /// Finishes the file, and returns the number of rows.
    fn finish(mut self) -> anyhow::Result<u64> {
        let last = self.video.take();
        self.write_video(last)?;
        ensure!(self.written > 0, "no clip could be read");
        self.file.finish()?;
        Ok(self.written)
    }
}

/// The feature of a clip, for the search.
struct EmbeddedClip {
    set: usize,
    clip: usize,
    feature: Vec<f32>,
}

/// Mean of the clips of a video.
struct VideoMean {
    key: (usize, u32),
    clips: usize,
    /// The sum of the features.
    row: FeatureRow,
}

impl VideoMean {
    fn add(&mut self, row: &FeatureRow) {
        self.clips += 1;
        self.row.seconds[1] = row.seconds[1];
        self.row
            .feature
            .iter_mut()
            .zip(&row.feature)
            .for_each(|(sum, value)| *sum += value);
    }

    fn row(mut self) -> FeatureRow {
        let clips = self.clips as f32;
        self.row
            .feature
            .iter_mut()
            .for_each(|value| *value /= clips);
        FeatureRow {
            clip: None,
            ..self.row
        }
    }
}

/// Class names of each set, by index; empty for sets without classes.
fn class_names(sets: &[WeightedSource]) -> Vec<Vec<String>> {
    sets.iter()
        .map(|set| trainer::data::classes::of_shards(&set.source).unwrap_or_default())
        .collect()
}

/// Opens the query videos that are not part of the data.
fn open_query_files(
    args: &EmbedArgs,
    weights: &Weights,
    sets: &[WeightedSource],
) -> anyhow::Result<Vec<WeightedSource>> {
    let mut known = BTreeSet::new();
    for set in sets {
        known.extend(
            set.source
                .catalogue()?
                .videos
                .into_iter()
                .map(|video| video.path),
        );
    }
    let unknown = args
        .query
        .iter()
        .filter(|query| !known.iter().any(|video| video.contains(query.as_str())));
    let mut files: Vec<DataArg> = Vec::new();
    for query in unknown {
        if !Path::new(query).is_file() {
            let some: Vec<&str> = known.iter().take(5).map(String::as_str).collect();
            bail!(
                "--query {query}: no path of a video in the data contains this, and there is no \
                 such file; the data has {}, ...",
                some.join(", ")
            );
        }
        files.push(DataArg::all(PathBuf::from(query)));
    }
    sources::open(
        &files,
        &Choice::default(),
        &inference::live_config(&args.read, weights),
        weights.task.common().clip.frames,
        args.read.load.cache().as_ref(),
    )
}

/// Nearest neighbours of the queries, to be drawn.
struct Sheet<'a> {
    args: &'a EmbedArgs,
    inference: &'a ClipInference<'a>,
    class_names: &'a [Vec<String>],
    clips: &'a [EmbeddedClip],
    /// Number of data sets; later sets are query files.
    data_sets: usize,
}

impl Sheet<'_> {
    /// Draws the queries with their nearest clips, and returns both.
    fn write(&self, path: &Path) -> anyhow::Result<Vec<QueryReport>> {
        let features: Vec<&[f32]> = self
            .clips
            .iter()
            .map(|clip| clip.feature.as_slice())
            .collect();
        let neighbours = Neighbours::new(&features);
        let mut rows = Vec::new();
        for query in self.queries()? {
            let own = self.identity(query);
            let is_candidate =
                |at: usize| self.clips[at].set < self.data_sets && self.identity(at) != own;
            let nearest = neighbours.nearest(query, self.args.neighbours as usize, is_candidate);
            let mut row = vec![self.sheet_clip(query, None)];
            row.extend(
                nearest
                    .iter()
                    .map(|near| self.sheet_clip(near.index, Some(near.similarity))),
            );
            rows.push(row);
        }
        let sheet = neighbours::sheet(&self.inference.data, self.inference.window_frames(), &rows)?;
        png(&sheet)
            .and_then(|png| atomic_file::write(path, &png))
            .with_context(|| format!("cannot write {}", path.display()))?;
        let report = |clip: &SheetClip| NeighbourReport {
            video: clip.video.clone(),
            second: clip.second,
            class: clip.class.clone(),
            similarity: clip.similarity.map(f64::from),
        };
        let query_report = |row: &Vec<SheetClip>| QueryReport {
            query: report(&row[0]),
            nearest: row[1..].iter().map(report).collect(),
        };
        Ok(rows.iter().map(query_report).collect())
    }

    /// Indices of the query clips: the middle clip of each query video, or clips spread over the
    /// data.
    fn queries(&self) -> anyhow::Result<Vec<usize>> {
        if self.args.query.is_empty() {
            let among: Vec<usize> = (0..self.clips.len())
                .filter(|&at| self.clips[at].set < self.data_sets)
                .collect();
            let count = QUERIES.min(among.len());
            return Ok((0..count)
                .map(|at| among[(2 * at + 1) * among.len() / (2 * count)])
                .collect());
        }
        let middle = |query: &String| {
            let of_video = |&at: &usize| self.origin(at).0.path.contains(query.as_str());
            let clips: Vec<usize> = (0..self.clips.len()).filter(of_video).collect();
            clips
                .get(clips.len() / 2)
                .copied()
                .with_context(|| format!("{query} could not be read"))
        };
        self.args.query.iter().map(middle).collect()
    }

    /// Video and place of a clip.
    fn origin(&self, at: usize) -> (&VideoOrigin, ClipOrigin) {
        let catalogue = &self.inference.catalogues[self.clips[at].set];
        let clip = catalogue.clips[self.clips[at].clip];
        (&catalogue.videos[clip.video as usize], clip)
    }

    /// Identifies the video of a clip, by checksum if known.
    fn identity(&self, at: usize) -> String {
        let (video, _) = self.origin(at);
        video.blake3.clone().unwrap_or_else(|| video.path.clone())
    }

    fn sheet_clip(&self, at: usize, similarity: Option<f32>) -> SheetClip {
        let EmbeddedClip { set, clip, .. } = self.clips[at];
        let (video, origin) = self.origin(at);
        let label = self.inference.data[set].clip(clip).label;
        let class = label.and_then(|label| self.class_names.get(set)?.get(label as usize).cloned());
        SheetClip {
            set,
            clip,
            video: video.path.clone(),
            second: origin.seconds[0],
            class,
            similarity,
        }
    }
}

/// Renders the report as text.
fn render_report(report: &EmbedReport, per: Per) -> String {
    let EmbedReport {
        out,
        rows,
        width,
        clips_per_second,
        skipped,
        ..
    } = report;
    let rows = format!(
        "{rows} {}{}",
        if per == Per::Clip { "clip" } else { "video" },
        if *rows == 1 { "" } else { "s" }
    );
    let mut text = format!("{rows} in {out}, {width} values each; {clips_per_second:.1} clips/s");
    if *skipped > 0 {
        text += &format!("; {skipped} clips could not be read and were skipped");
    }
    for query in &report.queries {
        let render_clip = |clip: &NeighbourReport| {
            let class = clip
                .class
                .as_ref()
                .map_or(String::new(), |class| format!(" ({class})"));
            let similarity = clip
                .similarity
                .map_or(String::new(), |similarity| format!("{similarity:.2}  "));
            format!("{similarity}{} at {:.1} s{class}", clip.video, clip.second)
        };
        text += &format!("\nnearest to {}:", render_clip(&query.query));
        query
            .nearest
            .iter()
            .for_each(|near| text += &format!("\n  {}", render_clip(near)));
        if query.nearest.is_empty() {
            text += "\n  there is no other video";
        }
    }
    if let Some(sheet) = &report.sheet {
        text += &format!("\npicture: {sheet}");
    }
    text
}
