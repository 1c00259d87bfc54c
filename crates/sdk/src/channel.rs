//! A channel as an application holds it, and the loop over its messages.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use skytale_agent::{
    Answer, Command, Draft, history,
    inbox::{self, DEFAULT_READER},
    view::{self, ChannelState, ChannelView, MemberView},
};
use skytale_wire::{
    id::{AgentId, ChannelId, MessageId, Seq, Time},
    name::ChannelName,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    client::{Inner, fresh_id, wrong_answer},
    clock,
    error::Error,
    message::{IntoDraft, Message, check_size},
    question::{self, Question},
    shelf::{Holder, Room, release_dead},
};

/// A channel that this agent is in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Channel {
    inner: Arc<Inner>,
    id: ChannelId,
    name: Option<ChannelName>,
    /// What [`Channel::receive`] reads from, for all clones of this handle.
    receiver: Arc<tokio::sync::Mutex<Option<Messages>>>,
}

/// The reply to a question, before it counts as taken. Dropped instead, it is a message for the default
/// reader like any other.
#[must_use]
pub struct Answered {
    reply: skytale_agent::Message,
    handle: Channel,
    room: Room,
    question: Question,
}

impl Answered {
    /// Takes it.
    pub fn take(self) -> Message {
        let Self {
            reply,
            handle,
            room,
            question,
        } = self;
        let row = reply.row;
        room.run(move |reading| {
            let taken =
                |tx: &rusqlite::Connection| Ok(inbox::acknowledge(tx, DEFAULT_READER, &[row])?);
            if let Err(error) = reading.durably(taken) {
                tracing::warn!(%error, "an answer is not marked as taken and will be shown again");
            }
            // Closed only now: a loop finds the reply either reserved or taken.
            drop(question);
        });
        Message::taken(reply, handle, DEFAULT_READER.to_owned())
    }
}

impl fmt::Debug for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answered")
    }
}

/// A message that the relay has stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Its name.
    pub id: MessageId,
    /// Its place in the channel.
    pub seq: Seq,
}

/// What an invite allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteOptions {
    /// How many agents may join by it.
    pub uses: u32,
    /// How long it holds.
    pub ttl: Duration,
    /// Where joiners find the relay, `host:port`; empty means what the context advertises, else where
    /// this agent finds it.
    pub addresses: Vec<String>,
}

impl Default for InviteOptions {
    fn default() -> Self {
        Self {
            uses: 1,
            ttl: Duration::from_hours(1),
            addresses: Vec::new(),
        }
    }
}

