//! Stillness for a fork: a moment in which no thread of ours works in SQLCipher.
//!
//! A fork copies locks as they stand, and not the threads that hold them. A process that ends by
//! itself lets SQLCipher clear away, which takes its locks: a child whose parent was in the middle of
//! a statement then waits for ever. So whoever is about to fork first lets those threads come to
//! rest.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::runtime::Builder;

/// Waits until no thread of any agent of this process works in SQLCipher; none begins again until
/// what this gives is dropped, in the parent and in the child. `None` when one works for longer than
/// ten seconds, which only a disk that hangs makes it do: then the fork is as safe as it was before.
///
/// For bindings of languages that fork; a fork from Rust needs `unsafe`. What an agent does that is
/// just being opened is not waited for, nor what servers in this process do.
pub fn hold_still() -> Option<Stillness> {
    let mut work = lock();
    work.may_begin = false;
    let waited = RESTED.wait_timeout_while(work, STILL_MAX, |work| work.threads > 0);
    let (work, waited) = waited.unwrap_or_else(PoisonError::into_inner);
    let still = Stillness(work);
    (!waited.timed_out()).then_some(still)
}

/// Nothing works as long as this is held.
#[derive(Debug)]
pub struct Stillness(MutexGuard<'static, Work>);

impl Drop for Stillness {
    fn drop(&mut self) {
        self.0.may_begin = true;
        BEGIN.notify_all();
    }
}

/// Shows that a thread may be in SQLCipher, but for when it waits for something to do.
#[derive(Debug)]
pub(crate) struct AtWork(());

impl AtWork {
    pub(crate) fn begin() -> Self {
        begin();
        Self(())
    }

    /// Of a thread that is [`AtWork`] as long as its runtime runs: it rests whenever it has nothing
    /// to do.
    pub(crate) fn resting(builder: &mut Builder) -> &mut Builder {
        builder.on_thread_park(rest).on_thread_unpark(begin)
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        rest();
    }
}

#[derive(Debug)]
struct Work {
    threads: usize,
    may_begin: bool,
}

fn begin() {
    let work = BEGIN.wait_while(lock(), |work| !work.may_begin);
    work.unwrap_or_else(PoisonError::into_inner).threads += 1;
}

fn rest() {
    let mut work = lock();
    work.threads -= 1;
    if work.threads == 0 {
        RESTED.notify_all();
    }
}

fn lock() -> MutexGuard<'static, Work> {
    WORK.lock().unwrap_or_else(PoisonError::into_inner)
}

static WORK: Mutex<Work> = Mutex::new(Work {
    threads: 0,
    may_begin: true,
});
static RESTED: Condvar = Condvar::new();
static BEGIN: Condvar = Condvar::new();

const STILL_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, AtomicU64, Ordering},
        },
        thread,
    };

    use super::*;

    /// The threads of other tests of this process work meanwhile, which is as it should be.
    #[test]
    fn nobody_works_while_it_is_held_and_all_go_on_afterwards() {
        let stop = Arc::new(AtomicBool::new(false));
        let steps = Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (stop, steps) = (Arc::clone(&stop), Arc::clone(&steps));
                thread::spawn(move || {
                    let mut builder = Builder::new_current_thread();
                    let runtime = AtWork::resting(&mut builder).build().unwrap();
                    let _at_work = AtWork::begin();
                    runtime.block_on(async {
                        while !stop.load(Ordering::Relaxed) {
                            steps.fetch_add(1, Ordering::Relaxed);
                            // Parks: the way back goes through another thread.
                            tokio::task::yield_now().await;
                            let (tell, told) = tokio::sync::oneshot::channel();
                            thread::spawn(move || tell.send(()));
                            told.await.unwrap();
                        }
                    });
                })
            })
            .collect();

        for _ in 0..50 {
            let still = hold_still().expect("they rest now and then");
            let before = steps.load(Ordering::Relaxed);
            for _ in 0..100 {
                thread::yield_now();
            }
            assert_eq!(steps.load(Ordering::Relaxed), before);
            drop(still);
            while steps.load(Ordering::Relaxed) == before {
                thread::yield_now();
            }
        }

        stop.store(true, Ordering::Relaxed);
        for one in threads {
            one.join().unwrap();
        }
    }
}
