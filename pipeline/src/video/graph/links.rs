//! Links the elements of a graph as its streams appear. The demultiplexer's threads call it.

use super::elements::{caps_of, decoder_of, parser, sink_caps, sink_pad};
use super::{DEINTERLACE, HeldPad, Output};
use crate::video::facts::Facts;
use crate::video::{VideoError, lock, media_type};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

/// The state with which the pipeline's threads link elements.
pub(super) struct Links {
    pub(super) facts: Facts,
    pub(super) output: Output,
    pub(super) pipeline: gst::glib::WeakRef<gst::Pipeline>,
    pub(super) sink: gst_app::AppSink,
    /// Receives the pad at which the first packet waits, if it is to wait.
    pub(super) hold: Option<Mutex<Sender<HeldPad>>>,
    pub(super) found: Mutex<FoundStreams>,
}

/// The streams of a file, as far as the demultiplexer has announced them.
#[derive(Default)]
pub(super) struct FoundStreams {
    /// Pads of video streams, in the demultiplexer's order.
    pub(super) pads: Vec<gst::Pad>,
    pub(super) is_encrypted: bool,
    /// The result of linking the chosen stream, once one is chosen.
    pub(super) chosen: Option<Result<(), VideoError>>,
}

impl Links {
    /// Links a stream of `demuxer` as soon as it appears.
    pub(super) fn connect_demuxer(links: &Arc<Self>, demuxer: &gst::Element) {
        if let Some(pad) = demuxer.static_pad("src") {
            // The stream's type is known with its caps.
            let links = Arc::clone(links);
            on_first_caps(&pad, move |pad, caps| {
                lock(&links.found).pads.push(pad.clone());
                links.choose(pad, caps);
                pass_stream_start(pad);
            });
            return;
        }
        // In these containers all pads exist before any data, and one may be marked as the default.
        // In others, pads appear as their streams begin.
        let takes_first = !matches!(
            links.facts.media(),
            "video/quicktime"
                | "application/x-3gp"
                | "audio/x-m4a"
                | "video/mj2"
                | "video/x-matroska"
                | "video/webm"
                | "video/x-msvideo"
                | "video/x-ms-asf"
                | "application/ogg"
        );
        demuxer.connect_pad_added({
            let links = Arc::clone(links);
            move |_, pad| links.add_pad(pad, takes_first)
        });
        demuxer.connect_no_more_pads({
            let links = Arc::clone(links);
            move |_| links.choose_default()
        });
    }

    fn add_pad(&self, pad: &gst::Pad, takes_first: bool) {
        if pad.direction() != gst::PadDirection::Src {
            return;
        }
        let caps = caps_of(pad);
        let media = media_type(&caps);
        let mut found = lock(&self.found);
        // ISO/IEC 23001-7 and WebM's encryption.
        if matches!(
            media,
            "application/x-cenc" | "application/x-cbcs" | "application/x-webm-enc"
        ) {
            found.is_encrypted = true;
        }
        // Motion JPEG and the like are image types.
        if !media.starts_with("video/") && !media.starts_with("image/") {
            return;
        }
        found.pads.push(pad.clone());
        let is_first = takes_first && found.chosen.is_none();
        drop(found);
        if is_first {
            self.choose(pad, &caps);
        }
    }

    fn choose_default(&self) {
        let found = lock(&self.found);
        if found.chosen.is_some() {
            return;
        }
        let chosen = default_stream(&found.pads);
        let error = if found.is_encrypted {
            VideoError::Encrypted
        } else {
            VideoError::NoVideo
        };
        drop(found);
        match chosen {
            Some(pad) => self.choose(&pad, &caps_of(&pad)),
            None => lock(&self.found).chosen = Some(Err(error)),
        }
    }

    fn choose(&self, pad: &gst::Pad, caps: &gst::CapsRef) {
        let result = self.link_to_sink(pad, caps);
        lock(&self.found).chosen = Some(result);
    }

