//! Page tokens: opaque to callers, the position of the next row to us.

use tonic::Status;

use super::status;

/// The position that a token stands for; the first row for an empty one.
pub(super) fn position(token: &str) -> Result<usize, Status> {
    if token.is_empty() {
        return Ok(0);
    }
    let position = token.strip_prefix("p1-").and_then(|digits| usize::from_str_radix(digits, 36).ok());
    position.ok_or_else(|| status::invalid("page_token", "is not one that this coordinator gave"))
}

/// The token of a position, or the empty one when there is no such row.
pub(super) fn token(position: usize, rows: usize) -> String {
    if position >= rows { String::new() } else { format!("p1-{}", base36(position)) }
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
    fn tokens_come_back_as_positions_and_end_with_the_rows() {
        for n in [1, 35, 36, 99_999] {
            assert_eq!(position(&token(n, usize::MAX)).unwrap(), n);
        }
        assert_eq!(token(10, 10), "");
        assert_eq!(position("").unwrap(), 0);
        assert!(position("7").is_err());
    }
}
