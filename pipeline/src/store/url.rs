//! Names of objects and prefixes in object stores.

use std::fmt;
use std::path::Path;

/// The kinds of stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Amazon S3, and what speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Gs,
    /// Azure Blob Storage.
    Az,
    /// A web server without encryption. It can only be read from.
    Http,
    /// A web server. It can only be read from.
    Https,
}

/// The name of an object, or of all objects below a prefix: `s3://bucket/key`, `gs://bucket/key`,
/// `az://container/key` or `http(s)://host[:port]/path`.
///
/// Keys are taken literally. The path of a web server stays as it was written, percent signs
/// included.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Url {
    scheme: Scheme,
    /// Bucket, container, or host and port.
    bucket: String,
    /// Without slashes at its ends; empty for the whole bucket.
    key: String,
}

/// Why a text is no usable [`Url`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// There is no `scheme://` at its start.
    #[error("{0} is not a URL: write s3://bucket/key, gs://…, az://… or https://…")]
    NotUrl(String),
    /// Another kind of store.
    #[error("{url}: {scheme}:// is not supported: {instead}")]
    Scheme {
        /// The text.
        url: String,
        /// Its scheme.
        scheme: String,
        /// What to write.
        instead: String,
    },
    /// Nothing between `//` and `/`, or no valid name.
    #[error("{url}: {reason}: write {example}")]
    Bucket {
        /// The text.
        url: String,
        /// What is wrong.
        reason: &'static str,
        /// How it looks.
        example: &'static str,
    },
    /// A user or a password before the bucket. The text is left out, for it holds the password.
    #[error("a URL must not hold a user or password ({bucket}): {instead}")]
    User {
        /// What follows the `@`.
        bucket: String,
        /// What to do.
        instead: &'static str,
    },
    /// A web address with `?` or `#`.
    #[error("{url}: a {part} cannot be used: download the file, or give its plain address")]
    Extra {
        /// The text before it.
        url: String,
        /// "query (?…)" or "fragment (#…)".
        part: &'static str,
    },
    /// A key that stores or this program cannot take.
    #[error("{url}: {reason}")]
    Key {
        /// The text.
        url: String,
        /// What is wrong.
        reason: &'static str,
    },
}

impl Scheme {
    /// Returns the text before `://`.
    pub fn name(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gs => "gs",
            Self::Az => "az",
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// Whether it is a web server.
    pub fn is_web(self) -> bool {
        matches!(self, Self::Http | Self::Https)
    }
}

impl Url {
    /// Reads a path that the user gave. None if it is one in the file system, which includes
    /// `./s3://x`, `a:b` and `C:/x`; an error for a URL that cannot be used.
    pub fn of(path: &Path) -> Option<Result<Self, UrlError>> {
        let lossy = path.to_string_lossy();
        scheme_of(&lossy)?;
        Some(match path.to_str() {
            Some(text) => Self::parse(text),
            None => Err(UrlError::Key {
                url: lossy.into_owned(),
                reason: "the name is not valid UTF-8",
            }),
        })
    }

    /// Reads a URL.
    ///
    /// # Errors
    /// When it cannot be used; the message says what to write.
    ///
    /// ```
    /// # use pipeline::store::Url;
    /// let folder = Url::parse("s3://videos/train").expect("a URL");
    /// assert_eq!((folder.key(), folder.name()), ("train", "train"));
    /// assert_eq!(folder.join("a.mp4").expect("joined").to_string(), "s3://videos/train/a.mp4");
    /// ```
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let Some((scheme, rest)) = scheme_of(text) else {
            return Err(UrlError::NotUrl(text.to_owned()));
        };
        let scheme = known_scheme(text, scheme, rest)?;
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if let Some((_, bucket)) = bucket.rsplit_once('@') {
            return Err(UrlError::User {
                bucket: bucket.to_owned(),
                instead: match scheme {
                    Scheme::S3 => "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead",
                    Scheme::Gs => "set GOOGLE_APPLICATION_CREDENTIALS instead",
                    Scheme::Az => {
                        "write az://container/key, and set AZURE_STORAGE_ACCOUNT and \
                         AZURE_STORAGE_KEY"
                    }
                    _ => "only addresses that need no password can be read; download the file",
                },
            });
        }
        if scheme.is_web()
            && let Some(at) = rest.find(['?', '#'])
        {
            let plain = &rest[..at];
            return Err(UrlError::Extra {
                url: format!("{}://{plain}", scheme.name()),
                part: match rest.as_bytes()[at] {
                    b'?' => "query (?…)",
                    _ => "fragment (#…)",
                },
            });
        }
        check_bucket(text, scheme, bucket)?;
        let mut url = Self {
            scheme,
            bucket: bucket.to_owned(),
            key: String::new(),
        };
        // The name of a host does not depend on case.
        if scheme.is_web() {
            url.bucket.make_ascii_lowercase();
        }
        let key = key.strip_suffix('/').unwrap_or(key);
        url.key = check_key(text, key)?.to_owned();
        Ok(url)
    }

    /// Returns the URL of the object `key` of the same bucket.
    pub(super) fn with_key(&self, key: &str) -> Self {
        Self {
            key: key.to_owned(),
            ..self.clone()
        }
    }

