use super::super::{ListOptions, read};
use super::*;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use tempfile::TempDir;

/// List files with these texts beside a folder `root` with empty files.
struct Fixture {
    dir: TempDir,
    list: List,
    candidates: Vec<Candidate>,
}

impl Fixture {
    fn new(lists: &[(&str, &str)], files: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let mut paths = Vec::new();
        for (name, text) in lists {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            let text = text.replace("ROOT", &dir.path().join("root").display().to_string());
            fs::write(&path, text).expect("written");
            paths.push(path);
        }
        let root = dir.path().join("root");
        fs::create_dir_all(&root).expect("made");
        let candidate =
            |relative: &&str| Candidate::local(root.join(relative), PathBuf::from(relative));
        Self {
            list: read(&paths, &ListOptions::default()).expect("a list"),
            candidates: files.iter().map(candidate).collect(),
            dir,
        }
    }

    fn find(&self) -> anyhow::Result<Found> {
        find(&self.list, &self.candidates)
    }

    /// Renders the file of each entry, or a dash.
    fn files(&self) -> Vec<String> {
        let found = self.find().expect("found");
        let mut names = vec!["-".to_owned(); self.list.entries.len()];
        for listed in &found.videos {
            for &entry in &listed.entries {
                names[entry] = self.candidates[listed.file].relative.display().to_string();
            }
        }
        for &entry in &found.missing {
            assert_eq!(names[entry], "-");
        }
        names
    }

    fn error(&self) -> String {
        let error = self.find().expect_err("not found").to_string();
        error.replace(&format!("{}/", self.dir.path().display()), "")
    }
}

#[test]
fn names() {
    let files = [
        "a.mp4",
        "x/a.mp4",
        "x/b.mkv",
        "x/y/c.d.webm",
        "x/y/c.mp4",
        "-id_1.mp4",
        "x/bb.mp4",
        "plain",
    ];
    let cases = [
        // The path below the folder searched goes before the end of another.
        ("a.mp4", "a.mp4"),
        ("./x//a.mp4", "x/a.mp4"),
        ("ROOT/x/a.mp4", "x/a.mp4"),
        ("ROOT/x/../a", "a.mp4"),
        ("root/x/b.mkv", "x/b.mkv"),
        ("x/b", "x/b.mkv"),
        ("b.mp4", "x/b.mkv"),
        ("y/c.mp4", "x/y/c.mp4"),
        ("c", "x/y/c.mp4"),
        ("c.d", "x/y/c.d.webm"),
        ("-id_1", "-id_1.mp4"),
        ("bb", "x/bb.mp4"),
        ("plain", "plain"),
        ("plain.mp4", "plain"),
        ("/other/machine/x/bb.avi", "x/bb.mp4"),
        ("train/plain", "plain"),
        ("b.d", "-"),
        ("z/y/c.mp4", "-"),
        ("id_1", "-"),
    ];
    for (name, file) in cases {
        let fixture = Fixture::new(&[("list.csv", &format!("path\n{name}\n"))], &files);
        assert_eq!(fixture.files(), [file], "{name}");
    }
}

#[test]
fn sidecars() {
    let files = [
        "a.csv",
        "a.info.json",
        "a.json",
        "a.mp4",
        "a.txt",
        "a.x",
        "b.json",
        "b.x",
        "c.txt",
    ];
    let fixture = Fixture::new(&[("list.csv", "path\na\nb\nc\n")], &files);
    assert_eq!(fixture.files(), ["a.mp4", "b.x", "-"]);
}

#[test]
fn relative_to_the_list() {
    let files = ["a.mp4", "train/a.mp4", "train/clips/b.mp4"];
    let metadata = "{\"file_name\":\"a.mp4\"}\n{\"file_name\":\"clips/b.mp4\"}\n";
    let fixture = Fixture::new(&[("root/train/metadata.jsonl", metadata)], &files);
    assert_eq!(fixture.files(), ["train/a.mp4", "train/clips/b.mp4"]);
    let lines = "../train/clips/b.mp4 1\na.mp4 1\n";
    let fixture = Fixture::new(&[("root/lists/list.txt", lines)], &files);
    assert_eq!(fixture.files(), ["train/clips/b.mp4", "a.mp4"]);
}

