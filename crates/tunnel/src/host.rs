//! The relay's end of tunnels.

use std::{fmt, io, sync::Arc};

use bytes::Bytes;
use futures_util::Stream;
use skytale_wire::id::TransportKey;
use tokio::sync::mpsc;
use tokio_rustls::{TlsAcceptor, TlsStream};
use tonic::Status;

use crate::{
    Inside, Pipe,
    keys::{OwnKey, proved, server},
};

/// Shows the relay's key to whoever opens a line.
#[derive(Clone)]
pub struct Host(TlsAcceptor);

impl Host {
    /// With the key that agents pin.
    pub fn new(own: &OwnKey) -> Self {
        Self(TlsAcceptor::from(Arc::new(server(own))))
    }

    /// Shakes hands over the messages of one stream. The caller says how long that may take.
    pub async fn accept(
        &self,
        incoming: impl Stream<Item = Result<Bytes, Status>> + Send + 'static,
        outgoing: mpsc::Sender<Bytes>,
    ) -> io::Result<(TransportKey, Inside)> {
        let pipe = Pipe::new(incoming, outgoing, ());
        let inside = self.0.accept(pipe).await?;
        let proved = proved(inside.get_ref().1.peer_certificates());
        let key = proved.ok_or_else(|| io::Error::other("no key was proved"))?;
        Ok((key, TlsStream::from(inside)))
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}
