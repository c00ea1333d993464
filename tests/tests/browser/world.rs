//! What the browser looks at: a stage set.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use steadfast_tests::stage::{Stage, serve};

/// Serves a stage set of this size; its address.
pub(crate) async fn stage(nodes: u32, vms: u32) -> String {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("its address"));
    tokio::spawn(serve(listener, Arc::new(Stage::new(nodes, vms))));
    url
}

/// A file with these bytes, in a folder for it.
pub(crate) fn file(name: &str, bytes: &[u8]) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder =
        std::env::temp_dir().join(format!("steadfast-browser-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join(name), bytes).expect("a file");
    folder.join(name)
}
