//! Plot of a study: accuracy over the varied value, with a curve per series, or marks if the values
//! are not numbers.

use super::accuracies;
use crate::log::curves::color;
use crate::plot::canvas::{self, Align, Area, Letters};
use crate::plot::confusion;
use image::{Rgb, RgbImage, imageops};
use schemas::report::{StudyArm, StudyReport};

const WIDTH: u32 = 900;
const HEIGHT: u32 = 560;
const MARGIN: u32 = 24;
/// Width of the numbers at the left axis, and height of the names below.
const LEFT: u32 = 56;
const BELOW: u32 = 64;
const PAPER: Rgb<u8> = Rgb([255; 3]);
const INK: Rgb<u8> = Rgb([30, 30, 30]);
const GRID: Rgb<u8> = Rgb([228, 228, 228]);

/// Confusion matrices beside each other.
const COLUMNS: usize = 3;

/// Margin above the highest and below the lowest point, in percentage points of accuracy.
const ROOM: f64 = 4.0;

/// Draws the mean of each arm, each of its runs as a dot, and a line from minimum to maximum.
pub fn draw(report: &StudyReport) -> RgbImage {
    let mut picture = RgbImage::from_pixel(WIDTH, HEIGHT, PAPER);
    let mut series: Vec<&str> = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    for arm in &report.arms {
        if !series.contains(&arm.series.as_str()) {
            series.push(&arm.series);
        }
        if !names.contains(&arm.name.as_str()) {
            names.push(&arm.name);
        }
    }
    let top = draw_legend(&mut picture, &series);
    let ranges: Vec<[f64; 4]> = report.arms.iter().map(accuracies).collect();
    let low = (ranges
        .iter()
        .map(|[_, _, least, _]| *least)
        .fold(100.0, f64::min)
        - ROOM)
        .max(0.0);
    let high = (ranges.iter().map(|[.., most]| *most).fold(0.0, f64::max) + ROOM)
        .min(100.0)
        .max(low + 1.0);
    let area = Area {
        left: MARGIN + LEFT,
        top,
        width: WIDTH - 2 * MARGIN - LEFT,
        height: HEIGHT - top - BELOW,
    };
    let axes = Axes {
        area,
        low,
        high,
        names,
    };
    axes.draw(&mut picture, &report.axis);
    for (number, name) in series.iter().enumerate() {
        let arms: Vec<&StudyArm> = report
            .arms
            .iter()
            .filter(|arm| arm.series == *name)
            .collect();
        // Side by side, so that no series hides another.
        let shift = 8.0 * (number as f64 - (series.len() - 1) as f64 / 2.0);
        axes.draw_series(&mut picture, &arms, shift, color(number));
    }
    picture
}

/// Draws the confusion matrix of each arm, all runs together, in rows of three.
pub fn draw_confusions(report: &StudyReport) -> RgbImage {
    let of_arm = |arm: &StudyArm| {
        let heading = format!("{}, {}", arm.series, arm.name);
        let classes = report.classes.len();
        let mut videos = vec![vec![0; classes]; classes];
        for video in arm.runs.iter().flat_map(|run| &run.videos) {
            videos[video.label as usize][video.predicted as usize] += 1;
        }
        confusion::draw(&videos, &report.classes, &heading)
    };
    let matrices: Vec<RgbImage> = report.arms.iter().map(of_arm).collect();
    let width = matrices.iter().map(RgbImage::width).max().unwrap_or(1);
    let height = matrices.iter().map(RgbImage::height).max().unwrap_or(1);
    let line = Letters::Small.height() + 2 * MARGIN;
    let rows = matrices.len().div_ceil(COLUMNS) as u32;
    let size = (width * COLUMNS as u32, line + height * rows);
    let mut picture = RgbImage::from_pixel(size.0, size.1, PAPER);
    let place = (MARGIN, MARGIN);
    canvas::text(
        &mut picture,
        place,
        Align::Left,
        Letters::Small,
        INK,
        &format!("videos; {}", confusion::HEADING),
    );
    for (at, matrix) in matrices.iter().enumerate() {
        let left = (at % COLUMNS) as u32 * width;
        let top = line + (at / COLUMNS) as u32 * height;
        imageops::replace(&mut picture, matrix, left.into(), top.into());
    }
    picture
}

/// Draws the legend, and returns the row below it.
fn draw_legend(picture: &mut RgbImage, series: &[&str]) -> u32 {
    let line = Letters::Large.height() + 6;
    let heading = "accuracy on validation videos, % (dots: runs; line: mean)";
    canvas::text(
        picture,
        (MARGIN, MARGIN),
        Align::Left,
        Letters::Large,
        INK,
        heading,
    );
    for (name, number) in series.iter().zip(0..) {
        let top = MARGIN + line + number * line;
        canvas::fill(
            picture,
            Area {
                left: MARGIN,
                top: top + 8,
                width: 32,
                height: 4,
            },
            color(number as usize),
        );
        canvas::text(
            picture,
            (MARGIN + 44, top),
            Align::Left,
            Letters::Large,
            INK,
            name,
        );
    }
    MARGIN + line * (series.len() as u32 + 1) + 10
}

/// The axes: accuracy in %, from `low` to `high`, over the names of the arms.
struct Axes<'a> {
    area: Area,
    low: f64,
    high: f64,
    names: Vec<&'a str>,
}

