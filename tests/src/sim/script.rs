//! What people do: a random story of channels, invites, messages, removals.

use std::collections::BTreeMap;

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use skytale_agent::{Answer, Command, CommandId, Draft, Event, Input, inbox, view};
use skytale_wire::{
    id::{AgentId, ChannelId, MessageId, Seq, Time},
    name::ChannelName,
};

use super::world::{Happening, START, World};

/// The story so far.
pub(super) struct Script {
    end: Time,
    acts_left: u32,
    agents: usize,
    pub(super) channels: Vec<ChannelId>,
    /// Lines that somebody has made and nobody has used as often as they allow.
    lines: Vec<String>,
    /// Messages that their sender was told are stored, and where.
    pub(super) stored: BTreeMap<(ChannelId, MessageId), (AgentId, Seq)>,
    /// What each message said.
    pub(super) said: BTreeMap<MessageId, Draft>,
    /// Every command, also of those who died before its answer.
    pub(super) asked: BTreeMap<CommandId, Command>,
    /// Every answer, in a directed play.
    pub(super) answers: BTreeMap<CommandId, Answer>,
    /// Somebody else says what happens: nobody here has ideas of his own.
    is_directed: bool,
}

impl Script {
    pub(super) fn new(rng: &mut ChaCha8Rng, agents: usize) -> Self {
        let acts_left = rng.random_range(12..45);
        Self {
            end: START.plus(rng.random_range(4_000..25_000)),
            acts_left,
            agents,
            is_directed: false,
            ..Self::directed()
        }
    }

    /// No story: a test tells everybody what to do.
    pub(super) fn directed() -> Self {
        Self {
            end: START,
            acts_left: 0,
            agents: 0,
            channels: Vec::new(),
            lines: Vec::new(),
            stored: BTreeMap::new(),
            said: BTreeMap::new(),
            asked: BTreeMap::new(),
            answers: BTreeMap::new(),
            is_directed: true,
        }
    }

    pub(super) fn end(&self) -> Time {
        self.end
    }

    pub(super) fn describe(&self) -> String {
        format!(
            "{} messages said, {} stored",
            self.said.len(),
            self.stored.len()
        )
    }
}

/// In every plaintext, and nowhere in what the relay has.
pub const CANARY: &str = "the-canary-sings-in-plaintext";

impl World {
    /// The next thing that somebody does.
    pub(super) fn act(&mut self) {
        if !self.faults.on || self.script.acts_left == 0 {
            return;
        }
        self.script.acts_left -= 1;
        let span = self.script.end.since(START) / 45;
        let pause = self.rng.random_range(1..=span.max(2) * 2);
        self.after(pause, Happening::Act);
        if self.script.channels.is_empty() {
            return self.open(0);
        }
        let index = self.rng.random_range(0..self.agents.len());
        let other = self.rng.random_range(0..self.agents.len());
        let Some(channel) = self.some_channel(index) else {
            return self.come_in(index);
        };
        match self.rng.random_range(0..100) {
            0..=44 => self.say(index, channel),
            45..=55 => {
                let line = self.make_line(index, channel);
                self.command(index, line);
            }
            56..=64 => {
                let agents = vec![self.somebody_outside(index, channel, other)];
                self.command(index, Command::Add { channel, agents });
            }
            65..=71 => self.command(index, Command::Rotate { channel }),
            72..=77 => {
                let agents = vec![self.agents[other].id];
                let remove = Command::Remove {
                    channel,
                    agents: agents.clone(),
                };
                self.command(index, remove);
                if self.rng.random_bool(0.4) {
                    // On second thoughts, perhaps before the other has even heard of it.
                    self.command(index, Command::Add { channel, agents });
                }
            }
            78..=82 => {
                let (admin, may_invite) = (self.rng.random(), self.rng.random_bool(0.8));
                let agent = self.agents[other].id;
                self.command(
                    index,
                    Command::Grant {
                        channel,
                        agent,
                        admin,
                        may_invite,
                    },
                );
            }
            83..=85 => self.depose(index, channel),
            86..=87 => self.command(index, Command::CloseInvites { channel }),
            88..=91 if index > 0 => self.command(index, Command::Leave { channel }),
            92..=94 => self.open(index),
            95..=96 => self.too_large(index, channel),
            _ => self.come_in(index),
        }
    }

    /// An agent that is not in the channel as far as this one knows, if there is any.
    fn somebody_outside(&mut self, index: usize, channel: ChannelId, other: usize) -> AgentId {
        let members = view::members(&self.agents[index].vault, channel).unwrap();
        let outside: Vec<AgentId> = self
            .agents
            .iter()
            .map(|agent| agent.id)
            .filter(|id| members.iter().all(|member| member.agent != *id))
            .collect();
        if outside.is_empty() {
            return self.agents[other].id;
        }
        outside[self.rng.random_range(0..outside.len())]
    }

    /// An admin removes another admin, perhaps the one who made it an admin.
    fn depose(&mut self, index: usize, channel: ChannelId) {
        let members = view::members(&self.agents[index].vault, channel).unwrap();
        let admins: Vec<AgentId> = members
            .iter()
            .filter(|member| member.admin && !member.me)
            .map(|member| member.agent)
            .collect();
        if !admins.is_empty() {
            let agents = vec![admins[self.rng.random_range(0..admins.len())]];
            self.command(index, Command::Remove { channel, agents });
        }
    }

