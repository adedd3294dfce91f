"""Batches for training and evaluation."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from . import _native
from ._data import Path, open_data
from ._errors import DataError, OptionError, check_process, no_pickle

if TYPE_CHECKING:
    import numpy as np

# Milliseconds of one wait without the GIL: signals are handled between waits.
_WAIT = 50

# What has to be the same for a state to mean the same batches.
_SAME = ("batch_size", "repeat", "seed", "shuffle", "data")


class Batch:
    """Some clips, with masks and labels.

    Arrays are made when they are asked for. ``clips``, ``visible`` and ``target`` are the memory of
    the batch itself, without a copy, which goes back to the loader when nothing refers to it.
    bfloat16 is not known to numpy: such arrays have dtype uint16, and
    ``torch.from_numpy(a).view(torch.bfloat16)`` shares their memory.

    B is the number of clips, T that of frames, S the size in pixels, N the number of tokens:
    ``T / tubelet * (S / patch) ** 2``, in the order of time, rows and columns.
    """

    def __init__(self, native: _native.Batch, form: str, dtype: str, tokens: int):
        self._native = native
        self._form = form
        self._dtype = dtype
        self._tokens = tokens

    def __len__(self) -> int:
        return len(self._native)

    def __repr__(self) -> str:
        return f"Batch({len(self)} clips, form={self._form!r}, dtype={self._dtype!r})"

    @property
    def clips(self) -> np.ndarray:
        """All pixels, (B, 3, T, S, S): normalised R, G, B, or their values for uint8."""
        self._need("clips", "clips")
        return _array(self._native.pixels())

    @property
    def visible(self) -> np.ndarray:
        """The pixels of the visible tokens, (B, visible, 3, tubelet, patch, patch)."""
        self._need("visible", "patches")
        return _array(self._native.pixels())

    @property
    def target(self) -> np.ndarray:
        """The pixels of the masked tokens, (B, masked, target_frames, patch, patch, 3)."""
        self._need("target", "patches")
        return _array(self._native.target())

    @property
    def bool_masked_pos(self) -> np.ndarray:
        """Which tokens are masked, (B, N), bool."""
        return _from_bytes(self._native.masked(), "bool", (len(self), self._tokens))

    @property
    def visible_index(self) -> np.ndarray:
        """The visible tokens of each clip, ascending, (B, visible), int64."""
        return _from_bytes(self._native.visible_index(), "int64", (len(self), -1))

    @property
    def masked_index(self) -> np.ndarray:
        """The masked tokens of each clip, ascending, (B, masked), int64."""
        return _from_bytes(self._native.masked_index(), "int64", (len(self), -1))

    @property
    def labels(self) -> np.ndarray:
        """The class of each clip, (B,), int64; -1 for none."""
        return _from_bytes(self._native.labels(), "int64", (len(self),))

    @property
    def clip_ids(self) -> np.ndarray:
        """The number of each clip in the data, (B,), int64: several data sets are counted on."""
        return _from_bytes(self._native.clip_ids(), "int64", (len(self),))

    @property
    def skipped(self) -> list[tuple[int, str]]:
        """Clips that are missing because they could not be read: their numbers, and why."""
        return self._native.skipped()

    def torch(self) -> dict[str, Any]:
        """Tensors that share the memory of the batch, named as Hugging Face's models name them.

        With clips: ``pixel_values`` (B, T, 3, S, S), ``bool_masked_pos`` where there are masks, and
        ``labels`` where all clips have one. With patches: ``visible``, ``target``,
        ``visible_index``, ``masked_index``, ``bool_masked_pos``, ``labels``.
        """
        import torch

        def tensor(array: np.ndarray) -> Any:
            tensor = torch.from_numpy(array)
            return tensor.view(torch.bfloat16) if array.dtype.name == "uint16" else tensor

        if self._form == "clips":
            tensors = {"pixel_values": tensor(self.clips).transpose(1, 2)}
        else:
            tensors = {
                "visible": tensor(self.visible),
                "target": tensor(self.target),
                "visible_index": tensor(self.visible_index),
                "masked_index": tensor(self.masked_index),
            }
        masked = tensor(self.bool_masked_pos)
        if masked.any():
            tensors["bool_masked_pos"] = masked
        labels = tensor(self.labels)
        if (labels >= 0).all():
            tensors["labels"] = labels
        return tensors

    def fill(self, out: Any) -> None:
        """Copies the pixels into memory of the caller, such as a pinned tensor, without the GIL.

        ``out`` is a tensor on the CPU or an array, contiguous, of the shape and type of ``clips``;
        with patches a pair, for ``visible`` and ``target``.
        """
        if self._form == "clips":
            outs = [out]
        else:
            if not isinstance(out, (tuple, list)) or len(out) != 2:
                raise OptionError("out: give a pair, for `visible` and `target`")
            outs = list(out)
        for part, one in enumerate(outs):
            self._native.copy_to(part, *_memory(one, self._dtype))

    def _need(self, name: str, form: str) -> None:
        if self._form != form:
            raise OptionError(f"a batch of form {self._form!r} has no `{name}`: make the Loader "
                              f"with form={form!r}")


class Loader:
    """An iterable over batches of training clips.

    A ``for`` loop runs to the end of an epoch, the next one through the next epoch. After a
    ``break``, the next loop goes on where this one has stopped. Batches depend on the data, the
    seed and their number only: not on threads or ranks, nor on where a run was resumed.

    Args:
        data: a folder of shards, its URL (``s3://``, ``gs://``, ``az://``, ``https://``), or
            several of them.
        batch_size: clips of a batch, **of all ranks together**; each rank gets its equal share.
        frames, size: frames of a clip, and height and width in pixels.
        mask_ratio: share of the tokens that are masked; None for no masks.
        mask_kind: "random", "tube", "frame" or "block".
        form: "clips" for all pixels, "patches" for those of the visible tokens and of the target.
        dtype: "float32" or "bfloat16", normalised, or "uint8".
        mean, std: of the normalisation, of R, G, B in 0 to 1; by default those of ImageNet. The
            program ``trainer`` uses 0.45 and 0.225.
        tubelet, patch: frames and pixels of a token.
        target_frames: frames of each tubelet in the target, all by default; for "patches".
        repeat: samples that are taken of a clip each time it is read (repeated augmentation).
        shuffle: whether clips come in random order with random windows, crops and flips. Otherwise
            each clip comes once, in order, its middle frames and centre square; the last batch may
            be smaller, and each rank gets its share of the clips.
        seed: of order, windows, crops, flips and masks.
        rank, world_size: by default those of the variables RANK and WORLD_SIZE, else 0 of 1.
        threads: by default one for each core.
        prefetch: batches made ahead, at most.
        memory: bytes of batches made ahead, at most.
        weights: share of each data set, relative to the others.
        where, split: which clips are used: a condition over the columns of the shards, as
            ``"label < 5 and motion > 0.1"``, and names of splits.
        area, aspect, flip: ranges of a crop's share of the frame and of its width over height, and
            the probability of a flip.
        cache, cache_size: a folder for what is fetched from object stores, and its limit in bytes.
        max_bad: clips that cannot be read and are skipped before there is an error.

    Raises:
        OptionError: an argument is invalid or does not fit the data.
        DataError: the data is missing, damaged, or cannot be reached.
        ProcessError: it is made in a worker of a DataLoader.
    """

    def __init__(
        self,
        data: Path | Sequence[Path],
        batch_size: int = 8,
        frames: int = 16,
        size: int = 224,
        *,
        mask_ratio: float | None = 0.9,
        mask_kind: str = "random",
        form: str = "clips",
        dtype: str = "float32",
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        tubelet: int = 2,
        patch: int = 16,
        target_frames: int | None = None,
        repeat: int = 1,
        shuffle: bool = True,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        threads: int | None = None,
        prefetch: int = 3,
        memory: int = 2 << 30,
        weights: Sequence[float] | None = None,
        where: str | None = None,
        split: str | Sequence[str] | None = None,
        area: tuple[float, float] = (0.5, 1.0),
        aspect: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        cache: Path | None = None,
        cache_size: int | None = None,
        max_bad: int = 100,
    ):
        self._pid = os.getpid()
        check_process("Loader", self._pid)
        rank, world_size = _ranks(rank, world_size)
        self._options = dict(
            batch_size=batch_size, frames=frames, size=size, tubelet=tubelet, patch=patch,
            mask_ratio=mask_ratio, mask_kind=mask_kind, form=form, dtype=dtype, mean=list(mean),
            std=list(std), target_frames=target_frames, repeat=repeat, shuffle=shuffle, seed=seed, rank=rank,
            world_size=world_size, threads=threads, prefetch=prefetch, memory=memory,
            area=list(area), aspect=list(aspect), flip=flip, max_bad=max_bad,
        )
        self._data = open_data(data, weights, where, split, cache, cache_size)
        clips = len(self._data)
        if shuffle:
            self._batches = max(1, clips * repeat // max(1, batch_size))
            self._step = batch_size
        else:
            self._step = max(1, batch_size // world_size)
            share = clips * (rank + 1) // world_size - clips * rank // world_size
            self._batches = -(-share // self._step)
        # Samples before the next batch.
        self._position = 0
        self._native: _native.Loader | None = None
        self._start()

    def __len__(self) -> int:
        """Batches of an epoch: as many samples as there are clips, times ``repeat``."""
        return self._batches

    def __iter__(self) -> Iterator[Batch]:
        shuffle = self._options["shuffle"]
        epoch_samples = len(self) * self._step
        if not shuffle and self._position >= epoch_samples:
            self._seek(0)
        end = (self._position // epoch_samples + 1) * epoch_samples
        while self._position < end:
            batch = self._next()
            if batch is None:
                self._position = end
                return
            yield batch

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self):
        no_pickle("Loader")

    def __repr__(self) -> str:
        options = self._options
        return (f"Loader({len(self._data)} clips, {len(self)} batches of {options['batch_size']} "
                f"an epoch, rank {options['rank']} of {options['world_size']})")

    @property
    def epoch(self) -> int:
        """Epoch of the next batch."""
        return self._position // (len(self) * self._step)

    def set_epoch(self, epoch: int) -> None:
        """Goes to the first batch of ``epoch``, if it is not there."""
        if not self._options["shuffle"]:
            epoch = 0
        self._seek(epoch * len(self) * self._step)

    def state_dict(self) -> dict[str, Any]:
        """Where the loader is, after the last batch that a loop has got: small, for JSON or torch.

        A batch that is in use counts as done.
        """
        options = self._options
        return {
            "position": self._position,
            "batch_size": options["batch_size"],
            "repeat": options["repeat"],
            "seed": options["seed"],
            "shuffle": options["shuffle"],
            "data": self._data.fingerprint(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a state, also that of another rank, number of ranks or threads.

        Raises:
            OptionError: the state is of other data, or of another batch size, repeat or seed.
        """
        now = self.state_dict()
        for name in _SAME:
            if state.get(name) != now[name]:
                what = "of other clips" if name == "data" else f"with {name} {state.get(name)!r}"
                mine = "" if name == "data" else f", this loader has {now[name]!r}"
                raise OptionError(f"the state is {what}{mine}")
        self._seek(int(state["position"]))

    def stats(self, restart: bool = False) -> dict[str, Any]:
        """What was measured since the start, or since it was last restarted.

        ``clips_per_second``; ``stall_fraction``, the share of the time that the caller waited;
        ``limit``, the stage that limits; ``first_batch_seconds``; ``skipped``; CPU of each stage;
        ``store``, requests, bytes and hit rate of object stores.
        """
        self._check()
        figures = None if self._native is None else self._native.figures(restart)
        return {} if figures is None else json.loads(figures)

    def dataset(self) -> Any:
        """The loader as an IterableDataset of PyTorch, of what ``Batch.torch`` returns.

        Use it with ``DataLoader(loader.dataset(), batch_size=None, num_workers=0)``.
        """
        from torch.utils.data import IterableDataset

        loader = self

        class Batches(IterableDataset):
            """Batches of a Loader."""

            def __iter__(self) -> Iterator[dict[str, Any]]:
                return (batch.torch() for batch in loader)

            def __len__(self) -> int:
                return len(loader)

            def set_epoch(self, epoch: int) -> None:
                """See Loader.set_epoch."""
                loader.set_epoch(epoch)

        return Batches()

    def close(self) -> None:
        """Ends the threads. A batch that is in use stays valid."""
        if self._native is not None and os.getpid() == self._pid:
            self._native.close()
        self._native = None
        self._batches_left = 0

    def _check(self) -> None:
        check_process("Loader", self._pid)

    def _start(self) -> None:
        self._native = self._data.loader({**self._options, "position": self._position})

    def _seek(self, position: int) -> None:
        self._check()
        if position != self._position:
            self.close()
            self._position = position
            self._start()

    def _next(self) -> Batch | None:
        self._check()
        native = self._native
        if native is None:
            raise DataError("the loader was closed")
        while not native.wait(_WAIT):
            pass
        batch = native.next()
        if batch is None:
            return None
        self._position = batch.position()
        options = self._options
        side = options["size"] // options["patch"]
        tokens = options["frames"] // options["tubelet"] * side * side
        return Batch(batch, options["form"], options["dtype"], tokens)


def _ranks(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """The rank, from the environment where it was not given."""
    if (rank is None) != (world_size is None):
        raise OptionError("give both rank and world_size, or neither")
    if rank is not None and world_size is not None:
        return rank, world_size
    try:
        return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    except ValueError:
        raise OptionError("the variables RANK and WORLD_SIZE are not numbers") from None


def _array(native: _native.Array) -> np.ndarray:
    import numpy as np

    return np.asarray(native)


def _from_bytes(data: bytearray, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    import numpy as np

    return np.frombuffer(data, dtype=dtype).reshape(shape)


def _memory(out: Any, dtype: str) -> tuple[int, int]:
    """Address and bytes of a tensor or an array."""
    if hasattr(out, "data_ptr"):
        if out.device.type != "cpu" or not out.is_contiguous():
            raise OptionError("out: give a contiguous tensor on the CPU; copy from it to the GPU")
        kind, place = str(out.dtype).rpartition(".")[2], (out.data_ptr(), out.nbytes)
    else:
        import numpy as np

        array = np.asarray(out)
        if not (array.flags.c_contiguous and array.flags.writeable):
            raise OptionError("out: give a contiguous array that can be written")
        kind, place = array.dtype.name, (array.ctypes.data, array.nbytes)
        if dtype == "bfloat16" and kind == "uint16":
            kind = dtype
    if kind != dtype:
        raise OptionError(f"out has dtype {kind}, the batch {dtype}")
    return place
