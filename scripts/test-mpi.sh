#!/usr/bin/env bash
# Builds the trainer for several ranks and trains with mpirun: the same bits on 1, 2, 4 and 8 ranks, kills and other faults.
#   scripts/test-mpi.sh
# TRAINER_MPI names a trainer with the feature mpi that is built already.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/mpi-packages.sh
if [ -z "${TRAINER_MPI:-}" ]; then
  cargo clippy -p trainer --all-targets --features mpi --locked -- -D warnings
  cargo build -p trainer --bin trainer --features mpi --locked
  target=${CARGO_TARGET_DIR:-target}
  # The next build without the feature replaces the program.
  cp "$target/debug/trainer" "$target/debug/trainer-mpi"
  TRAINER_MPI=$(realpath "$target/debug/trainer-mpi")
  export TRAINER_MPI
fi
cargo test -p tests --test ranks --locked -- --test-threads 2
