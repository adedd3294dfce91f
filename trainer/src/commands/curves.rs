//! `trainer curves`: runs, drawn over each other.

use crate::cli::CurvesArgs;
use console::output;
use schemas::report::{CurvesReport, RunFigures};
use trainer::log::{self, History};

/// Runs the command.
///
/// # Errors
/// What the user can mend: a folder without metrics, damaged metrics, a place that cannot be written.
pub fn curves(args: &CurvesArgs) -> anyhow::Result<()> {
    let runs = History::read_all(&args.runs)?;
    log::write_curves(&runs, &args.out, args.html.as_deref())?;
    let report = CurvesReport {
        picture: args.out.display().to_string(),
        html: args.html.as_ref().map(|path| path.display().to_string()),
        runs: runs.iter().map(History::figures).collect(),
    };
    if args.json {
        return Ok(output::print(&serde_json::to_string_pretty(&report)?)?);
    }
    let mut lines: Vec<String> = report.runs.iter().map(line).collect();
    lines.push(format!("curves: {}", report.picture));
    lines.extend(report.html.map(|html| format!("report: {html}")));
    Ok(output::print(&lines.join("\n"))?)
}

/// A run in a line.
fn line(run: &RunFigures) -> String {
    let RunFigures { name, steps, first_loss, last_loss, clips_per_second, stall_fraction, .. } = run;
    format!(
        "{name}: {steps} steps: loss {first_loss:.4} over the first ten, {last_loss:.4} over the last ten; {clips_per_second:.1} clips/s, {:.1} % of the time \
         waiting for data",
        100.0 * stall_fraction
    )
}