impl Axes<'_> {
    fn y(&self, accuracy: f64) -> f64 {
        f64::from(self.area.top)
            + f64::from(self.area.height) * (self.high - accuracy) / (self.high - self.low)
    }

    fn x(&self, name: &str) -> f64 {
        let at = self
            .names
            .iter()
            .position(|known| *known == name)
            .expect("a known name") as f64;
        f64::from(self.area.left)
            + f64::from(self.area.width) * (at + 0.5) / self.names.len() as f64
    }

    /// Draws grid lines and labels.
    fn draw(&self, picture: &mut RgbImage, title: &str) {
        let Area {
            left,
            top,
            width,
            height,
        } = self.area;
        let span = self.high - self.low;
        let spacing = [1.0, 2.0, 5.0, 10.0, 20.0]
            .into_iter()
            .find(|spacing| span / spacing <= 8.0)
            .unwrap_or(25.0);
        let mut tick = (self.low / spacing).ceil() * spacing;
        while tick <= self.high {
            let y = self.y(tick) as u32;
            canvas::fill(
                picture,
                Area {
                    left,
                    top: y,
                    width,
                    height: 1,
                },
                GRID,
            );
            let place = (left - 8, y.saturating_sub(Letters::Small.height() / 2));
            canvas::text(
                picture,
                place,
                Align::Right,
                Letters::Small,
                INK,
                &format!("{tick:.0}"),
            );
            tick += spacing;
        }
        for name in &self.names {
            canvas::text(
                picture,
                (self.x(name) as u32, top + height + 8),
                Align::Middle,
                Letters::Small,
                INK,
                name,
            );
        }
        let middle = (
            left + width / 2,
            top + height + 8 + Letters::Small.height() + 4,
        );
        canvas::text(picture, middle, Align::Middle, Letters::Large, INK, title);
    }

    /// Draws the arms of one series, `shift` pixels to the right.
    fn draw_series(&self, picture: &mut RgbImage, arms: &[&StudyArm], shift: f64, color: Rgb<u8>) {
        let whole = Area {
            left: 0,
            top: 0,
            width: WIDTH,
            height: HEIGHT,
        };
        let place = |arm: &StudyArm, accuracy: f64| (self.x(&arm.name) + shift, self.y(accuracy));
        let means: Vec<(f64, f64)> = arms
            .iter()
            .map(|arm| place(arm, accuracies(arm)[0]))
            .collect();
        // Points are joined only along an axis of numbers.
        if self
            .names
            .iter()
            .all(|name| name.trim_end_matches(" %").parse::<f64>().is_ok())
        {
            canvas::line(picture, whole, &means, 3.0, color, 1.0);
        } else {
            for (x, y) in means {
                canvas::line(
                    picture,
                    whole,
                    &[(x - 14.0, y), (x + 14.0, y)],
                    3.0,
                    color,
                    1.0,
                );
            }
        }
        for arm in arms {
            let [_, _, least, most] = accuracies(arm);
            canvas::line(
                picture,
                whole,
                &[place(arm, least), place(arm, most)],
                1.5,
                color,
                1.0,
            );
            for run in &arm.runs {
                canvas::line(
                    picture,
                    whole,
                    &[place(arm, 100.0 * run.top1)],
                    8.0,
                    color,
                    0.7,
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::report::StudyRun;

    /// Draws arms of a series, a name and an accuracy.
    fn picture(arms: &[(&str, &str, f64)]) -> RgbImage {
        let run = |top1| StudyRun {
            top1,
            ..StudyRun::default()
        };
        let arm = |&(series, name, top1): &(&str, &str, f64)| StudyArm {
            series: series.to_owned(),
            name: name.to_owned(),
            runs: vec![run(top1)],
            difference: None,
        };
        draw(&StudyReport {
            name: "s".to_owned(),
            axis: "x".to_owned(),
            classes: Vec::new(),
            arms: arms.iter().map(arm).collect(),
        })
    }

    /// Rows of the first series' colour between the axes.
    fn rows(picture: &RgbImage, column: u32) -> Vec<u32> {
        (115..HEIGHT - BELOW)
            .filter(|&row| picture.get_pixel(column, row).0 == color(0).0)
            .collect()
    }

    #[test]
    fn dots_lie_where_the_accuracies_are() {
        let picture = picture(&[
            ("a", "1", 0.2),
            ("a", "2", 0.8),
            ("b", "1", 0.5),
            ("b", "2", 0.5),
        ]);
        // At the two places of the first series: higher accuracy is further up, in a straight line
        // of 16 to 84 %.
        let row = |column: u32| {
            let rows = rows(&picture, column);
            f64::from(rows.iter().sum::<u32>()) / rows.len() as f64
        };
        let left = MARGIN + LEFT + (WIDTH - 2 * MARGIN - LEFT) / 4 - 4;
        let right = MARGIN + LEFT + 3 * (WIDTH - 2 * MARGIN - LEFT) / 4 - 4;
        assert!(
            row(left) > row(right) + 150.0,
            "{} and {}",
            row(left),
            row(right)
        );
    }

    #[test]
    fn only_places_of_numbers_are_joined() {
        let between = |names: [&str; 2]| {
            !rows(
                &picture(&names.map(|name| ("a", name, 0.5))),
                (MARGIN + LEFT + WIDTH - MARGIN) / 2,
            )
            .is_empty()
        };
        assert!(between(["50 %", "98 %"]));
        assert!(!between(["random", "tube"]));
    }
}
