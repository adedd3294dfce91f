"""What goes wrong, and in which process."""

import os
import sys
from typing import NoReturn


class Error(Exception):
    """Any error of this package."""


class OptionError(Error, ValueError):
    """An argument is invalid, or does not fit the data."""


class DataError(Error):
    """Data is missing, damaged, or cannot be reached."""


class ProcessError(Error, RuntimeError):
    """A loader is used where its threads are not: in a forked process or in a DataLoader worker."""


_ADVICE = (
    "it has threads of its own, which replace worker processes: use it in the main process, with "
    "DataLoader(loader.dataset(), batch_size=None, num_workers=0), or without a DataLoader"
)


def check_process(name: str, pid: int) -> None:
    """Fails in a process that was forked from ``pid``, and in a worker of a DataLoader."""
    if os.getpid() != pid:
        raise ProcessError(f"this {name} was made in another process, from which this one was "
                           f"forked; {_ADVICE}")
    torch_data = sys.modules.get("torch.utils.data")
    if torch_data is not None and torch_data.get_worker_info() is not None:
        raise ProcessError(f"a {name} cannot be used in a worker of a DataLoader: {_ADVICE}")


def no_pickle(name: str) -> NoReturn:
    """Fails: a process that is spawned gets a copy of what it works on."""
    raise ProcessError(f"a {name} cannot be copied into another process; {_ADVICE}")
