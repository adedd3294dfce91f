//! Plots the curves of one or several runs.

use super::average::Average;
use super::history::{History, Point};
use crate::plot::canvas::{self, Align, Area, Letters};
use image::{Rgb, RgbImage};

const WIDTH: u32 = 1400;
const MARGIN: u32 = 24;
/// Gap between panels.
const GAP: u32 = 28;
/// Height of the first panel's axes, and of the others'.
const LARGE_HEIGHT: u32 = 380;
const SMALL_HEIGHT: u32 = 220;
/// Space for the numbers left of and below the axes, and for the heading above.
const LEFT: u32 = 76;
const BELOW: u32 = 28;
const ABOVE: u32 = 32;

const PAPER: Rgb<u8> = Rgb([255, 255, 255]);
const INK: Rgb<u8> = Rgb([36, 40, 46]);
const PALE_INK: Rgb<u8> = Rgb([110, 116, 125]);
const GRID: Rgb<u8> = Rgb([232, 234, 237]);
const AXIS: Rgb<u8> = Rgb([160, 165, 172]);

/// Colours of runs, which can be distinguished with every kind of colour vision (Okabe and Ito
/// 2008, with a darker yellow).
const COLORS: [Rgb<u8>; 7] = [
    Rgb([0, 114, 178]),
    Rgb([213, 94, 0]),
    Rgb([0, 158, 115]),
    Rgb([204, 121, 167]),
    Rgb([86, 180, 233]),
    Rgb([190, 150, 0]),
    Rgb([90, 90, 90]),
];

/// A curve is smoothed over `SMOOTHED_SHARE` of the longest run's steps to either side, so that all
/// runs are smoothed alike, but over at most `MOST_SMOOTHED_SHARE` of its own steps, and at least
/// `LEAST_SMOOTHED` steps.
const SMOOTHED_SHARE: f64 = 0.02;
const MOST_SMOOTHED_SHARE: f64 = 0.1;
const LEAST_SMOOTHED: f64 = 5.0;

/// This share of the steps at each end may lie outside the axes, so that one outlier does not
/// flatten the curve.
const OUTLIERS: f64 = 0.005;

/// The panel of one quantity.
struct Panel {
    heading: &'static str,
    value: fn(&Point) -> f64,
    /// Whether the axis starts at 0.
    from_zero: bool,
    /// Whether values are noisy, so that a smoothed curve is drawn.
    is_noisy: bool,
    /// Whether only some steps have a value: the curve joins these.
    is_sparse: bool,
    /// Minimum upper end of the axis.
    least_top: f64,
}

const LOSS: Panel = Panel {
    heading: "loss",
    value: |step| step.loss,
    from_zero: false,
    is_noisy: true,
    is_sparse: false,
    least_top: 0.0,
};

/// Two a row.
const SMALL: [Panel; 4] = [
    Panel {
        heading: "learning rate",
        value: |step| step.lr,
        from_zero: true,
        is_noisy: false,
        is_sparse: false,
        least_top: 0.0,
    },
    Panel {
        heading: "gradient norm before clipping",
        value: |step| step.grad_norm,
        from_zero: true,
        is_noisy: true,
        is_sparse: false,
        least_top: 0.0,
    },
    Panel {
        heading: "clips per second",
        value: |step| step.clips_per_second,
        from_zero: true,
        is_noisy: true,
        is_sparse: false,
        least_top: 0.0,
    },
    Panel {
        heading: "time waiting for data, %",
        value: |step| 100.0 * step.wait_fraction(),
        from_zero: true,
        is_noisy: true,
        is_sparse: false,
        least_top: 1.0,
    },
];

/// The panel of classifiers.
const ACCURACY: Panel = Panel {
    heading: "validation accuracy, %",
    value: |step| 100.0 * step.accuracy,
    from_zero: true,
    is_noisy: false,
    is_sparse: true,
    least_top: 10.0,
};

