//! `token`: a token for the account, or for SLIM agents; and a file with one that stays good.
//!
//! How such a file is written follows from what SLIM's own clients do with it: see [`write`].

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;
use skytale_relay::driver::Clock;
use skytale_sdk::{Account, Error};
use skytale_wire::{
    http::TokenAnswer,
    id::{RelayKey, Time},
    token::SlimPatterns,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::Instant,
};

use crate::{
    args::{self, Everywhere},
    context,
    exit::Failure,
    output::Output,
};

/// `token`.
pub(crate) async fn run(
    wish: args::Token,
    everywhere: &Everywhere,
    output: Output,
) -> Result<(), Failure> {
    let (config, account) = context::signed_in(everywhere)?;
    if wish.slim.is_empty() {
        return print(&account.account_token().await?, output);
    }
    let patterns =
        SlimPatterns::try_from(wish.slim).map_err(|bad| Failure::usage(bad.to_string()))?;
    let shop = Shop {
        relay: match &config.relay {
            Some(relay) => relay.key,
            None => first_relay(&account).await?,
        },
        account,
        patterns,
    };
    match wish.watch {
        None => print(&shop.buy().await?, output),
        Some(file) => {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            tokio::select! {
                ended = keep_fresh(&shop, &file, output) => ended,
                _ = terminate.recv() => Ok(()),
                _ = interrupt.recv() => Ok(()),
            }
        }
    }
}

fn print(answer: &TokenAnswer, output: Output) -> Result<(), Failure> {
    output.result(answer, || answer.token.expose().to_owned())
}

async fn first_relay(account: &Account) -> Result<RelayKey, Failure> {
    let relays = account.relays().await?;
    relays.first().map(|relay| relay.key).ok_or_else(|| {
        Failure::usage("the API server knows no relay: name the one that is meant with --relay")
    })
}

/// Where tokens for these names at that relay are bought.
struct Shop {
    account: Account,
    relay: RelayKey,
    patterns: SlimPatterns,
}

impl Shop {
    async fn buy(&self) -> Result<TokenAnswer, Error> {
        self.account.slim_token(self.relay, &self.patterns).await
    }
}

/// One purchase, for programs. The token itself is in the file only.
#[derive(Debug, Serialize)]
struct Renewed {
    file: PathBuf,
    expires_at: String,
    expires_in_s: u64,
    renewal_in_s: u64,
}

/// Buys and writes until somebody ends it. Whoever starts it learns at once when even the first
/// token cannot be had; a later failure is tried again, unless the account may buy no more.
async fn keep_fresh(shop: &Shop, file: &Path, output: Output) -> Result<(), Failure> {
    let clock = Clock::system();
    check(file)?;
    let mut bought = shop.buy().await?;
    loop {
        write(file, bought.token.expose())?;
        let span = renewal_after(bought.expires_in_s);
        say(file, &bought, span, output)?;
        wait(&clock, span).await;
        let mut failures = 0;
        bought = loop {
            match shop.buy().await {
                Ok(answer) => break answer,
                Err(
                    error @ (Error::Unreachable(_)
                    | Error::Timeout { .. }
                    | Error::PeerMisbehaved(_)),
                ) => {
                    let pause = retry_after(failures);
                    failures += 1;
                    output.complain(&format!(
                        "skytale: the token could not be renewed: {error}; the one in the file ends at {}; trying again in {} s",
                        bought.expires_at,
                        pause.as_secs()
                    ));
                    wait(&clock, pause).await;
                }
                Err(error) => return Err(error.into()),
            }
        };
    }
}

fn say(file: &Path, bought: &TokenAnswer, span: Duration, output: Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.json_line(&Renewed {
            file: file.to_owned(),
            expires_at: bought.expires_at.clone(),
            expires_in_s: bought.expires_in_s,
            renewal_in_s: span.as_secs(),
        });
    }
    output.say(&format!(
        "token written, good until {}; the next one follows in {} s",
        bought.expires_at,
        span.as_secs()
    ));
    Ok(())
}

