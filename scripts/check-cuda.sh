#!/usr/bin/env bash
# Type-checks what is built with CUDA, on a machine without a GPU: the compiler and the headers come from PyPI (about 1 GB), unless nvcc is there.
#   scripts/check-cuda.sh
# SKIP_CUDA_CHECK=1 skips it. CUDA_WHEELS=FOLDER says where the compiler is kept from one time to the next.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${SKIP_CUDA_CHECK:-0}" = 1 ]; then
  echo "SKIP_CUDA_CHECK=1: the CUDA path is not type-checked" >&2
  exit 0
fi
if ! command -v nvcc >/dev/null; then
  wheels=${CUDA_WHEELS:-${XDG_CACHE_HOME:-$HOME/.cache}/clip-trainer-cuda-13.0}
  if [ ! -f "$wheels/complete" ]; then
    free_mib=$(df -Pm "$(dirname "$wheels")" 2>/dev/null | awk 'NR == 2 { print $4 }')
    if [ -n "$free_mib" ] && [ "$free_mib" -lt 8192 ]; then
      echo "less than 8 GB free: the CUDA path is not type-checked" >&2
      exit 0
    fi
    echo "Installing CUDA's compiler and headers into $wheels (pip)" >&2
    rm -rf "$wheels"
    python3 -m venv "$wheels" || { echo "python3 has no venv: install python3-venv, or set SKIP_CUDA_CHECK=1" >&2; exit 1; }
    "$wheels/bin/pip" install -q --disable-pip-version-check \
      nvidia-cuda-nvcc==13.0.* nvidia-nvvm==13.0.* nvidia-cuda-crt==13.0.* nvidia-cuda-cccl==13.0.* nvidia-cuda-runtime==13.0.* \
      nvidia-cublas==13.0.* nvidia-curand nvidia-cuda-nvrtc==13.0.*
    touch "$wheels/complete"
  fi
  CUDA_HOME=$(echo "$wheels"/lib/python3*/site-packages/nvidia/cu13)
  export CUDA_HOME CUDA_PATH=$CUDA_HOME PATH=$CUDA_HOME/bin:$PATH
fi
export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-90}
# clippy checks types as `cargo check` does, and the lints of this path with them.
cargo clippy -p pipeline -p trainer --features trainer/cuda,pipeline/cuda --lib --bins --test cuda --locked -- -D warnings
