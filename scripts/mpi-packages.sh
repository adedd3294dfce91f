#!/usr/bin/env bash
# Installs what a trainer for several ranks needs (cargo feature mpi) from Debian or Ubuntu: Open MPI, and libclang, which reads its headers.
set -euo pipefail

if ! command -v dpkg-query >/dev/null; then
  command -v mpicc >/dev/null && exit 0
  echo "This is not Debian or Ubuntu: install an MPI library with its compiler wrapper mpicc, and libclang, yourself." >&2
  exit 1
fi
exec "$(dirname "$0")/system-packages.sh" libopenmpi-dev openmpi-bin libclang-dev
