#!/usr/bin/env bash
# Installs what the tests need, then builds and runs every test. scripts/lint.sh checks formatting,
# lints and documentation.
#   scripts/test.sh
# With TEST_VIDEOS=FOLDER, real footage in FOLDER/real, FOLDER/odd and FOLDER/bench is tested as well.
# TensorBoard, which reads what a run writes for it, comes from PyPI (180 MB), unless TENSORBOARD_PYTHON names a Python that has it.
# SKIP_TENSORBOARD=1 tests without it.
# moto, which imitates S3, comes from PyPI as well, unless STORE_TEST_MOTO names its moto_server. SKIP_MOTO=1 tests without it.
# The Python package is built and tested as well (scripts/test-python.sh). SKIP_PYTHON=1 skips it.
# The trainer is built with MPI as well, and several ranks train together (scripts/test-mpi.sh). SKIP_MPI=1 skips it.
# With PARQUET_PYTHON=PYTHON, a Python that has pyarrow, duckdb, polars and numpy, shards are read there as well.
# With TRANSFORMERS_PYTHON=PYTHON, a Python that has torch and transformers, exported weights are loaded there as well.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v cargo >/dev/null || { echo "cargo is missing: install Rust with https://rustup.rs" >&2; exit 1; }
scripts/system-packages.sh

# from_pypi NAME VERSION PACKAGE SKIP: sets $folder to a virtual environment with the package.
from_pypi() {
  folder=${XDG_CACHE_HOME:-$HOME/.cache}/clip-trainer-$1-$2
  [ ! -f "$folder/complete" ] || return 0
  echo "Installing $1 $2 into $folder (pip)" >&2
  rm -rf "$folder"
  python3 -m venv "$folder" || { echo "python3 has no venv: install python3-venv, or set $4=1" >&2; exit 1; }
  "$folder/bin/pip" install -q --disable-pip-version-check "$3==$2"
  touch "$folder/complete"
}

if [ -z "${TENSORBOARD_PYTHON:-}" ] && [ "${SKIP_TENSORBOARD:-0}" != 1 ]; then
  from_pypi tensorboard 2.20.0 tensorboard SKIP_TENSORBOARD
  export TENSORBOARD_PYTHON=$folder/bin/python
fi
if [ -z "${STORE_TEST_MOTO:-}" ] && [ "${SKIP_MOTO:-0}" != 1 ]; then
  from_pypi moto 5.2.5 'moto[s3,server]' SKIP_MOTO
  export STORE_TEST_MOTO=$folder/bin/moto_server
fi

# A single build is shorter without incremental compilation.
export CARGO_INCREMENTAL=${CARGO_INCREMENTAL:-0}
if cargo nextest --version >/dev/null 2>&1; then
  cargo nextest run --workspace --locked
else
  cargo test --workspace --all-targets --locked
fi
cargo test --workspace --doc --locked
[ "${SKIP_PYTHON:-0}" = 1 ] || scripts/test-python.sh
[ "${SKIP_MPI:-0}" = 1 ] || scripts/test-mpi.sh
