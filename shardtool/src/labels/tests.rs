use super::*;

fn videos(paths: &[&str]) -> Vec<VideoFile> {
    let video = |path: &&str| VideoFile::local(Path::new("in").join(path), path.into());
    paths.iter().map(video).collect()
}

fn found(text: impl AsRef<[u8]>, paths: &[&str]) -> anyhow::Result<Found> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("labels.txt");
    fs::write(&file, text).expect("written");
    find(&videos(paths), &LabelSource::File(file))
}

fn labels(text: impl AsRef<[u8]>, paths: &[&str]) -> Vec<Option<String>> {
    found(text, paths).expect("a valid file").names.labels
}

/// The whole error without the name of the file.
fn error(text: impl AsRef<[u8]>, paths: &[&str]) -> String {
    let error = found(text, paths)
        .map(|found| found.names.labels)
        .expect_err("no valid file")
        .to_string();
    let Some((before, file)) = error.split_once('/') else {
        return error;
    };
    format!(
        "{before}{}",
        file.split_once("labels.txt").expect("the file's name").1
    )
}

fn some(labels: &[&str]) -> Vec<Option<String>> {
    labels
        .iter()
        .map(|label| (!label.is_empty()).then(|| (*label).to_owned()))
        .collect()
}

const AB: [&str; 2] = ["a.mp4", "b.mp4"];

#[test]
fn names_are_numbered_in_their_order() {
    let found = found(
        "a/1.mp4 walk\n2.mp4, run\n# note\n\nin/with blank.mp4\tjump\n",
        &["a/1.mp4", "b/2.mp4", "with blank.mp4", "x.mp4"],
    );
    let found = found.expect("a valid file");
    assert_eq!(found.coverage.unlabelled, 1);
    assert_eq!(found.coverage.unlabelled_examples, ["in/x.mp4"]);
    let labels = found.names.number(&[]);
    assert_eq!(labels.classes, ["jump", "run", "walk"]);
    let numbers: Vec<_> = labels.labels.iter().map(|label| label.number).collect();
    assert_eq!(numbers, [Some(2), Some(1), Some(0), None]);
}

#[test]
fn known_classes_keep_their_numbers() {
    let found = found("a.mp4,walk\nb.mp4,jump\n", &AB).expect("a valid file");
    let labels = found.names.number(&["run".to_owned(), "walk".to_owned()]);
    assert_eq!(labels.classes, ["run", "walk", "jump"]);
    assert_eq!(labels.labels[0].number, Some(1));
    assert_eq!(
        labels.labels[1],
        Label {
            number: Some(2),
            class: Some("jump".to_owned())
        }
    );
}

#[test]
fn numbers_are_names_where_a_build_has_classes() {
    let found = found("a.mp4,7\nb.mp4,-1\n", &AB).expect("a valid file");
    let labels = found.names.number(&["walk".to_owned()]);
    assert_eq!(labels.classes, ["walk", "7"]);
    assert_eq!(
        labels.labels[0],
        Label {
            number: Some(1),
            class: Some("7".to_owned())
        }
    );
}

#[test]
fn columns_are_separated_by_commas_or_tabs_and_quoted() {
    let paths = ["a, \"b\".mp4", "c d.mp4"];
    let expected = some(&["riding a bike", "drinking, eating"]);
    for text in [
        "\"a, \"\"b\"\".mp4\",riding a bike\nc d.mp4,\"drinking, eating\"\n",
        "\"a, \"\"b\"\".mp4\"\triding a bike\nc d.mp4\tdrinking, eating\n",
        // A byte order mark, lines that end as on Windows, blanks, comments.
        "\u{feff}# a \"list\r\n\r\n\"a, \"\"b\"\".mp4\",riding a bike\r\n  # x,\"y\r\nc \
         d.mp4,\"drinking, eating\"\r\n",
        "\u{feff}path\tlabel\r\nin/c d.mp4\tdrinking, eating\r\n\"a, \"\"b\"\".mp4\"\triding a \
         bike",
    ] {
        assert_eq!(labels(text, &paths), expected, "{text}");
    }
}

#[test]
fn a_header_picks_columns_in_any_order() {
    for text in [
        "path,label\na.mp4,walk\nb.mp4,run\n",
        "Class\tVideo ID\nwalk\ta.mp4\nrun\tb\n",
        "split,action,frames,filename\ntrain,walk,12,a.mp4\nval,run,9,b.mp4\n",
        "path label\na.mp4 walk\nb.mp4 run\n",
        // The column of identifiers names no video.
        "video_id,path,label\n17,a.mp4,walk\n18,b.mp4,run\n",
        "path,video_id,label\na.mp4,17,walk\nb.mp4,18,run\n",
    ] {
        let found = found(text, &AB).expect("a valid file");
        assert_eq!(found.names.labels, some(&["walk", "run"]), "{text}");
        assert_eq!(found.coverage, Coverage::default(), "{text}");
    }
    assert!(
        found("path,label\na.mp4,1\nb.mp4,2\n", &AB)
            .expect("a valid file")
            .names
            .numeric
    );
}

