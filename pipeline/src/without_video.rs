//! What takes the place of [`crate::video`] and [`crate::live`] where the feature `video` is off:
//! there are no live videos, and H.264 is not decoded. The rest of the crate does not know.

pub mod video {
    //! The errors of the real module, and its H.264 codec, which is not there.

    /// An error of a clip's payload.
    #[derive(Debug, Clone, thiserror::Error)]
    pub enum VideoError {
        /// GStreamer is not part of this build.
        #[error("{reason}")]
        Setup {
            /// What was wanted of it.
            reason: String,
        },
        /// The payload does not hold the frames that it should.
        #[error("a frame cannot be converted: {reason}")]
        Frame {
            /// Reason.
            reason: String,
        },
    }

    pub(crate) mod gop {
        use super::VideoError;
        use crate::frames::Color;
        use schemas::geometry::FrameSize;

        fn missing() -> VideoError {
            VideoError::Setup {
                reason: "H.264 needs GStreamer, without which this program was built: build it \
                         with the feature `video`, or shards with --payload i420-delta"
                    .to_owned(),
            }
        }

        /// A decoder that cannot be made.
        #[derive(Debug)]
        pub(crate) enum GopDecoder {}

        impl GopDecoder {
            pub(crate) fn new() -> Result<Self, VideoError> {
                Err(missing())
            }

            pub(crate) fn decode(
                &mut self,
                _: &[u8],
                _: FrameSize,
                _: usize,
                _: &mut Vec<u8>,
            ) -> Result<(), VideoError> {
                match *self {}
            }
        }

        pub(crate) fn encode_gop(
            _: &[u8],
            _: FrameSize,
            _: Color,
            _: u32,
        ) -> Result<Vec<u8>, VideoError> {
            Err(missing())
        }
    }
}

pub mod live {
    //! Data sets of videos, of which there are none.

    use crate::frames::Frames;
    use schemas::geometry::FrameSize;
    use schemas::manifest::Sampling;
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    /// An error that does not occur.
    #[derive(Debug, thiserror::Error)]
    pub enum LiveError {}

    impl LiveError {
        /// Whether it concerns one clip only.
        pub const fn is_of_one_clip(&self) -> bool {
            match *self {}
        }
    }

    /// A data set that cannot be opened.
    #[derive(Debug)]
    pub enum LiveSet {}

    /// A clip of it.
    pub(crate) struct LiveClip {
        pub(crate) frames: usize,
        pub(crate) size: FrameSize,
    }

    /// Options of it.
    pub(crate) struct LiveOptions {
        pub(crate) sampling: Sampling,
        pub(crate) stride: u32,
    }

    impl LiveSet {
        pub(crate) const fn len(&self) -> usize {
            match *self {}
        }

        pub(crate) const fn inputs(&self) -> &[PathBuf] {
            match *self {}
        }

        pub(crate) fn identities(&self) -> std::iter::Empty<(String, u64, usize)> {
            match *self {}
        }

        pub(crate) const fn clip(&self, _: usize) -> LiveClip {
            match *self {}
        }

        pub(crate) fn name(&self, _: usize) -> String {
            match *self {}
        }

        pub(crate) const fn origin(&self, _: usize) -> (usize, [f64; 2]) {
            match *self {}
        }

        pub(crate) const fn whole_frames(&self, _: usize) -> usize {
            match *self {}
        }

        pub(crate) const fn options(&self) -> &LiveOptions {
            match *self {}
        }
    }

    /// A reader of no clips.
    #[derive(Debug)]
    pub(crate) struct LiveReader;

    impl LiveReader {
        pub(crate) fn new(_: Arc<AtomicBool>) -> Self {
            Self
        }

        pub(crate) fn windows(
            &mut self,
            set: &LiveSet,
            _: usize,
            _: &[usize],
        ) -> Result<(), LiveError> {
            match *set {}
        }

        pub(crate) fn frames(&self, _: usize) -> Frames<'_> {
            unreachable!("there are no windows")
        }
    }
}