    /// Links `pad` of `caps` to the sink, through a parser and a decoder where they are needed.
    fn link_to_sink(&self, pad: &gst::Pad, caps: &gst::CapsRef) -> Result<(), VideoError> {
        let Some(pipeline) = self.pipeline.upgrade() else {
            return Ok(());
        };
        if let Some(hold) = &self.hold {
            let hold = Mutex::new(lock(hold).clone());
            pad.add_probe(
                gst::PadProbeType::BLOCK | gst::PadProbeType::BUFFER,
                move |pad, info| {
                    // The receiver is gone after the first time, or when the decoder was dropped.
                    if let Some(id) = info.id.take() {
                        let _ = lock(&hold).send((pad.clone(), id));
                    }
                    gst::PadProbeReturn::Ok
                },
            );
        }
        let corrected = corrected_caps(&self.facts.program_video, self.facts.codec_tag, caps);
        let caps = corrected.unwrap_or_else(|| caps.to_owned());
        self.correct_caps(pad);
        let mut chain = Vec::new();
        let mut decoder = None;
        if media_type(&caps) != "video/x-raw" {
            if !self.bypasses_parser(&caps) {
                let parser = parser(&caps)
                    .map(|factory| factory.create().build())
                    .transpose();
                chain.extend(parser.map_err(VideoError::setup)?);
            }
            let factory = decoder_of(&caps).ok_or_else(|| VideoError::NoDecoder {
                codec: media_type(&caps).to_owned(),
            })?;
            match &self.output {
                Output::Packets => self.sink.set_caps(Some(&sink_caps(&factory))),
                Output::Frames(prepare) => {
                    let element = factory.create().build().map_err(VideoError::setup)?;
                    prepare(&element, &self.facts);
                    decoder = element.static_pad("src");
                    chain.push(element);
                }
            }
        }
        pipeline.add_many(&chain).map_err(VideoError::setup)?;
        let sink = self.sink.upcast_ref::<gst::Element>();
        let elements: Vec<&gst::Element> = chain.iter().chain([sink]).collect();
        gst::Element::link_many(elements.iter().copied()).map_err(VideoError::setup)?;
        for element in chain.iter().rev() {
            element
                .sync_state_with_parent()
                .map_err(VideoError::setup)?;
        }
        if matches!(self.output, Output::Frames(_)) {
            let raw = decoder.unwrap_or_else(|| pad.clone());
            let sink = self.sink.clone();
            on_first_caps(&raw, move |pad, caps| deinterlace(pad, caps, &sink));
        }
        // The caps of the pad may be wrong: they are corrected as they pass.
        let first = sink_pad(elements[0])?;
        pad.link_full(&first, gst::PadLinkCheck::empty())
            .map(drop)
            .map_err(VideoError::setup)
    }

    /// Whether packets go to the decoder as the container stores them. GStreamer's MPEG-4 parser
    /// splits packed B-frames, which libav's decoder expects whole: its workarounds for old
    /// encoders then go wrong.
    fn bypasses_parser(&self, caps: &gst::CapsRef) -> bool {
        let has_packets = !matches!(self.facts.media(), "video/mpegts" | "video/mpeg");
        let is_mpeg4 = caps
            .structure(0)
            .is_some_and(|structure| match structure.name().as_str() {
                "video/mpeg" => structure.get::<i32>("mpegversion") == Ok(4),
                "video/x-divx" => true,
                _ => false,
            });
        has_packets && is_mpeg4
    }

    /// Corrects the caps that pass through `pad`.
    fn correct_caps(&self, pad: &gst::Pad) {
        let program_video = self.facts.program_video.clone();
        let codec_tag = self.facts.codec_tag;
        pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            let caps = match info.event().map(|event| event.view()) {
                Some(gst::EventView::Caps(event)) => {
                    corrected_caps(&program_video, codec_tag, event.caps())
                }
                _ => None,
            };
            if let Some(caps) = caps {
                info.data = Some(gst::PadProbeData::Event(gst::event::Caps::new(&caps)));
            }
            gst::PadProbeReturn::Ok
        });
    }
}

