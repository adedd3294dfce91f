//! The colours of decoded frames, and ffmpeg's names for them.

use crate::frames::Color;
use gstreamer_video as gst_video;
use schemas::shard::{ColorMatrix, ColorRange};

/// Name of a transfer function or of primaries that are not known.
pub(in crate::video) const UNKNOWN: &str = "unknown";

/// ffmpeg's name of a transfer function (ITU-T H.273, table 3).
pub(in crate::video) const fn transfer_name(
    transfer: gst_video::VideoTransferFunction,
) -> &'static str {
    use gst_video::VideoTransferFunction as T;
    match transfer {
        T::Bt709 => "bt709",
        T::Gamma22 => "bt470m",
        T::Gamma28 => "bt470bg",
        T::Bt601 => "smpte170m",
        T::Smpte240m => "smpte240m",
        T::Gamma10 => "linear",
        T::Log100 => "log100",
        T::Log316 => "log316",
        T::Srgb => "iec61966-2-1",
        T::Bt202010 => "bt2020-10",
        T::Bt202012 => "bt2020-12",
        T::Smpte2084 => "smpte2084",
        T::AribStdB67 => "arib-std-b67",
        _ => UNKNOWN,
    }
}

/// ffmpeg's name of colour primaries (ITU-T H.273, table 2).
pub(in crate::video) const fn primaries_name(
    primaries: gst_video::VideoColorPrimaries,
) -> &'static str {
    use gst_video::VideoColorPrimaries as P;
    match primaries {
        P::Bt709 => "bt709",
        P::Bt470m => "bt470m",
        P::Bt470bg => "bt470bg",
        P::Smpte170m => "smpte170m",
        P::Smpte240m => "smpte240m",
        P::Film => "film",
        P::Bt2020 => "bt2020",
        P::Smptest428 => "smpte428",
        P::Smpterp431 => "smpte431",
        P::Smpteeg432 => "smpte432",
        P::Ebu3213 => "ebu3213",
        _ => UNKNOWN,
    }
}

impl Color {
    /// Returns the colour of frames of `info` once they are I420, from `descriptions`: the stream's
    /// first, then the container's. Where both are silent, the defaults are GStreamer's: limited
    /// range, BT.601 for small pictures and BT.709 for those of more than 576 lines.
    pub fn of(info: &gst_video::VideoInfo, descriptions: &[gst_video::VideoColorimetry]) -> Self {
        // RGB is converted to limited range.
        let keeps_range = info.is_yuv() || info.is_gray();
        let ranges = descriptions.iter().map(gst_video::VideoColorimetry::range);
        let mut known_ranges = ranges.filter(|&range| range != gst_video::VideoColorRange::Unknown);
        let is_full =
            keeps_range && known_ranges.next() == Some(gst_video::VideoColorRange::Range0_255);
        let range = if is_full {
            ColorRange::Full
        } else {
            ColorRange::Limited
        };
        let known_matrix = |color: &gst_video::VideoColorimetry| match color.matrix() {
            gst_video::VideoColorMatrix::Bt709 => Some(ColorMatrix::Bt709),
            gst_video::VideoColorMatrix::Bt2020 => Some(ColorMatrix::Bt2020),
            gst_video::VideoColorMatrix::Bt601 | gst_video::VideoColorMatrix::Fcc => {
                Some(ColorMatrix::Bt601)
            }
            _ => None,
        };
        let default = if info.height() > 576 {
            ColorMatrix::Bt709
        } else {
            ColorMatrix::Bt601
        };
        Self {
            range,
            matrix: descriptions
                .iter()
                .find_map(known_matrix)
                .unwrap_or(default),
        }
    }

    /// Returns GStreamer's description of the colour, with unknown transfer function and primaries.
    pub(in crate::video) fn colorimetry(self) -> gst_video::VideoColorimetry {
        let matrix = match self.matrix {
            ColorMatrix::Bt601 => gst_video::VideoColorMatrix::Bt601,
            ColorMatrix::Bt709 => gst_video::VideoColorMatrix::Bt709,
            ColorMatrix::Bt2020 => gst_video::VideoColorMatrix::Bt2020,
        };
        describe(self.range, matrix)
    }
}

/// Returns GStreamer's description of a colour of which only the range is known.
pub(in crate::video) fn range_only(range: ColorRange) -> gst_video::VideoColorimetry {
    describe(range, gst_video::VideoColorMatrix::Unknown)
}

fn describe(range: ColorRange, matrix: gst_video::VideoColorMatrix) -> gst_video::VideoColorimetry {
    let range = match range {
        ColorRange::Limited => gst_video::VideoColorRange::Range16_235,
        ColorRange::Full => gst_video::VideoColorRange::Range0_255,
    };
    gst_video::VideoColorimetry::new(
        range,
        matrix,
        gst_video::VideoTransferFunction::Unknown,
        gst_video::VideoColorPrimaries::Unknown,
    )
}
