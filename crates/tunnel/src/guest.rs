//! An agent's end of a tunnel: a TCP connection of its own, gRPC on it, TLS inside.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::stream;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use skytale_wire::id::RelayKey;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::mpsc,
};
use tokio_rustls::{TlsConnector, TlsStream};
use tonic::{
    Code, Request,
    client::Grpc,
    codegen::{Service, http::Uri},
    transport::Endpoint,
};

use crate::{
    Inside, Pipe,
    keys::{OwnKey, client},
    piece::{MESSAGE_BYTES_MAX, METHOD, PIECES_WAITING_MAX, Pieces},
};

/// Opens lines to the relay of one key.
#[derive(Clone)]
pub struct Guest {
    inside: Arc<ClientConfig>,
}

/// Why there is no line. The text says what to look at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Nothing answers there, or the way there is blocked.
    #[error("the relay's gRPC port cannot be reached: {0}")]
    Unreachable(String),
    /// Something answers, and has no such service.
    #[error("what answers at the relay's gRPC port carries no lines: {0}")]
    NoLines(String),
    /// Something answers, and does not have the relay's key.
    #[error("what answers at the relay's gRPC port is not this relay")]
    NotTheRelay,
}

impl Guest {
    /// For this relay, with the transport key that the Hello will name.
    pub fn new(relay: RelayKey, own: &OwnKey) -> Self {
        Self {
            inside: Arc::new(client(relay, own)),
        }
    }

    /// Opens a line at `host:port`, inside an outer TLS where there is one. The caller says how long it
    /// may take.
    pub async fn open(&self, address: &str, outer_tls: bool) -> Result<Inside, Refused> {
        let unreachable = |why: &dyn fmt::Display| Refused::Unreachable(why.to_string());
        let uri = |scheme: &str| format!("{scheme}://{address}");
        let origin: Uri = uri(if outer_tls { "https" } else { "http" })
            .parse()
            .map_err(|_| unreachable(&"the address cannot be read"))?;
        // The connector does the outer TLS, so the library must not try.
        let channel = Endpoint::from_shared(uri("http"))
            .map_err(|error| unreachable(&error))?
            .origin(origin)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .http2_adaptive_window(false)
            .connect_with_connector(Connector {
                address: address.to_owned(),
                outer: outer_tls.then(outer),
            })
            .await
            .map_err(|error| unreachable(&deepest(&error)))?;
        let mut grpc = Grpc::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        grpc.ready()
            .await
            .map_err(|error| unreachable(&deepest(&error)))?;
        let (outgoing, pieces) = mpsc::channel(PIECES_WAITING_MAX);
        let request = Request::new(stream::unfold(pieces, |mut pieces| async move {
            pieces.recv().await.map(|piece| (piece, pieces))
        }));
        let method = METHOD.parse().expect("it is written correctly");
        let answer = grpc.streaming(request, method, Pieces).await;
        let incoming = answer.map_err(|status| {
            if status.code() == Code::Unavailable {
                unreachable(&status.message())
            } else {
                Refused::NoLines(status.code().to_string())
            }
        })?;
        let pipe = Pipe::new(incoming.into_inner(), outgoing, channel);
        let name = ServerName::try_from("relay").expect("it is a name");
        let inside = TlsConnector::from(Arc::clone(&self.inside))
            .connect(name, pipe)
            .await;
        inside.map(TlsStream::from).map_err(|error| {
            if error.kind() == io::ErrorKind::InvalidData {
                Refused::NotTheRelay
            } else {
                Refused::NoLines(error.to_string())
            }
        })
    }
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").finish_non_exhaustive()
    }
}

/// Makes the connection under HTTP/2, at once for each small write.
struct Connector {
    address: String,
    outer: Option<Arc<ClientConfig>>,
}

/// Either with an outer TLS or without.
trait Under: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Under for T {}

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Under>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let (address, outer) = (self.address.clone(), self.outer.clone());
        Box::pin(async move {
            let tcp = TcpStream::connect(&address).await?;
            tcp.set_nodelay(true)?;
            let under: Box<dyn Under> = match outer {
                None => Box::new(tcp),
                Some(config) => {
                    let host = address.rsplit_once(':').map_or("", |(host, _)| host);
                    let host = host.trim_matches(['[', ']']).to_owned();
                    let name = ServerName::try_from(host)
                        .map_err(|_| io::Error::other("the host has no name for TLS"))?;
                    Box::new(TlsConnector::from(config).connect(name, tcp).await?)
                }
            };
            Ok(TokioIo::new(under))
        })
    }
}

/// The outer TLS is there for proxies that let nothing else through. Who answers is proved inside it, so
/// it takes any certificate: one that a company's proxy made, or one that nobody has signed.
fn outer() -> Arc<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let anybody = Anybody(provider.signature_verification_algorithms);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites of all of them")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(anybody))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

#[derive(Debug)]
struct Anybody(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _shown: &CertificateDer<'_>,
        _more: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, shown, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, shown, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// What the library's error is about lies at its bottom.
fn deepest(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => deepest(source),
        None => error.to_string(),
    }
}

/// What the relay may send ahead of being read.
const WINDOW: u32 = 2 * 1024 * 1024;
