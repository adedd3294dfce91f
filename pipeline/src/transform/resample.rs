//! Bilinear resampling of a crop, one row of output at a time: sample centres at half pixels,
//! clamped to the crop, no antialias.
//!
//! It computes in 16 bits: a sample `v` is held as `128 (v - 128)`, the weights of columns are
//! 128ths and those of rows 32768ths. The vector code equals the plain loops to the bit.

use crate::frames::Frames;
use crate::sampling::sample::View;
use crate::simd::{InstructionSet, instruction_set};
use crate::transform::ClipView;
use schemas::geometry::FrameSize;
use std::ops::Range;

/// Samples are held as their distance from [`CENTRE`] times this.
pub const SCALE: i16 = 128;

/// The sample that is held as 0.
pub const CENTRE: i16 = 128;

/// Columns that a vector computes at once, and the bytes of a row that it reads for each half.
const GROUP: usize = 16;
const WINDOW: usize = 16;

/// The two input samples of an output, and the weight of the second.
#[derive(Debug, Clone, Copy)]
struct Tap {
    first: usize,
    second: usize,
    weight: f64,
}

/// Taps of `size` outputs over the crop `start..start + length`. A sample `c` of the plane lies at
/// luma position `spacing c + offset`.
fn taps(
    start: usize,
    length: usize,
    size: usize,
    flip: bool,
    spacing: usize,
    offset: f64,
) -> impl Iterator<Item = Tap> {
    let scale = length as f64 / size as f64;
    let end = start + length - 1;
    let (low, high) = (start / spacing, end / spacing);
    (0..size).map(move |output| {
        let output = if flip { size - 1 - output } else { output };
        let luma =
            (start as f64 + (output as f64 + 0.5) * scale - 0.5).clamp(start as f64, end as f64);
        let position = ((luma - offset) / spacing as f64).clamp(low as f64, high as f64);
        let first = position.floor() as usize;
        Tap {
            first,
            second: (first + 1).min(high),
            weight: position - first as f64,
        }
    })
}

/// How the columns of a plane are resampled.
#[derive(Debug, Default)]
struct Columns {
    /// For each output the two samples, and the weight of the second in 128ths.
    taps: Vec<(usize, usize, u8)>,
    /// The same for vectors; empty if the row is too short, or shrinks so much that a window does
    /// not hold all inputs of a group.
    groups: Vec<Group>,
}

/// [`GROUP`] columns, each half of them from one window of a row.
#[derive(Debug)]
struct Group {
    /// The first of the columns.
    column: usize,
    /// Start of the window of each half.
    windows: [usize; 2],
    /// Of each column, the indices in the window of its two samples.
    picks: [u8; 2 * GROUP],
    /// Their weights.
    weights: [u8; 2 * GROUP],
}

impl Columns {
    /// Sets the taps, for rows of `width` samples.
    fn set(&mut self, taps: impl Iterator<Item = Tap>, width: usize) {
        self.taps.clear();
        self.taps.extend(taps.map(|tap| {
            (
                tap.first,
                tap.second,
                (tap.weight * f64::from(SCALE)).round() as u8,
            )
        }));
        self.groups.clear();
        // The last group may overlap the one before it.
        let last = self.taps.len().saturating_sub(GROUP);
        for column in (0..self.taps.len())
            .step_by(GROUP)
            .map(|start| start.min(last))
        {
            match self
                .taps
                .get(column..column + GROUP)
                .and_then(|taps| Group::new(column, taps, width))
            {
                Some(group) => self.groups.push(group),
                None => return self.groups.clear(),
            }
        }
    }

    /// Resamples `row` to the columns in `span` of `out`.
    #[inline(always)]
    fn apply_plainly(&self, row: &[u8], span: &Range<usize>, out: &mut [i16]) {
        for (&(first, second, weight), out) in
            self.taps[span.clone()].iter().zip(&mut out[span.clone()])
        {
            let (first, second) = (
                i16::from(row[first]) - CENTRE,
                i16::from(row[second]) - CENTRE,
            );
            *out = first * (SCALE - i16::from(weight)) + second * i16::from(weight);
        }
    }
}

