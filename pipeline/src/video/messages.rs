//! The meaning of libav's messages: whether pixels were made up, or the frame is intact.
//!
//! libav conceals what it cannot decode, and reports that only in its log. The table lists the
//! messages of ffmpeg 5.1's decoders whose meaning differs from their level: errors after which the
//! frame is what was recorded, and less severe messages after which it is not. All others mean what
//! their level says: an error is damage, the rest is not. Each row names the file of libavcodec
//! that logs the message, and the reason for its meaning.

use gstreamer as gst;

/// The meaning of a message for the frame that is being decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Pixels were made up, or lost.
    Damage,
    /// A reference frame is missing and was replaced by another picture. Before the first frame of
    /// a stream that begins with a key frame this is no damage: the stream was cut out of a longer
    /// one.
    LostReference,
    /// The frame is what was recorded.
    Remark,
}

/// Returns the meaning of the message `text` that libav logs at `level`.
pub(super) fn meaning(level: gst::DebugLevel, text: &str) -> Meaning {
    let known = MESSAGES.iter().find(|(part, _)| text.contains(part));
    let by_level = if level <= gst::DebugLevel::Error {
        Meaning::Damage
    } else {
        Meaning::Remark
    };
    known.map_or(by_level, |&(_, meaning)| meaning)
}

