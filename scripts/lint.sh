#!/usr/bin/env bash
# Checks formatting, lints and documentation of everything but the CUDA path.
#   scripts/lint.sh
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/system-packages.sh
cargo fmt --all --check
cargo clippy --workspace --all-targets --locked -- -D warnings
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet
