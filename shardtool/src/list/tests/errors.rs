//! Errors, and what several lines say together.

use super::*;

#[test]
fn empty_segments_are_dropped_and_named() {
    for (columns, row, what) in [
        ("start,end", "a,1,1", "it starts at 1 s and ends at 1 s"),
        ("start,end", "a,3,2", "it starts at 3 s and ends at 2 s"),
        ("start,end", "a,,0", "it starts at 0 s and ends at 0 s"),
        (
            "start_frame,end_frame",
            "a,2,2",
            "it starts at frame 2 and ends at frame 2",
        ),
        (
            "start_frame,end_frame",
            "a,,0",
            "it starts at frame 0 and ends at frame 0",
        ),
    ] {
        let text = format!("path,{columns}\nok,0,1\n{row}\n");
        let list = list(&[("x.csv", &text)]);
        let [(place, reason)] = list.empty.as_slice() else {
            panic!("{:?}", list.empty);
        };
        assert!(place.starts_with("line 3 of "), "{place}");
        assert_eq!(*reason, format!("an empty segment: {what}"));
        assert_eq!(list.entries.len(), 1);
        let text = format!("path,{columns}\n{row}\n");
        assert_eq!(
            error(&[("x.csv", &text)]),
            format!(
                "all segments are empty: line 2 of x.csv has an empty segment: {what}; are start \
                 and end exchanged?"
            )
        );
    }
}

#[test]
fn rows() {
    let cases = [
        ("a,-1,2", "has the time -1, which is negative"),
        ("a,NaN,2", "has the time NaN, which is not finite"),
        ("a,inf,2", "has the time inf, which is not finite"),
        (
            "a,x,2",
            "has the time x, which is no number of seconds and no HH:MM:SS.ff",
        ),
        (
            "a,1:2:3:4,5",
            "has the time 1:2:3:4, which is not of the form HH:MM:SS.ff",
        ),
        (
            "a,1:-2,5",
            "has the time 1:-2, which is not of the form HH:MM:SS.ff",
        ),
        (
            "a,1:61,5",
            "has the time 1:61, which has 60 or more minutes or seconds",
        ),
        (",1,2", "has no path or id of a video"),
        (" ,1,2", "has no path or id of a video"),
    ];
    for (row, what) in cases {
        let text = format!("path,start,end\nok,0,1\n{row}\n");
        assert_eq!(
            error(&[("x.csv", &text)]),
            format!("line 3 of x.csv {what}")
        );
    }
    for (row, what) in [
        ("a,-1,2", "has the frame -1, which is negative"),
        ("a,1.5,2", "has the frame 1.5, which is no whole number"),
    ] {
        let text = format!("path,start_frame,end_frame\n{row}\n");
        assert_eq!(
            error(&[("x.csv", &text)]),
            format!("line 2 of x.csv {what}")
        );
    }
    assert_eq!(
        error(&[("x.csv", "path,label\na,-2\n")]),
        "line 2 of x.csv has the label -2: the only number below 0 is -1, no label"
    );
    assert_eq!(
        error(&[("x.csv", "path,label\na,3000000000\n")]),
        "line 2 of x.csv has the label 3000000000: the greatest number is 2147483647"
    );
}

#[test]
fn files() {
    let none = read(&[], &ListOptions::default()).expect_err("no list");
    assert!(none.to_string().ends_with(FORMS));
    assert_eq!(error(&[("x.csv", "")]), "x.csv is empty");
    assert_eq!(error(&[("x.csv", "path,label\n")]), "x.csv names no videos");
    assert_eq!(
        error(&[("x.csv", "start,end,label\n1,2,x\n")]),
        "line 1 of x.csv is a header without a column for the path or id of the video"
    );
    assert_eq!(
        error(&[("x.json", "[{\"label\":\"x\"}]")]),
        "x.json has no column for the path or id of the video; its columns are label"
    );
    assert_eq!(
        error(&[("x.csv", "a,b,c\n1,2,3\n")]),
        "line 1 of x.csv has 3 cells, but there is no header that names them: without one, a line \
         is a path and a label"
    );
    assert_eq!(
        error(&[("x.csv", "vidpath,target\nq,1\nr,2\n")]),
        "line 1 of x.csv seems to be a header, as all other labels are numbers, but none of its \
         columns is known to hold paths"
    );
    assert_eq!(
        error(&[("x.csv", "path,start,start_time,end\na,1,1,2\n")]),
        "x.csv has several columns for the start, start and start_time: leave one of them"
    );
    assert_eq!(
        error(&[("x.csv", "path,label\na,b,c\n")]),
        "line 2 of x.csv has 3 cells, the header has 2: quote what contains a separator"
    );
    let by_columns = error(&[("x.json", "{\"path\":[\"a\"],\"label\":[1]}")]);
    assert!(by_columns.starts_with("x.json is one JSON object, by columns"));
    let full = Files::new(&[("x.csv", "start,end\n1,2\n")]);
    let full = full.read(&ListOptions::default()).expect_err("no list");
    assert!(full.to_string().ends_with(FORMS));
}

