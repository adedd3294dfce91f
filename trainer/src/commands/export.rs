//! `trainer export`: our weights become another code base's.

use crate::cli::ExportArgs;
use crate::commands::import::{described, tell};
use schemas::report::ExchangeReport;
use trainer::convert::{self, Format, Model};
use trainer::train::weights::Weights;

/// Runs the command.
///
/// # Errors
/// What the user can mend: weights that cannot be used, a format that has no place for them, a file that is there already.
pub fn export(args: &ExportArgs) -> anyhow::Result<()> {
    let weights = Weights::open(&args.weights)?;
    let model = Model::from(&weights.task);
    let tensors = weights.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
    let exported = convert::export(&model, Some(weights.classes()), tensors, args.format)?;
    if args.format == Format::Huggingface {
        let texts = exported.files.iter().map(|(name, content)| Ok((*name, serde_json::to_string_pretty(content)?)));
        convert::write_folder(&args.out, &exported.tensors, &texts.collect::<anyhow::Result<Vec<_>>>()?)?;
    } else {
        convert::write_file(&args.out, &exported.tensors)?;
    }
    let skipped_checkpoints = weights.skipped_checkpoints.iter().map(|invalid| format!("passed over {invalid}"));
    let report = ExchangeReport {
        format: args.format.to_string(),
        model: described(&model),
        from: weights.path.display().to_string(),
        weights: args.out.display().to_string(),
        notes: skipped_checkpoints.chain(exported.notes).collect(),
    };
    tell(&report, args.json)
}
