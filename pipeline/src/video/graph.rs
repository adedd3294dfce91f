//! The elements between a file and what is wanted of it, packets or frames: one graph for probing,
//! decoding and seeking, so that they see the same.
//!
//! ```text
//! file ! typefind ! demultiplexer ! [parser] ! [decoder ! [deinterlace]] ! appsink
//! ```
//!
//! GStreamer's own `decodebin` is not used: it hides what the container says of the stream, refuses a file
//! for a stream that nobody wants (pictures of subtitles), and chooses decoders that cannot say what is
//! damaged. Here, only the chosen video is linked, and decoders are libav's where it has a good one: they
//! report broken packets, and their frames are those of the ffmpeg command line to the bit.

use super::facts::Facts;
use super::{RunningPipeline, VideoError, lock, media_type, spliced};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

/// Name of the element that deinterlaces, where there is one.
const DEINTERLACE: &str = "deinterlacer";

/// Packets or frames that wait for the reader, at most.
const QUEUED_PACKETS: u32 = 64;
const QUEUED_FRAMES: u32 = 4;

/// Where a packet waits until a seek is done: the pad, and the probe that holds it.
pub(super) type Held = (gst::Pad, gst::PadProbeId);

/// Prepares a decoder before it is given anything, by what is known of the file.
pub(super) type Prepare = Box<dyn Fn(&gst::Element, &Facts) + Send + Sync>;

/// What a graph ends in.
pub(super) enum Until {
    /// Packets, as the decoder would be given them.
    Packets,
    /// Frames of a decoder that has been prepared.
    Frames(Prepare),
}

/// The graph of one file, started by its user ([`RunningPipeline::start`]).
pub(super) struct Graph {
    pub(super) pipeline: RunningPipeline,
    pub(super) sink: gst_app::AppSink,
    /// Whether the file is a bare stream: its packets have no times of their own.
    pub(super) is_elementary: bool,
    links: Arc<Links>,
}

/// What the pipeline's own threads link.
struct Links {
    facts: Facts,
    until: Until,
    pipeline: gst::glib::WeakRef<gst::Pipeline>,
    sink: gst_app::AppSink,
    /// Where the first packet is to wait.
    holds: Option<Mutex<Sender<Held>>>,
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    /// Pads of video, in the demultiplexer's order.
    pads: Vec<gst::Pad>,
    is_encrypted: bool,
    /// What became of the choice among the pads, once it is made.
    chosen: Option<Result<(), VideoError>>,
}

impl Graph {
    /// The graph of the file at `path`, up to `until`. If there is a `hold`, the first packet waits, and
    /// word of it is sent.
    ///
    /// # Errors
    /// [`VideoError::Setup`] when GStreamer or its plugins are missing, [`VideoError::Stream`] when the
    /// file cannot be read or is of no known type.
    pub(super) fn new(path: &Path, until: Until, hold: Option<Sender<Held>>) -> Result<Self, VideoError> {
        let unreadable = |message: String| VideoError::Stream { element: String::new(), message };
        let mut facts = Facts::of(path)
            .map_err(|error| unreadable(crate::video::discover::io_reason(&error)))?
            .ok_or_else(|| unreadable("its content is of no known type".to_owned()))?;
        if facts.is_encrypted {
            return Err(VideoError::Encrypted);
        }
        let factory = demultiplexer(&facts.caps).ok_or_else(|| VideoError::NoDecoder { codec: facts.media().to_owned() })?;
        let is_elementary = factory.has_type(gst::ElementFactoryType::PARSER);
        let demuxer = factory.create().build().map_err(VideoError::setup)?;
        let pipeline = RunningPipeline(gst::Pipeline::new());
        let source = if facts.edits.is_empty() {
            let source = gst::ElementFactory::make("filesrc").property("location", path);
            source.build().map_err(VideoError::setup)?
        } else {
            spliced::source(path, std::mem::take(&mut facts.edits))?
        };
        // It tells elements that parse a bare stream what it is.
        let typefind = make("typefind")?;
        typefind.set_property("force-caps", &facts.caps);
        let sink = sink_of(&until);
        let pipeline_elements = [&source, &typefind, &demuxer, sink.upcast_ref()];
        pipeline.0.add_many(pipeline_elements).map_err(VideoError::setup)?;
        gst::Element::link_many([&source, &typefind, &demuxer]).map_err(VideoError::setup)?;
        let links = Arc::new(Links {
            facts,
            until,
            pipeline: pipeline.0.downgrade(),
            sink: sink.clone(),
            holds: hold.map(Mutex::new),
            found: Mutex::default(),
        });
        Links::follow(&links, &demuxer);
        Ok(Self { pipeline, sink, is_elementary, links })
    }

