//! Judges failures: which are worth another try, and what the others mean.

use super::error::{Operation, StoreError, credentials_advice, denied_advice};
use super::http::{Answer, innermost};
use super::url::{Scheme, Url};

/// Why one attempt failed.
#[derive(Debug)]
pub(super) enum Failed {
    /// In object_store.
    Store(object_store::Error),
    /// The body had another length than the range.
    Length {
        /// Bytes that came.
        got: u64,
        /// Bytes that were asked for.
        wanted: u64,
    },
    /// It has passed already.
    Passed(String),
    /// For good.
    Final(StoreError),
}

impl From<object_store::Error> for Failed {
    fn from(error: object_store::Error) -> Self {
        Self::Store(error)
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Final(error)
    }
}

/// What to do about a failure.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Try again.
    Transient(String),
    /// Tell the caller.
    Final(StoreError),
}

/// Codes of answers that pass by themselves, whatever their status.
const TRANSIENT_CODES: &[&str] = &[
    "ConditionalRequestConflict",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "ServerBusy",
    "ServiceUnavailable",
    "SlowDown",
];

/// Codes of answers that mean that the bucket is elsewhere.
const REGION_CODES: &[&str] = &[
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "IncorrectEndpoint",
    "PermanentRedirect",
    "TemporaryRedirect",
];

/// Judges the failure of `operation` on `url`, to whose last request `answer` was received.
pub(super) fn judge(url: &Url, operation: Operation, failed: Failed, answer: &Answer) -> Verdict {
    let error = match failed {
        Failed::Final(error) => return Verdict::Final(error),
        Failed::Passed(reason) => return Verdict::Transient(reason),
        Failed::Length { got, wanted } => {
            return Verdict::Transient(format!("{got} of {wanted} bytes were received"));
        }
        Failed::Store(error) => error,
    };
    if let Some(reason) = &answer.broken {
        return broken(url, reason);
    }
    if let Some(status) = answer.status {
        return answered(url, operation, status, answer);
    }
    match error {
        // Of web servers, which may ignore ranges.
        object_store::Error::NotSupported { .. } => Verdict::Final(StoreError::NoRanges {
            url: url.to_string(),
        }),
        error => {
            let text = innermost(&error);
            // S3 reports some failures in an answer of status 200.
            match TRANSIENT_CODES.iter().find(|code| text.contains(**code)) {
                Some(code) => Verdict::Transient((*code).to_owned()),
                None if is_credentials_host(&answer.host) => {
                    Verdict::Final(no_credentials(url, text))
                }
                None => Verdict::Final(StoreError::other(url, text)),
            }
        }
    }
}

/// A connection that failed or broke off.
fn broken(url: &Url, reason: &str) -> Verdict {
    // Trying again does not make a certificate valid.
    if reason.contains("certificate") || reason.contains("UnknownIssuer") {
        return Verdict::Final(StoreError::other(
            url,
            format!(
                "{reason}; if a proxy or the store has its own authority, set SSL_CERT_FILE to \
                 its certificates"
            ),
        ));
    }
    Verdict::Transient(reason.to_owned())
}

/// An answer with a status that is no success.
fn answered(url: &Url, operation: Operation, status: u16, answer: &Answer) -> Verdict {
    let code = element(&answer.body, "Code").unwrap_or_default();
    let text = describe(status, code, &answer.body);
    let transient = matches!(status, 408 | 429 | 500 | 502..=599);
    if transient || TRANSIENT_CODES.contains(&code) {
        return Verdict::Transient(text);
    }
    let name = || url.to_string();
    let root = || url.root().to_string();
    if is_credentials_host(&answer.host) {
        return Verdict::Final(no_credentials(
            url,
            format!("{} answered {text}", answer.host),
        ));
    }
    let region = answer.region.as_deref().or(element(&answer.body, "Region"));
    let elsewhere = REGION_CODES.contains(&code)
        || url.scheme() == Scheme::S3
            && (matches!(status, 301 | 307) || status == 400 && region.is_some());
    if elsewhere {
        return Verdict::Final(StoreError::WrongRegion {
            url: root(),
            region: region.map(str::to_owned),
        });
    }
    Verdict::Final(match status {
        404 if matches!(code, "NoSuchBucket" | "ContainerNotFound") => {
            StoreError::NoBucket { url: root() }
        }
        404 | 410 if operation == Operation::List => StoreError::NoBucket { url: root() },
        404 | 410 => StoreError::NotFound { url: name() },
        401 | 403 => StoreError::Denied {
            url: name(),
            reason: text,
            advice: denied_advice(url.scheme(), operation, code),
        },
        409 | 412 | 304 if operation == Operation::Create => StoreError::Exists { url: name() },
        412 => StoreError::Changed { url: name() },
        416 => StoreError::other(url, "the object ends before the range that was to be read"),
        _ => StoreError::other(url, text),
    })
}