impl Channel {
    pub(crate) fn new(inner: &Arc<Inner>, view: &ChannelView) -> Self {
        Self {
            inner: Arc::clone(inner),
            id: view.id,
            name: view.name.clone(),
            receiver: Arc::default(),
        }
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// Its id, the same for all members.
    pub fn id(&self) -> ChannelId {
        self.id
    }

    /// Its name, as its members know it.
    pub fn name(&self) -> Option<&ChannelName> {
        self.name.as_ref()
    }

    /// Makes a line by which one agent may join within an hour. It is a secret until used.
    pub async fn invite(&self) -> Result<String, Error> {
        self.invite_with(InviteOptions::default()).await
    }

    /// The same with other limits.
    pub async fn invite_with(&self, options: InviteOptions) -> Result<String, Error> {
        let addresses = if options.addresses.is_empty() {
            self.inner.advertised.clone()
        } else {
            options.addresses
        };
        let ttl_ms = u64::try_from(options.ttl.as_millis())
            .map_err(|_| Error::misuse("an invite cannot hold for that long"))?;
        let command = Command::Invite {
            channel: self.id,
            uses: options.uses,
            ttl_ms,
            addresses,
        };
        let limit = self.inner.timeouts.change + self.inner.slots_for_changes();
        match self
            .inner
            .command(command, "making the invite", limit)
            .await?
        {
            Answer::Invite(line) => Ok(line),
            Answer::Done | Answer::Channel(_) | Answer::Stored(_) | Answer::Failed(_) => {
                Err(wrong_answer())
            }
        }
    }

    /// Closes every open invite.
    pub async fn close_invites(&self) -> Result<(), Error> {
        let channel = self.id;
        self.inner
            .change(Command::CloseInvites { channel }, "closing the invites")
            .await
    }

    /// Sends a message; done when the relay has stored it. After a timeout it is still in the
    /// vault and leaves with the next connection: sending it again would send it twice.
    pub async fn send(&self, what: impl IntoDraft) -> Result<Sent, Error> {
        let draft = what.into_draft();
        let _sending = self.inner.sending(draft.payload.len());
        let limit = self.inner.timeouts.stored + self.inner.slots_for_sending();
        self.send_as(fresh_id(), draft, limit).await
    }

    /// The same without waiting for slots where lines have them (see [`crate::Traffic`]): whoever
    /// watches the line sees that something of this size left, and with it everything that was
    /// waiting. It is counted, and told as [`crate::Event::OverSchedule`]. Where the mode or the
    /// relay's operator does not allow it, the message waits like the others. The same as
    /// [`Self::send`] with [`Draft::now`], which replies and questions take too.
    pub async fn send_now(&self, what: impl IntoDraft) -> Result<Sent, Error> {
        let draft = Draft {
            now: true,
            ..what.into_draft()
        };
        self.send(draft).await
    }

    /// As [`Self::send`], with another limit, to which nothing is added.
    pub async fn send_timeout(&self, what: impl IntoDraft, limit: Duration) -> Result<Sent, Error> {
        self.send_as(fresh_id(), what.into_draft(), limit).await
    }

    async fn send_as(&self, id: MessageId, draft: Draft, limit: Duration) -> Result<Sent, Error> {
        check_size(&draft)?;
        let command = Command::Send {
            channel: self.id,
            id,
            draft,
        };
        match self
            .inner
            .command(command, "storing the message", limit)
            .await?
        {
            Answer::Stored(seq) => Ok(Sent { id, seq }),
            Answer::Done | Answer::Channel(_) | Answer::Invite(_) | Answer::Failed(_) => {
                Err(wrong_answer())
            }
        }
    }

    /// Sends a message and waits for the first reply to it. Agents take minutes, not
    /// milliseconds. Loops over messages, also in other processes, leave that reply alone.
    pub async fn ask(&self, what: impl IntoDraft) -> Result<Message, Error> {
        self.ask_with(what, self.inner.timeouts.ask).await
    }

    /// The same with another limit. The reply counts as taken by the default reader; readers of
    /// other names see it like every message. When the time is up, or the call is cancelled, the
    /// reply is a message for the default reader like any other.
    pub async fn ask_with(&self, what: impl IntoDraft, limit: Duration) -> Result<Message, Error> {
        // Nothing is awaited after the reply is taken, so nobody can be cancelled in between.
        Ok(self.ask_for(what, limit).await?.take())
    }

    /// As [`Self::ask_with`], for who hands the reply on and may find that nobody wants it any more.
    pub async fn ask_for(&self, what: impl IntoDraft, limit: Duration) -> Result<Answered, Error> {
        self.inner.check_process()?;
        let id = fresh_id();
        let question = Question::open(self.inner.dir(), &id)?;
        let mut is_stored = false;
        let asked = async {
            let draft = what.into_draft();
            let _sending = self.inner.sending(draft.payload.len());
            let stored = self.inner.timeouts.stored + self.inner.slots_for_sending();
            self.send_as(id, draft, stored.min(limit)).await?;
            is_stored = true;
            self.reply_in_vault(id).await
        };
        let in_time = timeout(limit, asked).await;
        let reply = in_time.map_err(|_| Error::Timeout {
            what: "waiting for the answer",
            // Then the question itself waits for a relay, and to ask again would be to ask twice.
            queued: !is_stored,
        })??;
        Ok(Answered {
            reply,
            handle: self.fresh_handle(),
            room: self.inner.shelf()?.room().await?,
            question,
        })
    }

    /// Looks for the reply whenever there is something new, also what another process has
    /// received.
    async fn reply_in_vault(&self, id: MessageId) -> Result<skytale_agent::Message, Error> {
        let mut news = self.inner.news();
        loop {
            news.borrow_and_update();
            let found = self
                .inner
                .shelf()?
                .with(move |reading| Ok(inbox::reply_to(reading.conn(), &id)?))
                .await?;
            if let Some(found) = found {
                return Ok(found);
            }
            news.changed().await.map_err(|_| Error::closed())?;
        }
    }

    /// The messages that were not taken yet, and then those that come. It goes on where it
    /// stopped, also after a restart.
    pub fn messages(&self) -> Messages {
        self.messages_as(DEFAULT_READER)
    }

    /// The same under another name: each name sees every message, and readers of one name share
    /// them out among each other.
    pub fn messages_as(&self, reader: &str) -> Messages {
        Messages {
            channel: self.fresh_handle(),
            reader: reader.to_owned(),
            news: self.inner.news(),
            holder: None,
            leased: Arc::default(),
            looked_around: None,
            previous: None,
        }
    }

    /// The next message within `limit`, or `None`. It counts as taken when `receive` is called
    /// again or [`Message::ack`] is.
    pub async fn receive(&self, limit: Duration) -> Result<Option<Message>, Error> {
        let mut receiver = self.receiver.lock().await;
        let messages = receiver.get_or_insert_with(|| self.messages());
        // Nothing is lost when the time is up in the middle.
        timeout(limit, messages.next()).await.unwrap_or(Ok(None))
    }

    /// Messages after a [`Message::row`], at most 256, without taking them. What everybody has
    /// taken is not there any more.
    pub async fn look(&self, after_row: i64) -> Result<Vec<Message>, Error> {
        self.inner.check_process()?;
        let channel = self.id;
        let found = self
            .inner
            .shelf()?
            .with(move |reading| {
                Ok(inbox::look(
                    reading.conn(),
                    Some(channel),
                    after_row,
                    LOOK_MAX,
                )?)
            })
            .await?;
        Ok(found
            .into_iter()
            .map(|message| Message::new(message, self.fresh_handle(), DEFAULT_READER.to_owned()))
            .collect())
    }

    /// Messages after a place in the channel's log that this agent keeps, ours among them, at most
    /// 256: none, unless [`Agent::keep_history`](crate::Agent::keep_history) was called before they
    /// came.
    pub async fn history(&self, after: Seq) -> Result<Vec<Message>, Error> {
        self.inner.check_process()?;
        let channel = self.id;
        let found = self
            .inner
            .shelf()?
            .with(move |reading| {
                Ok(history::after(
                    reading.conn(),
                    channel,
                    after,
                    clock::now(),
                    LOOK_MAX,
                )?)
            })
            .await?;
        Ok(found
            .into_iter()
            .map(|message| Message::taken(message, self.fresh_handle(), DEFAULT_READER.to_owned()))
            .collect())
    }

    /// Everybody in the channel.
    pub async fn members(&self) -> Result<Vec<MemberView>, Error> {
        self.inner.check_process()?;
        let channel = self.id;
        self.inner
            .shelf()?
            .with(move |reading| Ok(view::members(reading.conn(), channel)?))
            .await
    }

    /// Waits until everything is in the vault that the relay held of this channel when the agent
    /// came online. Does not wait when another process holds the line.
    pub async fn caught_up(&self) -> Result<(), Error> {
        self.inner.caught_up(Some(self.id)).await
    }

    /// How the channel stands.
    pub async fn view(&self) -> Result<ChannelView, Error> {
        self.inner.check_process()?;
        let channel = self.id;
        self.inner
            .shelf()?
            .with(move |reading| view_of(reading.conn(), channel))
            .await?
            .ok_or_else(|| Error::NotFound("this agent has no such channel any more".into()))
    }

    /// Adds an agent, which need not be online.
    pub async fn add(&self, agent: AgentId) -> Result<(), Error> {
        self.add_all(vec![agent]).await
    }

    /// Adds several agents at once.
    pub async fn add_all(&self, agents: Vec<AgentId>) -> Result<(), Error> {
        let channel = self.id;
        self.inner
            .change(Command::Add { channel, agents }, "adding to the channel")
            .await
    }

    /// Removes an agent: it cannot read what is sent from now on.
    pub async fn remove(&self, agent: AgentId) -> Result<(), Error> {
        self.remove_all(vec![agent]).await
    }

    /// Removes several agents at once, which is much cheaper than one by one.
    pub async fn remove_all(&self, agents: Vec<AgentId>) -> Result<(), Error> {
        let channel = self.id;
        self.inner
            .change(
                Command::Remove { channel, agents },
                "removing from the channel",
            )
            .await
    }

    /// Says what a member may do: remove and grant, or add and invite.
    pub async fn grant(&self, agent: AgentId, admin: bool, may_invite: bool) -> Result<(), Error> {
        let command = Command::Grant {
            channel: self.id,
            agent,
            admin,
            may_invite,
        };
        self.inner
            .change(command, "changing a member's rights")
            .await
    }

    /// Leaves the channel.
    pub async fn leave(&self) -> Result<(), Error> {
        let channel = self.id;
        self.inner
            .change(Command::Leave { channel }, "leaving the channel")
            .await
    }

    /// Replaces our own keys in the group: whoever had copied them is shut out.
    pub async fn rotate(&self) -> Result<(), Error> {
        let channel = self.id;
        self.inner
            .change(Command::Rotate { channel }, "rotating the keys")
            .await
    }

    /// Five words that are the same for all members, if nobody stands between them. They change
    /// with every epoch.
    pub async fn words(&self) -> Result<[String; 5], Error> {
        self.inner.check_process()?;
        let channel = self.id;
        self.inner
            .shelf()?
            .with(move |reading| Ok(view::words(reading.conn(), channel)?))
            .await?
            .ok_or_else(|| Error::NotFound("this channel has no group yet".into()))
    }

    /// The same channel with a `receive` of its own, so that handles do not hold each other.
    fn fresh_handle(&self) -> Self {
        Self {
            receiver: Arc::default(),
            ..self.clone()
        }
    }
}

/// A loop over messages. Each is leased to it; what it has not dealt with when it ends is shown
/// again.
#[derive(Debug)]
pub struct Messages {
    channel: Channel,
    reader: String,
    news: watch::Receiver<u64>,
    /// Kept alive by the job that leases, too: whoever looks around would give back its leases and
    /// forget it, and what it leases after that would be nobody's.
    holder: Option<Arc<Holder>>,
    /// Shared with the job that fills it, which runs to its end also when the caller is
    /// cancelled.
    leased: Arc<Mutex<Leased>>,
    /// When it was looked last whether other readers have died: that reads directories.
    looked_around: Option<Time>,
    /// What was given out last, and is taken when the next is asked for.
    previous: Option<Message>,
}

/// Messages that a loop holds and has not given out.
#[derive(Debug, Default)]
struct Leased {
    next: VecDeque<skytale_agent::Message>,
    /// Answers to questions that somebody waits for. Most of them are taken by the one who has
    /// asked; the others get their turn when the question is closed.
    aside: Vec<skytale_agent::Message>,
}

impl Messages {
    /// Waits for the next message; the one before it now counts as taken. `None` when the agent
    /// is no longer in the channel, or was closed. May be cancelled.
    pub async fn next(&mut self) -> Result<Option<Message>, Error> {
        self.channel.inner.check_process()?;
        match self.settle().await {
            Ok(()) => {}
            Err(_) if self.channel.inner.is_closed() => return Ok(None),
            Err(error) => return Err(error),
        }
        Ok(if self.fill().await? {
            self.pop().map(|message| self.give_out(message))
        } else {
            None
        })
    }