    /// Why there is no more, once that is known: no stream is linked, or an element has failed.
    pub(super) fn failure(&self) -> Option<VideoError> {
        let found = lock(&self.links.found);
        if let Some(Err(error)) = &found.chosen {
            return Some(error.clone());
        }
        let error = self.pipeline.bus_error()?;
        // What is not linked lets a demultiplexer fail with an error that says less.
        let is_encrypted = found.is_encrypted && found.chosen.is_none();
        Some(if is_encrypted { VideoError::Encrypted } else { error })
    }

    /// Streams of video that were found.
    pub(super) fn streams(&self) -> usize {
        lock(&self.links.found).pads.len()
    }

    /// Whether the stream is interlaced, and its frames are made from fields; known with the first frame.
    pub(super) fn is_deinterlaced(&self) -> bool {
        self.pipeline.0.by_name(DEINTERLACE).is_some()
    }
}

impl Links {
    /// Links what `demuxer` gives, as soon as it does.
    fn follow(links: &Arc<Self>, demuxer: &gst::Element) {
        if let Some(pad) = demuxer.static_pad("src") {
            // What comes is known with its caps.
            let links = Arc::clone(links);
            on_first_caps(&pad, move |pad, caps| {
                lock(&links.found).pads.push(pad.clone());
                links.choose(pad, caps);
                pass_stream_start(pad);
            });
            return;
        }
        // In these containers all pads are there before any data, and one may be marked as the default.
        // In others, streams come as they are met.
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
            move |_, pad| links.see(pad, takes_first)
        });
        demuxer.connect_no_more_pads({
            let links = Arc::clone(links);
            move |_| links.choose_default()
        });
    }

    fn see(&self, pad: &gst::Pad, takes_first: bool) {
        if pad.direction() != gst::PadDirection::Src {
            return;
        }
        let caps = caps_of(pad);
        let media = media_type(&caps);
        let mut found = lock(&self.found);
        // ISO/IEC 23001-7 and WebM's encryption.
        if matches!(media, "application/x-cenc" | "application/x-cbcs" | "application/x-webm-enc") {
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
        let error = if found.is_encrypted { VideoError::Encrypted } else { VideoError::NoVideo };
        drop(found);
        match chosen {
            Some(pad) => self.choose(&pad, &caps_of(&pad)),
            None => lock(&self.found).chosen = Some(Err(error)),
        }
    }

    fn choose(&self, pad: &gst::Pad, caps: &gst::CapsRef) {
        let result = self.connect(pad, caps);
        lock(&self.found).chosen = Some(result);
    }

    /// Links `pad`, which gives `caps`, to the sink.
    fn connect(&self, pad: &gst::Pad, caps: &gst::CapsRef) -> Result<(), VideoError> {
        let Some(pipeline) = self.pipeline.upgrade() else { return Ok(()) };
        if let Some(holds) = &self.holds {
            let holds = Mutex::new(lock(holds).clone());
            pad.add_probe(gst::PadProbeType::BLOCK | gst::PadProbeType::BUFFER, move |pad, info| {
                // Nobody listens any more after the first time, or when the decoder was dropped.
                if let Some(id) = info.id.take() {
                    let _ = lock(&holds).send((pad.clone(), id));
                }
                gst::PadProbeReturn::Ok
            });
        }
        let caps = adapted(&self.facts, caps).unwrap_or_else(|| caps.to_owned());
        self.adapt(pad);
        let mut chain = Vec::new();
        let mut decoder = None;
        if media_type(&caps) != "video/x-raw" {
            if !self.is_decoded_as_it_lies(&caps) {
                let parser = parser(&caps).map(|factory| factory.create().build()).transpose();
                chain.extend(parser.map_err(VideoError::setup)?);
            }
            let factory = decoder_of(&caps).ok_or_else(|| VideoError::NoDecoder { codec: media_type(&caps).to_owned() })?;
            match &self.until {
                Until::Packets => self.sink.set_caps(Some(&sink_caps(&factory))),
                Until::Frames(prepare) => {
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
            element.sync_state_with_parent().map_err(VideoError::setup)?;
        }
        if matches!(self.until, Until::Frames(_)) {
            let raw = decoder.unwrap_or_else(|| pad.clone());
            let sink = self.sink.clone();
            on_first_caps(&raw, move |pad, caps| deinterlace(pad, caps, &sink));
        }
        // What the stream is said to be may be wrong: its caps are adapted as they pass.
        let first = sink_pad(elements[0])?;
        pad.link_full(&first, gst::PadLinkCheck::empty()).map(drop).map_err(VideoError::setup)
    }

    /// Whether packets go to the decoder as the container has them. GStreamer's parser of MPEG-4 takes packed
    /// B-frames apart, which libav's decoder expects whole: its workarounds for old encoders then go wrong.
    fn is_decoded_as_it_lies(&self, caps: &gst::CapsRef) -> bool {
        let has_packets = !matches!(self.facts.media(), "video/mpegts" | "video/mpeg");
        let is_mpeg4 = caps.structure(0).is_some_and(|structure| match structure.name().as_str() {
            "video/mpeg" => structure.get::<i32>("mpegversion") == Ok(4),
            "video/x-divx" => true,
            _ => false,
        });
        has_packets && is_mpeg4
    }

    /// Adapts the caps that pass through `pad`.
    fn adapt(&self, pad: &gst::Pad) {
        let program_video = self.facts.program_video.clone();
        let codec_tag = self.facts.codec_tag;
        pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            let caps = match info.event().map(|event| event.view()) {
                Some(gst::EventView::Caps(event)) => adapted_to(&program_video, codec_tag, event.caps()),
                _ => None,
            };
            if let Some(caps) = caps {
                info.data = Some(gst::PadProbeData::Event(gst::event::Caps::new(&caps)));
            }
            gst::PadProbeReturn::Ok
        });
    }
}

