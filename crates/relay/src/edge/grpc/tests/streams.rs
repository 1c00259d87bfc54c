//! What is said on a stream: negotiation, messages, what is dropped, tokens.

use super::*;

#[tokio::test]
async fn clients_of_both_generations_talk_on_one_port() {
    let house = House::open().await;
    for generation in [Generation::One, Generation::Two] {
        let mut alice = house.client(generation, "org/ns/alice").await;
        let mut bob = house.client(generation, "org/ns/bob").await;

        for round in 0..50_u8 {
            alice.publish("org/ns/bob", vec![round; 300]).await;
        }
        bob.publish("org/ns/alice", "hello").await;

        for round in 0..50_u8 {
            assert_eq!(bob.words().await, vec![round; 300]);
        }
        assert_eq!(alice.words().await, "hello");
    }
    assert_eq!(house.metric("skytale_relay_slim_streams_total").await, 4);
    house.relay.stop().await;
}

#[tokio::test]
async fn a_client_older_than_negotiation_just_speaks() {
    let house = House::open().await;
    let stream = Stream::open(house.channel().await, None).await.unwrap();
    let mut carol = Client {
        stream,
        link: link_of_one(),
        name: Name::parse("org/ns/carol").unwrap().at(Instance::Only(7)),
        said: 0,
    };
    assert_eq!(carol.subscribe("org/ns/carol", 3).await, Ok(()));

    let mut alice = house.client(Generation::One, "org/ns/alice").await;
    alice.publish("org/ns/carol", "hello").await;

    assert_eq!(carol.words().await, "hello");
    house.relay.stop().await;
}

#[tokio::test]
async fn a_client_may_ask_for_a_key_that_outlives_quantum_computers() {
    let house = House::open().await;
    let mut stream = Stream::open(house.channel().await, None).await.unwrap();
    let (request, dial) = Dial::begin("a link", "test", true, &mut chance());

    stream.say(request).await;

    let reply = stream.hear().await.unwrap().unwrap();
    assert_eq!(dial.finish(reply).unwrap().generation(), Generation::Two);
    house.relay.stop().await;
}

#[tokio::test]
async fn a_message_with_a_wrong_mac_or_none_is_dropped_and_the_stream_lives() {
    let house = House::open().await;
    let mut alice = house.client(Generation::Two, "org/ns/alice").await;
    let mut bob = house.client(Generation::Two, "org/ns/bob").await;

    // Made for another link: both negotiate with the same name, never with the same key.
    let foreign = bob.publication("org/ns/bob", "foreign");
    alice.stream.say(foreign).await;
    let bare = message(Generation::Two, &alice.name, &bob.name, 9, "bare".into());
    alice.stream.say(bare.original().clone()).await;
    alice.stream.say(&b"\xff\xff\xff"[..]).await;
    alice.publish("org/ns/bob", "good").await;

    assert_eq!(bob.words().await, "good");
    assert_eq!(house.metric("skytale_relay_slim_wrong_macs_total").await, 2);
    assert_eq!(house.metric("skytale_relay_slim_malformed_total").await, 1);
    house.relay.stop().await;
}

/// SLIM's node ends the stream here, and its clients send the same again on the next one.
#[tokio::test]
async fn a_message_that_is_too_large_is_dropped_and_the_stream_lives() {
    let house = House::open().await;
    for generation in [Generation::One, Generation::Two] {
        let mut alice = house.client(generation, "org/ns/alice").await;
        let mut bob = house.client(generation, "org/ns/bob").await;

        alice.stream.say(vec![0; MESSAGE_BYTES_MAX + 1]).await;
        alice.publish("org/ns/bob", vec![2; 3 * 1024 * 1024]).await;
        if generation == Generation::One {
            // More than a client can take, and less than the relay reads.
            let large = vec![1; 5 * 1024 * 1024].into();
            let large = message(generation, &alice.name, &bob.name, 99, large);
            alice.stream.say(large.original().clone()).await;
        }
        alice.publish("org/ns/bob", "small").await;

        assert_eq!(bob.words().await, vec![2; 3 * 1024 * 1024]);
        assert_eq!(bob.words().await, "small");
    }
    assert_eq!(house.metric("skytale_relay_slim_oversized_total").await, 2);
    house.relay.stop().await;
}

