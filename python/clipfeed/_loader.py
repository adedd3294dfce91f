"""Loaders: batches for training and evaluation."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from . import _native
from ._batch import Batch, Format
from ._data import Path, open_data
from ._errors import DataError, OptionError, check_process, no_pickle

# What has to be the same for a state to mean the same batches.
_SAME = ("batch_size", "repeat", "seed", "shuffle", "data")


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
        threads: by default one for each core, shared by the LOCAL_WORLD_SIZE ranks of a machine.
        prefetch: batches made ahead, at most.
        memory: bytes of batches made ahead, at most.
        weights: share of each data set, relative to the others.
        where, split: which clips are used: a condition over the columns of the shards, as
            ``"label < 5 and motion > 0.1"``, and names of splits.
        fps, stride: ticks per second, and ticks from one frame of a clip to the next, where data is
            a folder of videos, or one. They are decoded by processes; this needs a clipfeed that
            was installed with its feature ``video``.
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
        fps: float = 30.0,
        stride: int = 4,
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
        self._options: dict[str, Any] = dict(
            batch_size=batch_size, frames=frames, size=size, tubelet=tubelet, patch=patch,
            mask_ratio=mask_ratio, mask_kind=mask_kind, form=form, dtype=dtype, mean=list(mean),
            std=list(std), target_frames=target_frames, repeat=repeat, shuffle=shuffle, seed=seed,
            rank=rank, world_size=world_size, threads=threads,
            local_ranks=_number("LOCAL_WORLD_SIZE", 1), prefetch=prefetch, memory=memory,
            area=list(area), aspect=list(aspect), flip=flip, max_bad=max_bad,
        )
        live = dict(frames=frames, fps=fps, stride=stride, python=sys.executable)
        self._data = open_data(data, weights, where, split, cache, cache_size, live)
        tokens = frames // max(1, tubelet) * (size // max(1, patch)) ** 2
        self._format = Format(form, dtype, tokens, mask_ratio is not None)
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

    def __reduce__(self) -> NoReturn:
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

        class Batches(IterableDataset):  # type: ignore[misc]
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
        batch = native.next()
        if batch is None:
            return None
        self._position = batch.position()
        return Batch(batch, self._format)


def _ranks(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """The rank, from the environment where it was not given."""
    if (rank is None) != (world_size is None):
        raise OptionError("give both rank and world_size, or neither")
    if rank is not None and world_size is not None:
        return rank, world_size
    return _number("RANK", 0), _number("WORLD_SIZE", 1)


def _number(variable: str, default: int) -> int:
    """A number in the environment, as torchrun sets it."""
    try:
        return int(os.environ.get(variable, default))
    except ValueError:
        raise OptionError(f"the variable {variable} is not a number") from None
