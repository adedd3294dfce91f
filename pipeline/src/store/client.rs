//! One client per bucket, kept for the life of the process.

use super::error::StoreError;
use super::failure::Failed;
use super::http::{Connector, options};
use super::url::{Scheme, Url};
use super::{ObjectMeta, aws, az, gs, lock};
use object_store::aws::AmazonS3;
use object_store::azure::MicrosoftAzure;
use object_store::gcp::GoogleCloudStorage;
use object_store::http::{HttpBuilder, HttpStore};
use object_store::list::PaginatedListStore;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{GetOptions, GetResult, ObjectStore, RetryConfig, UpdateVersion};
use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

/// Time in which a service for credentials has to answer, if there is one.
const PROBE: Duration = Duration::from_secs(1);

/// Where machines in clouds find their credentials.
pub(super) const METADATA_ADDRESS: &str = "169.254.169.254:80";

/// A client of one bucket.
#[derive(Debug, Clone)]
pub(super) enum Client {
    S3(AmazonS3),
    Gs(GoogleCloudStorage),
    Az(MicrosoftAzure),
    Web(Arc<HttpStore>),
}

static CLIENTS: LazyLock<Mutex<HashMap<Url, Client>>> = LazyLock::new(Mutex::default);

impl Client {
    /// Returns the client of the bucket of `url`. The first call looks for credentials, which can
    /// take a second.
    pub fn of(url: &Url) -> Result<Self, StoreError> {
        let root = url.root();
        if let Some(client) = lock(&CLIENTS).get(&root) {
            return Ok(client.clone());
        }
        // Not under the lock: other buckets need not wait.
        let client = Self::new(&root)?;
        Ok(lock(&CLIENTS).entry(root).or_insert(client).clone())
    }

    fn new(root: &Url) -> Result<Self, StoreError> {
        match root.scheme() {
            Scheme::S3 => aws::client(root).map(Self::S3),
            Scheme::Gs => gs::client(root).map(Self::Gs),
            Scheme::Az => az::client(root).map(Self::Az),
            Scheme::Http | Scheme::Https => HttpBuilder::new()
                .with_url(root.to_string())
                .with_client_options(options())
                .with_retry(no_retries())
                .with_http_connector(Connector)
                .build()
                .map(|client| Self::Web(Arc::new(client)))
                .map_err(|error| StoreError::other(root, error.to_string())),
        }
    }

    pub fn objects(&self) -> &dyn ObjectStore {
        match self {
            Self::S3(client) => client,
            Self::Gs(client) => client,
            Self::Az(client) => client,
            Self::Web(client) => client.as_ref(),
        }
    }

    pub fn pages(&self) -> Option<&dyn PaginatedListStore> {
        match self {
            Self::S3(client) => Some(client),
            Self::Gs(client) => Some(client),
            Self::Az(client) => Some(client),
            Self::Web(_) => None,
        }
    }

    pub fn parts(&self) -> Option<&dyn MultipartStore> {
        match self {
            Self::S3(client) => Some(client),
            Self::Gs(client) => Some(client),
            Self::Az(client) => Some(client),
            Self::Web(_) => None,
        }
    }

    /// Starts reading `url`; fails if the object is not the one of `etag`.
    pub async fn get(
        &self,
        url: &Url,
        etag: Option<&str>,
        mut options: GetOptions,
    ) -> Result<GetResult, Failed> {
        options.if_match = etag.and_then(|etag| condition(url, etag));
        let result = self.objects().get_opts(&path(url)?, options).await?;
        // Web servers may ignore the condition, or have nothing that it could be about.
        let found = identity(url, &result.meta);
        match (etag, found) {
            (Some(etag), Some(found)) if etag != found => Err(StoreError::Changed {
                url: url.to_string(),
            }
            .into()),
            _ => Ok(result),
        }
    }
}

/// All repetitions are made by [`super::runtime::persist`]: object_store would neither repeat
/// broken bodies of objects without an ETag, nor renew credentials between attempts.
pub(super) fn no_retries() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    }
}

/// Returns the name by which object_store knows the object.
pub(super) fn path(url: &Url) -> Result<Path, StoreError> {
    let path = match url.scheme().is_web() {
        // It encodes the path again.
        true => Path::from_url_path(url.key()),
        false => Path::parse(url.key()),
    };
    path.map_err(|error| StoreError::other(url, error.to_string()))
}