    fn some_channel(&mut self, index: usize) -> Option<ChannelId> {
        let channels = view::channels(&self.agents[index].vault).unwrap();
        let open: Vec<ChannelId> = channels
            .iter()
            .filter(|channel| {
                matches!(
                    channel.state,
                    view::ChannelState::Active | view::ChannelState::Creating
                )
            })
            .map(|channel| channel.id)
            .collect();
        (!open.is_empty()).then(|| open[self.rng.random_range(0..open.len())])
    }

    fn open(&mut self, index: usize) {
        let name: ChannelName = format!("acme/ops/plan{}", self.script.channels.len() % 2)
            .parse()
            .unwrap();
        let relay = self.relay.key;
        self.command(
            index,
            Command::Open {
                name,
                relay,
                addresses: vec!["relay:1".into()],
            },
        );
    }

    fn make_line(&mut self, _index: usize, channel: ChannelId) -> Command {
        Command::Invite {
            channel,
            uses: self.rng.random_range(1..=2),
            ttl_ms: [2_000, 3_600_000][self.rng.random_range(0..2)],
            addresses: Vec::new(),
        }
    }

    /// Somebody tries a line, perhaps one that is used up, old or damaged.
    fn come_in(&mut self, index: usize) {
        if self.script.lines.is_empty() {
            return;
        }
        let place = self.rng.random_range(0..self.script.lines.len());
        let mut line = self.script.lines[place].clone();
        if self.rng.random_bool(0.03) {
            line.truncate(line.len() - 4);
        }
        self.command(index, Command::Join { line });
    }

    fn say(&mut self, index: usize, channel: ChannelId) {
        let burst = if self.rng.random_bool(0.08) {
            40
        } else {
            self.rng.random_range(1..=4)
        };
        for _ in 0..burst {
            let id = MessageId(self.rng.random());
            let length = [0, 10, 300, 3000][self.rng.random_range(0..4)];
            let number = self.script.said.len();
            let text = format!("{CANARY} {number} {}", "x".repeat(length));
            let draft = Draft {
                in_reply_to: self.what_to_answer(index, channel),
                headers: self.some_headers(),
                ..Draft::text(&text)
            };
            self.script.said.insert(id, draft.clone());
            self.command(index, Command::Send { channel, id, draft });
        }
    }

    /// Now and then a message answers one that has been read.
    fn what_to_answer(&mut self, index: usize, channel: ChannelId) -> Option<MessageId> {
        if !self.rng.random_bool(0.15) {
            return None;
        }
        let unread = inbox::look(&self.agents[index].vault, Some(channel), 0, 5).unwrap();
        unread.last().map(|message| message.id)
    }

    fn some_headers(&mut self) -> Vec<(String, String)> {
        let count = if self.rng.random_bool(0.15) {
            self.rng.random_range(1..4)
        } else {
            0
        };
        (0..count)
            .map(|number| (format!("name-{number}"), CANARY.to_owned()))
            .collect()
    }

    fn too_large(&mut self, index: usize, channel: ChannelId) {
        let id = MessageId(self.rng.random());
        let draft = Draft {
            payload: vec![0; 262_145].into(),
            ..Draft::text("")
        };
        self.command(index, Command::Send { channel, id, draft });
    }

    pub(super) fn command(&mut self, index: usize, command: Command) {
        if self.agents[index].is_up() {
            self.ask(index, command);
        }
    }

    /// Hands a command to a mind that is up.
    pub(super) fn ask(&mut self, index: usize, command: Command) -> CommandId {
        let id = MessageId(self.rng.random());
        self.say_aloud(|| {
            format!(
                "{} wants {id:?} {}",
                self.agents[index].name,
                super::agent::command_kind(&command)
            )
        });
        self.agents[index].owed.insert(id, command.clone());
        self.script.asked.insert(id, command.clone());
        self.think(index, Input::Command { id, command });
        id
    }

    pub(super) fn heard_answer(&mut self, index: usize, id: CommandId, answer: Answer) {
        if self.script.is_directed {
            self.script.answers.insert(id, answer);
            return;
        }
        match answer {
            Answer::Invite(line) => {
                self.script.lines.push(line);
                let joiner = self.rng.random_range(0..self.script.agents);
                if joiner != index {
                    self.come_in(joiner);
                }
            }
            Answer::Channel(channel) => {
                if !self.script.channels.contains(&channel) {
                    self.script.channels.push(channel);
                    let line = self.make_line(index, channel);
                    self.command(index, line);
                }
            }
            Answer::Stored(seq) => {
                if let Some(Command::Send { channel, id, .. }) = self.script.asked.get(&id) {
                    let sender = self.agents[index].id;
                    let key = (*channel, *id);
                    self.script.stored.insert(key, (sender, seq));
                }
            }
            Answer::Done | Answer::Failed(_) => {}
        }
    }

    pub(super) fn heard_event(&mut self, index: usize, event: &Event) {
        if let Event::AcceptanceWanted { channel, .. } = event
            && !self.script.is_directed
        {
            let channel = *channel;
            let command = if self.rng.random_bool(0.8) {
                Command::Accept { channel }
            } else {
                Command::Decline { channel }
            };
            self.command(index, command);
        }
    }

    pub(super) fn id_of(&self, agent: &AgentId) -> String {
        self.agents
            .iter()
            .find(|known| known.id == *agent)
            .map_or_else(|| "a stranger".into(), |known| known.name.clone())
    }
}
