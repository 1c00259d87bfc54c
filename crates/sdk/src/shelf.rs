//! Reading the vault for the application: a thread with a connection of its own.
//!
//! It works the same whether this process is the mind or a hand. No read transaction outlives a
//! job: an open one would keep deleted secrets in the write-ahead log.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use data_encoding::HEXLOWER;
use rusqlite::Connection;
use skytale_agent::inbox;
use tokio::{
    runtime::Builder,
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
};
use tokio_util::sync::CancellationToken;

use crate::{
    error::Error,
    question,
    stillness::AtWork,
    threads::Threads,
    vault::{LockFile, Vault},
    worker::begin,
};

/// Something to be done with the connection.
type Job = Box<dyn FnOnce(&mut Reading) + Send>;

enum Task {
    Job(Job),
    /// A message has been dealt with. What comes close together is stored together.
    Acknowledge {
        reader: String,
        row: i64,
        done: Option<oneshot::Sender<Result<(), Error>>>,
    },
}

/// The handles' side.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    tasks: mpsc::Sender<Task>,
}

impl Shelf {
    /// Starts the thread. It ends when the last clone is gone or the threads are stopped, after
    /// it has done what was handed over by then.
    pub(crate) fn open(vault: &Arc<Vault>, threads: &Threads) -> Result<Self, Error> {
        let reading = Reading {
            conn: vault.connect()?,
            vault: Arc::clone(vault),
        };
        let (tasks, mut queue) = mpsc::channel(TASKS_MAX);
        let runtime = AtWork::resting(&mut Builder::new_current_thread())
            .build()
            .map_err(|_| Error::unreachable("this machine has no room for another thread"))?;
        let stop = threads.stop_token();
        threads.spawn("skytale-shelf", move || {
            let _at_work = AtWork::begin();
            // Closed before it rests.
            let mut reading = reading;
            runtime.block_on(work(&mut reading, &mut queue, &stop));
        })?;
        Ok(Self { tasks })
    }

    /// Runs `job` on the thread. When the caller is cancelled it runs all the same.
    pub(crate) async fn with<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Reading) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, replied) = oneshot::channel();
        let job: Job = Box::new(move |reading| {
            // Whoever asked has stopped waiting.
            let _ = reply.send(job(reading));
        });
        self.tasks
            .send(Task::Job(job))
            .await
            .map_err(|_| Error::closed())?;
        replied.await.map_err(|_| Error::closed())?
    }

    /// Room for one more acknowledgement, if there is some at once.
    pub(crate) fn try_room(&self) -> Result<Option<Room>, Error> {
        match self.tasks.clone().try_reserve_owned() {
            Ok(permit) => Ok(Some(Room(permit))),
            Err(TrySendError::Full(_)) => Ok(None),
            Err(TrySendError::Closed(_)) => Err(Error::closed()),
        }
    }

    /// Room for one more acknowledgement, so that handing it in cannot be cancelled half-way.
    pub(crate) async fn room(&self) -> Result<Room, Error> {
        self.tasks
            .clone()
            .reserve_owned()
            .await
            .map(Room)
            .map_err(|_| Error::closed())
    }
}

/// A place in the queue.
pub(crate) struct Room(mpsc::OwnedPermit<Task>);

impl Room {
    /// Stored within milliseconds, together with others. After a power cut the last of them may
    /// be shown again.
    pub(crate) fn acknowledge(self, reader: String, row: i64) {
        self.0.send(Task::Acknowledge {
            reader,
            row,
            done: None,
        });
    }

    /// The same, durably; the answer comes when it is stored.
    pub(crate) fn acknowledge_now(
        self,
        reader: String,
        row: i64,
    ) -> oneshot::Receiver<Result<(), Error>> {
        let (done, stored) = oneshot::channel();
        self.0.send(Task::Acknowledge {
            reader,
            row,
            done: Some(done),
        });
        stored
    }

    /// Runs `job` on the thread.
    pub(crate) fn run(self, job: impl FnOnce(&mut Reading) + Send + 'static) {
        self.0.send(Task::Job(Box::new(job)));
    }
}

async fn work(reading: &mut Reading, queue: &mut mpsc::Receiver<Task>, stop: &CancellationToken) {
    let mut next = None;
    loop {
        let task = tokio::select! {
            biased;
            // It was taken out of the queue already.
            Some(task) = std::future::ready(next.take()) => Some(task),
            () = stop.cancelled() => queue.try_recv().ok(),
            task = queue.recv() => task,
        };
        let Some(task) = task else { return };
        match task {
            Task::Job(job) => job(reading),
            Task::Acknowledge { reader, row, done } => {
                let mut rows = vec![row];
                let mut waiting = Vec::from_iter(done);
                while let Ok(task) = queue.try_recv() {
                    match task {
                        Task::Acknowledge {
                            reader: same,
                            row,
                            done,
                        } if same == reader => {
                            rows.push(row);
                            waiting.extend(done);
                        }
                        other @ (Task::Acknowledge { .. } | Task::Job(_)) => {
                            next = Some(other);
                            break;
                        }
                    }
                }
                let mark = |tx: &Connection| Ok(inbox::acknowledge(tx, &reader, &rows)?);
                let stored = if waiting.is_empty() {
                    reading.in_passing(mark)
                } else {
                    reading.durably(mark)
                };
                if let Err(error) = &stored {
                    tracing::warn!(%error, "messages are not marked as taken and will be shown again");
                }
                for done in waiting {
                    let _ = done.send(match &stored {
                        Ok(()) => Ok(()),
                        Err(error) => Err(Error::Damaged(error.to_string())),
                    });
                }
            }
        }
    }
}

