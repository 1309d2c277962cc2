#!/usr/bin/env bash
# Builds a release of the commit that is checked out, for this machine's target: a tarball with both programs, the bundled
# model, shell completions, the license, third-party notices and SBOMs (CycloneDX), and SHA256SUMS beside it. The programs
# list their dependencies in themselves (`cargo audit bin FILE` reads them). They need the glibc that the last line names.
#
# No path and no time of the building machine is in them, and a path that slips in fails the release, so that the same commit and
# compilers (Rust and C) give the same bytes in any folder: compare the SHA256SUMS of two builds.
#
#   deploy/release.sh [OUT]       folder for the tarball and SHA256SUMS [default: target/dist/out]
#
# Needs Linux, Rust, a C and C++ compiler, git and GNU tar. The tools below are built from crates.io under target/dist/tools,
# in about three minutes on two cores; the programs take five to ten.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=(cargo-auditable@0.7.7 cargo-cyclonedx@0.5.9 cargo-about@0.9.3)
work=$PWD/target/dist
out=$(realpath -m "${1:-$work/out}")
src=$work/src target_dir=$work/build
cargo_home=${CARGO_HOME:-$HOME/.cargo}
host=$(rustc -vV | sed -n 's/^host: //p')
mkdir -p "$work" "$out"

# What the caller has set for their own builds is not part of a release.
unset CARGO_BUILD_TARGET CARGO_INCREMENTAL CARGO_TARGET_DIR EVOCACHE_PLANT RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER
unset CARGO_ENCODED_RUSTFLAGS RUSTFLAGS CFLAGS CXXFLAGS

for tool in "${tools[@]}"; do
  features=()
  if [[ $tool == cargo-about@* ]]; then features=(--features cli); fi
  # As fast to build as may be: each runs once.
  CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_TARGET_DIR=$work/tools/build \
    cargo install --quiet --locked --root "$work/tools" "${features[@]}" "$tool"
done
rm -rf "$work/tools/build"
export PATH="$work/tools/bin:$PATH"

# The commit, not the work tree. Files get the time of now (tar -m), by which cargo sees that they changed.
if [ -n "$(git status --porcelain)" ]; then echo "warning: what is not committed is not in the release"; fi
rm -rf "$src"
mkdir -p "$src"
git archive HEAD | tar -xm -C "$src"
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
cd "$src"
version=$(sed -n '/^\[workspace.package\]/,/^\[/ s/^version = "\(.*\)"/\1/p' Cargo.toml)
name=evocache-$version-$host
tree=$work/$name

# Paths of this machine become names that are the same everywhere, in Rust and in C. Two small programs do it, found by name: cargo
# hashes RUSTFLAGS and the path of a workspace wrapper into the names of what it builds, and those names get into the programs.
rust_src=$(rustc --print sysroot)/lib/rustlib/src/rust
commit=$(rustc -vV | sed -n 's/^commit-hash: //p')
{
  echo '#!/bin/sh'
  printf 'exec "$@"'
  printf ' %q' "--remap-path-prefix=$cargo_home=/cargo" "--remap-path-prefix=$target_dir=/build" \
    "--remap-path-prefix=$src=/evocache" "--remap-path-prefix=$rust_src=/rustc/$commit"
} >"$work/tools/bin/rustc-without-paths"
printf '#!/bin/sh\nRUSTC_WORKSPACE_WRAPPER=cargo-auditable exec cargo "$@"\n' >"$work/tools/bin/cargo-by-name"
chmod +x "$work/tools/bin/"{rustc-without-paths,cargo-by-name}
# The crate cc splits these as a shell does, so that a folder may have a space in its name.
CFLAGS=$(printf -- '-ffile-prefix-map=%q ' "$cargo_home=/cargo" "$target_dir=/build")
export CFLAGS CXXFLAGS=$CFLAGS CC_SHELL_ESCAPED_FLAGS=1 CARGO_TARGET_DIR=$target_dir
# EVOCACHE_RELEASE leaves out the source folder, in which a development build looks for the bundled model.
EVOCACHE_RELEASE=1 RUSTC_WRAPPER=rustc-without-paths CARGO=$work/tools/bin/cargo-by-name \
  cargo-auditable auditable build --release --locked --workspace --bins

rm -rf "$tree"
share=$tree/share
docs=$share/doc/evocache
mkdir -p "$tree/bin" "$docs" "$share/evocache/models" "$share/bash-completion/completions" "$share/zsh/site-functions" \
  "$share/fish/vendor_completions.d"
for program in evocache evocache-worker; do
  binary=$target_dir/release/$program
  for path in "$work" "$src" "$cargo_home" "$(rustc --print sysroot)"; do
    if grep -aqF "$path/" "$binary"; then
      echo "error: $program holds a path of this machine: $(grep -aoE "${path//./\\.}/[[:print:]]{0,80}" "$binary" | head -n 1)"
      exit 1
    fi
  done
  readelf -SW "$binary" | grep -q '\.dep-v0' || { echo "error: $program does not list its dependencies"; exit 1; }
  install -m 755 "$binary" "$tree/bin/"
done
cp -r worker/models/emoji "$share/evocache/models/"
# Needed to make and to test the model, not to use it.
rm -r "$share/evocache/models/emoji/train" "$share/evocache/models/emoji/golden"
"$tree/bin/evocache" completions bash >"$share/bash-completion/completions/evocache"
"$tree/bin/evocache" completions zsh >"$share/zsh/site-functions/_evocache"
"$tree/bin/evocache" completions fish >"$share/fish/vendor_completions.d/evocache.fish"

cp LICENSE README.md CHANGELOG.md SECURITY.md "$docs/"
# Offline, so that the texts do not depend on who answers: only what the crates themselves ship.
cargo about generate --workspace --locked --offline --fail --target "$host" --config deploy/release/about.toml \
  --output-file "$docs/THIRD-PARTY-NOTICES.txt" deploy/release/notices.hbs
cp "$(rustc --print sysroot)/share/doc/rust/COPYRIGHT-library.html" "$docs/rust-standard-library.html"
cargo cyclonedx --quiet --format json --spec-version 1.5 --describe binaries --target "$host"
for program in evocache evocache-worker; do
  find . -name "${program}_bin.cdx.json" -exec sed 's#file://[^"]*/target/dist/src#file:///evocache#g' {} + >"$docs/$program.cdx.json"
  [ -s "$docs/$program.cdx.json" ] || { echo "error: there is no SBOM of $program"; exit 1; }
done
if grep -rlF "$work" "$tree"; then echo "error: these files hold a path of this machine"; exit 1; fi

tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
  -cf - -C "$work" "$name" | gzip -9n >"$out/$name.tar.gz"
(cd "$out" && sha256sum "$name.tar.gz" >SHA256SUMS)

# What was packed works away from here: the programs start, and find the model beside them.
try=$(mktemp -d)
trap 'rm -rf "$try"' EXIT
tar -xzf "$out/$name.tar.gz" -C "$try"
"$try/$name/bin/evocache" --version
"$try/$name/bin/evocache-worker" inspect --model "$try/$name/share/evocache/models/emoji" >"$try/inspect"
(cd "$try" && HOME=$try "$try/$name/bin/evocache" local --budget 2 --workers 1 --out search >"$try/local" 2>&1) ||
  { cat "$try/local"; exit 1; }

ls -l "$out/$name.tar.gz"
cat "$out/SHA256SUMS"
echo "needs $(grep -aohE 'GLIBC_2\.[0-9]+' "$tree"/bin/* | sort -uV | tail -n 1) or newer"
