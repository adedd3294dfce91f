//! Synthetic scenes: textured shapes over a soft background, all with the same motion.
//!
//! Lengths are in units of the picture's side, angles in radians, times in seconds.

use rand::{Rng, RngExt};
use schemas::geometry::FrameSize;
use std::f64::consts::TAU;

/// The motion of the shapes of a scene. Each motion is the time reversal of its neighbour, and all
/// have the same distribution of shapes, positions and sizes, so that a single frame does not
/// reveal the motion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Motion {
    /// From left to right.
    Right,
    /// From right to left.
    Left,
    /// From top to bottom.
    Down,
    /// From bottom to top.
    Up,
    /// Rotation about their own centres.
    Clockwise,
    /// Rotation about their own centres.
    Counterclockwise,
    /// From small to large.
    Grow,
    /// From large to small.
    Shrink,
}

impl Motion {
    /// All motions, in the order of classes.
    pub const ALL: [Self; 8] = [
        Self::Right,
        Self::Left,
        Self::Down,
        Self::Up,
        Self::Clockwise,
        Self::Counterclockwise,
        Self::Grow,
        Self::Shrink,
    ];

    /// Returns the class name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Left => "left",
            Self::Down => "down",
            Self::Up => "up",
            Self::Clockwise => "clockwise",
            Self::Counterclockwise => "counterclockwise",
            Self::Grow => "grow",
            Self::Shrink => "shrink",
        }
    }
}

/// Minimum and maximum radius of a shape.
const RADIUS: [f64; 2] = [0.12, 0.30];

/// Red, green and blue in 0..=1.
type Rgb = [f64; 3];

/// A pattern of two colours: waves along one direction.
#[derive(Debug, Clone)]
struct Texture {
    colors: [Rgb; 2],
    /// Waves along x and y, per unit of length.
    waves: [f64; 2],
    phase: f64,
    /// Hardness of the edge between the colours.
    contrast: f64,
}

impl Texture {
    fn draw(rng: &mut impl Rng, waves: [f64; 2], contrast: f64) -> Self {
        let color = |rng: &mut _| -> Rgb {
            [
                uniform(rng, [0.05, 0.95]),
                uniform(rng, [0.05, 0.95]),
                uniform(rng, [0.05, 0.95]),
            ]
        };
        let frequency = uniform(rng, waves);
        let direction = uniform(rng, [0.0, TAU]);
        Self {
            colors: [color(rng), color(rng)],
            waves: [frequency * direction.cos(), frequency * direction.sin()],
            phase: uniform(rng, [0.0, TAU]),
            contrast,
        }
    }

    fn at(&self, x: f64, y: f64) -> Rgb {
        let wave = (TAU * (self.waves[0] * x + self.waves[1] * y) + self.phase).sin();
        mix(
            self.colors[0],
            self.colors[1],
            (0.5 + self.contrast * wave).clamp(0.0, 1.0),
        )
    }
}

#[derive(Debug, Clone, Copy)]
enum Outline {
    Disc,
    Square,
    Triangle,
}

#[derive(Debug, Clone)]
struct Shape {
    outline: Outline,
    texture: Texture,
    x: f64,
    y: f64,
    radius: f64,
    angle: f64,
}

/// A shape in a frame, with the sine and cosine of its angle.
struct Placed {
    shape: Shape,
    sin: f64,
    cos: f64,
}

impl From<Shape> for Placed {
    fn from(shape: Shape) -> Self {
        let (sin, cos) = shape.angle.sin_cos();
        Self { shape, sin, cos }
    }
}

/// A scene: the contents of a video at all times.
#[derive(Debug)]
pub struct Scene {
    background: Texture,
    shapes: Vec<Shape>,
    motion: Motion,
    /// Units of length per second.
    speed: f64,
    /// Radians per second.
    spin: f64,
}

impl Scene {
    /// Draws a random scene of one to `most_shapes` shapes.
    pub fn draw(rng: &mut impl Rng, motion: Motion, most_shapes: u32) -> Self {
        let shapes = (0..rng.random_range(1..=most_shapes))
            .map(|_| Shape {
                outline: [Outline::Disc, Outline::Square, Outline::Triangle]
                    [rng.random_range(0..3)],
                texture: Texture::draw(rng, [0.5, 1.5], 1.5),
                x: uniform(rng, [0.0, 1.0]),
                y: uniform(rng, [0.0, 1.0]),
                radius: RADIUS[0] * (RADIUS[1] / RADIUS[0]).powf(rng.random()),
                angle: uniform(rng, [0.0, TAU]),
            })
            .collect();
        let background = Texture::draw(rng, [0.3, 1.0], 0.5);
        Self {
            background,
            shapes,
            motion,
            speed: uniform(rng, [0.2, 0.5]),
            spin: uniform(rng, [1.0, 2.5]),
        }
    }

