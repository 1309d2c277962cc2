//! SentencePiece's character table, `precompiled_charsmap`: replacements made before a text is tokenized.
//!
//! The library that applies the table does not check its offsets, so a damaged table would make the program panic. This
//! module checks all entries that a text can reach. The table is a double-array trie over bytes (units of 32 bits; Yata
//! et al. 2007), whose leaves point into one text of replacements.

use tokenizers::normalizers::Precompiled;

/// Largest table accepted; T5's has a quarter of a million bytes.
const MAX_BYTES: usize = 4 << 20;

/// Reads and checks a table. Fails if it is damaged or larger than [`MAX_BYTES`].
pub(super) fn table(bytes: &[u8]) -> Result<Precompiled, String> {
    check(bytes).ok_or("its character table points outside itself")?;
    Precompiled::from(bytes).map_err(|e| e.to_string())
}

fn offset(unit: u32) -> usize {
    ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize
}

fn check(bytes: &[u8]) -> Option<()> {
    let (size, rest) = bytes.split_first_chunk::<4>().filter(|_| bytes.len() <= MAX_BYTES)?;
    let (units, texts) = rest.split_at_checked(u32::from_le_bytes(*size) as usize / 4 * 4)?;
    let texts = std::str::from_utf8(texts).ok()?;
    let units: Vec<u32> = units.as_chunks().0.iter().map(|&unit| u32::from_le_bytes(unit)).collect();
    let mut seen = vec![false; units.len()];
    let mut open = vec![offset(*units.first()?)];
    while let Some(base) = open.pop() {
        // The next byte of a text can be any value.
        units.get(base | 0xff)?;
        for byte in 1..=0xff {
            let at = base ^ byte;
            let unit = units[at];
            if unit & (1 << 31 | 0xff) != byte as u32 || std::mem::replace(&mut seen[at], true) {
                continue;
            }
            let next = at ^ offset(unit);
            if unit & (1 << 8) != 0 {
                let leaf = units.get(next)? & !(1 << 31);
                texts.is_char_boundary(leaf as usize).then_some(())?;
            }
            open.push(next);
        }
    }
    Some(())
}
