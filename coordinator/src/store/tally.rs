//! What a store holds, in six numbers that follow from its records whatever their order: how many there are of the kinds
//! that people ask about, and a digest. A record that is added, replaced or removed changes them in the time of hashing
//! that record, so they are always up to date; adding up all records anew tells whether they are still true.
//!
//! The digest is the sum modulo 2¹²⁸ of each record's XXH3. That finds every loss and every mistake. It is no signature:
//! whoever means to deceive can.

use twox_hash::{XxHash3_64, XxHash3_128};

use crate::ports::Holding;

/// Bytes of a tally.
pub(super) const BYTES: usize = 16 + 5 * 8;

/// The 128-bit hash of some bytes: equal on every machine and in every version.
pub(super) fn hash(bytes: &[u8]) -> u128 {
    XxHash3_128::oneshot(bytes)
}

/// What a set of records adds up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    digest: u128,
    /// How many there are.
    pub(super) holding: Holding,
}

impl Tally {
    /// With one more record.
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.digest = self.digest.wrapping_add(of(key, value));
        self.count(key, 1);
    }

    /// Without a record that is there.
    pub(super) fn subtract(&mut self, key: &[u8], value: &[u8]) {
        self.digest = self.digest.wrapping_sub(of(key, value));
        self.count(key, u64::MAX);
    }

    /// Modulo 2⁶⁴: adding `u64::MAX` takes one away.
    fn count(&mut self, key: &[u8], by: u64) {
        let Holding { records, searches, candidates, evaluations, pictures } = &mut self.holding;
        *records = records.wrapping_add(by);
        let kind = match key.first() {
            Some(b's') => searches,
            Some(b'c') => candidates,
            Some(b'e') => evaluations,
            Some(b't') => pictures,
            _ => return,
        };
        *kind = kind.wrapping_add(by);
    }

    /// As bytes; big-endian.
    pub(super) fn encode(&self) -> [u8; BYTES] {
        let Holding { records, searches, candidates, evaluations, pictures } = self.holding;
        let mut bytes = [0; BYTES];
        bytes[..16].copy_from_slice(&self.digest.to_be_bytes());
        let counts = [records, searches, candidates, evaluations, pictures];
        for (place, count) in bytes[16..].chunks_exact_mut(8).zip(counts) {
            place.copy_from_slice(&count.to_be_bytes());
        }
        bytes
    }

    /// Back from bytes.
    pub(super) fn decode(bytes: &[u8; BYTES]) -> Self {
        let (digest, counts) = bytes.split_at(16);
        let mut counts = counts.chunks_exact(8).map(|c| c.iter().fold(0, |n, &byte| n << 8 | u64::from(byte)));
        let mut next = || counts.next().unwrap_or(0);
        let holding =
            Holding { records: next(), searches: next(), candidates: next(), evaluations: next(), pictures: next() };
        Self { digest: digest.iter().fold(0, |n, &byte| n << 8 | u128::from(byte)), holding }
    }
}

/// The key decides how the value is hashed, so that no two records can exchange their values unnoticed.
fn of(key: &[u8], value: &[u8]) -> u128 {
    XxHash3_128::oneshot_with_seed(XxHash3_64::oneshot(key), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(records: &[(&[u8], &[u8])]) -> Tally {
        let mut tally = Tally::default();
        records.iter().for_each(|(key, value)| tally.add(key, value));
        tally
    }

    #[test]
    fn a_tally_follows_from_the_records_whatever_their_order() {
        let [a, b, c]: [(&[u8], &[u8]); 3] = [(b"s/a", b"1"), (b"e/a\0\x01", b"2"), (b"e/a\0\x02", b"2")];
        assert_eq!(tally(&[a, b, c]), tally(&[c, a, b]));
        let mut without = tally(&[a, b, c]);
        without.subtract(b.0, b.1);
        assert_eq!(without, tally(&[a, c]));
        assert_eq!(without.holding, Holding { records: 2, searches: 1, evaluations: 1, ..Holding::default() });
        without.subtract(a.0, a.1);
        without.subtract(c.0, c.1);
        assert_eq!(without, Tally::default());
    }

    #[test]
    fn a_tally_notices_what_changes() {
        let whole = tally(&[(b"a", b"1"), (b"b", b"2")]);
        for other in [
            tally(&[(b"a", b"2"), (b"b", b"1")]),
            tally(&[(b"a", b"1"), (b"b", b"3")]),
            tally(&[(b"a", b"1"), (b"c", b"2")]),
            tally(&[(b"a1", b""), (b"b", b"2")]),
            tally(&[(b"a", b"1")]),
        ] {
            assert_ne!(whole, other);
        }
    }

    #[test]
    fn a_tally_comes_back_from_its_bytes() {
        let whole = tally(&[(b"s/a", b"1"), (b"c/a\0\0", b"2"), (b"t/a\0\0", b"3"), (b"w/w", &[7; 1000])]);
        assert_eq!(Tally::decode(&whole.encode()), whole);
    }

    /// Stored, so never to change: not with a library's version, nor from machine to machine.
    #[test]
    fn a_digest_is_what_it_always_was() {
        assert_eq!(hash(b""), 0x99aa06d3014798d86001c324468d497f);
        assert_eq!(of(b"s/a", &[7; 300]), 0xbef612af84ffa2c0f66e86d95363e1ea);
    }
}
