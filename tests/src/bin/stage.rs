//! `cargo run --release -p steadfast-tests --features browser --bin stage -- [NODES [VMS]]`: HA-watch's page with made state on
//! port 8480, read anew from its folder, for those who work on the page.

use std::path::Path;
use std::sync::Arc;
use steadfast_tests::stage::{Stage, serve};

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let mut numbers = std::env::args().skip(1).filter_map(|it| it.parse().ok());
    let (nodes, vms) = (numbers.next().unwrap_or(5), numbers.next().unwrap_or(24));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/src/watch/page");
    let mut stage = Stage::new(nodes, vms);
    stage.folder = Some(folder);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 8480)).await?;
    println!("http://{}", listener.local_addr()?);
    serve(listener, Arc::new(stage)).await
}
