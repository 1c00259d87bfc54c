//! Who sits where: which agents share a channel and what they do there.

use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

/// What an agent does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workload {
    /// It is in a channel and says nothing.
    Idle,
    /// Two who answer each other after a while of thinking.
    Chat,
    /// One asks, the other answers with a burst of results, small and large.
    Tools,
    /// Five in one channel, each of whom says something now and then.
    Group,
    /// One sends a file now and then, in pieces that are all given to its agent at once.
    File,
}

impl Workload {
    const ALL: [Self; 5] = [Self::Idle, Self::Chat, Self::Tools, Self::Group, Self::File];

    /// The word for it in the manifest and on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Chat => "chat",
            Self::Tools => "tools",
            Self::Group => "group",
            Self::File => "file",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }

    /// How many sit at a table.
    const fn company(self) -> usize {
        match self {
            Self::Idle | Self::Chat | Self::Tools | Self::File => 2,
            Self::Group => 5,
        }
    }
}

/// An agent's place. Agents and lines have the same numbers.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    pub(crate) workload: Workload,
    /// The number of its channel.
    pub(crate) table: usize,
    /// Its place there; the first has made the channel.
    pub(crate) chair: usize,
    /// The others.
    pub(crate) peers: Vec<usize>,
}

/// Gives out at most `agents` places. To each table at which something is done there is one of the
/// same size at which nothing is, so that nothing else tells them apart.
///
/// Whom chance gives which number: agents come in by their numbers, and the relay's threads take lines
/// in turn, so that lines which came one after another have small delays in common, or have not. Were
/// those of a table neighbours, that would look as if they talked.
pub(crate) fn deal(agents: usize, workloads: &[Workload], seed: u64) -> Vec<Seat> {
    let mut seats: Vec<Seat> = Vec::new();
    let mut table = 0;
    for busy in workloads.iter().cycle() {
        let company = busy.company();
        if seats.len() + 2 * company > agents {
            break;
        }
        for workload in [*busy, Workload::Idle] {
            let first = seats.len();
            let all = first..first + company;
            seats.extend(all.clone().map(|number| Seat {
                workload,
                table,
                chair: number - first,
                peers: all.clone().filter(|peer| *peer != number).collect(),
            }));
            table += 1;
        }
    }
    shuffled(&seats, seed)
}

fn shuffled(seats: &[Seat], seed: u64) -> Vec<Seat> {
    let mut numbers: Vec<usize> = (0..seats.len()).collect();
    numbers.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let mut dealt = seats.to_vec();
    for (seat, number) in seats.iter().zip(&numbers) {
        let peers = seat.peers.iter().map(|peer| numbers[*peer]).collect();
        dealt[*number] = Seat {
            peers,
            ..seat.clone()
        };
    }
    dealt
}