#[test]
fn a_first_line_that_names_a_video_is_no_header() {
    let found = found("clip,action\na.mp4,walk\n", &["a.mp4", "clip.mp4"]).expect("a valid file");
    assert_eq!(found.names.labels, some(&["walk", "action"]));
    let text = error("name,kind\na.mp4,1\nb.mp4,2\n", &AB);
    assert!(
        text.starts_with("line 1 of  seems to be a header"),
        "{text}"
    );
}

#[test]
fn a_label_of_several_words_follows_a_known_video_or_is_the_last_word() {
    let paths = ["a.mp4", "a b.mp4", "clips/c d.mp4"];
    let text =
        "a.mp4 riding a bike\na b.mp4  drinking, eating\nc d running fast\nx y.mp4 sitting\n";
    let found = found(text, &paths).expect("a valid file");
    assert_eq!(
        found.names.labels,
        some(&["riding a bike", "drinking, eating", "running fast"])
    );
    assert_eq!(found.coverage.unmatched_examples, ["x y.mp4"]);
    // The longest video that fits.
    assert_eq!(labels("a b c", &["a.mp4", "a b.mp4"]), some(&["", "c"]));
    // A comma may be part of a path.
    assert_eq!(
        labels("a,b.mp4 3\nc.mp4 4", &["a,b.mp4", "c.mp4"]),
        some(&["3", "4"])
    );
    assert_eq!(labels("a.mp4\t\t3\nb.mp4\t4", &AB), some(&["3", "4"]));
    // After a byte order mark.
    assert_eq!(
        labels("\u{feff}a.mp4 3\r\nb.mp4 4\r\n", &AB),
        some(&["3", "4"])
    );
}

#[test]
fn numbers_stay_numbers_and_minus_one_is_none() {
    let found = found(
        "a.mp4 70000\nb.mp4 -1\nc.mp4 03\n",
        &["a.mp4", "b.mp4", "c.mp4"],
    );
    let found = found.expect("a valid file");
    assert_eq!(found.coverage.unlabelled_examples, ["in/b.mp4"]);
    let labels = found.names.number(&[]);
    let numbers: Vec<_> = labels.labels.iter().map(|label| label.number).collect();
    assert_eq!(numbers, [Some(70_000), None, Some(3)]);
    assert!(labels.classes.is_empty());
    assert!(labels.labels.iter().all(|label| label.class.is_none()));
    assert_eq!(
        error_of_numbers("2147483648"),
        "line 2 of  has the label 2147483648: the greatest number is 2147483647"
    );
    assert_eq!(
        error_of_numbers("-2"),
        "line 2 of  has the label -2: the only number below 0 is -1, no label"
    );
}

fn error_of_numbers(number: &str) -> String {
    let text = error(format!("a.mp4,2147483647\nb.mp4,{number}\n"), &AB);
    text.lines().next().expect("a line").to_owned()
}

#[test]
fn numbers_among_names_are_names() {
    let found = found(
        "a.mp4,walk\nb.mp4,-1\nc.mp4,\nd.mp4,7",
        &["a.mp4", "b.mp4", "c.mp4", "d.mp4"],
    );
    let found = found.expect("a valid file");
    assert_eq!((found.names.numeric, found.coverage.unlabelled), (false, 2));
    assert_eq!(found.names.labels, some(&["walk", "", "", "7"]));
    assert_eq!(found.names.number(&[]).classes, ["7", "walk"]);
    let text = error("a.mp4,walk\nb.mp4,-3\n", &AB);
    assert!(text.starts_with("line 2 of  has the label -3"), "{text}");
    // The meaning of the file does not depend on which of its videos exist.
    assert_eq!(labels("a.mp4,7\nb.mp4,walk", &["a.mp4"]), some(&["7"]));
}

#[test]
fn paths_may_lack_their_ending_or_have_another() {
    let paths = ["Archery/v_1.avi", "Archery/v_1.5.avi", "b.mp4"];
    let text = "Archery/v_1 x\nArchery/v_1.5 y\nb.webm z\n";
    assert_eq!(labels(text, &paths), some(&["x", "y", "z"]));
    // An exact match comes first, and the line then matches no other video.
    assert_eq!(
        labels("a.avi,x\nb,y", &["a.avi", "a.mp4", "b.mp4"]),
        some(&["x", "", "y"])
    );
    let text = error("b.webm,x\nb.avi,y\n", &["b.mp4"]);
    assert!(
        text.starts_with("lines 1 and 2 of  give b.webm two labels: x and y"),
        "{text}"
    );
}

#[test]
fn a_bare_name_is_of_every_video_that_has_it() {
    let paths = ["a/1.mp4", "b/1.mp4"];
    assert_eq!(labels("1.mp4 x", &paths), some(&["x", "x"]));
    assert_eq!(labels("1.mp4 x\n./b//1.mp4 y", &paths), some(&["x", "y"]));
}

