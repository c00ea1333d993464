//! The page of a demonstration: HA-watch, following its agents as it would follow real ones, and the buttons.

use super::setup::CLUSTER;
use super::{Demo, routes};
use crate::watch::{self, ClusterSettings, Settings};
use anyhow::{Context, Result};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// Where the page is looked for first.
const PORT: u16 = 8470;
/// How long the end waits for clients.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// The page as long as it is served.
#[derive(Debug)]
pub struct Page {
    /// Where.
    pub address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Page {
    /// Serves it on this machine only: at `port`, or, if none is given, at a usual or a free one.
    ///
    /// # Errors
    /// The port is taken, or the history cannot be opened.
    pub fn serve(demo: &Arc<Demo>, port: Option<u16>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("demo-watch")
            .enable_all()
            .build()
            .context("cannot start the page's threads")?;
        let address = runtime.block_on(async {
            let listener = listen(port).await?;
            let address = listener.local_addr().context("a listener has an address")?;
            let sockets = demo.nodes().map(|node| (node, demo.socket(node)));
            let cluster = ClusterSettings::of_sockets(CLUSTER, sockets);
            let history = demo.folder().join("watch.sqlite");
            let watch = watch::start(Settings::for_demo(cluster, history))?;
            let router = watch.router().merge(routes::router(demo));
            tokio::spawn(async move { axum::serve(listener, router).await });
            Ok::<_, anyhow::Error>(address)
        })?;
        Ok(Self { address, runtime: Some(runtime) })
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(LAST_PATIENCE);
        }
    }
}

async fn listen(port: Option<u16>) -> Result<TcpListener> {
    let at = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    match port {
        Some(port) => at(port).await.with_context(|| {
            format!("port {port} is taken; choose another one, or none, and a free one is found")
        }),
        None => match at(PORT).await {
            Ok(listener) => Ok(listener),
            Err(_) => at(0).await.context("no port is free"),
        },
    }
}
