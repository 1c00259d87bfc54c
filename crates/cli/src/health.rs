//! `skytale health`: asks a server of this machine whether it is ready, for whoever restarts it or sends
//! it agents. Plain HTTP/1.1 written here: one request, one answer, no proxy.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    args,
    exit::{Exit, Failure},
    output::Output,
};

#[derive(Debug, Serialize)]
struct Answer {
    ok: bool,
    /// What the server says of its parts.
    #[serde(skip_serializing_if = "Value::is_null")]
    parts: Value,
}

pub(crate) async fn run(wish: &args::Health, output: Output) -> Result<(), Failure> {
    let path = if wish.live { "/livez" } else { "/readyz" };
    let asked = timeout(ANSWER_MAX, ask(wish, path)).await;
    let said = asked.ok().and_then(Result::ok).ok_or_else(|| {
        Failure::new(
            Exit::Unreachable,
            format!(
                "nobody answers on {}: does a server run, with this --health-addr or --admin-addr?",
                wish.addr
            ),
        )
    })?;
    let (head, body) = said.split_once("\r\n\r\n").unwrap_or((&said, ""));
    let ok = head.split(' ').nth(1) == Some("200");
    let answer = Answer {
        ok,
        parts: serde_json::from_str(body.trim()).unwrap_or_default(),
    };
    output.result(&answer, || {
        let parts = if answer.parts.is_null() {
            String::new()
        } else {
            format!("  {}", answer.parts)
        };
        format!("{}{parts}", if ok { "ok" } else { "not ready" })
    })?;
    if ok {
        Ok(())
    } else {
        Err(Failure::failed(
            "it is not ready: the parts that are false say why, and its log",
        ))
    }
}

async fn ask(wish: &args::Health, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(wish.addr).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
        wish.addr
    );
    stream.write_all(request.as_bytes()).await?;
    let mut said = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut said).await?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

const ANSWER_MAX: Duration = Duration::from_secs(4);
const ANSWER_BYTES_MAX: u64 = 65_536;
