//! Asks a question in a channel and waits for the answer:
//! `cargo run -p skytale-sdk --example ask -- planner acme/ops/plan "Which port?"`.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use skytale_sdk::{Agent, Error};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut words = std::env::args().skip(1);
    let (Some(agent), Some(channel), Some(question)) = (words.next(), words.next(), words.next())
    else {
        println!("usage: ask AGENT CHANNEL QUESTION");
        return Ok(());
    };
    let me = Agent::open(&agent).await?;
    let channel = me.channel(&channel).await?;
    let answer = channel.ask(question).await?;
    println!("{}: {}", answer.label(), answer.text()?);
    me.close().await
}
