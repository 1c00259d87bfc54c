//! What applications say in a session: said until each member has it, heard once and in its
//! sender's order.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use skytale_slim::{Address, MessageType, Name};

use super::{Body, PAYLOAD_BYTES_MAX, PUBLISH_TO, Step};
use crate::{
    Event, Misuse, Received,
    draft::{self, Draft},
    heard::{Heard, Said},
    identity::Claim,
    incoming::{Message, Ready},
    outgoing::{Done, Kept},
};

impl Body {
    pub(super) fn publish(
        &mut self,
        payload_type: String,
        payload: Bytes,
        metadata: BTreeMap<String, String>,
        step: &mut Step<'_>,
    ) -> Result<u32, Misuse> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(Misuse::TooLarge);
        }
        if !self.is_open || !self.online {
            return Err(Misuse::NotIn);
        }
        let missing: BTreeSet<Address> = self
            .members
            .iter()
            .filter(|(_, member)| member.online && member.settings.receives_data)
            .map(|(address, _)| *address)
            .collect();
        if missing.is_empty() {
            return Err(Misuse::Alone);
        }
        if !self.outgoing.has_room() {
            return Err(Misuse::Full);
        }
        let kept = self.outgoing.put(payload_type, payload, metadata);
        let id = kept.id;
        let draft = self.message(kept, &self.data, self.is_group);
        self.say(draft, step).ok_or(Misuse::NotIn)?;
        match self.reliability {
            Some(pace) => self.outgoing.wait(id, missing, step.now, pace),
            None => self.tell_done(
                Some(Done {
                    id,
                    missing: Vec::new(),
                }),
                step,
            ),
        }
        Ok(id)
    }

    pub(super) fn message(&self, kept: Kept, to: &Name, to_all: bool) -> Draft {
        let said = Said::Application {
            payload_type: kept.payload_type,
            blob: kept.payload,
        };
        let mut draft = self.draft(to, MessageType::Msg, kept.id, said);
        draft.to_all = to_all;
        draft.metadata = kept.metadata;
        draft
    }

    /// Somebody asks for a message of ours again. That is also an answer: he is there.
    pub(super) fn say_again(&mut self, heard: &Heard, step: &mut Step<'_>) {
        if !self.members.contains_key(&heard.source.address) {
            return;
        }
        let kept = self.outgoing.kept(heard.id).cloned();
        let failed = kept.is_none();
        let mut draft = match kept {
            Some(kept) => self.message(kept, &heard.source, false),
            None => self.draft(&heard.source, MessageType::Msg, heard.id, draft::empty()),
        };
        draft.message = MessageType::RtxReply;
        draft.failed = failed;
        self.say(draft, step);
    }

    /// What somebody's application says, or that a message of his is no more.
    pub(super) fn hear(&mut self, heard: Heard, claim: &Claim, step: &mut Step<'_>) {
        let from = heard.source.address;
        let Some(member) = self.members.get(&from) else {
            return;
        };
        if !self.is_open || !member.settings.sends_data {
            return;
        }
        let Said::Application { payload_type, blob } = heard.said else {
            return;
        };
        let payload = match &mut self.mls {
            None => blob,
            Some(mls) => match mls.open(&blob, &heard.covered, step.identity) {
                Ok(opened) if opened.sender.key == claim.key => opened.plaintext,
                Ok(_) => {
                    tracing::debug!(session = self.id.0, "said by another member");
                    return;
                }
                Err(error) => {
                    tracing::debug!(session = self.id.0, %error, "a message that MLS refuses");
                    return;
                }
            },
        };
        let is_reply = heard.message == MessageType::RtxReply;
        if let (Some(_), false) = (self.reliability, is_reply) {
            let mut ack = self.draft(&heard.source, MessageType::MsgAck, heard.id, draft::empty());
            if let Some(mark) = heard.metadata.get(PUBLISH_TO) {
                ack.metadata.insert(PUBLISH_TO.to_owned(), mark.clone());
            }
            self.say(ack, step);
        }
        if is_reply && heard.failed {
            for ready in self.incoming.lost(from, heard.id) {
                self.hand_on(from, ready, step);
            }
            return;
        }
        let message = Message {
            payload_type,
            payload,
            metadata: heard.metadata,
        };
        let (ready, missing) = match self.reliability {
            None => (vec![Ready::Message(message)], Vec::new()),
            Some(pace) => self.incoming.take(from, heard.id, message, step.now, pace),
        };
        for ready in ready {
            self.hand_on(from, ready, step);
        }
        for id in missing {
            self.ask_for(from, id, step);
        }
    }

    pub(super) fn hand_on(&mut self, from: Address, ready: Ready, step: &mut Step<'_>) {
        let Some(member) = self.members.get(&from) else {
            return;
        };
        let from = member.name.clone();
        step.tell(match ready {
            Ready::Message(message) => Event::Received(Received {
                session: self.id,
                from,
                payload_type: message.payload_type,
                payload: message.payload,
                metadata: message.metadata,
            }),
            Ready::Lost => Event::Lost {
                session: self.id,
                from,
            },
        });
    }

    /// Nothing more comes of somebody. What is held behind a gap was acknowledged, so its speaker
    /// takes it for heard.
    pub(super) fn hand_on_held(&mut self, from: Address, step: &mut Step<'_>) {
        for ready in self.incoming.end(from) {
            self.hand_on(from, ready, step);
        }
    }

    /// The session is over, so nothing more comes of anybody.
    pub(crate) fn hand_on_all_held(&mut self, step: &mut Step<'_>) {
        for from in self.incoming.speakers() {
            self.hand_on_held(from, step);
        }
    }

    pub(super) fn ask_for(&mut self, from: Address, id: u32, step: &mut Step<'_>) {
        if let Some(member) = self.members.get(&from) {
            let to = member.name.clone();
            let draft = self.draft(&to, MessageType::RtxRequest, id, draft::empty());
            self.say(draft, step);
        }
    }

    pub(super) fn repeat_messages(&mut self, step: &mut Step<'_>) {
        let Some(pace) = self.reliability else {
            return;
        };
        let (again, done) = self.outgoing.due(step.now, pace);
        for (kept, who) in again {
            if let Some(member) = self.members.get(&who) {
                let draft = self.message(kept, &member.name, false);
                self.say(draft, step);
            }
        }
        for done in done {
            self.tell_done(Some(done), step);
        }
        let (again, ready) = self.incoming.due(step.now, pace);
        for (from, id) in again {
            self.ask_for(from, id, step);
        }
        for (from, ready) in ready {
            self.hand_on(from, ready, step);
        }
    }

    pub(super) fn tell_done(&mut self, done: Option<Done>, step: &mut Step<'_>) {
        let Some(done) = done else {
            return;
        };
        let names = done.missing.iter().filter_map(|who| self.members.get(who));
        let missing = names.map(|member| member.name.clone()).collect();
        step.tell(Event::Delivered {
            session: self.id,
            message: done.id,
            missing,
        });
    }
}
