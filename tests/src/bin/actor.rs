//! An agent for the process tests: sends numbered messages as fast as a window allows, reads what
//! comes, and says on stdout, one JSON line for each, what became of it. It is there to be killed.
//!
//! `actor NAME CHANNEL TAG WINDOW COUNT`; where it lives comes from the environment. On stdin,
//! `stop` ends the sending and `close` everything.
#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use std::{io::Write as _, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _, poll, stream::FuturesUnordered};
use serde_json::{Value, json};
use skytale_sdk::{Agent, Channel, Error, Sent, Timeouts};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tracing_subscriber::EnvFilter;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_env("SKYTALE_LOG"))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [name, channel, tag, window, count] = &words[..] else {
        panic!("actor NAME CHANNEL TAG WINDOW COUNT")
    };
    let timeouts = Timeouts {
        stored: PATIENCE,
        ..Timeouts::default()
    };
    let me = Agent::builder(name).timeouts(timeouts).open().await;
    let me = me.unwrap();
    let channel = me.find(channel).await.unwrap().unwrap();
    say(&json!({"ready": me.id()}));
    let reading = tokio::spawn(read(channel.clone()));
    let (window, count) = (window.parse().unwrap(), count.parse().unwrap());
    send(&channel, tag, window, count).await;
    reading.abort();
    // Its cancellation is no failure of it.
    let _ = reading.await;
    drop(channel);
    me.close().await.unwrap();
    say(&json!({"closed": true}));
}

/// Until `close` comes or whoever listens has gone.
async fn send(channel: &Channel, tag: &str, window: usize, count: u64) {
    let mut stdin = BufReader::new(tokio::io::stdin()).lines();
    let mut flying = FuturesUnordered::new();
    let mut next = 0;
    let (mut stopping, mut told) = (false, false);
    loop {
        while !stopping && next < count && flying.len() < window {
            let text = format!("{tag}.{next}");
            next += 1;
            let sending = channel.clone();
            let mut one = async move {
                let sent = sending.send(text.as_str()).await;
                (text, sent)
            }
            .boxed();
            // Its first poll hands it over: what is begun first is sent first.
            match poll!(&mut one) {
                std::task::Poll::Ready(done) => tell(done),
                std::task::Poll::Pending => flying.push(one),
            }
        }
        if (stopping || next == count) && flying.is_empty() && !told {
            told = true;
            say(&json!({"stopped": next}));
        }
        tokio::select! {
            line = stdin.next_line() => match line.unwrap().as_deref() {
                Some("stop") => stopping = true,
                Some("close") | None => return,
                Some(other) => panic!("{other}?"),
            },
            Some(done) = flying.next(), if !flying.is_empty() => tell(done),
        }
    }
}

fn tell((text, sent): (String, Result<Sent, Error>)) {
    match sent {
        Ok(sent) => say(&json!({"stored": text, "seq": sent.seq.0})),
        Err(error) => {
            say(&json!({"refused": text, "code": error.code(), "why": error.to_string()}));
        }
    }
}

/// Says of each message first that it came and then that it is taken.
async fn read(channel: Channel) {
    let mut inbox = channel.messages();
    loop {
        match inbox.next().await {
            Ok(Some(message)) => {
                let seq = message.seq().0;
                say(&json!({"got": message.text().unwrap(), "seq": seq}));
                match message.ack().await {
                    Ok(()) => say(&json!({"took": seq})),
                    Err(error) => say(&json!({"failed": error.to_string()})),
                }
            }
            Ok(None) => return,
            Err(error) => {
                say(&json!({"failed": error.to_string()}));
                return;
            }
        }
    }
}

/// In one write: a kill must not leave half a line.
fn say(what: &Value) {
    let line = format!("{what}\n");
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).unwrap();
    out.flush().unwrap();
}

/// Longer than any test lets the relay be away.
const PATIENCE: Duration = Duration::from_mins(3);
