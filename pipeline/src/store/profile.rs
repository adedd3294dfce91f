//! The files in which the tools of AWS keep keys: `~/.aws/credentials` and `~/.aws/config`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// What a profile says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Profile {
    values: BTreeMap<String, String>,
    /// Whether there is a section of its name.
    pub exists: bool,
}

impl Profile {
    /// Reads the profile `name`; files that do not exist are empty. Keys in the file of
    /// credentials win, as they do for AWS's own tools.
    pub fn read(name: &str, credentials: &Path, config: &Path) -> Result<Self, String> {
        let mut profile = Self::default();
        profile.add(&contents(config)?, |section| {
            section == name && name == "default"
                || section.strip_prefix("profile").is_some_and(|rest| {
                    rest.starts_with(char::is_whitespace) && rest.trim() == name
                })
        });
        profile.add(&contents(credentials)?, |section| section == name);
        Ok(profile)
    }

    /// Takes the values of the sections that `is_mine` chooses.
    fn add(&mut self, text: &str, is_mine: impl Fn(&str) -> bool) {
        let mut mine = false;
        for line in text.lines() {
            let start = line.trim_start();
            if start.is_empty() || start.starts_with(['#', ';']) {
                continue;
            }
            // What is indented belongs to the key before it: settings of one service.
            if line.starts_with(char::is_whitespace) {
                continue;
            }
            if let Some(section) = line.strip_prefix('[') {
                let section = section.split(']').next().unwrap_or_default();
                mine = is_mine(section.trim());
                self.exists |= mine;
            } else if mine && let Some((key, value)) = line.split_once('=') {
                // A comment has a space before it: keys may hold these signs.
                let end = [" #", " ;", "\t#", "\t;"]
                    .iter()
                    .filter_map(|sign| value.find(sign))
                    .min();
                let value = value[..end.unwrap_or(value.len())].trim();
                if !value.is_empty() {
                    let key = key.trim().to_ascii_lowercase();
                    self.values.insert(key, value.to_owned());
                }
            }
        }
    }

    /// Returns a value.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// Returns the key that says where credentials come from, if that is not the profile itself.
    pub fn indirect(&self) -> Option<&str> {
        self.values.keys().map(String::as_str).find(|key| {
            key.starts_with("sso_")
                || matches!(*key, "credential_process" | "role_arn" | "login_session")
        })
    }
}

fn contents(path: &Path) -> Result<String, String> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        result => result.map_err(|error| format!("{}: {error}", path.display())),
    }
}

/// Returns the paths of the file of credentials and of the configuration.
pub(super) fn paths(variable: impl Fn(&str) -> Option<String>) -> (PathBuf, PathBuf) {
    let home = PathBuf::from(variable("HOME").unwrap_or_default());
    let path = |name, default| match variable(name) {
        Some(path) => match path.strip_prefix("~/") {
            Some(below) => home.join(below),
            None => PathBuf::from(path),
        },
        None => home.join(".aws").join(default),
    };
    (
        path("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
        path("AWS_CONFIG_FILE", "config"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(name: &str, credentials: &str, config: &str) -> Profile {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name| folder.path().join(name);
        std::fs::write(path("credentials"), credentials).expect("written");
        std::fs::write(path("config"), config).expect("written");
        Profile::read(name, &path("credentials"), &path("config")).expect("read")
    }

    #[test]
    fn both_files_make_a_profile() {
        let credentials = "; by hand\n[default]\naws_access_key_id = A\n\n[ci]\n\
                           AWS_ACCESS_KEY_ID=B # the robot's\naws_secret_access_key = s#c=re;t\n\
                           [other]\naws_session_token = no\n";
        let config = "[default]\nregion = us-west-2\n[profile  ci]\nregion=eu-west-1\n\
                      s3 =\n    addressing_style = path\n    region = nested\n[ci]\nregion = not\n";
        let ci = profile("ci", credentials, config);
        assert!(ci.exists);
        assert_eq!(ci.get("aws_access_key_id"), Some("B"));
        assert_eq!(ci.get("aws_secret_access_key"), Some("s#c=re;t"));
        assert_eq!(ci.get("aws_session_token"), None);
        assert_eq!(ci.get("region"), Some("eu-west-1"));
        assert_eq!(ci.indirect(), None);
        assert_eq!(
            profile("default", credentials, config).get("region"),
            Some("us-west-2")
        );
        assert!(!profile("none", credentials, config).exists);
    }

    #[test]
    fn credentials_from_elsewhere_are_recognised() {
        let sso = profile("default", "", "[default]\nsso_session = work\n");
        assert_eq!(sso.indirect(), Some("sso_session"));
        let process = profile(
            "default",
            "",
            "[profile default]\ncredential_process = run\n",
        );
        assert_eq!(process.indirect(), Some("credential_process"));
    }

    #[test]
    fn paths_can_be_chosen() {
        let (credentials, config) = paths(|name| match name {
            "HOME" => Some("/home/a".to_owned()),
            "AWS_CONFIG_FILE" => Some("~/c".to_owned()),
            _ => None,
        });
        assert_eq!(credentials, Path::new("/home/a/.aws/credentials"));
        assert_eq!(config, Path::new("/home/a/c"));
    }
}