/// Credentials were asked for in vain.
fn no_credentials(url: &Url, reason: String) -> StoreError {
    StoreError::NoCredentials {
        url: url.root().to_string(),
        reason,
        advice: credentials_advice(url.scheme()),
    }
}

/// The status, and what the body says in one line.
fn describe(status: u16, code: &str, body: &str) -> String {
    let message = element(body, "Message").unwrap_or_default();
    let message = message.lines().next().unwrap_or_default().trim();
    match (code, message) {
        ("", _) => format!("HTTP status {status}"),
        (code, "") => format!("HTTP status {status} {code}"),
        (code, message) => {
            let message = message.trim_end_matches('.');
            format!("HTTP status {status} {code}: {message}")
        }
    }
}

/// Returns the text of the first element `name` of an XML document. Error answers have neither
/// attributes nor nested elements.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(text.trim())
}

/// Whether this host gives credentials, and holds no objects.
fn is_credentials_host(host: &str) -> bool {
    host.starts_with("169.254.")
        || host.starts_with("sts.")
        || host.starts_with("metadata.")
        || matches!(
            host,
            "oauth2.googleapis.com" | "iamcredentials.googleapis.com" | "login.microsoftonline.com"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16, body: &str) -> Verdict {
        let url = Url::parse("s3://bucket/key").expect("a URL");
        let answer = Answer {
            status: Some(status),
            body: body.to_owned(),
            ..Answer::default()
        };
        let failed = object_store::Error::Generic {
            store: "S3",
            source: "any".into(),
        };
        judge(&url, Operation::Read, failed.into(), &answer)
    }

    #[test]
    fn what_passes_by_itself_is_tried_again() {
        for (status, body) in [
            (
                503,
                "<Error><Code>SlowDown</Code><Message>Reduce.</Message></Error>",
            ),
            (500, ""),
            (429, ""),
            (400, "<Error><Code>RequestTimeout</Code></Error>"),
            (
                409,
                "<Error><Code>ConditionalRequestConflict</Code></Error>",
            ),
        ] {
            let found = verdict(status, body);
            assert!(
                matches!(found, Verdict::Transient(_)),
                "{status}: {found:?}"
            );
        }
    }

    #[test]
    fn what_stays_is_told_apart() {
        let message = |status, body| match verdict(status, body) {
            Verdict::Final(error) => error.to_string(),
            Verdict::Transient(reason) => panic!("transient: {reason}"),
        };
        let region = "<Error><Code>AuthorizationHeaderMalformed</Code><Message>The region \
                      'us-east-1' is wrong; expecting 'eu-west-1'</Message>\
                      <Region>eu-west-1</Region></Error>";
        assert!(message(400, region).ends_with("set AWS_REGION=eu-west-1"));
        let missing = "<Error><Code>NoSuchBucket</Code></Error>";
        assert!(message(404, missing).starts_with("s3://bucket: there is no such bucket"));
        assert!(message(404, "").starts_with("s3://bucket/key: there is no such object"));
        assert!(message(412, "").contains("replaced"));
        let denied = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
        assert_eq!(
            message(403, denied),
            "s3://bucket/key: access denied: HTTP status 403 AccessDenied: Access Denied; the \
             credentials may be wrong or lack s3:GetObject (or s3:ListBucket, without which a \
             missing object looks like this)"
        );
        assert!(message(501, "").contains("501"));
    }
}
