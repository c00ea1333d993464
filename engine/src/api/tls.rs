//! The API over TCP: TLS 1.2 and 1.3 by rustls. Handshakes are made beside each other and have an end; so many connections at once.

use super::callers::Peer;
use crate::config::{Api, ApiTls};
use anyhow::{Context as _, Result, anyhow};
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Connections at once.
const CONNECTIONS: usize = 1_024;
/// A handshake takes at most this.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Accepting failed, mostly because there are too many open files.
const BREATH: Duration = Duration::from_millis(200);

/// Connections whose handshake is done.
#[derive(Debug)]
pub(crate) struct TlsListener {
    ready: mpsc::Receiver<(Line, Peer)>,
    address: SocketAddr,
}

/// A connection; the next one may come in when it ends.
#[derive(Debug)]
pub(crate) struct Line {
    stream: TlsStream<TcpStream>,
    _place: OwnedSemaphorePermit,
}

impl TlsListener {
    /// Listens as `api` says; `None`: it says nothing.
    ///
    /// # Errors
    /// Certificate or key are not good, or the address is taken.
    pub(crate) async fn start(api: &Api) -> Result<Option<Self>> {
        let Some(tls) = &api.tls else { return Ok(None) };
        let listen = tls.listen;
        let listener = TcpListener::bind(listen).await;
        let listener =
            listener.with_context(|| format!("cannot listen on {listen} ([api] listen)"))?;
        Self::on(listener, tls).map(Some)
    }

    /// The same on a port that is open already.
    ///
    /// # Errors
    /// Certificate or key are not good.
    pub(crate) fn on(listener: TcpListener, tls: &ApiTls) -> Result<Self> {
        let acceptor = TlsAcceptor::from(Arc::new(server(tls)?));
        let address = listener.local_addr().context("no address")?;
        let (tell, ready) = mpsc::channel(16);
        tokio::spawn(accept_all(listener, acceptor, tell));
        Ok(Self { ready, address })
    }
}

async fn accept_all(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    ready: mpsc::Sender<(Line, Peer)>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    while !ready.is_closed() {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, address)) = listener.accept().await else {
            tokio::time::sleep(BREATH).await;
            continue;
        };
        let (acceptor, ready) = (acceptor.clone(), ready.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let shaken = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
            // A scanner, or a client without our authority: nothing to tell.
            let Ok(Ok(stream)) = shaken else { return };
            let names = names(&stream);
            let peer = Peer::Tls { address, names };
            let _ = ready.send((Line { stream, _place: place }, peer)).await;
        });
    }
}

/// The DNS names in the client's certificate. The handshake has checked who signed it.
fn names(stream: &TlsStream<TcpStream>) -> Vec<String> {
    let certificates = stream.get_ref().1.peer_certificates();
    let Some(first) = certificates.and_then(|all| all.first()) else { return Vec::new() };
    let Ok(certificate) = webpki::EndEntityCert::try_from(first) else { return Vec::new() };
    certificate.valid_dns_names().map(Into::into).collect()
}

fn server(tls: &ApiTls) -> Result<rustls::ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates(&tls.certificate, "certificate")?;
    let key = PrivateKeyDer::from_pem_file(&tls.key)
        .map_err(|error| anyhow!("[api] key {}: {error}", tls.key.display()))?;
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(path, "client_ca")? {
                roots
                    .add(authority)
                    .with_context(|| format!("[api] client_ca {}", path.display()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.allow_unauthenticated().build()?)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .with_context(|| format!("[api] certificate {}", tls.certificate.display()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(path: &Path, key: &str) -> Result<Vec<CertificateDer<'static>>> {
    let wrong = |error: &dyn std::fmt::Display| anyhow!("[api] {key} {}: {error}", path.display());
    let read = CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?;
    let all: Vec<_> = read.collect::<Result<_, _>>().map_err(|error| wrong(&error))?;
    if all.is_empty() {
        return Err(wrong(&"there is no certificate in it"));
    }
    Ok(all)
}

impl Listener for TlsListener {
    type Io = Line;
    type Addr = Peer;

    async fn accept(&mut self) -> (Line, Peer) {
        match self.ready.recv().await {
            Some(ready) => ready,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer::Tls { address: self.address, names: Vec::new() })
    }
}

impl Connected<IncomingStream<'_, TlsListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        stream.remote_addr().clone()
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
