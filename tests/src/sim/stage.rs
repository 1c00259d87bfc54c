//! A play that a test directs: the same minds, hub, queue and clock as in the simulation, but
//! nothing goes wrong and nobody acts unless the test says so.
//!
//! For what must be shown once and exactly, with saved vaults and controls, rather than often and
//! at random.

use std::path::{Path, PathBuf};

use rand::RngExt as _;
use rusqlite::Connection;
use skytale_agent::{Answer, Command, CommandId, Draft, view};
use skytale_relay::archive::{Archive as _, ArchiveReader as _};
use skytale_wire::{
    Blob,
    id::{AgentId, ChannelId, MessageId, Seq, Time},
};
use tempfile::TempDir;

use super::{World, script::CANARY, world::Happening};

/// Agents with accounts, connected to one relay, each with its vault in a file.
#[derive(Debug)]
pub struct Stage {
    world: World,
    dir: TempDir,
    copies: u32,
}

impl Stage {
    /// So many agents, who wait.
    pub fn new(agents: usize) -> Self {
        let dir = TempDir::new().unwrap();
        let vaults = (0..agents)
            .map(|index| open_vault(&dir.path().join(format!("{index}.db"))))
            .collect();
        let mut stage = Self {
            world: World::directed(vaults),
            dir,
            copies: 0,
        };
        stage.rest();
        stage
    }

    /// Everything that is on its way arrives, and everything that is wanted is done.
    pub fn rest(&mut self) {
        self.world.rest();
    }

    /// An agent's id.
    pub fn id(&self, agent: usize) -> AgentId {
        self.world.agents[agent].id
    }

    /// An agent's vault, between two of its steps.
    pub fn vault(&self, agent: usize) -> &Connection {
        &self.world.agents[agent].vault
    }

    /// Asks for something that may be answered later.
    pub fn asks(&mut self, agent: usize, command: Command) -> CommandId {
        self.world.ask(agent, command)
    }

    /// Asks for something, and waits until it has come to an end and everybody knows.
    pub fn does(&mut self, agent: usize, command: Command) -> Answer {
        let id = self.asks(agent, command);
        self.rest();
        self.answer(&id)
            .expect("an answer by the time all is quiet")
    }

    /// What a command came to.
    pub fn answer(&self, id: &CommandId) -> Option<Answer> {
        self.world.script.answers.get(id).cloned()
    }

    /// The first agent opens a channel and adds all the others.
    pub fn open_with_everybody(&mut self) -> ChannelId {
        let others: Vec<usize> = (1..self.world.agents.len()).collect();
        self.open_and_add(0, 0, &others)
    }

    /// An agent opens a channel of its own number and adds others, who may be away.
    pub fn open_and_add(&mut self, number: u32, agent: usize, others: &[usize]) -> ChannelId {
        let open = Command::Open {
            name: format!("acme/ops/plan{number}").parse().unwrap(),
            relay: self.world.relay.key,
            addresses: vec!["relay:1".into()],
        };
        let Answer::Channel(channel) = self.does(agent, open) else {
            panic!("a new channel opens");
        };
        let agents: Vec<AgentId> = others.iter().map(|index| self.id(*index)).collect();
        if agents.is_empty() {
            return channel;
        }
        let add = Command::Add { channel, agents };
        assert_eq!(self.does(agent, add), Answer::Done);
        channel
    }

    /// How often something has happened so far.
    pub fn count(&self, what: &str) -> u64 {
        self.world.counters.0.get(what).copied().unwrap_or_default()
    }

    /// An agent says something so many times; who has a line has read it afterwards.
    pub fn says(&mut self, agent: usize, channel: ChannelId, times: u32) {
        let ids: Vec<CommandId> = (0..times)
            .map(|number| {
                let id = MessageId(self.world.rng.random());
                let draft = Draft::text(&format!("{CANARY} {number}"));
                self.asks(agent, Command::Send { channel, id, draft })
            })
            .collect();
        self.rest();
        for id in ids {
            assert!(matches!(self.answer(&id), Some(Answer::Stored(_))));
        }
    }

    /// An agent loses its line until [`Self::comes_back`].
    pub fn goes_away(&mut self, agent: usize) {
        self.world.agents[agent].parted_until = Time(u64::MAX);
        if let Some(conn) = self.world.agents[agent].conn {
            self.world.cut(conn);
        }
        self.rest();
    }

    /// An agent that was away finds its relay again.
    pub fn comes_back(&mut self, agent: usize) {
        self.world.agents[agent].parted_until = Time(0);
        self.world.after(1, Happening::Connect(agent));
        self.rest();
    }

    /// An agent's process ends and begins again from what its vault holds.
    pub fn restarts(&mut self, agent: usize) {
        self.world.crash_agent(agent);
        while !self.world.agents[agent].is_up() {
            assert!(self.world.turn(Time(u64::MAX)));
        }
        self.rest();
    }

    /// How the agent sees a channel.
    pub fn view(&self, agent: usize, channel: ChannelId) -> view::ChannelView {
        let views = view::channels(self.vault(agent)).unwrap();
        views.into_iter().find(|view| view.id == channel).unwrap()
    }

    /// Everything that the relay has of a channel, after a place.
    pub fn log(&self, channel: ChannelId, after: Seq) -> Vec<(Seq, Blob)> {
        let reader = self.world.relay.archive.reader();
        reader
            .records(&channel, after, usize::MAX, usize::MAX)
            .unwrap()
            .into_iter()
            .map(|record| (record.seq, Blob(record.record)))
            .collect()
    }

    /// What the SDK's worker does after an epoch: the write-ahead log is emptied.
    pub fn checkpoint(&self, agent: usize) {
        let blocked: bool = self
            .vault(agent)
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
            .unwrap();
        assert!(!blocked);
    }

    /// A thief's copy of an agent's data directory at this moment, opened.
    pub fn copy(&mut self, agent: usize) -> Connection {
        self.checkpoint(agent);
        self.copies += 1;
        let copy = self.dir.path().join(format!("copy{}.db", self.copies));
        std::fs::copy(self.path(agent), &copy).unwrap();
        open_vault(&copy)
    }

    /// Every byte of an agent's vault on the disk: the database and its write-ahead log.
    pub fn bytes(&self, agent: usize) -> Vec<u8> {
        let mut bytes = std::fs::read(self.path(agent)).unwrap();
        let wal = self.path(agent).with_extension("db-wal");
        bytes.extend(std::fs::read(wal).unwrap_or_default());
        bytes
    }

    fn path(&self, agent: usize) -> PathBuf {
        self.dir.path().join(format!("{agent}.db"))
    }
}

/// A vault with the settings that the SDK gives it, but without the cipher: what must be gone from
/// the file must be gone, not merely unreadable. Syncing is left out: no power fails here.
fn open_vault(path: &Path) -> Connection {
    let vault = Connection::open(path).unwrap();
    vault
        .execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = OFF;
             PRAGMA secure_delete = ON;
             PRAGMA temp_store = MEMORY;
             PRAGMA foreign_keys = ON;",
        )
        .unwrap();
    vault
}
