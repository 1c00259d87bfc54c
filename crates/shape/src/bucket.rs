//! The lengths that cells may have: eight buckets, and Padmé above them.
//!
//! Padding happens twice, for two observers. Inside the MLS ciphertext it hides lengths from the
//! relay; on the cell it hides them from the network. If both used the same round numbers, each
//! padded plaintext would, with its headers, miss its bucket by a little and travel in one of twice
//! the size. So the plaintext is padded to what is *left* of a cell, [`plaintext_len`]:
//!
//! ```text
//! cell       512  1,024  2,048  4,096  8,192  16,384  32,768   Padmé
//! plaintext  128    640  1,664  3,712  7,808  16,000  32,384   Padmé - 384
//! ```
//!
//! The allowance of 384 bytes ([`SEALED_OVERHEAD_MAX`]) is added up from its parts, in bytes:
//!
//! | part | bytes |
//! |---|---|
//! | MLS application message: 146 with a group id of 16 bytes, 162 with one of 32 | 162 |
//! | the clear fields once more as authenticated data (channel 32, id 16, epoch, kind, CBOR) | 62 |
//! | the frame around it (channel 32, sender 32, id 16, seq, epoch, time, kind, CBOR) | 129 |
//! | the line: frame length 4, cell header 9 | 13 |
//! | together | 366 |
//!
//! This holds for seq and epoch below 2³²; bodies over 16 KiB write their lengths with 8 bytes more.
//! Being a little generous costs some 10 bytes of fill; being short by one byte would double every
//! cell. With any overhead from 129 to 384 a plaintext class has exactly one cell class, which a
//! test below holds. The 256 byte cell remains for acknowledgements and the like.
//!
//! The crate that pads plaintexts does not depend on this one and repeats the rule.

/// The lengths of cells up to 32 KiB.
pub const BUCKETS: [usize; 8] = [256, 512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768];

/// The largest cell: the first Padmé length above 1 MiB, so that a frame of 1 MiB and its headers
/// travel in one.
pub const MAX_CELL: usize = padded_len(1_048_577);

/// What a padded plaintext may gain, at most, on its way into a cell.
pub const SEALED_OVERHEAD_MAX: usize = 384;

/// The length that `len` bytes get on the wire. Monotone, at least `len`, and a fixed point on its
/// own results.
///
/// Padmé keeps only as many leading bits of a length as it takes to write down its exponent, and
/// rounds the rest up: above 32 KiB that adds 6.25 % at most.
pub const fn padded_len(len: usize) -> usize {
    if len <= BUCKETS[0] {
        return BUCKETS[0];
    }
    if len <= BUCKETS[BUCKETS.len() - 1] {
        return len.next_power_of_two();
    }
    let exponent = len.ilog2();
    let kept_bits = exponent.ilog2() + 1;
    let step = 1 << (exponent - kept_bits);
    // No slice is longer than `isize::MAX`, so this cannot overflow.
    len.next_multiple_of(step)
}

/// The length to which a plaintext of `len` bytes is padded before MLS seals it, so that the
/// sealed frame fills its cell and does not spill into the next.
pub const fn plaintext_len(len: usize) -> usize {
    padded_len(len + SEALED_OVERHEAD_MAX) - SEALED_OVERHEAD_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn up_to_32_kib_every_length_takes_the_next_bucket() {
        for len in 0..=32_768 {
            let smallest = BUCKETS.into_iter().find(|bucket| *bucket >= len).unwrap();
            assert_eq!(padded_len(len), smallest, "{len}");
        }
    }

    #[test]
    fn above_32_kib_lengths_are_padme() {
        // Worked by hand: 2^15 keeps 4 bits, 2^16 to 2^31 keep 5.
        for (len, padded) in [
            (32_769, 34_816),
            (34_816, 34_816),
            (34_817, 36_864),
            (65_535, 65_536),
            (65_537, 67_584),
            (262_144, 262_144),
            (262_145, 270_336),
            (1_048_577, 1_081_344),
        ] {
            assert_eq!(padded_len(len), padded, "{len}");
        }
        assert_eq!(MAX_CELL, 1_081_344);
    }

    #[test]
    fn plaintext_classes_are_the_documented_ones() {
        let classes: Vec<usize> = BUCKETS[1..]
            .iter()
            .map(|cell| cell - SEALED_OVERHEAD_MAX)
            .collect();
        assert_eq!(classes, [128, 640, 1_664, 3_712, 7_808, 16_000, 32_384]);
        for (len, class) in [
            (0, 128),
            (128, 128),
            (129, 640),
            (32_384, 32_384),
            (32_385, 34_432),
        ] {
            assert_eq!(plaintext_len(len), class, "{len}");
        }
    }

    proptest! {
        #[test]
        fn padding_is_monotone_stable_and_cheap(len in 0_usize..4_000_000, more in 0_usize..5_000) {
            let padded = padded_len(len);
            prop_assert!(padded >= len);
            prop_assert!(padded <= padded_len(len + more));
            prop_assert_eq!(padded_len(padded), padded);
            prop_assert!(len <= 32_768 || (padded - len) * 16 <= len);
        }

        /// Were it otherwise, the cell would tell the network more than the plaintext class.
        #[test]
        fn a_plaintext_class_has_one_cell_class_whatever_the_overhead(
            len in 0_usize..600_000,
            overhead in 129..=SEALED_OVERHEAD_MAX,
        ) {
            let class = plaintext_len(len);
            prop_assert!(class >= len);
            prop_assert_eq!(padded_len(class + overhead), class + SEALED_OVERHEAD_MAX);
        }
    }
}
