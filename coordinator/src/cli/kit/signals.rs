//! Signals: Ctrl-C and SIGTERM end a command, SIGHUP makes a server reload its files.

use std::future::Future;
use std::io;

/// Listens for Ctrl-C and SIGTERM from this call on; the future completes when one arrives.
///
/// After this call, the signals no longer kill the process by themselves.
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

/// Listens for Ctrl-C from this call on; the future completes when it arrives.
#[cfg(not(unix))]
pub fn interruption() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    Ok(async {
        // Without a handler, the signal can never be seen.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

/// Requests to reload files. SIGHUP never ends a server: if it has no files to reload, the log says so.
#[derive(Debug)]
pub struct Reloads {
    #[cfg(unix)]
    hangups: tokio::signal::unix::Signal,
}

impl Reloads {
    /// Listens for SIGHUP from this call on.
    pub fn listen() -> io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(Self { hangups: signal(SignalKind::hangup())? })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Waits for the next request; on systems without SIGHUP, forever.
    pub async fn next(&mut self) {
        #[cfg(unix)]
        if self.hangups.recv().await.is_some() {
            return;
        }
        std::future::pending::<()>().await;
    }
}