    /// Waits as [`Self::next`] does, and hands over all that this loop holds by then: one message
    /// or more. Asking for more says nothing of those: each counts as taken when [`Message::ack`]
    /// says so, and what was not is shown again after this loop has been dropped. May be cancelled.
    pub async fn next_batch(&mut self) -> Result<Option<Vec<Message>>, Error> {
        Ok(self.fill().await?.then(|| {
            let batch = std::mem::take(&mut lock(&self.leased).next);
            let message =
                |message| Message::new(message, self.channel.clone(), self.reader.clone());
            batch.into_iter().map(message).collect()
        }))
    }

    /// Waits until there is a message to give out; false when there will be none.
    async fn fill(&mut self) -> Result<bool, Error> {
        let mut look_around = self.is_due_to_look_around();
        loop {
            self.channel.inner.check_process()?;
            if self.has_some() {
                return Ok(true);
            }
            self.news.borrow_and_update();
            match self.fetch(look_around).await {
                Ok(_) if self.has_some() => return Ok(true),
                Ok(true) if look_around => return Ok(false),
                // Somebody who has died may hold the last messages.
                Ok(true) => {
                    look_around = true;
                    continue;
                }
                Ok(false) => {}
                Err(_) if self.channel.inner.is_closed() => return Ok(false),
                Err(error) => return Err(error),
            }
            look_around = tokio::select! {
                changed = self.news.changed() => {
                    if changed.is_err() {
                        return Ok(false);
                    }
                    self.is_due_to_look_around()
                }
                () = sleep(Duration::from_millis(LOOK_AROUND_MS)) => true,
            };
        }
    }