/// What a job works with.
pub(crate) struct Reading {
    vault: Arc<Vault>,
    conn: Connection,
}

impl Reading {
    /// For looking only.
    pub(crate) fn conn(&self) -> &Connection {
        &self.conn
    }

    /// A transaction that is on disk when this returns.
    pub(crate) fn durably<T>(
        &mut self,
        job: impl FnOnce(&Connection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let _turn = self.vault.turn();
        let tx = begin(&mut self.conn)?;
        let done = job(&tx)?;
        tx.commit()?;
        Ok(done)
    }

    /// A transaction that survives the end of this process, but maybe not a power cut: it costs
    /// no flush to disk, and the next durable one takes it along.
    pub(crate) fn in_passing<T>(
        &mut self,
        job: impl FnOnce(&Connection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.conn.execute_batch("PRAGMA synchronous = NORMAL")?;
        let done = self.durably(job);
        self.conn.execute_batch("PRAGMA synchronous = FULL")?;
        done
    }
}

/// Shows that whoever leased messages under this name still lives: a file that is locked as long
/// as the process does. So a crash shows a message again at once, and a slow reader keeps it as
/// long as it likes.
#[derive(Debug)]
pub(crate) struct Holder {
    pub(crate) id: [u8; 16],
    /// Taken when its agent is closed.
    alive: Mutex<Option<LockFile>>,
}

impl Holder {
    pub(crate) fn new(dir: &Path) -> Result<Self, Error> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).expect("the operating system gives random bytes");
        let alive = held_file(&holders(dir), &HEXLOWER.encode(&id))?;
        let alive = Mutex::new(Some(alive));
        Ok(Self { id, alive })
    }

    /// From now on others may have what it holds, though somebody may keep it yet: in languages that
    /// collect what nobody uses any more, a loop can outlive its agent for long.
    pub(crate) fn let_go(&self) {
        let mut alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        alive.take();
    }
}

/// A new file in `dir` that is locked as long as this process keeps it.
pub(crate) fn held_file(dir: &Path, name: &str) -> Result<LockFile, Error> {
    crate::config::private_dir(dir)?;
    // Locked before it has the name by which others look whether it is locked.
    let unnamed = dir.join(format!(".{name}"));
    let mut file = LockFile::at(&unnamed)?;
    file.try_hold()?;
    fs::rename(&unnamed, dir.join(name))
        .map_err(|error| crate::config::unreadable("the agent's directory", &error))?;
    Ok(file)
}

/// Gives back what readers had leased that are not there any more, and forgets the questions of
/// those who have died asking.
pub(crate) fn release_dead(reading: &mut Reading) -> Result<(), Error> {
    question::forget_dead(reading.vault.dir());
    let Ok(entries) = fs::read_dir(holders(reading.vault.dir())) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(holder_id) else {
            continue;
        };
        let Ok(mut file) = LockFile::at(&entry.path()) else {
            continue;
        };
        if file.try_hold()?.is_none() {
            continue;
        }
        reading.in_passing(|tx| Ok(inbox::release(tx, &id)?))?;
        // Somebody else may have been quicker.
        let _ = fs::remove_file(entry.path());
    }
    Ok(())
}

fn holder_id(name: &str) -> Option<[u8; 16]> {
    HEXLOWER.decode(name.as_bytes()).ok()?.try_into().ok()
}

fn holders(dir: &Path) -> PathBuf {
    dir.join("readers")
}

/// Jobs that wait for the thread; more make their callers wait.
const TASKS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_holder_keeps_its_file_and_a_dead_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Arc::new(Vault::new_in(dir.path()));
        let mut reading = Reading {
            conn: vault.connect().unwrap(),
            vault,
        };
        skytale_agent::Agent::migrate(&mut reading.conn).unwrap();
        let dir = reading.vault.dir().to_owned();
        let alive = Holder::new(&dir).unwrap();
        let dead = Holder::new(&dir).unwrap();
        let conn = &reading.conn;
        conn.execute(
            "INSERT INTO reads (reader, row, holder, until, taken) VALUES ('r', 1, ?1, 9, 0), ('r', 2, ?2, 9, 0)",
            [alive.id, dead.id],
        )
        .unwrap();
        drop(dead);

        release_dead(&mut reading).unwrap();

        let left: Vec<[u8; 16]> = reading
            .conn
            .prepare("SELECT holder FROM reads")
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(left, [alive.id]);
        assert_eq!(fs::read_dir(holders(&dir)).unwrap().count(), 1);
    }
}