impl Group {
    /// `None` if no window of a row of `width` samples holds all inputs of a half of `taps`.
    fn new(column: usize, taps: &[(usize, usize, u8)], width: usize) -> Option<Self> {
        let mut group = Self {
            column,
            windows: [0; 2],
            picks: [0; 2 * GROUP],
            weights: [0; 2 * GROUP],
        };
        for (half, taps) in taps.chunks(GROUP / 2).enumerate() {
            let first = taps.iter().map(|tap| tap.0).min()?;
            let window = first.min(width.checked_sub(WINDOW)?);
            group.windows[half] = window;
            for (at, &(first, second, weight)) in taps.iter().enumerate() {
                if second - window >= WINDOW {
                    return None;
                }
                let at = half * GROUP + 2 * at;
                group.picks[at] = (first - window) as u8;
                group.picks[at + 1] = (second - window) as u8;
                group.weights[at] = SCALE as u8 - weight;
                group.weights[at + 1] = weight;
            }
        }
        Some(group)
    }
}

/// A row of a plane, or of a channel, with its columns resampled.
#[derive(Debug, Default)]
struct Line {
    /// Number of the row.
    row: Option<usize>,
    samples: Vec<i16>,
}

/// Resamples a crop of the frames of a clip. Reuses its memory from clip to clip.
#[derive(Debug)]
pub struct Resampler {
    size: FrameSize,
    is_rgb: bool,
    /// Of luma and of chroma.
    columns: [Columns; 2],
    /// For each output row its two input rows, and the weight of the second in 32768ths.
    rows: [Vec<(usize, usize, i16)>; 2],
    /// Of each plane or channel, the last even and odd row: the two that an output row lies
    /// between.
    lines: [[Line; 2]; 3],
    /// Width of the output.
    width: usize,
    out: [Vec<i16>; 3],
    channel: Vec<u8>,
    set: InstructionSet,
}

impl Default for Resampler {
    fn default() -> Self {
        Self::new(instruction_set())
    }
}

impl Resampler {
    /// A resampler that uses `set`, which the CPU must have.
    pub(super) fn new(set: InstructionSet) -> Self {
        assert!(set <= InstructionSet::best(), "the CPU has {set:?}");
        Self {
            size: FrameSize {
                width: 0,
                height: 0,
            },
            is_rgb: false,
            columns: Default::default(),
            rows: Default::default(),
            lines: Default::default(),
            width: 0,
            out: Default::default(),
            channel: Vec::new(),
            set,
        }
    }

    /// Sets the crop and flip of `clip`, and the output size `width` x `height`, for frames like
    /// those of `clip`.
    pub fn begin_clip(&mut self, clip: ClipView<'_>, width: usize, height: usize) {
        let ClipView {
            frames,
            size,
            view: View { crop, flip, .. },
        } = clip;
        self.size = size;
        self.is_rgb = matches!(frames, Frames::Rgb(_));
        // Chroma is where H.264 places it by default: level with the even columns of luma, and
        // between its rows.
        for (plane, spacing, offset) in [(0, 1, 0.0), (1, 2, 0.5)] {
            let columns = taps(crop.left, crop.width, width, flip, spacing, 0.0);
            self.columns[plane].set(columns, size.plane_size(plane).0);
            let rows = taps(crop.top, crop.height, height, false, spacing, offset);
            self.rows[plane].clear();
            self.rows[plane].extend(rows.map(|tap| {
                (
                    tap.first,
                    tap.second,
                    (tap.weight * 32768.0).round().min(32767.0) as i16,
                )
            }));
        }
        self.lines
            .iter_mut()
            .flatten()
            .for_each(|line| line.samples.resize(width, 0));
        self.width = width;
        self.begin_rows();
    }

    /// Forgets the rows kept. Call it before the rows of another frame, or of other columns.
    pub fn begin_rows(&mut self) {
        self.lines
            .iter_mut()
            .flatten()
            .for_each(|line| line.row = None);
    }

    /// Computes some rows of the output of one frame, whose bytes are `frame`: luma and the two
    /// chromas, or red, green and blue. Only the columns in `spans` are computed; the others are
    /// unspecified.
    pub fn rows(
        &mut self,
        frame: &[u8],
        rows: Range<usize>,
        spans: &[Range<usize>],
    ) -> [&[i16]; 3] {
        // Every row is written before it is read, so a longer one may keep what it holds.
        let values = rows.len() * self.width;
        for out in &mut self.out {
            out.resize(out.len().max(values), 0);
        }
        self.compute(frame, rows, spans);
        self.out.each_ref().map(|out| &out[..values])
    }

