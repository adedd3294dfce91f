//! The table of the corpus: how each file is made, and what ffmpeg and ffprobe say of it.

use super::edits::*;
use super::{Case, Edit, Expect, Fact, Group, Make};
use Expect::{Exact, First, FramesOnly, Gray, Rejected, Within};
use Fact::{Aspect, Frames, Gap, Matrix, Primaries, Range, Rotation, Says, Size, Transfer};
use Group::{Codec, Color, Container, Material, Refused, Shape, Times, Tracks};

const fn case(
    group: Group,
    name: &'static str,
    pieces: &'static [&'static str],
    expect: Expect,
    facts: &'static [Fact],
) -> Case {
    Case {
        group,
        name,
        make: Make::Ffmpeg(pieces),
        edit: None,
        expect,
        facts,
    }
}

const fn joined(
    group: Group,
    name: &'static str,
    names: &'static [&'static str],
    expect: Expect,
    facts: &'static [Fact],
) -> Case {
    Case {
        group,
        name,
        make: Make::Joined(names),
        edit: None,
        expect,
        facts,
    }
}

const fn material(name: &'static str, bytes: &'static [u8]) -> Case {
    let make = Make::Bytes(bytes);
    Case {
        group: Material,
        name,
        make,
        edit: None,
        expect: FramesOnly,
        facts: &[],
    }
}

impl Case {
    const fn edited(self, edit: Edit) -> Self {
        Self {
            edit: Some(edit),
            ..self
        }
    }
}

/// Sharp edges and moving shapes.
const TEST: &str = "-f lavfi -i testsrc2=s=160x120:r=30:d=2.2";
/// As [`TEST`], at 60 frames a second: interlaced frames are made of two of these.
const FIELDS: &str = "-f lavfi -i testsrc2=s=160x120:r=60:d=2.2";
/// Fine detail.
const FRACTAL: &str = "-f lavfi -t 2.2 -i mandelbrot=s=160x120:r=30";
/// Black and white noise.
const LIFE: &str = "-f lavfi -t 2.2 -i life=s=160x120:r=30:seed=3:ratio=0.2";
/// Slow colour gradients: for what is converted on the way to 8 bits of 4:2:0.
const SMOOTH: &str = "-f lavfi -i gradients=s=160x120:r=30:d=2.2:\
    c0=0x2850c0:c1=0xe0a030:n=2:x0=8:y0=100:x1=150:y1=12:seed=7:speed=0.05";
/// A tone.
const SOUND: &str = "-f lavfi -i sine=d=2.2";

const H264: &str = "-c:v libx264 -preset fast -pix_fmt yuv420p";
const FAST264: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p";
const FULL264: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuvj420p";
const H264_10: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p10le";
const H265: &str = "-c:v libx265 -preset ultrafast -x265-params log-level=none -pix_fmt yuv420p";
const H265_10: &str =
    "-c:v libx265 -preset ultrafast -x265-params log-level=none -pix_fmt yuv420p10le";
/// Any pixel format: it follows.
const X265: &str = "-c:v libx265 -preset ultrafast -x265-params log-level=none -pix_fmt";
const VP8: &str = "-c:v libvpx -b:v 500k -deadline realtime -cpu-used -16";
const VP9: &str = "-c:v libvpx-vp9 -b:v 500k -deadline realtime -cpu-used 8";
const AV1: &str = "-c:v libsvtav1 -preset 12 -pix_fmt yuv420p";
/// libaom is slow: one second is enough.
const AOM: &str = "-t 1 -c:v libaom-av1 -usage realtime -cpu-used 8";
const MPEG4: &str = "-c:v mpeg4 -q:v 4 -pix_fmt yuv420p";
const XVID: &str = "-c:v libxvid -q:v 4 -pix_fmt yuv420p";
const MPEG2: &str = "-c:v mpeg2video -q:v 4 -pix_fmt yuv420p";
/// Two moments in each frame, the top lines first.
const TOP_FIRST: &str = "-vf interlace=scan=tff:lowpass=0 -flags +ilme+ildct";
/// Two moments in each frame, the bottom lines first.
const BOTTOM_FIRST: &str = "-vf interlace=scan=bff:lowpass=0 -flags +ilme+ildct";
const PASS: &str = "-fps_mode passthrough";

