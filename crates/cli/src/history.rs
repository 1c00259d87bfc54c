//! `history`: what an agent keeps of messages after they were read, and for how long.

use std::time::Duration;

use skytale_sdk::{Agent, Seq};

use crate::{
    args::{self, Everywhere},
    context,
    exit::Failure,
    messages::Shown,
    output::Output,
};

/// `history`.
pub(crate) async fn run(
    wish: args::History,
    everywhere: &Everywhere,
    output: Output,
) -> Result<(), Failure> {
    let looking = context::as_agent(everywhere, async |agent| match wish.keep {
        Some(keep) => set(agent, keep, output).await,
        None => list(agent, &wish, output).await,
    });
    looking.await
}

async fn set(agent: &Agent, keep: Duration, output: Output) -> Result<(), Failure> {
    agent.keep_history(keep).await?;
    if output.is_json() {
        return output.json_line(&serde_json::json!({"keep_seconds": keep.as_secs()}));
    }
    output.say(&if keep.is_zero() {
        "no message is kept from now on, and those that were are wiped".to_owned()
    } else {
        format!(
            "messages are kept for {} from now on: whoever gets the vault and its key by then can read them",
            written(keep)
        )
    });
    Ok(())
}

async fn list(agent: &Agent, wish: &args::History, output: Output) -> Result<(), Failure> {
    let channel = context::channel(agent, wish.channel.as_ref()).await?;
    let mut after = Seq(wish.after);
    loop {
        let some = channel.history(after).await?;
        let Some(last) = some.last() else { break };
        after = last.seq();
        for message in &some {
            let shown = Shown::of(message);
            output.result(&shown, || shown.plain())?;
        }
    }
    if agent.history_kept().await?.is_none() {
        output.say("this agent keeps no messages: `skytale history --keep 7d` changes that");
    }
    Ok(())
}

/// In the largest unit that it is whole in.
fn written(span: Duration) -> String {
    let seconds = span.as_secs();
    let (size, unit) = UNITS
        .into_iter()
        .rfind(|(size, _)| seconds.is_multiple_of(*size))
        .unwrap_or((1, 's'));
    format!("{}{unit}", seconds / size)
}

/// A whole number and its unit, or `none`.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    if text == "none" {
        return Ok(Duration::ZERO);
    }
    let parsed = UNITS.into_iter().find_map(|(size, unit)| {
        let number: u32 = text.strip_suffix(unit)?.parse().ok()?;
        u64::from(number).checked_mul(size)
    });
    parsed
        .filter(|seconds| (1..=SECONDS_MAX).contains(seconds))
        .map(Duration::from_secs)
        .ok_or_else(|| "expected a whole number and s, m, h or d, as 7d, or none".to_owned())
}

const UNITS: [(u64, char); 4] = [(1, 's'), (60, 'm'), (3600, 'h'), (24 * 3600, 'd')];

/// Ten years.
const SECONDS_MAX: u64 = 10 * 365 * 24 * 3600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_written() {
        for text in ["1s", "90s", "12h", "7d", "45m"] {
            assert_eq!(written(span(text).unwrap()), text);
        }
        assert_eq!(span("none"), Ok(Duration::ZERO));
        assert_eq!(written(span("3600s").unwrap()), "1h");
        for bad in [
            "", "d", "7", "0d", "-1d", "1.5h", "7 d", "٧d", "5000d9", "4000d", "ä",
        ] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }
}
