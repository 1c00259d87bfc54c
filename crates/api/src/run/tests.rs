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

#[tokio::test]
async fn a_server_on_a_file_takes_no_database_url() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.database_url = Some("postgres://alice@127.0.0.1/skytale".to_owned().into());

    let refused = Server::bind_embedded(config).await;

    assert!(matches!(refused, Err(Error::Misuse(_))));
}

/// Sends a sign-up with this many bytes, all of them said in the head.
fn sign_up_of(bytes: usize) -> Vec<u8> {
    let mut body = br#"{"email":"a@example.org","password":"correct horse!"}"#.to_vec();
    body.resize(bytes, b' ');
    let mut request = format!(
        "POST /v1/accounts HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {bytes}\r\n\r\n"
    )
    .into_bytes();
    request.extend(body);
    request
}

/// A18.
#[tokio::test]
async fn a_body_may_be_as_large_as_the_limit_and_not_a_byte_larger() {
    let server = Running::start(|config| config.body_bytes_max = 1_000).await;

    let at = server.talk(&sign_up_of(1_000)).await;
    let over = server.talk(&sign_up_of(1_001)).await;
    let none = server
        .talk(
            b"POST /v1/accounts HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
              content-type: application/json\r\ncontent-length: 0\r\n\r\n",
        )
        .await;

    assert!(at.starts_with("HTTP/1.1 202"), "{at}");
    assert!(over.starts_with("HTTP/1.1 413"), "{over}");
    assert!(over.contains(r#""code":"too_large""#));
    assert!(none.starts_with("HTTP/1.1 400"), "{none}");
    assert!(none.contains(r#""code":"bad_json""#));
}

/// Without a length, and without an end: the server stops reading at the limit.
#[tokio::test]
async fn of_a_body_without_an_end_no_more_is_read_than_may_be() {
    let server = Running::start(|_| {}).await;
    for key in ["", "idempotency-key: endless\r\n"] {
        let mut stream = server.connect().await;
        let head = format!(
            "POST /v1/accounts HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{key}\
             transfer-encoding: chunked\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let chunk = [b"1000\r\n".as_slice(), &[b' '; 4096], b"\r\n"].concat();
        let mut sent = 0;
        let refused = tokio::time::timeout(SOON, async {
            while stream.write_all(&chunk).await.is_ok() {
                sent += 4096;
            }
        });
        refused.await.expect("it closes");
        // What lies in the buffers of both sockets is sent too, and read by nobody.
        assert!(sent < 16 << 20, "{sent}");
    }
}

/// A18.
#[tokio::test]
async fn heads_that_are_long_or_have_many_lines_are_refused() {
    let server = Running::start(|_| {}).await;
    let request = |path: &str, lines: &str| {
        format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{lines}\r\n")
    };
    let lines = |count: usize| "x: y\r\n".repeat(count);
    let parameters: Vec<String> = (0..10_000).map(|n| format!("p{n}=1")).collect();
    let within = request("/livez", &lines(HEADERS_MAX - 2));
    let fits = request("/livez", &format!("x: {}\r\n", "y".repeat(12_000)));
    for good in [&within, &fits] {
        let answer = server.talk(good.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    for bad in [
        request("/livez", &lines(HEADERS_MAX)),
        request("/livez", &lines(10_000)),
        request("/livez", &format!("x: {}\r\n", "y".repeat(1 << 20))),
        request("/livez", &format!("{}: y\r\n", "x".repeat(1 << 20))),
        request(&format!("/livez?{}", parameters.join("&")), ""),
        request(&format!("/{}", "x".repeat(1 << 20)), ""),
        request("/livez", "a b: c\r\n"),
        request("/livez", "x: a\0b\r\n"),
    ] {
        let answer = server.talk(bad.as_bytes()).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{answer}"
        );
    }
    assert!(server.talk(LIVEZ).await.ends_with("alive\n"));
}

/// A19: a byte now and then keeps no connection open, and others are served meanwhile.
#[tokio::test]
async fn who_sends_slowly_is_cut_off_in_time() {
    let server = Running::start(|config| {
        config.head_ms_max = 500;
        config.request_ms_max = 500;
    })
    .await;
    let head = b"POST /v1/accounts HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                 content-length: 1000\r\n\r\n";
    let began = tokio::time::Instant::now();
    let mut slow = JoinSet::new();
    for sent in [0, 40, head.len()] {
        for _ in 0..20 {
            let mut stream = server.connect().await;
            slow.spawn(async move {
                stream.write_all(&head[..sent]).await.unwrap();
                let rest = head[sent..].iter().copied().chain(std::iter::repeat(b' '));
                for byte in rest {
                    if stream.write_all(&[byte]).await.is_err() {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        }
    }
    while !slow.is_empty() {
        tokio::select! {
            Some(ended) = slow.join_next() => ended.unwrap(),
            answer = server.talk(LIVEZ) => assert!(answer.ends_with("alive\n")),
        }
        assert!(began.elapsed() < SOON, "{} are still there", slow.len());
    }
}

/// hyper would wait for such a reader without end.
#[tokio::test]
async fn who_leaves_answers_lying_is_cut_off() {
    let server = Running::start(|config| config.answer_ms_max = 200).await;
    let mut stream = server.connect().await;
    let asking = [LIVEZ_AGAIN; 100].concat();

    let closed = tokio::time::timeout(SOON, async {
        while stream.write_all(&asking).await.is_ok() {}
    });

    assert!(closed.await.is_ok(), "it is still held");
    assert!(server.talk(LIVEZ).await.ends_with("alive\n"));
}

const LIVEZ_AGAIN: &[u8] = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn an_address_has_so_many_connections_and_gets_a_place_back() {
    let server = Running::start(|config| config.connections_per_address_max = 2).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = server.connect().await;
        stream.write_all(LIVEZ_AGAIN).await.unwrap();
        assert!(head(&mut stream).await.starts_with("HTTP/1.1 200"));
        held.push(stream);
    }

    assert_eq!(server.talk(LIVEZ).await, "", "closed as it comes");

    held.pop();
    let answered = tokio::time::timeout(SOON, async {
        while !server.talk(LIVEZ).await.ends_with("alive\n") {}
    });
    assert!(answered.await.is_ok());
}

#[tokio::test]
async fn when_all_places_are_taken_others_wait_until_one_is_free() {
    let server = Running::start(|config| config.connections_max = 1).await;
    let mut first = server.connect().await;
    first.write_all(LIVEZ_AGAIN).await.unwrap();
    assert!(head(&mut first).await.starts_with("HTTP/1.1 200"));

    let mut second = server.connect().await;
    second.write_all(LIVEZ).await.unwrap();
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(200), second.read(&mut byte)).await;
    assert!(early.is_err(), "it has to wait");

    drop(first);
    assert!(until_closed(&mut second).await.ends_with("alive\n"));
}

/// A20, over a socket: only the configuration says whom to believe.
#[tokio::test]
async fn the_sockets_address_counts_unless_a_trusted_proxy_is_there() {
    for (trusted, last) in [(false, 429), (true, 401)] {
        let server = Running::start(|config| {
            config.unproven_per_minute_max = 2;
            if trusted {
                config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
            }
        })
        .await;
        let mut status = String::new();
        for n in 0..3 {
            let request = format!(
                "GET /v1/usage HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                 x-forwarded-for: 203.0.113.{n}\r\n\r\n"
            );
            let answer = server.talk(request.as_bytes()).await;
            status = answer.split(' ').nth(1).unwrap().to_owned();
        }
        assert_eq!(status, last.to_string(), "trusted: {trusted}");
    }
}

#[test]
fn by_default_nobody_is_waited_for_longer_than_ten_seconds() {
    let config = Config::new(std::path::Path::new("x"));

    assert!(config.head_ms_max <= 10_000);
    assert!(config.request_ms_max <= 10_000);
    assert!(config.answer_ms_max <= 10_000);
    assert!(config.connections_per_address_max <= config.connections_max / 4);
}

/// A19: whoever opens as many connections as it can and says nothing leaves room for others.
#[tokio::test]
async fn a_crowd_from_one_address_leaves_room_for_others() {
    let server = Running::start(|config| {
        config.connections_max = 64;
        config.connections_per_address_max = 16;
    })
    .await;
    let mut crowd = Vec::new();
    for _ in 0..500 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        crowd.push(socket.connect(server.addr).await.unwrap());
    }

    let began = tokio::time::Instant::now();
    for _ in 0..20 {
        assert!(server.talk(LIVEZ).await.ends_with("alive\n"));
    }

    assert!(began.elapsed() < Duration::from_secs(2), "at once");
    drop(crowd);
}

#[tokio::test]
async fn when_as_many_requests_are_worked_on_as_may_be_others_are_told_to_come_back() {
    let server = Running::start(|config| config.requests_max = 1).await;
    let mut busy = server.connect().await;
    busy.write_all(
        b"POST /v1/accounts HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
          expect: 100-continue\r\ncontent-length: 100\r\n\r\n",
    )
    .await
    .unwrap();
    assert!(head(&mut busy).await.starts_with("HTTP/1.1 100"));

    let other = server.talk(LIVEZ).await;

    assert!(other.starts_with("HTTP/1.1 503"), "{other}");
    assert!(other.contains("retry-after: 1\r\n"), "{other}");
    drop(busy);
    let answered = tokio::time::timeout(SOON, async {
        while !server.talk(LIVEZ).await.ends_with("alive\n") {}
    });
    assert!(answered.await.is_ok());
}
