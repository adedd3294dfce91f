//! Videos that are decoded when a batch wants them. Without the feature `video` there are none.

#[cfg(not(feature = "video"))]
use crate::errors::{Kind, raise};
use pipeline::source::Source;
use pyo3::prelude::*;
use std::path::{Path, PathBuf};

/// How clips are made of videos.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
#[cfg_attr(not(feature = "video"), expect(dead_code, reason = "for videos only"))]
pub struct Live {
    /// Frames of a training clip.
    frames: usize,
    /// Ticks per second of the grid that frames are taken from.
    fps: f64,
    /// Ticks from one frame of a clip to the next.
    stride: u32,
    /// The interpreter, which runs the processes that decode.
    python: PathBuf,
}

/// Opens the videos at `path`.
#[cfg(feature = "video")]
pub fn open(py: Python<'_>, path: &Path, live: &Live) -> PyResult<Source> {
    use crate::errors::{Kind, raise};
    use pipeline::live::{LiveError, LiveOptions, LiveSet, LiveSpan};
    use pipeline::worker::WorkerProgram;
    use schemas::manifest::Sampling;

    let options = LiveOptions {
        sampling: Sampling::TicksPerSecond(live.fps),
        stride: live.stride,
        frames: live.frames,
        span: LiveSpan::Clip,
        ..LiveOptions::new(WorkerProgram {
            path: live.python.clone(),
            argument: "-mclipfeed._worker".to_owned(),
        })
    };
    let opened = py.detach(|| LiveSet::open(&[path.to_owned()], options, |_, _| ()));
    let set = opened.map_err(|error| {
        let kind = match error {
            LiveError::Option(_) => Kind::Option,
            _ => Kind::Data,
        };
        raise(py, kind, &error.to_string())
    })?;
    if set.is_empty() {
        let path = path.display();
        let reasons = set.rejected().iter().take(3);
        let reasons: String = reasons
            .map(|one| format!("; {}: {}", one.path, one.reason))
            .collect();
        let message = format!("{path} holds no video that can be decoded{reasons}");
        return Err(raise(py, Kind::Data, &message));
    }
    Ok(Source::Live(set))
}

/// Videos cannot be opened.
#[cfg(not(feature = "video"))]
pub fn open(py: Python<'_>, path: &Path, _: &Live) -> PyResult<Source> {
    let message = format!(
        "{} holds no shards: build them with clipfeed.build or `shardtool build`. (Videos are read \
         directly where clipfeed is installed with its feature `video`, which needs GStreamer: pip \
         install ./python --config-settings=build-args=\"--features video\")",
        path.display()
    );
    Err(raise(py, Kind::Data, &message))
}

/// The body of a process that decodes.
#[pyfunction]
pub fn decode(py: Python<'_>) -> PyResult<()> {
    #[cfg(feature = "video")]
    return py
        .detach(pipeline::live::worker::run)
        .map_err(|error| pyo3::exceptions::PyRuntimeError::new_err(error.to_string()));
    #[cfg(not(feature = "video"))]
    {
        let _ = py;
        Ok(())
    }
}
