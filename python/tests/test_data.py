"""Single clips, descriptions, object stores, and the package itself."""

import os
import pathlib
import pickle
import subprocess
import sys

import clipfeed
import numpy as np
import pytest
from conftest import GRID, PROGRAMS, make, rust_batches
from test_loader import OPTIONS, digest, first


def test_clips_are_the_stored_ones(shards, tmp_path):
    clips = clipfeed.Clips(shards)
    assert len(clips) == 11 and clips.classes == []
    pixels, label = clips[4]
    assert pixels.shape == (12, 3, 64, 96) and pixels.dtype == np.uint8 and label == 1
    assert clips.labels.tolist() == [number % 3 for number in range(11)]
    assert np.array_equal(clips[-1][0], clips[10][0])
    for index in [11, -12]:
        with pytest.raises(IndexError):
            clips[index]
    # RGB is stored as it is: what is made of I420 is what was stored of it.
    exact = clipfeed.Clips(make(tmp_path / "rgb", "rgb"))
    for index in range(11):
        assert np.array_equal(exact[index][0], clips[index][0])
    assert clipfeed.Clips(shards, where="label = 1").clip_ids.tolist() == [1, 4, 7, 10]


def test_clips_are_read_in_other_processes(shards):
    clips = clipfeed.Clips(shards)
    copy = pickle.loads(pickle.dumps(clips))
    assert np.array_equal(copy[3][0], clips[3][0])
    child = os.fork()
    if child == 0:
        os._exit(0 if digest(clips[3][0]) == digest(copy[3][0]) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_data_set_is_described(shards):
    found = clipfeed.inspect(shards)
    assert (found["clips"], found["frames"], found["sizes"]) == (11, 12, [[96, 64]])
    assert found["payload"] == "i420" and found["options"]["stride"] == 4
    with pytest.raises(clipfeed.DataError):
        clipfeed.inspect(shards + "/nothing")


def test_a_store_gives_the_same_batches(tmp_path, server, monkeypatch):
    make(tmp_path / "bucket" / "data", "i420")
    with server(tmp_path) as started:
        monkeypatch.setenv("AWS_ENDPOINT_URL", started.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        loader = clipfeed.Loader("s3://bucket/data", **OPTIONS, cache=tmp_path / "cache")
        batches = first(loader, 12)
        rust = rust_batches(tmp_path / "bucket" / "data")
        assert [digest(batch.clips) for batch in batches] == [batch["pixels"] for batch in rust]
        assert loader.stats()["store"]["hit_rate"] > 0
        with pytest.warns(UserWarning, match="has no index"):
            assert clipfeed.Clips("s3://bucket/data")[2][1] == 2
        with pytest.raises(clipfeed.DataError, match="nothing"):
            clipfeed.Loader("s3://bucket/nothing", **GRID)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Four small videos."""
    folder = tmp_path_factory.mktemp("videos")
    subprocess.run([PROGRAMS / "shardtool", "synth", folder / "all", "--videos", "4"], check=True,
                   capture_output=True)
    return folder / "all"


def test_shards_are_built(videos, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("SHARDTOOL", str(PROGRAMS / "shardtool"))
    report = clipfeed.build(videos, tmp_path / "out", frames=16, payload="i420-delta",
                            labels="dirs")
    assert report["videos"] == 4 and report["clips"] >= 4
    assert '{"progress"' not in capfd.readouterr().err
    assert len(clipfeed.Clips(tmp_path / "out")) == report["clips"]
    with pytest.raises(clipfeed.DataError, match="other options"):
        clipfeed.build(videos, tmp_path / "out", frames=8, progress=False)
    monkeypatch.delenv("SHARDTOOL")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(clipfeed.OptionError, match="cargo install"):
        clipfeed.build(videos, tmp_path / "other")


def test_a_long_report_does_not_stop_the_build(tmp_path, monkeypatch):
    program = tmp_path / "shardtool"
    program.write_text("#!/bin/sh\nprintf '{\"long\": \"'\n"
                       "head -c 1000000 /dev/zero | tr '\\0' x\nprintf '\"}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("SHARDTOOL", str(program))
    assert len(clipfeed.build("videos", tmp_path, progress=False)["long"]) == 1_000_000


@pytest.mark.skipif(not clipfeed._native.HAS_VIDEO, reason="this build reads no videos")
def test_videos_are_read_directly(videos):
    loader = clipfeed.Loader(videos, batch_size=4, frames=16, size=64, stride=2, shuffle=False)
    assert sum(len(batch) for batch in loader) >= 4
    with pytest.raises(clipfeed.OptionError, match="shards"):
        clipfeed.Loader(videos, where="label = 1")


def test_importing_loads_neither_numpy_nor_torch():
    code = "import clipfeed, sys; print([n for n in ('numpy', 'torch') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_the_package_is_typed_and_small():
    folder = pathlib.Path(clipfeed.__file__).parent
    assert (folder / "py.typed").exists() and (folder / "_native.pyi").exists()
    assert len(clipfeed.__all__) <= 10
    for name in clipfeed.__all__:
        assert getattr(clipfeed, name).__doc__


@pytest.mark.skipif(clipfeed._native.HAS_VIDEO, reason="this build uses GStreamer")
def test_the_wheel_needs_no_gstreamer():
    library = clipfeed._native.__file__
    assert ".abi3." in library
    linked = subprocess.run(["ldd", library], check=True, capture_output=True, text=True).stdout
    assert "libc.so" in linked and "gst" not in linked and "python" not in linked
