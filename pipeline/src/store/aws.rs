//! Clients of S3, set up by what AWS's own tools read.

use super::client::{
    METADATA_ADDRESS, answers, host_and_port, is_set, no_retries, settings, variable,
};
use super::error::{StoreError, credentials_advice};
use super::http::{Connector, options};
use super::profile::{Profile, paths};
use super::url::{Scheme, Url};
use object_store::StaticCredentialProvider;
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsCredential};
use std::sync::Arc;

/// Makes a client of the bucket `root`.
pub(super) fn client(root: &Url) -> Result<AmazonS3, StoreError> {
    let mut builder = AmazonS3Builder::new();
    for (name, value) in settings("AWS_") {
        if let Ok(key) = name.parse() {
            builder = builder.with_config(key, value);
        }
    }
    builder = builder
        .with_bucket_name(root.bucket())
        .with_client_options(options())
        .with_retry(no_retries())
        .with_http_connector(Connector);
    let name = variable("AWS_PROFILE").or_else(|| variable("AWS_DEFAULT_PROFILE"));
    let (credentials, config) = paths(variable);
    let read = Profile::read(name.as_deref().unwrap_or("default"), &credentials, &config);
    let profile = match read {
        Ok(profile) => profile,
        // Without need of the profile, its files may be unreadable.
        Err(_) if name.is_none() => Profile::default(),
        Err(reason) => return Err(missing(root, reason)),
    };
    if variable("AWS_REGION").is_none() && variable("AWS_DEFAULT_REGION").is_none() {
        builder = builder.with_region(profile.get("region").unwrap_or("us-east-1"));
    }
    let endpoints = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
    if let Some(endpoint) = profile.get("endpoint_url")
        && endpoints.iter().all(|name| variable(name).is_none())
    {
        builder = builder.with_endpoint(endpoint);
    }
    if is_set("AWS_SKIP_SIGNATURE") {
        builder = builder.with_skip_signature(true);
    } else if let Some(credential) = find(root, name.as_deref(), &profile)? {
        builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(credential)));
    }
    builder
        .build()
        .map_err(|error| StoreError::other(root, error.to_string()))
}

/// Looks for credentials in the order of AWS's own tools. None if object_store gets them itself.
fn find(
    root: &Url,
    name: Option<&str>,
    profile: &Profile,
) -> Result<Option<AwsCredential>, StoreError> {
    match (
        variable("AWS_ACCESS_KEY_ID"),
        variable("AWS_SECRET_ACCESS_KEY"),
    ) {
        (Some(key_id), Some(secret_key)) => {
            return Ok(Some(AwsCredential {
                key_id,
                secret_key,
                token: variable("AWS_SESSION_TOKEN"),
            }));
        }
        (Some(_), None) => {
            let reason = "AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not";
            return Err(missing(root, reason));
        }
        (None, Some(_)) => {
            let reason = "AWS_SECRET_ACCESS_KEY is set, but AWS_ACCESS_KEY_ID is not";
            return Err(missing(root, reason));
        }
        (None, None) => {}
    }
    if variable("AWS_WEB_IDENTITY_TOKEN_FILE").is_some() && variable("AWS_ROLE_ARN").is_some() {
        return Ok(None);
    }
    if let (Some(key_id), Some(secret_key)) = (
        profile.get("aws_access_key_id"),
        profile.get("aws_secret_access_key"),
    ) {
        return Ok(Some(AwsCredential {
            key_id: key_id.to_owned(),
            secret_key: secret_key.to_owned(),
            token: profile.get("aws_session_token").map(str::to_owned),
        }));
    }
    let shown = name.unwrap_or("default");
    if let Some(key) = profile.indirect() {
        return Err(StoreError::NoCredentials {
            url: root.to_string(),
            reason: format!("profile {shown:?} gets them by {key}, which is not supported here"),
            advice: "run `eval \"$(aws configure export-credentials --format env)\"` first",
        });
    }
    if let Some(name) = name {
        let reason = match profile.exists {
            true => format!("profile {name:?} has no keys"),
            false => format!("there is no profile {name:?} in ~/.aws/credentials or ~/.aws/config"),
        };
        return Err(missing(root, reason));
    }
    let in_container = variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").is_some()
        || variable("AWS_CONTAINER_CREDENTIALS_FULL_URI").is_some()
            && variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").is_some();
    if in_container {
        return Ok(None);
    }
    let endpoint = variable("AWS_METADATA_ENDPOINT");
    let address = endpoint.map_or(METADATA_ADDRESS.to_owned(), |text| host_and_port(&text));
    if !is_set("AWS_EC2_METADATA_DISABLED") && answers(&address) {
        return Ok(None);
    }
    Err(missing(
        root,
        "neither the environment, nor ~/.aws/credentials, nor the machine has any",
    ))
}

fn missing(root: &Url, reason: impl Into<String>) -> StoreError {
    StoreError::NoCredentials {
        url: root.to_string(),
        reason: reason.into(),
        advice: credentials_advice(Scheme::S3),
    }
}
