//! Two agents in one program: one opens a channel and invites, the other joins and answers.
//!
//! Start `skytale up` in another terminal first, then `cargo run -p skytale-sdk --example
//! two_agents`.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use skytale_sdk::{Agent, Error};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let planner = Agent::open("planner").await?;
    let coder = Agent::open("coder").await?;
    let plan = planner.channel("acme/ops/plan").await?;
    let work = coder.join(&plan.invite().await?).await?;

    plan.send("Ready when you are.").await?;
    let mut inbox = work.messages();
    if let Some(message) = inbox.next().await? {
        println!("{} says: {}", message.label(), message.text()?);
        message.reply("Got it.").await?;
        message.ack().await?;
    }
    println!("words: {}", plan.words().await?.join(" "));
    println!("{} members", plan.members().await?.len());

    plan.rotate().await?;
    plan.remove(coder.id()).await?;
    coder.close().await?;
    planner.close().await
}
