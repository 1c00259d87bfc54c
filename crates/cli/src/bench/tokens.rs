//! An API server whose agents buy one token after another with a key that it has seen before, and how
//! soon such a server is ready. Each purchase is counted durably before it is answered.

use std::{net::SocketAddr, time::Duration};

use hyper::{Method, Request};
use skytale_wire::{
    http::TokenRequest,
    id::{AgentId, RelayKey, TransportKey},
};
use tokio::{task::JoinSet, time::Instant};

use super::{
    Effort, Figure,
    client::failed,
    http::{Http, request},
    machine::percentile,
    number,
    parts::{ApiIs, Part, Role},
};
use crate::exit::Failure;

pub(super) async fn measure(
    effort: Effort,
    database_url: Option<&str>,
) -> Result<Vec<Figure>, Failure> {
    let mut figures = on("SQLite", effort, None).await?;
    if let Some(url) = database_url {
        figures.extend(on("Postgres", effort, Some(url)).await?);
    }
    Ok(figures)
}

/// The figures of one server on one kind of database.
async fn on(
    store: &str,
    effort: Effort,
    database_url: Option<&str>,
) -> Result<Vec<Figure>, Failure> {
    let dir = tempfile::tempdir()?;
    let role = Role::Api {
        dir: dir.path().join("api"),
        database_url: database_url.map(str::to_owned),
        relay: RELAY,
    };
    let (part, is): (Part, ApiIs) = Part::start(&role).await?;
    let key = is
        .key
        .ok_or_else(|| Failure::usage("the bench's database must be empty"))?;
    let bought = Asked::Tokens(&key);
    let seconds = Duration::from_secs(effort.seconds);
    // One alone makes the key familiar: of so many who come from one address with a key that is not, the
    // server would send some away. Every connection is up before anything counts.
    let mut first = Http::connect(is.addr).await?;
    first.ask(bought.request(0)?).await?;
    flood(is.addr, &bought, Duration::from_millis(500)).await?;
    let (before, begun) = (part.cpu_time(), Instant::now());
    let took = flood(is.addr, &bought, seconds).await?;
    let (elapsed, after) = (begun.elapsed(), part.cpu_time());
    let bare = flood(is.addr, &Asked::Alive, seconds).await?;
    let memory = part.resident();
    part.end().await?;
    let ready = starts(&role).await?;

    let what = |what: &str| format!("{store}: {what}");
    let rate = |took: &[Duration]| number(took.len() as u64) / seconds.as_secs_f64();
    let figure = |name: &str, value, unit| Figure::new("tokens", what(name), value, unit);
    let mut figures = vec![
        figure("bought and counted", rate(&took), "tokens/s").note(format!(
            "{AGENTS} agents of one account, one key, {} s; wanted: 2000",
            effort.seconds
        )),
        figure("p50", percentile(&took, 50) / 1e3, "ms"),
        figure("p99", percentile(&took, 99) / 1e3, "ms"),
        figure("bare requests", rate(&bare), "requests/s")
            .note("GET /livez by the same client, as many at once"),
        figure("tokens to bare requests", rate(&took) / rate(&bare), ""),
        figure("ready", percentile(&ready, 50) / 1e3, "ms").note(format!(
            "from process start, median of {STARTS}; wanted: 300"
        )),
        figure("ready, slowest", percentile(&ready, 99) / 1e3, "ms"),
    ];
    if let (Some(before), Some(after)) = (before, after) {
        let cores = after.saturating_sub(before).as_secs_f64() / elapsed.as_secs_f64();
        figures
            .push(figure("cores that the server used", cores, "").note("without the database's"));
    }
    if let Some(memory) = memory {
        figures.push(figure(
            "memory afterwards",
            number(memory) / (1024.0 * 1024.0),
            "MiB",
        ));
    }
    Ok(figures)
}

/// How long it takes from the start of a process until it listens.
async fn starts(role: &Role) -> Result<Vec<Duration>, Failure> {
    let mut ready = Vec::new();
    for _ in 0..STARTS {
        let begun = Instant::now();
        let (part, _): (Part, ApiIs) = Part::start(role).await?;
        ready.push(begun.elapsed());
        part.kill().await?;
    }
    Ok(ready)
}

/// What agents ask for, over and over.
enum Asked<'a> {
    /// A token each, by this key.
    Tokens(&'a str),
    /// Whether the server is there.
    Alive,
}

impl Asked<'_> {
    fn request(&self, agent: u8) -> Result<Request<String>, Failure> {
        match self {
            Self::Alive => Request::builder()
                .uri("/livez")
                .header("host", "localhost")
                .body(String::new())
                .map_err(failed),
            Self::Tokens(key) => {
                let wish = TokenRequest {
                    agent_id: Some(AgentId([agent; 32])),
                    transport_key: Some(TransportKey([agent; 32])),
                    audience: Some(RELAY),
                    ..TokenRequest::default()
                };
                request(Method::POST, "/v1/tokens", key, &wish)
            }
        }
    }
}

/// Each agent asks, waits for the answer, and asks again, on a connection of its own, for so long. Gives
/// back how long each answer took.
async fn flood(
    addr: SocketAddr,
    asked: &Asked<'_>,
    seconds: Duration,
) -> Result<Vec<Duration>, Failure> {
    let mut agents = JoinSet::new();
    let until = Instant::now() + seconds;
    for agent in 0..AGENTS {
        let request = asked.request(agent)?;
        agents.spawn(async move {
            let mut took = Vec::new();
            let mut line = Http::connect(addr).await?;
            while Instant::now() < until {
                let begun = Instant::now();
                line.ask(request.clone()).await?;
                took.push(begun.elapsed());
            }
            Ok::<_, Failure>(took)
        });
    }
    let mut all = Vec::new();
    while let Some(took) = agents.join_next().await {
        all.extend(took.map_err(|_| Failure::failed("an agent of the bench failed"))??);
    }
    Ok(all)
}

const AGENTS: u8 = 128;
const RELAY: RelayKey = RelayKey([3; 32]);
const STARTS: usize = 5;
