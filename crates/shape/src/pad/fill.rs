//! Where the random bytes of cells come from: masks and fill.
//!
//! A line with cover needs a cell full of them in nearly every slot, so they must cost less than the
//! encryption of the same bytes, which is mostly AES-GCM by whatever the CPU has for it.
//! `benches/fill.rs` sets the two side by side. The instants of cells are not drawn here but in `schedule.rs`, from a
//! generator of their own.

use std::convert::Infallible;
use std::fmt;

use aes::Aes128Enc;
use aes::cipher::{BlockEncrypt, KeyInit, inout::InOutBuf};
use rand::{Rng, TryCryptoRng, TryRng};
use rand_chacha::ChaCha8Rng;

/// A generator for masks and fill.
///
/// Where the CPU has instructions for AES that the crate `aes` uses, it is AES-128 in counter mode:
/// AES-GCM does that for the same bytes and computes a checksum besides. Cover of 1,056 bytes took
/// three quarters of the time of ring's AES-128-GCM, where `ChaCha8Rng` took all of it. Without the
/// instructions AES is slow, and the generator is the `ChaCha8Rng` that was handed in. So the bytes for
/// a seed differ between CPUs; nothing may rest on them, and sizes and instants do not.
///
/// Its state is not wiped. It opens no message: it tells masks and fill from each other's past and
/// future, which only those see who are behind the connection's encryption, and they see the real
/// bytes as well. Neither is it guarded against having been read by whoever reads this memory, for
/// the frames lie beside it.
pub struct Fill(Source);

#[expect(
    clippy::large_enum_variant,
    reason = "the large one is what nearly every machine has"
)]
enum Source {
    /// The counter's blocks, encrypted. It starts at 0, for the key serves nothing else, and no line
    /// lives for the 2^64 blocks after which it would return there.
    Counter {
        cipher: Aes128Enc,
        counter: u64,
    },
    ChaCha(ChaCha8Rng),
}

impl Fill {
    /// A generator that draws all it needs from `seed`, which a program seeds from the operating
    /// system.
    pub fn new(seed: ChaCha8Rng) -> Self {
        Self(if cpu_has_aes() {
            Source::counter(seed)
        } else {
            Source::ChaCha(seed)
        })
    }
}

/// Infallible, so that it is a [`rand::CryptoRng`]. What is left of a block at the end of a call is
/// thrown away: keeping it costs more than drawing another.
impl TryRng for Fill {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        match &mut self.0 {
            Source::Counter { cipher, counter } => fill_from(cipher, counter, bytes),
            Source::ChaCha(rng) => rng.fill_bytes(bytes),
        }
        Ok(())
    }
}

impl TryCryptoRng for Fill {}

/// Without its state, which says what the next cells' fill will be.
impl fmt::Debug for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fill").finish_non_exhaustive()
    }
}

impl Source {
    fn counter(mut seed: ChaCha8Rng) -> Self {
        let mut key = [0; BLOCK];
        seed.fill_bytes(&mut key);
        Self::Counter {
            cipher: Aes128Enc::new(&key.into()),
            counter: 0,
        }
    }
}

