//! Says one thing in a channel and ends: `cargo run -p skytale-sdk --example tell -- planner
//! acme/ops/plan "Ready when you are."`.
//!
//! The relay has the message when `send` returns, so nothing needs to be closed afterwards.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use skytale_sdk::{Agent, Error};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut words = std::env::args().skip(1);
    let (Some(agent), Some(channel), Some(text)) = (words.next(), words.next(), words.next())
    else {
        println!("usage: tell AGENT CHANNEL TEXT");
        return Ok(());
    };
    let me = Agent::open(&agent).await?;
    let sent = me.channel(&channel).await?.send(text).await?;
    println!("stored at {}", sent.seq);
    Ok(())
}
