#!/usr/bin/env bash
# Builds the wheel of the Python package, installs it into a fresh virtual environment, checks its types, and runs its tests there.
# They use the programs that `cargo build --workspace` makes.
#   scripts/test-python.sh
# With TRANSFORMERS_PYTHON=PYTHON, a Python that has torch, transformers, accelerate, pytest and xxhash, the tests with PyTorch and the examples
# run there as well.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
export PROGRAMS=$CARGO_TARGET_DIR/debug
cargo build --workspace --bins --locked

python3 -m venv "$work/venv" || { echo "python3 has no venv: install python3-venv, or set SKIP_PYTHON=1" >&2; exit 1; }
python=$work/venv/bin/python
"$python" -m pip install -q --disable-pip-version-check mypy pytest tqdm xxhash
# With the profile of the tests, with which most of it is compiled already.
"$python" -m pip wheel -q --disable-pip-version-check --no-deps -w "$work" ./python \
  --config-settings=build-args="--profile dev --locked"
"$python" -m pip install -q --disable-pip-version-check "$work"/clipfeed-*.whl
(cd python && "$python" -m mypy --strict --ignore-missing-imports clipfeed)
"$python" -m pytest -q -p no:cacheprovider python/tests

if [ -n "${TRANSFORMERS_PYTHON:-}" ]; then
  "$python" -m pip install -q --disable-pip-version-check --no-deps --target "$work/package" "$work"/clipfeed-*.whl
  PYTHONPATH=$work/package "$TRANSFORMERS_PYTHON" -m pytest -q -p no:cacheprovider \
    python/tests/test_torch.py python/tests/test_examples.py
fi
