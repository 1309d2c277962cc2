//! Signals from the operator or a process manager: SIGINT (Ctrl-C) and SIGTERM to end, SIGHUP to read files again.
//!
//! From `listen` on, a signal no longer has its default action in this process, which for all three is to end it.

use std::future::Future;
use std::io;

/// Receives SIGINT and SIGTERM.
#[derive(Debug)]
pub struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    /// Starts to receive the signals. Needs a runtime.
    ///
    /// # Errors
    ///
    /// When the handlers cannot be installed.
    pub fn listen() -> io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Waits for the next signal and returns its number.
    pub async fn next(&mut self) -> u8 {
        #[cfg(unix)]
        tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
        }
        #[cfg(not(unix))]
        {
            // If the handler cannot be installed, no signal will arrive.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
            2
        }
    }
}

/// Starts to receive SIGINT and SIGTERM; the future ends with the first of them.
///
/// # Errors
///
/// When the handlers cannot be installed.
pub fn interruption() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut signals = Signals::listen()?;
    Ok(async move {
        signals.next().await;
    })
}

/// Receives SIGHUP, which asks a server to read its files again.
#[derive(Debug)]
pub struct Reloads {
    #[cfg(unix)]
    hangups: tokio::signal::unix::Signal,
}

impl Reloads {
    /// Starts to receive the signal. Needs a runtime.
    ///
    /// # Errors
    ///
    /// When the handler cannot be installed.
    pub fn listen() -> io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(Self { hangups: signal(SignalKind::hangup())? })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Waits for the next signal. Never returns on systems without SIGHUP.
    pub async fn next(&mut self) {
        #[cfg(unix)]
        if self.hangups.recv().await.is_some() {
            return;
        }
        std::future::pending::<()>().await;
    }
}
