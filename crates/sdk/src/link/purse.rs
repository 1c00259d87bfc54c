//! The token that lets an agent in at its relay, and the next one in time.

use std::{sync::Arc, time::Duration};

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use skytale_wire::{
    http::Secret,
    id::{AgentId, RelayKey, Time, TransportKey},
};
use tokio::time::sleep;

use super::{End, LineNews, pause, reporter::Reporter};
use crate::{account::Account, clock, error::Error};

/// Has the token that lets us in, and buys the next one.
pub(super) struct Purse {
    pub(super) me: AgentId,
    pub(super) relay: RelayKey,
    pub(super) transport: TransportKey,
    pub(super) account: Option<Arc<Account>>,
    pub(super) held: Option<HeldToken>,
    pub(super) rng: ChaCha8Rng,
}

pub(super) struct HeldToken {
    token: Secret,
    /// From here on a new one is used for a new connection.
    renew_at: Time,
}

impl Purse {
    /// The token to show: the one that we have, if it lives long enough, else a new one. `None`
    /// for a guest.
    pub(super) async fn token(&mut self) -> Result<Option<Secret>, Error> {
        let now = clock::now();
        if let Some(held) = &self.held
            && now < held.renew_at
        {
            return Ok(Some(copy(&held.token)));
        }
        self.held = self.buy().await?;
        Ok(self.held.as_ref().map(|held| copy(&held.token)))
    }

    async fn buy(&mut self) -> Result<Option<HeldToken>, Error> {
        let Some(account) = self.account.clone() else {
            return Ok(None);
        };
        let bought = account
            .token_if_ours(self.me, self.transport, self.relay)
            .await?;
        Ok(bought.map(|answer| HeldToken {
            renew_at: clock::now().plus(renew_after_ms(answer.expires_in_s, &mut self.rng)),
            token: answer.token,
        }))
    }

    /// Buys tokens before the present one ends, for as long as the connection lasts.
    pub(super) async fn renew(&mut self, reporter: &Reporter<'_>) -> End {
        let mut tries = 0;
        loop {
            let Some(held) = &self.held else {
                return std::future::pending().await;
            };
            sleep(Duration::from_millis(held.renew_at.since(clock::now()))).await;
            match self.buy().await {
                Ok(Some(held)) => {
                    tries = 0;
                    let news = LineNews::Token(copy(&held.token));
                    self.held = Some(held);
                    if reporter.tell(news).await.is_err() {
                        return End::Done;
                    }
                }
                Ok(None) => self.held = None,
                // The relay closes the connection when the old one has ended; until then there
                // is a fifth of its life for trying.
                Err(error) => {
                    tracing::warn!(%error, "the token could not be renewed yet");
                    sleep(pause(tries, &mut self.rng)).await;
                    tries += 1;
                }
            }
        }
    }
}

/// Between 75 and 85 of a hundred parts of a token's life, so that agents that began together do
/// not renew together.
fn renew_after_ms(life_s: u64, rng: &mut ChaCha8Rng) -> u64 {
    life_s
        .saturating_mul(10)
        .saturating_mul(rng.random_range(75..=85))
        .max(RENEW_MS_MIN)
}

fn copy(secret: &Secret) -> Secret {
    Secret::new(secret.expose().to_owned())
}

/// A server whose tokens live for no time at all is not asked faster than this.
const RENEW_MS_MIN: u64 = 1_000;

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn a_token_is_renewed_well_before_it_ends() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..100 {
            let ms = renew_after_ms(3600, &mut rng);
            assert!((2_700_000..=3_060_000).contains(&ms), "{ms}");
        }
        assert_eq!(renew_after_ms(0, &mut rng), RENEW_MS_MIN);
    }
}
