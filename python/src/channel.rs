//! A channel as Python holds it.

use std::time::Duration;

use pyo3::prelude::*;
use skytale_sdk::{self as sdk, Draft, Error, InviteOptions, MessageId};

use crate::{
    agent::agent_id,
    errors,
    inbox::Inbox,
    message::{Message, Reply},
    native::Native,
    operation::{Kind, Operation},
};

/// A channel that an agent is in.
#[pyclass(frozen, module = "skytale._core")]
pub(crate) struct Channel {
    channel: Native<sdk::Channel>,
}

/// Agent, label, admin, may invite, whether it is this agent.
type Member = (String, Option<String>, bool, bool, bool);

impl Channel {
    /// Made inside the runtime.
    pub(crate) fn new(channel: sdk::Channel) -> Self {
        Self {
            channel: Native::new(channel),
        }
    }

    fn channel(&self, py: Python<'_>) -> PyResult<sdk::Channel> {
        self.channel
            .get()
            .cloned()
            .map_err(|error| errors::raise(py, &error))
    }
}

#[pymethods]
impl Channel {
    #[getter]
    fn id(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.channel(py)?.id().to_string())
    }

    #[getter]
    fn name(&self, py: Python<'_>) -> PyResult<Option<String>> {
        Ok(self.channel(py)?.name().map(ToString::to_string))
    }

    fn inbox(&self, py: Python<'_>) -> PyResult<Inbox> {
        let messages = self.channel(py)?.messages();
        Ok(Inbox::new(self.channel.beside(messages)))
    }

    fn invite(&self, py: Python<'_>, uses: u32, ttl: f64) -> PyResult<Operation> {
        let channel = self.channel(py)?;
        Ok(Operation::new(Kind::Change, async move {
            let options = InviteOptions {
                uses,
                ttl: seconds(ttl)?,
                ..InviteOptions::default()
            };
            channel.invite_with(options).await
        }))
    }

    fn close_invites(&self, py: Python<'_>) -> PyResult<Operation> {
        let channel = self.channel(py)?;
        Ok(Operation::silent(Kind::Change, async move {
            channel.close_invites().await
        }))
    }

    #[pyo3(signature = (payload, content_type, reply_to=None))]
    fn send(
        &self,
        py: Python<'_>,
        payload: &[u8],
        content_type: String,
        reply_to: Option<&str>,
    ) -> PyResult<Operation> {
        let channel = self.channel(py)?;
        let draft = draft(py, payload, content_type, reply_to)?;
        Ok(Operation::new(Kind::InOrder, async move {
            let sent = channel.send(draft).await?;
            Ok((sent.id.to_string(), sent.seq.0))
        }))
    }

    fn ask(
        &self,
        py: Python<'_>,
        payload: &[u8],
        content_type: String,
        limit: f64,
    ) -> PyResult<Operation> {
        let channel = self.channel(py)?;
        let draft = draft(py, payload, content_type, None)?;
        Ok(Operation::new(Kind::Waiting, async move {
            let answered = channel.ask_for(draft, seconds(limit)?).await?;
            Ok(Reply(Native::new(answered)))
        }))
    }

    /// Some of what is kept after this place in the log, the oldest first; empty at its end.
    fn history(&self, py: Python<'_>, after: u64) -> PyResult<Operation> {
        let channel = self.channel(py)?;
        Ok(Operation::new(Kind::Waiting, async move {
            let kept = channel.history(sdk::Seq(after)).await?;
            let kept = kept.into_iter().map(Native::new).map(Message::new);
            Ok(kept.collect::<Vec<_>>())
        }))
    }

    fn members(&self, py: Python<'_>) -> PyResult<Operation> {
        let channel = self.channel(py)?;
        Ok(Operation::new(Kind::Waiting, async move {
            let members = channel.members().await?;
            Ok(members.into_iter().map(member).collect::<Vec<Member>>())
        }))
    }

    fn add(&self, py: Python<'_>, agents: Vec<String>) -> PyResult<Operation> {
        let channel = self.channel(py)?;
        Ok(Operation::silent(Kind::Change, async move {
            channel.add_all(agent_ids(&agents)?).await
        }))
    }

    fn remove(&self, py: Python<'_>, agents: Vec<String>) -> PyResult<Operation> {
        let channel = self.channel(py)?;
        Ok(Operation::silent(Kind::Change, async move {
            channel.remove_all(agent_ids(&agents)?).await
        }))
    }

    fn grant(
        &self,
        py: Python<'_>,
        agent: String,
        admin: bool,
        may_invite: bool,
    ) -> PyResult<Operation> {
        let channel = self.channel(py)?;
        Ok(Operation::silent(Kind::Change, async move {
            channel.grant(agent_id(&agent)?, admin, may_invite).await
        }))
    }

    fn leave(&self, py: Python<'_>) -> PyResult<Operation> {
        let channel = self.channel(py)?;
        Ok(Operation::silent(Kind::Change, async move {
            channel.leave().await
        }))
    }

    fn rotate(&self, py: Python<'_>) -> PyResult<Operation> {
        let channel = self.channel(py)?;
        Ok(Operation::silent(Kind::Change, async move {
            channel.rotate().await
        }))
    }

    fn words(&self, py: Python<'_>) -> PyResult<Operation> {
        let channel = self.channel(py)?;
        Ok(Operation::new(Kind::Waiting, async move {
            channel.words().await
        }))
    }

    fn caught_up(&self, py: Python<'_>) -> PyResult<Operation> {
        let channel = self.channel(py)?;
        Ok(Operation::silent(Kind::Waiting, async move {
            channel.caught_up().await
        }))
    }
}

/// A message to be, from what Python has checked and encoded.
pub(crate) fn draft(
    py: Python<'_>,
    payload: &[u8],
    content_type: String,
    reply_to: Option<&str>,
) -> PyResult<Draft> {
    let in_reply_to = reply_to
        .map(|id| {
            id.parse::<MessageId>().map_err(|_| {
                let bad = Error::Misuse("a message's id is 32 hexadecimal digits".into());
                errors::raise(py, &bad)
            })
        })
        .transpose()?;
    Ok(Draft {
        content_type,
        in_reply_to,
        payload: payload.into(),
        ..Draft::default()
    })
}

/// A time span that Python gave.
pub(crate) fn seconds(seconds: f64) -> Result<Duration, Error> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| Error::Misuse("a time is given in seconds, from 0 on".into()))
}

fn agent_ids(texts: &[String]) -> Result<Vec<sdk::AgentId>, Error> {
    texts.iter().map(|text| agent_id(text)).collect()
}

fn member(member: sdk::MemberView) -> Member {
    (
        member.agent.to_string(),
        member.label,
        member.admin,
        member.may_invite,
        member.me,
    )
}
