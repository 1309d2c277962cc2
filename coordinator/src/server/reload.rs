//! Reloads certificates and tokens while the coordinator runs: on SIGHUP, and when a file has changed.
//!
//! An invalid file changes nothing: the previous ones stay in use, and the log and the metrics say so. The contents of the
//! files are `evocache_net::tokens` and `evocache_net::tls`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::gate::Gate;
use crate::ports::Clock;
use evocache_net::tls::{Expiry, Tls};
use evocache_net::tokens::Tokens;

/// The reloads of one kind of file.
#[derive(Default)]
struct Outcomes {
    /// Seconds since 1970.
    succeeded_at: AtomicU64,
    failures: AtomicU64,
    last_failed: AtomicBool,
}

/// The reloads of one kind of file, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReloadCounts {
    /// `tokens` or `certificates`.
    pub files: &'static str,
    /// The last success, in seconds since 1970; the start counts as one.
    pub succeeded_at: u64,
    /// The number of failed reloads.
    pub failures: u64,
    /// Whether the last reload failed: what is in use differs from the files.
    pub last_failed: bool,
}

struct Inner {
    tls: Option<(Tls, Vec<PathBuf>)>,
    tokens: Option<PathBuf>,
    gate: Gate,
    clock: Arc<dyn Clock>,
    tokens_read: Outcomes,
    certificates_read: Outcomes,
}

/// Reloads files. Clones share the state.
#[derive(Clone)]
pub struct Reloader(Arc<Inner>);

/// Modification time and size of each file, behind symbolic links such as those of a mounted secret.
type Stamp = Vec<Option<(SystemTime, u64)>>;

impl Reloader {
    /// A reloader of files that were just read for the first time.
    pub(crate) fn new(
        tls: Option<(Tls, Vec<PathBuf>)>,
        tokens: Option<PathBuf>,
        gate: Gate,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (tokens_read, certificates_read) = (Outcomes::default(), Outcomes::default());
        let inner = Inner { tls, tokens, gate, clock, tokens_read, certificates_read };
        inner.tokens_read.succeeded(inner.clock.as_ref());
        inner.certificates_read.succeeded(inner.clock.as_ref());
        Self(Arc::new(inner))
    }

    /// Whether there are any files.
    pub fn has_files(&self) -> bool {
        self.0.tls.is_some() || self.0.tokens.is_some()
    }

    /// Reloads all files.
    pub fn reload(&self) {
        if !self.has_files() {
            tracing::info!("SIGHUP: no tokens and no certificates are in use, so nothing is reloaded");
        }
        self.reload_tokens();
        self.reload_certificates();
    }

    /// The reloads so far, for each kind of file in use.
    pub fn read(&self) -> Vec<ReloadCounts> {
        let tokens = self.0.tokens.as_ref().map(|_| self.0.tokens_read.read("tokens"));
        let certificates = self.0.tls.as_ref().map(|_| self.0.certificates_read.read("certificates"));
        tokens.into_iter().chain(certificates).collect()
    }

    /// When the certificates in use expire.
    pub fn expiry(&self) -> Option<Expiry> {
        self.0.tls.as_ref().map(|(tls, _)| tls.expiry())
    }

    /// Looks at the files at this interval, and reloads those that have changed. Never returns.
    pub(crate) async fn watch(self, every: Duration) {
        let token_files: Vec<PathBuf> = self.0.tokens.iter().cloned().collect();
        let certificate_files = self.0.tls.as_ref().map(|(_, files)| files.clone()).unwrap_or_default();
        let mut tokens = Watched::new(&token_files);
        let mut certificates = Watched::new(&certificate_files);
        loop {
            tokio::time::sleep(every).await;
            if tokens.has_changed(&token_files) {
                self.reload_tokens();
            }
            if certificates.has_changed(&certificate_files) {
                self.reload_certificates();
            }
        }
    }

    fn reload_tokens(&self) {
        let Some(path) = &self.0.tokens else { return };
        let outcomes = &self.0.tokens_read;
        match Tokens::read(path) {
            Ok(tokens) => {
                tracing::info!(file = %path.display(), tokens = tokens.count(), "tokens reloaded");
                self.0.gate.replace(tokens);
                outcomes.succeeded(self.0.clock.as_ref());
            }
            Err(error) => {
                tracing::error!(%error, "cannot reload tokens: the previous ones stay in use");
                outcomes.failed();
            }
        }
    }

    fn reload_certificates(&self) {
        let Some((tls, _)) = &self.0.tls else { return };
        let outcomes = &self.0.certificates_read;
        match tls.reload(self.0.clock.now().0) {
            Ok(expiry) => {
                tracing::info!(ends = expiry.certificate, "certificates reloaded, for new connections");
                outcomes.succeeded(self.0.clock.as_ref());
            }
            Err(error) => {
                tracing::error!(%error, hint = error.hint(), "cannot reload certificates: the previous ones stay in use");
                outcomes.failed();
            }
        }
    }
}

impl Outcomes {
    fn succeeded(&self, clock: &dyn Clock) {
        self.succeeded_at.store(clock.now().0 / 1000, Ordering::Relaxed);
        self.last_failed.store(false, Ordering::Relaxed);
    }

    fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.last_failed.store(true, Ordering::Relaxed);
    }

    fn read(&self, files: &'static str) -> ReloadCounts {
        ReloadCounts {
            files,
            succeeded_at: self.succeeded_at.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            last_failed: self.last_failed.load(Ordering::Relaxed),
        }
    }
}

/// The files when they were last read, and at the last look.
struct Watched {
    read: Stamp,
    seen: Stamp,
}

impl Watched {
    fn new(files: &[PathBuf]) -> Self {
        let read = stamp(files);
        Self { seen: read.clone(), read }
    }

    /// Whether the files differ from those that were read and are the same at two looks: a certificate and its key are
    /// replaced one after the other.
    fn has_changed(&mut self, files: &[PathBuf]) -> bool {
        let before = std::mem::replace(&mut self.seen, stamp(files));
        let changed = self.seen != self.read && self.seen == before;
        if changed {
            self.read.clone_from(&self.seen);
        }
        changed
    }
}

fn stamp(files: &[PathBuf]) -> Stamp {
    let mut stamp = vec![];
    for file in files {
        let metadata = std::fs::metadata(file).ok();
        stamp.push(metadata.and_then(|m| Some((m.modified().ok()?, m.len()))));
    }
    stamp
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_changed_when_they_are_others_at_two_looks() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        let files = [file.clone()];
        std::fs::write(&file, "1").unwrap();
        let mut watched = Watched::new(&files);
        assert!(!watched.has_changed(&files));
        std::fs::write(&file, "22").unwrap();
        assert!(!watched.has_changed(&files), "it may be half written");
        std::fs::write(&file, "333").unwrap();
        assert!(!watched.has_changed(&files), "it is still being written");
        assert!(watched.has_changed(&files));
        assert!(!watched.has_changed(&files));
        std::fs::remove_file(&file).unwrap();
        assert!(!watched.has_changed(&files));
        assert!(watched.has_changed(&files), "a removed file is a change too");
    }
}
