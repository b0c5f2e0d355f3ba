//! TLS between nodes: both show a certificate, and both check that the other's is signed by the configured authority.
//!
//! Invariant: with TLS configured nothing is said or heard outside of it, and only TLS 1.3 is spoken.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, Error, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::error::NetError;
use super::settings::TlsFiles;
use super::tcp_entry::{EntryError, Io};

/// Both sides' configuration, read once.
pub struct Tls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

const BINDING_LABEL: &[u8] = b"EXPORTER-holdfast-handshake";
const BINDING_BYTES: usize = 32;

fn wrong(file: &Path, reason: impl Display) -> NetError {
    NetError::Tls { file: file.display().to_string(), reason: reason.to_string() }
}

impl Tls {
    /// Relative files start at `folder`.
    pub fn read(files: &TlsFiles, folder: &Path) -> Result<Self, NetError> {
        let (certificate, key) = (folder.join(&files.certificate), folder.join(&files.key));
        let authority = folder.join(&files.authority);
        let chain = certificates(&certificate)?;
        let private = PrivateKeyDer::from_pem_file(&key).map_err(|error| wrong(&key, error))?;
        let mut roots = RootCertStore::empty();
        for root in certificates(&authority)? {
            roots.add(root).map_err(|error| wrong(&authority, error))?;
        }
        let roots = Arc::new(roots);
        let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| wrong(&authority, error))?;
        let unfit = |error: Error| wrong(&certificate, error);
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(unfit)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), private.clone_key())
            .map_err(unfit)?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(unfit)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, private)
            .map_err(unfit)?;
        Ok(Self { acceptor: Arc::new(server).into(), connector: Arc::new(client).into() })
    }

    /// The encrypted connection, and what binds a handshake to it.
    pub async fn accept(&self, socket: TcpStream) -> Result<(Box<dyn Io>, Vec<u8>), EntryError> {
        let stream = self.acceptor.accept(socket).await.map_err(failed)?;
        let binding = stream.get_ref().1.export_keying_material([0; BINDING_BYTES], BINDING_LABEL, None);
        Ok((Box::new(stream), binding.map_err(failed)?.to_vec()))
    }

    /// `host`: what the peer's certificate must name.
    pub async fn connect(&self, host: &str, socket: TcpStream) -> Result<(Box<dyn Io>, Vec<u8>), EntryError> {
        let name = ServerName::try_from(host.to_owned()).map_err(failed)?;
        let stream = self.connector.connect(name, socket).await.map_err(failed)?;
        let binding = stream.get_ref().1.export_keying_material([0; BINDING_BYTES], BINDING_LABEL, None);
        Ok((Box::new(stream), binding.map_err(failed)?.to_vec()))
    }
}

fn failed(error: impl Display) -> EntryError {
    EntryError::Io(format!("TLS: {error}"))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, NetError> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err(wrong(file, "no certificate in it")),
        Ok(found) => Ok(found),
        Err(error) => Err(wrong(file, error)),
    }
}