#[test]
fn classes() {
    let names = ("classInd.txt", "0 yoga\n1 riding a bike\n");
    assert_eq!(
        error(&[names]),
        "the list files name classes, but no videos"
    );
    assert_eq!(
        error(&[("x.txt", "a.mp4 1\nb.mp4 2\n"), names]),
        "line 2 of x.txt has the class 2, but classInd.txt names 0 to 1"
    );
    assert_eq!(
        error(&[
            ("x.txt", "a.mp4 1\n"),
            names,
            ("classes.txt", "yoga 0\nrun 1\n")
        ]),
        "classInd.txt and classes.txt both name classes: give one of them, or a column of their \
         numbers with --list-label COLUMN"
    );
    let unclear = error(&[("x.txt", "yoga,0\nrun,1\n")]);
    assert!(
        unclear.starts_with("x.txt may be a list of videos or of classes"),
        "{unclear}"
    );
    let paths = list(&[("x.txt", "c/yoga 0\nc/run 1\n")]);
    assert_eq!(entries(&paths), ["1 c/yoga 0", "2 c/run 1"]);
    assert_eq!(
        error(&[("x.txt", "a.mp4 1\n"), ("y.txt", "b.mp4 run\n")]),
        "line 1 of x.txt has a class by its number, 1, and line 1 of y.txt one by its name, run: \
         give a file of class names and numbers as well"
    );
    // With a file of class names, numbers and names go together.
    let both = list(&[("x.txt", "a.mp4 1\n"), ("y.txt", "b.mp4 yoga\n"), names]);
    assert_eq!(entries(&both), ["1 a.mp4 riding a bike", "1 b.mp4 yoga"]);
    assert_eq!(
        error(&[("x.csv", "id,name\n0,yoga\n1,yoga\n")]),
        "line 3 of x.csv repeats the class yoga"
    );
}

#[test]
fn duplicates() {
    let text = "path,start,end,label,split\n\
                a,0,1,x,train\na,0.0,1.0,x,train\na,0,1,y,train\na,0,1,,train\na,0.5,2,x,train\n\
                b,0,1,,train\nb,0,1,z,\n";
    let read = list(&[("x.csv", text)]);
    assert_eq!(
        entries(&read),
        [
            "2 a [0s..1s] x @train",
            "4 a [0s..1s] y @train",
            "6 a [0.5s..2s] x @train",
            "7 b [0s..1s] z @train",
        ]
    );
    assert_eq!((read.duplicates, read.relabelled), (3, 1));
    assert_eq!(
        error(&[
            ("train.txt", "a.mp4 1\n"),
            ("val.txt", "b.mp4 1\na.mp4 1\n")
        ]),
        "line 1 of train.txt and line 2 of val.txt give a.mp4 the splits train and val: what is \
         trained on would be tested on"
    );
}

#[test]
fn splits_of_names() {
    let cases = [
        ("trainlist01.txt", Some("train")),
        ("validationSet.csv", Some("val")),
        ("EPIC_100_uda_target_test_timestamps.csv", Some("test")),
        ("kinetics_val.csv", Some("val")),
        ("train_and_val.csv", None),
        ("testimonials.csv", None),
        ("dev.csv", None),
    ];
    for (name, split) in cases {
        assert_eq!(values::split_of_file(name), split, "{name}");
    }
}