#[test]
fn ambiguous_names() {
    let files = [
        "jump_high/1.mp4",
        "run/1.mp4",
        "train/2.mp4",
        "val/2.mp4",
        "x/Run/1.avi",
    ];
    let fixture = Fixture::new(
        &[(
            "list.csv",
            "path,label,split\n1.mp4,Jump High,train\n2,?,validation\n",
        )],
        &files,
    );
    assert_eq!(fixture.files(), ["jump_high/1.mp4", "val/2.mp4"]);
    let fixture = Fixture::new(&[("list.csv", "path,label\nq,3\n1.mp4,4\n")], &files);
    assert_eq!(
        fixture.error(),
        "line 3 of list.csv names 1.mp4, which may be jump_high/1.mp4, run/1.mp4: write more of \
         its path, or search a folder that holds only one of them"
    );
    let fixture = Fixture::new(&[("list.csv", "path,label\n1,run\n")], &files);
    assert_eq!(
        fixture.error(),
        "line 2 of list.csv names 1, which may be run/1.mp4, x/Run/1.avi: write more of its path, \
         or search a folder that holds only one of them"
    );
    let many = ["a/1.mp4", "b/1.mp4", "c/1.mp4", "d/1.mp4", "e/1.mp4"];
    let fixture = Fixture::new(&[("list.csv", "path\n1\n")], &many);
    let error = fixture.error();
    assert!(
        error.contains("may be a/1.mp4, b/1.mp4, c/1.mp4 and 2 more: "),
        "{error}"
    );
    // Split and class together.
    let both = ["train/run/1.mp4", "val/run/1.mp4", "val/hop/1.mp4"];
    let fixture = Fixture::new(&[("val.csv", "path,label\n1,run\n")], &both);
    assert_eq!(fixture.files(), ["val/run/1.mp4"]);
}

#[test]
fn trimmed_files() {
    let csv = "label,youtube_id,time_start,time_end,split\n\
               yoga,-a,5,15,train\nyoga,b,0,10,train\nyoga,c,0,10,train\n";
    let files = ["yoga/-a_000005_000015.mp4", "yoga/b.mkv", "yoga/-a.mp4"];
    let fixture = Fixture::new(&[("train.csv", csv)], &files);
    assert_eq!(
        fixture.files(),
        ["yoga/-a_000005_000015.mp4", "yoga/b.mkv", "-"]
    );
    let found = fixture.find().expect("found");
    assert_eq!(
        (found.trimmed.as_slice(), found.missing.as_slice()),
        (&[0][..], &[2][..])
    );
    assert_eq!(found.segment(&fixture.list, 0), (None, None));
    let times = (Some(Bound::Seconds(0.0)), Some(Bound::Seconds(10.0)));
    assert_eq!(found.segment(&fixture.list, 1), times);
}

#[test]
fn one_file_under_two_names() {
    let files = ["x/a.mp4"];
    let fixture = Fixture::new(
        &[("list.csv", "path,label\na,1\nx/a.mp4,1\nx/a,2\n")],
        &files,
    );
    let found = fixture.find().expect("found");
    assert_eq!(
        found.videos,
        [Listed {
            file: 0,
            entries: vec![0, 2]
        }]
    );
    assert_eq!(found.repeated, 1);
    let lists = [("train.csv", "path\na\n"), ("val.csv", "path\nx/a.mp4\n")];
    assert_eq!(
        Fixture::new(&lists, &files).error(),
        "line 2 of train.csv (a) and line 2 of val.csv (x/a.mp4) are one segment with the splits \
         train and val: what is trained on would be tested on"
    );
    let lists = [("list.csv", "path\ntrain/x/a.mp4\nval/x/a.mp4\n")];
    assert_eq!(
        Fixture::new(&lists, &files).error(),
        "line 2 of list.csv names train/x/a.mp4 and line 3 of list.csv val/x/a.mp4, but both can \
         only be root/x/a.mp4: search the folder that holds both"
    );
}

#[test]
fn order_is_that_of_the_files() {
    let fixture = Fixture::new(
        &[("list.csv", "path,start,end\nb,0,1\na,0,1\nb,1,2\n")],
        &["a.mp4", "b.mp4", "c.mp4"],
    );
    let found = fixture.find().expect("found");
    let listed = |file, entries| Listed { file, entries };
    assert_eq!(found.videos, [listed(0, vec![1]), listed(1, vec![0, 2])]);
    assert!(found.missing.is_empty());
}

#[test]
fn links_to_the_folder() {
    let dir = tempfile::tempdir().expect("a folder");
    let real = dir.path().join("real");
    fs::create_dir(&real).expect("made");
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&real, &link).expect("linked");
    let list = dir.path().join("list.csv");
    fs::write(&list, format!("path\n{}\n", real.join("a.mp4").display())).expect("written");
    let list = read(&[list], &ListOptions::default()).expect("a list");
    let candidate =
        |relative: &str| Candidate::local(link.join(relative), Path::new(relative).to_owned());
    let found = find(&list, &[candidate("a.mp4"), candidate("x/a.mp4")]).expect("found");
    assert_eq!(
        found.videos,
        [Listed {
            file: 0,
            entries: vec![0]
        }]
    );
}
