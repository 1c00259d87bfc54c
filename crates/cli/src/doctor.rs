//! `skytale doctor`: what does not work, and the command that repairs it. It changes nothing but
//! what every opening of an agent does.

use serde::Serialize;
use skytale_sdk::{
    Carrier, Config, Error, LinkState, RelayAddr, RelayStatus, Status, Traffic, grpc_reaches,
};

use crate::{
    args::Everywhere,
    context,
    exit::{Exit, Failure},
    output::Output,
};

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    name: String,
    ok: bool,
    /// Nothing is wrong, but something is less than it could be.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    note: bool,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    repair: Option<String>,
}

impl Check {
    fn good(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ok: true,
            note: false,
            detail: detail.into(),
            repair: None,
        }
    }

    fn note(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            note: true,
            ..Self::good(name, detail)
        }
    }

    fn bad(name: impl Into<String>, detail: impl Into<String>, repair: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ok: false,
            note: false,
            detail: detail.into(),
            repair: Some(repair.into()),
        }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    version: &'static str,
    checks: Vec<Check>,
}

pub(crate) async fn run(everywhere: &Everywhere, output: Output) -> Result<(), Failure> {
    let mut checks = Vec::new();
    match Config::load(context::flags(everywhere)) {
        Ok(config) => {
            let from = match &config.context {
                Some(name) => format!("context \"{name}\""),
                None => "no context".to_owned(),
            };
            checks.push(Check::good("configuration", from));
            look_at_servers(config, &mut checks).await;
            look_at_agents(everywhere, &mut checks).await?;
        }
        Err(error) => checks.push(Check::bad(
            "configuration",
            error.to_string(),
            "`skytale config show` and `skytale context ls` show what is set",
        )),
    }
    let report = Report {
        ok: checks.iter().all(|check| check.ok),
        version: env!("CARGO_PKG_VERSION"),
        checks,
    };
    output.result(&report, || described(&report, output))?;
    if report.ok {
        Ok(())
    } else {
        Err(Failure::failed("something needs repair"))
    }
}

/// The API server and the key for it.
async fn look_at_servers(mut config: Config, checks: &mut Vec<Check>) {
    let has_key = config.api_key.is_some();
    let Some(url) = config.api_url.clone() else {
        checks.push(Check::good(
            "API server",
            "none is set: agents here are guests, and join by invites only",
        ));
        return;
    };
    let account = match context::account(&mut config) {
        Ok(account) => account,
        Err(failure) => {
            let repair = "set another with --api-url, or `skytale context use NAME`";
            checks.push(Check::bad("API server", failure.to_string(), repair));
            return;
        }
    };
    match account.is_ready().await {
        Ok(true) => checks.push(Check::good("API server", url)),
        Ok(false) => checks.push(Check::bad(
            "API server",
            format!("{url} answers, but is not ready"),
            "look at the server's own log, or restart it with `skytale up`",
        )),
        Err(error) => {
            checks.push(Check::bad("API server", error.to_string(), START));
            return;
        }
    }
    if !has_key {
        checks.push(Check::good(
            "API key",
            "none is set: agents here are guests",
        ));
        return;
    }
    match account.account_token().await {
        Ok(_) => checks.push(Check::good("API key", "buys tokens")),
        Err(error @ Error::Unauthorized(_)) => checks.push(Check::bad(
            "API key",
            error.to_string(),
            "`skytale login` makes a new key; for servers of this machine remove the context and run `skytale up`",
        )),
        Err(error) => checks.push(Check::bad("API key", error.to_string(), START)),
    }
}

/// The agent that `--as` names, or all of this machine.
async fn look_at_agents(everywhere: &Everywhere, checks: &mut Vec<Check>) -> Result<(), Failure> {
    let agents = match &everywhere.agent {
        Some(name) => vec![name.clone()],
        None => Config::load(context::flags(everywhere))?.agents()?,
    };
    if agents.is_empty() {
        checks.push(Check::good("agents", "none on this machine yet"));
    }
    for name in agents {
        let everywhere = Everywhere {
            agent: Some(name.clone()),
            ..everywhere.clone()
        };
        look_at_agent(&name, &everywhere, checks).await;
    }
    Ok(())
}

