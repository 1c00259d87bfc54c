//! An epoch's secret as five words that people read to each other.
//!
//! The list stands in `words.txt`, one word a line, sorted. Changing it changes what every agent
//! shows: two versions with different lists would disagree over the same epoch, so it is not
//! edited once released.

use std::sync::LazyLock;

use skytale_wire::id::Digest;

/// Five words for an MLS epoch authenticator (RFC 9420, section 8.7). Who sees the same words is in
/// the same epoch of the same group, with the same members and the same history.
///
/// They carry 50 bits. That finds every accident, and a relay that shows two halves of a channel
/// different things: it makes no epochs, so its chance is one in 2^50 for each comparison. It does
/// not stop who can make epochs and grind them offline before sending one:
///
/// - to match the words of one given epoch takes about 2^50 tries;
/// - whoever makes *both* epochs that are compared (a member gone bad who serves two halves, a
///   stranger who sits in two groups between two people) needs only two that agree, by the
///   birthday bound about 2^25 tries on each side. Therefore compare the members too: such an
///   attacker is on both lists.
///
/// Compare over a channel that the relay does not hold, best by voice: who carries the words can
/// exchange them. The words give nothing of the epoch's keys away: the authenticator is derived
/// apart from them, and is hashed once more here.
pub(crate) fn words(secret: &[u8]) -> [String; 5] {
    let digest = Digest::of(&[b"skytale/1 words", secret]);
    let head = digest
        .0
        .iter()
        .take(8)
        .fold(0_u64, |head, byte| head << 8 | u64::from(*byte));
    // The first word stands in the ten highest bits.
    [54, 44, 34, 24, 14].map(|shift| {
        let place = usize::try_from(head >> shift & 0x3ff).expect("ten bits fit");
        WORDS[place].to_owned()
    })
}

/// 1,024 words, in the order of the file: a word's place is its ten bits.
static WORDS: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| include_str!("words.txt").lines().collect());

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_list_has_a_word_for_each_ten_bits() {
        assert_eq!(WORDS.len(), 1 << 10);
        assert!(
            WORDS.is_sorted_by(|left, right| left < right),
            "sorted, each word once"
        );
        for word in &*WORDS {
            assert!((4..=7).contains(&word.len()), "{word}");
            assert!(word.bytes().all(|byte| byte.is_ascii_lowercase()), "{word}");
        }
    }

    #[test]
    fn four_letters_tell_a_word() {
        let heads: BTreeSet<_> = WORDS.iter().map(|word| &word.as_bytes()[..4]).collect();

        assert_eq!(heads.len(), WORDS.len());
    }

    /// As near as a test comes to "no two sound alike": one letter misheard, lost or added never
    /// gives another word of the list.
    #[test]
    fn no_two_words_are_one_letter_apart() {
        for (place, word) in WORDS.iter().enumerate() {
            for other in &WORDS[place + 1..] {
                assert!(!one_letter_apart(word, other), "{word} and {other}");
            }
        }
    }

    /// SHA-256 over the length-prefixed parts begins with the bytes below; computed by hand with
    /// another program, so that a change of label, bit order or list shows.
    #[test]
    fn a_secret_always_gives_the_same_words() {
        let secret = [7; 32];

        assert!(
            Digest::of(&[b"skytale/1 words", &secret])
                .to_string()
                .starts_with("51b92972d293c4")
        );
        assert_eq!(
            words(&secret),
            ["gazebo", "tomcat", "omnibus", "purple", "oatcake"]
        );
        assert_ne!(words(&secret), words(&[8; 32]));
    }

    fn one_letter_apart(left: &str, right: &str) -> bool {
        let same_head = left
            .bytes()
            .zip(right.bytes())
            .take_while(|(l, r)| l == r)
            .count();
        let (left, right) = (
            &left.as_bytes()[same_head..],
            &right.as_bytes()[same_head..],
        );
        let without_first = |word: &[u8]| word.get(1..).unwrap_or_default().to_vec();
        without_first(left) == without_first(right)
            || without_first(left) == right
            || left == without_first(right)
    }
}
