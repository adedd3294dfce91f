#!/usr/bin/env bash
# From nothing to a picture: installs what is missing, builds, makes shards, trains a tiny masked autoencoder, and says where the picture is.
#   scripts/demo.sh            on videos that it synthesises
#   scripts/demo.sh VIDEOS     on your own files or folders of video
# Everything that it makes is in ./demo (another folder with DEMO_DIR=...). Run again, it goes on where it was.
set -euo pipefail
start=$PWD
cd "$(dirname "$0")/.."

command -v cargo >/dev/null || { echo "cargo is missing: install Rust with https://rustup.rs" >&2; exit 1; }
scripts/system-packages.sh
cargo build --release --locked

demo=${DEMO_DIR:-demo}
mkdir -p "$demo"
videos=()
labels=none
if [ $# -eq 0 ]; then
  videos=("$demo/videos")
  labels=dirs
  [ -d "$demo/videos" ] || target/release/shardtool synth "$demo/videos"
else
  # As they were named from where the user stands.
  for video in "$@"; do videos+=("$(cd "$start" && realpath -- "$video")"); done
fi
[ -f "$demo/shards/manifest.json" ] || target/release/shardtool build "${videos[@]}" --labels "$labels" --out "$demo/shards" --force
resume=()
[ -f "$demo/run/config.toml" ] && resume=(--resume)
target/release/trainer run --data "$demo/shards" --out "$demo/run" "${resume[@]}"
