//! The service as a process of its own.

use super::{Settings, start};
use crate::api::{Peer, TlsListener};
use crate::config::ApiTls;
use crate::systemd;
use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Runs until it is asked to end.
///
/// # Errors
/// It cannot begin: its port is taken, or the history cannot be opened.
pub fn run(settings: Settings) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async move {
        let listen = settings.listen;
        let listener = TcpListener::bind(listen).await.with_context(|| {
            format!(
                "cannot listen on {listen}; is another steadfast-watch running? see [api] listen"
            )
        })?;
        let (tls, address) = (settings.access.tls.clone(), listener.local_addr()?);
        let watch = start(settings)?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        tracing::info!("the page is at {scheme}://{address}/");
        systemd::notify("READY=1");
        tokio::select! {
            served = serve(listener, tls.as_ref(), watch.router()) => served,
            ended = end() => ended,
        }
    })
}

/// Sends a test to every receiver of alarms, or to the one of this name: what came of it.
///
/// # Errors
/// No runtime can be started.
pub fn test_alarms(settings: &Settings, name: Option<&str>) -> Result<Vec<(String, Result<()>)>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(super::alarms::test(settings, name)))
}

async fn serve(listener: TcpListener, tls: Option<&ApiTls>, router: axum::Router) -> Result<()> {
    let served = match tls {
        None => axum::serve(listener, router).await,
        Some(tls) => {
            let listener = TlsListener::on(listener, tls)?;
            let service = router.into_make_service_with_connect_info::<Peer>();
            axum::serve(listener, service).await
        }
    };
    served.context("the page's server ended")
}

async fn end() -> Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("ends because it was asked to");
    Ok(())
}
