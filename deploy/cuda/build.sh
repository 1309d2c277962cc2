#!/usr/bin/env bash
# Builds evocache-worker with the feature cuda on a machine that needs neither a GPU nor CUDA: the compiler comes from PyPI
# (requirements.txt), and small archives stand in for CUDA's libraries while linking (shims.py). The binary starts anywhere;
# to use a GPU it needs the driver (580 or newer), libcublas.so.13 and libcurand.so.10, by ld.so or LD_LIBRARY_PATH; on PyPI
# these are nvidia-cublas and nvidia-curand. Needs Rust, Python 3, a C++ compiler; x86_64 Linux; about 15 CPU minutes.
#
#   deploy/cuda/build.sh [more arguments of cargo build]      CUDA_COMPUTE_CAP=90: the oldest GPU to run on [default: 80]
set -euo pipefail
cd "$(dirname "$0")/../.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")/cuda
here=$PWD/deploy/cuda
mkdir -p "$target"

if ! cmp -s "$here/requirements.txt" "$target/requirements.txt"; then
  rm -rf "$target/venv"
  python3 -m venv "$target/venv"
  "$target/venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
  cp "$here/requirements.txt" "$target/requirements.txt"
fi
CUDA_HOME=$("$target/venv/bin/python" -c 'import importlib.metadata as m; print(next(str(f.locate().parent.parent) for f in m.files("nvidia-cuda-nvcc") if f.name == "nvcc"))')
export CUDA_HOME CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-80} CARGO_TARGET_DIR=$target PATH="$CUDA_HOME/bin:$PATH"

cargo fetch --locked
cudarc=$(cargo metadata --locked --format-version 1 --features evocache-worker/cuda | python3 -c '
import json, os, sys
print(os.path.dirname(next(p["manifest_path"] for p in json.load(sys.stdin)["packages"] if p["name"] == "cudarc")))')
"$target/venv/bin/python" "$here/shims.py" "$cudarc/src" "$target/shims"
# candle's kernels ask for the runtime as a shared library; the static one is in the wheel and looks for the driver by itself.
ln -sf "$CUDA_HOME/lib/libcudart_static.a" "$target/shims/libcudart.a"

export RUSTFLAGS="${RUSTFLAGS:-} -L native=$target/shims"
cargo build --release --locked -p evocache-worker --features cuda "$@"
ls -l "$target/release/evocache-worker"
