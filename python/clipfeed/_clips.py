"""Whole clips, one by one, and what a data set holds."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ._data import Path, is_remote, open_data, paths_of
from ._errors import ProcessError

if TYPE_CHECKING:
    import numpy as np


class Clips:
    """A map-style data set of whole stored clips, for ``torch.utils.data``.

    ``clips[i]`` is a pair: RGB pixels, uint8, (T, 3, H, W), and the class, -1 for none. All stored
    frames at their stored size: crop, resize and augment them as you like. Reading one by one is
    slower than a Loader, which reads only what a batch needs.

    Worker processes may read data on disk; each opens it anew.

    Args:
        data, where, split, cache, cache_size: as those of Loader.
    """

    def __init__(
        self,
        data: Path | Sequence[Path],
        *,
        where: str | None = None,
        split: str | Sequence[str] | None = None,
        cache: Path | None = None,
        cache_size: int | None = None,
    ):
        self._arguments: dict[str, Any] = dict(
            data=paths_of(data), where=where, split=split, cache=cache, cache_size=cache_size
        )
        self._open()

    def _open(self) -> None:
        self._pid = os.getpid()
        self._data = open_data(**self._arguments)
        self._ids = self._data.clip_ids()

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> tuple[np.ndarray[Any, Any], int]:
        import numpy as np

        if os.getpid() != self._pid:
            if is_remote(self._arguments["data"]):
                raise ProcessError("Clips of an object store cannot be read in a forked process: "
                                   "use DataLoader(..., multiprocessing_context='spawn')")
            self._open()
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"clip {index} of {count}")
        array, label = self._data.clip(int(self.clip_ids[index]))
        return np.asarray(array), label

    def __getstate__(self) -> dict[str, Any]:
        return self._arguments

    def __setstate__(self, arguments: dict[str, Any]) -> None:
        self._arguments = arguments
        self._open()

    @property
    def clip_ids(self) -> np.ndarray[Any, Any]:
        """The number of each clip in the data, int64."""
        import numpy as np

        return np.frombuffer(self._ids, dtype="int64")

    @property
    def labels(self) -> np.ndarray[Any, Any]:
        """The class of each clip, int64; -1 for none."""
        import numpy as np

        return np.frombuffer(self._data.labels(), dtype="int64")

    @property
    def classes(self) -> list[str]:
        """Names of the classes; empty where classes are numbers only."""
        names: list[str] = json.loads(self._data.describe())[0]["classes"]
        return names


def inspect(data: Path) -> dict[str, Any]:
    """What a data set holds.

    ``clips``, ``videos``, ``shards``, ``bytes`` on disk, ``frames`` of a clip, ``sizes`` as width
    and height, ``payload``, ``classes``, and the ``options`` that it was built with.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    found: dict[str, Any] = json.loads(open_data([data]).describe())[0]
    return found