async fn look_at_agent(name: &str, everywhere: &Everywhere, checks: &mut Vec<Check>) {
    let vault = format!("{name}: vault");
    let looked = context::as_agent(everywhere, async |agent| {
        // Whether it came online is told by what the status says of each relay.
        let online = agent.online().await;
        Ok((online, agent.status().await))
    });
    let (online, status) = match looked.await {
        Ok(seen) => seen,
        Err(failure) => {
            let repair = if failure.exit() == Exit::NotFound {
                "`skytale whoami` lists the agents of this machine"
            } else {
                "`skytale config show` says where the vault's key comes from"
            };
            checks.push(Check::bad(vault, failure.to_string(), repair));
            return;
        }
    };
    checks.push(Check::good(vault, "opens"));
    match status {
        Ok(status) => look_at_status(name, &status, checks).await,
        Err(error) => checks.push(Check::bad(
            format!("{name}: line"),
            error.to_string(),
            "end the process that hangs, then run `skytale doctor` again",
        )),
    }
    if let Err(error) = online
        && checks.iter().all(|check| check.ok)
    {
        checks.push(Check::bad(
            format!("{name}: relay"),
            error.to_string(),
            START,
        ));
    }
}

async fn look_at_status(name: &str, status: &Status, checks: &mut Vec<Check>) {
    let held = match status.held_by {
        None => "by this process".to_owned(),
        Some(0) => "by another process".to_owned(),
        Some(pid) => format!("by process {pid}"),
    };
    checks.push(Check::good(format!("{name}: line held"), held));
    if status.relays.is_empty() {
        checks.push(Check::good(format!("{name}: relay"), "none is needed yet"));
    }
    for relay in &status.relays {
        checks.push(line(name, relay));
        checks.extend(grpc(name, relay).await);
        checks.extend(traffic(name, relay));
        checks.extend(clock(name, relay));
        checks.extend(key_packages(name, relay));
    }
    let owed = format!("{name}: queued");
    let stuck = status.outbox > 0 || status.commits_wanted > 0;
    let detail = format!(
        "{} messages, {} changes of groups",
        status.outbox, status.commits_wanted
    );
    checks.push(if stuck && status.held_by.is_none() {
        Check::bad(
            owed,
            detail,
            "`skytale channels` lets them leave once the relay is reached",
        )
    } else {
        Check::good(owed, detail)
    });
}

fn line(agent: &str, relay: &RelayStatus) -> Check {
    let name = format!("{agent}: relay {}", relay.key.short());
    let at = relay.address.as_deref().unwrap_or("no address");
    let trouble = relay.trouble.as_deref().unwrap_or("no answer");
    match relay.state {
        None => Check::good(name, "the process that holds the line looks after it"),
        Some(LinkState::Ready) => Check::good(name, format!("{at}, {}", by(relay.carrier))),
        Some(LinkState::Refused(refusal)) => Check::bad(
            name,
            format!("{at} refuses: {refusal}"),
            "`skytale login` gets a key for it; a guest needs an invite (`skytale join`)",
        ),
        Some(LinkState::Connecting | LinkState::Greeting) => Check::bad(
            name,
            format!("{at}: {trouble}"),
            format!("{START}; if it runs, let UDP through to its port, or TCP to its gRPC port"),
        ),
    }
}

fn by(carrier: Option<Carrier>) -> &'static str {
    match carrier {
        Some(Carrier::Grpc) => {
            "by gRPC: no UDP gets through to it from here, so messages take a little longer; QUIC is tried again from time to time"
        }
        Some(Carrier::Quic) | None => "by QUIC",
    }
}