    fn compute(&mut self, frame: &[u8], rows: Range<usize>, spans: &[Range<usize>]) {
        #[cfg(target_arch = "x86_64")]
        if self.set >= InstructionSet::Avx2 {
            // SAFETY: the CPU has `set`.
            return unsafe { x86::compute(self, frame, rows, spans) };
        }
        self.compute_with(frame, rows, spans, Columns::apply_plainly, blend_plainly);
    }

    /// [`Self::rows`], with functions that resample the columns of a row and that blend two lines.
    #[inline(always)]
    fn compute_with(
        &mut self,
        frame: &[u8],
        rows: Range<usize>,
        spans: &[Range<usize>],
        columns: impl Fn(&Columns, &[u8], &Range<usize>, &mut [i16]),
        blend: impl Fn(&[i16], &[i16], i16, &mut [i16]),
    ) {
        for part in 0..3 {
            let kind = usize::from(part > 0 && !self.is_rgb);
            for (y, out) in rows
                .clone()
                .zip(self.out[part].chunks_exact_mut(self.width))
            {
                let (first, second, weight) = self.rows[kind][y];
                for row in [first, second] {
                    let line = &mut self.lines[part][row % 2];
                    if line.row == Some(row) {
                        continue;
                    }
                    line.row = Some(row);
                    let samples = if self.is_rgb {
                        let pixels = &frame[3 * self.size.width * row..][..3 * self.size.width];
                        self.channel.clear();
                        self.channel
                            .extend(pixels.chunks_exact(3).map(|pixel| pixel[part]));
                        &self.channel
                    } else {
                        let width = self.size.plane_size(part).0;
                        &frame[self.size.plane_range(part)][width * row..][..width]
                    };
                    for span in spans {
                        columns(&self.columns[kind], samples, span, &mut line.samples);
                    }
                }
                let of = |row: usize| &self.lines[part][row % 2].samples;
                let (first, second) = (of(first), of(second));
                for span in spans {
                    blend(
                        &first[span.clone()],
                        &second[span.clone()],
                        weight,
                        &mut out[span.clone()],
                    );
                }
            }
        }
    }
}

