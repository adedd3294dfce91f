"""What goes wrong: arguments, data, processes."""

import itertools
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time

import clipfeed
import pytest
from clipfeed import _native
from conftest import GRID, make

OPTIONS = {**GRID, "batch_size": 4, "mask_ratio": 0.75, "threads": 2}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "batch size is 0"),
        ({"frames": 20}, "have 12 frames, training wants 20"),
        ({"size": 33}, "33"),
        ({"mask_ratio": 1.5}, "mask ratio 1.5"),
        ({"mask_kind": "checker"}, "mask_kind: unknown variant `checker`"),
        ({"form": "pictures"}, "choose clips or patches"),
        ({"dtype": "float16"}, "choose float32, bfloat16 or uint8"),
        ({"area": (0.0, 2.0)}, "area"),
        ({"aspect": (2.0, 1.0)}, "aspect"),
        ({"flip": 2.0}, "flip"),
        ({"std": (0.2, 0.0, 0.2)}, "std above 0"),
        ({"rank": 2, "world_size": 2}, "there is no rank 2 of 2"),
        ({"rank": 1}, "give both rank and world_size"),
        ({"threads": 0}, "threads is 0"),
        ({"memory": 1}, "raise it with memory"),
        ({"target_frames": 1}, "target_frames"),
        ({"form": "patches", "mask_ratio": None}, "without a mask"),
        ({"shuffle": False, "repeat": 2}, "repeat is for training"),
        ({"weights": [1, 2]}, "2 weights for 1 data sets"),
        ({"cache_size": 5}, "cache_size"),
    ],
)
def test_arguments_are_checked(shards, wrong, message):
    with pytest.raises(clipfeed.OptionError, match=message) as caught:
        clipfeed.Loader(shards, **{**OPTIONS, **wrong})
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, clipfeed.Error)


def test_data_that_is_not_there_is_named(tmp_path):
    with pytest.raises(clipfeed.DataError, match="shardtool build"):
        clipfeed.Loader(tmp_path / "nothing", **OPTIONS)
    with pytest.raises(clipfeed.DataError, match="no (shards|video)"):
        clipfeed.Loader(tmp_path, **OPTIONS)
    with pytest.raises(clipfeed.OptionError, match="give a folder"):
        clipfeed.Loader([], **OPTIONS)
    with pytest.raises(clipfeed.DataError, match="ftp"):
        clipfeed.Loader("ftp://host/data", **OPTIONS)


def damage(data, name="shard-00000.parquet"):
    """Changes bytes in the middle of a shard."""
    path = pathlib.Path(data) / name
    content = bytearray(path.read_bytes())
    middle = len(content) // 4
    content[middle:middle + 64] = bytes(64)
    path.write_bytes(content)


def test_damaged_clips_are_skipped_named_and_counted(tmp_path):
    data = make(tmp_path / "data", "i420")
    damage(data)
    loader = clipfeed.Loader(data, **OPTIONS)
    skipped = list(itertools.chain(*(batch.skipped for batch in loader)))
    assert skipped and "shard-00000.parquet is damaged" in skipped[0][1]
    assert loader.stats()["skipped"] > 0
    strict = clipfeed.Loader(data, **OPTIONS, max_bad=0)
    with pytest.raises(clipfeed.DataError, match="max_bad"):
        for _ in range(3):
            list(strict)


@pytest.mark.skipif(_native.HAS_VIDEO, reason="this build reads H.264")
def test_h264_needs_the_feature_video(tmp_path):
    data = make(tmp_path / "h264", "h264")
    assert clipfeed.inspect(data)["payload"] == "h264"
    with pytest.raises(clipfeed.DataError, match="feature `video`"):
        list(clipfeed.Loader(data, **OPTIONS))
    with pytest.raises(clipfeed.DataError, match="feature `video`"):
        clipfeed.Clips(data)[0]


@pytest.mark.skipif(not _native.HAS_VIDEO, reason="this build reads no H.264")
def test_h264_is_read(tmp_path):
    data = make(tmp_path / "h264", "h264")
    assert len(list(clipfeed.Loader(data, **OPTIONS))) == 2


def test_a_forked_process_is_refused_and_ends(shards):
    loader = clipfeed.Loader(shards, **OPTIONS)
    next(iter(loader))
    child = os.fork()
    if child == 0:
        try:
            list(loader)
        except clipfeed.ProcessError as error:
            told = "num_workers=0" in str(error)
            # As at the end of a worker, the loader goes with the process.
            del loader
            os._exit(0 if told else 2)
        os._exit(1)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.05)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        pytest.fail("the forked process hangs")
    assert os.waitstatus_to_exitcode(status) == 0
    assert len(list(loader)) > 0, "the parent goes on"


def test_loaders_cannot_be_pickled(shards):
    with pytest.raises(clipfeed.ProcessError, match="another process"):
        pickle.dumps(clipfeed.Loader(shards, **OPTIONS))


def test_a_closed_loader_says_so(shards):
    with clipfeed.Loader(shards, **OPTIONS) as loader:
        batch = next(iter(loader))
    assert batch.clips.shape[0] == 4
    with pytest.raises(clipfeed.DataError, match="was closed"):
        list(loader)


def run_slow(tmp_path, server, code):
    """Runs Python on a store that answers late."""
    make(tmp_path / "bucket" / "data", "i420")
    started = server(tmp_path, "--delay-ms", 3000)
    script = f"""
        import clipfeed, threading, time
        loader = clipfeed.Loader({started.url + "/bucket/data"!r}, batch_size=4, frames=8, size=32,
                                 patch=8, mask_ratio=0.75)
        print("ready", flush=True)
    """
    script = textwrap.dedent(script) + textwrap.dedent(code)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    return started, process


def test_ctrl_c_stops_a_loader_that_waits(tmp_path, server):
    started, process = run_slow(tmp_path, server, "next(iter(loader))")
    with started:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.5)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
        assert "KeyboardInterrupt" in said
        assert time.monotonic() - began < 2.5, "before the store has answered"


def test_other_threads_run_while_a_loader_waits(tmp_path, server):
    code = """
        counts = []
        def count():
            while True:
                counts.append(None)
                time.sleep(0.01)
        threading.Thread(target=count, daemon=True).start()
        before = len(counts)
        next(iter(loader))
        print(len(counts) - before, flush=True)
    """
    started, process = run_slow(tmp_path, server, code)
    with started:
        said, errors = process.communicate(timeout=60)
        assert int(said.split()[1]) > 50, errors


def test_loaders_leave_nothing_behind(shards):
    def figures():
        status = pathlib.Path("/proc/self/status").read_text()
        value = {line.split(":")[0]: line.split()[1] for line in status.splitlines()
                 if line.startswith(("VmRSS", "Threads"))}
        return int(value["Threads"]), int(value["VmRSS"]), len(os.listdir("/proc/self/fd"))

    def open_and_close(times):
        for _ in range(times):
            loader = clipfeed.Loader(shards, **OPTIONS)
            next(iter(loader))

    open_and_close(20)
    threads, resident, files = figures()
    open_and_close(200)
    assert figures()[0] == threads
    assert figures()[2] == files
    assert figures()[1] - resident < 20_000, "kilobytes"
