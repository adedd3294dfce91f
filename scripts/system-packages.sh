#!/usr/bin/env bash
# Installs what the build and the decoders need from Debian or Ubuntu. Does nothing where all of it is there.
#   scripts/system-packages.sh [PACKAGE...]     # other packages in their place
set -euo pipefail

packages=(
  build-essential pkg-config
  libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev
  gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav
  ffmpeg       # only the tests use it: decoded frames are compared with its own
  python3-venv # only the tests use it: TensorBoard reads what a run has written
)

[ $# -eq 0 ] || packages=("$@")

if ! command -v dpkg-query >/dev/null; then
  echo "This is not Debian or Ubuntu: install GStreamer 1.22 or later with its base, good, bad, ugly and libav plugins, and ffmpeg, yourself." >&2
  exit 0
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
