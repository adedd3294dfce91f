mod errors;
mod nested;
mod official;
mod tables;

use super::*;
use std::fs;
use tempfile::TempDir;

/// Files with these names and texts, and their folder.
struct Files {
    dir: TempDir,
    paths: Vec<PathBuf>,
}

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let mut paths = Vec::new();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(&path, text).expect("written");
            paths.push(path);
        }
        Self { dir, paths }
    }

    fn read(&self, options: &ListOptions) -> anyhow::Result<List> {
        read(&self.paths, options)
    }
}

/// Reads one or several files.
fn list(files: &[(&str, &str)]) -> List {
    list_with(files, &ListOptions::default())
}

fn list_with(files: &[(&str, &str)], options: &ListOptions) -> List {
    Files::new(files).read(options).expect("a list")
}

/// Returns the error of reading files, without the accepted forms and the folder.
fn error(files: &[(&str, &str)]) -> String {
    error_with(files, &ListOptions::default())
}

fn error_with(files: &[(&str, &str)], options: &ListOptions) -> String {
    let files = Files::new(files);
    let error = files.read(options).expect_err("no list").to_string();
    let folder = format!("{}/", files.dir.path().display());
    let error = error.replace(&folder, "");
    error.trim_end_matches(FORMS).trim_end().to_owned()
}

fn label(column: &str) -> ListOptions {
    ListOptions {
        label: Some(column.to_owned()),
        times: true,
    }
}

/// Renders a bound: `1.5s` or `f30`.
fn bound(bound: Option<Bound>) -> String {
    match bound {
        None => String::new(),
        Some(Bound::Seconds(seconds)) => format!("{seconds}s"),
        Some(Bound::Frame(frame)) => format!("f{frame}"),
    }
}

/// Renders entries: `line name [times] label split id >cut[times]`, without what is missing.
fn entries(list: &List) -> Vec<String> {
    let render = |entry: &Entry| {
        let mut text = format!("{} {}", entry.line, entry.name);
        if entry.start.is_some() || entry.end.is_some() {
            text += &format!(" [{}..{}]", bound(entry.start), bound(entry.end));
        }
        for (mark, part) in [("", &entry.label), ("@", &entry.split), ("#", &entry.id)] {
            if let Some(part) = part {
                text += &format!(" {mark}{part}");
            }
        }
        if let Some(cut) = &entry.cut {
            text += &format!(" >{}", cut.name);
            if cut.start.is_some() {
                text += &format!("[{}..{}]", bound(cut.start), bound(cut.end));
            }
        }
        text
    };
    list.entries.iter().map(render).collect()
}

#[test]
fn forms_are_short() {
    assert!(FORMS.lines().count() <= 25);
    assert!(FORMS.lines().all(|line| line.len() <= 100));
}
