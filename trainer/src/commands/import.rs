//! `trainer import`: imports weights of another code base.

use crate::cli::ImportArgs;
use anyhow::Context;
use console::output;
use schemas::geometry::PatchGrid;
use schemas::report::ExchangeReport;
use std::fs;
use std::path::Path;
use trainer::convert::{self, Hints, Model};
use trainer::log::CONFIG_FILE;
use trainer::model::TransformerConfig;

/// Runs the command.
///
/// # Errors
/// Errors that the user can fix: weights of an unknown format, weights that do not fit, a folder
/// that already exists.
pub fn import(args: &ImportArgs) -> anyhow::Result<()> {
    let hints = Hints {
        heads: args.heads.map(usize::from),
        decoder_heads: args.decoder_heads.map(usize::from),
        frames: args.frames.map(usize::from),
        size: args.size.map(usize::from),
        normalise_target: args.normalise_target,
        classes: args.classes.as_deref().map(read_classes).transpose()?,
    };
    let imported = convert::import(&args.foreign, &hints)?;
    let task = imported.task(&args.foreign.display().to_string())?;
    convert::write_folder(
        &args.out,
        &imported.tensors,
        &[(CONFIG_FILE, task.to_toml())],
    )?;
    let report = ExchangeReport {
        format: imported.format.to_string(),
        model: render_model(&imported.model),
        from: args.foreign.display().to_string(),
        weights: args.out.display().to_string(),
        notes: imported.notes,
    };
    print_report(&report, args.json)
}

/// Prints the report of an import or export.
pub fn print_report(report: &ExchangeReport, json: bool) -> anyhow::Result<()> {
    if json {
        return Ok(output::print(&serde_json::to_string_pretty(report)?)?);
    }
    let ExchangeReport {
        format,
        model,
        from,
        weights,
        notes,
    } = report;
    let notes: String = notes.iter().map(|note| format!("note: {note}\n")).collect();
    Ok(output::print(&format!(
        "{format} weights of {model}\n{notes}from: {from}\nweights: {weights}"
    ))?)
}

/// Reads class names from the non-empty lines of a file.
fn read_classes(path: &Path) -> anyhow::Result<Vec<String>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect())
}

/// Describes a model in one line.
pub fn render_model(model: &Model) -> String {
    let blocks =
        |TransformerConfig {
             width,
             depth,
             heads,
         }: TransformerConfig| format!("of width {width}, depth {depth}, heads {heads}");
    let (grid, encoder, kind, decoder) = match model {
        Model::Mae(config) => (
            config.grid,
            config.encoder,
            "a masked autoencoder".to_owned(),
            format!("decoder {}; ", blocks(config.decoder)),
        ),
        Model::Classifier(config) => (
            config.grid,
            config.encoder,
            format!("a classifier of {} classes", config.classes),
            String::new(),
        ),
    };
    let PatchGrid { frames, size, .. } = grid;
    format!(
        "{kind}: encoder {}; {decoder}clips of {frames} frames of {size} x {size} pixels",
        blocks(encoder)
    )
}