/// Whether a line by gRPC would come to be, for a network without UDP. It is no fault of this machine
/// when a relay offers none.
async fn grpc(agent: &str, relay: &RelayStatus) -> Option<Check> {
    if relay.state? != LinkState::Ready || relay.carrier == Some(Carrier::Grpc) {
        // It is told already how the line is.
        return None;
    }
    let at = RelayAddr {
        key: relay.key,
        address: relay.address.clone()?,
    };
    let name = format!("{agent}: gRPC");
    Some(match grpc_reaches(&at).await {
        Ok(()) => Check::good(name, "would carry the line if UDP were blocked"),
        Err(error) => Check::note(
            name,
            format!("{error}; where UDP is blocked this agent would have no line"),
        ),
    })
}

/// What a watcher of the line may see, and whether somebody meddles with it.
fn traffic(agent: &str, relay: &RelayStatus) -> Option<Check> {
    let shapes = relay.shapes?;
    let counters = relay.counters;
    let name = format!("{agent}: traffic");
    let (to_relay, to_agent) = (
        Traffic::from(shapes.to_relay),
        Traffic::from(shapes.to_agent),
    );
    let detail = format!(
        "to the relay {to_relay}, from it {to_agent}; cells sent {} real, {} cover, {} over the schedule; received {} real, {} cover, {} missing",
        counters.sent.real,
        counters.sent.cover,
        counters.over,
        counters.received.real,
        counters.received.cover,
        counters.missing,
    );
    Some(if counters.missing == 0 {
        Check::good(name, detail)
    } else {
        Check::bad(
            name,
            detail,
            "somebody between here and the relay takes cells out: use another network, then `skytale doctor` again",
        )
    })
}

fn clock(agent: &str, relay: &RelayStatus) -> Option<Check> {
    let ahead_ms = relay.clock_ahead_ms?;
    let name = format!("{agent}: clock");
    let detail = format!("the relay's is {ahead_ms} ms ahead");
    Some(if ahead_ms.abs() <= CLOCK_MS_MAX {
        Check::good(name, detail)
    } else {
        Check::bad(
            name,
            detail,
            "set this machine's clock (`timedatectl set-ntp true`), then `skytale doctor` again",
        )
    })
}

fn key_packages(agent: &str, relay: &RelayStatus) -> Option<Check> {
    let left = relay.key_packages?;
    let detail = format!("{left} at the relay when we last connected");
    Some(Check::good(format!("{agent}: KeyPackages"), detail))
}

fn described(report: &Report, output: Output) -> String {
    let mut lines = vec![format!("skytale {}", report.version)];
    for check in &report.checks {
        if check.note {
            lines.push(format!("note {}: {}", check.name, check.detail));
        } else if check.ok {
            lines.push(format!(
                "{} {}: {}",
                output.green("ok "),
                check.name,
                check.detail
            ));
        } else {
            let said = format!("bad {}: {}", check.name, check.detail);
            lines.push(output.red(&said));
            if let Some(repair) = &check.repair {
                lines.push(output.red(&format!("    → {repair}")));
            }
        }
    }
    lines.join("\n")
}

const START: &str = "start the servers: `skytale up`";
/// A token is refused by a clock that is further off than this.
const CLOCK_MS_MAX: i64 = 5_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_red_line_names_a_command() {
        let report = Report {
            ok: false,
            version: "0",
            checks: vec![Check::bad("relay", "away", START)],
        };
        let plain = Everywhere {
            agent: None,
            context: None,
            data_dir: None,
            api_url: None,
            relay: None,
            ca_file: None,
            traffic: None,
            stays: false,
            timeout: None,
            json: false,
            quiet: false,
            verbose: 0,
            log_json: false,
        };

        let text = described(&report, Output::new(&plain));

        assert!(text.contains("bad relay: away"), "{text}");
        assert!(text.contains("skytale up"), "{text}");
    }
}