    /// Appends the frame at `time` of a video of length `seconds`, as I420 (BT.601, limited range).
    pub fn render(&self, time: f64, seconds: f64, size: FrameSize, out: &mut Vec<u8>) {
        let placed: Vec<Placed> = self
            .shapes
            .iter()
            .map(|shape| self.place(shape, time, seconds).into())
            .collect();
        let side = size.width as f64;
        let mut chroma = vec![[0.0; 2]; size.chroma_bytes()];
        for y in 0..size.height {
            for x in 0..size.width {
                let [red, green, blue] = self.color(
                    (x as f64 + 0.5) / side,
                    (y as f64 + 0.5) / side,
                    1.0 / side,
                    &placed,
                );
                let luma = 0.299 * red + 0.587 * green + 0.114 * blue;
                out.push((16.0 + 219.0 * luma).round() as u8);
                let sums = &mut chroma[y / 2 * size.chroma_width() + x / 2];
                sums[0] += (blue - luma) / 1.772 / 4.0;
                sums[1] += (red - luma) / 1.402 / 4.0;
            }
        }
        for plane in 0..2 {
            out.extend(
                chroma
                    .iter()
                    .map(|sums| (128.0 + 224.0 * sums[plane]).round() as u8),
            );
        }
    }

    /// Returns the shape at `time`.
    fn place(&self, shape: &Shape, time: f64, seconds: f64) -> Shape {
        let mut shape = shape.clone();
        // Shapes that leave on one side return on the other, one radius beyond the edge.
        let wrap = |place: f64| (place + RADIUS[1]).rem_euclid(1.0 + 2.0 * RADIUS[1]) - RADIUS[1];
        let growth =
            |from_start: f64| RADIUS[0] * (RADIUS[1] / RADIUS[0]).powf(from_start / seconds);
        match self.motion {
            Motion::Right => shape.x += self.speed * time,
            Motion::Left => shape.x -= self.speed * time,
            Motion::Down => shape.y += self.speed * time,
            Motion::Up => shape.y -= self.speed * time,
            Motion::Clockwise => shape.angle += self.spin * time,
            Motion::Counterclockwise => shape.angle -= self.spin * time,
            Motion::Grow => shape.radius = growth(time),
            Motion::Shrink => shape.radius = growth(seconds - time),
        }
        shape.x = wrap(shape.x);
        shape.y = wrap(shape.y);
        shape
    }

    fn color(&self, x: f64, y: f64, pixel: f64, shapes: &[Placed]) -> Rgb {
        let mut color = self.background.at(x, y);
        for Placed { shape, sin, cos } in shapes {
            let dx = x - shape.x;
            let dy = y - shape.y;
            // No outline reaches beyond this, including its soft edge.
            let reach = 1.2 * shape.radius + 2.0 * pixel;
            if dx * dx + dy * dy > reach * reach {
                continue;
            }
            // In the shape's own coordinates, in which its radius is 1. The picture's y axis points
            // down, so a positive angle is clockwise.
            let u = (dx * cos + dy * sin) / shape.radius;
            let v = (dy * cos - dx * sin) / shape.radius;
            let distance = match shape.outline {
                Outline::Disc => u.hypot(v) - 1.0,
                Outline::Square => u.abs().max(v.abs()) - 0.8,
                Outline::Triangle => (0.866 * u.abs() - 0.5 * v).max(v) - 0.55,
            };
            // The edge is one pixel wide.
            let cover = (0.5 - distance * shape.radius / pixel).clamp(0.0, 1.0);
            if cover > 0.0 {
                color = mix(color, shape.texture.at(u, v), cover);
            }
        }
        color
    }
}

fn mix(from: Rgb, to: Rgb, share: f64) -> Rgb {
    [0, 1, 2].map(|channel| from[channel] + (to[channel] - from[channel]) * share)
}

fn uniform(rng: &mut impl Rng, [least, greatest]: [f64; 2]) -> f64 {
    least + (greatest - least) * rng.random::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline::sampling::order::{Purpose, stream};

    const SIZE: FrameSize = FrameSize {
        width: 64,
        height: 64,
    };

    fn frame(motion: Motion, time: f64) -> Vec<u8> {
        let scene = Scene::draw(&mut stream(Purpose::Synth, 3, 0, 1), motion, 2);
        let mut out = Vec::new();
        scene.render(time, 4.0, SIZE, &mut out);
        out
    }

    #[test]
    fn motions_differ_in_time_and_not_in_their_first_frame() {
        let first = frame(Motion::Right, 0.0);
        assert_eq!(first.len(), SIZE.frame_bytes());
        for motion in &Motion::ALL[..6] {
            assert_eq!(
                frame(*motion, 0.0),
                first,
                "{motion:?} begins like the others"
            );
            assert_ne!(frame(*motion, 1.0), first, "{motion:?} moves");
        }
        assert_eq!(
            frame(Motion::Grow, 1.0),
            frame(Motion::Shrink, 3.0),
            "one is the other's reverse"
        );
        assert_ne!(frame(Motion::Grow, 1.0), frame(Motion::Grow, 3.0));
    }

    #[test]
    fn with_more_shapes_more_of_the_picture_moves() {
        let moving = |most_shapes: u32| -> usize {
            let of_scene = |index: u64| {
                let scene = Scene::draw(
                    &mut stream(Purpose::Synth, 3, 0, index),
                    Motion::Right,
                    most_shapes,
                );
                let mut frames = [Vec::new(), Vec::new()];
                frames
                    .iter_mut()
                    .zip([0.0, 1.0])
                    .for_each(|(frame, time)| scene.render(time, 4.0, SIZE, frame));
                frames[0]
                    .iter()
                    .zip(&frames[1])
                    .filter(|(before, after)| before != after)
                    .count()
            };
            (0..10).map(of_scene).sum()
        };
        assert!(
            4 * moving(6) > 5 * moving(2),
            "{} samples with up to six shapes, {} with two",
            moving(6),
            moving(2)
        );
    }
}
