//! Bounds that nobody has to set.

use std::time::Duration;

/// Bytes of a request's body: twice the longest prompts, in which every character may be escaped, would be more, but a
/// prompt of mostly control characters is none.
pub(super) const BODY: usize = 64 << 10;
/// How long a client may take to send a body.
pub(super) const BODY_TIME: Duration = Duration::from_secs(10);
/// How long a client may take to send the head of a request, and how long a connection may be idle.
pub(super) const HEAD_TIME: Duration = Duration::from_secs(15);
/// Bytes of a request's head.
pub(super) const HEAD: usize = 32 << 10;
/// How long a client may not read, while there is something to read.
pub(super) const UNREAD: Duration = Duration::from_secs(30);
/// The longest deadline.
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Longest wait after a failed accept.
pub(super) const PAUSE: Duration = Duration::from_millis(50);
