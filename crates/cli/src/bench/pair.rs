//! One sender to one receiver, as many as go through: sealed, padded, durable at both ends and at
//! the relay. Beside it a bare echo of the same cells.

use skytale_shape::bucket::{SEALED_OVERHEAD_MAX, plaintext_len};
use tokio::time::Instant;

use super::{
    Effort, Figure, client,
    house::House,
    machine::micros,
    number,
    parts::{Counted, Order, Part, Role},
};
use crate::exit::Failure;

pub(super) async fn measure(effort: Effort) -> Result<Vec<Figure>, Failure> {
    let mut house = House::open().await?;
    let parts = |house: &House| [&house.sender, &house.relay, &house.receiver].map(Part::cpu_time);

    let before = parts(&house);
    house.receiver.tell(&Order::Drain).await?;
    let begun = Instant::now();
    let sent: Counted = house
        .sender
        .ask(&Order::Flood {
            seconds: effort.seconds,
            at_once: AT_ONCE,
            bytes: PAYLOAD_BYTES,
        })
        .await?;
    let received: Counted = house.receiver.hear().await?;
    let took = begun.elapsed();
    let after = parts(&house);
    house.close().await?;
    if sent.messages != received.messages {
        return Err(Failure::failed(format!(
            "{} messages were stored and {} received",
            sent.messages, received.messages
        )));
    }

    let rate = number(received.messages) / took.as_secs_f64();
    let mut figures = vec![
        Figure::new("pair", "stored, received, taken", rate, "messages/s").note(format!(
            "{PAYLOAD_BYTES} B, {AT_ONCE} at once, {} messages; wanted: 2000",
            received.messages
        )),
    ];
    for (name, (before, after)) in ["sender", "relay", "receiver"]
        .into_iter()
        .zip(before.into_iter().zip(after))
    {
        if let (Some(before), Some(after)) = (before, after) {
            let used = micros(&after.saturating_sub(before)) / number(received.messages);
            figures.push(Figure::new(
                "pair",
                format!("CPU, {name}"),
                used,
                "µs/message",
            ));
        }
    }
    let echo = echo(effort).await?;
    figures.push(
        Figure::new("pair", "bare echo", echo, "cells/s").note(format!(
            "{CELL_BYTES} B, {AT_ONCE} at once, no MLS, no disk, two processes"
        )),
    );
    figures.push(Figure::new("pair", "pair to echo", rate / echo, "ratio"));
    Ok(figures)
}

async fn echo(effort: Effort) -> Result<f64, Failure> {
    let (part, addr) = Part::start(&Role::Echo).await?;
    let rate = client::echo_rate(&addr, effort.seconds, AT_ONCE, CELL_BYTES).await?;
    part.end().await?;
    Ok(rate)
}

/// Sends that wait for the relay at the same time.
const AT_ONCE: usize = 512;
pub(super) const PAYLOAD_BYTES: usize = 256;
/// The cell in which such a message travels when it travels alone.
pub(super) const CELL_BYTES: usize = plaintext_len(PAYLOAD_BYTES) + SEALED_OVERHEAD_MAX;
