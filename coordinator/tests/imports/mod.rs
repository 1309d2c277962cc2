//! Reads the imports of a crate: which file names which other file, and which packages it names.
//!
//! Reads text, not types: comments and strings are taken out, and every path that begins with `crate`, `super`, `self` or the
//! name of a package is resolved, in `use` lines and in code. A name that a `mod.rs` or `lib.rs` re-exports counts as the file
//! that defines it; a `mod` line is no import.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A crate's files and what they name.
pub(crate) struct Crate {
    /// As it stands in paths, such as `evocache_proto`.
    pub(crate) name: String,
    /// By path relative to `src`, such as `engine/decide.rs`.
    pub(crate) files: BTreeMap<String, Named>,
}

/// What a file names.
#[derive(Default)]
pub(crate) struct Named {
    /// Files of its own crate.
    pub(crate) files: BTreeSet<String>,
    /// Files that only its unit tests name.
    pub(crate) tests_files: BTreeSet<String>,
    /// Other packages, as they stand in paths.
    pub(crate) packages: BTreeSet<String>,
    /// Packages that only its unit tests name.
    pub(crate) tests_packages: BTreeSet<String>,
}

/// A crate at `folder` that may name these packages.
pub(crate) fn read(name: &str, folder: &Path, packages: &BTreeSet<String>) -> Crate {
    let source = folder.join("src");
    let paths = files(&source);
    let modules: BTreeMap<Vec<String>, String> = paths
        .iter()
        .map(|path| {
            let relative = path.strip_prefix(&source).unwrap().to_string_lossy().into_owned();
            (module_of(&relative), relative)
        })
        .collect();
    let texts: BTreeMap<String, String> = paths
        .iter()
        .zip(paths.iter())
        .map(|(path, _)| {
            let relative = path.strip_prefix(&source).unwrap().to_string_lossy().into_owned();
            (relative, code(&std::fs::read_to_string(path).unwrap()))
        })
        .collect();
    let exports = re_exports(&modules, &texts);
    let files =
        texts.iter().map(|(file, text)| (file.clone(), named(file, text, &modules, &exports, packages))).collect();
    Crate { name: name.to_owned(), files }
}

/// The groups of files that import each other, directly or in a circle.
pub(crate) fn circles(of: &Crate) -> Vec<Vec<String>> {
    let reaches: BTreeMap<&String, BTreeSet<String>> = of
        .files
        .keys()
        .map(|file| {
            let (mut seen, mut open) = (BTreeSet::new(), vec![file.clone()]);
            while let Some(at) = open.pop() {
                for next in of.files.get(&at).into_iter().flat_map(|named| &named.files) {
                    if seen.insert(next.clone()) {
                        open.push(next.clone());
                    }
                }
            }
            (file, seen)
        })
        .collect();
    let mut found: BTreeSet<Vec<String>> = BTreeSet::new();
    for (file, reached) in &reaches {
        if reached.contains(*file) {
            let both = |other: &&String| reaches[*other].contains(*file);
            found.insert(reached.iter().filter(both).cloned().collect());
        }
    }
    found.into_iter().collect()
}

/// Every source file below a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut paths = vec![];
    sources(folder, &mut paths);
    paths
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// Whether a whole file is compiled for unit tests only, by its name.
pub(crate) fn is_of_tests(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.ends_with("_tests.rs") || matches!(name, "tests.rs" | "testing.rs" | "samples.rs")
}

/// `engine/decide.rs` is `[engine, decide]`; `lib.rs` is the root; `decide_tests.rs` is `[decide, tests]`.
fn module_of(relative: &str) -> Vec<String> {
    let mut parts: Vec<String> = relative.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    match parts.last().map(String::as_str) {
        Some("mod" | "lib" | "main") => drop(parts.pop()),
        Some(last) => {
            if let Some(tested) = last.strip_suffix("_tests").map(str::to_owned) {
                parts.pop();
                parts.extend([tested, "tests".to_owned()]);
            }
        }
        None => {}
    }
    parts
}

