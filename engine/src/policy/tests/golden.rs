//! Modules of older SDKs: the same answers from the same bytes, whatever the agent has learnt since (tests/abi).

use super::*;
use crate::policy::Workbench;

#[test]
fn a_module_of_the_first_sdk_answers_as_it_always_did() {
    let folder = root().join("tests/abi/0.1.0");
    let bench = Workbench::open(&folder.join("golden.wasm"), Limits::default()).unwrap();
    assert!(!bench.manifest().reads_columns(), "it was built before there were columns");
    for kind in Kind::ALL {
        let question =
            fs::read_to_string(folder.join(format!("golden.{kind}.question.json"))).unwrap();
        let answer = bench.run(kind, &question).unwrap().verdict;
        let path = folder.join(format!("golden.{kind}.verdict.json"));
        let expected: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(answer, expected, "{kind}");
    }
}

#[test]
fn a_host_that_knows_only_json_gets_the_same_answers_from_a_module_of_today() {
    let folder = Folder::new();
    folder.drop_file("placement.wasm", &built("placement"));
    let bench = Workbench::open(&folder.0.join("placement.wasm"), Limits::default()).unwrap();
    assert!(bench.manifest().reads_columns());
    let asked = question(5, 40);
    let (columns, json) = (bench.ask(&asked).unwrap(), bench.ask_in_json(&asked).unwrap());
    assert_eq!(columns.verdict, json.verdict);
    assert!(columns.question_bytes * 2 < json.question_bytes, "{columns:?}");
}
