//! Changes: preconditions, keys, the audit, and what the new routes do.

use super::*;
use crate::driver::rig::FROM_FILE;
use axum::http::Method as M;
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_change_is_refused_and_nothing_is_done() {
    let rig = Rig::new("");
    let at = serve(&rig).await;
    let tag = get(at, "/v1/vms/web").await.header("etag").to_owned();
    let put = async |tag: &str, body: &'static str| {
        ask(at, (M::PUT, "/v1/vms/web/priority"), &[("if-match", tag)], body).await
    };
    assert_eq!(put(&tag, "{\"priority\": 900}").await.status, 200);
    tokio::time::sleep(Duration::from_millis(150)).await;
    let stale = put(&tag, "{\"priority\": 100}").await;
    assert_eq!(stale.status, 412);
    assert_eq!(stale.json()["type"], "urn:steadfast:stale");
    assert_eq!(get(at, "/v1/vms/web").await.json()["priority"], 900);
    let fresh = get(at, "/v1/vms/web").await.header("etag").to_owned();
    assert_eq!(put(&fresh, "{\"priority\": 100}").await.status, 200);
    let nothing = ask(at, (M::PUT, "/v1/vms/nobody/priority"), &[("if-match", "*")], "{}").await;
    assert_eq!(nothing.status, 412);
}

