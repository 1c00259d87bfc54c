//! Counts the cover cells of one direction at the end where they arrive.
//!
//! Each cover cell carries a number, from 0 upwards. The stream below keeps order, so a number
//! that is skipped means that cover was taken out between the two ends: somebody who can do that
//! is looking for the real cells. It says nothing about a relay that writes its own cover.

use crate::error::Breach;

/// What has been seen of a direction's cover so far.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct CoverCount {
    received: u64,
    missing: u64,
}

impl CoverCount {
    /// Cover cells that arrived.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Cover cells that were sent before one that arrived, and did not arrive themselves. Anything
    /// but 0 is worth a warning.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// Takes note of a cover cell by its payload, which begins with the counter.
    pub(crate) fn note(&mut self, payload: &[u8]) -> Result<(), Breach> {
        let counter = payload.first_chunk().ok_or(Breach::CoverCounter)?;
        let counter = u64::from_be_bytes(*counter);
        // All numbers below the next expected one were either received or are missing. The last
        // number is refused because nothing could be expected after it.
        let expected = self.received + self.missing;
        let skipped = counter.checked_sub(expected).ok_or(Breach::CoverCounter)?;
        if counter == u64::MAX {
            return Err(Breach::CoverCounter);
        }
        self.received += 1;
        self.missing += skipped;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_numbers_are_missing() {
        let mut count = CoverCount::default();

        for counter in [0_u64, 1, 4, 5, 9] {
            count.note(&counter.to_be_bytes()).unwrap();
        }

        assert_eq!((count.received(), count.missing()), (5, 5));
    }

    #[test]
    fn a_number_that_goes_back_overflows_or_is_not_there_is_refused() {
        let mut count = CoverCount::default();
        count.note(&7_u64.to_be_bytes()).unwrap();
        let before = count;

        for payload in [
            &7_u64.to_be_bytes()[..],
            &0_u64.to_be_bytes(),
            &u64::MAX.to_be_bytes(),
            b"short",
            b"",
        ] {
            assert_eq!(count.note(payload), Err(Breach::CoverCounter));
        }

        assert_eq!(count, before);
        count.note(&(u64::MAX - 1).to_be_bytes()).unwrap();
        assert_eq!(
            count.note(&u64::MAX.to_be_bytes()),
            Err(Breach::CoverCounter)
        );
    }
}
