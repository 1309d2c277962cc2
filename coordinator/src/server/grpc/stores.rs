//! StoreService: a backup of the store, while everything goes on.
//!
//! A thread of its own reads the store. It waits for the caller only, and ends with the call: when the caller hangs up or
//! reads nothing for too long, or when the coordinator stops. The format of a backup is the store's.

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use evocache_proto::pb;
use evocache_proto::pb::store_service_server::StoreService;
use evocache_proto::wire::Reason;
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::services::Services;
use crate::engine::Refusal;
use crate::ports::BackupError;
use crate::server::gate::Caller;
use crate::server::{limits, status};

pub(super) struct Stores(pub(super) Services);

/// Records read so far, and all records.
#[derive(Default)]
struct Count {
    done: AtomicU64,
    records: AtomicU64,
}

/// The destination of a backup: the caller, piece by piece.
struct Pieces {
    sender: Sender<pb::BackUpStoreResponse>,
    runtime: Handle,
    patience: Duration,
    piece: Vec<u8>,
    count: Arc<Count>,
}

impl Pieces {
    /// Waits until the caller reads the piece, for as long as for any answer.
    fn send(&mut self) -> io::Result<()> {
        let message = pb::BackUpStoreResponse {
            piece: std::mem::take(&mut self.piece).into(),
            done: self.count.done.load(Relaxed),
            records: self.count.records.load(Relaxed),
        };
        self.runtime.block_on(self.sender.send_timeout(message, self.patience)).map_err(|e| match e {
            SendTimeoutError::Timeout(_) => io::ErrorKind::TimedOut.into(),
            SendTimeoutError::Closed(_) => io::ErrorKind::BrokenPipe.into(),
        })
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.piece.is_empty() && self.piece.len() + bytes.len() > limits::PIECE {
            self.send()?;
        }
        let taken = bytes.len().min(limits::PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() { Ok(()) } else { self.send() }
    }
}

/// A running backup.
struct Backup {
    pieces: Receiver<pb::BackUpStoreResponse>,
    /// `None` after its outcome was sent.
    task: Option<JoinHandle<Result<(), BackupError>>>,
    services: Services,
}

impl Backup {
    async fn next(mut self) -> Option<(Result<pb::BackUpStoreResponse, Status>, Self)> {
        let piece = tokio::select! {
            piece = self.pieces.recv() => piece.map(Ok),
            () = self.services.stopped() => {
                self.pieces.close();
                self.task = None;
                return Some((Err(status::stopping()), self));
            }
        };
        let message = match piece {
            Some(piece) => piece,
            None => match self.task.take()?.await {
                Ok(Ok(())) => return None,
                Ok(Err(error)) => Err(refused(error)),
                Err(error) => Err(status::internal(&error.to_string())),
            },
        };
        Some((message, self))
    }
}

fn refused(error: BackupError) -> Status {
    match error {
        BackupError::Store(error) => status::refusal(Refusal::Store(error)),
        BackupError::Busy => status::with(Reason::BackupRunning, error, &[]),
        BackupError::Overtaken(_) => status::with(Reason::BackupOvertaken, error, &[]),
        BackupError::Untaken(_) => status::not_read(),
    }
}

#[tonic::async_trait]
impl StoreService for Stores {
    type BackUpStoreStream = Pin<Box<dyn Stream<Item = Result<pb::BackUpStoreResponse, Status>> + Send>>;

    async fn back_up_store(
        &self,
        message: Request<pb::BackUpStoreRequest>,
    ) -> Result<Response<Self::BackUpStoreStream>, Status> {
        let (caller, pb::BackUpStoreRequest {}) = Caller::of(message)?;
        caller.about("store");
        let (sender, pieces) = channel(limits::BACKUP_PIECES);
        let (engine, runtime, count) = (self.0.engine.clone(), Handle::current(), Arc::new(Count::default()));
        let task = spawn_blocking(move || {
            let patience = limits::UNREAD;
            let mut out = Pieces { sender, runtime, patience, piece: vec![], count: count.clone() };
            let made = engine.back_up(&mut out, &mut |done, records| {
                count.done.store(done, Relaxed);
                count.records.store(records, Relaxed);
            });
            let taken = made.and_then(|()| out.flush().map_err(BackupError::Untaken));
            // The audit log has the start of the call; this is its outcome.
            match &taken {
                Ok(()) => tracing::info!(records = count.records.load(Relaxed), "store backed up"),
                Err(error) => tracing::warn!(%error, done = count.done.load(Relaxed), "no backup was made"),
            }
            taken
        });
        let backup = Backup { pieces, task: Some(task), services: self.0.clone() };
        Ok(Response::new(Box::pin(futures::stream::unfold(backup, Backup::next))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_backup_that_nobody_takes_is_given_up() {
        let (sender, pieces) = channel(limits::BACKUP_PIECES);
        let (runtime, patience) = (Handle::current(), Duration::from_millis(1));
        let mut out = Pieces { sender, runtime, patience, piece: vec![], count: Arc::default() };
        let written = spawn_blocking(move || {
            let mut written = 0;
            loop {
                match out.write(&[7; 1000]) {
                    Ok(bytes) => written += bytes,
                    Err(error) => return (written, error.kind()),
                }
            }
        });
        let (written, kind) = written.await.unwrap();
        assert_eq!(
            (written, kind),
            ((limits::BACKUP_PIECES + 1) * (limits::PIECE / 1000 * 1000), io::ErrorKind::TimedOut)
        );
        drop(pieces);
    }
}