/// All files.
#[rustfmt::skip]
pub const CORPUS: &[Case] = &[
    // H.264.
    case(Codec, "h264-baseline.mp4", &[TEST, H264, "-profile:v baseline"], Exact,
        &[Says("profile=Constrained Baseline")]),
    case(Codec, "h264-main.mp4", &[FRACTAL, H264, "-profile:v main"], Exact,
        &[Says("profile=Main")]),
    case(Codec, "h264-high.mp4", &[TEST, H264, "-bf 3 -g 25"], Exact, &[Says("profile=High")]),
    case(Codec, "h264-pyramid.mkv",
        &[TEST, H264, "-x264-params b-pyramid=normal:bframes=7:b-adapt=0:keyint=40"], Exact,
        &[Says("has_b_frames=2")]),
    case(Codec, "h264-opengop.mkv",
        &[TEST, H264, "-x264-params open-gop=1:bframes=3:b-adapt=0:keyint=12:min-keyint=12"],
        Exact, &[]),
    case(Codec, "h264-refresh.mp4", &[TEST, H264, "-x264-params intra-refresh=1:keyint=20"],
        Exact, &[]),
    case(Codec, "h264-slices.mp4", &[TEST, H264, "-x264-params slices=4:bframes=2"], Exact, &[]),
    case(Codec, "h264-intra.mov", &[TEST, H264, "-g 1"], Exact, &[]),
    case(Codec, "h264-lossless.mkv", &[LIFE, FAST264, "-qp 0"], Exact,
        &[Says("profile=High 4:4:4 Predictive")]),
    case(Codec, "h264-mbaff-top.mp4", &[FIELDS, TOP_FIRST, H264, "-x264-params tff=1"],
        FramesOnly, &[Says("field_order=tt")]),
    case(Codec, "h264-mbaff-bottom.ts", &[FIELDS, BOTTOM_FIRST, H264, "-x264-params bff=1"],
        FramesOnly, &[Says("field_order=bb")]),
    // Coded with the tools for interlaced frames, but all frames are progressive.
    case(Codec, "h264-fake-interlaced.mp4", &[TEST, H264, "-x264-params fake-interlaced=1"],
        Exact, &[]),
    // H.265.
    case(Codec, "h265-main.mp4", &[TEST, H265], Exact,
        &[Says("profile=Main"), Says("codec_tag_string=hev1")]),
    case(Codec, "h265-hvc1.mov", &[TEST, H265, "-tag:v hvc1"], Exact,
        &[Says("codec_tag_string=hvc1")]),
    case(Codec, "h265-opengop.mkv",
        &[TEST, "-c:v libx265 -preset superfast -pix_fmt yuv420p",
            "-x265-params log-level=none:open-gop=1:keyint=20:min-keyint=20:bframes=4"], Exact,
        &[]),
    case(Codec, "h265-intra.mp4", &[TEST, H265, "-g 1"], Exact, &[]),
    // VP8 and VP9.
    case(Codec, "vp8.webm", &[TEST, VP8, "-pix_fmt yuv420p"], Exact, &[Says("codec_name=vp8")]),
    case(Codec, "vp8-altref.webm",
        &[TEST, "-c:v libvpx -b:v 300k -cpu-used 5 -auto-alt-ref 1 -lag-in-frames 16",
            "-pix_fmt yuv420p"], Exact, &[]),
    case(Codec, "vp9-profile0.webm", &[TEST, VP9, "-pix_fmt yuv420p"], Exact,
        &[Says("profile=Profile 0")]),
    case(Codec, "vp9-altref.mkv",
        &[TEST, "-c:v libvpx-vp9 -b:v 300k -cpu-used 8 -auto-alt-ref 1 -lag-in-frames 16",
            "-pix_fmt yuv420p"], Exact, &[]),
    case(Codec, "vp9-lossless.mp4", &[FRACTAL, VP9, "-lossless 1 -pix_fmt yuv420p"], Exact, &[]),
    // AV1. The grain is made by the decoder.
    case(Codec, "av1.mp4", &[TEST, AV1], Exact, &[Says("codec_name=av1")]),
    case(Codec, "av1-grain.mkv", &[TEST, AV1, "-svtav1-params film-grain=20"], Exact, &[]),
    case(Codec, "av1-aom.webm", &[TEST, AOM, "-pix_fmt yuv420p"], Exact, &[Frames(30)]),
    // MPEG-4 Part 2.
    case(Codec, "mpeg4-xvid.avi", &[TEST, MPEG4, "-vtag XVID"], Exact,
        &[Says("codec_tag_string=XVID")]),
    case(Codec, "mpeg4-divx.avi", &[TEST, MPEG4, "-vtag DIVX"], Exact,
        &[Says("codec_tag_string=DIVX")]),
    case(Codec, "mpeg4-dx50.avi", &[TEST, MPEG4, "-vtag DX50 -bf 2"], Exact,
        &[Says("codec_tag_string=DX50"), Says("has_b_frames=1")]),
    case(Codec, "mpeg4-fmp4.avi", &[TEST, MPEG4, "-vtag FMP4"], Exact,
        &[Says("codec_tag_string=FMP4")]),
    case(Codec, "mpeg4-mp4v.mp4", &[TEST, MPEG4, "-bf 2"], Exact,
        &[Says("codec_tag_string=mp4v")]),
    case(Codec, "mpeg4-qpel.avi", &[TEST, MPEG4, "-flags +qpel -vtag XVID"], Exact,
        &[Says("profile=Advanced Simple Profile")]),
    case(Codec, "mpeg4-qpel-b.mkv", &[TEST, MPEG4, "-flags +qpel -bf 2"], Exact, &[]),
    case(Codec, "mpeg4-4mv.avi", &[TEST, MPEG4, "-flags +mv4 -mbd rd -trellis 1"], Exact, &[]),
    case(Codec, "mpeg4-partitioned.avi", &[TEST, MPEG4, "-data_partitioning 1 -ps 300"], Exact,
        &[]),
    case(Codec, "mpeg4-packets.mp4", &[TEST, MPEG4, "-ps 200"], Exact, &[]),
    case(Codec, "mpeg4-matrix.avi", &[TEST, MPEG4, "-mpeg_quant 1 -bf 1"], Exact, &[]),
    case(Codec, "mpeg4-interlaced.avi", &[FIELDS, TOP_FIRST, MPEG4, "-top 1"], FramesOnly, &[]),
    // The decoder is told of an encoder that had faults; ffmpeg then works around them.
    case(Codec, "mpeg4-divx503.avi", &[TEST, MPEG4, "-bf 2 -vtag DIVX"], Exact, &[])
        .edited(made_by_divx),
    case(Codec, "xvid.avi", &[TEST, XVID, "-vtag XVID"], Exact, &[Says("codec_tag_string=XVID")]),
    case(Codec, "xvid.mp4", &[TEST, XVID], Exact, &[]),
    // Two frames in a packet, then an empty one; an old build, which also wrote packets of one
    // byte while it waited for B-frames. Where these are taken for the end of the first frame,
    // libavcodec reports damage in a later one. libxvid keeps the last two of 66 frames to itself.
    case(Codec, "xvid-packed.avi", &[TEST, XVID, "-bf 2 -vtag XVID"], Exact, &[Frames(64)])
        .edited(made_by_old_xvid),
    case(Codec, "xvid-unpacked.avi",
        &["-i @xvid-packed.avi -c copy -bsf:v mpeg4_unpack_bframes"], Exact, &[Frames(64)]),
    case(Codec, "xvid-gmc.avi", &[FRACTAL, XVID, "-gmc 1 -vtag XVID"], Exact,
        &[Says("profile=Advanced Simple Profile")]),
    case(Codec, "xvid-qpel.avi", &[TEST, XVID, "-flags +qpel -bf 2 -vtag XVID"], Exact,
        &[Frames(64)]),
    // Relatives of H.263.
    case(Codec, "msmpeg4v2.avi", &[TEST, "-c:v msmpeg4v2 -q:v 4"], Exact,
        &[Says("codec_tag_string=MP42")]),
    case(Codec, "msmpeg4v3.avi", &[TEST, "-c:v msmpeg4 -q:v 4 -vtag DIV3"], Exact,
        &[Says("codec_tag_string=DIV3")]),
    case(Codec, "msmpeg4v3.mkv", &[TEST, "-c:v msmpeg4 -q:v 4 -vtag MP43"], Exact, &[]),
    case(Codec, "h263.3gp", &[TEST, "-s 176x144 -c:v h263 -q:v 4"], Exact,
        &[Size(176, 144), Aspect(12, 11), Says("codec_tag_string=s263")]),
    case(Codec, "h263p.mkv", &[TEST, "-c:v h263p -q:v 4 -umv 1 -obmc 1"], Exact, &[]),
    case(Codec, "flv1.flv", &[TEST, "-c:v flv -q:v 4"], Exact, &[Says("codec_name=flv1")]),
    case(Codec, "wmv1.asf", &[TEST, "-c:v wmv1 -q:v 4"], Exact, &[Says("codec_name=wmv1")]),
    case(Codec, "wmv2.wmv", &[TEST, SOUND, "-c:v wmv2 -q:v 4 -c:a wmav2"], Exact,
        &[Says("codec_name=wmv2")]),
    case(Codec, "rv10.rm", &[TEST, "-s 160x128 -c:v rv10 -q:v 4"], Exact,
        &[Size(160, 128)]),
    case(Codec, "rv20.rm", &[TEST, "-s 160x128 -c:v rv20 -q:v 4"], Exact,
        &[Size(160, 128)]),
    // MPEG-1 and MPEG-2.
    case(Codec, "mpeg1.mpg", &[TEST, "-c:v mpeg1video -q:v 4 -bf 2"], Exact,
        &[Says("codec_name=mpeg1video")]),
    case(Codec, "mpeg2.mkv", &[TEST, MPEG2, "-bf 2"], Exact, &[]),
    case(Codec, "mpeg2-interlaced.ts", &[FIELDS, TOP_FIRST, MPEG2, "-top 1"], FramesOnly,
        &[Says("field_order=tt")]),
    // Others of 4:2:0.
    case(Codec, "theora.ogv", &[TEST, "-c:v libtheora -q:v 6 -pix_fmt yuv420p"], Exact, &[]),
    case(Codec, "ffv1.mkv", &[TEST, "-c:v ffv1 -level 3 -slices 4 -pix_fmt yuv420p"], Exact, &[]),
    case(
        Codec,
        "ffvhuff.avi",
        &[TEST, "-c:v ffvhuff -pix_fmt yuv420p"],
        Rejected("no installed plugin of GStreamer decodes"),
        &[],
    ),
    case(
        Codec,
        "utvideo.avi",
        &[TEST, "-c:v utvideo -pix_fmt yuv420p"],
        Rejected("no installed plugin of GStreamer decodes"),
        &[],
    ),
    case(Codec, "magicyuv.avi", &[TEST, "-c:v magicyuv -pix_fmt \
        yuv420p"], Rejected("no installed plugin of GStreamer decodes"), &[]),
    case(Codec, "rawvideo.avi", &[TEST, "-t 1 -c:v rawvideo -pix_fmt yuv420p"], Exact,
        &[Frames(30), Says("codec_tag_string=I420")]),
    case(Codec, "snow.avi", &[TEST, "-c:v snow -q:v 4 -pix_fmt \
                                     yuv420p"], Rejected("no installed plugin of GStreamer \
                                         decodes"), &[]),
    case(Codec, "dv-pal.avi",
        &["-f lavfi -i testsrc2=s=720x576:r=25:d=0.24,setsar=16/15 -c:v dvvideo",
            "-pix_fmt yuv420p"], FramesOnly,
        &[Frames(6), Size(720, 576), Aspect(16, 15), Says("codec_tag_string=dvsd")]),
    // 4:1:1 to 4:2:0.
    case(Codec, "dv-ntsc.dv",
        &["-f lavfi -i testsrc2=s=720x480:r=30000/1001:d=0.2 -c:v dvvideo -pix_fmt yuv411p"],
        FramesOnly, &[Frames(6), Size(720, 480), Aspect(8, 9)]),
    // Full range by nature, 4:2:0.
    case(Codec, "mjpeg-420.avi", &[TEST, "-c:v mjpeg -q:v 3 -pix_fmt yuvj420p"], Exact,
        &[Range("full"), Matrix("bt470bg")]),
    // Full range by nature, 4:2:2 or 4:4:4 to 4:2:0.
    case(Codec, "mjpeg-422.mov", &[SMOOTH, "-c:v mjpeg -q:v 3 -pix_fmt yuvj422p"], Within(3),
        &[Range("full"), Says("pix_fmt=yuvj422p")]),
    case(Codec, "mjpeg-444.avi", &[SMOOTH, "-c:v mjpeg -q:v 3 -pix_fmt yuvj444p"], Within(3),
        &[Range("full"), Says("pix_fmt=yuvj444p")]),
    // 10 bits of 4:2:0 to 8.
    case(Codec, "h264-high10.mp4", &[TEST, H264_10], Within(1), &[Says("profile=High 10")]),
    case(Codec, "h265-main10.mkv", &[TEST, H265_10], Within(1), &[Says("profile=Main 10")]),
    case(Codec, "vp9-profile2.webm", &[TEST, VP9, "-pix_fmt yuv420p10le"], Within(1),
        &[Says("profile=Profile 2")]),
    case(Codec, "av1-10.mkv", &[TEST, "-c:v libsvtav1 -preset 12 -pix_fmt yuv420p10le"],
        Within(1), &[Says("pix_fmt=yuv420p10le")]),
    // 12 bits of 4:2:0 to 8.
    case(Codec, "h265-main12.mkv", &[TEST, X265, "yuv420p12le"], Within(1),
        &[Says("pix_fmt=yuv420p12le")]),
    case(Codec, "vp9-profile2-12.webm", &[TEST, VP9, "-pix_fmt yuv420p12le"], Within(1),
        &[Says("pix_fmt=yuv420p12le")]),
    // 8 bits of 4:2:2 or 4:4:4 to 4:2:0.
    case(Codec, "h264-422.mp4", &[SMOOTH, "-c:v libx264 -preset fast -pix_fmt yuv422p"],
        Within(3), &[Says("profile=High 4:2:2")]),
    case(Codec, "h264-444.mp4", &[SMOOTH, "-c:v libx264 -preset fast -pix_fmt yuv444p"],
        Within(3), &[Says("profile=High 4:4:4 Predictive")]),
    case(Codec, "h265-422.mp4", &[SMOOTH, X265, "yuv422p"], Within(3),
        &[Says("pix_fmt=yuv422p")]),
    case(Codec, "h265-444.mp4", &[SMOOTH, X265, "yuv444p"], Within(3),
        &[Says("pix_fmt=yuv444p")]),
    case(Codec, "vp9-profile1.webm", &[SMOOTH, VP9, "-pix_fmt yuv444p"], Within(3),
        &[Says("profile=Profile 1")]),
    case(Codec, "av1-444.mkv", &[SMOOTH, AOM, "-pix_fmt yuv444p"], Within(3),
        &[Frames(30), Says("profile=High")]),
    case(Codec, "mpeg2-422.ts", &[SMOOTH, "-c:v mpeg2video -q:v 4 -pix_fmt yuv422p"], Within(3),
        &[Says("profile=4:2:2")]),
    case(Codec, "huffyuv.avi", &[SMOOTH, "-c:v huffyuv -pix_fmt yuv422p"], Within(3),
        &[Says("codec_tag_string=HFYU")]),
    case(Codec, "utvideo-422.mkv", &[SMOOTH, "-c:v utvideo -pix_fmt \
        yuv422p"], Rejected("no installed plugin of GStreamer decodes"), &[]),
    case(Codec, "dnxhr.mov",
        &[SMOOTH, "-t 1 -s 256x128 -aspect 2:1 -c:v dnxhd",
            "-profile:v dnxhr_lb -pix_fmt yuv422p"], Rejected("no installed plugin of GStreamer \
                decodes"),
        &[Frames(30), Size(256, 128), Says("profile=DNXHR LB")]),
    // 10 or 12 bits of 4:2:2 or 4:4:4 to 8 bits of 4:2:0.
    case(Codec, "h264-422-10.mov",
        &[SMOOTH, "-c:v libx264 -preset fast -pix_fmt yuv422p10le"], Within(3),
        &[Says("pix_fmt=yuv422p10le")]),
    case(Codec, "h265-422-10.mp4", &[SMOOTH, X265, "yuv422p10le"], Within(3),
        &[Says("pix_fmt=yuv422p10le")]),
    case(Codec, "h265-444-12.mkv", &[SMOOTH, X265, "yuv444p12le"], Within(3),
        &[Says("pix_fmt=yuv444p12le")]),
    case(Codec, "vp9-profile3.webm", &[SMOOTH, VP9, "-pix_fmt yuv444p10le"], Within(3),
        &[Says("profile=Profile 3")]),
    case(Codec, "prores.mov",
        &[SMOOTH, "-c:v prores_ks -profile:v standard -pix_fmt yuv422p10le"], Within(3),
        &[Says("codec_tag_string=apcn")]),
    case(Codec, "cineform.mov",
        &[SMOOTH, "-vf scale=160:128,setsar=1 -c:v cfhd -pix_fmt yuv422p10le"], Within(3),
        &[Size(160, 128), Says("codec_name=cfhd")]),
    case(Codec, "v210.mov", &[SMOOTH, "-t 0.5 -c:v v210 -pix_fmt yuv422p10le"], Within(3),
        &[Frames(15)]),
    // 4:1:0 to 4:2:0.
    case(Codec, "svq1.mov", &[SMOOTH, "-c:v svq1 -q:v 4"], Within(4),
        &[Says("codec_tag_string=SVQ1")]),
    // RGB to limited 4:2:0 by BT.601.
    case(Codec, "cinepak.avi", &[SMOOTH, "-t 0.5 -c:v cinepak -q:v 4"], Within(4),
        &[Frames(15), Says("codec_name=cinepak")]),
    case(Codec, "png.mov", &[SMOOTH, "-t 1 -c:v png -pix_fmt rgb24"], Within(4), &[Frames(30)]),
    case(Codec, "qtrle.mov", &[SMOOTH, "-t 1 -c:v qtrle -pix_fmt rgb24"], Within(4),
        &[Frames(30), Says("codec_name=qtrle")]),
    case(Codec, "h264-rgb.mkv", &[SMOOTH, "-c:v libx264rgb -preset fast -pix_fmt rgb24"],
        Within(4), &[Says("pix_fmt=gbrp")]),
    case(Codec, "zmbv.avi", &[SMOOTH, "-t 1 -c:v zmbv -pix_fmt bgr0"], Within(4), &[Frames(30)]),
    // Few colours, scattered: filters of chroma differ more.
    case(Codec, "gif.gif", &[SMOOTH, "-t 1"], Within(8), &[Frames(30)]),

    // Containers, with H.264 unless the name says otherwise.
    case(Container, "moov-first.mp4", &[TEST, H264, "-movflags +faststart"], Exact, &[]),
    case(Container, "moov-last.mp4", &[TEST, H264], Exact, &[]),
    case(Container, "fragmented.mp4",
        &[TEST, H264, "-g 15 -movflags frag_keyframe+empty_moov+default_base_moof"], Exact, &[]),
    case(Container, "fragmented-sound.mp4",
        &[TEST, SOUND, H264, "-g 15 -c:a aac -movflags frag_keyframe+empty_moov+separate_moof"],
        Exact, &[]),
    case(Container, "plain.mov", &[TEST, H264], Exact, &[Says("TAG:major_brand=qt  ")]),
    case(Container, "plain.m4v", &[TEST, H264], Exact, &[Says("TAG:major_brand=M4V ")]),
    case(Container, "smooth.ismv", &[TEST, H264, "-g 15"], Exact, &[]),
    case(Container, "brand-3gp4.3gp", &[TEST, MPEG4, "-brand 3gp4"], Exact,
        &[Says("TAG:major_brand=3gp4")]),
    case(Container, "brand-3gp5.mp4", &["-i @moov-last.mp4 -c copy -brand 3gp5"], Exact,
        &[Says("TAG:major_brand=3gp5")]),
    case(Container, "brand-3gp6.3gp", &["-i @moov-last.mp4 -c copy"], Exact,
        &[Says("TAG:major_brand=3gp6")]),
    case(Container, "brand-3g2a.3g2", &[TEST, MPEG4], Exact, &[Says("TAG:major_brand=3g2a")]),
    case(Container, "plain.mkv", &[TEST, H264], Exact, &[]),
    case(Container, "live.mkv", &[TEST, H264, "-live 1"], Exact, &[]),
    case(Container, "h264.avi", &[TEST, H264, "-bf 0"], Exact, &[]),
    case(Container, "opendml.avi", &[TEST, MPEG4], Exact, &[]).edited(open_dml),
    case(Container, "no-index.avi", &[TEST, MPEG4], Exact, &[]).edited(without_index),
    case(Container, "h264.flv", &[TEST, SOUND, H264, "-c:a aac"], Exact, &[]),
    case(Container, "plain.ts", &[TEST, H264], Exact, &[]),
    case(Container, "sound.ts", &[TEST, SOUND, H264, "-c:a aac"], Exact, &[]),
    case(Container, "blu-ray.m2ts", &[TEST, H264, "-mpegts_m2ts_mode 1"], Exact, &[]),
    case(Container, "no-pcr.ts", &["-i @plain.ts -c copy"], Exact, &[]).edited(without_pcr),
    case(Container, "no-pcr-sound.ts", &["-i @sound.ts -c copy"], Exact, &[]).edited(without_pcr),
    case(Container, "late-pat.ts", &[TEST, H264, "-g 15"], Exact, &[]).edited(with_late_tables),
    joined(Container, "clock-restarts.ts", &["plain.ts", "plain.ts"], Exact, &[Frames(132)]),
    joined(Container, "clock-restarts-sound.ts", &["sound.ts", "sound.ts"], Exact,
        &[Frames(132)]),
    case(Container, "h265.ts", &[TEST, H265], Exact, &[]),
    case(Container, "mpeg2.mpg", &[TEST, SOUND, MPEG2, "-c:a mp2"], Exact, &[]),
    case(Container, "dvd.vob", &[TEST, MPEG2, "-bf 2"], Exact, &[]),
    case(Container, "h264.mpg", &[TEST, FAST264], Exact, &[]),
    case(Container, "h264-sound.mpg", &[TEST, SOUND, H264, "-c:a mp2"], Exact, &[]),
    // The second film of the chain has a number of its own.
    case(Material, "theora-second.ogv",
        &[FRACTAL, "-c:v libtheora -q:v 6 -pix_fmt yuv420p -serial_offset 40"], Exact, &[]),
    joined(Container, "chained.ogv", &["theora.ogv", "theora-second.ogv"], First, &[]),
    case(Container, "h264.asf", &[TEST, H264, "-bf 0"], Exact, &[]),
    case(Container, "mpeg2.mxf", &["-f lavfi -i testsrc2=s=160x120:r=25:d=2.2", MPEG2], Exact,
        &[Frames(55)]),
    case(Container, "h264.nut", &[TEST, H264], Rejected("not a video"), &[]),
    case(Container, "plain.y4m", &[TEST, "-t 1 -pix_fmt yuv420p"], Exact, &[Frames(30)]),
    case(Container, "vp8.ivf", &[TEST, VP8, "-pix_fmt yuv420p"], Exact, &[]),
    case(Container, "av1.ivf", &[TEST, AV1], Exact, &[]),
    case(Container, "av1.obu", &[TEST, AV1], Rejected("of no known type"), &[]),
    case(Container, "raw.h264", &[TEST, H264], Exact, &[]),
    case(Container, "raw.hevc", &[TEST, H265], Exact, &[]),
    case(Container, "raw.m2v", &[TEST, MPEG2, "-bf 2"], Exact, &[]),
    case(Container, "raw-mpeg4.m4v", &[TEST, MPEG4, "-bf 2 -f m4v"], Exact, &[]),
    case(Container, "raw.mjpeg", &[TEST, "-c:v mjpeg -q:v 3 -pix_fmt \
        yuvj420p"], Rejected("image/jpeg"),
        &[Range("full")]),
    case(Container, "plain.wtv", &[TEST, MPEG2], Rejected("Windows TV"), &[]),

    // Full range, described or not.
    case(Color, "full-h264.mp4", &[TEST, FULL264], Exact,
        &[Range("full"), Matrix("unknown")]),
    case(Color, "full-h264-709.mp4",
        &[TEST, FULL264, "-colorspace bt709 -color_trc bt709 -color_primaries bt709"], Exact,
        &[Range("full"), Matrix("bt709"), Transfer("bt709"), Primaries("bt709")]),
    case(Color, "full-h264.ts", &[TEST, FULL264], Exact, &[Range("full")]),
    case(Color, "full-h265.mp4", &[TEST, X265, "yuvj420p"], Exact,
        &[Range("full"), Matrix("unknown")]),
    case(Color, "full-h265-709.mkv",
        &[TEST, X265, "yuvj420p -colorspace bt709 -color_trc bt709 -color_primaries bt709"],
        Exact, &[Range("full"), Matrix("bt709"), Transfer("bt709"), Primaries("bt709")]),
    case(Color, "full-av1.mp4",
        &[TEST, "-vf scale=out_range=full", AOM, "-pix_fmt yuv420p -color_range pc"], Exact,
        &[Frames(30), Range("full"), Matrix("unknown")]),
    case(Color, "full-av1-709.mkv",
        &[TEST, "-vf scale=out_range=full", AOM, "-pix_fmt yuv420p -color_range pc",
            "-colorspace bt709 -color_trc bt709 -color_primaries bt709"], Exact,
        &[Frames(30), Range("full"), Matrix("bt709"), Transfer("bt709"), Primaries("bt709")]),
    case(Color, "full-vp9.webm",
        &[TEST, "-vf scale=out_range=full", VP9, "-pix_fmt yuv420p -color_range pc"], Exact,
        &[Range("full"), Matrix("unknown")]),
    case(Color, "full-vp9-709.webm",
        &[TEST, "-vf scale=out_range=full", VP9, "-pix_fmt yuv420p -color_range pc",
            "-colorspace bt709 -color_trc bt709 -color_primaries bt709"], Exact,
        &[Range("full"), Matrix("bt709")]),
    case(Color, "full-mjpeg.mkv", &[TEST, "-c:v mjpeg -q:v 3 -pix_fmt yuvj420p"], Exact,
        &[Range("full"), Matrix("bt470bg")]),
    // Limited range, described.
    case(Color, "bt709.mp4",
        &[TEST, FAST264, "-color_range tv -colorspace bt709 -color_trc bt709",
            "-color_primaries bt709"], Exact,
        &[Matrix("bt709"), Transfer("bt709"), Primaries("bt709")]),
    case(Color, "bt601.mp4",
        &[TEST, FAST264, "-color_range tv -colorspace smpte170m -color_trc smpte170m",
            "-color_primaries smpte170m"], Exact,
        &[Matrix("smpte170m"), Transfer("smpte170m"), Primaries("smpte170m")]),
    case(Color, "bt470bg.mkv",
        &[TEST, FAST264, "-color_range tv -colorspace bt470bg -color_trc gamma28",
            "-color_primaries bt470bg"], Exact,
        &[Matrix("bt470bg"), Transfer("bt470bg"), Primaries("bt470bg")]),
    case(Color, "bt2020.mp4",
        &[TEST, FAST264, "-color_range tv -colorspace bt2020nc -color_trc bt2020-10",
            "-color_primaries bt2020"], Exact,
        &[Matrix("bt2020nc"), Transfer("bt2020-10"), Primaries("bt2020")]),
    // Only the container says it.
    case(Color, "described-outside.mov",
        &["-i @moov-last.mp4 -c copy -colorspace bt709 -color_trc bt709 -color_primaries bt709",
            "-movflags +write_colr"], Exact,
        &[Matrix("bt709"), Transfer("bt709"), Primaries("bt709")]),
    // 10 bits of 4:2:0 to 8, described in several ways. The description changes no sample.
    case(Color, "ten-nodesc.mp4", &[TEST, H264_10], Within(1), &[Matrix("unknown")]),
    case(Color, "ten-709.mp4",
        &[TEST, H264_10, "-color_range tv -colorspace bt709 -color_trc bt709",
            "-color_primaries bt709"], Within(1),
        &[Matrix("bt709"), Transfer("bt709"), Primaries("bt709")]),
    case(Color, "ten-pq.mp4",
        &[TEST, H265_10, "-color_range tv -colorspace bt2020nc -color_trc smpte2084",
            "-color_primaries bt2020"], Within(1),
        &[Matrix("bt2020nc"), Transfer("smpte2084"), Primaries("bt2020")]),
    case(Color, "ten-hlg.mkv",
        &[TEST, H265_10, "-color_range tv -colorspace bt2020nc -color_trc arib-std-b67",
            "-color_primaries bt2020"], Within(1),
        &[Matrix("bt2020nc"), Transfer("arib-std-b67"), Primaries("bt2020")]),
    case(Color, "ten-full.mp4", &[TEST, H264_10, "-vf scale=out_range=full -color_range pc"],
        Within(1), &[Range("full")]),
    case(Color, "ten-full-709.mkv",
        &[TEST, H265_10, "-vf scale=out_range=full -color_range pc -colorspace bt709",
            "-color_trc bt709 -color_primaries bt709"], Within(1),
        &[Range("full"), Matrix("bt709")]),
    // No colour at all: full range where ffmpeg is not told otherwise.
    case(Color, "gray-h264.mp4", &[TEST, "-c:v libx264 -preset fast -pix_fmt gray"], Exact,
        &[Range("full"), Says("pix_fmt=yuvj420p")]),
    case(Color, "gray-h264-limited.mkv",
        &["-i @gray-h264.mp4 -c copy -bsf:v h264_metadata=video_full_range_flag=0"], Exact,
        &[Says("pix_fmt=yuv420p")]),
    case(Color, "gray-h265.mkv", &[TEST, X265, "gray"], Gray,
        &[Range("full"), Says("pix_fmt=gray")]),
    case(Color, "gray-h265-limited.mp4",
        &["-i @gray-h265.mkv -c copy -bsf:v hevc_metadata=video_full_range_flag=0"], Gray,
        &[Says("pix_fmt=gray")]),
    case(Color, "gray-av1.mkv", &[TEST, AOM, "-pix_fmt gray"], Gray,
        &[Frames(30), Range("full"), Says("pix_fmt=gray")]),
    case(Color, "gray-ffv1.mkv", &[TEST, "-c:v ffv1 -level 3 -pix_fmt gray"], Gray,
        &[Range("full"), Says("pix_fmt=gray")]),
    // JPEG whose comment says limited range.
    case(Color, "limited-mjpeg.avi",
        &[TEST, "-c:v mjpeg -q:v 3 -pix_fmt yuv420p -strict unofficial"], Exact,
        &[Says("color_range=tv")]),
    // RGB to limited 4:2:0 by BT.601.
    case(Color, "rgb24-raw.mov", &[SMOOTH, "-t 0.5 -c:v rawvideo -pix_fmt rgb24"], Within(4),
        &[Frames(15)]),
    case(Color, "rgb24-raw.avi", &[SMOOTH, "-t 0.5 -c:v rawvideo -pix_fmt bgr24"], Within(4),
        &[Frames(15)]),
    case(Color, "rgb-ffv1.mkv", &[SMOOTH, "-t 1 -c:v ffv1 -level 3 -pix_fmt bgr0"], Within(4),
        &[Frames(30), Says("pix_fmt=bgr0")]),
    // 4:1:1 and packed 4:2:2 to 4:2:0.
    case(Color, "yuv411-ffv1.mkv", &[SMOOTH, "-c:v ffv1 -level 3 -pix_fmt yuv411p"], Within(3),
        &[Says("pix_fmt=yuv411p")]),
    case(Color, "uyvy-raw.mov", &[SMOOTH, "-t 0.5 -c:v rawvideo -pix_fmt uyvy422"], Within(3),
        &[Frames(15), Says("codec_tag_string=2vuy")]),
    // Alpha, which is left out.
    case(Color, "yuva-ffv1.mkv",
        &[TEST, "-vf format=yuva420p,colorchannelmixer=aa=0.5 -c:v ffv1 -level 3",
            "-pix_fmt yuva420p"], Exact, &[Says("pix_fmt=yuva420p")]),
    case(Color, "alpha-vp8.webm", &[TEST, VP8, "-auto-alt-ref 0 -pix_fmt yuva420p"], Exact,
        &[Says("TAG:alpha_mode=1")]),
    case(Color, "alpha-vp9.webm", &[TEST, VP9, "-auto-alt-ref 0 -pix_fmt yuva420p"], Exact,
        &[Says("TAG:alpha_mode=1")]),
    case(Color, "alpha-prores.mov",
        &[SMOOTH, "-t 1 -c:v prores_ks -profile:v 4444 -pix_fmt yuva444p10le"], Within(3),
        &[Frames(30), Says("codec_tag_string=ap4h")]),
    case(Color, "alpha-qtrle.mov", &[SMOOTH, "-t 1 -c:v qtrle -pix_fmt argb"], Within(4),
        &[Frames(30), Says("pix_fmt=argb")]),

    // Times.
    case(Times, "late-start.mp4",
        &["-itsoffset 8.3 -f lavfi -i testsrc2=s=160x120:r=30:d=0.4", PASS, FAST264], Exact,
        &[Frames(12), Says("start_time=8.300000")]),
    case(Times, "late-start.mkv", &["-itsoffset 8.3", TEST, PASS, H264], Exact,
        &[Says("start_time=8.300000")]),
    case(Times, "late-100s.mp4", &["-itsoffset 100", TEST, PASS, H264], Exact,
        &[Says("start_time=100.000000")]),
    case(Times, "late-to-sound.mp4",
        &[SOUND, "-itsoffset 1", TEST, "-map 0:a -map 1:v -c:a aac", PASS, H264], Exact,
        &[Says("start_time=1.000000")]),
    case(Times, "cut.mp4", &["-ss 0.5 -i @h264-high.mp4 -c copy"], Exact, &[Frames(51)]),
    case(Times, "cut.mov", &["-ss 1.23 -i @h264-pyramid.mkv -c copy"], Exact, &[Frames(29)]),
    // The first frames of the cut refer to what is not there: they are left out.
    case(Times, "cut-opengop.mkv", &["-ss 0.9 -i @h265-opengop.mkv -c copy"], Exact,
        &[Frames(46)]),
    case(Times, "no-edits.mp4", &["-i @h264-high.mp4 -c copy -use_editlist 0"], Exact, &[]),
    case(Times, "negative-cts.mp4",
        &["-i @h264-high.mp4 -c copy -movflags +negative_cts_offsets"], Exact, &[]),
    case(Times, "b-frames.avi", &[TEST, H264, "-bf 2"], Exact, &[]),
    case(Times, "offset.ts", &[TEST, H264, "-output_ts_offset 5"], Exact,
        &[Says("start_time=6.400000")]),
    // The clock of 33 bits starts again within the film.
    case(Times, "clock-wraps.ts", &[TEST, H264, "-output_ts_offset 95441.2"], Exact, &[]),
    case(Times, "uneven.mp4", &[TEST, "-vf select=gt(mod(n\\,5)\\,1)", PASS, H264], Exact,
        &[Frames(39)]),
    case(Times, "uneven.webm", &[TEST, "-vf setpts=(N+N*N/66)/30/TB", PASS, VP8,
        "-pix_fmt yuv420p"], Exact, &[]),
    case(Times, "gap-100s.mkv",
        &[TEST, "-vf setpts=PTS+gte(N\\,30)*100/TB", PASS, H264, "-g 15"], Exact,
        &[Gap(30, 100_033)]),
    case(Times, "gap-100s.mp4",
        &[TEST, "-vf setpts=PTS+gte(N\\,30)*100/TB", PASS, H264, "-g 15"], Exact,
        &[Gap(30, 100_033)]),
    case(Times, "gap-10000s.mkv",
        &[TEST, "-vf setpts=PTS+gte(N\\,30)*10000/TB", PASS, H264, "-g 15"], Exact,
        &[Gap(30, 10_000_033)]),
    case(Times, "fps-23.976.mp4",
        &["-f lavfi -i testsrc2=s=160x120:r=24000/1001:d=2.2", H264], Exact,
        &[Frames(53), Says("r_frame_rate=24000/1001")]),
    case(Times, "fps-50.mkv", &["-f lavfi -i testsrc2=s=160x120:r=50:d=2.2", H264], Exact,
        &[Frames(110), Says("r_frame_rate=50/1")]),
    case(Times, "fps-59.94.mp4",
        &["-f lavfi -i testsrc2=s=160x120:r=60000/1001:d=2.2", H264], Exact,
        &[Frames(132), Says("r_frame_rate=60000/1001")]),
    case(Times, "fps-0.5.mp4", &["-f lavfi -i testsrc2=s=160x120:r=1/2:d=20", H264], Exact,
        &[Frames(10), Says("r_frame_rate=1/2")]),
    case(Times, "fps-1.avi", &["-f lavfi -i testsrc2=s=160x120:r=1:d=20", MPEG4], Exact,
        &[Frames(20), Says("r_frame_rate=1/1")]),
    // The container's length ends before the last frame does, or long after.
    case(Times, "last-short.mp4",
        &["-i @h264-baseline.mp4 -c copy -bsf:v setts=duration=if(eq(N\\,65)\\,1\\,512)"], Exact,
        &[]),
    case(Times, "last-long.mp4",
        &["-i @h264-baseline.mp4 -c copy -bsf:v setts=duration=if(eq(N\\,65)\\,51200\\,512)"],
        Exact, &[]),
    case(Times, "one-frame.mp4", &[TEST, H264, "-frames:v 1"], Exact, &[Frames(1)]),

    // Shapes.
    case(Shape, "aspect-64x45.mp4",
        &["-f lavfi -i testsrc2=s=160x128:r=25:d=2.2 -vf setsar=64/45", FAST264], Exact,
        &[Frames(55), Size(160, 128), Aspect(64, 45)]),
    case(Shape, "aspect-12x11.mkv", &[TEST, "-vf setsar=12/11", H264], Exact, &[Aspect(12, 11)]),
    // Only the stream of pictures says it.
    case(Shape, "aspect-12x11.ts", &[TEST, "-vf setsar=12/11", H264], Exact, &[Aspect(12, 11)]),
    case(Shape, "aspect-4x3.mpg", &[TEST, "-vf setsar=4/3", MPEG2], Exact, &[Aspect(4, 3)]),
    case(Shape, "aspect-4x3.avi", &[TEST, "-vf setsar=4/3", MPEG4], Exact, &[Aspect(4, 3)]),
    // The container says it; the stream of pictures says square.
    case(Shape, "aspect-outside.mp4", &["-i @moov-last.mp4 -c copy -aspect 16:9"], Exact,
        &[Aspect(4, 3)]),
    case(Shape, "aspect-outside.mkv", &["-i @moov-last.mp4 -c copy -aspect 16:9"], Exact,
        &[Aspect(4, 3)]),
    // Only the container can say it, as a size in whole pixels: 213x120.
    case(Shape, "aspect-outside.webm",
        &[TEST, "-vf setsar=4/3", VP8, "-pix_fmt yuv420p"], Exact, &[Aspect(213, 160)]),
    // ffmpeg 5.1 turns the other way than its option says.
    case(Shape, "rotated-90.mp4", &["-i @moov-last.mp4 -c copy -metadata:s:v rotate=270"], Exact,
        &[Size(120, 160), Rotation(90)]),
    case(Shape, "rotated-180.mov", &["-i @moov-last.mp4 -c copy -metadata:s:v rotate=180"],
        Exact, &[Rotation(180)]),
    case(Shape, "rotated-270.mp4", &["-i @moov-last.mp4 -c copy -metadata:s:v rotate=90"],
        Exact, &[Size(120, 160), Rotation(270)]),
    case(Shape, "rotated-aspect.mp4",
        &["-i @aspect-12x11.mkv -c copy -metadata:s:v rotate=270"], Exact,
        &[Size(120, 160), Aspect(12, 11), Rotation(90)]),
    case(Shape, "flipped.mp4", &["-i @moov-last.mp4 -c copy"], Exact, &[]).edited(flipped),
    case(Shape, "transposed.mp4", &["-i @moov-last.mp4 -c copy"], Exact,
        &[Size(120, 160), Rotation(90)])
        .edited(transposed),
    case(Shape, "odd-63x47.mkv", &[TEST, "-vf scale=63:47,setsar=1", MPEG4], Exact,
        &[Size(63, 47)]),
    case(Shape, "odd-63x47.webm",
        &[TEST, "-vf scale=63:47,setsar=1", VP9, "-pix_fmt yuv420p"], Exact, &[Size(63, 47)]),
    case(Shape, "cropped-62x46-h265.mp4", &[TEST, "-vf scale=62:46,setsar=1", H265], Exact,
        &[Size(62, 46)]),
    case(Shape, "odd-63x47-444.mp4",
        &[SMOOTH, "-vf scale=63:47,setsar=1 -c:v libx264 -preset fast -pix_fmt yuv444p"],
        Within(4), &[Size(63, 47)]),
    case(Shape, "tiny-1x1.mkv", &[TEST, "-vf scale=1:1,setsar=1", MPEG4], Exact, &[Size(1, 1)]),
    case(Shape, "tiny-2x2.mp4", &[TEST, "-vf scale=2:2,setsar=1", H264], Exact, &[Size(2, 2)]),
    case(Shape, "narrow-2x100.mp4", &[TEST, "-vf scale=2:100,setsar=1", H264], Exact,
        &[Size(2, 100)]),
    case(Shape, "cropped-160x118.mp4", &[TEST, "-vf crop=160:118:0:0", H264], Exact,
        &[Size(160, 118)]),
    case(Shape, "cropped-top.mp4",
        &["-i @moov-last.mp4 -c copy -bsf:v",
            "h264_metadata=crop_top=8:crop_right=2:crop_bottom=6"], Exact, &[Size(158, 114)]),
    // Without `-flags unaligned`, ffmpeg leaves on what is to be cut off at the left.
    // libavcodec crops no more on the left than keeps rows aligned, unless it is told to.
    case(Shape, "cropped-left.mp4",
        &["-i @moov-last.mp4 -c copy -bsf:v h264_metadata=crop_left=18:crop_top=8"], Exact,
        &[Size(160, 112)]),
    case(Shape, "tall-48x320.mp4", &["-f lavfi -i testsrc2=s=48x320:r=30:d=2.2", H264], Exact,
        &[Size(48, 320)]),
    case(Shape, "wide-640x16.mp4", &["-f lavfi -i testsrc2=s=640x16:r=30:d=2.2", H264], Exact,
        &[Size(640, 16)]),

    // Tracks.
    material("subtitles.srt", SUBTITLES),
    material("bitmaps.sup", BITMAPS),
    material("chapters.txt", CHAPTERS),
    case(Tracks, "sound-first.mp4",
        &[SOUND, TEST, "-map 0:a -map 1:v -c:a aac", H264], Exact, &[]),
    case(Tracks, "sound-first.mkv",
        &[SOUND, TEST, "-map 0:a -map 1:v -c:a libvorbis", H264], Exact, &[]),
    case(Tracks, "sound-longer.mp4",
        &["-f lavfi -i sine=d=5", TEST, "-map 0:a -map 1:v -c:a aac", H264], Exact, &[]),
    case(Material, "small.mp4", &["-f lavfi -i testsrc2=s=64x48:r=30:d=2.2", H264], Exact,
        &[Size(64, 48)]),
    case(Tracks, "default-second.mkv",
        &["-i @moov-last.mp4 -i @small.mp4 -map 0 -map 1 -c copy -disposition:v:0 0",
            "-disposition:v:1 default"], Exact, &[Size(64, 48)]),
    case(Tracks, "default-second.mp4",
        &["-i @moov-last.mp4 -i @small.mp4 -map 0 -map 1 -c copy -disposition:v:0 0",
            "-disposition:v:1 default"], Exact, &[Size(64, 48)]),
    case(Tracks, "default-first.mp4",
        &["-i @small.mp4 -i @moov-last.mp4 -map 0 -map 1 -c copy -disposition:v:0 default",
            "-disposition:v:1 0"], Exact, &[Size(64, 48)]),
    case(Tracks, "two-programs.ts",
        &["-i @moov-last.mp4 -i @small.mp4 -map 0 -map 1 -c copy -program st=0 -program st=1"],
        Exact, &[]),
    case(Material, "cover.png", &["-f lavfi -i color=red:s=400x400 -frames:v 1"], Exact,
        &[Frames(1)]),
    case(Tracks, "cover-last.mp4",
        &["-i @moov-last.mp4 -i @cover.png -map 0 -map 1 -c copy -disposition:v:1 attached_pic"],
        Exact, &[]),
    case(Tracks, "cover-first.mp4",
        &["-i @cover.png -i @moov-last.mp4 -map 0 -map 1 -c copy -disposition:v:0 attached_pic"],
        Exact, &[]),
    case(Tracks, "cover.mkv",
        &["-i @moov-last.mp4 -c copy -attach @cover.png -metadata:s:t mimetype=image/png"],
        Exact, &[]),
    case(Tracks, "subtitles.mp4",
        &["-i @moov-last.mp4 -i @subtitles.srt -map 0 -map 1 -c:v copy -c:s mov_text"], Exact,
        &[Says("codec_name=mov_text")]),
    case(Tracks, "subtitles.mkv",
        &["-i @moov-last.mp4 -i @subtitles.srt -map 1 -map 0 -c:v copy -c:s srt"], Exact,
        &[Says("codec_name=subrip")]),
    case(Tracks, "vobsub.mkv",
        &["-i @moov-last.mp4 -fix_sub_duration -i @bitmaps.sup -map 0 -map 1 -c:v copy",
            "-c:s dvdsub -s:s 160x120"], Exact, &[Says("codec_name=dvd_subtitle")]),
    case(Tracks, "vobsub.mp4", &["-i @vobsub.mkv -map 0 -c copy"], Exact,
        &[Says("codec_name=dvd_subtitle")]),
    case(Tracks, "vobsub-first.mp4", &["-i @vobsub.mkv -map 0:s -map 0:v -c copy"], Exact,
        &[Says("codec_name=dvd_subtitle")]),
    case(Tracks, "pgs.mkv",
        &["-i @moov-last.mp4 -i @bitmaps.sup -map 0 -map 1 -c copy"], Exact,
        &[Says("codec_name=hdmv_pgs_subtitle")]),
    case(Tracks, "dvbsub.ts",
        &["-i @moov-last.mp4 -i @bitmaps.sup -map 0 -map 1 -c:v copy -c:s dvbsub -s:s 160x120"],
        Exact, &[Says("codec_name=dvb_subtitle")]),
    case(Tracks, "timecode.mov", &[TEST, H264, "-timecode 01:00:00:00"], Exact,
        &[Says("codec_tag_string=tmcd")]),
    case(Tracks, "chapters.mp4",
        &["-i @moov-last.mp4 -i @chapters.txt -map_metadata 1 -map_chapters 1 -c copy"], Exact,
        &[Says("TAG:title=One")]),
    case(Tracks, "chapters.mkv",
        &["-i @moov-last.mp4 -i @chapters.txt -map_metadata 1 -map_chapters 1 -c copy"], Exact,
        &[Says("TAG:title=One")]),

    // Not videos, or not to be read. What ffmpeg makes of them without a key is not compared.
    case(Refused, "encrypted.mp4",
        &[TEST, H264, "-encryption_scheme cenc-aes-ctr",
            "-encryption_key 76a6c65c5ea762046bd749a2e632ccbb",
            "-encryption_kid a7e61c373e219033c21091fa607bf3b8"], Rejected("encrypted"), &[]),
    case(Refused, "animated.webp", &[TEST, "-t 0.5 -c:v libwebp_anim -pix_fmt yuv420p"],
        Rejected("image/webp"), &[]),
    case(Refused, "sound.mp4", &[SOUND, "-c:a aac"], Rejected("no video stream"), &[]),
    case(Refused, "sound.mkv", &[SOUND, "-c:a libvorbis"], Rejected("not a video"), &[]),
    case(Refused, "sound.webm", &[SOUND, "-c:a libopus"], Rejected("not a video"), &[]),
    case(Refused, "sound.mp3", &[SOUND, "-c:a libmp3lame"], Rejected("not a video"), &[]),
    case(Refused, "still.jpg", &[TEST, "-c:v mjpeg -pix_fmt yuvj420p -frames:v 1"],
        Rejected("image/jpeg"), &[]),
    case(Refused, "still.png", &[TEST, "-frames:v 1"], Rejected("image/png"), &[]),
    case(Refused, "cover-only.mp4",
        &[SOUND, "-i @cover.png -map 0 -map 1 -c:a aac -c:v copy -disposition:v attached_pic"],
        Rejected("no video stream"), &[]),
    case(Refused, "cover-only.mp3",
        &[SOUND, "-i @cover.png -map 0 -map 1 -c:a libmp3lame -c:v copy -id3v2_version 3",
            "-disposition:v attached_pic"], Rejected("not a video"), &[]),
];

