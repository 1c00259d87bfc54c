//! What must stay secret is in no file, no log line at any level, and no answer to anybody else.
//!
//! Alone in its process, because it listens to everything that the whole process logs.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{net::SocketAddr, path::Path};

use heard::Log;
use serde_json::{Value, json};
use skytale_api::{Config, Server, clock::Clock};
use skytale_wire::{
    http::RelayAt,
    id::{AgentId, RelayKey, Time, TransportKey},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

mod heard;

const EMAIL: &str = "alice@example.org";
const PASSWORD: &str = "correct horse battery";
const CANARY: &str = "needle-in-a-field";
const ONCE: &str = "needle-in-an-idempotency-key";

#[tokio::test]
async fn secrets_are_nowhere_but_with_their_owner() {
    let log = Log::listen();
    let dir = tempfile::tempdir().unwrap();
    let server = Server::bind_with(config(dir.path()), clock())
        .await
        .unwrap();
    let addr = server.addr();
    let mut spoken = format!("{server:?}");
    let stop = CancellationToken::new();
    let served = tokio::spawn(server.serve(stop.clone()));

    // Given somebody with a password, a session, a key and a token,
    let login = json!({"email": EMAIL, "password": PASSWORD});
    post(addr, "/v1/accounts", "", &login).await;
    let session = post(addr, "/v1/sessions", "", &login).await;
    let session = text(&session, "token");
    let key = post(addr, "/v1/keys", &session, &json!({"name": "first"})).await;
    let key = text(&key, "key");
    let wish = json!({
        "agent_id": AgentId([4; 32]),
        "transport_key": TransportKey([5; 32]),
        "audience": RelayKey([3; 32]),
    });
    let token = text(&post(addr, "/v1/tokens", &key, &wish).await, "token");
    // and once more in a way in which answers are remembered,
    let also = post_once(addr, "/v1/keys", &key, &json!({"name": "second"})).await;
    let also = text(&also, "key");
    post_once(addr, "/v1/accounts", "", &login).await;

    // when all of it is sent to where it does not belong,
    for bearer in [&key, &token, &session, "sk_live_needle-in-a-field"] {
        for body in [
            json!({"email": key, CANARY: 1}),
            json!([PASSWORD]),
            json!(token),
        ] {
            for path in [
                "/v1/accounts",
                "/v1/sessions",
                "/v1/tokens",
                "/v1/needle-in-a-field",
            ] {
                spoken.push_str(&post(addr, path, bearer, &body).await.to_string());
            }
        }
    }
    stop.cancel();
    served.await.unwrap();

    // then it has left no trace.
    let logged = log.text();
    assert!(logged.contains("answered"), "the log was heard");
    let stored = everything_in(dir.path());
    assert!(
        stored.contains(EMAIL) && stored.contains("$argon2id$"),
        "the store was read"
    );
    let secret = key.rsplit('_').next().unwrap();
    let also = also.rsplit('_').next().unwrap();
    for needle in [PASSWORD, secret, also, &token, &session, ONCE] {
        assert!(!spoken.contains(needle), "answered");
        assert!(!logged.contains(needle), "logged");
        assert!(!stored.contains(needle), "stored");
    }
    for needle in [CANARY, EMAIL] {
        assert!(!spoken.contains(needle), "answered: {needle}");
        assert!(!logged.contains(needle), "logged: {needle}");
    }
}

fn config(dir: &Path) -> Config {
    let mut config = Config::new(dir);
    config.addr = "127.0.0.1:0".parse().unwrap();
    config.danger_argon2_memory_kib = 64;
    config.danger_argon2_passes = 1;
    config.relays = vec![RelayAt {
        key: RelayKey([3; 32]),
        addresses: vec![],
    }];
    config
}

fn clock() -> Clock {
    Clock::from_fn(|| Time(1_790_000_000_000))
}

async fn post(addr: SocketAddr, path: &str, bearer: &str, body: &Value) -> Value {
    send(addr, path, "", bearer, body).await
}

async fn post_once(addr: SocketAddr, path: &str, bearer: &str, body: &Value) -> Value {
    let line = format!("idempotency-key: {ONCE}\r\n");
    send(addr, path, &line, bearer, body).await
}

async fn send(addr: SocketAddr, path: &str, line: &str, bearer: &str, body: &Value) -> Value {
    let body = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {bearer}\r\n\
         {line}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

fn text(answer: &Value, field: &str) -> String {
    answer[field]
        .as_str()
        .unwrap_or_else(|| panic!("no {field} in {answer}"))
        .to_owned()
}

/// The bytes of the database and its journal; of the signing key only its owner's copy may exist.
fn everything_in(dir: &Path) -> String {
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            bytes.extend(std::fs::read(path).unwrap());
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
