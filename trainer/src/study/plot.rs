//! A study as a picture: accuracy by what is varied, for each series a curve, or marks where no numbers are varied, with every seed.

use super::spread;
use crate::log::curves::color;
use crate::plot::canvas::{self, Align, Area, Letters};
use image::{Rgb, RgbImage};
use schemas::report::{StudyArm, StudyReport};

const WIDTH: u32 = 900;
const HEIGHT: u32 = 560;
const MARGIN: u32 = 24;
/// Room for the numbers at the left axis, and for the names below.
const LEFT: u32 = 56;
const BELOW: u32 = 64;
const PAPER: Rgb<u8> = Rgb([255; 3]);
const INK: Rgb<u8> = Rgb([30, 30, 30]);
const GRID: Rgb<u8> = Rgb([228, 228, 228]);

/// Room above the highest point and below the lowest, in points of accuracy, and spacing of lines.
const ROOM: f64 = 4.0;

/// Draws the mean of each arm, and each of its runs as a dot, with a line from the least to the greatest.
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
    // Only along an axis of numbers is there anything between two places.
    let is_of_numbers = names.iter().all(|name| name.trim_end_matches(" %").parse::<f64>().is_ok());
    let line = Letters::Large.height() + 6;
    canvas::text(
        &mut picture,
        (MARGIN, MARGIN),
        Align::Left,
        Letters::Large,
        INK,
        "accuracy on validation clips, % (dots: seeds; line: mean)",
    );
    for (name, number) in series.iter().zip(0..) {
        let top = MARGIN + line + number * line;
        canvas::fill(&mut picture, Area { left: MARGIN, top: top + 8, width: 32, height: 4 }, color(number as usize));
        canvas::text(&mut picture, (MARGIN + 44, top), Align::Left, Letters::Large, INK, name);
    }
    let top = MARGIN + line * (series.len() as u32 + 1) + 10;
    let axes = Area { left: MARGIN + LEFT, top, width: WIDTH - 2 * MARGIN - LEFT, height: HEIGHT - top - BELOW };
    let spreads: Vec<[f64; 3]> = report.arms.iter().map(spread).collect();
    let low = (spreads.iter().map(|[_, least, _]| *least).fold(100.0, f64::min) - ROOM).max(0.0);
    let high = (spreads.iter().map(|[.., most]| *most).fold(0.0, f64::max) + ROOM).min(100.0).max(low + 1.0);
    let y = |accuracy: f64| f64::from(axes.top) + f64::from(axes.height) * (high - accuracy) / (high - low);
    let x = |name: &str| {
        let at = names.iter().position(|known| *known == name).expect("a known name") as f64;
        f64::from(axes.left) + f64::from(axes.width) * (at + 0.5) / names.len() as f64
    };
    let spacing = [1.0, 2.0, 5.0, 10.0, 20.0].into_iter().find(|spacing| (high - low) / spacing <= 8.0).unwrap_or(25.0);
    let mut tick = (low / spacing).ceil() * spacing;
    while tick <= high {
        canvas::fill(&mut picture, Area { left: axes.left, top: y(tick) as u32, width: axes.width, height: 1 }, GRID);
        let place = (axes.left - 8, (y(tick) as u32).saturating_sub(Letters::Small.height() / 2));
        canvas::text(&mut picture, place, Align::Right, Letters::Small, INK, &format!("{tick:.0}"));
        tick += spacing;
    }
    for name in &names {
        canvas::text(&mut picture, (x(name) as u32, axes.top + axes.height + 8), Align::Middle, Letters::Small, INK, name);
    }
    let middle = (axes.left + axes.width / 2, axes.top + axes.height + 8 + Letters::Small.height() + 4);
    canvas::text(&mut picture, middle, Align::Middle, Letters::Large, INK, &report.axis);
    let whole = Area { left: 0, top: 0, width: WIDTH, height: HEIGHT };
    for (number, name) in series.iter().enumerate() {
        let of_series: Vec<&StudyArm> = report.arms.iter().filter(|arm| arm.series == *name).collect();
        // Beside each other, so that none hides another.
        let shift = 8.0 * (number as f64 - (series.len() - 1) as f64 / 2.0);
        let place = |arm: &StudyArm, accuracy: f64| (x(&arm.name) + shift, y(accuracy));
        let means: Vec<(f64, f64)> = of_series.iter().map(|arm| place(arm, spread(arm)[0])).collect();
        if is_of_numbers {
            canvas::line(&mut picture, whole, &means, 3.0, color(number), 1.0);
        } else {
            for (x, y) in means {
                canvas::line(&mut picture, whole, &[(x - 14.0, y), (x + 14.0, y)], 3.0, color(number), 1.0);
            }
        }
        for arm in of_series {
            let [_, least, most] = spread(arm);
            canvas::line(&mut picture, whole, &[place(arm, least), place(arm, most)], 1.5, color(number), 1.0);
            for run in &arm.runs {
                canvas::line(&mut picture, whole, &[place(arm, 100.0 * run.top1)], 8.0, color(number), 0.7);
            }
        }
    }
    picture
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::report::StudyRun;

    /// The picture of arms of a series, a name and an accuracy.
    fn picture(arms: &[(&str, &str, f64)]) -> RgbImage {
        let run = |top1| StudyRun {
            seed: 0,
            top1,
            validation_loss: 1.0,
            pretrain_loss: None,
            pretrain_seconds: 0.0,
            pretrain_wait_seconds: 0.0,
            finetune_seconds: 1.0,
            dir: String::new(),
        };
        let arm = |&(series, name, top1): &(&str, &str, f64)| StudyArm {
            series: series.to_owned(),
            name: name.to_owned(),
            runs: vec![run(top1)],
        };
        draw(&StudyReport { name: "s".to_owned(), axis: "x".to_owned(), arms: arms.iter().map(arm).collect() })
    }

    /// Rows of the first series' colour between the axes.
    fn rows(picture: &RgbImage, column: u32) -> Vec<u32> {
        (115..HEIGHT - BELOW).filter(|&row| picture.get_pixel(column, row).0 == color(0).0).collect()
    }

    #[test]
    fn dots_lie_where_the_accuracies_are() {
        let picture = picture(&[("a", "1", 0.2), ("a", "2", 0.8), ("b", "1", 0.5), ("b", "2", 0.5)]);
        // At the two places of the first series: higher accuracy is further up, in a straight line of 16 to 84 %.
        let row = |column: u32| {
            let rows = rows(&picture, column);
            f64::from(rows.iter().sum::<u32>()) / rows.len() as f64
        };
        let left = MARGIN + LEFT + (WIDTH - 2 * MARGIN - LEFT) / 4 - 4;
        let right = MARGIN + LEFT + 3 * (WIDTH - 2 * MARGIN - LEFT) / 4 - 4;
        assert!(row(left) > row(right) + 150.0, "{} and {}", row(left), row(right));
    }

    #[test]
    fn only_places_of_numbers_are_joined() {
        let between =
            |names: [&str; 2]| !rows(&picture(&names.map(|name| ("a", name, 0.5))), (MARGIN + LEFT + WIDTH - MARGIN) / 2).is_empty();
        assert!(between(["50 %", "98 %"]));
        assert!(!between(["random", "tube"]));
    }
}
