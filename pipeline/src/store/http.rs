//! Watches every HTTP request: counts it, ends it when nothing moves any more, and keeps what the
//! answer said for [`super::failure`], since object_store's errors drop headers.

use super::lock;
use async_trait::async_trait;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService, ReqwestConnector,
};
use std::error::Error;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// A request without any progress for this long is given up.
const STALL: Duration = Duration::from_secs(30);

/// The environment variable, in seconds, that shortens [`STALL`].
const STALL_VARIABLE: &str = "STORE_STALL_SECONDS";

/// The slowest connection over which bodies can be sent: object_store does not say how far it is.
const SLOWEST_BYTES_PER_SECOND: u64 = 64 << 10;

/// Time to make a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// Error answers longer than this are not looked into.
const ANSWER_BYTES: u64 = 1 << 20;

/// What was requested since the process started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// HTTP requests, each repetition counted.
    pub requests: u64,
    /// Repetitions of what had failed.
    pub retries: u64,
    /// Calls that failed in the end.
    pub failures: u64,
    /// Bytes of the bodies that were received.
    pub bytes_read: u64,
    /// Bytes of the bodies that were sent and accepted.
    pub bytes_written: u64,
}

pub(super) static REQUESTS: AtomicU64 = AtomicU64::new(0);
pub(super) static RETRIES: AtomicU64 = AtomicU64::new(0);
pub(super) static FAILURES: AtomicU64 = AtomicU64::new(0);
static BYTES_READ: AtomicU64 = AtomicU64::new(0);
static BYTES_WRITTEN: AtomicU64 = AtomicU64::new(0);

/// Returns the counters of the process: callers take differences.
pub fn traffic() -> Traffic {
    Traffic {
        requests: REQUESTS.load(Relaxed),
        retries: RETRIES.load(Relaxed),
        failures: FAILURES.load(Relaxed),
        bytes_read: BYTES_READ.load(Relaxed),
        bytes_written: BYTES_WRITTEN.load(Relaxed),
    }
}

/// What the last request of an attempt met with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// Host that was asked: the store's, or one that gives credentials.
    pub host: String,
    /// Status, unless it was a success.
    pub status: Option<u16>,
    /// Header `x-amz-bucket-region`.
    pub region: Option<String>,
    /// Text of an answer that was no success.
    pub body: String,
    /// Why there was no whole answer.
    pub broken: Option<String>,
}

tokio::task_local! {
    /// The answer to the attempt that runs in this task.
    pub(super) static ANSWER: Arc<Mutex<Answer>>;
}

fn note(change: impl FnOnce(&mut Answer)) {
    // Without an attempt there is nobody who would read it.
    let _ = ANSWER.try_with(|answer| change(&mut lock(answer)));
}

/// Makes the clients of all stores.
#[derive(Debug)]
pub(super) struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        // A second installation fails and changes nothing, whoever made the first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Watched { inner }))
    }
}

/// Options for [`Connector`]: time limits are its own.
pub(super) fn options() -> ClientOptions {
    ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(CONNECT)
        .with_allow_http(true)
}

#[derive(Debug)]
struct Watched {
    inner: HttpClient,
}

#[async_trait]
impl HttpService for Watched {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        REQUESTS.fetch_add(1, Relaxed);
        let host = request.uri().host().unwrap_or_default().to_owned();
        note(|answer| {
            *answer = Answer {
                host,
                ..Answer::default()
            }
        });
        let sent = request.body().content_length() as u64;
        let limit = stall() + Duration::from_secs(sent / SLOWEST_BYTES_PER_SECOND);
        let response = match tokio::time::timeout(limit, self.inner.execute(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                note(|answer| answer.broken = Some(innermost(&error)));
                return Err(error);
            }
            Err(_) => return Err(stalled(limit)),
        };
        let (parts, body) = response.into_parts();
        let body = HttpResponseBody::new(WatchedBody {
            body,
            patience: Box::pin(tokio::time::sleep(stall())),
        });
        if parts.status.is_success() {
            BYTES_WRITTEN.fetch_add(sent, Relaxed);
            return Ok(HttpResponse::from_parts(parts, body));
        }
        let header = |name| parts.headers.get(name)?.to_str().ok().map(str::to_owned);
        let region = header("x-amz-bucket-region");
        note(|answer| {
            answer.status = Some(parts.status.as_u16());
            answer.region = region;
        });
        if body.size_hint().lower() > ANSWER_BYTES {
            return Ok(HttpResponse::from_parts(parts, body));
        }
        let bytes = body.bytes().await?;
        note(|answer| answer.body = String::from_utf8_lossy(&bytes).into_owned());
        Ok(HttpResponse::from_parts(parts, bytes.into()))
    }
}

/// A body that fails when nothing of it arrives for [`STALL`].
struct WatchedBody {
    body: HttpResponseBody,
    patience: Pin<Box<Sleep>>,
}

impl Body for WatchedBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(frame) => {
                match &frame {
                    Some(Ok(frame)) => {
                        let bytes = frame.data_ref().map_or(0, Bytes::len);
                        BYTES_READ.fetch_add(bytes as u64, Relaxed);
                        this.patience.as_mut().reset(Instant::now() + stall());
                    }
                    Some(Err(error)) => note(|answer| answer.broken = Some(innermost(error))),
                    None => {}
                }
                Poll::Ready(frame)
            }
            Poll::Pending => {
                ready!(this.patience.as_mut().poll(context));
                Poll::Ready(Some(Err(stalled(stall()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("nothing was received for {} s", .0.as_secs())]
struct Stalled(Duration);

fn stalled(limit: Duration) -> HttpError {
    let error = Stalled(limit);
    note(|answer| answer.broken = Some(error.to_string()));
    HttpError::new(HttpErrorKind::Timeout, error)
}

fn stall() -> Duration {
    static CHOSEN: OnceLock<Duration> = OnceLock::new();
    *CHOSEN.get_or_init(|| seconds(STALL_VARIABLE).unwrap_or(STALL))
}

/// Reads a number of seconds from an environment variable.
pub(super) fn seconds(variable: &str) -> Option<Duration> {
    let value: f64 = std::env::var(variable).ok()?.trim().parse().ok()?;
    Duration::try_from_secs_f64(value).ok()
}

/// The cause that says most: those around it say only that a request failed.
pub(super) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string().replace('\n', " ")
}
