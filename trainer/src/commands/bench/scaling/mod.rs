//! `trainer bench scaling`: measures how training scales with ranks, and predicts it for other
//! networks.

mod model;

use super::{format_number, median, step};
use crate::cli::BenchScalingArgs;
use crate::commands::together;
use console::output;
use model::{Costs, Timeline};
use schemas::report::{LinkFigures, MeasuredScaling, PredictedScaling, ScalingReport};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;
use trainer::cpu::{CpuMae, Part, Patches, RandomBatch};
use trainer::ranks::{Ranks, sum_tree};

/// Values of the sums that measure the link, in one message for each rank: 64 MB.
const LINK_VALUES: usize = 1 << 24;

/// Timed sums, of which the median counts.
const LINK_SUMS: usize = 5;

/// Runs the command.
///
/// # Errors
/// When the flags are invalid.
pub fn scaling(args: &BenchScalingArgs) -> anyhow::Result<ExitCode> {
    let ranks = Ranks::start()?;
    together::end(&ranks, scaling_with(&ranks, args))
}

/// [`scaling`] on each of `ranks`.
fn scaling_with(ranks: &Ranks, args: &BenchScalingArgs) -> anyhow::Result<ExitCode> {
    let (config, threads) = step::settings(ranks, &args.step)?;
    let clips = config.common.data.batch_size;
    let mut model = together::agree(ranks, step::model(&config, threads))?;
    let seed = config.common.seed + ranks.number() as u64;
    let batch = RandomBatch::new(&config.model(), Some(config.objective.masking), clips, seed);
    let patches = batch.patches();
    let steps = args.step.steps;

    let timeline = measure_alone(ranks, &mut model, &patches, steps as usize);
    let add_up = measure_additions();
    let mut link = None;
    let mut measured = Vec::new();
    for count in counts(ranks.count()) {
        if let Some(some) = ranks.first(count) {
            let costs = measure_link(&some, add_up);
            link = costs.or(link);
            let steps = step::timed_steps(&some, &mut model, &patches, steps);
            let seconds = median(steps.iter().map(|step| step.seconds).collect());
            let alone = timeline.alone();
            measured.push(MeasuredScaling {
                ranks: count as u64,
                seconds_per_step: seconds,
                clips_per_second: (count * clips) as f64 / seconds,
                efficiency: alone / seconds,
                sum_seconds: step::median_of(&steps, |step| step.sums.all),
                exposed_seconds: step::median_of(&steps, |step| step.sums.exposed),
                predicted_seconds: costs.map_or(alone, |costs| timeline.on(count, costs).step),
            });
        }
        ranks.wait_quietly();
    }
    if !ranks.is_root() {
        return Ok(ExitCode::SUCCESS);
    }
    let report = ScalingReport {
        preset: args.step.preset.name().to_owned(),
        batch_size: clips as u64,
        dtype: step::dtype_name(args.step.dtype).to_owned(),
        threads: threads as u64,
        parameters: model.store().count() as u64,
        alone_seconds: timeline.alone(),
        overlap_seconds: timeline.overlap(),
        link: link.map(|costs| LinkFigures {
            gbit_per_second: 8e-9 * costs.bytes_per_second,
            latency_seconds: costs.latency,
        }),
        measured,
        predicted: predict(args, &timeline, add_up),
    };
    output::print(&if args.json {
        serde_json::to_string_pretty(&report)?
    } else {
        render_report(&report)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// 1, 2, 4, ... and `all`.
fn counts(all: usize) -> Vec<usize> {
    let powers = (0..).map(|power| 1 << power);
    let mut counts: Vec<usize> = powers.take_while(|&count| count < all).collect();
    counts.push(all);
    counts
}

/// The median step without sums, while all ranks compute.
fn measure_alone(ranks: &Ranks, model: &mut CpuMae, batch: &Patches<'_>, steps: usize) -> Timeline {
    // The first one allocates memory.
    let mut timelines: Vec<Timeline> = (0..=steps)
        .map(|_| {
            ranks.wait();
            time_alone(model, batch)
        })
        .skip(1)
        .collect();
    timelines.sort_by(|a, b| a.alone().total_cmp(&b.alone()));
    timelines.swap_remove(steps / 2)
}

fn time_alone(model: &mut CpuMae, batch: &Patches<'_>) -> Timeline {
    let began = Instant::now();
    let (compute, buckets) = thread::scope(|scope| {
        let (sender, buckets) = mpsc::channel::<&mut [f32]>();
        let computing = scope.spawn(|| {
            let part = Part::Micro {
                index: 0,
                count: 1,
                buckets: Some(sender),
            };
            model.accumulate_part(batch, 1.0, part);
            began.elapsed().as_secs_f64()
        });
        let buckets = buckets.iter();
        let buckets: Vec<(f64, usize)> = buckets
            .map(|bucket| (began.elapsed().as_secs_f64(), bucket.len()))
            .collect();
        (computing.join().expect("no panic"), buckets)
    });
    model.store_mut().add_batch();
    model.update(step::RATE);
    // This thread may have been told late.
    let buckets = buckets.into_iter();
    let buckets = buckets.map(|(at, values)| (f64::min(at, compute), values));
    Timeline {
        compute,
        buckets: buckets.collect(),
        update: began.elapsed().as_secs_f64() - compute,
    }
}

/// Seconds of adding up a value of a bucket.
fn measure_additions() -> f64 {
    let mut parts = vec![1.0; 1 << 20];
    let seconds = (0..LINK_SUMS).map(|_| {
        let began = Instant::now();
        let length = parts.len() / 8;
        sum_tree(&mut parts, length);
        began.elapsed().as_secs_f64()
    });
    median(seconds.collect()) / parts.len() as f64
}

/// What sums over these ranks cost; none for one rank.
fn measure_link(ranks: &Ranks, add_up: f64) -> Option<Costs> {
    if ranks.count() == 1 {
        return None;
    }
    let mut values = vec![0.0; LINK_VALUES];
    let mut time = |length: usize| {
        let seconds = (0..=LINK_SUMS).map(|_| {
            ranks.wait();
            let began = Instant::now();
            ranks.sum(&mut values[..length]);
            began.elapsed().as_secs_f64()
        });
        median(seconds.skip(1).collect())
    };
    let (least, most) = (time(ranks.count()), time(LINK_VALUES));
    let others = (ranks.count() - 1) as f64;
    let bytes = 2.0 * 4.0 * LINK_VALUES as f64 * others / ranks.count() as f64;
    let additions = add_up * LINK_VALUES as f64;
    Some(Costs {
        bytes_per_second: bytes / f64::max(most - least - additions, 1e-9),
        latency: least / (2.0 * others),
        add_up,
    })
}

/// The steps on other networks.
fn predict(args: &BenchScalingArgs, timeline: &Timeline, add_up: f64) -> Vec<PredictedScaling> {
    let latency = 1e-6 * args.latency;
    let of_link = |&gbits: &f64| {
        let costs = Costs {
            bytes_per_second: 1e9 / 8.0 * gbits,
            latency,
            add_up,
        };
        let on = move |&nodes: &u32| {
            let predicted = timeline.on(nodes as usize, costs);
            PredictedScaling {
                link: LinkFigures {
                    gbit_per_second: gbits,
                    latency_seconds: latency,
                },
                nodes: nodes.into(),
                seconds_per_step: predicted.step,
                efficiency: timeline.alone() / predicted.step,
                sum_seconds: predicted.sums,
                exposed_seconds: predicted.exposed,
            }
        };
        args.nodes.iter().map(on)
    };
    args.gbits.iter().flat_map(of_link).collect()
}

/// Renders the report as text.
fn render_report(report: &ScalingReport) -> String {
    let ScalingReport {
        preset,
        parameters,
        batch_size,
        dtype,
        threads,
        alone_seconds,
        overlap_seconds,
        ..
    } = report;
    let mut text = format!(
        "{preset} ({parameters} parameters, {:.2} GB of gradients), {batch_size} clips per rank, \
         {dtype}, {threads} threads each; random data, no loading\n\n\
         step without sums    {alone_seconds:.3} s, of which {overlap_seconds:.3} s after the first \
         gradients\n",
        4e-9 * *parameters as f64
    );
    if let Some(link) = &report.link {
        text += &format!(
            "link of the ranks    {} Gbit/s each way, {:.0} us per message\n\nmeasured\n{:>6}  \
             {:>9}  {:>9}  {:>10}  {:>8}  {:>10}  {:>11}\n",
            format_number(link.gbit_per_second),
            1e6 * link.latency_seconds,
            "ranks",
            "step s",
            "clips/s",
            "efficiency",
            "sums s",
            "not hidden",
            "predicted s"
        );
        for row in &report.measured {
            text += &format!(
                "{:>6}  {:>9.3}  {:>9}  {:>8.1} %  {:>8.3}  {:>10.3}  {:>11.3}\n",
                row.ranks,
                row.seconds_per_step,
                format_number(row.clips_per_second),
                100.0 * row.efficiency,
                row.sum_seconds,
                row.exposed_seconds,
                row.predicted_seconds
            );
        }
    }
    text += "\npredicted: seconds of a step, and efficiency\n nodes";
    let rows = &report.predicted;
    let mut links: Vec<f64> = rows.iter().map(|row| row.link.gbit_per_second).collect();
    links.dedup();
    for gbits in &links {
        text += &format!("  {:>17}", format!("{gbits} Gbit/s"));
    }
    let nodes = rows.len() / links.len();
    for at in 0..nodes {
        text += &format!("\n{:>6}", rows[at].nodes);
        for row in rows.iter().skip(at).step_by(nodes) {
            let (seconds, efficiency) = (row.seconds_per_step, 100.0 * row.efficiency);
            text += &format!("  {seconds:>8.3} {efficiency:>6.1} %");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_doubled_up_to_all() {
        assert_eq!(counts(1), [1]);
        assert_eq!(counts(6), [1, 2, 4, 6]);
        assert_eq!(counts(8), [1, 2, 4, 8]);
    }
}