/// The code of a file without comments, and without what stands in strings.
pub(crate) fn code(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(c) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
        } else if rest.starts_with("/*") {
            rest = rest.find("*/").map_or("", |end| &rest[end + 2..]);
        } else if rest.starts_with("pub(in ") {
            // Who may see an item is no import.
            rest = rest.find(')').map_or("", |end| &rest[end + 1..]);
            out.push_str("pub");
        } else if let Some(hashes) = raw_string(rest) {
            let end = format!("\"{}", "#".repeat(hashes));
            let start = hashes + 2;
            rest = rest[start..].find(&end).map_or("", |at| &rest[start + at + end.len()..]);
            out.push_str("\"\"");
        } else if c == '"' {
            let mut chars = rest.char_indices().skip(1);
            let mut end = rest.len();
            while let Some((at, c)) = chars.next() {
                match c {
                    '\\' => drop(chars.next()),
                    '"' => {
                        end = at + 1;
                        break;
                    }
                    _ => {}
                }
            }
            rest = &rest[end..];
            out.push_str("\"\"");
        } else if let Some(quoted) =
            ["'\"'", "'\\''", "'\\\"'", "b'\"'", "'{'", "'}'"].iter().find(|q| rest.starts_with(**q))
        {
            rest = &rest[quoted.len()..];
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

/// The number of `#` if a raw string begins here.
fn raw_string(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].starts_with('"').then_some(hashes)
}

/// Every path of two or more segments, and every leaf of a `use` tree.
fn paths(text: &str) -> Vec<Vec<String>> {
    let mut found = vec![];
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let bytes: Vec<char> = text.chars().collect();
    let mut at = 0;
    while at < bytes.len() {
        let starts =
            word(bytes[at]) && !bytes[at].is_numeric() && (at == 0 || !word(bytes[at - 1]) && bytes[at - 1] != ':');
        if !starts {
            at += 1;
            continue;
        }
        at = tree(&bytes, at, &[], &mut found);
    }
    found
}

/// Reads a path or a `use` tree that begins at `at`, and returns where it ends.
fn tree(text: &[char], mut at: usize, prefix: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut path = prefix.to_vec();
    loop {
        let start = at;
        while at < text.len() && word(text[at]) {
            at += 1;
        }
        if at > start {
            path.push(text[start..at].iter().collect());
        }
        if !text[at..].starts_with(&[':', ':']) {
            break;
        }
        at += 2;
        if text.get(at) == Some(&'{') {
            at += 1;
            while at < text.len() && text[at] != '}' {
                if word(text[at]) || text[at] == '*' {
                    let before = at;
                    at = tree(text, at, &path, found).max(before + 1);
                    // A renamed leaf: `a as b`.
                    while at < text.len() && !matches!(text[at], ',' | '}') {
                        at += 1;
                    }
                } else {
                    at += 1;
                }
            }
            return at + 1;
        }
        if text.get(at) == Some(&'*') {
            at += 1;
            break;
        }
        if !text.get(at).is_some_and(|&c| word(c)) {
            break;
        }
    }
    if path.len() > 1 {
        found.push(path);
    }
    at
}

/// For each module, the names that it re-exports and where from, as absolute paths.
fn re_exports(
    modules: &BTreeMap<Vec<String>, String>,
    texts: &BTreeMap<String, String>,
) -> BTreeMap<Vec<String>, BTreeMap<String, Vec<String>>> {
    let mut exports = BTreeMap::new();
    for (module, file) in modules {
        let mut names = BTreeMap::new();
        let text = &texts[file];
        for (at, _) in text.match_indices("use ") {
            let line_start = text[..at].rfind(['\n', ';', '}']).map_or(0, |i| i + 1);
            if !text[line_start..at].trim_start().starts_with("pub") {
                continue;
            }
            let end = text[at..].find(';').map_or(text.len(), |end| at + end);
            let chars: Vec<char> = text[at + 4..end].chars().collect();
            let mut leaves = vec![];
            tree(&chars, 0, &[], &mut leaves);
            for leaf in leaves {
                if let Some(absolute) = absolute(&leaf, module, modules)
                    && let Some(name) = leaf.last()
                {
                    names.insert(name.clone(), absolute);
                }
            }
        }
        exports.insert(module.clone(), names);
    }
    exports
}

