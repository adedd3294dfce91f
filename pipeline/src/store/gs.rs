//! Clients of Google Cloud Storage, set up by what gcloud's own tools read.

use super::client::{
    METADATA_ADDRESS, answers, host_and_port, is_set, no_retries, settings, variable,
};
use super::error::{StoreError, credentials_advice};
use super::http::{Connector, options};
use super::url::{Scheme, Url};
use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder};
use std::path::{Path, PathBuf};

/// Variables by which object_store finds credentials.
const VARIABLES: &[&str] = &[
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_BEARER_TOKEN",
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
    "SERVICE_ACCOUNT",
];

/// Makes a client of the bucket `root`.
pub(super) fn client(root: &Url) -> Result<GoogleCloudStorage, StoreError> {
    let mut builder = GoogleCloudStorageBuilder::new();
    if let Some(path) = variable("SERVICE_ACCOUNT") {
        builder = builder.with_service_account_path(path);
    }
    for (name, value) in settings("GOOGLE_") {
        if let Ok(key) = name.parse() {
            builder = builder.with_config(key, value);
        }
    }
    builder = builder
        .with_bucket_name(root.bucket())
        .with_client_options(options())
        .with_retry(no_retries())
        .with_http_connector(Connector);
    if let Some(emulator) = variable("STORAGE_EMULATOR_HOST") {
        let endpoint = match emulator.contains("://") {
            true => emulator,
            false => format!("http://{emulator}"),
        };
        builder = builder
            .with_base_url(endpoint.trim_end_matches('/'))
            .with_skip_signature(true);
    } else if is_set("GOOGLE_SKIP_SIGNATURE") {
        builder = builder.with_skip_signature(true);
    } else if VARIABLES.iter().all(|name| variable(name).is_none())
        && !default_file().is_some_and(|path| path.exists())
    {
        let address = ["GCE_METADATA_HOST", "GCE_METADATA_ROOT", "GCE_METADATA_IP"]
            .iter()
            .find_map(|name| variable(name))
            .map_or(METADATA_ADDRESS.to_owned(), |text| host_and_port(&text));
        if !answers(&address) {
            let reason = "neither the environment, nor gcloud's default file, nor the machine \
                          has any";
            return Err(missing(root, reason));
        }
    }
    // What fails here is a file of credentials.
    builder
        .build()
        .map_err(|error| missing(root, error.to_string()))
}

/// Where `gcloud auth application-default login` writes to, and object_store reads.
fn default_file() -> Option<PathBuf> {
    let path = ".config/gcloud/application_default_credentials.json";
    Some(Path::new(&variable("HOME")?).join(path))
}

fn missing(root: &Url, reason: impl Into<String>) -> StoreError {
    StoreError::NoCredentials {
        url: root.to_string(),
        reason: reason.into(),
        advice: credentials_advice(Scheme::Gs),
    }
}
