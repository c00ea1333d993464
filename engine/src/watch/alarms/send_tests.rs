use super::*;
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpListener;

fn message() -> Message {
    let alarm =
        |text: &str| Alarm { text: text.into(), severity: "critical".into(), ..Alarm::default() };
    Message::new(What::Raised, "c", vec![alarm("n2: Full failure"), alarm("web is down")])
}

fn receiver(way: Way) -> Receiver {
    Receiver { name: "x".into(), rules: Vec::new(), clusters: Vec::new(), repeat: None, way }
}

type Got = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

async fn hook(status: StatusCode) -> (String, Got) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (got, listener) = (Got::default(), TcpListener::bind("127.0.0.1:0").await.expect("port"));
    let (url, keep) =
        (format!("http://{}/h", listener.local_addr().expect("address")), got.clone());
    let take = move |headers: HeaderMap, body: Bytes| async move {
        keep.lock().expect("lock").push((headers, body));
        status
    };
    let router = Router::new().route("/h", post(take));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, got)
}

#[tokio::test]
async fn a_webhook_gets_signed_json() {
    let (url, got) = hook(StatusCode::NO_CONTENT).await;
    let secret = Some(Secret("key".into()));
    send(&receiver(Way::Webhook { url, secret }), &message()).await.expect("taken");
    let got = got.lock().expect("lock");
    let (headers, body) = &got[0];
    let json: serde_json::Value = serde_json::from_slice(body).expect("JSON");
    assert_eq!(json["text"], "c: n2: Full failure (and 1 more)");
    assert_eq!(
        (json["kind"].as_str(), json["alarms"].as_array().map(Vec::len)),
        (Some("raised"), Some(2))
    );
    assert_eq!(headers["x-steadfast-signature"], signature(&Secret("key".into()), body).as_str());
}

#[test]
fn the_signature_is_the_hmac_of_rfc_4231() {
    let found = signature(&Secret("Jefe".into()), b"what do ya want for nothing?");
    let expected = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_webhook_that_refuses_is_told_again_later_and_its_address_is_kept_secret() {
    let (url, _) = hook(StatusCode::BAD_GATEWAY).await;
    let way = Way::Webhook { url, secret: None };
    let error = send(&receiver(way), &message()).await.expect_err("refused").to_string();
    assert!(error.contains("502"), "{error}");
    let gone = Way::Webhook { url: "http://127.0.0.1:1/secret-path".into(), secret: None };
    let error = send(&receiver(gone), &message()).await.expect_err("nobody there");
    assert!(!format!("{error:#}").contains("secret-path"), "{error:#}");
}

#[tokio::test]
async fn a_program_reads_the_message_and_its_failure_is_told() {
    let file = std::env::temp_dir().join(format!("steadfast-alarm-{}", std::process::id()));
    let script = format!("cat > {}; echo $STEADFAST_KIND >> {}", file.display(), file.display());
    let sh = |script: &str| vec!["/bin/sh".to_string(), "-c".into(), script.into()];
    let second = Duration::from_secs(5);
    let way = Way::Exec { command: sh(&script), timeout: second };
    send(&receiver(way), &message()).await.expect("done");
    let written = std::fs::read_to_string(&file).expect("written");
    let _ = std::fs::remove_file(&file);
    assert!(written.contains("\"text\":\"c: n2: Full failure (and 1 more)\""), "{written}");
    assert!(written.ends_with("raised\n"), "{written}");
    let way = Way::Exec { command: sh("echo no paper >&2; exit 3"), timeout: second };
    let error = send(&receiver(way), &message()).await.expect_err("failed").to_string();
    assert!(error.contains("no paper") && error.contains('3'), "{error}");
    let way = Way::Exec { command: sh("sleep 60"), timeout: Duration::from_millis(100) };
    let error = send(&receiver(way), &message()).await.expect_err("slow").to_string();
    assert!(error.contains("killed after 100 ms"), "{error}");
}

/// Speaks as much SMTP as is needed, and keeps what it is told.
async fn smtp() -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
    let address = format!("smtp://{}", listener.local_addr().expect("address"));
    let told = Arc::new(Mutex::new(String::new()));
    let keep = Arc::clone(&told);
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("client");
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read.take(1 << 20)).lines();
        let mut in_data = false;
        write.write_all(b"220 hello\r\n").await.expect("written");
        while let Ok(Some(line)) = lines.next_line().await {
            keep.lock().expect("lock").push_str(&format!("{line}\n"));
            let answer: &[u8] = match line.as_str() {
                "." => {
                    in_data = false;
                    b"250 taken\r\n"
                }
                _ if in_data => continue,
                "DATA" => {
                    in_data = true;
                    b"354 go on\r\n"
                }
                "QUIT" => b"221 bye\r\n",
                _ => b"250 ok\r\n",
            };
            if write.write_all(answer).await.is_err() {
                return;
            }
        }
    });
    (address, told)
}

#[tokio::test]
async fn a_letter_reaches_everybody_it_is_for() {
    let (server, told) = smtp().await;
    let settings = MailSettings {
        server,
        login: None,
        from: "HA <ha@example.org>".into(),
        to: vec!["a@example.org".into(), "b@example.org".into()],
    };
    send(&receiver(Way::Mail(settings)), &message()).await.expect("taken");
    let told = told.lock().expect("lock");
    for part in [
        "RCPT TO:<a@example.org>",
        "RCPT TO:<b@example.org>",
        "[alarm] c: n2: Full failure",
        "- web is down (critical",
    ] {
        assert!(told.contains(part), "{part} is missing in {told}");
    }
}
