//! Pages and their tokens. A page is never too large for a client with gRPC's default limit. A token is opaque to callers; it
//! contains the position of the next row.

use std::hash::{DefaultHasher, Hash, Hasher};

use evocache_proto::domain::{CandidateId, SearchUid};
use evocache_proto::wire::Reason;
use prost::Message;
use tonic::Status;

use crate::server::{limits, status};

/// A page to be filled with rows.
pub(super) struct Page<M> {
    rows: Vec<M>,
    bytes: usize,
}

impl<M: Message> Page<M> {
    /// An empty page in an answer that has this many bytes already.
    pub(super) fn beside(bytes: usize) -> Self {
        Self { rows: vec![], bytes }
    }

    /// As many rows as a page holds; no further rows are made.
    pub(super) fn of(rows: impl Iterator<Item = M>) -> Vec<M> {
        let mut page = Self::beside(0);
        for row in rows {
            if !page.push(row) {
                break;
            }
        }
        page.rows
    }

    /// Adds a row if it fits, and returns whether it did. The first row always fits, so that every page makes progress.
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

/// As many rows as a page holds without thumbnails; no further rows are made.
pub(super) fn filled<M: Message, K>(rows: impl Iterator<Item = (M, K)>) -> Vec<(M, K)> {
    let mut bytes = 0;
    let fits = |(row, _): &(M, K)| {
        let is_first = bytes == 0;
        bytes += row.encoded_len().max(1);
        is_first || bytes <= limits::PAGE_BYTES
    };
    rows.take_while(fits).collect()
}

/// A list of rows that is read in pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct List {
    kind: char,
    /// What the list contains, and for rows that change places, their order.
    of: String,
}

impl List {
    pub(super) fn of_searches() -> Self {
        Self { kind: 's', of: String::new() }
    }

    pub(super) fn of_workers() -> Self {
        Self { kind: 'w', of: String::new() }
    }

    /// The evaluations of a search, which never change places.
    pub(super) fn of_evaluations(search: &SearchUid) -> Self {
        Self { kind: 'e', of: search.to_string() }
    }

    /// The front of a search: these candidates in this order.
    pub(super) fn of_front(search: &SearchUid, candidates: impl Iterator<Item = CandidateId>) -> Self {
        let mut hash = DefaultHasher::new();
        candidates.for_each(|candidate| candidate.hash(&mut hash));
        Self { kind: 'f', of: format!("{search}.{:x}", hash.finish()) }
    }

    /// The position of a token's row; the first row for an empty token.
    pub(super) fn position(&self, token: &str) -> Result<usize, Status> {
        if token.is_empty() {
            return Ok(0);
        }
        let foreign = || status::invalid("page_token", "is not a token of this list");
        let (position, of) = token.strip_prefix("p1-").and_then(|rest| rest.split_once('~')).ok_or_else(foreign)?;
        let digits =
            position.strip_prefix(self.kind).filter(|digits| digits.bytes().all(|b| b.is_ascii_alphanumeric()));
        let position = digits.and_then(|digits| usize::from_str_radix(digits, 36).ok()).ok_or_else(foreign)?;
        let search = |of: &str| of.split('.').next().map(str::to_owned);
        match (of == self.of, search(of) == search(&self.of)) {
            (true, _) => Ok(position),
            (false, true) => Err(list_changed()),
            (false, false) => {
                Err(status::invalid("page_token", "is of a search that had this id before; begin without a token"))
            }
        }
    }

    /// The token of a position; empty if the list has no such row.
    pub(super) fn token(&self, position: usize, rows: usize) -> String {
        let Self { kind, of } = self;
        if position >= rows { String::new() } else { format!("p1-{kind}{}~{of}", base36(position)) }
    }
}

/// The rows of the list have changed places since the previous page.
fn list_changed() -> Status {
    let text = "the list has changed since the previous page: begin without page_token";
    status::with(Reason::ListChanged, text, &[])
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
        let list = List::of_workers();
        for n in [1, 35, 36, 99_999] {
            assert_eq!(list.position(&list.token(n, usize::MAX)).unwrap(), n);
        }
        assert_eq!(list.token(10, 10), "");
        assert_eq!(list.position("").unwrap(), 0);
        for wrong in ["7", "p1-7", "p1-w+1~", "p1-w~", "p1-wzzzzzzzzzzzzzzz~"] {
            assert!(list.position(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_goes_on_with_no_other_list() {
        let [old, new] = ["1", "2"].map(|uid| SearchUid::new(uid).unwrap());
        let front = |uid: &SearchUid, ids: &[u64]| List::of_front(uid, ids.iter().map(|&id| CandidateId(id)));
        let lists = [
            List::of_searches(),
            List::of_workers(),
            List::of_evaluations(&old),
            List::of_evaluations(&new),
            front(&old, &[1, 2]),
            front(&old, &[2, 1]),
            front(&new, &[1, 2]),
        ];
        for (i, list) in lists.iter().enumerate() {
            let token = list.token(7, 9);
            for (j, other) in lists.iter().enumerate() {
                assert_eq!(other.position(&token).is_ok(), i == j, "{token} for {other:?}");
            }
        }
        let changed = lists[5].position(&lists[4].token(1, 2)).unwrap_err();
        assert_eq!(changed.code(), tonic::Code::Aborted);
        assert!(lists[3].position(&lists[2].token(1, 2)).unwrap_err().message().contains("before"));
    }
}
