//! Benchmarks on several ranks.

use crate::Work;
use schemas::report::{ScalingReport, StepReport};
use tests::parse_report;

/// One step of a small model on one thread of each rank.
const STEP: [&str; 10] = [
    "--config",
    "config.toml",
    "--preset",
    "tiny",
    "--steps",
    "1",
    "--threads",
    "1",
    "--batch-size",
    "8",
];

#[test]
fn a_step_of_several_ranks_is_timed_with_its_sums() {
    let Some(work) = Work::new() else { return };
    let bench = [&["bench", "step"][..], &STEP, &["--json"]].concat();
    let report: StepReport = parse_report(&work.run(3, &bench));
    let ranks = report.ranks.expect("several ranks");
    assert_eq!(ranks.count, 3);
    assert!(ranks.sum_seconds > 0.0 && ranks.exposed_seconds <= ranks.sum_seconds);
    let clips = report.clips_per_second * report.seconds_per_step;
    assert!((clips - 24.0).abs() < 1e-6, "8 clips of each: {clips}");
    let alone: StepReport = parse_report(&work.run(1, &bench));
    assert_eq!(alone.ranks, None);
    assert!((report.gflop_per_step / alone.gflop_per_step - 3.0).abs() < 1e-6);
}

#[test]
fn scaling_is_measured_on_some_ranks_and_predicted_for_more() {
    let Some(work) = Work::new() else { return };
    let networks = ["--gbits", "1,100", "--nodes", "2,16", "--json"];
    let bench = [&["bench", "scaling"][..], &STEP, &networks].concat();
    let report: ScalingReport = parse_report(&work.run(3, &bench));
    let ranks: Vec<u64> = report.measured.iter().map(|row| row.ranks).collect();
    assert_eq!(ranks, [1, 2, 3]);
    assert!(report.link.is_some_and(|link| link.gbit_per_second > 0.0));
    assert_eq!(report.measured[0].sum_seconds, 0.0);
    assert!(report.measured[2].sum_seconds > 0.0);
    let rows = report.predicted.iter();
    let rows: Vec<(f64, u64)> = rows
        .map(|row| (row.link.gbit_per_second, row.nodes))
        .collect();
    assert_eq!(rows, [(1.0, 2), (1.0, 16), (100.0, 2), (100.0, 16)]);
    let sums: Vec<f64> = report.predicted.iter().map(|row| row.sum_seconds).collect();
    assert!(sums[0] > sums[2] && sums[1] > sums[0], "{sums:?}");
    for row in &report.predicted {
        let step = report.alone_seconds + row.exposed_seconds;
        assert!((row.seconds_per_step - step).abs() < 1e-9, "{row:?}");
        assert!(row.efficiency <= 1.0 && row.exposed_seconds <= row.sum_seconds + 1e-9);
    }

    let alone: ScalingReport = parse_report(&work.run(1, &bench));
    assert_eq!((alone.link, alone.measured.len()), (None, 1));
    assert_eq!(alone.predicted.len(), 4);
}