/// The colour of run `run`: after all colours come darker ones, then lighter ones.
pub fn color(run: usize) -> Rgb<u8> {
    let Rgb(color) = COLORS[run % COLORS.len()];
    Rgb(match run / COLORS.len() % 3 {
        0 => color,
        1 => color.map(|value| (u16::from(value) * 11 / 20) as u8),
        _ => color.map(|value| value + (255 - value) / 2),
    })
}

/// Plots runs in the same axes: loss, learning rate, gradient norm, clips per second and share of
/// the time spent waiting for data, by step, and for classifiers the accuracy on validation clips.
pub fn draw(runs: &[History]) -> RgbImage {
    let legend = legend_lines(runs);
    let top = MARGIN + (legend.len() as u32 + 1) * (Letters::Large.height() + 6) + 8;
    let has_accuracy = runs
        .iter()
        .any(|run| run.steps.iter().any(|step| !step.accuracy.is_nan()));
    let panels: Vec<&Panel> = SMALL
        .iter()
        .chain(has_accuracy.then_some(&ACCURACY))
        .collect();
    let small_rows = panels.len().div_ceil(2) as u32;
    let panel_rows = |height: u32| ABOVE + height + BELOW;
    let height =
        top + panel_rows(LARGE_HEIGHT) + small_rows * (GAP + panel_rows(SMALL_HEIGHT)) + MARGIN;
    let mut picture = RgbImage::from_pixel(WIDTH, height, PAPER);
    draw_legend(&mut picture, &legend);

    let width = WIDTH - 2 * MARGIN;
    let axes = |left: u32, top: u32, width: u32, height: u32| Area {
        left: left + LEFT,
        top: top + ABOVE,
        width: width - LEFT,
        height,
    };
    draw_panel(
        &mut picture,
        axes(MARGIN, top, width, LARGE_HEIGHT),
        &LOSS,
        runs,
    );
    let half = (width - GAP) / 2;
    for (panel, number) in panels.into_iter().zip(0..) {
        let left = MARGIN + number % 2 * (half + GAP);
        let top =
            top + panel_rows(LARGE_HEIGHT) + GAP + number / 2 * (GAP + panel_rows(SMALL_HEIGHT));
        draw_panel(
            &mut picture,
            axes(left, top, half, SMALL_HEIGHT),
            panel,
            runs,
        );
    }
    picture
}

/// Width of a legend's stroke with the gap after it, and the gap after each entry.
const STROKE: u32 = 44;
const ENTRY_GAP: u32 = 30;

/// Breaks the entries of the legend into lines.
fn legend_lines(runs: &[History]) -> Vec<Vec<(&str, Rgb<u8>)>> {
    let mut lines: Vec<Vec<(&str, Rgb<u8>)>> = Vec::new();
    let mut room = 0;
    for (number, run) in runs.iter().enumerate() {
        let width = STROKE + Letters::Large.width(&run.name) + ENTRY_GAP;
        match lines.last_mut().filter(|_| room >= width) {
            Some(line) => line.push((&run.name, color(number))),
            None => {
                lines.push(vec![(&run.name, color(number))]);
                room = WIDTH - 2 * MARGIN;
            }
        }
        room = room.saturating_sub(width);
    }
    lines
}

fn draw_legend(picture: &mut RgbImage, lines: &[Vec<(&str, Rgb<u8>)>]) {
    let mut top = MARGIN;
    for line in lines {
        let mut left = MARGIN;
        for &(name, color) in line {
            canvas::fill(
                picture,
                Area {
                    left,
                    top: top + Letters::Large.height() / 2 - 1,
                    width: STROKE - 12,
                    height: 4,
                },
                color,
            );
            canvas::text(
                picture,
                (left + STROKE, top),
                Align::Left,
                Letters::Large,
                INK,
                name,
            );
            left += STROKE + Letters::Large.width(name) + ENTRY_GAP;
        }
        top += Letters::Large.height() + 6;
    }
    let note = "faint: single steps; strong: mean of the steps around";
    canvas::text(
        picture,
        (MARGIN, top + 4),
        Align::Left,
        Letters::Small,
        PALE_INK,
        note,
    );
}

