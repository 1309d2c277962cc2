//! Times for people.

use std::time::SystemTime;

/// A time as RFC 3339, UTC.
pub fn rfc3339(time: SystemTime) -> String {
    prost_types::Timestamp::from(time).to_string()
}
