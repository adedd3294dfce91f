//! The elements that are installed, and which of them a stream needs.

use super::{Output, QUEUED_FRAMES, QUEUED_PACKETS};
use crate::video::VideoError;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

pub(super) fn make(name: &str) -> Result<gst::Element, VideoError> {
    gst::ElementFactory::make(name)
        .build()
        .map_err(VideoError::setup)
}

pub(super) fn sink_pad(element: &gst::Element) -> Result<gst::Pad, VideoError> {
    element
        .static_pad("sink")
        .ok_or_else(|| VideoError::setup("an element without a sink pad"))
}

pub(super) fn caps_of(pad: &gst::Pad) -> gst::Caps {
    pad.current_caps().unwrap_or_else(|| pad.query_caps(None))
}

/// Creates the sink of a graph: of packets of any kind, or of frames in system memory.
pub(super) fn sink_for(output: &Output) -> gst_app::AppSink {
    let builder = gst_app::AppSink::builder().sync(false);
    let sink = match output {
        Output::Packets => builder.max_buffers(QUEUED_PACKETS).build(),
        Output::Frames(_) => {
            let raw_video = gst::Caps::builder("video/x-raw").build();
            builder.caps(&raw_video).max_buffers(QUEUED_FRAMES).build()
        }
    };
    sink.set_property("enable-last-sample", false);
    sink
}

/// Returns the installed elements of a kind that accept some of `caps`, the highest rank first.
fn factories(kind: gst::ElementFactoryType, caps: &gst::CapsRef) -> Vec<gst::ElementFactory> {
    let all = gst::ElementFactory::factories_with_type(kind, gst::Rank::MARGINAL);
    let mut fitting: Vec<_> = all
        .into_iter()
        .filter(|factory| factory.can_sink_any_caps(caps))
        .collect();
    fitting.sort_by_key(|factory| (std::cmp::Reverse(factory.rank()), factory.name()));
    fitting
}

/// Returns the element that demultiplexes a file of `caps`, or parses it if it is an elementary
/// stream.
pub(super) fn demultiplexer(caps: &gst::CapsRef) -> Option<gst::ElementFactory> {
    let kinds = [
        gst::ElementFactoryType::DEMUXER,
        gst::ElementFactoryType::PARSER | gst::ElementFactoryType::MEDIA_VIDEO,
    ];
    kinds
        .into_iter()
        .find_map(|kind| factories(kind, caps).into_iter().next())
}

/// Returns the parser that cuts a stream of `caps` into the packets that decoders expect; none if
/// the stream is parsed already, or needs no parser.
pub(super) fn parser(caps: &gst::CapsRef) -> Option<gst::ElementFactory> {
    let structure = caps.structure(0)?;
    let is_parsed = |field| structure.get::<bool>(field).unwrap_or(false);
    if is_parsed("parsed") || is_parsed("framed") {
        return None;
    }
    if structure.name() == "image/jpeg" {
        // Its rank is "none" in GStreamer 1.22, yet libav's decoder needs whole pictures.
        return gst::ElementFactory::find("jpegparse");
    }
    let kind = gst::ElementFactoryType::PARSER | gst::ElementFactoryType::MEDIA_VIDEO;
    factories(kind, caps).into_iter().next()
}

/// libav decoders that are preferred, though GStreamer ranks another library's higher.
const PREFERRED: [&str; 3] = ["avdec_vp8", "avdec_vp9", "avdec_mjpeg"];

/// Returns the decoder of a stream of `caps`.
pub(super) fn decoder_of(caps: &gst::CapsRef) -> Option<gst::ElementFactory> {
    let media = gst::ElementFactoryType::MEDIA_VIDEO | gst::ElementFactoryType::MEDIA_IMAGE;
    let mut all = factories(gst::ElementFactoryType::DECODER | media, caps);
    all.sort_by_key(|factory| !PREFERRED.contains(&factory.name().as_str()));
    all.into_iter().next()
}

/// Returns all caps that elements of `factory` accept.
pub(super) fn sink_caps(factory: &gst::ElementFactory) -> gst::Caps {
    let templates = factory.static_pad_templates();
    let sinks = templates
        .iter()
        .filter(|template| template.direction() == gst::PadDirection::Sink);
    let mut all = gst::Caps::new_empty();
    sinks.for_each(|template| all.merge(template.caps()));
    all
}
