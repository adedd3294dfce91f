"""Clips of video for training in Python: batches from Parquet shards, on disk or in object stores.

    import clipfeed

    loader = clipfeed.Loader("shards", batch_size=8, frames=16, size=224, mask_ratio=0.9)
    for batch in loader:
        loss = model(**batch.torch()).loss

Shards are made by ``clipfeed.build`` or the program ``shardtool``. Reading, decompression, crops,
colour conversion and masks are done by native threads: use no worker processes.
"""

from ._batch import Batch
from ._build import build
from ._clips import Clips, inspect
from ._errors import DataError, Error, OptionError, ProcessError
from ._loader import Loader
from ._native import VERSION as __version__

__all__ = [
    "Batch",
    "Clips",
    "DataError",
    "Error",
    "Loader",
    "OptionError",
    "ProcessError",
    "build",
    "inspect",
]
