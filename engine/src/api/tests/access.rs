//! Who comes in over TLS, and what is refused to whom.

use super::*;
use axum::http::Method as M;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const TOKEN: &str = "correct-horse-battery-staple";

/// Certificates, made anew for each test.
struct World {
    rig: Rig,
    address: SocketAddr,
    roots: rustls::RootCertStore,
    client: (CertificateDer<'static>, Vec<u8>),
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("written");
}

fn config(folder: &Path) -> String {
    let digest = |token: &str| -> String {
        Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let at = |name: &str| folder.join(name).display().to_string();
    format!(
        "[api]\nlisten = \"127.0.0.1:0\"\ncertificate = {:?}\nkey = {:?}\nclient_ca = {:?}\n\
         [[api.user]]\nname = \"eye\"\nrole = \"viewer\"\ntoken_sha256 = \"{}\"\n\
         [[api.user]]\nname = \"hand\"\nrole = \"operator\"\ntoken_sha256 = \"{}\"\n\
         [[api.user]]\nname = \"watch\"\nrole = \"administrator\"\ncertificate = \"watch.example\"\n",
        at("api.crt"),
        at("api.key"),
        at("ca.crt"),
        digest(TOKEN),
        digest("hand-token"),
    )
}

impl World {
    async fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("sf-tls-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(authority, key).expect("an authority");
        let signed = |name: &str| {
            let key = KeyPair::generate().expect("a key");
            let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
            (params.signed_by(&key, &authority).expect("signed"), key)
        };
        let (server, server_key) = signed("localhost");
        let (client, client_key) = signed("watch.example");
        write(&folder.join("ca.crt"), &authority.pem());
        write(&folder.join("api.crt"), &server.pem());
        write(&folder.join("api.key"), &server_key.serialize_pem());
        let rig = Rig::new(&config(&folder));
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.der().clone()).expect("an authority");
        let listener = crate::api::tls::TlsListener::start(&rig.agent.config.api).await;
        let listener = listener.expect("good").expect("wanted");
        let address = match axum::serve::Listener::local_addr(&listener).expect("an address") {
            crate::api::Peer::Tls { address, .. } => address,
            other => panic!("{other:?}"),
        };
        let routes = crate::api::routes::router(&rig.agent);
        let service = routes.into_make_service_with_connect_info::<crate::api::Peer>();
        tokio::spawn(async move { axum::serve(listener, service).await });
        let _ = std::fs::remove_dir_all(&folder);
        let client = (client.der().clone(), client_key.serialize_der());
        Self { rig, address, roots, client }
    }

    async fn connect(&self, certified: bool) -> TlsStream<TcpStream> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(self.roots.clone());
        let config = match certified {
            false => builder.with_no_client_auth(),
            true => {
                let key = PrivateKeyDer::try_from(self.client.1.clone()).expect("a key");
                builder.with_client_auth_cert(vec![self.client.0.clone()], key).expect("good")
            }
        };
        let stream = TcpStream::connect(self.address).await.expect("it listens");
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS")
    }