fn adapted(facts: &Facts, caps: &gst::CapsRef) -> Option<gst::Caps> {
    adapted_to(&facts.program_video, facts.codec_tag, caps)
}

/// What a demultiplexer's `caps` should say; none where they are right.
fn adapted_to(program_video: &Option<gst::Caps>, codec_tag: Option<[u8; 4]>, caps: &gst::CapsRef) -> Option<gst::Caps> {
    let structure = caps.structure(0)?;
    match structure.name().as_str() {
        "video/mpeg" if program_video.is_some() => program_video.clone(),
        // libav's decoder is told that the encoder was DivX 4 by this type, which holds for one tag only.
        "video/x-divx"
            if structure.get::<i32>("divxversion").is_ok_and(|version| version > 3)
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
        // The alpha channel is a second stream beside this one, and is not wanted.
        _ if structure.has_field("codec-alpha") => {
            let mut opaque = caps.to_owned();
            opaque.make_mut().iter_mut().for_each(|structure| structure.remove_field("codec-alpha"));
            Some(opaque)
        }
        _ => None,
    }
}

/// The video stream that the container marks as the one to show, else the first.
fn default_stream(pads: &[gst::Pad]) -> Option<gst::Pad> {
    let flags = |pad: &gst::Pad| {
        let start = pad.sticky_event::<gst::event::StreamStart>(0);
        start.map_or(gst::StreamFlags::empty(), |start| start.stream_flags())
    };
    let is_default = |pad: &&gst::Pad| flags(pad).contains(gst::StreamFlags::SELECT);
    let is_shown = |pad: &&gst::Pad| !flags(pad).contains(gst::StreamFlags::UNSELECT);
    pads.iter().find(is_default).or_else(|| pads.iter().find(is_shown)).or(pads.first()).cloned()
}

/// Calls `then` when the first caps are about to pass through `pad`.
fn on_first_caps(pad: &gst::Pad, then: impl Fn(&gst::Pad, &gst::CapsRef) + Send + Sync + 'static) {
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |pad, info| match info.event().map(|event| event.view()) {
        Some(gst::EventView::Caps(event)) => {
            then(pad, event.caps());
            gst::PadProbeReturn::Remove
        }
        _ => gst::PadProbeReturn::Ok,
    });
}

/// Tells whom `pad` has just been linked to, in the middle of its caps, what should have come before them.
fn pass_stream_start(pad: &gst::Pad) {
    if let Some((peer, start)) = pad.peer().zip(pad.sticky_event::<gst::event::StreamStart>(0)) {
        peer.send_event(start);
    }
}

