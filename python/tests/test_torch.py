"""With PyTorch: tensors, data loaders, worker processes."""

import clipfeed
import numpy as np
import pytest
from test_loader import OPTIONS, content, first

torch = pytest.importorskip("torch")


def test_tensors_share_the_memory_of_the_batch(shards):
    batch = next(iter(clipfeed.Loader(shards, **OPTIONS)))
    tensors = batch.torch()
    assert tensors["pixel_values"].shape == (4, 8, 3, 32, 32)
    assert tensors["pixel_values"].data_ptr() == batch.clips.ctypes.data
    assert tensors["bool_masked_pos"].dtype == torch.bool
    assert sorted(tensors) == ["bool_masked_pos", "pixel_values"]
    batch = next(iter(clipfeed.Loader(shards, **OPTIONS, form="patches", dtype="bfloat16")))
    tensors = batch.torch()
    assert tensors["visible"].dtype == torch.bfloat16
    assert tensors["visible"].data_ptr() == batch.visible.ctypes.data
    exact = next(iter(clipfeed.Loader(shards, **OPTIONS, form="patches")))
    assert torch.allclose(tensors["target"].float(), torch.from_numpy(exact.target), atol=0.02)


def test_without_masks_there_are_labels(shards):
    batch = next(iter(clipfeed.Loader(shards, **{**OPTIONS, "mask_ratio": None})))
    tensors = batch.torch()
    assert sorted(tensors) == ["labels", "pixel_values"]
    assert tensors["labels"].tolist() == batch.labels.tolist()


def test_a_tensor_is_filled(shards):
    batch = next(iter(clipfeed.Loader(shards, **OPTIONS, dtype="bfloat16")))
    out = torch.empty(4, 3, 8, 32, 32, dtype=torch.bfloat16)
    batch.fill(out)
    assert np.array_equal(out.view(torch.uint16).numpy(), batch.clips)
    with pytest.raises(clipfeed.OptionError, match="float32"):
        batch.fill(torch.empty(4, 3, 8, 32, 32))


def test_a_data_loader_gives_the_batches(shards):
    loader = clipfeed.Loader(shards, **OPTIONS)
    feed = torch.utils.data.DataLoader(loader.dataset(), batch_size=None, num_workers=0)
    assert len(feed) == len(loader)
    expected = first(clipfeed.Loader(shards, **OPTIONS), 4)
    got = [tensors for _ in range(2) for tensors in feed]
    for batch, tensors in zip(expected, got):
        assert torch.equal(batch.torch()["pixel_values"], tensors["pixel_values"])


def test_worker_processes_are_refused_with_advice(shards):
    loader = clipfeed.Loader(shards, **OPTIONS)
    feed = torch.utils.data.DataLoader(loader.dataset(), batch_size=None, num_workers=1)
    with pytest.raises(Exception, match="num_workers=0"):
        next(iter(feed))
    assert content(next(iter(loader)))

    class Inside(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(clipfeed.Loader(shards, **OPTIONS))

    feed = torch.utils.data.DataLoader(Inside(), batch_size=None, num_workers=1)
    with pytest.raises(Exception, match="worker of a DataLoader"):
        next(iter(feed))


def test_whole_clips_are_read_by_workers(shards):
    clips = clipfeed.Clips(shards)
    for context in ["fork", "spawn"]:
        feed = torch.utils.data.DataLoader(clips, batch_size=4, num_workers=2,
                                           multiprocessing_context=context)
        batches = list(feed)
        assert [len(labels) for _, labels in batches] == [4, 4, 3]
        assert np.array_equal(batches[1][0][1].numpy(), clips[5][0])
