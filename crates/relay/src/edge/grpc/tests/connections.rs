//! What a connection may cost, before and after anything is said on it.

use super::*;

#[tokio::test]
async fn a_connection_that_asks_for_nothing_is_closed() {
    let house = House::with(|config| config.hello_ms_max = 200).await;
    let mut silent = TcpStream::connect(house.addr()).await.unwrap();
    let mut slow = TcpStream::connect(house.addr()).await.unwrap();
    slow.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();

    for stream in [&mut silent, &mut slow] {
        let mut rest = Vec::new();
        // The end may be a reset: either way it is over.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest))
            .await
            .unwrap();
    }

    assert_eq!(house.metric("skytale_relay_grpc_silent_total").await, 2);
    house.relay.stop().await;
}

#[tokio::test]
async fn one_address_holds_only_so_many_connections_and_streams() {
    let house = House::with(|config| config.connections_per_ip_max = 2).await;
    let first = house.channel().await;
    let alice = Client::dial(first.clone(), Generation::Two, "org/ns/alice").await;
    let bob = Client::dial(first.clone(), Generation::Two, "org/ns/bob").await;

    let third = Stream::open(first.clone(), None).await;
    assert_eq!(third.err().unwrap().code(), Code::ResourceExhausted);
    let _second = TcpStream::connect(house.addr()).await.unwrap();
    let mut turned_away = TcpStream::connect(house.addr()).await.unwrap();
    let mut rest = Vec::new();
    let read = timeout(PATIENCE, turned_away.read_to_end(&mut rest)).await;
    assert_eq!(read.unwrap().unwrap_or(0), 0);
    assert_eq!(house.metric("skytale_relay_grpc_crowded_total").await, 2);

    // One goes, and there is room again.
    drop(alice);
    let room = async {
        while Stream::open(first.clone(), None).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, room).await.unwrap();
    drop(bob);
    house.relay.stop().await;
}

#[tokio::test]
async fn who_opens_and_resets_streams_loses_the_connection_and_nobody_else_does() {
    let house = House::open().await;
    let mut alice = house.client(Generation::Two, "org/ns/alice").await;
    let mut bob = house.client(Generation::Two, "org/ns/bob").await;
    let mut flood = TcpStream::connect(house.addr()).await.unwrap();
    let (mut hear, mut tell) = flood.split();

    // A preface, settings, and then requests that are reset in the same breath.
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    for number in 0..2_000_u32 {
        let id = 2 * number + 1;
        bytes.extend(frame(1, 4, id, &request_headers()));
        bytes.extend(frame(3, 0, id, &8_u32.to_be_bytes()));
    }
    let said = async {
        // It may be cut off before all is said.
        let _ = tell.write_all(&bytes).await;
    };
    let heard = async {
        let mut rest = Vec::new();
        let _ = hear.read_to_end(&mut rest).await;
        rest
    };
    let (heard, ()) = timeout(PATIENCE, async { tokio::join!(heard, said) })
        .await
        .unwrap();

    assert!(frames(&heard).contains(&GOAWAY), "it is told to go");
    alice.publish("org/ns/bob", "still here").await;
    assert_eq!(bob.words().await, "still here");
    house.relay.stop().await;
}

#[tokio::test]
async fn headers_without_end_are_cut_off() {
    let house = House::open().await;
    let mut flood = TcpStream::connect(house.addr()).await.unwrap();
    let (mut hear, mut tell) = flood.split();

    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    bytes.extend(frame(1, 0, 1, &request_headers()));
    // A literal header of 16 KiB again and again, and never an end.
    let mut header = b"\x00\x01a\x7f\x81\x7e".to_vec();
    header.extend(vec![b'x'; 16_256]);
    for _ in 0..2_000 {
        bytes.extend(frame(9, 0, 1, &header));
    }
    let said = async {
        let _ = tell.write_all(&bytes).await;
    };
    let heard = async {
        let mut rest = Vec::new();
        let _ = hear.read_to_end(&mut rest).await;
    };
    timeout(PATIENCE, async { tokio::join!(heard, said) })
        .await
        .unwrap();
    house.relay.stop().await;
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = len[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// POST to SLIM's method, in HPACK without Huffman and without the table.
pub(super) fn request_headers() -> Vec<u8> {
    // Indexed: POST and http; then the path and the authority.
    let mut headers = vec![0x83, 0x86];
    for (name, value) in [(4_u8, OPEN_CHANNEL), (1, "relay")] {
        headers.push(name);
        headers.push(u8::try_from(value.len()).unwrap());
        headers.extend(value.as_bytes());
    }
    headers
}

/// The types of the frames in what came.
pub(super) fn frames(mut bytes: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(9) {
        kinds.push(head[3]);
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        bytes = rest
            .get(usize::try_from(len).unwrap()..)
            .unwrap_or_default();
    }
    kinds
}

pub(super) const GOAWAY: u8 = 7;
