//! HTTP as the benches speak it: one connection, one request after another, as little work as can be.

use std::{future::poll_fn, net::SocketAddr, pin::Pin};

use hyper::{
    Method, Request, StatusCode,
    body::{Body as _, Incoming},
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::TcpStream;

use super::client::failed;
use crate::exit::Failure;

/// A connection to an API server.
pub(super) struct Http(SendRequest<String>);

impl Http {
    pub(super) async fn connect(addr: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let (line, connection) = handshake(TokioIo::new(stream)).await.map_err(failed)?;
        // Ends with the line.
        tokio::spawn(connection);
        Ok(Self(line))
    }

    /// Sends a request and gives back the body of the answer, which must be good.
    pub(super) async fn ask(&mut self, request: Request<String>) -> Result<Vec<u8>, Failure> {
        self.0.ready().await.map_err(failed)?;
        let answer = self.0.send_request(request).await.map_err(failed)?;
        let status = answer.status();
        let body = whole(answer.into_body()).await?;
        let good = matches!(
            status,
            StatusCode::OK | StatusCode::CREATED | StatusCode::NO_CONTENT
        );
        good.then_some(body)
            .ok_or_else(|| Failure::failed(format!("the API server answers {status}")))
    }

    /// The same where the answer is JSON.
    pub(super) async fn read<T: DeserializeOwned>(
        &mut self,
        request: Request<String>,
    ) -> Result<T, Failure> {
        let body = self.ask(request).await?;
        serde_json::from_slice(&body).map_err(failed)
    }
}

/// A request by a key, with a body of JSON.
pub(super) fn request<T: Serialize>(
    method: Method,
    path: &str,
    key: &str,
    body: &T,
) -> Result<Request<String>, Failure> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("authorization", format!("Bearer {key}"))
        .header("content-type", "application/json")
        .body(serde_json::to_string(body).map_err(failed)?)
        .map_err(failed)
}

/// A body to its end, or the connection could not be used again.
async fn whole(mut body: Incoming) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(data) = frame.map_err(failed)?.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes)
}