    async fn ask(&self, token: Option<&str>, what: (M, &str), body: &'static str) -> Answer {
        let said = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<(&str, &str)> =
            said.iter().map(|said| ("authorization", said.as_str())).collect();
        send(self.connect(false).await, what, &headers, body).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_only_those_come_in_whom_the_configuration_names_each_with_his_role() {
    let world = World::new("roles").await;
    let status = async |token, what| world.ask(token, what, "{}").await.status.as_u16();
    let nobody = world.ask(None, (M::GET, "/v1/vms"), "").await;
    assert_eq!(nobody.status, 401);
    assert!(nobody.header("www-authenticate").starts_with("Bearer"));
    assert_eq!(nobody.json()["type"], "urn:steadfast:unauthenticated");
    assert_eq!(status(Some("wrong"), (M::GET, "/v1/vms")).await, 401);
    assert_eq!(status(Some(TOKEN), (M::GET, "/v1/vms")).await, 200);
    assert_eq!(status(Some(TOKEN), (M::POST, "/v1/vms/web/stop")).await, 403);
    assert_eq!(status(Some(TOKEN), (M::GET, "/v1/audit")).await, 403);
    assert_eq!(status(Some("hand-token"), (M::POST, "/v1/vms/web/stop")).await, 200);
    assert_eq!(status(Some("hand-token"), (M::POST, "/v1/arm")).await, 403);
    let stream = world.connect(true).await;
    let audit = send(stream, (M::GET, "/v1/audit"), &[], "").await;
    assert_eq!(audit.status, 200, "the certificate says that it is watch");
    assert_eq!(audit.json()[0]["who"], "hand");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_is_closed_to_strangers_and_to_those_below_its_role() {
    let world = World::new("closed").await;
    for (operation, _) in crate::api::routes::table() {
        let path = operation.path.replace("{name}", "web").replace("{kind}", "placement");
        let what = || (operation.method.clone(), path.as_str());
        assert_eq!(world.ask(None, what(), "").await.status, 401, "{} {path}", operation.method);
        if operation.role > crate::api::Role::Viewer {
            let answer = world.ask(Some(TOKEN), what(), "").await;
            assert_eq!(answer.status, 403, "{} {path}", operation.method);
        }
        let reads = operation.method == M::GET || !operation.changes;
        assert!(reads || operation.role > crate::api::Role::Viewer, "viewers change {path}");
    }
}

/// What the log gets.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn tokens_are_in_no_log_and_no_file() {
    let log = Log::default();
    let told = Arc::clone(&log.0);
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || log.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let world = World::new("log").await;
    tracing::info!(config = ?world.rig.agent.config, "what a careless line would say");
    let wrong = "a-token-that-nobody-has";
    for token in [TOKEN, wrong, "hand-token"] {
        world.ask(Some(token), (M::POST, "/v1/vms/web/stop"), "{}").await;
        world.ask(Some(token), (M::GET, "/v1/vms"), "").await;
    }
    let mut all = told.lock().expect("no panic").clone();
    assert!(!all.is_empty(), "the log is read");
    let audit = std::fs::read(world.rig.root.join("state/audit.jsonl")).expect("an audit");
    assert!(String::from_utf8_lossy(&audit).contains("hand"));
    all.extend(audit);
    let all = String::from_utf8_lossy(&all);
    for token in [TOKEN, wrong, "hand-token"] {
        assert!(!all.contains(token), "{token} is told");
        let digest: String = Sha256::digest(token).iter().map(|b| format!("{b:02x}")).collect();
        assert!(!all.contains(&digest), "its digest is told");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_or_not_understood_is_refused_with_the_right_status() {
    let rig = Rig::new("");
    let at = serve(&rig).await;
    let large = format!("{{\"to\": \"{}\"}}", "x".repeat(100_000));
    let status = async |what: (M, &str), body: String| {
        let answer = ask(at, what, &[], body).await;
        assert_eq!(answer.header("content-type"), "application/problem+json", "{answer:?}");
        let told = answer.json();
        assert!(!told["remedy"].as_str().expect("words").is_empty(), "{told}");
        answer.status.as_u16()
    };
    assert_eq!(status((M::POST, "/v1/vms/web/migrate"), large).await, 413);
    for bad in ["{", "[]", "{\"to\": 5}", "{\"to\": \"n1\", \"more\": 1}", "\u{0}"] {
        assert_eq!(status((M::POST, "/v1/vms/web/migrate"), bad.into()).await, 400, "{bad}");
    }
    assert_eq!(status((M::GET, "/v1/decisions?limit=many"), String::new()).await, 400);
    assert_eq!(status((M::GET, "/v1/vms/%ff"), String::new()).await, 400);
    assert_eq!(status((M::PATCH, "/v1/vms"), String::new()).await, 405);
    assert_eq!(status((M::GET, "/v1/nothing"), String::new()).await, 404);
    let foreign = [("origin", "http://evil.example")];
    assert_eq!(ask(at, (M::POST, "/v1/arm"), &foreign, "").await.status, 403);
}

#[tokio::test]
async fn a_certificate_that_is_none_is_told_with_its_key_and_file() {
    let folder = std::env::temp_dir().join(format!("sf-tls-bad-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    ["api.crt", "api.key", "ca.crt"].iter().for_each(|name| write(&folder.join(name), "nonsense"));
    let rig = Rig::new(&config(&folder));
    let error = crate::api::serve_tls(Arc::clone(&rig.agent)).await.expect_err("no certificate");
    assert!(format!("{error:#}").contains("[api] certificate"), "{error:#}");
    assert!(PrivateKeyDer::from_pem_file(folder.join("api.key")).is_err());
    let _ = std::fs::remove_dir_all(&folder);
}
