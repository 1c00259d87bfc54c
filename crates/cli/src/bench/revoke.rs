//! How soon an API key that is revoked ends the lines that it has let in.

use hyper::Method;
use serde_json::json;
use skytale_sdk::RelayAddr;
use skytale_wire::{
    http::{NewKey, TokenAnswer, TokenRequest},
    id::{AgentId, RelayKey, TransportKey},
};
use tokio::{task::JoinSet, time::Instant};

use super::{
    Effort, Figure,
    client::Client,
    http::{Http, request},
    machine::percentile,
    parts::{Part, Role, UpIs},
};
use crate::exit::Failure;

pub(super) async fn measure(effort: Effort) -> Result<Vec<Figure>, Failure> {
    let dir = tempfile::tempdir()?;
    let role = Role::Up {
        dir: dir.path().to_owned(),
    };
    let (part, is): (Part, UpIs) = Part::start(&role).await?;
    let relay: RelayAddr = is.relay.parse()?;
    let mut http = Http::connect(is.api).await?;
    let mut ended = Vec::new();
    let mut asked = Vec::new();
    for _ in 0..ROUNDS {
        let wish = json!({"name": "bench"});
        let key: NewKey = http
            .read(request(Method::POST, "/v1/keys", &is.key, &wish)?)
            .await?;
        let mut lines = JoinSet::new();
        for _ in 0..effort.idle_connections {
            let bought = async |agent, transport| {
                buy(&mut http, key.key.expose(), relay.key, agent, transport).await
            };
            let (mut reader, writer, open) = Client::connect_bought(&relay, bought).await?.split();
            lines.spawn(async move {
                reader.end().await;
                let at = Instant::now();
                drop(writer);
                open.close().await;
                at
            });
        }
        let begun = Instant::now();
        let path = format!("/v1/keys/{}", key.id);
        http.ask(request(Method::DELETE, &path, &is.key, &json!({}))?)
            .await?;
        let answered = Instant::now();
        asked.push(answered - begun);
        while let Some(at) = lines.join_next().await {
            let at = at.map_err(|_| Failure::failed("a line of the bench failed"))?;
            ended.push(at.saturating_duration_since(answered));
        }
    }
    part.end().await?;

    let figure = |name: &str, value| Figure::new("revoke", name, value, "ms");
    Ok(vec![
        figure("line closed, p50", percentile(&ended, 50) / 1e3).note(format!(
            "after the answer to revoking its key; {ROUNDS} keys with {} lines over QUIC each",
            effort.idle_connections
        )),
        figure("line closed, p99", percentile(&ended, 99) / 1e3).note("wanted: 2000"),
        figure("line closed, slowest", percentile(&ended, 100) / 1e3).note("wanted: 5000"),
        figure("revoking, p50", percentile(&asked, 50) / 1e3).note("the request itself"),
    ])
}

async fn buy(
    http: &mut Http,
    key: &str,
    relay: RelayKey,
    agent: AgentId,
    transport: TransportKey,
) -> Result<String, Failure> {
    let wish = TokenRequest {
        agent_id: Some(agent),
        transport_key: Some(transport),
        audience: Some(relay),
        ..TokenRequest::default()
    };
    let answer: TokenAnswer = http
        .read(request(Method::POST, "/v1/tokens", key, &wish)?)
        .await?;
    Ok(answer.token.expose().to_owned())
}

const ROUNDS: usize = 5;
