//! The threads on which Argon2 runs: as many as there are cores, each with memory of its own that
//! it uses again and again.
//!
//! Hashing on whatever thread is free would leave a block of 19 MiB behind in the allocator's corner
//! of each of them: a flood of wrong keys then makes the process grow by hundreds of MiB that it
//! never gives back. Here the memory is bounded by the number of threads, whatever comes.

use std::{
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use argon2::Block;
use tokio::sync::{Semaphore, oneshot};

/// As many hashes wait as may: come back in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Busy;

/// A handle to the threads. They end when it goes.
pub(crate) struct HashThreads {
    /// Gone only while dropping.
    jobs: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
    /// One for each hash that runs or waits.
    places: Arc<Semaphore>,
    places_max: usize,
}

/// What a thread hashes with; it grows to what the first hash needs and stays so.
pub(crate) type Memory = Vec<Block>;

type Job = Box<dyn FnOnce(&mut Memory) + Send>;

impl HashThreads {
    /// Starts them. Beside those that run, `waiting_max` hashes may wait.
    pub(crate) fn start(count: usize, waiting_max: usize) -> io::Result<Self> {
        let places = count + waiting_max;
        let (jobs, waiting) = sync_channel::<Job>(places);
        let waiting = Arc::new(Mutex::new(waiting));
        let threads = (0..count)
            .map(|number| {
                let waiting = Arc::clone(&waiting);
                std::thread::Builder::new()
                    .name(format!("api-hash-{number}"))
                    .spawn(move || work(&waiting))
            })
            .collect::<io::Result<_>>()?;
        Ok(Self {
            jobs: Some(jobs),
            threads,
            places: Arc::new(Semaphore::new(places)),
            places_max: places,
        })
    }

    /// Runs `work` when a thread is free, or refuses at once when too much waits already. What nobody
    /// waits for any more by then is passed over.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Memory) -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| Busy)?;
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |memory| {
            if !reply.is_closed() {
                // Who has gone away meanwhile needs no answer.
                let _ = reply.send(work(memory));
            }
            drop(place);
        });
        self.jobs
            .as_ref()
            .and_then(|jobs| jobs.try_send(job).ok())
            .ok_or(Busy)?;
        answer.await.map_err(|_| Busy)
    }

    /// How many hashes run or wait.
    pub(crate) fn waiting(&self) -> usize {
        self.places_max - self.places.available_permits()
    }

    /// Takes every place that is free, as a flood would.
    #[cfg(test)]
    pub(crate) fn occupy(&self) -> tokio::sync::OwnedSemaphorePermit {
        let all = u32::try_from(self.places.available_permits()).expect("few places");
        Arc::clone(&self.places)
            .try_acquire_many_owned(all)
            .expect("nobody else is there")
    }
}

impl Drop for HashThreads {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that hashes panicked");
            }
        }
    }
}

impl fmt::Debug for HashThreads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashThreads")
            .field("free", &self.places.available_permits())
            .finish_non_exhaustive()
    }
}

fn work(waiting: &Mutex<Receiver<Job>>) {
    let mut memory = Memory::new();
    loop {
        // One waits for the next job, and the others wait for their turn to wait.
        let next = waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        let Ok(job) = next else { return };
        // A bug in one hash must not take the thread away from all that come after it: whoever
        // waits for this one sees the answer fail to come.
        if catch_unwind(AssertUnwindSafe(|| job(&mut memory))).is_err() {
            tracing::error!("a hash panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn each_thread_uses_its_memory_again() {
        let threads = HashThreads::start(1, 4).unwrap();

        let grown = threads
            .run(|memory| memory.resize(8, Block::new()))
            .await
            .and(threads.run(|memory| memory.len()).await);

        assert_eq!(grown, Ok(8));
    }

    #[tokio::test]
    async fn what_does_not_fit_is_refused_at_once_and_what_nobody_waits_for_is_passed_over() {
        let threads = Arc::new(HashThreads::start(1, 1).unwrap());
        let (let_go, held) = mpsc::channel::<()>();
        let (began, running) = oneshot::channel();
        let first = tokio::spawn({
            let threads = Arc::clone(&threads);
            async move {
                let work = move |_: &mut Memory| {
                    let _ = began.send(());
                    held.recv().is_ok()
                };
                threads.run(work).await
            }
        });
        running.await.unwrap();
        let (ran, has_run) = mpsc::channel();
        let second = tokio::spawn({
            let threads = Arc::clone(&threads);
            async move { threads.run(move |_| ran.send(()).is_ok()).await }
        });
        while threads.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }

        assert_eq!(threads.run(|_| ()).await, Err(Busy), "one runs, one waits");

        second.abort();
        let _ = second.await;
        let_go.send(()).unwrap();
        assert_eq!(first.await.unwrap(), Ok(true));
        drop(threads);
        assert!(has_run.recv().is_err(), "the second one never ran");
    }

    #[tokio::test]
    async fn a_hash_that_panics_takes_no_thread_along() {
        let threads = HashThreads::start(1, 1).unwrap();

        let broken: Result<(), Busy> = threads.run(|_| panic!("a bug")).await;

        assert_eq!(broken, Err(Busy));
        assert_eq!(threads.run(|_| 7).await, Ok(7));
    }
}
