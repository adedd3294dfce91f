#!/usr/bin/env bash
# Installs what the tests need, then checks formatting, lints and documentation, and runs every test.
#   scripts/test.sh
# With TEST_VIDEOS=FOLDER, real footage in FOLDER/real and FOLDER/odd is tested as well.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v cargo >/dev/null || { echo "cargo is missing: install Rust with https://rustup.rs" >&2; exit 1; }
scripts/system-packages.sh

cargo fmt --all --check
cargo clippy --workspace --all-targets --locked -- -D warnings
if cargo nextest --version >/dev/null 2>&1; then
  cargo nextest run --workspace --locked
else
  cargo test --workspace --all-targets --locked
fi
cargo test --workspace --doc --locked
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet
