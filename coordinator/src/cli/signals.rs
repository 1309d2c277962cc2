//! Being asked to end: Ctrl-C, or SIGTERM from a supervisor.

use std::future::Future;
use std::io;

/// Starts to listen now; the future ends when the process is asked to end.
///
/// From this call on the signals no longer kill the process by themselves.
#[cfg(unix)]
pub fn interruption() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Starts to listen now; the future ends when the process is asked to end.
#[cfg(not(unix))]
pub fn interruption() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    Ok(async {
        // Without a handler there is nothing to wait for.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