    /// Appends a relative path. `.` and `..` are resolved.
    ///
    /// # Errors
    /// When it leaves the bucket, or is no relative path.
    pub fn join(&self, relative: &str) -> Result<Self, UrlError> {
        let wrong = |reason| UrlError::Key {
            url: format!("{self}/{relative}"),
            reason,
        };
        if relative.starts_with('/') {
            return Err(wrong("an absolute path cannot be appended"));
        }
        let mut parts: Vec<&str> = segments(&self.key).collect();
        for part in relative.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    if parts.pop().is_none() {
                        return Err(wrong("`..` leaves the bucket"));
                    }
                }
                part => parts.push(part),
            }
        }
        let key = parts.join("/");
        let whole = format!("{self}/{relative}");
        check_key(&whole, &key)?;
        if self.scheme.is_web() && relative.contains(['?', '#']) {
            return Err(wrong("`?` and `#` must be written %3F and %23"));
        }
        Ok(self.with_key(&key))
    }

    /// Returns the path that leads from this prefix to `other`; none if that is in another bucket.
    /// [`Url::join`] is its inverse.
    pub fn relative(&self, other: &Self) -> Option<String> {
        if (self.scheme, &self.bucket) != (other.scheme, &other.bucket) {
            return None;
        }
        let from: Vec<&str> = segments(&self.key).collect();
        let to: Vec<&str> = segments(&other.key).collect();
        let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
        let mut path = vec![".."; from.len() - common];
        path.extend(&to[common..]);
        if path.is_empty() {
            path.push(".");
        }
        Some(path.join("/"))
    }

    /// Returns the last segment of the key, or the bucket if there is none.
    pub fn name(&self) -> &str {
        match self.key.rsplit('/').next() {
            Some(name) if !name.is_empty() => name,
            _ => &self.bucket,
        }
    }

    /// Returns the key, without a slash at its end; empty for a whole bucket.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns the bucket, the container, or the host and port.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Returns the kind of store.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Returns the URL of the bucket.
    pub fn root(&self) -> Self {
        self.with_key("")
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.name(), self.bucket)?;
        if !self.key.is_empty() {
            write!(f, "/{}", self.key)?;
        }
        Ok(())
    }
}

fn segments(key: &str) -> impl Iterator<Item = &str> {
    key.split('/').filter(|part| !part.is_empty())
}

/// Splits off `scheme://`, which RFC 3986 says starts with a letter.
fn scheme_of(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let valid = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || "+-.".contains(letter));
    valid.then_some((scheme, rest))
}

fn known_scheme(text: &str, scheme: &str, rest: &str) -> Result<Scheme, UrlError> {
    let scheme = scheme.to_ascii_lowercase();
    let instead = match scheme.as_str() {
        "s3" => return Ok(Scheme::S3),
        "gs" => return Ok(Scheme::Gs),
        "az" => return Ok(Scheme::Az),
        "http" => return Ok(Scheme::Http),
        "https" => return Ok(Scheme::Https),
        "s3a" | "s3n" => format!("write s3://{rest}"),
        "gcs" => format!("write gs://{rest}"),
        "azure" | "abfs" | "abfss" | "adl" | "wasb" | "wasbs" => {
            "write az://container/key, and set AZURE_STORAGE_ACCOUNT".to_owned()
        }
        "file" => {
            let path = rest.strip_prefix("localhost").unwrap_or(rest);
            format!("give the local path {path}")
        }
        _ => "use s3://, gs://, az:// or http(s)://, or copy the files to one of them".to_owned(),
    };
    // A password in it must not be repeated.
    let shown = match rest.split_once('/').unwrap_or((rest, "")).0.contains('@') {
        true => format!("{scheme}://…"),
        false => text.to_owned(),
    };
    Err(UrlError::Scheme {
        url: shown,
        scheme,
        instead,
    })
}

fn check_bucket(text: &str, scheme: Scheme, bucket: &str) -> Result<(), UrlError> {
    let (allowed, example) = match scheme {
        Scheme::S3 => ("-._", "s3://bucket/key"),
        Scheme::Gs => ("-._", "gs://bucket/key"),
        Scheme::Az => ("-$", "az://container/key"),
        Scheme::Http | Scheme::Https => ("-._:[]", "https://host/path"),
    };
    let wrong = |reason| {
        Err(UrlError::Bucket {
            url: text.to_owned(),
            reason,
            example,
        })
    };
    match bucket {
        "" if scheme.is_web() => wrong("the host is missing"),
        "" => wrong("the bucket is missing"),
        "." | ".." => wrong("this is no name"),
        _ if bucket
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || allowed.contains(letter)) =>
        {
            Ok(())
        }
        _ => wrong("the name before the first slash has a character that is not allowed"),
    }
}

fn check_key<'a>(text: &str, key: &'a str) -> Result<&'a str, UrlError> {
    let wrong = |reason| {
        Err(UrlError::Key {
            url: text.to_owned(),
            reason,
        })
    };
    if key.is_empty() {
        return Ok(key);
    }
    for part in key.split('/') {
        match part {
            "" => return wrong("empty path segments (//) are not supported"),
            "." | ".." => return wrong("`.` and `..` are not allowed in a URL"),
            _ if part.chars().any(|letter| letter.is_ascii_control()) => {
                return wrong("control characters are not supported");
            }
            _ => {}
        }
    }
    Ok(key)
}

#[cfg(test)]
mod tests;