fn draw_panel(picture: &mut RgbImage, axes: Area, panel: &Panel, runs: &[History]) {
    let longest = runs.iter().map(|run| run.steps.len()).max().unwrap_or(0);
    let curves: Vec<Curve> = runs
        .iter()
        .map(|run| Curve::new(run, panel, longest))
        .collect();
    let steps = runs
        .iter()
        .flat_map(|run| &run.steps)
        .map(|step| step.step as f64);
    let across = Axis::steps(steps);
    let upward = Axis::values(
        curves.iter().filter_map(|curve| curve.ends).flatten(),
        panel,
    );

    canvas::text(
        picture,
        (axes.left, axes.top - ABOVE + 6),
        Align::Left,
        Letters::Large,
        INK,
        panel.heading,
    );
    let bottom = axes.top + axes.height;
    let right = axes.left + axes.width;
    let label_rise = Letters::Small.height() / 2;
    for tick in upward.ticks(axes.height / 42) {
        let y = (f64::from(bottom) - upward.place(tick) * f64::from(axes.height)).round() as u32;
        canvas::fill(
            picture,
            Area {
                left: axes.left,
                top: y,
                width: axes.width,
                height: 1,
            },
            GRID,
        );
        canvas::text(
            picture,
            (axes.left - 8, y - label_rise),
            Align::Right,
            Letters::Small,
            PALE_INK,
            &upward.label(tick),
        );
    }
    for tick in across.ticks(axes.width / 85) {
        let x = (f64::from(axes.left) + across.place(tick) * f64::from(axes.width)).round() as u32;
        canvas::fill(
            picture,
            Area {
                left: x,
                top: axes.top,
                width: 1,
                height: axes.height,
            },
            GRID,
        );
        canvas::fill(
            picture,
            Area {
                left: x,
                top: bottom,
                width: 1,
                height: 5,
            },
            AXIS,
        );
        canvas::text(
            picture,
            (x, bottom + 8),
            Align::Middle,
            Letters::Small,
            PALE_INK,
            &across.label(tick),
        );
    }
    canvas::text(
        picture,
        (axes.left - 28, bottom + 8),
        Align::Right,
        Letters::Small,
        PALE_INK,
        "step",
    );
    canvas::fill(
        picture,
        Area {
            left: axes.left,
            top: axes.top,
            width: 1,
            height: axes.height,
        },
        AXIS,
    );
    canvas::fill(
        picture,
        Area {
            left: axes.left,
            top: bottom,
            width: right - axes.left,
            height: 1,
        },
        AXIS,
    );

    let place = |&(step, value): &(f64, f64)| {
        let x = f64::from(axes.left) + across.place(step) * f64::from(axes.width);
        // Clamped far outside the axes.
        let y = f64::from(bottom) - upward.place(value).clamp(-9.0, 9.0) * f64::from(axes.height);
        (x, y)
    };
    let mut draw = |points: &[(f64, f64)], width: f64, run: usize, opacity: f32| {
        let points: Vec<(f64, f64)> = points.iter().map(place).collect();
        canvas::line(picture, axes, &points, width, color(run), opacity);
    };
    // Faint lines first, so that none hides a strong one.
    for (run, curve) in curves.iter().enumerate().filter(|_| panel.is_noisy) {
        draw(&curve.single, 1.0, run, 0.28);
    }
    for (run, curve) in curves.iter().enumerate() {
        draw(&curve.smooth, 2.4, run, 1.0);
    }
}

/// One run's values of one quantity.
struct Curve {
    /// Step and value; NaN where the step was not finite.
    single: Vec<(f64, f64)>,
    /// The smoothed values; the single ones if these are not noisy.
    smooth: Vec<(f64, f64)>,
    /// Minimum and maximum that the axis has to show; `None` if no step is finite.
    ends: Option<[f64; 2]>,
}

