//! What the system says: the machine, what a process used, how long a flush takes.

use std::{
    fs::{self, File},
    io::{self, Seek as _, SeekFrom, Write as _},
    path::Path,
    time::Duration,
};

use serde::Serialize;
use tokio::time::Instant;

/// Where a run took place.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    pub(super) cores: usize,
    pub(super) cpu: String,
    pub(super) system: String,
}

impl Machine {
    pub(super) fn this() -> Self {
        let cpu = fs::read_to_string("/proc/cpuinfo")
            .ok()
            .and_then(|text| field(&text, "model name").map(str::to_owned));
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu: cpu.unwrap_or_else(|| "unknown processor".to_owned()),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }
}

/// Processor time that a process has used, with all its threads, those that ended included. `None`
/// where the system does not tell.
pub(super) fn cpu_time(pid: u32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name stands in brackets and may hold anything.
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(USER_TIME_FIELD);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * TICK_MS))
}

/// How often the threads of a process have gone to sleep by themselves and were woken again.
pub(super) fn wakes(pid: u32) -> Option<u64> {
    let mut wakes = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        // One that has ended since it was listed tells nothing any more.
        let Ok(text) = thread.and_then(|it| fs::read_to_string(it.path().join("status"))) else {
            continue;
        };
        let own: u64 = field(&text, "voluntary_ctxt_switches")?.parse().ok()?;
        wakes += own;
    }
    Some(wakes)
}

/// Memory that a process holds, in bytes.
pub(super) fn resident(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib: u64 = field(&text, "VmRSS")?
        .trim_end_matches(" kB")
        .trim()
        .parse()
        .ok()?;
    Some(kib * 1024)
}

/// A file beside what is measured, to see how long its disk takes.
pub(super) struct Flushed(File);

impl Flushed {
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        tempfile::tempfile_in(dir).map(Self)
    }

    /// Appends so many bytes and has them on the disk.
    pub(super) fn append(&mut self, bytes: usize) -> io::Result<Duration> {
        self.0.seek(SeekFrom::End(0))?;
        self.write(bytes)
    }

    /// The same over the beginning, so that the file does not grow.
    pub(super) fn overwrite(&mut self, bytes: usize) -> io::Result<Duration> {
        self.0.rewind()?;
        self.write(bytes)
    }

    fn write(&mut self, bytes: usize) -> io::Result<Duration> {
        let record = vec![0x5a; bytes];
        let begun = Instant::now();
        self.0.write_all(&record)?;
        self.0.sync_data()?;
        Ok(begun.elapsed())
    }
}

/// The value below which so many of a hundred lie, in microseconds.
pub(super) fn percentile(times: &[Duration], percent: usize) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(f64::NAN, micros)
}

pub(super) fn micros(time: &Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

/// Fields of `/proc/PID/stat` between the name and the user time.
const USER_TIME_FIELD: usize = 11;
/// Linux shows times to programs in hundredths of a second, whatever it counts in.
const TICK_MS: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let times: Vec<Duration> = (1..=100).rev().map(Duration::from_micros).collect();

        assert!((percentile(&times, 50) - 51.0).abs() < 1e-9);
        assert!((percentile(&times, 99) - 100.0).abs() < 1e-9);
        assert!((percentile(&times[..1], 99) - 100.0).abs() < 1e-9);
        assert!(percentile(&[], 50).is_nan());
    }

    #[test]
    fn threads_that_end_meanwhile_hide_no_figure() {
        if !cfg!(target_os = "linux") {
            return;
        }
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let others = std::thread::spawn(move || {
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                let brief: Vec<_> = (0..8).map(|_| std::thread::spawn(|| {})).collect();
                for thread in brief {
                    thread.join().unwrap();
                }
            }
        });

        let told = (0..2_000).all(|_| wakes(std::process::id()).is_some());

        drop(stop);
        others.join().unwrap();
        assert!(told);
    }

    #[test]
    fn this_process_holds_memory_and_a_flush_takes_time() {
        let dir = tempfile::tempdir().unwrap();

        if cfg!(target_os = "linux") {
            assert!(resident(std::process::id()).unwrap() > 100_000);
            assert!(cpu_time(std::process::id()).is_some());
            assert!(wakes(std::process::id()).is_some());
        }
        let mut file = Flushed::new(dir.path()).unwrap();
        assert!(!file.append(512).unwrap().is_zero());
        assert!(!file.overwrite(512).unwrap().is_zero());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
