//! Miniatures of nested JSON.

use super::*;

#[test]
fn ego4d_moments() {
    let train = r#"{"version":"1","videos":[{"video_uid":"dd08","split":"train","clips":[
        {"clip_uid":"9df4","video_start_sec":100.0,"video_end_sec":400.0,"annotations":[
            {"annotator_uid":"1","labels":[
                {"start_time":5.5,"end_time":7,"label":"use_phone","video_start_time":105.5,
                 "video_end_time":107.0,"primary":true},
                {"start_time":5.5,"end_time":7,"label":"other","video_start_time":105.5,
                 "video_end_time":107.0,"primary":false},
                {"start_time":5.5,"end_time":5.5,"label":"x","video_start_time":105.5,
                 "video_end_time":105.5,"primary":true}]}]}]}]}"#;
    let test = r#"{"videos":[{"video_uid":"9faf","split":"test","clips":[
        {"clip_uid":"375e","video_start_sec":-4e-7,"video_end_sec":480.02}]}]}"#;
    let files = [
        ("moments_train.json", train),
        ("moments_test_unannotated.json", test),
    ];
    let read = list(&files);
    assert_eq!(
        entries(&read),
        [
            "1 dd08 [105.5s..107s] use_phone @train #9df4 >9df4[5.5s..7s]",
            "1 9faf [0s..480.02s] @test #375e >375e",
        ]
    );
    assert_eq!(
        read.messages()[0],
        "recognised moments_train.json as an Ego4D list of moments: 2 segments, split train, labels \
         from label, 1 invalid or secondary skipped"
    );
}

#[test]
fn ego4d_actions() {
    let lta = r#"{"clips":[{"video_uid":"4c64","clip_uid":"5f45","clip_parent_start_sec":292.0,
        "clip_parent_end_sec":608.0,"verb":"touch","noun":"dough","action_clip_start_sec":4.5,
        "action_clip_end_sec":12.5,"action_idx":0,"verb_label":1,"noun_label":0}]}"#;
    assert_eq!(
        entries(&list(&[("fho_lta_val.json", lta)])),
        ["1 4c64 [296.5s..304.5s] touch @val #5f45 >5f45[4.5s..12.5s]"]
    );
    let taxonomy = r#"{"verbs":["adjust","touch"],"nouns":["dough","apple"]}"#;
    let files = [
        ("fho_lta_val.json", lta),
        ("fho_lta_taxonomy.json", taxonomy),
    ];
    let named = list_with(&files, &label("noun_label"));
    assert_eq!(named.entries[0].label.as_deref(), Some("dough"));
    let change = r#"{"clips":[{"clip_uid":null,"unique_id":"u-1","video_uid":"4e3f",
        "clip_start_sec":1.25,"clip_end_sec":9.25,"parent_start_sec":1.25,"parent_end_sec":9.25,
        "state_change":true}]}"#;
    assert_eq!(
        entries(&list(&[("fho_oscc-pnr_train.json", change)])),
        ["1 4e3f [1.25s..9.25s] true @train #u-1"]
    );
    let main = r#"{"videos":[{"video_uid":"ee6f","annotated_intervals":[{"clip_uid":"a102",
        "narrated_actions":[
        {"uid":"n1","start_sec":11,"end_sec":19,"clip_start_sec":1,"clip_end_sec":9,
         "structured_verb":"cut","is_rejected":false},
        {"uid":"n2","start_sec":11,"end_sec":19,"structured_verb":"cut","is_rejected":true}]}]}]}"#;
    assert_eq!(
        entries(&list(&[("fho_main.json", main)])),
        ["1 ee6f [11s..19s] cut #n1 >a102[1s..9s]"]
    );
}

#[test]
fn other_ego4d() {
    let unknown = "is JSON of an unknown form";
    let queries = r#"{"videos":[{"video_uid":"a","clips":[{"clip_uid":"b","annotations":[
        {"language_queries":[{"query":"where?"}]}]}]}]}"#;
    let hands = r#"{"clips":[{"clip_id":3,"clip_uid":"de4a","video_uid":"31ea","frames":[]}]}"#;
    let metadata = r#"{"videos":[{"video_uid":"a","duration_sec":5}],"clips":[]}"#;
    let anticipation = r#"{"annotations":[{"uid":"9c59_0011727","frame":11727}]}"#;
    for text in [queries, hands, metadata, anticipation] {
        let error = error(&[("x.json", text)]);
        assert!(error.contains(unknown), "{error}");
    }
    let negative = r#"{"videos":[{"video_uid":"a","clips":[{"clip_uid":"b",
        "video_start_sec":-3,"video_end_sec":4}]}]}"#;
    assert_eq!(
        error(&[("x.json", negative)]),
        "entry 1 of x.json has the video_start_sec -3, which is negative"
    );
}

#[test]
fn activity_net() {
    let text = r#"{"database":{
        "v_b":{"subset":"validation","annotations":[
            {"label":"Long jump","segment":[1.5,3]},{"label":"Run","segment":[2,3]}]},
        "v_a":{"subset":"testing","annotations":[]}}}"#;
    assert_eq!(
        entries(&list(&[("activity_net.json", text)])),
        [
            "1 v_a @test",
            "2 v_b [1.5s..3s] Long jump @val",
            "3 v_b [2s..3s] Run @val",
        ]
    );
    let kinetics = r#"{"--x":{"annotations":{"label":"yoga","segment":[0.0,10.0]},
        "duration":10.0,"subset":"train","url":"https://example.org"}}"#;
    assert_eq!(
        entries(&list(&[("train.json", kinetics)])),
        ["1 --x [0s..10s] yoga @train >--x_000000_000010"]
    );
    let empty = text.replace("[1.5,3]", "[3,3]");
    let (place, reason) = &list(&[("a.json", &empty)]).empty[0];
    assert!(place.starts_with("entry 2 of "), "{place}");
    assert_eq!(reason, "an empty segment: it starts at 3 s and ends at 3 s");
}

#[test]
fn class_objects() {
    let lines = ("train.csv", "a.mp4 1\nb.mp4 0\n");
    for text in [
        "{\"\\\"riding a bike\\\"\": 1, \"yoga\": 0}",
        "{\n\"0\": \"yoga\",\n\"1\": \"riding a bike\"\n}",
    ] {
        let read = list(&[lines, ("classes.json", text)]);
        assert_eq!(entries(&read)[0], "1 a.mp4 riding a bike @train");
    }
}
