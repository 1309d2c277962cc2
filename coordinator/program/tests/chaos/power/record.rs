//! Records what is asked of the disk below one folder. The functions of the C library that this file defines take the
//! place of the library's own in this test's binary, for all of Rust's standard library and for sled: they do what those
//! do, and note it. `fsync` is noted and not done, since what it promises is exactly what is to be simulated, and
//! `sync_file_range` promises nothing.
//!
//! Absent: what the store does not use (memory maps, `writev`, hard links, descriptors made by `dup`).

#![expect(unsafe_code, clippy::undocumented_unsafe_blocks, reason = "stands in for the C library, see SAFETY below")]

use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use libc::{c_char, c_int, c_uint, c_void, off64_t, size_t, ssize_t};

/// One file, whatever it is called.
pub(crate) type FileId = usize;

/// Something that was asked of the disk.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// A file that was not there before got a name.
    Create {
        file: FileId,
        name: PathBuf,
    },
    MakeFolder {
        name: PathBuf,
    },
    Write {
        file: FileId,
        at: u64,
        bytes: Vec<u8>,
    },
    Truncate {
        file: FileId,
        length: u64,
    },
    /// Of a file, or of an empty folder.
    Rename {
        file: Option<FileId>,
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        name: PathBuf,
    },
    SyncFile {
        file: FileId,
    },
    SyncFolder {
        name: PathBuf,
    },
}

impl std::fmt::Display for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Write { file, at, bytes } => write!(f, "write {} bytes at {at} of file {file}", bytes.len()),
            other => write!(f, "{other:?}"),
        }
    }
}

#[derive(Debug, Clone)]
enum Open {
    File { file: FileId, at: u64 },
    Folder(PathBuf),
}

#[derive(Default)]
struct Recorder {
    root: PathBuf,
    ops: Vec<Op>,
    names: HashMap<PathBuf, FileId>,
    files: usize,
    open: HashMap<c_int, Open>,
}

static ON: AtomicBool = AtomicBool::new(false);
static RECORDER: Mutex<Option<Recorder>> = Mutex::new(None);

fn recorder() -> MutexGuard<'static, Option<Recorder>> {
    RECORDER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins to record below this folder. The files that are there get the ids of their place in the list.
pub(crate) fn begin(root: &Path, files: &[PathBuf]) {
    let names: HashMap<_, _> = files.iter().cloned().enumerate().map(|(id, name)| (name, id)).collect();
    let new = Recorder { root: root.to_owned(), files: files.len(), names, ..Recorder::default() };
    assert!(recorder().replace(new).is_none(), "one recording at a time");
    ON.store(true, Ordering::SeqCst);
}

/// Ends it and gives what was recorded.
pub(crate) fn end() -> Vec<Op> {
    ON.store(false, Ordering::SeqCst);
    recorder().take().unwrap().ops
}

/// How much was recorded so far.
pub(crate) fn position() -> usize {
    recorder().as_ref().map_or(0, |recorder| recorder.ops.len())
}

/// Runs with the recorder if it records.
fn noting<T>(work: impl FnOnce(&mut Recorder) -> T) -> Option<T> {
    if !ON.load(Ordering::SeqCst) {
        return None;
    }
    recorder().as_mut().map(work)
}

impl Recorder {
    /// The path below the root, if it is there.
    fn below(&self, path: *const c_char) -> Option<PathBuf> {
        // SAFETY: the caller of open, rename, … gave a C string.
        let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes()));
        path.strip_prefix(&self.root).ok().map(Path::to_owned)
    }

    fn opened(&mut self, name: PathBuf, fd: c_int, flags: c_int) {
        let full = self.root.join(&name);
        if full.is_dir() {
            self.open.insert(fd, Open::Folder(name));
            return;
        }
        let file = match self.names.get(&name) {
            Some(&file) => file,
            None => {
                let file = self.files;
                self.files += 1;
                self.names.insert(name.clone(), file);
                self.ops.push(Op::Create { file, name });
                file
            }
        };
        if flags & libc::O_TRUNC != 0 {
            self.ops.push(Op::Truncate { file, length: 0 });
        }
        self.open.insert(fd, Open::File { file, at: 0 });
    }

    fn wrote(&mut self, fd: c_int, at: Option<u64>, bytes: &[u8]) {
        let Some(Open::File { file, at: cursor }) = self.open.get_mut(&fd) else { return };
        let at = at.unwrap_or_else(|| {
            let was = *cursor;
            *cursor += bytes.len() as u64;
            was
        });
        self.ops.push(Op::Write { file: *file, at, bytes: bytes.to_vec() });
    }
}

