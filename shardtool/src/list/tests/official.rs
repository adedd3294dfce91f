//! Miniatures of official lists.

use super::*;

#[test]
fn kinetics() {
    let train = "label,youtube_id,time_start,time_end,split,is_cc\n\
                 \"riding a bike\",-abc_DEF.gh,5,15,train,0\n\
                 testifying,---QUuC4vJs,84,94,validate,1\n";
    let test = "youtube_id,time_start,time_end,split\nxyz,0,10,test\n";
    let read = list(&[("k700.csv", train), ("test.csv", test)]);
    assert_eq!(
        entries(&read),
        [
            "2 -abc_DEF.gh [5s..15s] riding a bike @train >-abc_DEF.gh_000005_000015",
            "3 ---QUuC4vJs [84s..94s] testifying @val >---QUuC4vJs_000084_000094",
            "2 xyz [0s..10s] @test >xyz_000000_000010",
        ]
    );
    assert_eq!(
        read.messages(),
        [
            "recognised k700.csv as a Kinetics list: 2 segments, splits train, val, labels from \
             the column label",
            "recognised test.csv as a Kinetics list: 1 segment, split test, no labels",
        ]
    );
    let options = ListOptions {
        label: None,
        times: false,
    };
    assert_eq!(
        entries(&list_with(&[("test.csv", test)], &options)),
        ["2 xyz @test >xyz_000000_000010"]
    );
}

const UCF_TRAIN: &str = "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\r\n\
                         HandstandPushups/v_HandStandPushups_g09_c02.avi 2\r\n";
const UCF_TEST: &str = "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi\n";
const UCF_CLASSES: &str = "1 ApplyEyeMakeup\r\n2 HandstandPushups\r\n";

#[test]
fn ucf101() {
    let files = [
        ("trainlist01.txt", UCF_TRAIN),
        ("testlist01.txt", UCF_TEST),
        ("classInd.txt", UCF_CLASSES),
    ];
    let read = list(&files);
    assert_eq!(
        entries(&read),
        [
            "1 ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi ApplyEyeMakeup @train",
            "2 HandstandPushups/v_HandStandPushups_g09_c02.avi HandstandPushups @train",
            "1 ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi ApplyEyeMakeup @test",
        ]
    );
    assert_eq!(
        read.messages(),
        [
            "recognised trainlist01.txt as a UCF101 split list: 2 videos, split train, classes \
             from folders",
            "recognised testlist01.txt as a UCF101 split list: 1 video, split test, classes from \
             folders",
            "recognised classInd.txt as class names by number: 2 classes",
        ]
    );
    let classes = read.classes.expect("classes");
    assert_eq!(classes.file, 2);
    assert_eq!(classes.names[&2], "HandstandPushups");
    assert_eq!(list(&files[..2]).classes, None);

    let wrong = UCF_TRAIN.replace("avi 2", "avi 1");
    assert_eq!(
        error(&[("trainlist01.txt", &wrong), files[2]]),
        "line 2 of trainlist01.txt gives HandstandPushups the number 1, which is ApplyEyeMakeup in \
         classInd.txt"
    );
    let twice = format!("{UCF_TRAIN}ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c02.avi 7\n");
    assert_eq!(
        error(&[("trainlist01.txt", &twice)]),
        "line 3 of trainlist01.txt gives ApplyEyeMakeup the number 7, a line before 1"
    );
}

