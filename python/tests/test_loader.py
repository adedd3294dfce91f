"""Batches: the same as in Rust, epochs, ranks, states, memory."""

import itertools
import json
import threading

import clipfeed
import numpy as np
import pytest
import xxhash
from conftest import GRID, make, rust_batches

OPTIONS = {**GRID, "batch_size": 4, "mask_ratio": 0.75, "threads": 2}


def digest(array):
    """As the oracle prints it."""
    return xxhash.xxh3_64_hexdigest(np.ascontiguousarray(array).tobytes())


def endless(loader):
    """Epoch after epoch."""
    while True:
        yield from loader


def first(loader, count):
    """The next batches."""
    return list(itertools.islice(endless(loader), count))


def content(batch):
    """What a batch trains with."""
    return (digest(batch.clips), digest(batch.bool_masked_pos), batch.clip_ids.tolist(),
            batch.labels.tolist())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"dtype": "uint8", "seed": 7},
        {"dtype": "bfloat16", "mask_kind": "tube"},
        {"form": "patches", "repeat": 3},
        {"form": "patches", "dtype": "uint8", "mask_kind": "block", "repeat": 2},
        {"form": "patches", "dtype": "bfloat16", "mask_kind": "frame"},
        {"rank": 1, "world_size": 2},
    ],
)
@pytest.mark.parametrize("payload", ["i420", "i420-delta", "rgb"])
def test_batches_are_those_of_rust(tmp_path, payload, settings):
    data = make(tmp_path / payload, payload)
    loader = clipfeed.Loader(data, **{**OPTIONS, **settings})
    for batch, rust in zip(first(loader, 12), rust_batches(data, **settings)):
        if settings.get("form") == "patches":
            pixels, target = batch.visible, digest(batch.target)
        else:
            pixels, target = batch.clips, digest(np.empty(0))
        assert digest(pixels) == rust["pixels"]
        assert target == rust["target"]
        assert digest(batch.bool_masked_pos) == rust["masked"]
        assert batch.clip_ids.tolist() == rust["clips"]
        assert batch.labels.tolist() == rust["labels"]


def test_shapes_and_types(shards):
    clips = next(iter(clipfeed.Loader(shards, **OPTIONS)))
    assert clips.clips.shape == (4, 3, 8, 32, 32) and clips.clips.dtype == np.float32
    assert clips.bool_masked_pos.shape == (4, 64) and clips.bool_masked_pos.dtype == bool
    assert len(clips) == 4 and clips.skipped == []
    batch = next(iter(clipfeed.Loader(shards, **OPTIONS, form="patches", dtype="bfloat16",
                                      target_frames=1)))
    assert batch.visible.shape == (4, 16, 3, 2, 8, 8) and batch.visible.dtype == np.uint16
    assert batch.target.shape == (4, 48, 1, 8, 8, 3)
    masked = batch.bool_masked_pos
    for row in range(4):
        assert np.flatnonzero(masked[row]).tolist() == batch.masked_index[row].tolist()
        assert np.flatnonzero(~masked[row]).tolist() == batch.visible_index[row].tolist()
    assert batch.visible_index.dtype == np.int64
    with pytest.raises(clipfeed.OptionError, match="has no `clips`"):
        batch.clips
    unmasked = next(iter(clipfeed.Loader(shards, **{**OPTIONS, "mask_ratio": None})))
    assert not unmasked.bool_masked_pos.any()


def test_values_are_those_of_the_stored_pixels(tmp_path):
    """Without crop, flip and resizing, uint8 values are the pixels, and f32 their normalisation."""
    data = make(tmp_path / "rgb", "rgb")
    options = {**OPTIONS, "size": 64, "shuffle": False}
    whole = clipfeed.Clips(data)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    for dtype in ["uint8", "float32"]:
        for batch in clipfeed.Loader(data, **options, dtype=dtype):
            for clip, number in zip(batch.clips, batch.clip_ids):
                stored, _ = whole[int(number)]
                middle = stored[2:10, :, :, 16:80].transpose(1, 0, 2, 3)
                if dtype == "uint8":
                    assert np.array_equal(clip, middle)
                else:
                    expected = (middle.transpose(1, 2, 3, 0) / 255 - mean) / std
                    assert np.abs(clip.transpose(1, 2, 3, 0) - expected).max() < 1e-5


def test_a_loop_is_an_epoch(tmp_path):
    data = make(tmp_path / "twelve", "i420", clips=12)
    loader = clipfeed.Loader(data, **OPTIONS)
    assert len(loader) == 3
    epochs = [[content(batch) for batch in loader] for _ in range(3)]
    for epoch in epochs:
        assert sorted(itertools.chain(*(clips for _, _, clips, _ in epoch))) == list(range(12))
    assert epochs[0] != epochs[1] and loader.epoch == 3
    loader.set_epoch(1)
    assert [content(batch) for batch in loader] == epochs[1]
    assert len(clipfeed.Loader(data, **OPTIONS, repeat=2)) == 6
    assert len(clipfeed.Loader(data, **{**OPTIONS, "batch_size": 100})) == 1


def test_a_loop_that_is_left_goes_on(shards):
    whole = [content(batch) for batch in first(clipfeed.Loader(shards, **OPTIONS), 5)]
    loader = clipfeed.Loader(shards, **OPTIONS)
    got = []
    for batch in loader:
        got.append(content(batch))
        break
    while len(got) < 5:
        got += [content(batch) for batch in loader]
    assert got[:5] == whole