fn open_any(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the arguments are the caller's, handed on to the system as they are.
    let call =
        || unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags | libc::O_LARGEFILE, mode) as c_int };
    let noted = noting(|recorder| {
        let below = recorder.below(path);
        let fd = call();
        // A descriptor's number may be one that was recorded before it was closed.
        recorder.open.remove(&fd);
        if let Some(name) = below.filter(|_| fd >= 0) {
            recorder.opened(name, fd, flags);
        }
        fd
    });
    noted.unwrap_or_else(call)
}

// SAFETY of all that follow: they have the names, arguments and meaning of the C library's, and pass the arguments on to
// the system as they came. `open` has a variable number of arguments in C; a third one that is not there is not looked at
// by the system, and comes in a register on every platform of Linux.

#[unsafe(no_mangle)]
extern "C" fn open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    open_any(path, flags, mode)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, length: size_t) -> ssize_t {
    let call = || unsafe { libc::syscall(libc::SYS_write, fd, bytes, length) as ssize_t };
    let noted = noting(|recorder| {
        let wrote = call();
        if let Ok(length) = usize::try_from(wrote) {
            recorder.wrote(fd, None, unsafe { std::slice::from_raw_parts(bytes.cast(), length) });
        }
        wrote
    });
    noted.unwrap_or_else(call)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(fd: c_int, bytes: *const c_void, length: size_t, at: off64_t) -> ssize_t {
    let call = || unsafe { libc::syscall(libc::SYS_pwrite64, fd, bytes, length, at) as ssize_t };
    let noted = noting(|recorder| {
        let wrote = call();
        if let Ok(length) = usize::try_from(wrote) {
            recorder.wrote(fd, Some(at as u64), unsafe { std::slice::from_raw_parts(bytes.cast(), length) });
        }
        wrote
    });
    noted.unwrap_or_else(call)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn ftruncate64(fd: c_int, length: off64_t) -> c_int {
    let call = || unsafe { libc::syscall(libc::SYS_ftruncate, fd, length) as c_int };
    let noted = noting(|recorder| {
        let done = call();
        if let Some(Open::File { file, .. }) = recorder.open.get(&fd).filter(|_| done == 0) {
            let file = *file;
            recorder.ops.push(Op::Truncate { file, length: length as u64 });
        }
        done
    });
    noted.unwrap_or_else(call)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    let call = || unsafe {
        libc::syscall(libc::SYS_renameat2, libc::AT_FDCWD, from, libc::AT_FDCWD, to, 0 as c_uint) as c_int
    };
    let noted = noting(|recorder| {
        let names = recorder.below(from).zip(recorder.below(to));
        let done = call();
        if let Some((from, to)) = names.filter(|_| done == 0) {
            let file = recorder.names.remove(&from);
            if let Some(file) = file {
                recorder.names.insert(to.clone(), file);
            }
            recorder.ops.push(Op::Rename { file, from, to });
        }
        done
    });
    noted.unwrap_or_else(call)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    let call = || unsafe { libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, path, 0) as c_int };
    let noted = noting(|recorder| {
        let name = recorder.below(path);
        let done = call();
        if let Some(name) = name.filter(|_| done == 0) {
            recorder.names.remove(&name);
            recorder.ops.push(Op::Remove { name });
        }
        done
    });
    noted.unwrap_or_else(call)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mkdir(path: *const c_char, mode: c_uint) -> c_int {
    let call = || unsafe { libc::syscall(libc::SYS_mkdirat, libc::AT_FDCWD, path, mode) as c_int };
    let noted = noting(|recorder| {
        let name = recorder.below(path);
        let done = call();
        if let Some(name) = name.filter(|_| done == 0) {
            recorder.ops.push(Op::MakeFolder { name });
        }
        done
    });
    noted.unwrap_or_else(call)
}

fn sync_any(fd: c_int, call: impl Fn() -> c_int) -> c_int {
    let noted = noting(|recorder| {
        let op = match recorder.open.get(&fd)? {
            Open::File { file, .. } => Op::SyncFile { file: *file },
            Open::Folder(name) => Op::SyncFolder { name: name.clone() },
        };
        recorder.ops.push(op);
        Some(0)
    });
    noted.flatten().unwrap_or_else(call)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    sync_any(fd, || unsafe { libc::syscall(libc::SYS_fsync, fd) as c_int })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    sync_any(fd, || unsafe { libc::syscall(libc::SYS_fdatasync, fd) as c_int })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn close(fd: c_int) -> c_int {
    noting(|recorder| recorder.open.remove(&fd));
    unsafe { libc::syscall(libc::SYS_close, fd) as c_int }
}
