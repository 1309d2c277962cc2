//! Pages: they end before they are too large for a client with gRPC's default limit. And their tokens: opaque to callers,
//! the position of the next row to us.

use evocache_proto::domain::SearchUid;
use prost::Message;
use tonic::Status;

use super::{limits, status};

/// A page that fills up with rows.
pub(super) struct Page<M> {
    rows: Vec<M>,
    bytes: usize,
}

impl<M: Message> Page<M> {
    /// An empty one, in an answer that has so many bytes already.
    pub(super) fn beside(bytes: usize) -> Self {
        Self { rows: vec![], bytes }
    }

    /// As many of these as it holds; no more are made.
    pub(super) fn of(rows: impl Iterator<Item = M>) -> Vec<M> {
        let mut page = Self::beside(0);
        for row in rows {
            if !page.push(row) {
                break;
            }
        }
        page.rows
    }

    /// Whether the row still had room. The first one always has, so that every page goes on.
    pub(super) fn push(&mut self, row: M) -> bool {
        self.bytes += row.encoded_len();
        let fits = self.bytes <= limits::PAGE_BYTES || self.rows.is_empty();
        if fits {
            self.rows.push(row);
        }
        fits
    }

    pub(super) fn rows(self) -> Vec<M> {
        self.rows
    }
}

/// As many of these rows as a page holds without their pictures; no more are made.
pub(super) fn filled<M: Message, K>(rows: impl Iterator<Item = (M, K)>) -> Vec<(M, K)> {
    let mut bytes = 0;
    let fits = |(row, _): &(M, K)| {
        let is_first = bytes == 0;
        bytes += row.encoded_len().max(1);
        is_first || bytes <= limits::PAGE_BYTES
    };
    rows.take_while(fits).collect()
}

/// The position that a token stands for; the first row for an empty one.
pub(super) fn position(token: &str) -> Result<usize, Status> {
    if token.is_empty() {
        return Ok(0);
    }
    let position = token.strip_prefix("p1-").and_then(|digits| usize::from_str_radix(digits, 36).ok());
    position.ok_or_else(foreign)
}

/// The token of a position, or the empty one when there is no such row.
pub(super) fn token(position: usize, rows: usize) -> String {
    if position >= rows { String::new() } else { format!("p1-{}", base36(position)) }
}

/// The position in what a search has that a token stands for. The token of a search that had this id before is not one.
pub(super) fn position_in(search: &SearchUid, token: &str) -> Result<usize, Status> {
    match token.rsplit_once('~') {
        Some((position, uid)) if uid == search.as_str() => self::position(position),
        Some(_) => Err(status::invalid("page_token", "is of a search that had this id before; begin without one")),
        None if token.is_empty() => Ok(0),
        None => Err(foreign()),
    }
}

/// The token of a position in what a search has.
pub(super) fn token_in(search: &SearchUid, position: usize, rows: usize) -> String {
    let token = token(position, rows);
    if token.is_empty() { token } else { format!("{token}~{search}") }
}

fn foreign() -> Status {
    status::invalid("page_token", "is not one that this coordinator gave")
}

fn base36(mut n: usize) -> String {
    let mut digits = vec![];
    loop {
        digits.push(char::from_digit((n % 36) as u32, 36).unwrap_or('0'));
        n /= 36;
        if n == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_before_it_is_too_large_and_goes_on_all_the_same() {
        let mut made = 0;
        let mut rows = |bytes: usize| {
            let row = evocache_proto::pb::GetSearchRequest { search_id: "x".repeat(bytes) };
            filled(std::iter::repeat_n(row, 1000).inspect(|_| made += 1).map(|row| (row, ()))).len()
        };
        assert_eq!([rows(10), rows(limits::PAGE_BYTES / 10), rows(2 * limits::PAGE_BYTES)], [1000, 9, 1]);
        assert_eq!(made, 1000 + 10 + 2);
        let large = evocache_proto::pb::GetSearchRequest { search_id: "x".repeat(limits::PAGE_BYTES / 2) };
        assert_eq!(Page::of(std::iter::repeat_n(large.clone(), 9)).len(), 1);
        let mut beside = Page::beside(limits::PAGE_BYTES);
        assert!(beside.push(large.clone()) && !beside.push(large), "every page has a row");
    }

    #[test]
    fn tokens_come_back_as_positions_and_end_with_the_rows() {
        for n in [1, 35, 36, 99_999] {
            assert_eq!(position(&token(n, usize::MAX)).unwrap(), n);
        }
        assert_eq!(token(10, 10), "");
        assert_eq!(position("").unwrap(), 0);
        assert!(position("7").is_err());
    }

    #[test]
    fn a_token_of_a_search_is_none_of_another_that_has_its_id() {
        let [old, new] = ["1", "2"].map(|uid| SearchUid::new(uid).unwrap());
        let token = token_in(&old, 7, 9);
        assert_eq!(position_in(&old, &token).unwrap(), 7);
        assert!(position_in(&new, &token).unwrap_err().message().contains("before"));
        assert_eq!(position_in(&new, "").unwrap(), 0);
        assert_eq!(token_in(&old, 9, 9), "");
        assert!(position_in(&old, &self::token(7, 9)).is_err(), "of a list of searches");
        assert!(position(&token).is_err());
    }
}