/// Writes counters where the random bytes shall be and encrypts them there, eight at a time.
fn fill_from(cipher: &Aes128Enc, counter: &mut u64, bytes: &mut [u8]) {
    let mut next = || {
        let block = u128::from(*counter).to_be_bytes();
        *counter = counter.wrapping_add(1);
        block
    };
    let (blocks, rest) = bytes.as_chunks_mut::<BLOCK>();
    for block in &mut *blocks {
        *block = next();
    }
    let (blocks, _) = InOutBuf::from(blocks.as_flattened_mut()).into_chunks();
    cipher.encrypt_blocks_inout(blocks);
    if !rest.is_empty() {
        let mut last = next().into();
        cipher.encrypt_block(&mut last);
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

/// Whether `aes` uses instructions here: it asks the same question the same way. On ARM it would
/// need a flag of the compiler, which nobody who builds this sets.
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn cpu_has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
fn cpu_has_aes() -> bool {
    false
}

/// The length of AES's blocks, and of its shortest key. A draw costs whole blocks.
pub(super) const BLOCK: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use std::collections::HashSet;

    /// Both kinds, whatever this CPU has.
    fn both(seed: u64) -> [Fill; 2] {
        let seed = ChaCha8Rng::seed_from_u64(seed);
        [
            Fill(Source::counter(seed.clone())),
            Fill(Source::ChaCha(seed)),
        ]
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
        digits
            .chunks(2)
            .map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap())
            .collect()
    }

    #[test]
    fn blocks_are_the_counter_encrypted_as_the_standards_say() {
        // The key and the first counters of test cases 1 and 2 of GCM's specification: the key of
        // its checksum, the mask of that, and the first block that hides a message.
        let expected = hex("66e94bd4ef8a2c3b884cfa59ca342b2e
             58e2fccefa7e3061367f1d57a4e7455a
             0388dace60b6a392f328c2b971b2fe78");
        let cipher = Aes128Enc::new(&[0; BLOCK].into());

        for len in 0..=expected.len() {
            let mut counter = 0;
            let mut bytes = vec![0xEE; len];
            fill_from(&cipher, &mut counter, &mut bytes);

            assert_eq!(bytes, expected[..len], "{len}");
            assert_eq!(counter, len.div_ceil(BLOCK) as u64);
        }
    }

    #[test]
    fn many_blocks_at_once_are_the_same_as_one_by_one_also_where_the_counter_wraps() {
        let cipher = Aes128Enc::new(&[7; BLOCK].into());
        let (mut at_once, mut one_by_one) = ([0; 40 * BLOCK], [0; 40 * BLOCK]);

        let mut counter = u64::MAX - 10;
        fill_from(&cipher, &mut counter, &mut at_once);
        assert_eq!(counter, 29);

        counter = u64::MAX - 10;
        for block in one_by_one.chunks_mut(BLOCK) {
            fill_from(&cipher, &mut counter, block);
        }
        assert_eq!(at_once, one_by_one);
    }

    #[test]
    fn no_draw_gives_what_another_gave() {
        for mut fill in both(1) {
            let mut seen = HashSet::new();
            for len in 12..200 {
                let mut bytes = vec![0; len];
                fill.fill_bytes(&mut bytes);
                for piece in bytes.chunks_exact(12) {
                    assert!(seen.insert(piece.to_vec()), "{len}");
                }
            }
            assert_ne!(fill.next_u32(), fill.next_u32());
            assert_ne!(fill.next_u64(), fill.next_u64());
        }
    }

    #[test]
    fn the_seed_says_all() {
        let draw = |mut fill: Fill| {
            let mut bytes = [0; 100];
            fill.fill_bytes(&mut bytes);
            bytes
        };
        let drawn = both(2).map(draw);
        assert_eq!(drawn, both(2).map(draw));
        for other in both(3).map(draw) {
            assert!(!drawn.contains(&other));
        }
        let of_this_cpu = draw(Fill::new(ChaCha8Rng::seed_from_u64(2)));
        assert!(drawn.contains(&of_this_cpu));
    }

    #[test]
    fn every_bit_is_set_about_half_of_the_time() {
        for mut fill in both(4) {
            let mut bytes = vec![0; 64 * 1_024];
            fill.fill_bytes(&mut bytes);
            for bit in 0..8 {
                let set = bytes.iter().filter(|byte| *byte >> bit & 1 == 1).count();
                // Half of 65,536, give or take six standard deviations of 128.
                assert!(set.abs_diff(32_768) < 768, "bit {bit}: {set}");
            }
        }
    }

    #[test]
    fn its_state_is_not_shown() {
        for fill in both(5) {
            assert_eq!(format!("{fill:?}"), "Fill { .. }");
        }
    }
}