/// Another agent is asked at the same moment: this one looked before, the leader hears of it after.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_became_stale_on_its_way_to_the_leader_is_refused() {
    let rig = Rig::new("");
    let at = serve(&rig).await;
    let put = async |body: &'static str| {
        let tag = get(at, "/v1/vms/web").await.header("etag").to_owned();
        ask(at, (M::PUT, "/v1/vms/web/priority"), &[("if-match", &tag)], body).await
    };
    rig.change_meanwhile(|state| state.vms[0].priority = 1);
    let stale = put("{\"priority\": 900}").await;
    assert_eq!((stale.status.as_u16(), rig.state().vms[0].priority), (412, 1));
    rig.change_meanwhile(|state| state.vms[1].priority = 2);
    let done = put("{\"priority\": 900}").await;
    assert_eq!(done.status, 200, "another VM has changed, not this one");
    let vms = rig.state().vms.clone();
    assert_eq!((vms[0].priority, vms[1].priority), (900, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_comes_again_with_its_key_is_not_done_again() {
    let rig = Rig::new("");
    let at = serve(&rig).await;
    let put = async |key: &str, body: &'static str| {
        ask(at, (M::PUT, "/v1/vms/web/priority"), &[("idempotency-key", key)], body).await
    };
    let first = put("k1", "{\"priority\": 900}").await;
    rig.change(|state| state.vms[0].priority = 1);
    let again = put("k1", "{\"priority\": 900}").await;
    assert_eq!((first.status, &first.body), (again.status, &again.body));
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(rig.state().vms[0].priority, 1, "it was not done again");
    let other = put("k1", "{\"priority\": 5}").await;
    assert_eq!(other.status, 422, "a key belongs to one request");
    assert_eq!(put("", "{\"priority\": 5}").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_written_down_with_before_and_after() {
    let rig = Rig::new("");
    let at = serve(&rig).await;
    let headers = [("x-steadfast-caller", "alice")];
    ask(at, (M::PUT, "/v1/vms/web/priority"), &headers, "{\"priority\": 900}").await;
    ask(at, (M::POST, "/v1/vms/nobody/start"), &[], "").await;
    get(at, "/v1/vms").await;
    let told = get(at, "/v1/audit").await.json();
    let [refused, done] = told.as_array().expect("a list").as_slice() else { panic!("{told}") };
    assert_eq!(done["what"], "PUT /v1/vms/web/priority");
    assert_eq!((&done["who"], &done["via"]), (&json!("local"), &json!("loopback")));
    assert_eq!(done["on_behalf_of"], "alice");
    assert_eq!(done["body"], json!({"priority": 900}));
    assert_eq!(
        (&done["before"]["priority"], &done["after"]["priority"]),
        (&json!(500), &json!(900))
    );
    assert_eq!(done["status"], 200);
    assert_eq!(refused["status"], 404);
    assert!(refused["refused"].as_str().expect("words").contains("nobody"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plan_says_who_fits_and_who_does_not_and_the_live_state_has_it() {
    let rig = Rig::new("");
    rig.change(|state| {
        let mut third = crate::driver::rig::vm("third");
        third.memory_mib = 4_000;
        state.vms.push(third);
    });
    let at = serve(&rig).await;
    let plan = get(at, "/v1/plan/n2").await.json();
    assert_eq!((&plan["vms"], &plan["fits"], &plan["lacks"]), (&json!(3), &json!(2), &json!(1)));
    assert_eq!(plan["unfit"], json!(["uuid-of-third"]));
    let why = plan["reasons"]["uuid-of-third"].as_str().expect("words");
    assert!(why.contains("4000 MiB"), "{why}");
    let homes: Vec<_> = plan["restart"].as_array().expect("a list").iter().collect();
    assert_ne!(homes[0]["to"], homes[1]["to"], "one VM fits on each");
    assert_eq!(get(at, "/v1/plan").await.json()["n1"]["vms"], 0);
    let short = get(at, "/v1/live?once=1").await.json()["plan"]["n2"].clone();
    assert_eq!((&short["lacks"], &short["reasons"]), (&json!(1), &Value::Null));
    assert_eq!(get(at, "/v1/plan/n9").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn time_outs_are_checked_while_nothing_changes() {
    let rig = Rig::new("");
    let at = serve(&rig).await;
    let check =
        async |body: &'static str| ask(at, (M::POST, "/v1/settings/check"), &[], body).await;
    let good = check("{\"timing\": {\"full_failure_ms\": 4000}}").await.json();
    assert_eq!((&good["ok"], &good["timing"]["full_failure_ms"]), (&json!(true), &json!(4_000)));
    let bad = check("{\"timing\": {\"watchdog_ms\": 5000}}").await.json();
    assert_eq!(bad["ok"], false);
    let inequality = bad["problems"][0]["inequality"].as_str().expect("an inequality");
    assert!(inequality.contains("2 W <= L + S"), "{inequality}");
    assert!(bad["problems"][0]["text"].as_str().expect("words").contains("watchdog_ms"));
    assert_ne!(bad["bounds"], json!([]));
    assert_eq!(check("{\"timing\": {\"lease_ms\": 18446744073709551615}}").await.status, 400);
    assert_eq!(check("{\"timing\": {\"leese_ms\": 1}}").await.status, 400);
    assert_eq!(get(at, "/v1/settings").await.json()["timing"]["watchdog_ms"], 4_000);
}

const EMPTY: &str = r#"(module (memory (export "memory") 1))"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_does_not_pass_is_answered_with_class_and_reason_and_not_kept() {
    let rig = Rig::new("");
    let at = serve(&rig).await;
    for module in [b"no module".to_vec(), wat::parse_str(EMPTY).expect("WAT")] {
        let path = "/v1/policies/placement/module";
        let answer = ask(at, (M::PUT, path), &[("content-type", "application/wasm")], module).await;
        assert_eq!(answer.status, 422);
        let told = answer.json();
        assert_eq!(told["type"], "urn:steadfast:policy_refused");
        assert_eq!(told["class"], "refused");
        assert!(told["stage"].is_string() && !told["detail"].as_str().expect("words").is_empty());
    }
    let kept = std::fs::read_dir(rig.root.join("policies")).expect("a folder").count();
    let scratch = std::fs::read_dir(rig.root.join("state")).expect("a folder");
    let left = scratch.flatten().filter(|it| it.file_name().to_string_lossy().contains("upload"));
    assert_eq!((kept, left.count()), (0, 0));
    let most = rig.agent.config.policies.settings.limits.module_bytes;
    let huge = vec![0_u8; usize::try_from(most).expect("small") + 1];
    let answer = ask(at, (M::PUT, "/v1/policies/placement/module"), &[], huge).await;
    assert_eq!(answer.status, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn verification_ips_without_a_file_to_keep_them_are_refused_with_a_remedy() {
    let rig = Rig::new("");
    let at = serve(&rig).await;
    let body = "{\"addresses\": [\"192.0.2.1\"]}";
    let answer = ask(at, (M::PUT, "/v1/verification"), &[], body).await;
    assert_eq!(answer.status, 422);
    assert!(answer.json()["remedy"].as_str().expect("words").contains("--config"));
    assert_eq!(get(at, "/v1/verification").await.json()["addresses"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn verification_ips_are_kept_in_the_operators_file_and_a_refused_change_is_not() {
    let rig = Rig::new(FROM_FILE);
    let at = serve(&rig).await;
    let put = async |body: &'static str, tag: &str| {
        ask(at, (M::PUT, "/v1/verification"), &[("if-match", tag)], body).await
    };
    let before = get(at, "/v1/verification").await.header("etag").to_owned();
    let wanted = json!(["192.0.2.1", "2001:db8::7"]);
    let body = "{\"addresses\": [\"192.0.2.1\", \"2001:db8::7\"], \"quorum\": 1}";
    let told = put(body, &before).await;
    assert_eq!((told.status.as_u16(), &told.json()["addresses"]), (200, &wanted));
    let stale = put("{\"addresses\": []}", &before).await;
    let wrong = put("{\"addresses\": [\"192.0.2.1\"], \"quorum\": 2}", "*").await;
    assert_eq!((stale.status.as_u16(), wrong.status.as_u16()), (412, 422));
    let told = get(at, "/v1/verification").await.json();
    assert_eq!((&told["addresses"], &told["quorum"]), (&wanted, &json!(1)));
    let file = rig.root.join("steadfast.toml");
    let text = std::fs::read_to_string(&file).expect("the file");
    assert!(text.contains(FROM_FILE), "what the operator wrote stays: {text}");
    let config = crate::config::Config::load(&file).expect("good");
    let kept: Vec<String> = config.verification.iter().map(ToString::to_string).collect();
    assert_eq!((json!(kept), config.verification_quorum), (wanted, 1));
}