/// Returns what tells this content of the object from others; callers see it as the ETag. Google
/// needs the generation, too, to replace an object. Some web servers have only the time.
pub(super) fn identity(url: &Url, meta: &object_store::ObjectMeta) -> Option<String> {
    let time = meta.last_modified.timestamp_nanos_opt().unwrap_or(0);
    match (&meta.e_tag, &meta.version) {
        (etag, Some(version)) if url.scheme() == Scheme::Gs => {
            Some(format!("{} {version}", etag.as_deref().unwrap_or_default()))
        }
        (None, _) if url.scheme().is_web() && time > 0 => Some(format!("{MODIFIED}{time}")),
        (etag, _) => etag.clone(),
    }
}

/// Start of the identity of an object without an ETag.
const MODIFIED: &str = "modified ";

/// Splits the identity into what the store's requests need.
pub(super) fn version(url: &Url, identity: &str) -> UpdateVersion {
    let (etag, version) = match identity.rsplit_once(' ') {
        Some((etag, version)) if url.scheme() == Scheme::Gs => (etag, Some(version.to_owned())),
        _ => (identity, None),
    };
    UpdateVersion {
        e_tag: Some(etag.to_owned()),
        version,
    }
}

/// The ETag for `If-Match`, if there is one that can match: weak ones never do.
fn condition(url: &Url, identity: &str) -> Option<String> {
    let etag = version(url, identity).e_tag?;
    let usable = !etag.is_empty() && !etag.starts_with("W/") && !etag.starts_with(MODIFIED);
    usable.then_some(etag)
}

/// Describes an object of the bucket of `url`.
pub(super) fn meta(url: Url, meta: &object_store::ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        bytes: meta.size,
        etag: identity(&url, meta),
        modified_ns: meta.last_modified.timestamp_nanos_opt().unwrap_or(0),
        url,
    }
}

/// Whether something answers at `address` (host:port) at once. Without the question, object_store
/// would wait for minutes where there is nothing.
pub(super) fn answers(address: &str) -> bool {
    let first: Option<SocketAddr> = address
        .to_socket_addrs()
        .ok()
        .and_then(|mut all| all.next());
    first.is_some_and(|address| TcpStream::connect_timeout(&address, PROBE).is_ok())
}

/// Host and port of `scheme://host[:port]/…` or `host[:port]`.
pub(super) fn host_and_port(endpoint: &str) -> String {
    let (scheme, rest) = endpoint.split_once("://").unwrap_or(("http", endpoint));
    let host = rest.split('/').next().unwrap_or_default();
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    match (has_port, scheme) {
        (true, _) => host.to_owned(),
        (false, "https") => format!("{host}:443"),
        (false, _) => format!("{host}:80"),
    }
}

/// Reads an environment variable; an empty one counts as unset.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Returns the environment variables that start with `prefix` and are not empty, by the names that
/// object_store gives to settings. Its own `from_env` fails on empty ones.
pub(super) fn settings(prefix: &str) -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(move |(name, value)| {
        let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
        let wanted = name.starts_with(prefix) && !value.is_empty();
        wanted.then(|| (name.to_ascii_lowercase(), value))
    })
}

/// Whether an environment variable says yes.
pub(super) fn is_set(name: &str) -> bool {
    variable(name).is_some_and(|value| {
        matches!(
            value.to_ascii_lowercase().as_str(),
            "1" | "true" | "yes" | "on" | "y" | "t"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_have_ports() {
        for (endpoint, address) in [
            ("http://[fd00:ec2::254]/latest", "[fd00:ec2::254]:80"),
            ("http://127.0.0.1:9000", "127.0.0.1:9000"),
            ("https://minio.local/", "minio.local:443"),
            ("localhost:4443", "localhost:4443"),
        ] {
            assert_eq!(host_and_port(endpoint), address);
        }
    }

    #[test]
    fn an_identity_gives_back_what_it_was_made_of() {
        let gs = Url::parse("gs://bucket/a").expect("a URL");
        let found = version(&gs, "\"abc\" 17");
        assert_eq!(found.e_tag.as_deref(), Some("\"abc\""));
        assert_eq!(found.version.as_deref(), Some("17"));
        let web = Url::parse("http://host/a").expect("a URL");
        assert_eq!(condition(&web, "W/\"abc\""), None);
        assert_eq!(condition(&web, "modified 17"), None);
        assert_eq!(condition(&web, "\"a b\""), Some("\"a b\"".to_owned()));
    }
}