/// Puts a deinterlacer between `pad`, which is about to give `caps`, and `sink`, where fields come: of each
/// frame the top field is kept, and its missing lines are made by GStreamer's `deinterlace`.
fn deinterlace(pad: &gst::Pad, caps: &gst::CapsRef, sink: &gst_app::AppSink) {
    let mode = caps.structure(0).and_then(|structure| structure.get::<&str>("interlace-mode").ok());
    if mode.is_none_or(|mode| mode == "progressive") {
        return;
    }
    let Some(pipeline) = sink.parent().and_downcast::<gst::Pipeline>() else { return };
    let inserted = || -> Result<(), VideoError> {
        let factory = gst::ElementFactory::make("deinterlace").name(DEINTERLACE);
        let element = factory.property_from_str("fields", "top").build().map_err(VideoError::setup)?;
        pipeline.add(&element).map_err(VideoError::setup)?;
        let peer = sink_pad(sink.upcast_ref())?;
        pad.unlink(&peer).map_err(VideoError::setup)?;
        element.link(sink).map_err(VideoError::setup)?;
        element.sync_state_with_parent().map_err(VideoError::setup)?;
        pad.link(&sink_pad(&element)?).map_err(VideoError::setup)?;
        pass_stream_start(pad);
        Ok(())
    };
    if let Err(error) = inserted() {
        gst::element_error!(sink, gst::StreamError::Failed, ("{error}"));
    }
}

fn make(name: &str) -> Result<gst::Element, VideoError> {
    gst::ElementFactory::make(name).build().map_err(VideoError::setup)
}

fn sink_pad(element: &gst::Element) -> Result<gst::Pad, VideoError> {
    element.static_pad("sink").ok_or_else(|| VideoError::setup("an element without a sink pad"))
}

fn caps_of(pad: &gst::Pad) -> gst::Caps {
    pad.current_caps().unwrap_or_else(|| pad.query_caps(None))
}

/// The sink of a graph: of packets of any kind, or of frames in the system's memory.
fn sink_of(until: &Until) -> gst_app::AppSink {
    let builder = gst_app::AppSink::builder().sync(false);
    let sink = match until {
        Until::Packets => builder.max_buffers(QUEUED_PACKETS).build(),
        Until::Frames(_) => {
            let raw_video = gst::Caps::builder("video/x-raw").build();
            builder.caps(&raw_video).max_buffers(QUEUED_FRAMES).build()
        }
    };
    sink.set_property("enable-last-sample", false);
    sink
}

/// Installed elements of a kind that take some of `caps`, the most wanted first.
fn factories(kind: gst::ElementFactoryType, caps: &gst::CapsRef) -> Vec<gst::ElementFactory> {
    let all = gst::ElementFactory::factories_with_type(kind, gst::Rank::MARGINAL);
    let mut fitting: Vec<_> = all.into_iter().filter(|factory| factory.can_sink_any_caps(caps)).collect();
    fitting.sort_by_key(|factory| (std::cmp::Reverse(factory.rank()), factory.name()));
    fitting
}

/// What takes a file of `caps` apart: a demultiplexer, or a parser of a bare stream.
fn demultiplexer(caps: &gst::CapsRef) -> Option<gst::ElementFactory> {
    let kinds = [gst::ElementFactoryType::DEMUXER, gst::ElementFactoryType::PARSER | gst::ElementFactoryType::MEDIA_VIDEO];
    kinds.into_iter().find_map(|kind| factories(kind, caps).into_iter().next())
}

/// What cuts a stream of `caps` into packets as decoders want them; none where they are that already, or
/// nothing has to.
fn parser(caps: &gst::CapsRef) -> Option<gst::ElementFactory> {
    let structure = caps.structure(0)?;
    let is_parsed = |field| structure.get::<bool>(field).unwrap_or(false);
    if is_parsed("parsed") || is_parsed("framed") {
        return None;
    }
    if structure.name() == "image/jpeg" {
        // Its rank is none in GStreamer 1.22, yet libav's decoder wants whole pictures.
        return gst::ElementFactory::find("jpegparse");
    }
    let kind = gst::ElementFactoryType::PARSER | gst::ElementFactoryType::MEDIA_VIDEO;
    factories(kind, caps).into_iter().next()
}

/// Decoders of libav that GStreamer would give to another library.
const PREFERRED: [&str; 3] = ["avdec_vp8", "avdec_vp9", "avdec_mjpeg"];

/// What decodes a stream of `caps`.
fn decoder_of(caps: &gst::CapsRef) -> Option<gst::ElementFactory> {
    let media = gst::ElementFactoryType::MEDIA_VIDEO | gst::ElementFactoryType::MEDIA_IMAGE;
    let mut all = factories(gst::ElementFactoryType::DECODER | media, caps);
    all.sort_by_key(|factory| !PREFERRED.contains(&factory.name().as_str()));
    all.into_iter().next()
}

/// All that elements of `factory` take.
fn sink_caps(factory: &gst::ElementFactory) -> gst::Caps {
    let templates = factory.static_pad_templates();
    let sinks = templates.iter().filter(|template| template.direction() == gst::PadDirection::Sink);
    let mut all = gst::Caps::new_empty();
    sinks.for_each(|template| all.merge(template.caps()));
    all
}
