//! TLS for both ports: the certificate and its key, read again when their files change.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nexus_flight_catalog::{Error, Place, Result};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor, UnixTime, pem};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::config;
use crate::reload::{self, Seen};
use crate::wire::connection::Shown;

/// A handshake that is not done by then is given up.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// What both ports speak over TLS (RFC 7301): gRPC is HTTP/2, and HTTP clients take either.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Makes connections secret, with the certificate of the moment.
#[derive(Debug, Clone)]
pub struct Tls {
    current: watch::Receiver<Arc<Current>>,
}

/// What new connections get.
#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    /// Those who issue certificates of clients.
    authorities: Vec<Authority>,
}

/// One who issues certificates of clients, by the name and the key of it.
#[derive(Debug)]
struct Authority {
    mark: Seen,
    verifier: Arc<dyn ClientCertVerifier>,
}

/// Where the certificate is, and its key.
#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    clients: Option<PathBuf>,
}

impl Tls {
    /// Reads the files, relative to `base`, and goes on looking at them for as long as this is in use. One that breaks later leaves the
    /// certificate as it was. Errors: `Invalid` with the key of the configuration and what is wrong with its file.
    pub fn open(tls: &config::Tls, base: &Path) -> Result<Self> {
        let clients = tls.clients.as_ref().map(|clients| base.join(clients));
        let files = Files { certificate: base.join(&tls.certificate), key: base.join(&tls.key), clients };
        let pair = files.read()?;
        let (sender, current) = watch::channel(Arc::new(pair.current()?));
        let read = move || files.read().map(|pair| (pair.seen(), pair));
        let take = move |pair: Pair| pair.current().map(|current| sender.send(Arc::new(current)).is_ok());
        tokio::spawn(reload::follow("tls", pair.seen(), read, take));
        Ok(Self { current })
    }

    /// A connection after its handshake, and the client's certificate. Errors: what went wrong with the handshake, or
    /// that it took too long.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, Option<Shown>)> {
        let current = Arc::clone(&self.current.borrow());
        let acceptor = TlsAcceptor::from(Arc::clone(&current.config));
        let handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream));
        let late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long"));
        let stream = handshake.await.unwrap_or_else(late)?;
        let shown = match stream.get_ref().1.peer_certificates().and_then(|chain| chain.split_first()) {
            None => None,
            Some((certificate, chain)) => Some(current.shown(certificate, chain)?),
        };
        Ok((stream, shown))
    }

    /// Whether certificates of an authority are taken now.
    pub fn takes_from(&self, issuer: &Seen) -> bool {
        self.current.borrow().authorities.iter().any(|authority| authority.mark == *issuer)
    }
}

impl Current {
    /// What is kept of a certificate that has come through a handshake.
    fn shown(&self, certificate: &CertificateDer<'_>, chain: &[CertificateDer<'_>]) -> io::Result<Shown> {
        let unusable = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
        // The handshake tells that one of them has issued it, and not which.
        let now = UnixTime::now();
        let has_issued = |authority: &&Authority| authority.verifier.verify_client_cert(certificate, chain, now).is_ok();
        let issuer = self.authorities.iter().find(has_issued).map(|authority| authority.mark);
        let issuer = issuer.ok_or_else(|| unusable("the client's certificate does not hold any more".to_owned()))?;
        let certificate = Certificate::from_der(certificate).map_err(|error| unusable(error.to_string()))?.tbs_certificate;
        let until = certificate.validity.not_after.to_unix_duration().as_secs();
        Ok(Shown { subject: certificate.subject.to_string().into(), until, issuer })
    }
}

/// The files as they were read together.
struct Pair {
    certificate: Vec<u8>,
    key: Vec<u8>,
    clients: Option<(PathBuf, Vec<u8>)>,
    paths: (PathBuf, PathBuf),
}

impl Files {
    fn read(&self) -> Result<Pair> {
        let (certificate, key) = (read("tls.certificate", &self.certificate)?, read("tls.key", &self.key)?);
        let clients = match &self.clients {
            None => None,
            Some(path) => Some((path.clone(), read("tls.clients", path)?)),
        };
        Ok(Pair { certificate, key, clients, paths: (self.certificate.clone(), self.key.clone()) })
    }
}

impl Pair {
    fn seen(&self) -> Seen {
        let clients = self.clients.as_ref().map(|(_, clients)| clients.as_slice()).unwrap_or_default();
        reload::seen(&[&self.certificate, &self.key, clients])
    }

    fn current(&self) -> Result<Current> {
        let (certificate, key) = (&self.paths.0, &self.paths.1);
        let wrong = |of: &str, file: &Path, what: String| {
            Error::invalid(format!("{} {what}", file.display())).at(Place::Key(of.to_owned()))
        };
        let chain = CertificateDer::pem_slice_iter(&self.certificate).collect::<Result<Vec<_>, pem::Error>>();
        let chain = chain.map_err(|error| wrong("tls.certificate", certificate, format!("is no PEM file: {error}")))?;
        if chain.is_empty() {
            return Err(wrong("tls.certificate", certificate, "has no certificate in it".to_owned())
                .with_hint("it is a PEM file with \"BEGIN CERTIFICATE\", the server's own first"));
        }
        let key_of = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| {
            let what = match error {
                pem::Error::NoItemsFound => "has no private key that can be read in it".to_owned(),
                // Never the error itself: it may show what it met.
                _ => "is no PEM file".to_owned(),
            };
            wrong("tls.key", key, what).with_hint("it is a PEM file with \"BEGIN PRIVATE KEY\", without a password")
        })?;
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| Error::internal("TLS cannot be set up").caused_by(error))?;
        let mut authorities = Vec::new();
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some((path, pem)) => {
                let unusable = |what: String| {
                    wrong("tls.clients", path, what).with_hint("it is a PEM file with the certificates of those who issue them")
                };
                let verifier = |roots: &RootCertStore| {
                    let (roots, provider) = (Arc::new(roots.clone()), Arc::clone(&provider));
                    // Who shows none may still sign in otherwise.
                    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).allow_unauthenticated();
                    verifier.build().map_err(|error| unusable(format!("cannot be used: {error}")))
                };
                let mut all = RootCertStore::empty();
                for root in CertificateDer::pem_slice_iter(pem) {
                    let root = root.map_err(|error| unusable(format!("is no PEM file: {error}")))?;
                    let mut one = RootCertStore::empty();
                    one.add(root).map_err(|error| unusable(format!("cannot be used: {error}")))?;
                    if let Some(root) = one.roots.first() {
                        authorities.push(Authority { mark: mark(root), verifier: verifier(&one)? });
                    }
                    all.roots.append(&mut one.roots);
                }
                builder.with_client_cert_verifier(verifier(&all)?)
            }
        };
        let mut config = builder.with_single_cert(chain, key_of).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => wrong("tls.key", key, "is not the key of the certificate".to_owned())
                .with_hint("give both files of one pair, the server's own certificate first"),
            error => wrong("tls.certificate", certificate, format!("cannot be used: {error}")),
        })?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(Current { config: Arc::new(config), authorities })
    }
}

/// Tells an authority from others; a certificate of it that is only renewed is the same.
fn mark(root: &TrustAnchor<'_>) -> Seen {
    reload::seen(&[&root.subject, &root.subject_public_key_info, root.name_constraints.as_deref().unwrap_or_default()])
}

fn read(of: &str, path: &Path) -> Result<Vec<u8>> {
    reload::read(path)
        .map_err(|reason| Error::invalid(format!("{} cannot be read: {reason}", path.display())).at(Place::Key(of.to_owned())))
}