impl Curve {
    /// The curve of a run; `longest` is the number of steps of the longest run in the plot.
    fn new(run: &History, panel: &Panel, longest: usize) -> Self {
        let values = run
            .steps
            .iter()
            .map(|step| (step.step as f64, (panel.value)(step)));
        let single: Vec<(f64, f64)> = values
            .filter(|(_, value)| !panel.is_sparse || !value.is_nan())
            .collect();
        let smooth = if panel.is_noisy {
            smoothed(&single, longest)
        } else {
            single.clone()
        };
        let mut sorted: Vec<f64> = single
            .iter()
            .map(|&(_, value)| value)
            .filter(|value| value.is_finite())
            .collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let outliers = if panel.is_noisy {
            (OUTLIERS * sorted.len() as f64) as usize
        } else {
            0
        };
        let ends =
            (!sorted.is_empty()).then(|| [sorted[outliers], sorted[sorted.len() - 1 - outliers]]);
        Self {
            single,
            smooth,
            ends,
        }
    }
}

/// Two-sided exponential smoothing, which does not lag. Values that are not finite are kept, and do
/// not affect others.
fn smoothed(values: &[(f64, f64)], longest: usize) -> Vec<(f64, f64)> {
    let over = (SMOOTHED_SHARE * longest as f64)
        .min(MOST_SMOOTHED_SHARE * values.len() as f64)
        .max(LEAST_SMOOTHED);
    let pass = |average: &mut Average, value: f64| {
        average.push(value);
        (average.sum, average.weight)
    };
    let mut before = Average::over(over);
    let mut after = Average::over(over);
    let mut sums: Vec<(f64, f64)> = values
        .iter()
        .rev()
        .map(|&(_, value)| pass(&mut after, value))
        .collect();
    sums.reverse();
    let both = values
        .iter()
        .zip(sums)
        .map(|(&(step, value), (sum_after, weight_after))| {
            let (sum_before, weight_before) = pass(&mut before, value);
            // The value itself is in both.
            (
                step,
                (sum_before + sum_after - value) / (weight_before + weight_after - 1.0),
            )
        });
    both.collect()
}

/// An axis from `low` to `high`, which differ.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    fn steps(steps: impl Iterator<Item = f64>) -> Self {
        let (low, high) = ends(steps);
        if high > low {
            Self { low, high }
        } else {
            Self {
                low: low - 0.5,
                high: low + 0.5,
            }
        }
    }

    fn values(values: impl Iterator<Item = f64>, panel: &Panel) -> Self {
        let (low, high) = ends(values);
        let low = if panel.from_zero { 0.0 } else { low };
        let high = high.max(panel.least_top);
        let room = if high > low {
            0.06 * (high - low)
        } else {
            (0.1 * high.abs()).max(1e-3)
        };
        Self {
            low: if panel.from_zero { 0.0 } else { low - room },
            high: high + room,
        }
    }

    /// Position of a value: 0 at the low end, 1 at the high end.
    fn place(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    /// Distance between ticks: 1, 2 or 5 times a power of ten, so that there are at most `most`
    /// ticks.
    fn spacing(&self, most: u32) -> f64 {
        let least = (self.high - self.low) / f64::from(most.max(1));
        let power = 10f64.powf(least.log10().floor());
        [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|factor| factor * power)
            .find(|&spacing| spacing >= least * (1.0 - 1e-9))
            .unwrap_or(10.0 * power)
    }

    fn ticks(&self, most: u32) -> impl Iterator<Item = f64> {
        let spacing = self.spacing(most);
        let slack = 1e-6 * spacing;
        let first = ((self.low - slack) / spacing).ceil() as i64;
        let last = ((self.high + slack) / spacing).floor() as i64;
        (first..=last).map(move |number| number as f64 * spacing)
    }

    /// A tick's number, with as many digits as the axis needs.
    fn label(&self, tick: f64) -> String {
        let most = self.low.abs().max(self.high.abs());
        // Noise of the multiplication.
        let digits = |number: String| {
            if number.contains('.') {
                number
                    .trim_end_matches('0')
                    .trim_end_matches('.')
                    .to_owned()
            } else {
                number
            }
        };
        if tick.abs() < 1e-9 * most {
            "0".to_owned()
        } else if most < 1e-2 {
            let number = format!("{tick:.3e}");
            let (mantissa, exponent) = number.split_once('e').unwrap_or((&number, "0"));
            format!("{}e{exponent}", digits(mantissa.to_owned()))
        } else if most >= 1e6 {
            format!("{}M", digits(format!("{:.3}", tick / 1e6)))
        } else if most >= 1e4 {
            format!("{}k", digits(format!("{:.3}", tick / 1e3)))
        } else {
            digits(format!("{tick:.4}"))
        }
    }
}

