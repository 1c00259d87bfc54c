//! What happens besides messages, one thing at a time.

use std::{collections::VecDeque, sync::Arc};

use skytale_agent::{Event, view};
use skytale_wire::id::Time;
use tokio::sync::{
    broadcast::{self, error::RecvError},
    watch,
};

use crate::{client::Inner, error::Error};

/// Everything that has happened since the agent was opened, also what another process of it did.
#[derive(Debug)]
pub struct Events {
    inner: Arc<Inner>,
    news: watch::Receiver<u64>,
    after: i64,
    waiting: VecDeque<Event>,
    /// Of lines that this process holds. More than a few dozen at once are not worth keeping.
    notices: broadcast::Receiver<Event>,
}

impl Events {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self {
            news: inner.news(),
            after: inner.first_event(),
            notices: inner.notices(),
            inner,
            waiting: VecDeque::new(),
        }
    }

    /// Waits for the next event; `None` when the agent was closed. May be cancelled.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            self.inner.check_process()?;
            if let Some(event) = self.waiting.pop_front() {
                return Ok(Some(event));
            }
            self.news.borrow_and_update();
            let read = match self.read().await {
                Ok(read) => read,
                Err(_) if self.inner.is_closed() => return Ok(None),
                Err(error) => return Err(error),
            };
            if let Some((row, _, _)) = read.last() {
                self.after = *row;
                self.waiting
                    .extend(read.into_iter().map(|(_, _, event)| event));
                continue;
            }
            tokio::select! {
                changed = self.news.changed() => if changed.is_err() {
                    return Ok(None);
                },
                notice = self.notices.recv() => match notice {
                    Ok(event) => return Ok(Some(event)),
                    Err(RecvError::Lagged(_)) => {}
                    // The worker has ended, and says so itself.
                    Err(RecvError::Closed) => {
                        if self.news.changed().await.is_err() {
                            return Ok(None);
                        }
                    }
                },
            }
        }
    }

    async fn read(&self) -> Result<Vec<(i64, Time, Event)>, Error> {
        let after = self.after;
        self.inner
            .shelf()?
            .with(move |reading| Ok(view::events_after(reading.conn(), after)?))
            .await
    }
}
