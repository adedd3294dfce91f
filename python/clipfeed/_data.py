"""Arguments that name data."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any, Union

from ._errors import OptionError
from ._native import Data

Path = Union[str, "os.PathLike[str]"]


def open_data(
    data: Path | Sequence[Path],
    weights: Sequence[float] | None = None,
    where: str | None = None,
    split: str | Sequence[str] | None = None,
    cache: Path | None = None,
    cache_size: int | None = None,
    live: dict[str, Any] | None = None,
) -> Data:
    """Opens data sets, and chooses clips of them; videos where ``live`` says how."""
    paths = paths_of(data)
    if not paths:
        raise OptionError("data: give a folder or the URL of a data set, or several")
    if weights is None:
        weights = [1.0] * len(paths)
    if len(weights) != len(paths):
        raise OptionError(f"{len(weights)} weights for {len(paths)} data sets")
    if cache is None and cache_size is not None:
        raise OptionError("cache_size is that of a cache: give its folder as `cache`")
    splits = [split] if isinstance(split, str) else list(split or [])
    folder = None if cache is None else (os.fspath(cache), cache_size)
    numbers = [float(weight) for weight in weights]
    opened = Data(paths, numbers, where, splits, folder, live)
    for note in opened.notes():
        warnings.warn(note, stacklevel=3)
    return opened


def paths_of(data: Path | Sequence[Path]) -> list[str]:
    """One path or several as a list."""
    if isinstance(data, (str, os.PathLike)):
        data = [data]
    return [os.fspath(path) for path in data]


def is_remote(paths: Sequence[str]) -> bool:
    """Whether one of them is a URL."""
    return any("://" in path for path in paths)
