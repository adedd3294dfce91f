//! What can go wrong, in the user's words.

use super::url::{Scheme, Url, UrlError};
use std::io;

/// What a request was to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// Read an object or what is known of it.
    Read,
    /// List a prefix.
    List,
    /// Write an object if there is none.
    Create,
    /// Write an object.
    Write,
    /// Delete an object.
    Delete,
}

/// Why a call failed. Each message is one line: the URL, what failed, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL cannot be used.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// No credentials were found, or they could not be read.
    #[error("{url}: no credentials: {reason}; {advice}")]
    NoCredentials {
        /// The bucket.
        url: String,
        /// What was looked for.
        reason: String,
        /// Which variables to set.
        advice: &'static str,
    },
    /// The store knows who asks, and refuses.
    #[error("{url}: access denied: {reason}; {advice}")]
    Denied {
        /// The object.
        url: String,
        /// The store's answer.
        reason: String,
        /// What to check or to ask for.
        advice: String,
    },
    /// The bucket does not exist.
    #[error("{url}: there is no such bucket; check its name, and the account or endpoint")]
    NoBucket {
        /// The bucket.
        url: String,
    },
    /// The object does not exist.
    #[error("{url}: there is no such object; check the name")]
    NotFound {
        /// The object.
        url: String,
    },
    /// The bucket is in another region.
    #[error(
        "{url}: the bucket is in another region; set AWS_REGION={}",
        region.as_deref().unwrap_or("… to the one that the bucket was made in")
    )]
    WrongRegion {
        /// The bucket.
        url: String,
        /// The region that the store named.
        region: Option<String>,
    },
    /// The object is not the one that was expected.
    #[error("{url}: the object was replaced while it was in use; start again")]
    Changed {
        /// The object.
        url: String,
    },
    /// There is an object already.
    #[error("{url}: there is another object of this name already; delete it or choose a new name")]
    Exists {
        /// The object.
        url: String,
    },
    /// The store could not be reached for as long as requests are repeated.
    #[error(
        "{url}: gave up after {seconds} s: {reason}; check the network and the endpoint, and run \
         the command again"
    )]
    Unreachable {
        /// The object.
        url: String,
        /// The last failure.
        reason: String,
        /// How long it was tried.
        seconds: u64,
    },
    /// Web servers cannot be listed.
    #[error("{url}: a web server cannot be listed; name the files, or use s3://, gs:// or az://")]
    Unlistable {
        /// The prefix.
        url: String,
    },
    /// The web server sends files only as a whole.
    #[error("{url}: the server cannot send parts of files; download the file first")]
    NoRanges {
        /// The file.
        url: String,
    },
    /// A file on this machine could not be read or written.
    #[error("{url}: {source}")]
    Io {
        /// The object.
        url: String,
        /// The failure, which names the file where it is known.
        source: io::Error,
    },
    /// The flag of [`super::stop_when`] was set.
    #[error("interrupted")]
    Interrupted,
    /// Anything else.
    #[error("{url}: {reason}")]
    Other {
        /// The object.
        url: String,
        /// What happened.
        reason: String,
    },
}

impl StoreError {
    /// Wraps the failure of a file that is copied to or from `url`.
    pub(super) fn io(url: &Url, source: io::Error) -> Self {
        Self::Io {
            url: url.to_string(),
            source,
        }
    }

    /// Anything that needs no name.
    pub(super) fn other(url: &Url, reason: impl Into<String>) -> Self {
        Self::Other {
            url: url.to_string(),
            reason: reason.into(),
        }
    }

    /// Whether there is nothing at the URL.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::Url(_) => io::ErrorKind::InvalidInput,
            StoreError::NoCredentials { .. } | StoreError::Denied { .. } => {
                io::ErrorKind::PermissionDenied
            }
            StoreError::NoBucket { .. } | StoreError::NotFound { .. } => io::ErrorKind::NotFound,
            StoreError::Exists { .. } => io::ErrorKind::AlreadyExists,
            StoreError::Unreachable { .. } => io::ErrorKind::TimedOut,
            StoreError::Unlistable { .. } | StoreError::NoRanges { .. } => {
                io::ErrorKind::Unsupported
            }
            StoreError::Io { source, .. } => source.kind(),
            // Not ErrorKind::Interrupted: the standard library repeats calls that fail with it.
            StoreError::Interrupted
            | StoreError::Changed { .. }
            | StoreError::WrongRegion { .. }
            | StoreError::Other { .. } => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// Which variables give credentials.
pub(super) fn credentials_advice(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::S3 => {
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or for a public \
             bucket AWS_SKIP_SIGNATURE=true"
        }
        Scheme::Gs => {
            "set GOOGLE_APPLICATION_CREDENTIALS to a key file, or run `gcloud auth \
             application-default login`, or for a public bucket set GOOGLE_SKIP_SIGNATURE=true"
        }
        Scheme::Az => {
            "set AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, or \
             AZURE_STORAGE_CONNECTION_STRING, or after `az login` AZURE_USE_AZURE_CLI=true, or \
             for a public container AZURE_SKIP_SIGNATURE=true"
        }
        Scheme::Http | Scheme::Https => "only addresses that need no password can be read",
    }
}

/// What to check after an answer of 401 or 403 with this code.
pub(super) fn denied_advice(scheme: Scheme, operation: Operation, code: &str) -> String {
    let wrong_secret = match code {
        "SignatureDoesNotMatch" => Some("check AWS_SECRET_ACCESS_KEY: it does not fit the key id"),
        "InvalidAccessKeyId" => {
            Some("check AWS_ACCESS_KEY_ID and the endpoint: the store does not know this key id")
        }
        "ExpiredToken" | "TokenRefreshRequired" => Some("renew the credentials: they have expired"),
        "InvalidToken" => Some("check AWS_SESSION_TOKEN: it belongs to other keys"),
        "RequestTimeTooSkewed" => Some("set this machine's clock"),
        "AuthenticationFailed" => Some("check AZURE_STORAGE_KEY or the SAS token, and the clock"),
        _ => None,
    };
    if let Some(advice) = wrong_secret {
        return advice.to_owned();
    }
    let permission = match (scheme, operation) {
        (Scheme::S3, Operation::Read) => {
            "s3:GetObject (or s3:ListBucket, without which a missing object looks like this)"
        }
        (Scheme::S3, Operation::List) => "s3:ListBucket",
        (Scheme::S3, Operation::Create | Operation::Write) => "s3:PutObject",
        (Scheme::S3, Operation::Delete) => "s3:DeleteObject",
        (Scheme::Gs, Operation::Read) => "storage.objects.get",
        (Scheme::Gs, Operation::List) => "storage.objects.list",
        (Scheme::Gs, Operation::Create) => "storage.objects.create",
        (Scheme::Gs, Operation::Write) => "storage.objects.create and storage.objects.delete",
        (Scheme::Gs, Operation::Delete) => "storage.objects.delete",
        (Scheme::Az, Operation::Read | Operation::List) => "the role Storage Blob Data Reader",
        (Scheme::Az, _) => "the role Storage Blob Data Contributor",
        (Scheme::Http | Scheme::Https, _) => return credentials_advice(scheme).to_owned(),
    };
    format!("the credentials may be wrong or lack {permission}")
}