def test_in_order_every_clip_comes_once(shards):
    loader = clipfeed.Loader(shards, **OPTIONS, shuffle=False)
    for _ in range(2):
        batches = list(loader)
        assert len(batches) == len(loader) == 3
        assert [clip for batch in batches for clip in batch.clip_ids] == list(range(11))
    ranks = [clipfeed.Loader(shards, **OPTIONS, shuffle=False, rank=rank, world_size=2)
             for rank in range(2)]
    shares = [[clip for batch in loader for clip in batch.clip_ids] for loader in ranks]
    assert sorted(shares[0] + shares[1]) == list(range(11))
    assert abs(len(shares[0]) - len(shares[1])) <= 1


def test_a_run_is_resumed_at_any_batch_by_other_ranks(shards):
    options = {**OPTIONS, "repeat": 2}
    whole = clipfeed.Loader(shards, **options)
    expected, states = [], []
    for batch in itertools.islice(endless(whole), 9):
        expected.append(content(batch))
        states.append(json.loads(json.dumps(whole.state_dict())))
    for ranks, threads in [(1, 1), (2, 3), (4, 2)]:
        for at, state in enumerate(states[:-1]):
            loaders = [clipfeed.Loader(shards, **{**options, "threads": threads}, rank=rank,
                                       world_size=ranks) for rank in range(ranks)]
            for loader in loaders:
                loader.load_state_dict(state)
            parts = [next(iter(loader)) for loader in loaders]
            pixels = np.concatenate([part.clips for part in parts])
            masked = np.concatenate([part.bool_masked_pos for part in parts])
            assert (digest(pixels), digest(masked)) == expected[at + 1][:2]


def test_states_of_something_else_are_refused(shards, tmp_path):
    state = clipfeed.Loader(shards, **OPTIONS).state_dict()
    for other in [{"seed": 1}, {"batch_size": 2}, {"repeat": 2}]:
        loader = clipfeed.Loader(shards, **{**OPTIONS, **other})
        with pytest.raises(clipfeed.OptionError, match=next(iter(other))):
            loader.load_state_dict(state)
    other = clipfeed.Loader(make(tmp_path / "other", "i420", 5), **OPTIONS)
    with pytest.raises(clipfeed.OptionError, match="of other clips"):
        other.load_state_dict(state)


def test_ranks_come_from_the_environment(shards, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    batch = next(iter(clipfeed.Loader(shards, **OPTIONS)))
    assert batch.clip_ids.tolist() == rust_batches(shards, rank=1, world_size=2)[0]["clips"]
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(clipfeed.OptionError, match="batch_size is that of all ranks"):
        clipfeed.Loader(shards, **OPTIONS)


def test_data_sets_are_mixed_and_chosen_from(shards, tmp_path):
    other = make(tmp_path / "other", "i420", clips=6)
    loader = clipfeed.Loader([shards, other], **OPTIONS, weights=[1, 3])
    clips = np.concatenate([batch.clip_ids for batch in first(loader, 50)])
    assert 0.7 < (clips >= 11).mean() < 0.8 and clips.max() == 16
    chosen = clipfeed.Loader(shards, **OPTIONS, where="label = 2")
    assert set(np.concatenate([batch.labels for batch in chosen])) == {2}
    with pytest.raises(clipfeed.OptionError, match="where: "):
        clipfeed.Loader(shards, **OPTIONS, where="no such column")


def test_arrays_stay_while_they_are_used(shards):
    loader = clipfeed.Loader(shards, **OPTIONS)
    kept = [(batch.clips, digest(batch.clips)) for batch in first(loader, 12)]
    first(loader, 12)
    loader.close()
    del loader
    for array, before in kept:
        assert digest(array) == before
        assert array.flags.writeable and not array.flags.owndata


def test_arrays_share_memory_by_the_buffer_protocol_and_dlpack(shards):
    batch = next(iter(clipfeed.Loader(shards, **OPTIONS)))
    array = batch.clips
    address = array.ctypes.data
    assert batch.clips.ctypes.data == address
    assert np.frombuffer(memoryview(array).cast("B"), dtype="f4").ctypes.data == address
    assert np.from_dlpack(array).ctypes.data == address


def test_batches_are_copied_into_memory_of_the_caller(shards):
    batch = next(iter(clipfeed.Loader(shards, **OPTIONS)))
    out = np.zeros((4, 3, 8, 32, 32), dtype=np.float32)
    batch.fill(out)
    assert np.array_equal(out, batch.clips)
    for wrong, reason in [
        (np.zeros((4, 3, 8, 32, 31), dtype=np.float32), "bytes"),
        (np.zeros((4, 3, 8, 32, 32), dtype=np.int32), "dtype int32"),
        (out[:, :, ::2], "contiguous"),
    ]:
        with pytest.raises(clipfeed.OptionError, match=reason):
            batch.fill(wrong)
    out.flags.writeable = False
    with pytest.raises(clipfeed.OptionError, match="written"):
        batch.fill(out)
    patches = next(iter(clipfeed.Loader(shards, **OPTIONS, form="patches")))
    visible, target = np.zeros_like(patches.visible), np.zeros_like(patches.target)
    patches.fill((visible, target))
    assert np.array_equal(visible, patches.visible) and np.array_equal(target, patches.target)


def test_figures_are_measured(shards):
    loader = clipfeed.Loader(shards, **OPTIONS)
    first(loader, 20)
    figures = loader.stats(restart=True)
    assert figures["clips"] == 19 * 4 and figures["clips_per_second"] > 0
    assert 0 <= figures["stall_fraction"] <= 1
    assert loader.stats()["clips"] == 0


def test_several_threads_share_a_loader(shards):
    loader = clipfeed.Loader(shards, **OPTIONS)
    expected = sorted(content(batch) for batch in first(clipfeed.Loader(shards, **OPTIONS), 8))
    got = []

    def take():
        for _ in range(2):
            got.append(content(loader._next()))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == expected
