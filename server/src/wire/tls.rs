//! TLS for both ports: the certificate and its key, read again when their files change.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nexus_flight_catalog::{Error, Place, Result};
use ring::digest::{SHA256, digest};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config;

/// How often the files are looked at.
const LOOKED_AT: Duration = Duration::from_secs(1);
/// A handshake that is not done by then is given up.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The most that is read of a file.
const LARGEST_FILE: u64 = 1 << 20;
/// What both ports speak over TLS (RFC 7301): gRPC is HTTP/2, and HTTP clients take either.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Makes connections secret, with the certificate of the moment.
#[derive(Debug, Clone)]
pub struct Tls {
    current: watch::Receiver<Arc<ServerConfig>>,
}

/// Where the certificate is, and its key.
#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// What the files held when they were last read: enough to see that they have changed.
type Seen = [u8; 32];

impl Tls {
    /// Reads the files, relative to `base`, and goes on looking at them for as long as this is in use. One that breaks later leaves the
    /// certificate as it was. Errors: `Invalid` with the key of the configuration and what is wrong with its file.
    pub fn open(tls: &config::Tls, base: &Path) -> Result<Self> {
        let files = Files { certificate: base.join(&tls.certificate), key: base.join(&tls.key) };
        let read = files.read()?;
        let (sender, current) = watch::channel(read.config()?);
        tokio::spawn(follow(files, read.seen(), sender));
        Ok(Self { current })
    }

    /// A connection after its handshake. Errors: what went wrong with that, or that it took too long.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = Arc::clone(&self.current.borrow());
        let handshake = tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream));
        handshake.await.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long")))
    }
}

/// Takes over what the files come to hold.
async fn follow(files: Files, mut seen: Seen, sender: watch::Sender<Arc<ServerConfig>>) {
    loop {
        tokio::select! {
            () = sender.closed() => return,
            () = tokio::time::sleep(LOOKED_AT) => {}
        }
        let read = files.read();
        let now = read.as_ref().map_or([0; 32], Pair::seen);
        if now == seen {
            continue;
        }
        // Each state is told once: the two files are seldom replaced in the same moment.
        seen = now;
        match read.and_then(|read| read.config()) {
            Ok(config) => {
                sender.send_replace(config);
                tracing::info!("the certificate was read again: new connections get the new one");
            }
            Err(error) => {
                metrics::counter!("nexus_reload_failures_total", "what" => "tls").increment(1);
                tracing::warn!(%error, "the changed certificate cannot be used, and the one before stays");
            }
        }
    }
}

/// Both files as they were read together.
struct Pair {
    certificate: Vec<u8>,
    key: Vec<u8>,
    paths: (PathBuf, PathBuf),
}

impl Files {
    fn read(&self) -> Result<Pair> {
        let (certificate, key) = (read("tls.certificate", &self.certificate)?, read("tls.key", &self.key)?);
        Ok(Pair { certificate, key, paths: (self.certificate.clone(), self.key.clone()) })
    }
}

impl Pair {
    fn seen(&self) -> Seen {
        let whole = [digest(&SHA256, &self.certificate), digest(&SHA256, &self.key)];
        let mut seen = [0; 32];
        seen.copy_from_slice(digest(&SHA256, &whole.each_ref().map(AsRef::<[u8]>::as_ref).concat()).as_ref());
        seen
    }

    fn config(&self) -> Result<Arc<ServerConfig>> {
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
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| Error::internal("TLS cannot be set up").caused_by(error))?;
        let mut config = builder.with_no_client_auth().with_single_cert(chain, key_of).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => wrong("tls.key", key, "is not the key of the certificate".to_owned())
                .with_hint("give both files of one pair, the server's own certificate first"),
            error => wrong("tls.certificate", certificate, format!("cannot be used: {error}")),
        })?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(Arc::new(config))
    }
}

fn read(of: &str, path: &Path) -> Result<Vec<u8>> {
    let wrong =
        |reason: String| Error::invalid(format!("{} cannot be read: {reason}", path.display())).at(Place::Key(of.to_owned()));
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut bytes));
    read.map_err(|error| wrong(error.to_string()))?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(wrong("it is larger than 1 MiB".to_owned()));
    }
    Ok(bytes)
}
