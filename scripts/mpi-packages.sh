#!/usr/bin/env bash
# Installs what a trainer for several ranks needs (cargo feature mpi) from Debian or Ubuntu: Open MPI, and libclang, which reads its headers.
set -euo pipefail

packages=(libopenmpi-dev openmpi-bin libclang-dev)

if ! command -v dpkg-query >/dev/null; then
  command -v mpicc >/dev/null && exit 0
  echo "This is not Debian or Ubuntu: install an MPI library with its compiler wrapper mpicc, and libclang, yourself." >&2
  exit 1
fi

missing=()
for package in "${packages[@]}"; do
  [ "$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null)" = "install ok installed" ] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "Run as root, or install sudo: the packages ${missing[*]} are missing." >&2; exit 1; }
  as_root=(sudo)
fi
echo "Installing ${missing[*]} (apt)" >&2
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