/// Half of its life: as long again is left for an API server that is down.
fn renewal_after(expires_in_s: u64) -> Duration {
    Duration::from_secs(expires_in_s.min(LIFETIME_S_MAX)).max(RENEWAL_MIN * 2) / 2
}

/// Twice as long after each failure.
fn retry_after(failures: u32) -> Duration {
    RETRY_MIN
        .saturating_mul(2_u32.saturating_pow(failures))
        .min(RETRY_MAX)
}

/// Waits until so much time has gone by on either of the machine's clocks: the one for waiting
/// stands still while a machine is suspended, and the one of the day can be set back.
async fn wait(clock: &Clock, span: Duration) {
    let (begun, deadline): (Time, Instant) = (clock.now(), Instant::now() + span);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let gone_by = Duration::from_millis(clock.now().since(begun));
        if left.is_zero() || gone_by >= span {
            return;
        }
        tokio::time::sleep(left.min(LOOK_AGAIN)).await;
    }
}

/// Finds out before anything is bought that the file could not be written.
fn check(file: &Path) -> Result<(), Failure> {
    match fs::metadata(file) {
        Ok(there) if !there.is_file() => Err(Failure::usage(
            "the token can be kept in a plain file only: name another one with --watch",
        )),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unwritable(&error)),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Puts the token into the file, for its owner only, so that a reader finds the old one or the new.
///
/// Without a line break: SLIM's clients send the file as it is, and one with a line break they do
/// not send at all. They read it again whenever they connect (measured with 3.3.8 and 1.4.1, after
/// the end of a stream and of a connection), so it may be another file by the same name.
fn write(file: &Path, token: &str) -> Result<(), Failure> {
    let replace = || -> io::Result<()> {
        let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty());
        let mut beside = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o600))
            .tempfile_in(dir.unwrap_or(Path::new(".")))?;
        beside.write_all(token.as_bytes())?;
        beside.as_file().sync_all()?;
        beside.persist(file)?;
        Ok(())
    };
    replace().map_err(|error| unwritable(&error))
}

fn unwritable(error: &io::Error) -> Failure {
    Failure::usage(format!(
        "the token file cannot be written ({}): check its directory and permissions",
        error.kind()
    ))
}

/// No token lives longer, whatever a server says.
const LIFETIME_S_MAX: u64 = 3_600;
/// However short its tokens are, a server is not asked more often.
const RENEWAL_MIN: Duration = Duration::from_secs(1);
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_mins(1);
/// How late a suspended machine may notice that it was.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_at_half_of_its_life() {
        let s = Duration::from_secs;

        assert_eq!(renewal_after(3_600), s(1_800));
        assert_eq!(renewal_after(3), Duration::from_millis(1_500));
        assert_eq!(renewal_after(0), s(1));
        assert_eq!(renewal_after(u64::MAX), s(1_800));
    }

    #[test]
    fn pauses_double_up_to_a_minute() {
        let pauses: Vec<u64> = (0..9).map(|n| retry_after(n).as_secs()).collect();

        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(retry_after(u32::MAX), RETRY_MAX);
    }

    #[test]
    fn the_file_has_one_token_for_its_owner_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("slim.token");
        fs::write(&file, "somebody's own words").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();

        for token in ["first.token", "short", "one that is longer"] {
            write(&file, token).unwrap();

            assert_eq!(fs::read_to_string(&file).unwrap(), token);
            let mode = fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_plain_file_is_refused_before_anything_is_bought() {
        let dir = tempfile::tempdir().unwrap();

        assert!(check(dir.path()).is_err());
        assert!(check(Path::new("/dev/null")).is_err());
        assert!(check(&dir.path().join("new")).is_ok());
        let nowhere = dir.path().join("missing").join("new");
        assert!(write(&nowhere, "token").is_err());
    }
}
