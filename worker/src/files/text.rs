//! Reads whole files of limited size. Strips the byte-order mark that editors on Windows write at the start of a text.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result};
use std::path::Path;

use evocache_proto::text::without_mark;

/// Size limit in bytes, far above any config, tokenizer, schedule or list of prompts.
const LARGEST: u64 = 256 << 20;

/// Reads the bytes of a file.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Error::new(ErrorKind::InvalidData, format!("larger than {LARGEST} bytes")));
    }
    Ok(bytes)
}

/// Reads the text of a file, which must be UTF-8.
pub fn read(path: &Path) -> Result<String> {
    let text = String::from_utf8(read_bytes(path)?)
        .map_err(|e| Error::new(ErrorKind::InvalidData, format!("not UTF-8 text: {e}")))?;
    Ok(without_mark(&text).to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_mark_is_taken_off_the_front_and_only_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            super::read(&path)
        };
        assert_eq!(read(b"\xef\xbb\xbfan owl").unwrap(), "an owl");
        assert_eq!(read("a\u{feff}b".as_bytes()).unwrap(), "a\u{feff}b");
        assert_eq!(read(b"").unwrap(), "");
        // UTF-16, which Windows editors call Unicode.
        assert!(read(b"\xff\xfea\0").unwrap_err().to_string().starts_with("not UTF-8 text"));
    }
}