    fn is_due_to_look_around(&self) -> bool {
        let due = |at| clock::now().since(at) >= LOOK_AROUND_MS;
        self.looked_around.is_none_or(due)
    }

    /// Marks what was given out before as taken.
    async fn settle(&mut self) -> Result<(), Error> {
        if self.previous.is_none() {
            return Ok(());
        }
        let shelf = self.channel.inner.shelf()?;
        // Nothing is awaited between taking it out and handing it over.
        let room = shelf.room().await?;
        if let Some(previous) = self.previous.take()
            && !previous.is_taken()
        {
            room.acknowledge(previous.reader().to_owned(), previous.row());
        }
        Ok(())
    }

    fn give_out(&mut self, message: skytale_agent::Message) -> Message {
        let message = Message::new(message, self.channel.clone(), self.reader.clone());
        self.previous = Some(message.clone());
        message
    }

    fn has_some(&self) -> bool {
        !lock(&self.leased).next.is_empty()
    }

    fn pop(&self) -> Option<skytale_agent::Message> {
        lock(&self.leased).next.pop_front()
    }

    /// Leases a batch, also of what dead readers had when it is to look around. Says whether the
    /// channel is over and nothing more is free.
    async fn fetch(&mut self, look_around: bool) -> Result<bool, Error> {
        let holder = if let Some(holder) = &self.holder {
            Arc::clone(holder)
        } else {
            let holder = Arc::new(Holder::new(self.channel.inner.dir())?);
            self.channel.inner.note_holder(&holder);
            Arc::clone(self.holder.insert(holder))
        };
        let leased = Arc::clone(&self.leased);
        let dir = self.channel.inner.dir().to_owned();
        let (reader, channel) = (self.reader.clone(), self.channel.id);
        let is_over = self
            .channel
            .inner
            .shelf()?
            .with(move |reading| {
                if look_around {
                    release_dead(reading)?;
                }
                let now = clock::now();
                let is_awaited = |message: &skytale_agent::Message| {
                    let question = message.in_reply_to.as_ref();
                    reader == DEFAULT_READER
                        && question.is_some_and(|id| question::is_open(&dir, id))
                };
                let (taken, is_closed) = reading.in_passing(|tx| {
                    lock(&leased).take_back(tx, is_awaited)?;
                    let taken = inbox::take(
                        tx,
                        &reader,
                        Some(channel),
                        &holder.id,
                        now,
                        now.plus(LEASE_MS),
                        BATCH,
                    )?;
                    // Of the same moment: what comes last may come together with the end.
                    let is_closed = view::channel_state(tx, channel)?
                        .is_none_or(|state| matches!(state, ChannelState::Closed(_)));
                    Ok((taken, is_closed))
                })?;
                let (aside, next): (Vec<_>, Vec<_>) = taken.into_iter().partition(is_awaited);
                let mut leased = lock(&leased);
                leased.aside.extend(aside);
                leased.next.extend(next);
                Ok(leased.next.is_empty() && is_closed)
            })
            .await?;
        if look_around {
            self.looked_around = Some(clock::now());
        }
        Ok(is_over)
    }
}

impl Leased {
    /// Lets answers have their turn that nobody waits for any more. An asker marks its answer as
    /// taken before it closes the question; so what is unread after that was given to nobody.
    fn take_back(
        &mut self,
        tx: &rusqlite::Connection,
        is_awaited: impl Fn(&skytale_agent::Message) -> bool,
    ) -> Result<(), Error> {
        let given_up = self.aside.extract_if(.., |message| !is_awaited(message));
        for message in given_up {
            if view::is_unread(tx, message.row)? {
                self.next.push_back(message);
            }
        }
        Ok(())
    }
}

fn view_of(conn: &rusqlite::Connection, id: ChannelId) -> Result<Option<ChannelView>, Error> {
    Ok(view::channels(conn)?.into_iter().find(|view| view.id == id))
}

/// Nothing panics while it holds this lock.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Messages that are leased at once.
const BATCH: usize = 64;
const LOOK_MAX: usize = 256;
/// A lease ends with its holder ([`Holder`]); this is only for a holder whose file was lost.
const LEASE_MS: u64 = 24 * 3_600_000;
/// How often a reader looks for leases of dead ones.
const LOOK_AROUND_MS: u64 = 1_000;
