//! A picture of the confusion matrix: a row per true class, a column per predicted class, darker
//! for a larger share of the row.

use super::canvas::{self, Align, Area, Letters};
use image::{Rgb, RgbImage};

/// Size of a cell with a number, and of one without if there are many classes.
const CELL: u32 = 72;
const SMALL_CELL: u32 = 8;

/// Maximum number of classes for which cells have numbers and names.
const NUMBERED: usize = 24;

/// Maximum number of letters of a name.
const NAME_LETTERS: usize = 16;

const MARGIN: u32 = 16;
const PAPER: Rgb<u8> = Rgb([255; 3]);
const INK: Rgb<u8> = Rgb([30, 30, 30]);
const FULL: Rgb<u8> = Rgb([8, 64, 129]);

/// What the rows and columns are.
pub const HEADING: &str = "rows: true class; columns: predicted class; in % of the row";

/// Draws a confusion matrix, `[classes, classes]` by true and predicted class, with the names
/// `classes` and a heading above.
pub fn draw(confusion: &[Vec<u64>], classes: &[String], heading: &str) -> RgbImage {
    let count = classes.len() as u32;
    let is_numbered = classes.len() <= NUMBERED;
    let cell = if is_numbered { CELL } else { SMALL_CELL };
    let name = |class: usize| -> String {
        let letters = classes[class].chars().count();
        let cut: String = classes[class]
            .chars()
            .take(if letters > NAME_LETTERS {
                NAME_LETTERS - 1
            } else {
                letters
            })
            .collect();
        if letters > NAME_LETTERS {
            cut + "…"
        } else {
            cut
        }
    };
    let names_width = if is_numbered {
        (0..classes.len())
            .map(|class| Letters::Small.width(&name(class)))
            .max()
            .unwrap_or(0)
            + 8
    } else {
        0
    };
    let left = MARGIN + names_width;
    let top = MARGIN + Letters::Small.height() + 8;
    // Column names are cut to the width of a cell.
    let below = if is_numbered {
        Letters::Small.height() + 4
    } else {
        0
    };
    let width = (left + count * cell + MARGIN).max(2 * MARGIN + Letters::Small.width(heading));
    let mut picture = RgbImage::from_pixel(width, top + count * cell + below + MARGIN, PAPER);
    canvas::text(
        &mut picture,
        (MARGIN, MARGIN),
        Align::Left,
        Letters::Small,
        INK,
        heading,
    );
    for (class, row) in confusion.iter().enumerate() {
        let all: u64 = row.iter().sum();
        let row_top = top + class as u32 * cell;
        if is_numbered {
            let middle = row_top + (cell - Letters::Small.height()) / 2;
            canvas::text(
                &mut picture,
                (left - 8, middle),
                Align::Right,
                Letters::Small,
                INK,
                &name(class),
            );
            let place = (
                left + class as u32 * cell + cell / 2,
                top + count * cell + 4,
            );
            canvas::text(
                &mut picture,
                place,
                Align::Middle,
                Letters::Small,
                INK,
                &short(&classes[class], cell),
            );
        }
        for (predicted, &clips) in row.iter().enumerate() {
            let share = if all == 0 {
                0.0
            } else {
                clips as f64 / all as f64
            };
            let shade = |at: usize| {
                (f64::from(PAPER.0[at]) + (f64::from(FULL.0[at]) - f64::from(PAPER.0[at])) * share)
                    .round() as u8
            };
            let area = Area {
                left: left + predicted as u32 * cell,
                top: row_top,
                width: cell - 1,
                height: cell - 1,
            };
            let is_own = class == predicted;
            canvas::fill(
                &mut picture,
                area,
                if is_own {
                    Rgb([200, 200, 200])
                } else {
                    Rgb([236, 236, 236])
                },
            );
            let inner = Area {
                left: area.left + 1,
                top: area.top + 1,
                width: cell - 3,
                height: cell - 3,
            };
            canvas::fill(&mut picture, inner, Rgb([shade(0), shade(1), shade(2)]));
            if is_numbered && clips > 0 {
                let ink = if share > 0.5 { PAPER } else { INK };
                let place = (
                    area.left + cell / 2,
                    row_top + (cell - Letters::Small.height()) / 2,
                );
                canvas::text(
                    &mut picture,
                    place,
                    Align::Middle,
                    Letters::Small,
                    ink,
                    &format!("{:.0}", 100.0 * share),
                );
            }
        }
    }
    picture
}

/// The start of a name, as far as it fits.
fn short(name: &str, width: u32) -> String {
    let mut short: String = name.to_owned();
    while Letters::Small.width(&short) + 4 > width && short.pop().is_some() {}
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_as_dark_as_its_share_of_the_row() {
        let confusion = [vec![1, 0], vec![1, 3]];
        let picture = draw(&confusion, &["a".to_owned(), "b".to_owned()], HEADING);
        let left = MARGIN + Letters::Small.width("a") + 8;
        let top = MARGIN + Letters::Small.height() + 8;
        let shade = |class: u32, predicted: u32| {
            picture
                .get_pixel(left + predicted * CELL + 5, top + class * CELL + 5)
                .0[0]
        };
        assert_eq!(
            [shade(0, 0), shade(0, 1), shade(1, 0), shade(1, 1)],
            [8, 255, 193, 70],
            "100, 0, 25 and 75 %"
        );
    }

    #[test]
    fn many_classes_and_long_names_are_drawn() {
        let names: Vec<String> = (0..400)
            .map(|class| format!("a class whose name is long, number {class}"))
            .collect();
        let empty = |classes: usize| vec![vec![0; classes]; classes];
        let picture = draw(&empty(400), &names, HEADING);
        assert_eq!(picture.width(), 2 * MARGIN + 400 * SMALL_CELL);
        draw(&empty(24), &names[..24], HEADING);
    }
}
