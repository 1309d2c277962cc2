//! Why a coordinator does not start or cannot go on.

use std::net::SocketAddr;

use evocache_net::credentials::CredentialError;

use crate::engine::{EngineError, EnginePanic};
use crate::ports::StoreError;
use crate::store::{LOSS_HINT, RESTORE_HINT, format_hint};
use evocache_net::tokens::TokensError;

/// Why a coordinator does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is in use, or not an address of this machine.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The address is reachable from other machines, and TLS is off.
    #[error("{0} is reachable from other machines, and this coordinator does not encrypt")]
    Plaintext(SocketAddr),
    /// A certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] CredentialError),
    /// The token file cannot be used.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(StoreError),
    /// The engine cannot start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The gRPC services cannot be described for reflection.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The fault that a test requests cannot be parsed.
    #[cfg(faults)]
    #[error(transparent)]
    Fault(#[from] crate::faults::FaultError),
}

impl ServeError {
    /// The way out, if there is an obvious one.
    pub fn hint(&self) -> Option<String> {
        let store = match self {
            Self::Listen { source, address } if source.kind() == std::io::ErrorKind::AddrInUse => {
                return Some(format!(
                    "another program (perhaps another coordinator) listens on port {}; choose another port, or any free \
                     one with {}:0 for --listen or --http",
                    address.port(),
                    address.ip()
                ));
            }
            Self::Plaintext(_) => {
                return Some(
                    "encrypt with --tls-cert and --tls-key, listen on 127.0.0.1 and use a tunnel, or pass \
                     --allow-remote-plaintext on a network you trust"
                        .into(),
                );
            }
            Self::Tls(e) => return Some(e.hint().to_owned()),
            Self::Tokens(_) => return Some("`evocache token new` prints an entry for the file".into()),
            Self::Listen { .. } | Self::Reflection(_) => return None,
            #[cfg(faults)]
            Self::Fault(_) => return None,
            Self::Store(e) | Self::Engine(EngineError::Store(e)) => e,
            Self::Engine(EngineError::Inconsistent(_)) => return Some(RESTORE_HINT.into()),
            Self::Engine(EngineError::Thread(_)) => return None,
        };
        match store {
            StoreError::Locked { .. } => {
                Some("stop the other coordinator, or give this one another --data folder".into())
            }
            StoreError::Foreign { .. } => Some("give an empty or new folder with --data".into()),
            StoreError::Version { found, supported, .. } => Some(format_hint(*found, *supported).into()),
            StoreError::Corrupt { .. } | StoreError::Torn { .. } => Some(
                "restore a backup into an empty folder with `evocache store restore`, or give another --data folder"
                    .into(),
            ),
            StoreError::Lost { .. } | StoreError::Unmarked { .. } => Some(LOSS_HINT.into()),
            StoreError::SetAside { path, aside } => Some(format!("rename {aside} to {path}")),
            StoreError::Failed(_) => Some("check the free space and the permissions of the --data folder".into()),
        }
    }
}

/// Why a running coordinator cannot go on. Whatever it acknowledged is on disk.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// The engine panicked.
    #[error(transparent)]
    Engine(#[from] EnginePanic),
    /// The gRPC server has ended, so no calls are taken.
    #[error("the gRPC server ended: {0}")]
    Server(String),
}