const SUBTITLES: &[u8] = b"1\n00:00:00,200 --> 00:00:01,000\nOne\n\n\
    2\n00:00:01,200 --> 00:00:02,000\nTwo\n\n";

const CHAPTERS: &[u8] = b";FFMETADATA1\n\
    [CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=1000\ntitle=One\n\
    [CHAPTER]\nTIMEBASE=1/1000\nSTART=1000\nEND=2200\ntitle=Two\n";

/// A bitmap subtitle as on Blu-ray discs (PGS): 4x2 white pixels from 0.2 s to 1 s.
#[rustfmt::skip]
const BITMAPS: &[u8] = &[
    // What is shown at 0.2 s (18000 ticks): one object at 8, 8 in a picture of 160x120.
    b'P', b'G', 0, 0, 0x46, 0x50, 0, 0, 0, 0, 0x16, 0, 19, //
    0, 160, 0, 120, 0x10, 0, 0, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 8, 0, 8,
    // A window of 4x2.
    b'P', b'G', 0, 0, 0x46, 0x50, 0, 0, 0, 0, 0x17, 0, 10, //
    1, 0, 0, 8, 0, 8, 0, 4, 0, 2,
    // A palette: colour 1 is white.
    b'P', b'G', 0, 0, 0x46, 0x50, 0, 0, 0, 0, 0x14, 0, 7, //
    0, 0, 1, 235, 128, 128, 255,
    // The object: two lines of four pixels of colour 1.
    b'P', b'G', 0, 0, 0x46, 0x50, 0, 0, 0, 0, 0x15, 0, 23, //
    0, 0, 0, 0xc0, 0, 0, 16, 0, 4, 0, 2, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 0, 0,
    b'P', b'G', 0, 0, 0x46, 0x50, 0, 0, 0, 0, 0x80, 0, 0,
    // Nothing is shown from 1 s (90000 ticks).
    b'P', b'G', 0, 1, 0x5f, 0x90, 0, 0, 0, 0, 0x16, 0, 11, //
    0, 160, 0, 120, 0x10, 0, 1, 0, 0, 0, 0, //
    b'P', b'G', 0, 1, 0x5f, 0x90, 0, 0, 0, 0, 0x17, 0, 10, //
    1, 0, 0, 8, 0, 8, 0, 4, 0, 2, //
    b'P', b'G', 0, 1, 0x5f, 0x90, 0, 0, 0, 0, 0x80, 0, 0,
];