#[test]
fn a_label_twice_is_fine_and_two_labels_are_not() {
    assert_eq!(
        labels("a.mp4,x\nb.mp4,y\n./a.mp4,x\n", &AB),
        some(&["x", "y"])
    );
    assert_eq!(labels("a.mp4,1\nin/a.mp4,01\n", &AB), some(&["1", ""]));
    let text = error("a.mp4,x\nb.mp4,y\n\n./a.mp4,z\n", &AB);
    assert_eq!(text, "lines 1 and 4 of  give a.mp4 two labels: x and z");
    // By another of its names.
    let text = error("a.mp4,x\nin/a.mp4,\n", &AB);
    assert_eq!(text, "lines 1 and 2 of  give a.mp4 two labels: x and none");
}

#[test]
fn what_does_not_fit_is_counted_and_named() {
    let lines: String = (0..7)
        .map(|number| format!("gone-{number}.mp4,1\n"))
        .collect();
    let found = found(format!("a.mp4,1\n{lines}"), &AB).expect("a valid file");
    let coverage = found.coverage;
    assert_eq!(
        (coverage.unmatched, coverage.unmatched_examples.len()),
        (7, 5)
    );
    assert_eq!(
        coverage.render(),
        [
            "1 video without a label: in/b.mp4",
            "7 lines of the label file match no video: gone-0.mp4, gone-1.mp4, gone-2.mp4, \
             gone-3.mp4, gone-4.mp4 and 2 more"
        ]
    );
}

#[test]
fn errors_name_the_line_and_the_accepted_forms() {
    for (text, expected) in [
        (&b"a.mp4 1\nb.mp4\n"[..], "line 2 of  has no label"),
        (b"a.mp4,1\n#\n\n# \"\nb.mp4\n", "line 5 of  has no label"),
        (
            b"a.mp4,1,2\nb.mp4,1,2\n",
            "line 1 of  has 3 columns and no header",
        ),
        (b"a.mp4\t1\t2\n", "line 1 of  has 3 columns and no header"),
        (
            b"a.mp4,1\nb.mp4,drinking, eating\n",
            "line 2 of  has 3 columns, there should be a path",
        ),
        (
            b"x,path,label\n1,a.mp4,1\n2,b.mp4\n",
            "line 3 of  has 2 columns, the header has 3",
        ),
        (
            b"path,label,class\na.mp4,1,walk\n",
            "line 1 of  is a header with several columns of labels",
        ),
        (
            b"label path\n1 a.mp4\n",
            "line 1 of  is a header with the label first",
        ),
        (
            b"a.mp4 0 120 3\n",
            "line 1 of  has several numbers after a.mp4",
        ),
        (
            b"a.mp4,1\n\"b.mp4,2\n# x\n",
            "line 2 of  has a quote that is never closed",
        ),
        (
            b"\"a.mp4,1\nb.mp4,2\n",
            "line 1 of  has a quote that is never closed",
        ),
        (b"a.mp4,1\n,2\n", "line 2 of  has no path"),
        (
            b"c.mp4 1\n",
            " names none of the videos, the first of which is in/a.mp4",
        ),
        (
            b"",
            " names none of the videos, the first of which is in/a.mp4",
        ),
    ] {
        let text = error(text, &AB);
        assert!(text.starts_with(expected), "{expected}: {text}");
        assert!(text.ends_with(FORMS), "{text}");
    }
    assert_eq!(
        error(b"a.mp4,1\r\nb\xe9.mp4,2\r\n", &AB),
        "line 2 of  is not UTF-8: save the file as UTF-8"
    );
    let utf16: Vec<u8> = "\u{feff}a.mp4,1"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let text = error(utf16, &AB);
    assert!(
        text.contains("is not UTF-8, it looks like UTF-16"),
        "{text}"
    );
}

#[test]
fn files_whose_names_are_not_text_are_named_as_in_lists() {
    use std::os::unix::ffi::OsStrExt;
    let name = Path::new(std::ffi::OsStr::from_bytes(b"a\xff.mp4"));
    let video = VideoFile::local(Path::new("in").join(name), name.to_owned());
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("labels.txt");
    fs::write(&file, "in/a\\xff.mp4,walk\n").expect("written");
    let found = find(&[video], &LabelSource::File(file)).expect("a valid file");
    assert_eq!(found.names.labels, some(&["walk"]));
}

#[test]
fn paths_are_found_beside_the_labels_and_from_the_root() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let root = fs::canonicalize(dir.path()).expect("a path");
    fs::create_dir_all(root.join("set/videos")).expect("made");
    let paths = AB.map(|name| root.join("set/videos").join(name));
    paths
        .iter()
        .for_each(|path| fs::write(path, "").expect("written"));
    let videos: Vec<VideoFile> = paths
        .iter()
        .map(|path| VideoFile::local(path.clone(), "x".into()))
        .collect();
    let file = root.join("set/labels.csv");
    fs::write(&file, format!("videos/a.mp4,x\n{},y\n", paths[1].display())).expect("written");
    let found = find(&videos, &LabelSource::File(file)).expect("a valid file");
    assert_eq!(found.names.labels, some(&["x", "y"]));
}
