//! `trainer curves`: plots the curves of runs.

use crate::cli::CurvesArgs;
use console::output;
use schemas::report::{CurvesReport, RunFigures};
use trainer::log::{self, History};

/// Runs the command.
///
/// # Errors
/// Errors that the user can fix: a folder without metrics, damaged metrics, a path that cannot be
/// written.
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
    let mut lines: Vec<String> = report.runs.iter().map(render_run).collect();
    lines.push(format!("curves: {}", report.picture));
    lines.extend(report.html.map(|html| format!("report: {html}")));
    Ok(output::print(&lines.join("\n"))?)
}

/// Renders a run as a line.
fn render_run(run: &RunFigures) -> String {
    let RunFigures {
        name,
        steps,
        first_loss,
        last_loss,
        clips_per_second,
        stall_fraction,
        ..
    } = run;
    format!(
        "{name}: {steps} steps: loss {first_loss:.4} over the first ten, {last_loss:.4} over the \
         last ten; {clips_per_second:.1} clips/s, {:.1} % of the time \
         waiting for data",
        100.0 * stall_fraction
    )
}