/// Returns what a demultiplexer's `caps` should be; none if they are right.
fn corrected_caps(
    program_video: &Option<gst::Caps>,
    codec_tag: Option<[u8; 4]>,
    caps: &gst::CapsRef,
) -> Option<gst::Caps> {
    let structure = caps.structure(0)?;
    match structure.name().as_str() {
        "video/mpeg" if program_video.is_some() => program_video.clone(),
        // This type makes libav's decoder assume the encoder DivX 4, which is true of one tag only.
        "video/x-divx"
            if structure
                .get::<i32>("divxversion")
                .is_ok_and(|version| version > 3)
                && codec_tag.is_some_and(|tag| !tag.eq_ignore_ascii_case(b"DIVX")) =>
        {
            let mut mpeg4 = caps.to_owned();
            for structure in mpeg4.make_mut().iter_mut() {
                structure.set_name("video/mpeg");
                structure.remove_field("divxversion");
                structure.set("mpegversion", 4i32);
                structure.set("systemstream", false);
            }
            Some(mpeg4)
        }
        // The alpha channel is a second stream beside this one, and is not used.
        _ if structure.has_field("codec-alpha") => {
            let mut opaque = caps.to_owned();
            opaque
                .make_mut()
                .iter_mut()
                .for_each(|structure| structure.remove_field("codec-alpha"));
            Some(opaque)
        }
        _ => None,
    }
}

/// Returns the video stream that the container marks as the default, else the first.
fn default_stream(pads: &[gst::Pad]) -> Option<gst::Pad> {
    let flags = |pad: &gst::Pad| {
        let start = pad.sticky_event::<gst::event::StreamStart>(0);
        start.map_or(gst::StreamFlags::empty(), |start| start.stream_flags())
    };
    let is_default = |pad: &&gst::Pad| flags(pad).contains(gst::StreamFlags::SELECT);
    let is_shown = |pad: &&gst::Pad| !flags(pad).contains(gst::StreamFlags::UNSELECT);
    pads.iter()
        .find(is_default)
        .or_else(|| pads.iter().find(is_shown))
        .or(pads.first())
        .cloned()
}

/// Calls `then` when the first caps are about to pass through `pad`.
fn on_first_caps(pad: &gst::Pad, then: impl Fn(&gst::Pad, &gst::CapsRef) + Send + Sync + 'static) {
    pad.add_probe(
        gst::PadProbeType::EVENT_DOWNSTREAM,
        move |pad, info| match info.event().map(|event| event.view()) {
            Some(gst::EventView::Caps(event)) => {
                then(pad, event.caps());
                gst::PadProbeReturn::Remove
            }
            _ => gst::PadProbeReturn::Ok,
        },
    );
}

/// Sends the stream-start event of `pad` to the peer that it has just been linked to: it comes
/// before the caps, during which `pad` was linked.
fn pass_stream_start(pad: &gst::Pad) {
    if let Some((peer, start)) = pad
        .peer()
        .zip(pad.sticky_event::<gst::event::StreamStart>(0))
    {
        peer.send_event(start);
    }
}

/// Inserts a deinterlacer between `pad`, whose caps are about to be `caps`, and `sink` if the
/// stream is interlaced. The top field of each frame is kept, and GStreamer's `deinterlace` makes
/// the missing lines.
fn deinterlace(pad: &gst::Pad, caps: &gst::CapsRef, sink: &gst_app::AppSink) {
    let mode = caps
        .structure(0)
        .and_then(|structure| structure.get::<&str>("interlace-mode").ok());
    if mode.is_none_or(|mode| mode == "progressive") {
        return;
    }
    let Some(pipeline) = sink.parent().and_downcast::<gst::Pipeline>() else {
        return;
    };
    let insert = || -> Result<(), VideoError> {
        let factory = gst::ElementFactory::make("deinterlace").name(DEINTERLACE);
        let element = factory
            .property_from_str("fields", "top")
            .build()
            .map_err(VideoError::setup)?;
        pipeline.add(&element).map_err(VideoError::setup)?;
        let peer = sink_pad(sink.upcast_ref())?;
        pad.unlink(&peer).map_err(VideoError::setup)?;
        element.link(sink).map_err(VideoError::setup)?;
        element
            .sync_state_with_parent()
            .map_err(VideoError::setup)?;
        pad.link(&sink_pad(&element)?).map_err(VideoError::setup)?;
        pass_stream_start(pad);
        Ok(())
    };
    if let Err(error) = insert() {
        gst::element_error!(sink, gst::StreamError::Failed, ("{error}"));
    }
}
