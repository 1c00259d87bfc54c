//! SLIM's own node and unmodified agents, from the package of SLIM's Python bindings.

use std::{net::TcpListener, path::Path, time::Duration};

use serde::{Deserialize, Serialize, de::IgnoredAny};
use tokio::process::Command;

use super::super::parts::Part;
use crate::exit::Failure;

/// SLIM's own node, in a process of its own.
pub(super) struct Node {
    part: Part,
    address: String,
}

impl Node {
    pub(super) async fn start(python: &Path) -> Result<Self, Failure> {
        // Its port cannot be asked for afterwards; nobody else takes this one within the moment.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let part = script(python, NODE, &[&address]).await?;
        Ok(Self { part, address })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn cpu_time(&self) -> Option<Duration> {
        self.part.cpu_time()
    }

    pub(super) async fn end(self) -> Result<(), Failure> {
        self.part.end().await
    }
}

/// Unmodified agents in a session with MLS: one asks, the others answer.
pub(super) struct Party {
    asks: Part,
    answer: Vec<Part>,
}

impl Party {
    /// With one that answers, or in a group with several. `name` tells it from others at that server.
    pub(super) async fn start(
        python: &Path,
        url: &str,
        name: &str,
        others: usize,
    ) -> Result<Self, Failure> {
        let named = |number| format!("{name}-{number}");
        let others: Vec<String> = (1..=others).map(named).collect();
        let mut answer = Vec::new();
        for other in &others {
            answer.push(script(python, CLIENTS, &[url, "answer", other]).await?);
        }
        let mut arguments = vec![url, "ask", name];
        arguments.extend(others.iter().map(String::as_str));
        let asks = script(python, CLIENTS, &arguments).await?;
        Ok(Self { asks, answer })
    }

    /// What all its agents have used.
    pub(super) fn cpu_time(&self) -> Option<Duration> {
        let all = self.answer.iter().chain([&self.asks]);
        all.map(Part::cpu_time).sum()
    }

    /// How long each of so many questions waited for its answer, in microseconds.
    pub(super) async fn round_trips(
        &mut self,
        count: usize,
        bytes: usize,
    ) -> Result<Vec<f64>, Failure> {
        self.asks.tell(&Ask { ask: count, bytes }).await?;
        let took: Took = self.asks.hear().await?;
        Ok(took.micros)
    }

    /// Messages a second that the other agent has confirmed, with so many on their way at once.
    pub(super) async fn flood(
        &mut self,
        seconds: u64,
        bytes: usize,
        at_once: usize,
    ) -> Result<f64, Failure> {
        let order = Flood {
            seconds,
            bytes,
            at_once,
        };
        self.asks.tell(&order).await?;
        let confirmed: Confirmed = self.asks.hear().await?;
        Ok(confirmed.messages / confirmed.seconds)
    }

    pub(super) async fn end(self) -> Result<(), Failure> {
        self.asks.end().await?;
        for part in self.answer {
            part.end().await?;
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct Ask {
    ask: usize,
    bytes: usize,
}

#[derive(Serialize)]
struct Flood {
    #[serde(rename = "flood")]
    seconds: u64,
    bytes: usize,
    at_once: usize,
}

#[derive(Deserialize)]
struct Took {
    micros: Vec<f64>,
}

#[derive(Deserialize)]
struct Confirmed {
    messages: f64,
    seconds: f64,
}

async fn script(python: &Path, text: &str, arguments: &[&str]) -> Result<Part, Failure> {
    let mut command = Command::new(python);
    command.args(["-c", text]).args(arguments);
    // What the package logs is no talk of ours.
    command.stderr(std::process::Stdio::null());
    let mut part = Part::spawn(command)?;
    let _: IgnoredAny = part.hear().await.map_err(|_| {
        Failure::failed(
            "SLIM's package does not start: --slim-python wants an interpreter with slim-bindings 2 or 3",
        )
    })?;
    Ok(part)
}

const NODE: &str = include_str!("node.py");
const CLIENTS: &str = include_str!("clients.py");
