//! When the door opens and how it closes: no client of SLIM's may be given a reason to give up.

use axum::routing::get;
use skytale_wire::token::PublicKeys;

use super::{
    connections::{GOAWAY, frame, frames, request_headers},
    *,
};

#[tokio::test]
async fn streams_end_cleanly_and_nobody_answers_the_phone_any_more() {
    let house = House::open().await;
    let mut alice = house.client(Generation::Two, "org/ns/alice").await;
    let mut bob = house.client(Generation::One, "org/ns/bob").await;
    let addr = house.addr();

    let stopping = tokio::spawn(house.relay.stop());

    assert_eq!(alice.end().await, Ok(()));
    assert_eq!(bob.end().await, Ok(()));
    let dialled = TcpStream::connect(addr).await.unwrap_err();
    assert_eq!(dialled.kind(), io::ErrorKind::ConnectionRefused);
    timeout(PATIENCE, stopping).await.unwrap().unwrap();
}

/// One whose negotiation fails gives up for good.
#[tokio::test]
async fn who_has_just_connected_gets_a_link_before_the_clean_end() {
    let house = House::open().await;
    let channel = house.channel().await;

    let stopping = tokio::spawn(house.relay.stop());
    let mut late = Stream::open(channel, None).await.unwrap();

    let link = late.negotiate().await;
    assert_eq!(link.generation(), Generation::Two);
    assert!(late.hear().await.unwrap().is_none());
    timeout(PATIENCE, stopping).await.unwrap().unwrap();
}

#[tokio::test]
async fn nobody_can_connect_before_tokens_can_be_checked() {
    let keys = Signer::from_seed(&ISSUER).unwrap().public_keys();
    let issuer = publish(keys).await;
    let bare = Bare::open(
        |config| config.danger_slim_open = false,
        |_| vec![Issuer::Url(issuer)],
        |_| {},
    )
    .await;
    let dialled = TcpStream::connect(bare.edge.addr()).await.unwrap_err();
    assert_eq!(dialled.kind(), io::ErrorKind::ConnectionRefused);
    assert!(!bare.state.listens());

    bare.edge.edge.gate.refresh().await;
    bare.edge.edge.gate.hear_everybody();

    let endpoint = Endpoint::from_shared(format!("http://{}", bare.edge.addr())).unwrap();
    let connected = async {
        loop {
            if let Ok(channel) = endpoint.connect().await {
                return channel;
            }
            tokio::task::yield_now().await;
        }
    };
    let channel = timeout(PATIENCE, connected).await.unwrap();
    assert!(bare.state.listens());
    let bearer = format!(
        "Bearer {}",
        bare.house.token(&["org/*"], now().plus(600_000))
    );
    let stream = Stream::open(channel, Some(&bearer)).await.unwrap();
    let mut alice = Client::on(stream, Generation::Two, "org/ns/alice").await;
    assert_eq!(alice.subscribe("org/ns/alice", 1).await, Ok(()));
    bare.stop().await;
}

#[tokio::test]
async fn a_stream_on_a_connection_that_is_too_old_ends_cleanly() {
    let bare = Bare::open(
        |_| {},
        |config| config.issuers.clone(),
        |times| {
            times.age = Duration::from_millis(300);
            times.grace = Duration::from_millis(100);
        },
    )
    .await;
    let dialled = channel(bare.edge.addr()).await;
    let mut alice = Client::dial(dialled, Generation::Two, "org/ns/alice").await;

    assert_eq!(alice.end().await, Ok(()));

    let dialled = channel(bare.edge.addr()).await;
    Client::dial(dialled, Generation::Two, "org/ns/alice").await;
    bare.stop().await;
}

#[tokio::test]
async fn a_connection_without_a_link_is_told_to_go() {
    let bare = Bare::open(
        |_| {},
        |config| config.issuers.clone(),
        |times| {
            times.idle = Duration::from_millis(200);
            times.grace = Duration::from_millis(100);
        },
    )
    .await;
    let dialled = channel(bare.edge.addr()).await;
    let mut alice = Client::dial(dialled, Generation::Two, "org/ns/alice").await;
    let mut visitor = TcpStream::connect(bare.edge.addr()).await.unwrap();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    bytes.extend(frame(1, 5, 1, &request_headers()));
    visitor.write_all(&bytes).await.unwrap();

    let mut heard = Vec::new();
    let _ = timeout(PATIENCE, visitor.read_to_end(&mut heard))
        .await
        .unwrap();

    assert!(frames(&heard).contains(&GOAWAY));
    alice.publish("org/ns/bob", "nobody hears it").await;
    assert_eq!(alice.subscribe("org/ns/other", 2).await, Ok(()));
    bare.stop().await;
}

/// An API server as far as the relay knows it.
async fn publish(keys: PublicKeys) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = async move || keys.to_json();
    let routes = Router::new().route("/.well-known/jwks.json", get(answer));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    url
}