/// Parts of messages. The first that matches counts.
#[rustfmt::skip]
const MESSAGES: &[(&str, Meaning)] = &[
    // error resilience (h264, mpeg1/2/4, h263, msmpeg4, wmv1/2, vc1, rv10-40).
    // error_resilience.c: pass ran but marked no macroblock (stands before the next row)
    ("concealing 0 DC, 0 AC, 0 MV", Meaning::Remark),
    // error_resilience.c: INFO; N macroblocks replaced; often the only line (lost slice, CAVLC/WMV2
    // truncation)
    ("concealing ", Meaning::Damage),
    // h264.
    // h264_slice.c: DEBUG; lost reference replaced by a copy of the previous one, no other line
    ("Frame num gap ", Meaning::LostReference),
    // h264dec.c: DEBUG; missing field made by copying the other field's lines
    ("Duplicating field ", Meaning::Damage),
    // h264dec.c: WARNING; DPA/B/C slices are thrown away
    ("data partitioning", Meaning::Damage),
    // h2645_parse.c: WARNING; NAL with forbidden bit / bad temporal id dropped (h264 + hevc)
    ("Invalid NAL unit", Meaning::Damage),
    // h264_refs.c: asked to drop a reference it does not have; only bookkeeping, measured
    // pixel-exact after an open-GOP start
    ("mmco: unref short failure", Meaning::Remark),
    // h264_refs.c: DPB bookkeeping, drops oldest; a reference really needed later says `Missing
    // reference`
    ("number of reference frames (", Meaning::Remark),
    // h264_sei.c: SEI truncated/overread; slices not touched
    ("SEI type ", Meaning::Remark),
    // h264_sei.c: picture timing SEI skipped
    ("Unaligned SEI payload", Meaning::Remark),
    // h264_sei.c: picture timing SEI skipped
    ("Picture timing SEI payload too large", Meaning::Remark),
    // h264_sei.c: recovery point SEI ignored
    ("recovery_frame_cnt ", Meaning::Remark),
    // h264_sei.c: buffering period SEI ignored
    (" referenced in buffering period", Meaning::Remark),
    // h264_slice.c: only pic_struct/timecode lost
    ("Error processing a picture timing SEI", Meaning::Remark),
    // h264_ps.c: VUI timing dropped
    ("time_scale/num_units_in_tick invalid", Meaning::Remark),
    // h264_ps.c: SPS is parsed again leniently
    ("Overread VUI by", Meaning::Remark),
    // h264_ps.c: parsed again leniently; hevc_ps.c: refused, but then slices say `PPS id out of
    // range`
    ("Overread SPS by", Meaning::Remark),
    // h264_ps.c: PPS for an SPS that is not there (MVC/SVC subset SPS); a needed one says `non-
    // existing PPS`
    ("sps_id ", Meaning::Remark),
    // hevc.
    // hevcdec.c: WARNING; slice header or frame start refused, rest of packet dropped
    ("Error parsing NAL unit #", Meaning::Damage),
    // hevcdec.c: WARNING; slice skipped, area left undecoded
    ("Error constructing the reference lists", Meaning::Damage),
    // hevcdec.c: WARNING; slices of another picture are drawn into this one
    ("Ignoring POC change between slices", Meaning::Damage),
    // hevcdec.c: WARNING; continues with a broken slice header
    ("Invalid long term RPS", Meaning::Damage),
    // hevc_ps.c: WARNING; coding tool is on but decoded without it (3 range-extension flags)
    ("flag not yet implemented", Meaning::Damage),
    // hevcdec.c: no frame is output for it; clean multi-slice open-GOP start prints it for every
    // skipped RASL
    ("First slice in a frame missing", Meaning::Remark),
    // hevcdec.c: decoded normally
    ("cu_chroma_qp_offset_idx not yet tested", Meaning::Remark),
    // hevc_ps.c: VPS content is not used for decoding
    ("vps_", Meaning::Remark),
    // hevc_ps.c: same
    ("Overread VPS by", Meaning::Remark),
    // hevc_ps.c: same (VPS)
    ("too many layer_id_included_flags", Meaning::Remark),
    // hevc_sei.c: active parameter sets SEI ignored
    ("num_sps_ids_minus1 ", Meaning::Remark),
    // hevc_sei.c: same
    ("active_parameter_set_id ", Meaning::Remark),
    // dovi_rpu.c: Dolby Vision metadata dropped
    ("RPU validation failed", Meaning::Remark),
    // dovi_rpu.c: same
    ("Missing RPU VDR sequence info", Meaning::Remark),
    // dovi_rpu.c: same
    ("RPUs should not use NLQ", Meaning::Remark),
    // dovi_rpu.c: same (ID and DM ID)
    ("Unknown previous RPU", Meaning::Remark),
    // mpeg4 part 2 / h263 / msmpeg4 / wmv1.
    // mpeg4videodec.c: VOL control field ignored, 4:2:0 decoded (studio profile fails later with
    // `header damaged`)
    ("illegal chroma format", Meaning::Remark),
    // mpeg4videodec.c: flag corrected
    ("low_delay flag set incorrectly", Meaning::Remark),
    // msmpeg4dec.c: bit rate / rounding trailer of an I frame absent
    ("ext header missing", Meaning::Remark),
    // msmpeg4dec.c: trailing bytes
    ("I-frame too long, ignoring ext header", Meaning::Remark),
    // intelh263dec.c: parsing of the header continues
    ("Bad value for reserved field", Meaning::Remark),
    // intelh263dec.c: parsing of the header continues
    ("Invalid marker", Meaning::Remark),
    // intelh263dec.c: parsing of the header continues
    ("Invalid aspect ratio", Meaning::Remark),
    // mpeg1/2.
    // mpegvideo_motion.c: DEBUG; prediction of that macroblock skipped, old buffer content stays
    ("MPEG motion vector out of boundary", Meaning::Damage),
    // mpeg12dec.c: decoding continues
    ("aspect ratio has forbidden 0 value", Meaning::Remark),
    // mpeg12dec.c: flag corrected
    ("interlaced frame in progressive sequence, ignoring", Meaning::Remark),
    // mpeg12dec.c: repeated header inside the packet skipped (a false start code also breaks its
    // slice, which speaks)
    ("ignoring SEQ_START_CODE after", Meaning::Remark),
    // mpeg12dec.c: same
    ("ignoring GOP_START_CODE after", Meaning::Remark),
    // mpeg12dec.c: same
    ("ignoring seq ext after", Meaning::Remark),
    // mpeg12dec.c: picture in codec_data thrown away, stream unaffected
    ("picture in extradata", Meaning::Remark),
    // vc1 / wmv3, rv.
    // vc1_block.c, vc1_pred.c: WARNING; direct vectors guessed in mixed field/frame B
    ("direct mode not supported", Meaning::Damage),
    // vc1.c: header remark, filter is applied as coded
    ("LOOPFILTER shall not be enabled", Meaning::Remark),
    // vc1.c: header remark
    ("Reserved LEVEL", Meaning::Remark),
    // rv34.c: leading B refused after start/seek, never shown (packet error follows)
    ("B-frame without reference data", Meaning::Remark),
    // vp3-9.
    // vp8.c: WARNING; frame refused (packet error follows, nothing shown)
    ("Discarding interframe without a prior keyframe", Meaning::Damage),
    // vp3.c: WARNING; predicted from an empty golden frame
    ("vp3: first frame not a keyframe", Meaning::Damage),
    // vp3.c: DEBUG; illegal coefficient run clipped
    ("Invalid zero run of", Meaning::Damage),
    // jpeg.
    // mjpegdec.c: FATAL (logged as INFO); packet refused
    ("No JPEG data found", Meaning::Damage),
    // mjpegdec.c: WARNING; in lossless scans the only line
    ("mjpeg_decode_dc: bad vlc", Meaning::Damage),
    // mjpegdec.c: WARNING `component N is incomplete`; progressive scans missing
    (" is incomplete", Meaning::Damage),
    // mjpegdec.c: APPn marker only
    ("decode_app parser read over the end", Meaning::Remark),
    // mjpegdec.c: APPn marker only
    ("unable to decode APP fields", Meaning::Remark),
    // mjpegdec.c: EXIF only
    ("invalid TIFF header in EXIF data", Meaning::Remark),
    // mjpegdec.c: EXIF only
    ("error decoding EXIF data", Meaning::Remark),
    // others.
    // svq3.c: INFO; picture ended before its last macroblock
    ("incomplete pic x", Meaning::Damage),
    // utvideodec.c: WARNING; >32 bits unread = wrong symbols were read
    (" bits left after decoding slice", Meaning::Damage),
    // decode.c: remark about the buffer provider (GStreamer)
    ("did not zero unused plane pointers", Meaning::Remark),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_decides_except_for_known_messages() {
        use gst::DebugLevel as L;
        let cases = [
            (
                L::Error,
                "error while decoding MB 3 4, bytestream -7",
                Meaning::Damage,
            ),
            (
                L::Info,
                "concealing 469 DC, 469 AC, 469 MV errors in P frame",
                Meaning::Damage,
            ),
            (
                L::Info,
                "concealing 0 DC, 0 AC, 0 MV errors in P frame",
                Meaning::Remark,
            ),
            (L::Error, "mmco: unref short failure", Meaning::Remark),
            (L::Error, "Overread VUI by 8 bits", Meaning::Remark),
            (L::Debug, "Frame num gap 5 3", Meaning::LostReference),
            (L::Error, "an unknown message", Meaning::Damage),
            (L::Info, "Increasing reorder buffer to 2", Meaning::Remark),
        ];
        for (level, text, expected) in cases {
            assert_eq!(meaning(level, text), expected, "{text}");
        }
    }
}
