//! `trainer import`: weights of another code base become ours.

use crate::cli::ImportArgs;
use anyhow::Context;
use console::output;
use schemas::report::ExchangeReport;
use std::fs;
use std::path::Path;
use trainer::convert::{self, Hints, Model};
use trainer::log::CONFIG_FILE;
use trainer::model::TransformerConfig;

/// Runs the command.
///
/// # Errors
/// What the user can mend: weights that are not known or do not fit, a folder that is there already.
pub fn import(args: &ImportArgs) -> anyhow::Result<()> {
    let hints = Hints {
        heads: args.heads.map(usize::from),
        decoder_heads: args.decoder_heads.map(usize::from),
        frames: args.frames.map(usize::from),
        size: args.size.map(usize::from),
        target: args.target,
        classes: args.classes.as_deref().map(classes).transpose()?,
    };
    let imported = convert::import(&args.foreign, &hints)?;
    let task = imported.task(&args.foreign.display().to_string())?;
    convert::write_folder(&args.out, &imported.tensors, &[(CONFIG_FILE, task.to_toml())])?;
    let report = ExchangeReport {
        format: imported.format.to_string(),
        model: described(&imported.model),
        from: args.foreign.display().to_string(),
        weights: args.out.display().to_string(),
        notes: imported.notes,
    };
    tell(&report, args.json)
}

/// Says what was done.
pub fn tell(report: &ExchangeReport, json: bool) -> anyhow::Result<()> {
    if json {
        return Ok(output::print(&serde_json::to_string_pretty(report)?)?);
    }
    let ExchangeReport { format, model, from, weights, notes } = report;
    let notes: String = notes.iter().map(|note| format!("note: {note}\n")).collect();
    Ok(output::print(&format!("{format} weights of {model}\n{notes}from: {from}\nweights: {weights}"))?)
}

/// The lines of a file that are not empty.
fn classes(path: &Path) -> anyhow::Result<Vec<String>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// A model in a few words.
pub fn described(model: &Model) -> String {
    let blocks = |TransformerConfig { width, depth, heads }: TransformerConfig| format!("of width {width}, depth {depth}, heads {heads}");
    let (grid, encoder, rest) = match model {
        Model::Mae(config) => (config.grid, config.encoder, format!("a masked autoencoder, its decoder {}", blocks(config.decoder))),
        Model::Classifier(config) => (config.grid, config.encoder, format!("a classifier of {} classes", config.classes)),
    };
    format!("{rest}; its encoder {}; clips of {} frames of {} x {} pixels", blocks(encoder), grid.frames, grid.size, grid.size)
}
