//! The server on a real loopback socket: time limits, sizes, and how it ends.

use skytale_wire::id::Time;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

mod tls;

struct Running {
    addr: SocketAddr,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Running {
    async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        change(&mut config);
        let server = Server::bind_with(config, clock()).await.unwrap();
        let addr = server.addr();
        let stop = CancellationToken::new();
        let served = tokio::spawn(server.serve(stop.clone()));
        Self {
            addr,
            stop,
            served,
            _dir: dir,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    /// Sends these bytes and reads until the server closes.
    async fn talk(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        // A server that refuses early may close before everything is sent.
        let _ = stream.write_all(bytes).await;
        until_closed(&mut stream).await
    }
}

async fn until_closed(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    let closed = tokio::time::timeout(SOON, async {
        while let Ok(read @ 1..) = stream.read(&mut part).await {
            answer.extend_from_slice(&part[..read]);
        }
    });
    closed.await.expect("the server closes by itself, and soon");
    String::from_utf8(answer).unwrap()
}

/// Reads one answer's head and no further.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(char::from(stream.read_u8().await.unwrap()));
    }
    head
}

fn config(dir: &std::path::Path) -> Config {
    let mut config = Config::new(dir);
    config.addr = "127.0.0.1:0".parse().unwrap();
    config.danger_argon2_memory_kib = 64;
    config.danger_argon2_passes = 1;
    config
}

fn clock() -> Clock {
    Clock::from_fn(|| Time(1_790_000_000_000))
}

/// Far beyond the limits that these tests set, far below the defaults of the libraries.
const SOON: Duration = Duration::from_secs(8);
const LIVEZ: &[u8] = b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn it_answers_on_the_port_it_names() {
    let server = Running::start(|_| {}).await;

    let answer = server.talk(LIVEZ).await;

    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with("alive\n"));
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() {
    let server = Running::start(|config| config.head_ms_max = 50).await;

    let answer = server.talk(b"GET /livez HTTP/1.1\r\nhost: x\r\n").await;

    assert!(!answer.contains("200"), "{answer}");
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_cut_off_before_and_after_a_request() {
    let server = Running::start(|config| config.head_ms_max = 50).await;
    assert_eq!(server.talk(b"").await, "");

    let answer = server.talk(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await;

    assert!(
        answer.ends_with("alive\n"),
        "answered once, then closed: {answer}"
    );
}

#[tokio::test]
async fn a_body_that_never_ends_is_cut_off() {
    let server = Running::start(|config| config.request_ms_max = 50).await;

    let answer = server
        .talk(
            b"POST /v1/accounts HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
              content-length: 100\r\n\r\n{\"email\":",
        )
        .await;

    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains(r#""code":"timeout""#));
}

#[tokio::test]
async fn a_body_or_head_over_the_limit_is_refused() {
    let server = Running::start(|_| {}).await;
    let mut chunked =
        b"POST /v1/accounts HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                        transfer-encoding: chunked\r\n\r\n"
            .to_vec();
    for _ in 0..80 {
        chunked.extend_from_slice(b"400\r\n");
        chunked.extend_from_slice(&[b' '; 1024]);
        chunked.extend_from_slice(b"\r\n");
    }
    let long_head = format!(
        "GET /livez HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n",
        "y".repeat(65_536)
    );

    let endless = server.talk(&chunked).await;
    let long = server.talk(long_head.as_bytes()).await;

    assert!(
        endless.is_empty() || endless.starts_with("HTTP/1.1 413"),
        "{endless}"
    );
    assert!(
        long.is_empty() || long.starts_with("HTTP/1.1 431"),
        "{long}"
    );
    assert!(
        server.talk(LIVEZ).await.ends_with("alive\n"),
        "others are served"
    );
}

#[tokio::test]
async fn two_lengths_are_refused() {
    let server = Running::start(|_| {}).await;

    let answer = server
        .talk(b"POST /v1/accounts HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}")
        .await;

    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[tokio::test]
async fn it_finishes_what_it_began_and_takes_nothing_new() {
    let server = Running::start(|_| {}).await;
    let mut busy = server.connect().await;
    busy.write_all(
        b"POST /v1/accounts HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
          expect: 100-continue\r\ncontent-length: 53\r\n\r\n",
    )
    .await
    .unwrap();
    // "Continue" is sent when the handler waits for the body: now the request has begun.
    assert!(head(&mut busy).await.starts_with("HTTP/1.1 100"));

    server.stop.cancel();
    busy.write_all(br#"{"email":"a@example.org","password":"correct horse!"}"#)
        .await
        .unwrap();

    let answer = until_closed(&mut busy).await;
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    server.served.await.unwrap();
    assert!(TcpStream::connect(server.addr).await.is_err());
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_cut_off_at_the_end() {
    let server = Running::start(|config| config.drain_ms_max = 50).await;
    let mut stuck = server.connect().await;
    stuck
        .write_all(
            b"POST /v1/accounts HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
              expect: 100-continue\r\ncontent-length: 100\r\n\r\n",
        )
        .await
        .unwrap();
    assert!(head(&mut stuck).await.starts_with("HTTP/1.1 100"));

    server.stop.cancel();

    server.served.await.unwrap();
    assert_eq!(until_closed(&mut stuck).await, "");
}

#[tokio::test]
async fn the_local_account_is_made_once_and_its_key_works() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::bind_with(config(dir.path()), clock())
        .await
        .unwrap();

    assert!(
        server.new_local_key().await.is_err(),
        "nothing to make a key for yet"
    );
    let local = server.bootstrap_local().await.unwrap().unwrap();
    assert!(server.bootstrap_local().await.unwrap().is_none());
    let second = server.new_local_key().await.unwrap();
    drop(server);
    let server = Server::bind_with(config(dir.path()), clock())
        .await
        .unwrap();
    assert!(
        server.bootstrap_local().await.unwrap().is_none(),
        "after a restart too"
    );

    assert_eq!(local.account, second.account);
    assert!(local.api_key.expose().starts_with("sk_test_"));
    let addr = server.addr();
    let stop = CancellationToken::new();
    let served = tokio::spawn(server.serve(stop.clone()));
    for key in [local.api_key, second.api_key] {
        let request = format!(
            "GET /v1/accounts/me HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             authorization: Bearer {}\r\n\r\n",
            key.expose()
        );
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = until_closed(&mut stream).await;
        assert!(answer.contains(r#""email":"local""#), "{answer}");
    }
    stop.cancel();
    served.await.unwrap();
}

#[tokio::test]
async fn an_address_in_use_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.addr = taken.local_addr().unwrap();

    let refused = Server::bind_with(config, clock()).await;

    assert!(matches!(refused, Err(Error::Unreachable(_, _))));
}