#[tokio::test]
async fn a_stream_that_says_nothing_ends_cleanly() {
    let house = House::with(|config| config.hello_ms_max = 1_000).await;
    let mut bob = house.client(Generation::Two, "org/ns/bob").await;
    let mut silent = Stream::open(house.channel().await, None).await.unwrap();

    assert!(silent.hear().await.unwrap().is_none());
    assert_eq!(house.metric("skytale_relay_grpc_silent_total").await, 1);

    // One that has spoken may be silent for as long as it likes.
    let mut alice = house.client(Generation::Two, "org/ns/alice").await;
    alice.publish("org/ns/bob", "hello").await;
    assert_eq!(bob.words().await, "hello");
    house.relay.stop().await;
}

#[tokio::test]
async fn a_stream_that_begins_with_nonsense_is_told_so() {
    let house = House::open().await;
    let nonsense = [
        b"\xff\xff".to_vec(),
        link_message("one.two.three"),
        link_message("0.7.0"),
        // The second generation agrees on a key.
        link_message("3.4.6"),
    ];
    for first in nonsense {
        let mut stream = Stream::open(house.channel().await, None).await.unwrap();
        stream.say(first).await;
        let status = stream.hear().await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
    house.relay.stop().await;
}

#[tokio::test]
async fn a_client_that_has_said_everything_gets_a_clean_end_and_is_subscribed_no_more() {
    let house = House::open().await;
    let alice = house.client(Generation::Two, "org/ns/alice").await;
    let Client {
        stream: Stream { tell, mut hear },
        ..
    } = alice;

    drop(tell);

    assert!(
        timeout(PATIENCE, hear.message())
            .await
            .unwrap()
            .unwrap()
            .is_none()
    );
    drop(hear);
    let mut bob = house.client(Generation::Two, "org/ns/bob").await;
    bob.publish("org/ns/alice", "anybody?").await;
    bob.publish("org/ns/bob", "myself?").await;
    assert_eq!(bob.subscribe("org/ns/other", 9).await, Ok(()));
    house.relay.stop().await;
}

#[tokio::test]
async fn without_a_token_nobody_gets_in_unless_the_relay_is_open() {
    let house = House::with(|config| config.danger_slim_open = false).await;
    let good = house.token(&["org/*"], now().plus(600_000));
    let expired = house.token(&["org/*"], now());
    let refused = [
        None,
        Some("Basic YWxpY2U6cGFzc3dvcmQ=".to_owned()),
        Some("Bearer nonsense".to_owned()),
        Some(format!("Bearer {expired}")),
        Some(good.clone()),
    ];
    for authorization in refused {
        let stream = Stream::open(house.channel().await, authorization.as_deref()).await;
        let code = stream.err().unwrap().code();
        assert_eq!(code, Code::PermissionDenied, "{authorization:?}");
    }
    assert_eq!(house.metric("skytale_relay_slim_denied_total").await, 5);

    let bearer = format!("Bearer {good}");
    let stream = Stream::open(house.channel().await, Some(&bearer)).await;
    let mut alice = Client::on(stream.unwrap(), Generation::Two, "org/ns/alice").await;
    assert_eq!(alice.subscribe("org/ns/alice", 1).await, Ok(()));
    assert!(alice.subscribe("other/ns/alice", 2).await.is_err());
    house.relay.stop().await;
}

/// Whoever shows something shows something good, also where nothing is asked for.
#[tokio::test]
async fn a_bad_token_is_refused_by_an_open_relay_too() {
    let house = House::open().await;
    for bad in ["Basic YWxpY2U6cGFzc3dvcmQ=", "Bearer nonsense", "Bearer"] {
        let stream = Stream::open(house.channel().await, Some(bad)).await;
        assert_eq!(stream.err().unwrap().code(), Code::PermissionDenied);
    }
    house.relay.stop().await;
}

#[tokio::test]
async fn a_stream_whose_token_expires_ends_cleanly_and_the_token_opens_no_other() {
    let house = House::with(|config| {
        config.danger_slim_open = false;
        config.limits.leeway_ms = 0;
    })
    .await;
    let token = house.token(&["org/*"], now().plus(2_000));
    let bearer = format!("Bearer {token}");
    let stream = Stream::open(house.channel().await, Some(&bearer)).await;
    let mut alice = Client::on(stream.unwrap(), Generation::Two, "org/ns/alice").await;
    assert_eq!(alice.subscribe("org/ns/alice", 1).await, Ok(()));

    assert_eq!(alice.end().await, Ok(()), "so that the client dials again");

    let denied = async {
        // The gate allows for clocks that differ.
        loop {
            let again = Stream::open(house.channel().await, Some(&bearer)).await;
            if let Err(status) = again {
                return status.code();
            }
        }
    };
    let code = timeout(PATIENCE, denied).await.unwrap();
    assert_eq!(code, Code::PermissionDenied);
    house.relay.stop().await;
}
