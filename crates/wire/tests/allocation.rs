//! What decoding allocates: nothing on a peer's word, and little for what is really there.
//!
//! An allocator that counts would need `unsafe`, which this workspace forbids. So the test looks
//! at the process from outside: the highest size of its address space so far, which Linux tells
//! and which grows even when reserved memory is never touched. The control at the end shows that
//! a reservation would be seen. The file holds one test, because others in the same process would
//! be seen too.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use std::hint::black_box;

use skytale_wire::{
    Blob,
    envelope::{Envelope, RosterChange},
    frame::{
        Commit, Deliver, FRAME_BYTES_MAX, PutKeyPackages, Sealed, SealedKey, ToAgent, ToRelay,
        WelcomeFor, decode, encode,
    },
    id::{AgentId, ChannelId, Epoch, Generation, InviteId, MessageId, RelayKey, Seq, Time},
    invite::{Invite, InviteSeed},
    statement,
};

#[test]
fn decoding_reserves_nothing_for_what_is_only_announced() {
    let encodings = encodings();
    lie_everywhere(&encodings); // Warms up: code is mapped, the allocator has its first pages.
    let before = peak_bytes();

    lie_everywhere(&encodings);
    let grown = peak_bytes() - before;
    assert!(grown <= NOISE, "{grown} bytes for announced lengths");

    // The most that a frame can become: each of its bytes an element of a list.
    let frame = many_empty_packages();
    let before = peak_bytes();
    let ToRelay::PutKeyPackages(put) = decode(&frame, FRAME_BYTES_MAX).unwrap() else {
        panic!("an upload was encoded");
    };
    let held = put.packages.capacity() * size_of::<Blob>();
    assert!(held <= frame.len() * GROWTH_MAX, "{held} bytes held");
    drop(put);
    let grown = peak_bytes() - before;
    assert!(grown <= frame.len() * GROWTH_MAX + NOISE, "{grown} bytes");

    let before = peak_bytes();
    drop(black_box(Vec::<u8>::with_capacity(RESERVED)));
    assert!(
        peak_bytes() - before >= RESERVED - GROWTH_MAX * FRAME_BYTES_MAX,
        "a reservation is seen"
    );
}

/// Replaces each byte of each encoding by a head of each kind that announces too much.
fn lie_everywhere(encodings: &[Vec<u8>]) {
    for bytes in encodings {
        for place in 0..bytes.len() {
            for major in [2_u8, 3, 4, 5] {
                for announced in ANNOUNCED {
                    let mut lie = bytes[..place].to_vec();
                    lie.push(major << 5 | 0x1b);
                    lie.extend_from_slice(&announced.to_be_bytes());
                    lie.extend_from_slice(&bytes[place + 1..]);
                    decode_as_everything(&lie);
                }
            }
        }
    }
}

fn decode_as_everything(bytes: &[u8]) {
    let _ = black_box(decode::<ToRelay>(bytes, FRAME_BYTES_MAX));
    let _ = black_box(decode::<ToAgent>(bytes, FRAME_BYTES_MAX));
    let _ = black_box(decode::<Envelope>(bytes, FRAME_BYTES_MAX));
    let _ = black_box(decode::<RosterChange>(bytes, FRAME_BYTES_MAX));
    let _ = black_box(decode::<Sealed>(bytes, FRAME_BYTES_MAX));
    let _ = black_box(decode::<statement::Leave>(bytes, FRAME_BYTES_MAX));
    let _ = black_box(decode::<Invite>(bytes, FRAME_BYTES_MAX));
}

fn encodings() -> Vec<Vec<u8>> {
    let (channel, id, agent) = (ChannelId([1; 32]), MessageId([2; 16]), AgentId([3; 32]));
    let sealed = Sealed {
        ciphertext: b"sealed".as_slice().into(),
        keys: vec![SealedKey {
            invite: InviteId([4; 16]),
            sealed: b"key".as_slice().into(),
        }],
    };
    let commit = Commit {
        channel,
        id,
        epoch: Epoch(1),
        body: b"body".as_slice().into(),
        change: encode(&RosterChange::default()).into(),
        welcomes: vec![WelcomeFor {
            agents: vec![agent],
            body: b"welcome".as_slice().into(),
        }],
        sealed: Some(sealed.clone()),
        join: None,
    };
    let deliver = Deliver {
        channel,
        seq: Seq(1),
        record: b"record".as_slice().into(),
    };
    let invite = Invite {
        relay: RelayKey([5; 32]),
        addresses: vec!["127.0.0.1:1".to_owned()],
        channel,
        generation: Generation(0),
        inviter: agent,
        expires: Time(6),
        seed: InviteSeed::new([7; 16]),
    };
    vec![
        encode(&ToRelay::Commit(commit)),
        encode(&ToRelay::PutKeyPackages(put(2))),
        encode(&ToAgent::Deliver(deliver)),
        encode(&RosterChange {
            removed: vec![agent],
            ..RosterChange::default()
        }),
        encode(&sealed),
        encode(&invite),
    ]
}

fn many_empty_packages() -> Vec<u8> {
    let frame = encode(&ToRelay::PutKeyPackages(put(FRAME_BYTES_MAX - 64)));
    assert!(frame.len() > FRAME_BYTES_MAX - 64 && frame.len() <= FRAME_BYTES_MAX);
    frame
}

fn put(count: usize) -> PutKeyPackages {
    PutKeyPackages {
        id: MessageId([2; 16]),
        packages: vec![Blob::default(); count],
        last_resort: None,
    }
}

/// The highest size that this process's address space ever had.
fn peak_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:"));
    let kib = line.unwrap().trim().trim_end_matches("kB").trim();
    kib.parse::<usize>().unwrap() * 1024
}

/// Lengths that would show, or fail, were they believed.
const ANNOUNCED: [u64; 6] = [
    64 * 1024 * 1024,
    1 << 31,
    (1 << 32) - 1,
    1 << 40,
    1 << 63,
    u64::MAX,
];
/// What the harness and the allocator may take by themselves meanwhile.
const NOISE: usize = 16 * 1024 * 1024;
/// Bytes in memory for each byte of a frame, at most: `docs/wire.md` says so.
const GROWTH_MAX: usize = 64;
/// Larger than anything before it, so that it moves the peak.
const RESERVED: usize = 1024 * 1024 * 1024;
