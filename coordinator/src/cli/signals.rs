//! Being asked to end: Ctrl-C, or SIGTERM from a supervisor. And, for a server, to read its files again: SIGHUP.

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

/// Being asked to read files again. SIGHUP ends no server: where there is nothing to read, the log says so.
#[derive(Debug)]
pub struct Reloads {
    #[cfg(unix)]
    hangups: tokio::signal::unix::Signal,
}

impl Reloads {
    /// Starts to listen now.
    pub fn listen() -> io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(Self { hangups: signal(SignalKind::hangup())? })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Waits to be asked; for ever, where nobody can ask.
    pub async fn next(&mut self) {
        #[cfg(unix)]
        if self.hangups.recv().await.is_some() {
            return;
        }
        std::future::pending::<()>().await;
    }
}