#[test]
fn hmdb51() {
    let brush = "April_09_brush_hair_u_nm_np1_ba_goo_0.avi 1 \n#20_Rhythm_brush.avi 2 \nx.avi 0 \n";
    let wave = "wave_1.avi 2\n";
    let files = [
        ("brush_hair_test_split1.txt", brush),
        ("wave_test_split1.txt", wave),
    ];
    let read = list(&files);
    assert_eq!(
        entries(&read),
        [
            "1 April_09_brush_hair_u_nm_np1_ba_goo_0.avi brush_hair @train",
            "2 #20_Rhythm_brush.avi brush_hair @test",
            "1 wave_1.avi wave @test",
        ]
    );
    assert_eq!(
        error(&[files[0], ("wave_test_split2.txt", wave)]),
        "brush_hair_test_split1.txt and wave_test_split2.txt are of different splits of HMDB51, \
         which hold the same videos: give the files of one, such as *_test_split1.txt"
    );
    let broken = error(&[("wave_test_split1.txt", "wave_1.avi 3\n")]);
    assert!(broken.starts_with("line 1 of wave_test_split1.txt is no file name and 0, 1 or 2"));
    let many: Vec<String> = (0..3).map(|n| format!("c{n}_test_split3.txt")).collect();
    let texts = many.iter().map(|name| (name, format!("{name}.avi 1\n")));
    let texts: Vec<(&String, String)> = texts.collect();
    let many: Vec<(&str, &str)> = texts
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    assert_eq!(
        list(&many).messages(),
        [
            "recognised 3 files, c0_test_split3.txt to c2_test_split3.txt, each as an HMDB51 split \
             list: 3 videos, split train, classes from the files' names, split number 3"
        ]
    );
}

const SOMETHING: &str = r#"[
{"id":"78687","label":"holding potato next to box",
 "template":"Holding [something] next to [something]","placeholders":["potato","box"]},
{"id":"42326","label":"paper falling",
 "template":"[Something] falling like a feather","placeholders":["paper"]}
]"#;
const SOMETHING_LABELS: &str = "{\n \"Holding something next to something\":\"0\",\n \
                                \"Something falling like a feather\":\"1\"\n}\n";

#[test]
fn something() {
    let answers = "1420;Holding something next to something\n\
                   7;Something falling like a feather\n";
    let files = [
        ("something-something-v2-train.json", SOMETHING),
        ("test.json", "[\n{\"id\":\"1420\"},\n{\"id\":\"7\"}\n]"),
        ("test-answers.csv", answers),
        ("labels.json", SOMETHING_LABELS),
    ];
    let read = list(&files);
    assert_eq!(
        entries(&read),
        [
            "1 78687 Holding something next to something @train",
            "2 42326 Something falling like a feather @train",
            "1 1420 Holding something next to something @test",
            "2 7 Something falling like a feather @test",
        ]
    );
    assert_eq!(read.duplicates, 2);
    assert_eq!(read.classes.as_ref().expect("classes").names.len(), 2);
    let forms: Vec<Form> = read.recognised.iter().map(|one| one.form).collect();
    let expected = [
        Form::Something,
        Form::Something,
        Form::SomethingAnswers,
        Form::ClassObject,
    ];
    assert_eq!(forms, expected);
    // On one line, it is no table of one row.
    let minified = SOMETHING_LABELS.replace('\n', "");
    list(&[files[0], ("labels.json", &minified)]);
    let unknown = SOMETHING_LABELS.replace("feather", "stone");
    assert_eq!(
        error(&[files[0], ("labels.json", &unknown)]),
        "row 2 of something-something-v2-train.json has the class Something falling like a \
         feather, which labels.json does not name"
    );
    // Labels may contain commas and other lines none.
    let commas = "1;Lifting up something, then letting it drop\n2;Throwing something\n";
    assert_eq!(
        entries(&list(&[("test-answers.csv", commas)]))[0],
        "1 1 Lifting up something, then letting it drop @test"
    );
}

