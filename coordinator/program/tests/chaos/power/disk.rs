//! What is left on a disk after a power cut, given what was asked of it until then.
//!
//! What was synced is there. Of the rest, anything may be: each page of a file is any version that it has had since, or
//! the files are as at some earlier moment; names are those of some earlier moment, or any of the changes to them have
//! been made and others not. That is what POSIX allows. File systems promise more, each something else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use evocache_domain::rng::Stream;

use super::record::{FileId, Op};

/// The unit of what the disk keeps or forgets.
const PAGE: usize = 4096;

#[derive(Debug, Clone, Default)]
struct File {
    synced: Vec<u8>,
    /// Writes and truncations since.
    since: Vec<Op>,
}

/// A disk, and what is on its way to it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    files: BTreeMap<FileId, File>,
    names: BTreeMap<PathBuf, FileId>,
    folders: BTreeSet<PathBuf>,
    /// Changes to names since their folders were synced.
    naming: Vec<Op>,
}

impl Disk {
    /// A disk with what is in a folder, all of it synced; and the names in the order of their ids.
    pub(crate) fn of(folder: &Path) -> (Self, Vec<PathBuf>) {
        let mut disk = Self::default();
        let mut files = vec![];
        let mut folders = vec![PathBuf::new()];
        while let Some(within) = folders.pop() {
            for entry in std::fs::read_dir(folder.join(&within)).unwrap() {
                let entry = entry.unwrap();
                let name = within.join(entry.file_name());
                if entry.file_type().unwrap().is_dir() {
                    disk.folders.insert(name.clone());
                    folders.push(name);
                } else {
                    let synced = std::fs::read(entry.path()).unwrap();
                    disk.files.insert(files.len(), File { synced, since: vec![] });
                    disk.names.insert(name.clone(), files.len());
                    files.push(name);
                }
            }
        }
        (disk, files)
    }

    /// Something more is asked of it.
    pub(crate) fn ask(&mut self, op: &Op) {
        match op {
            Op::Write { file, .. } | Op::Truncate { file, .. } => {
                self.files.entry(*file).or_default().since.push(op.clone());
            }
            Op::SyncFile { file } => {
                let file = self.files.entry(*file).or_default();
                for op in std::mem::take(&mut file.since) {
                    apply(&mut file.synced, &op);
                }
            }
            Op::Create { .. } | Op::MakeFolder { .. } | Op::Rename { .. } | Op::Remove { .. } => {
                self.naming.push(op.clone());
            }
            Op::SyncFolder { name } => {
                let naming = std::mem::take(&mut self.naming);
                let (synced, rest) = naming.into_iter().partition(|op| folder_of(op) == Some(name.as_path()));
                self.naming = rest;
                for op in synced {
                    rename(&mut self.names, &mut self.folders, &op);
                }
            }
        }
    }

    /// The power is cut: writes what is left into an empty folder.
    pub(crate) fn cut(&self, into: &Path, chance: &mut Stream) {
        let (mut names, mut folders) = (self.names.clone(), self.folders.clone());
        let kept = keep(self.naming.len(), chance);
        for (op, _) in self.naming.iter().zip(kept).filter(|(_, kept)| *kept) {
            rename(&mut names, &mut folders, op);
        }
        for folder in &folders {
            std::fs::create_dir_all(into.join(folder)).unwrap();
        }
        let in_order = chance.chance(0.4);
        for (name, id) in &names {
            let nothing = File::default();
            let file = self.files.get(id).unwrap_or(&nothing);
            let bytes = if in_order { prefix(file, chance) } else { pages(file, chance) };
            let path = into.join(name);
            // A name can outlive the folder that it is in only in a model: without the folder it cannot be reached.
            if path.parent().is_some_and(Path::is_dir) {
                std::fs::write(path, bytes).unwrap();
            }
        }
    }
}

fn folder_of(op: &Op) -> Option<&Path> {
    match op {
        Op::Create { name, .. } | Op::MakeFolder { name } | Op::Remove { name } | Op::Rename { to: name, .. } => {
            name.parent()
        }
        Op::Write { .. } | Op::Truncate { .. } | Op::SyncFile { .. } | Op::SyncFolder { .. } => None,
    }
}

/// Which of so many changes were made: those up to some moment, or any of them.
fn keep(changes: usize, chance: &mut Stream) -> Vec<bool> {
    let (in_order, until) = (chance.chance(0.5), chance.below(changes + 1));
    (0..changes).map(|i| if in_order { i < until } else { chance.chance(0.5) }).collect()
}

fn rename(names: &mut BTreeMap<PathBuf, FileId>, folders: &mut BTreeSet<PathBuf>, op: &Op) {
    match op {
        Op::Create { file, name } => drop(names.insert(name.clone(), *file)),
        Op::MakeFolder { name } => drop(folders.insert(name.clone())),
        Op::Rename { file, from, to } => match file {
            Some(file) => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
            None => {
                folders.remove(from);
                folders.insert(to.clone());
            }
        },
        Op::Remove { name } => drop(names.remove(name)),
        Op::Write { .. } | Op::Truncate { .. } | Op::SyncFile { .. } | Op::SyncFolder { .. } => {}
    }
}

fn apply(bytes: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Write { at, bytes: new, .. } => {
            let at = usize::try_from(*at).unwrap();
            bytes.resize(bytes.len().max(at + new.len()), 0);
            bytes[at..at + new.len()].copy_from_slice(new);
        }
        Op::Truncate { length, .. } => bytes.resize(usize::try_from(*length).unwrap(), 0),
        _ => {}
    }
}

/// The file as it was after some of the changes.
fn prefix(file: &File, chance: &mut Stream) -> Vec<u8> {
    let until = chance.below(file.since.len() + 1);
    let mut bytes = file.synced.clone();
    file.since[..until].iter().for_each(|op| apply(&mut bytes, op));
    bytes
}

/// Each page as it was after some of the changes, and the length that the file had after some of them.
fn pages(file: &File, chance: &mut Stream) -> Vec<u8> {
    let mut versions: BTreeMap<usize, Vec<Vec<u8>>> = BTreeMap::new();
    let mut lengths = vec![file.synced.len()];
    let mut now = file.synced.clone();
    let page = |bytes: &[u8], page: usize| -> Vec<u8> {
        let from = (page * PAGE).min(bytes.len());
        bytes[from..(from + PAGE).min(bytes.len())].to_vec()
    };
    for op in &file.since {
        apply(&mut now, op);
        lengths.push(now.len());
        if let Op::Write { at, bytes, .. } = op {
            let at = usize::try_from(*at).unwrap();
            for number in at / PAGE..(at + bytes.len()).div_ceil(PAGE) {
                versions.entry(number).or_default().push(page(&now, number));
            }
        }
    }
    let length = lengths[chance.below(lengths.len())];
    let mut left = file.synced.clone();
    left.resize(length, 0);
    for (number, versions) in versions {
        let Some(version) = chance.below(versions.len() + 1).checked_sub(1) else { continue };
        let from = number * PAGE;
        let bytes = &versions[version];
        if from < length {
            let to = (from + bytes.len()).min(length);
            left[from..to].copy_from_slice(&bytes[..to - from]);
        }
    }
    left
}
