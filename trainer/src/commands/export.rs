//! `trainer export`: exports weights to the format of another code base.

use crate::cli::ExportArgs;
use crate::commands::import::{print_report, render_model};
use schemas::report::ExchangeReport;
use trainer::convert::{self, Format, Model};
use trainer::train::weights::Weights;

/// Runs the command.
///
/// # Errors
/// Errors that the user can fix: invalid weights, a format that cannot represent them, a file that
/// already exists.
pub fn export(args: &ExportArgs) -> anyhow::Result<()> {
    let weights = Weights::open(&args.weights)?;
    let model = Model::from(&weights.task);
    let tensors = weights
        .tensors
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.clone()))
        .collect();
    let exported = convert::export(&model, Some(weights.classes()), tensors, args.format)?;
    if args.format == Format::Huggingface {
        let texts = exported
            .files
            .iter()
            .map(|(name, content)| Ok((*name, serde_json::to_string_pretty(content)?)));
        convert::write_folder(
            &args.out,
            &exported.tensors,
            &texts.collect::<anyhow::Result<Vec<_>>>()?,
        )?;
    } else {
        convert::write_file(&args.out, &exported.tensors)?;
    }
    let skipped_checkpoints = weights
        .skipped_checkpoints
        .iter()
        .map(|invalid| format!("skipped an invalid checkpoint: {invalid}"));
    let report = ExchangeReport {
        format: args.format.to_string(),
        model: render_model(&model),
        from: weights.path.display().to_string(),
        weights: args.out.display().to_string(),
        notes: skipped_checkpoints.chain(exported.notes).collect(),
    };
    print_report(&report, args.json)
}
