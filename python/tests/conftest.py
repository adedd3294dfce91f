"""Programs and data sets of the tests.

The programs are those of `cargo build --workspace`, in the folder that the variable PROGRAMS names
(target/debug by default).
"""

import json
import os
import pathlib
import signal
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = pathlib.Path(os.environ.get("PROGRAMS", ROOT / "target/debug"))

#: Frames, size and tokens of the training clips in the tests.
GRID = {"frames": 8, "size": 32, "tubelet": 2, "patch": 8}


def oracle(*arguments):
    """Runs the Rust program that makes data sets and hashes batches."""
    command = [PROGRAMS / "loader-oracle", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def rust_batches(data, **settings):
    """What Rust's loader gives: a dict for each batch."""
    defaults = {"form": "clips", "dtype": "float32", "mask_kind": "random", "mask_ratio": 0.75,
                "repeat": 1, "seed": 0, "rank": 0, "world_size": 1, "batch_size": 4, "count": 12}
    lines = oracle("hashes", data, json.dumps({**defaults, **settings}))
    return [json.loads(line) for line in lines.splitlines()]


def make(folder, payload, clips=11):
    """Writes shards."""
    oracle("make", folder, payload, clips)
    return str(folder)


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """11 clips of 3 classes, in several shards."""
    return make(tmp_path_factory.mktemp("data") / "i420", "i420")


class Server:
    """An object store on loopback with a bucket for each folder of `root`."""

    def __init__(self, root, *arguments):
        command = [PROGRAMS / "object-server", str(root), *map(str, arguments)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def server():
    """Starts servers."""
    return Server
