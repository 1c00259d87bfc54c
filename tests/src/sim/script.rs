//! What people do: a random story of channels, invites, messages, removals.

use std::collections::BTreeSet;

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use skytale_agent::{Answer, Command, CommandId, Draft, Event, Input, view};
use skytale_wire::{
    id::{AgentId, ChannelId, MessageId, Time},
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
    /// Messages that somebody was told are stored.
    pub(super) stored: BTreeSet<(ChannelId, MessageId)>,
    said: u32,
}

impl Script {
    pub(super) fn new(rng: &mut ChaCha8Rng, agents: usize) -> Self {
        let acts_left = rng.random_range(12..45);
        Self {
            end: START.plus(rng.random_range(4_000..25_000)),
            acts_left,
            agents,
            channels: Vec::new(),
            lines: Vec::new(),
            stored: BTreeSet::new(),
            said: 0,
        }
    }

    pub(super) fn end(&self) -> Time {
        self.end
    }

    pub(super) fn is_done(&self) -> bool {
        true
    }

    pub(super) fn describe(&self) -> String {
        format!("{} messages said, {} stored", self.said, self.stored.len())
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
            0..=49 => self.say(index, channel),
            50..=61 => {
                let line = self.make_line(index, channel);
                self.command(index, line);
            }
            62..=71 => {
                let agents = vec![self.agents[other].id];
                self.command(index, Command::Add { channel, agents });
            }
            72..=79 => self.command(index, Command::Rotate { channel }),
            80..=85 => {
                let agents = vec![self.agents[other].id];
                self.command(index, Command::Remove { channel, agents });
            }
            86..=89 => {
                let (admin, may_invite) = (self.rng.random(), true);
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
            90..=91 => self.command(index, Command::CloseInvites { channel }),
            92..=94 if index > 0 => self.command(index, Command::Leave { channel }),
            95 => self.open(index),
            96..=97 => self.too_large(index, channel),
            _ => self.come_in(index),
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
            self.script.said += 1;
            let id = MessageId(self.rng.random());
            let length = [0, 10, 300, 3000][self.rng.random_range(0..4)];
            let text = format!("{CANARY} {} {}", self.script.said, "x".repeat(length));
            let draft = Draft::text(&text);
            self.command(index, Command::Send { channel, id, draft });
        }
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
        let id = MessageId(self.rng.random());
        if !self.agents[index].is_up() {
            return;
        }
        self.say_aloud(|| {
            format!(
                "{} wants {id:?} {}",
                self.agents[index].name,
                super::agent::kind(&command)
            )
        });
        self.agents[index].owed.insert(id, command.clone());
        self.think(index, Input::Command { id, command });
    }

    pub(super) fn heard_answer(&mut self, index: usize, _id: CommandId, answer: Answer) {
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
            Answer::Done | Answer::Stored(_) | Answer::Failed(_) => {}
        }
    }

    pub(super) fn heard_event(&mut self, index: usize, event: &Event) {
        if let Event::AcceptanceWanted { channel, .. } = event {
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
