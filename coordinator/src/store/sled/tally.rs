//! What a set of records adds up to, whatever their order: how many there are of the kinds that people ask about, and a
//! digest. Adding, replacing or removing a record updates it in the time of hashing that record, so a store's tally is
//! always current; adding up all records again shows whether it still holds.
//!
//! The digest is the sum modulo 2¹²⁸ of each record's XXH3. It detects loss and damage. It is not a signature: somebody who
//! intends to can forge it.

use twox_hash::{XxHash3_64, XxHash3_128};

use crate::ports::Holding;
use crate::store::codec::keys;

/// Bytes of a tally.
pub(super) const BYTES: usize = 16 + 5 * 8;

/// The 128-bit hash of some bytes. It is stored, so it is the same on every machine and in every version.
pub(super) fn hash(bytes: &[u8]) -> u128 {
    XxHash3_128::oneshot(bytes)
}

/// What a set of records adds up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    digest: u128,
    /// The numbers of records.
    pub(super) holding: Holding,
}

impl Tally {
    /// Adds a record.
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.digest = self.digest.wrapping_add(of(key, value));
        self.count(key, 1);
    }

    /// Subtracts a record that was added.
    pub(super) fn subtract(&mut self, key: &[u8], value: &[u8]) {
        self.digest = self.digest.wrapping_sub(of(key, value));
        self.count(key, u64::MAX);
    }

    /// Adds modulo 2⁶⁴: `by` is `u64::MAX` to subtract one.
    fn count(&mut self, key: &[u8], by: u64) {
        let Holding { records, searches, candidates, evaluations, pictures } = &mut self.holding;
        *records = records.wrapping_add(by);
        let kind = match key.first() {
            Some(&keys::SEARCH) => searches,
            Some(&keys::CANDIDATE) => candidates,
            Some(&keys::EVALUATION) => evaluations,
            Some(&keys::THUMBNAILS) => pictures,
            _ => return,
        };
        *kind = kind.wrapping_add(by);
    }

    /// The stored form: digest, then records, searches, candidates, evaluations, pictures; big-endian.
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

    /// Reads the stored form.
    pub(super) fn decode(bytes: &[u8; BYTES]) -> Self {
        let (digest, counts) = bytes.split_at(16);
        let mut counts = counts.chunks_exact(8).map(|c| c.iter().fold(0, |n, &byte| n << 8 | u64::from(byte)));
        let mut next = || counts.next().unwrap_or(0);
        let holding =
            Holding { records: next(), searches: next(), candidates: next(), evaluations: next(), pictures: next() };
        Self { digest: digest.iter().fold(0, |n, &byte| n << 8 | u128::from(byte)), holding }
    }
}

/// The key seeds the hash of the value, so two records that swap their values change the digest.
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
    fn a_tally_does_not_depend_on_the_order_of_the_records() {
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
    fn a_tally_changes_with_every_record() {
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
    fn a_tally_survives_its_stored_form() {
        let whole = tally(&[(b"s/a", b"1"), (b"c/a\0\0", b"2"), (b"t/a\0\0", b"3"), (b"w/w", &[7; 1000])]);
        assert_eq!(Tally::decode(&whole.encode()), whole);
    }

    /// Digests are stored: no version of the library and no machine may compute others.
    #[test]
    fn a_digest_never_changes() {
        assert_eq!(hash(b""), 0x99aa06d3014798d86001c324468d497f);
        assert_eq!(of(b"s/a", &[7; 300]), 0xbef612af84ffa2c0f66e86d95363e1ea);
    }
}