/// Blends two lines.
#[inline(always)]
fn blend_plainly(first: &[i16], second: &[i16], weight: i16, out: &mut [i16]) {
    for ((&first, &second), out) in first.iter().zip(second).zip(out) {
        *out = first + ((i32::from(second - first) * i32::from(weight) + (1 << 14)) >> 15) as i16;
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Columns, GROUP, Resampler, WINDOW, blend_plainly};
    use std::arch::x86_64::{
        _mm256_add_epi16, _mm256_loadu_si256, _mm256_loadu2_m128i, _mm256_maddubs_epi16,
        _mm256_mulhrs_epi16, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_shuffle_epi8,
        _mm256_storeu_si256, _mm256_sub_epi16, _mm256_xor_si256,
    };
    use std::ops::Range;

    /// Samples of 16 bits in a vector.
    const LANES: usize = 16;

    /// [`Resampler::compute_with`] of the functions below.
    #[target_feature(enable = "avx2")]
    pub(super) fn compute(
        resampler: &mut Resampler,
        frame: &[u8],
        rows: Range<usize>,
        spans: &[Range<usize>],
    ) {
        resampler.compute_with(
            frame,
            rows,
            spans,
            |taps, row, span, out| columns(taps, row, span, out),
            |first, second, weight, out| blend(first, second, weight, out),
        );
    }

    /// [`Columns::apply_plainly`], a window at a time, and perhaps some columns around `span`.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn columns(columns: &Columns, row: &[u8], span: &Range<usize>, out: &mut [i16]) {
        if columns.groups.is_empty() {
            return columns.apply_plainly(row, span, out);
        }
        for group in &columns.groups[span.start / GROUP..span.end.div_ceil(GROUP)] {
            let [low, high] = group.windows;
            let (low, high) = (&row[low..][..WINDOW], &row[high..][..WINDOW]);
            let out = &mut out[group.column..][..GROUP];
            // SAFETY: each window has 16 bytes; picks, weights, and 16 numbers of 16 bits have 32.
            unsafe {
                let (low, high) = (low.as_ptr().cast(), high.as_ptr().cast());
                let windows = _mm256_loadu2_m128i(high, low);
                // The distance from 128 of a byte is the byte with its highest bit flipped, read as
                // signed.
                let windows = _mm256_xor_si256(windows, _mm256_set1_epi8(i8::MIN));
                let picks = _mm256_loadu_si256(group.picks.as_ptr().cast());
                let pairs = _mm256_shuffle_epi8(windows, picks);
                let weights = _mm256_loadu_si256(group.weights.as_ptr().cast());
                let sums = _mm256_maddubs_epi16(weights, pairs);
                _mm256_storeu_si256(out.as_mut_ptr().cast(), sums);
            }
        }
    }

    /// [`blend_plainly`], 16 samples at a time: multiplying, rounding and shifting by 15 is one
    /// instruction. The difference of two samples fits 16 bits.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn blend(first: &[i16], second: &[i16], weight: i16, out: &mut [i16]) {
        let weights = _mm256_set1_epi16(weight);
        let (firsts, seconds) = (first.chunks_exact(LANES), second.chunks_exact(LANES));
        let (first_rest, second_rest) = (firsts.remainder(), seconds.remainder());
        let mut outs = out.chunks_exact_mut(LANES);
        for ((first, second), out) in firsts.zip(seconds).zip(&mut outs) {
            // SAFETY: each pointer is to 16 numbers of 16 bits.
            unsafe {
                let first = _mm256_loadu_si256(first.as_ptr().cast());
                let difference =
                    _mm256_sub_epi16(_mm256_loadu_si256(second.as_ptr().cast()), first);
                let sums = _mm256_add_epi16(first, _mm256_mulhrs_epi16(difference, weights));
                _mm256_storeu_si256(out.as_mut_ptr().cast(), sums);
            }
        }
        blend_plainly(first_rest, second_rest, weight, outs.into_remainder());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::Color;
    use crate::sampling::order::{Purpose, stream};
    use crate::sampling::sample::Crop;
    use rand::RngExt;
    use schemas::shard::{ColorMatrix, ColorRange};

    /// All rows of output of all three parts.
    fn resampled(resampler: &mut Resampler, frame: &[u8], width: usize, height: usize) -> Vec<i16> {
        (0..height)
            .flat_map(|y| {
                resampler
                    .rows(frame, y..y + 1, std::slice::from_ref(&(0..width)))
                    .concat()
            })
            .collect()
    }

    #[test]
    fn every_set_equals_plain_loops_and_both_are_close_to_double_precision() {
        let mut rng = stream(Purpose::Augment, 1, 2, 3);
        let color = Color {
            range: ColorRange::Limited,
            matrix: ColorMatrix::Bt601,
        };
        // The same resamplers for all cases: the state of an earlier clip must not matter.
        let mut plainly = Resampler::new(InstructionSet::Plain);
        let mut resamplers: Vec<_> = InstructionSet::supported().map(Resampler::new).collect();
        for case in 0..200 {
            let mut draw = |least: usize, most: usize| rng.random_range(least..=most);
            // Rows shorter than a window, crops of one sample, outputs that are no multiple of a
            // group, and scales to 20.
            let size = FrameSize {
                width: draw(1, 90),
                height: draw(1, 40),
            };
            let (left, top) = (draw(0, size.width - 1), draw(0, size.height - 1));
            let crop = Crop {
                left,
                top,
                width: draw(1, size.width - left),
                height: draw(1, size.height - top),
            };
            let (width, height, flip) = (draw(1, 70), draw(1, 20), draw(0, 1) == 1);
            let bytes: Vec<u8> = (0..3 * size.width * size.height)
                .map(|_| draw(0, 255) as u8)
                .collect();
            for frames in [
                Frames::I420(&bytes[..size.frame_bytes()], color),
                Frames::Rgb(&bytes),
            ] {
                let clip = ClipView {
                    frames,
                    size,
                    view: View {
                        first_frame: 0,
                        crop,
                        flip,
                    },
                };
                plainly.begin_clip(clip, width, height);
                let plain = resampled(&mut plainly, frames.bytes(), width, height);
                // Some columns, in two spans, of several rows at once.
                let (from, to) = (draw(0, width - 1), draw(0, width - 1));
                let spans = [0..from.min(to), from.max(to)..width];
                let many = draw(1, height);
                for resampler in &mut resamplers {
                    resampler.begin_clip(clip, width, height);
                    let fast = resampled(resampler, frames.bytes(), width, height);
                    assert!(
                        fast == plain,
                        "case {case}: {size:?} {crop:?} to {width}x{height}, {:?}",
                        resampler.set
                    );
                    resampler.begin_rows();
                    for start in (0..height).step_by(many) {
                        let rows = start..(start + many).min(height);
                        let parts = resampler.rows(frames.bytes(), rows.clone(), &spans);
                        for (part, samples) in parts.into_iter().enumerate() {
                            assert_eq!(samples.len(), rows.len() * width);
                            for (y, row) in rows.clone().zip(samples.chunks_exact(width)) {
                                let whole = &plain[(3 * y + part) * width..][..width];
                                assert!(
                                    spans
                                        .iter()
                                        .all(|span| row[span.clone()] == whole[span.clone()]),
                                    "case {case}: {spans:?} of row {y}"
                                );
                            }
                        }
                    }
                }
                let meant = exact(clip, width, height);
                let error = plain
                    .iter()
                    .zip(meant)
                    .map(|(&got, meant)| (f64::from(got) / 128.0 + 128.0 - meant).abs())
                    .fold(0.0, f64::max);
                // Half a 128th of the difference of two samples, for each of two rows, and
                // rounding.
                assert!(error < 1.1, "case {case}: off by {error}");
            }
        }
    }

    /// The same in double precision, pixel by pixel.
    fn exact(clip: ClipView<'_>, width: usize, height: usize) -> Vec<f64> {
        let ClipView {
            frames,
            size,
            view: View { crop, flip, .. },
        } = clip;
        let mut out = Vec::new();
        let lie = |start: usize, length: usize, size: usize, at: usize| {
            let position = start as f64 + (at as f64 + 0.5) * length as f64 / size as f64 - 0.5;
            position.clamp(start as f64, (start + length - 1) as f64)
        };
        for y in 0..height {
            for part in 0..3 {
                for x in 0..width {
                    let x = lie(
                        crop.left,
                        crop.width,
                        width,
                        if flip { width - 1 - x } else { x },
                    );
                    let y = lie(crop.top, crop.height, height, y);
                    let (is_chroma, (columns, _)) = match frames {
                        Frames::I420(..) => (part > 0, size.plane_size(part)),
                        Frames::Rgb(_) => (false, (size.width, size.height)),
                    };
                    let halved = |at: f64, offset: f64, start: usize, length: usize| {
                        ((at - offset) / 2.0)
                            .clamp((start / 2) as f64, ((start + length - 1) / 2) as f64)
                    };
                    let (x, y, last) = if is_chroma {
                        let last = (
                            (crop.left + crop.width - 1) / 2,
                            (crop.top + crop.height - 1) / 2,
                        );
                        (
                            halved(x, 0.0, crop.left, crop.width),
                            halved(y, 0.5, crop.top, crop.height),
                            last,
                        )
                    } else {
                        (
                            x,
                            y,
                            (crop.left + crop.width - 1, crop.top + crop.height - 1),
                        )
                    };
                    let sample = |x: usize, y: usize| {
                        let at = y.min(last.1) * columns + x.min(last.0);
                        f64::from(match frames {
                            Frames::I420(bytes, _) => bytes[size.plane_range(part)][at],
                            Frames::Rgb(bytes) => bytes[3 * at + part],
                        })
                    };
                    let (left, top) = (x as usize, y as usize);
                    let (right, bottom) = (x - left as f64, y - top as f64);
                    let row = |y| sample(left, y) * (1.0 - right) + sample(left + 1, y) * right;
                    out.push(row(top) * (1.0 - bottom) + row(top + 1) * bottom);
                }
            }
        }
        out
    }
}
