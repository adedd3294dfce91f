//! Tables with a header, and lines without.

use super::*;

#[test]
fn hugging_face() {
    let lines = "{\"file_name\":\"train/a.mp4\",\"label\":\"x\"}\n\
                 {\"file_name\":\"validation/b.mp4\",\"label\":\"y\",\"extra\":[1]}\n";
    let read = list(&[("metadata.jsonl", lines)]);
    assert_eq!(
        entries(&read),
        ["1 train/a.mp4 x @train", "2 validation/b.mp4 y @val"]
    );
    assert_eq!(read.recognised[0].form, Form::HuggingFace);
    let csv = "video_id,file_name,label,original_filename,split\na,a.mp4,eat,b.avi,\n";
    assert_eq!(
        entries(&list(&[("test/metadata.csv", csv)])),
        ["2 a.mp4 eat @test"]
    );
}

#[test]
fn generic() {
    let csv = "# mine\nVideo Path,start,End,class,subset,clip_id\n\
               a.mp4,0,1.5,x,train,c1\na.mp4,00:01:02.5,,y,other,\n";
    assert_eq!(
        entries(&list(&[("list.csv", csv)])),
        [
            "3 a.mp4 [0s..1.5s] x @train #c1",
            "4 a.mp4 [62.5s..] y @other",
        ]
    );
    let frames = "[{\"vid_name\":\"-a_1\",\"label\":3,\"start_frame\":0,\"end_frame\":48},\
                  {\"vid_name\":\"b\",\"label\":-1,\"start_frame\":null,\"end_frame\":70.0}]";
    assert_eq!(
        entries(&list(&[("Diving48_V2_train.json", frames)])),
        ["1 -a_1 [f0..f48] 3 @train", "2 b [..f70] @train"]
    );
    let both = "path\tstart_sec\tend_sec\tstart_frame\tend_frame\na\t1\t2\t30\t60\n";
    assert_eq!(entries(&list(&[("t.tsv", both)])), ["2 a [1s..2s]"]);
    let whole = ListOptions {
        label: None,
        times: false,
    };
    let read = list_with(&[("t.tsv", both)], &whole);
    assert_eq!(entries(&read), ["2 a"]);
    assert_eq!(read.recognised[0].notes, ["no labels", "times ignored"]);
    // Columns with gaps are decimals.
    assert_eq!(
        entries(&list(&[("x.csv", "id;label\na;3.0\nb;\nc;-1.0\n")])),
        ["2 a 3", "3 b", "4 c"]
    );
    assert_eq!(entries(&list(&[("x.csv", "video_id\na b\n")])), ["2 a b"]);
}

#[test]
fn chosen_labels() {
    let csv = "path,label,class_name\na,3,jump\n";
    assert_eq!(
        error(&[("x.csv", csv)]),
        "x.csv has several columns of labels, label and class_name: choose one with --list-label \
         COLUMN"
    );
    let read = list_with(&[("x.csv", csv)], &label("Class name"));
    assert_eq!(entries(&read), ["2 a jump"]);
    assert_eq!(
        error_with(&[("x.csv", csv)], &label("verb")),
        "x.csv has no column verb for the labels; its columns are path, label, class_name"
    );
    assert_eq!(
        error_with(&[("x.csv", "path,x\na,3\n")], &label("verb")),
        "no list file has a column verb for the labels"
    );
    assert_eq!(
        error_with(&[("x.csv", "a.mp4 3\n")], &label("verb")),
        "x.csv has no header, so that its columns have no names"
    );
}

#[test]
fn lines_with_extensions() {
    let text = "\u{feff}# comment\n a b.mp4 riding a bike\n\"c 1.mp4\" 3\n\nd.webm\ne.MP4 0 -1\n";
    let read = list(&[("train.csv", text)]);
    assert_eq!(
        entries(&read),
        [
            "2 a b.mp4 riding a bike @train",
            "3 c 1.mp4 3 @train",
            "5 d.webm @train",
            "6 e.MP4 @train",
        ]
    );
    assert_eq!(read.recognised[0].form, Form::Lines);
    let several = error(&[("x.txt", "a.mp4 1\nb.mp4 1 3 5\n")]);
    assert!(several.starts_with("line 2 of x.txt has several numbers after b.mp4: columns need"));
}

#[test]
fn lines_with_separators() {
    for text in [
        "some/a,b 1\nsome/c 2\n",
        "\"some/a,b\",1\nsome/c,2\n",
        "some/a,b\t1\nsome/c\t2\n",
    ] {
        if text.contains("b 1") {
            let error = error(&[("x.txt", text)]);
            assert!(
                error.starts_with("line 2 of x.txt has 1 cell, but there is"),
                "{error}"
            );
            continue;
        }
        assert_eq!(
            entries(&list(&[("x.txt", text)])),
            ["1 some/a,b 1", "2 some/c 2"]
        );
    }
    assert_eq!(
        entries(&list(&[("x.txt", "a.mp4, 3\nb c.mp4 ,\n")])),
        ["1 a.mp4 3", "2 b c.mp4"]
    );
}

#[test]
fn first_lines_that_look_like_headers() {
    // Classes may have the names of columns.
    assert_eq!(
        entries(&list(&[("x.csv", "a.mp4,video\nb.mp4,class\n")])),
        ["1 a.mp4 video", "2 b.mp4 class"]
    );
    let line = "{\"video_id\":\"12\"}";
    assert_eq!(entries(&list(&[("x.jsonl", line)])), ["1 12"]);
}

#[test]
fn words() {
    assert_eq!(
        entries(&list(&[("x.txt", "id1\nid-2\n")])),
        ["1 id1", "2 id-2"]
    );
    assert_eq!(
        entries(&list(&[("x.txt", "c/id1 5\nc/id-2 5\n")])),
        ["1 c/id1 5", "2 c/id-2 5"]
    );
    let raw = list(&[("x.txt", "some/dir-1 163 1\nsome/dir-2 122 -1\n")]);
    assert_eq!(entries(&raw), ["1 some/dir-1 1", "2 some/dir-2"]);
    assert_eq!(raw.recognised[0].form, Form::RawFrames);
    let ragged = error(&[("x.txt", "id1 1\nid 2 1\n")]);
    assert!(ragged.starts_with("line 2 of x.txt has 3 words, the first line has 2: quote"));
    let long = error(&[("x.txt", "some/dir-1 163 1 3\n")]);
    assert!(
        long.starts_with("line 1 of x.txt is neither a path, nor"),
        "{long}"
    );
}