#[test]
fn moments() {
    let train = "adult+singing/0-0-1_2.mp4,adult+singing,3,0\nclapping/a b.mp4,clapping,4,1\n";
    let validation = "clapping/c.mp4,clapping,5,0\n";
    let files = [
        ("trainingSet.csv", train),
        ("validationSet.csv", validation),
        ("moments_categories.txt", "clapping,0\nadult+singing,1\n"),
    ];
    let read = list(&files);
    assert_eq!(
        entries(&read),
        [
            "1 adult+singing/0-0-1_2.mp4 adult+singing @train",
            "2 clapping/a b.mp4 clapping @train",
            "1 clapping/c.mp4 clapping @val",
        ]
    );
    assert_eq!(read.classes.expect("classes").names[&1], "adult+singing");
    assert_eq!(
        error(&[files[0], ("moments_categories.txt", "clapping,0\nx,1\n")]),
        "line 1 of trainingSet.csv has the class adult+singing, which moments_categories.txt does \
         not name"
    );
}

const EPIC: &str = "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,\
    stop_timestamp,start_frame,stop_frame,narration,verb,verb_class,noun,noun_class,all_nouns,\
    all_noun_classes\n\
    P01_11_0,P01,P01_11,00:00:00.560,00:00:00.00,00:00:01.89,1,113,take plate,take,0,plate,2,\
    ['plate'],[2]\n\
    P01_11_12,P01,P01_11,00:01:52.620,01:01:51.98,01:01:53.03,3118,3181,throw,throw-into,13,paper,\
    49,\"['paper', 'bin']\",\"[49, 36]\"\n";
const VERBS: &str = "id,key,instances,category\r\n0,take,\"['take', 'get']\",retrieve\r\n\
                     13,throw,['throw'],leave\r\n";
const NOUNS: &str = "id,key,instances,category\r\n2,plate,['plate'],x\r\n49,paper,['paper'],x\r\n";

#[test]
fn epic_kitchens() {
    let test = "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,\
                stop_timestamp,start_frame,stop_frame\n\
                P01_101_0,P01,P01_101,00:00:02.851,00:00:02.86,00:00:03.87,143,193\n";
    let files = [
        ("EPIC_100_train.csv", EPIC),
        ("EPIC_100_test_timestamps.csv", test),
    ];
    assert_eq!(
        entries(&list(&files)),
        [
            "2 P01_11 [0s..1.89s] 0 @train #P01_11_0 >P01_11_0",
            "3 P01_11 [3711.98s..3713.03s] 13 @train #P01_11_12 >P01_11_12",
            "2 P01_101 [2.86s..3.87s] @test #P01_101_0 >P01_101_0",
        ]
    );
    let verbs = ("EPIC_100_verb_classes.csv", VERBS);
    let nouns = ("EPIC_100_noun_classes.csv", NOUNS);
    let named = list(&[files[0], verbs, nouns]);
    assert_eq!(named.entries[1].label.as_deref(), Some("throw"));
    assert_eq!(named.classes.expect("classes").file, 1);
    let named = list_with(&[files[0], files[1], verbs, nouns], &label("noun_class"));
    assert_eq!(named.entries[1].label.as_deref(), Some("paper"));
    assert_eq!(
        error(&[files[0], nouns]),
        "EPIC_100_noun_classes.csv names nouns, but the labels are of the column verb_class: give \
         the file of its classes, or another column with --list-label COLUMN"
    );
    let other = list_with(&[files[0]], &label("narration"));
    assert_eq!(other.entries[0].label.as_deref(), Some("take plate"));
}

#[test]
fn epic_kitchens_55() {
    let train = "uid,participant_id,video_id,narration,start_timestamp,stop_timestamp,start_frame,\
                 stop_frame,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes\n\
                 119,P01,P01_01,stay,00:08:45.83,00:09:01.44,31549,32486,stay,,pan,1,['pan'],[1]\n";
    let verbs = "verb_id,class_key,verbs\r\n0,take,['take']\r\n";
    let read = list(&[
        ("EPIC_train_invalid_labels.csv", train),
        ("EPIC_verb_classes.csv", verbs),
    ]);
    assert_eq!(entries(&read), ["2 P01_01 [525.83s..541.44s] @train #119"]);
    assert_eq!(read.recognised[0].form, Form::Epic);
}
