//! What inviter and newcomer say to each other: JSON after its length, over TLS in which the newcomer knows the inviter's certificate.

use super::facts::Machine;
use super::membership::Membership;
use crate::doctor::Check;
use crate::pages::Place;
use anyhow::{Context, Result, anyhow, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, ServerConfig, StreamOwned};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Longest message, in bytes.
const MOST: usize = 1 << 20;
/// Of one message; the other side may run fence agents and reload corosync meanwhile.
const PATIENCE: Duration = Duration::from_secs(180);

/// What the newcomer says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Says {
    /// First.
    Hello { secret: String, machine: Box<Machine> },
    /// It has looked at the store: its cluster and nodes.
    Store(Result<(String, Vec<String>), String>),
    /// It has done everything.
    Joined(Result<(), String>),
}

/// What the inviter says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answers {
    /// Nothing comes of it; with what to do.
    Refused { checks: Vec<Check> },
    /// Look at the store here.
    Look { directory: Option<PathBuf>, device: Option<PathBuf> },
    /// Become this.
    Welcome { name: String, membership: Box<Membership> },
    /// The cluster knows it.
    Done { text: String },
}

impl Answers {
    pub(super) fn look(place: &Place) -> Self {
        match place.clone() {
            Place::Directory(path) => Self::Look { directory: Some(path), device: None },
            Place::Device(path) => Self::Look { directory: None, device: Some(path) },
        }
    }

    pub(super) fn refused(name: &str, text: String, remedy: &str) -> Self {
        Self::Refused { checks: vec![Check::red(name, text, remedy)] }
    }
}

pub(super) fn send(stream: &mut impl Write, message: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec(message).context("no words")?;
    let length = u32::try_from(bytes.len()).context("too long")?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(&bytes)?;
    stream.flush().context("the other side went away")
}

pub(super) fn receive<T: DeserializeOwned>(stream: &mut impl Read) -> Result<T> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).context("the other side went away")?;
    let length = usize::try_from(u32::from_be_bytes(length))?;
    ensure!(length <= MOST, "a message of {length} bytes, {MOST} are possible");
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).context("the other side went away")?;
    serde_json::from_slice(&bytes).context("not understood: are both sides of one version?")
}

pub(super) fn patient(stream: &TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true).context("no socket")
}

// --- TLS ---------------------------------------------------------------------------------------------

/// The certificates in `pem`.
pub(super) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let all = all.map_err(|error| anyhow!("a certificate is damaged: {error}"))?;
    ensure!(!all.is_empty(), "there is no certificate");
    Ok(all)
}

pub(super) fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| anyhow!("a key is damaged: {error}"))
}

pub(super) fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    Sha256::digest(certificate).into()
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Whoever invites shows this node's certificate.
pub(super) fn server(certificate: &str, key: &str) -> Result<Arc<ServerConfig>> {
    let builder = ServerConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
    let config = builder.with_single_cert(certificates(certificate)?, private_key(key)?);
    Ok(Arc::new(config.context("the node's certificate and key do not fit")?))
}

/// To the inviter, if it has the certificate that the ticket names.
pub(super) fn connect(
    address: SocketAddr,
    fingerprint: [u8; 32],
) -> Result<StreamOwned<ClientConnection, TcpStream>> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10));
    let stream = stream.with_context(|| {
        format!("cannot reach {address}: does `steadfast cluster invite` still wait there, and is the port open?")
    })?;
    patient(&stream)?;
    let builder = ClientConfig::builder_with_provider(provider());
    let pinned = Arc::new(Pinned { fingerprint, provider: provider() });
    let config = builder
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(pinned)
        .with_no_client_auth();
    let name = ServerName::IpAddress(address.ip().into());
    let connection = ClientConnection::new(Arc::new(config), name)?;
    Ok(StreamOwned::new(connection, stream))
}

/// Nobody but the holder of one certificate's key.
#[derive(Debug)]
struct Pinned {
    fingerprint: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if fingerprint(end_entity) == self.fingerprint {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::General("it is not the node that gave the ticket".into()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
