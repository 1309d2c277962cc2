//! Lists in pages.

use super::error::ClientError;

/// Fetches all pages of a list.
pub(super) async fn all_pages<T>(
    call: &'static str,
    mut fetch: impl AsyncFnMut(String) -> Result<(Vec<T>, String), ClientError>,
) -> Result<Vec<T>, ClientError> {
    let mut all = vec![];
    let mut token = String::new();
    loop {
        let (mut page, next) = fetch(token.clone()).await?;
        all.append(&mut page);
        if next.is_empty() {
            return Ok(all);
        }
        if next == token {
            // Otherwise a coordinator that repeats a token would never end the list.
            return Err(ClientError::Malformed { call, problem: format!("page token '{next}' comes twice") });
        }
        token = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pages_are_joined_and_a_loop_is_noticed() {
        let pages = async |token: String| {
            Ok(match token.as_str() {
                "" => (vec![1, 2], "b".to_owned()),
                "b" => (vec![], "c".to_owned()),
                _ => (vec![3], String::new()),
            })
        };
        assert_eq!(all_pages("List", pages).await.ok(), Some(vec![1, 2, 3]));
        let same = async |_| Ok((vec![0], "x".to_owned()));
        assert!(matches!(all_pages("List", same).await, Err(ClientError::Malformed { .. })));
    }
}
