//! Clients of Azure Blob Storage, set up by what Azure's own tools read.

use super::client::{METADATA_ADDRESS, answers, is_set, no_retries, settings, variable};
use super::error::{StoreError, credentials_advice};
use super::http::{Connector, options};
use super::url::{Scheme, Url};
use object_store::azure::{AzureConfigKey, MicrosoftAzure, MicrosoftAzureBuilder};

/// Variables by which object_store finds credentials, besides the ones that are read here.
const VARIABLES: &[&str] = &[
    "AZURE_STORAGE_TOKEN",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_MASTER_KEY",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_CLIENT_SECRET",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_FABRIC_SESSION_TOKEN",
    "AZURE_IDENTITY_ENDPOINT",
    "AZURE_MSI_ENDPOINT",
    "IDENTITY_ENDPOINT",
];

/// Makes a client of the container `root`.
pub(super) fn client(root: &Url) -> Result<MicrosoftAzure, StoreError> {
    let mut builder = MicrosoftAzureBuilder::new();
    for (name, value) in settings("AZURE_") {
        if let Ok(key) = name.parse() {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(endpoint) = variable("IDENTITY_ENDPOINT") {
        builder = builder.with_msi_endpoint(endpoint);
    }
    builder = builder
        .with_container_name(root.bucket())
        .with_client_options(options())
        .with_retry(no_retries())
        .with_http_connector(Connector);
    let mut found = Connection::default();
    if let Some(text) = variable("AZURE_STORAGE_CONNECTION_STRING") {
        found = Connection::parse(&text).map_err(|reason| missing(root, reason))?;
    }
    let first = |names: &[&str]| names.iter().find_map(|name| variable(name));
    // Variables that say one thing win over the one that says all.
    let account = first(&["AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"]);
    let key = first(&["AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY"]);
    let signature = first(&["AZURE_STORAGE_SAS_TOKEN"]);
    let has_own = key.is_some() || signature.is_some();
    if has_own {
        found.key = None;
        found.signature = None;
    }
    if found.emulator || is_set("AZURE_STORAGE_USE_EMULATOR") {
        builder = builder.with_use_emulator(true);
    } else {
        match account.or(found.account) {
            Some(account) => builder = builder.with_account(account),
            None => return Err(missing(root, "the storage account is not known")),
        }
        let has_any = has_own
            || found.key.is_some()
            || found.signature.is_some()
            || is_set("AZURE_SKIP_SIGNATURE")
            || is_set("AZURE_USE_AZURE_CLI")
            || VARIABLES.iter().any(|name| variable(name).is_some());
        if !has_any && !answers(METADATA_ADDRESS) {
            let reason = "neither the environment nor the machine has any";
            return Err(missing(root, reason));
        }
    }
    if let Some(endpoint) = found.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(key) = key.or(found.key) {
        builder = builder.with_access_key(key);
    }
    if let Some(signature) = signature.or(found.signature) {
        builder = builder.with_config(AzureConfigKey::SasKey, signature);
    }
    builder
        .build()
        .map_err(|error| missing(root, error.to_string()))
}

/// What a connection string says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Connection {
    account: Option<String>,
    key: Option<String>,
    signature: Option<String>,
    endpoint: Option<String>,
    emulator: bool,
}

impl Connection {
    /// Reads `Name=value;Name=value`. Values may hold further `=`.
    fn parse(text: &str) -> Result<Self, String> {
        let mut found = Self::default();
        let (mut protocol, mut suffix) = ("https".to_owned(), None);
        for part in text
            .split(';')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            // Without the part itself: it may be a secret.
            let Some((name, value)) = part.split_once('=') else {
                return Err("AZURE_STORAGE_CONNECTION_STRING has a part without `=`".to_owned());
            };
            let value = value.trim().to_owned();
            match name.trim().to_ascii_lowercase().as_str() {
                "accountname" => found.account = Some(value),
                "accountkey" => found.key = Some(value),
                "sharedaccesssignature" => {
                    found.signature = Some(value.trim_start_matches('?').to_owned());
                }
                "blobendpoint" => found.endpoint = Some(value.trim_end_matches('/').to_owned()),
                "endpointsuffix" => suffix = Some(value),
                "defaultendpointsprotocol" => protocol = value,
                "usedevelopmentstorage" => found.emulator = value.eq_ignore_ascii_case("true"),
                _ => {}
            }
        }
        if found.account.is_none()
            && let Some(endpoint) = &found.endpoint
        {
            // https://account.blob.core.windows.net
            let host = endpoint
                .split_once("://")
                .map_or(endpoint.as_str(), |(_, rest)| rest);
            found.account = host
                .split_once(".blob.")
                .map(|(account, _)| account.to_owned());
        }
        if let (None, Some(account), Some(suffix)) = (&found.endpoint, &found.account, suffix) {
            found.endpoint = Some(format!("{protocol}://{account}.blob.{suffix}"));
        }
        Ok(found)
    }
}

fn missing(root: &Url, reason: impl Into<String>) -> StoreError {
    StoreError::NoCredentials {
        url: root.to_string(),
        reason: reason.into(),
        advice: credentials_advice(Scheme::Az),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_strings() {
        let whole = Connection::parse(
            "DefaultEndpointsProtocol=https;AccountName=films;AccountKey=c2VjcmV0PT0=;\
             EndpointSuffix=core.windows.net",
        )
        .expect("parsed");
        assert_eq!(whole.account.as_deref(), Some("films"));
        assert_eq!(whole.key.as_deref(), Some("c2VjcmV0PT0="));
        assert_eq!(
            whole.endpoint.as_deref(),
            Some("https://films.blob.core.windows.net")
        );
        let signed = Connection::parse(
            "BlobEndpoint=https://films.blob.core.windows.net/;\
             SharedAccessSignature=sv=2024&sig=a%3D",
        )
        .expect("parsed");
        assert_eq!(signed.account.as_deref(), Some("films"));
        assert_eq!(signed.signature.as_deref(), Some("sv=2024&sig=a%3D"));
        let local = Connection::parse("UseDevelopmentStorage=true").expect("parsed");
        assert!(local.emulator);
        let error = Connection::parse("AccountName=a;secret").expect_err("no pair");
        assert!(!error.contains("secret"));
    }
}