/// The least and the greatest value; 0 and 1 of nothing.
fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if low <= high { (low, high) } else { (0.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn run(name: &str, steps: u64, loss: impl Fn(u64) -> f64) -> History {
        let point = |step| Point {
            step,
            epoch: step as f64 / 10.0,
            loss: loss(step),
            lr: 1e-3,
            grad_norm: 0.5,
            clips_per_second: 20.0,
            step_seconds: 0.4,
            wait_seconds: 0.1,
            accuracy: f64::NAN,
        };
        History {
            dir: PathBuf::from(name),
            name: name.to_owned(),
            steps: (1..=steps).map(point).collect(),
        }
    }

    #[test]
    fn ticks_are_round_numbers() {
        let labels = |low: f64, high: f64, most: u32| {
            let axis = Axis { low, high };
            axis.ticks(most)
                .map(|tick| axis.label(tick))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            labels(0.31, 1.02, 8),
            ["0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1"]
        );
        assert_eq!(labels(0.0, 0.00106, 4), ["0", "5e-4", "1e-3"]);
        assert_eq!(
            labels(1.0, 52_000.0, 6),
            ["10k", "20k", "30k", "40k", "50k"]
        );
        assert_eq!(labels(-0.1, 0.1, 4), ["-0.1", "-0.05", "0", "0.05", "0.1"]);
        assert_eq!(labels(0.0, 2.4e6, 3), ["0", "1M", "2M"]);
    }

    #[test]
    fn curves_go_where_the_values_are() {
        // A loss that falls linearly crosses the panel from corner to corner; a constant one lies
        // at its middle.
        let picture = draw(&[
            run("falls", 100, |step| 1.0 - step as f64 / 100.0),
            run("stays", 100, |_| 0.5),
        ]);
        let rows_of = |color: Rgb<u8>, columns: std::ops::Range<u32>| {
            let is_colored = |(x, y, pixel): &(u32, u32, &Rgb<u8>)| {
                columns.contains(x) && (90..500).contains(y) && **pixel == color
            };
            let rows: Vec<u32> = picture
                .enumerate_pixels()
                .filter(is_colored)
                .map(|(_, y, _)| y)
                .collect();
            rows.iter().sum::<u32>() / (rows.len() as u32).max(1)
        };
        let left = 110..200;
        let right = WIDTH - 120..WIDTH - 30;
        let [early, late] = [left.clone(), right.clone()].map(|columns| rows_of(color(0), columns));
        assert!(early > 90 && early + 250 < late, "{early} and {late}");
        let [early, late] = [left, right].map(|columns| rows_of(color(1), columns));
        assert!(
            early == late && (250..350).contains(&early),
            "{early} and {late}"
        );
    }

    #[test]
    fn smoothing_takes_noise_off_and_does_not_lag() {
        let smooth = |value: fn(i32) -> f64| {
            smoothed(
                &(0..1000)
                    .map(|at| (f64::from(at), value(at)))
                    .collect::<Vec<_>>(),
                1000,
            )
        };
        // Away from its ends, a straight line is unchanged; noise is removed.
        assert!(
            smooth(f64::from)[300..700]
                .iter()
                .all(|(at, value)| (at - value).abs() < 1e-3)
        );
        assert!(
            smooth(|at| if at % 2 == 0 { 1.0 } else { -1.0 })[300..700]
                .iter()
                .all(|(_, value)| value.abs() < 0.05)
        );
        assert_eq!(smoothed(&[(1.0, 3.0)], 1), [(1.0, 3.0)]);
    }

    #[test]
    fn runs_of_different_lengths_are_smoothed_alike() {
        let noisy = |at: i32| {
            (
                f64::from(at),
                1.0 / (1.0 + f64::from(at)) + f64::from(at * 37 % 11),
            )
        };
        let of = |steps: i32, longest: usize| {
            smoothed(&(0..steps).map(noisy).collect::<Vec<_>>(), longest)
        };
        let long = of(1000, 1000);
        let short = of(300, 1000);
        // They differ only near the end of the short one.
        assert!(
            long[..100]
                .iter()
                .zip(&short)
                .all(|((_, a), (_, b))| (a - b).abs() < 1e-3)
        );
        assert!(
            (long[0].1 - of(300, 300)[0].1).abs() > 1e-3,
            "alone it is smoothed less"
        );
        // A run of few steps beside a long one is not a flat line.
        let falls = smoothed(
            &(0..40)
                .map(|at| (f64::from(at), f64::from(40 - at)))
                .collect::<Vec<_>>(),
            100_000,
        );
        assert!(falls[0].1 > 30.0 && falls[39].1 < 10.0, "{falls:?}");
    }

    #[test]
    fn twenty_runs_have_colours_of_their_own() {
        let colors: std::collections::HashSet<[u8; 3]> = (0..21).map(|run| color(run).0).collect();
        assert_eq!(colors.len(), 21);
    }

    #[test]
    fn one_bad_step_does_not_flatten_the_curve() {
        let axis = |bad: f64| {
            let curve = Curve::new(
                &run(
                    "a",
                    1000,
                    |step| if step == 500 { bad } else { step as f64 },
                ),
                &LOSS,
                1000,
            );
            Axis::values(curve.ends.into_iter().flatten(), &LOSS)
        };
        assert!(
            (axis(1e9).high - axis(1.0).high).abs() < 20.0,
            "{:?}",
            axis(1e9)
        );
    }

    #[test]
    fn steps_that_are_not_finite_leave_gaps() {
        let with_gap = |step: u64| {
            if (40..60).contains(&step) {
                f64::NAN
            } else {
                1.0
            }
        };
        let picture = draw(&[run("a", 99, with_gap)]);
        let has_color = |x: u32| (90..500).any(|y| *picture.get_pixel(x, y) == color(0));
        assert!(
            has_color(WIDTH / 4) && has_color(3 * WIDTH / 4),
            "the steps before and after"
        );
        let middle = (MARGIN + LEFT + WIDTH - MARGIN) / 2;
        assert!(
            !(middle - 80..middle + 80).any(has_color),
            "nothing is drawn in between"
        );
        // The mean ignores them.
        let curve = Curve::new(&run("a", 99, with_gap), &LOSS, 99);
        assert!(
            curve.smooth[60..]
                .iter()
                .all(|(_, value)| (value - 1.0).abs() < 1e-12)
                && curve.ends == Some([1.0, 1.0])
        );
        draw(&[run("none", 3, |_| f64::NAN)]);
    }

    #[test]
    fn a_single_step_and_many_runs_are_drawn() {
        let one = draw(&[run("one", 1, |_| 0.7)]);
        let many: Vec<History> = (0..30)
            .map(|number| run(&format!("a-run-with-a-long-name-{number}"), 3, |_| 0.0))
            .collect();
        assert!(
            draw(&many).height() > one.height(),
            "the legend has more lines"
        );
    }
}