/// A path from the root of the crate, if it is one into this crate.
fn absolute(path: &[String], module: &[String], modules: &BTreeMap<Vec<String>, String>) -> Option<Vec<String>> {
    match path[0].as_str() {
        "crate" => Some(path[1..].to_vec()),
        "self" => Some([module, &path[1..]].concat()),
        "super" => {
            let ups = path.iter().take_while(|part| *part == "super").count();
            let base = &module[..module.len().checked_sub(ups)?];
            Some([base, &path[ups..]].concat())
        }
        // A child module, named without `self`.
        _ => {
            let child = [module, &path[..1]].concat();
            modules.contains_key(&child).then(|| [module, path].concat())
        }
    }
}

/// The file that an absolute path leads to: the deepest module on it, or where that module has the name from.
fn target<'a>(
    path: &[String],
    modules: &'a BTreeMap<Vec<String>, String>,
    exports: &BTreeMap<Vec<String>, BTreeMap<String, Vec<String>>>,
    depth: usize,
) -> Option<&'a String> {
    let length = (0..=path.len()).rev().find(|&n| modules.contains_key(&path[..n]))?;
    let module = &path[..length];
    let name = path.get(length);
    match name.and_then(|name| exports.get(module)?.get(name)) {
        Some(from) if depth < 8 => target(from, modules, exports, depth + 1),
        _ => modules.get(module),
    }
}

fn named(
    file: &str,
    text: &str,
    modules: &BTreeMap<Vec<String>, String>,
    exports: &BTreeMap<Vec<String>, BTreeMap<String, Vec<String>>>,
    packages: &BTreeSet<String>,
) -> Named {
    let mut named = Named::default();
    let mut parts = vec![];
    split(text, module_of(file), is_of_tests(file), &mut parts);
    for (part, module, of_tests) in parts {
        for path in paths(&part) {
            if packages.contains(&path[0]) {
                let set = if of_tests { &mut named.tests_packages } else { &mut named.packages };
                set.insert(path[0].clone());
            } else if let Some(absolute) = absolute(&path, &module, modules)
                && let Some(other) = target(&absolute, modules, exports, 0)
                && other != file
            {
                let set = if of_tests { &mut named.tests_files } else { &mut named.files };
                set.insert(other.clone());
            }
        }
    }
    named
}

/// The text of a module, and that of each module inside of it with its own path, in which `super` means another one.
fn split(text: &str, module: Vec<String>, of_tests: bool, into: &mut Vec<(String, Vec<String>, bool)>) {
    let (mut own, mut rest) = (String::new(), text);
    while let Some(at) = rest.find("mod ") {
        let name: String = rest[at + 4..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let after = &rest[at + 4 + name.len()..];
        let begins = rest[..at].chars().next_back().is_none_or(char::is_whitespace);
        let Some(body) = after.trim_start().strip_prefix('{').filter(|_| begins && !name.is_empty()) else {
            own.push_str(&rest[..at + 4]);
            rest = &rest[at + 4..];
            continue;
        };
        own.push_str(&rest[..at]);
        let mut depth = 1;
        let end = body.find(|c: char| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth == 0
        });
        let end = end.unwrap_or(body.len());
        let tests = of_tests || name == "tests" || name == "testing";
        split(&body[..end], [module.as_slice(), &[name]].concat(), tests, into);
        rest = body.get(end + 1..).unwrap_or_default();
    }
    own.push_str(rest);
    into.push((own, module, of_tests));
}
