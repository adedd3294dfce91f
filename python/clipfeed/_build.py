"""Shards from videos, by the program shardtool."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Sequence
from typing import Any

from ._data import Path, paths_of
from ._errors import DataError, OptionError


def build(
    videos: Path | Sequence[Path],
    out: Path,
    *,
    progress: bool = True,
    **options: Any,
) -> dict[str, Any]:
    """Builds shards from videos: files, folders or URLs. Continues a build that was stopped.

    Runs ``shardtool build``, which must be installed (or named by the variable SHARDTOOL): options
    are its flags, with underscores, as ``frames=32, payload="h264", list=["a.csv", "b.csv"]``;
    ``shardtool build --help`` describes them. Shows a bar of tqdm, if that is installed.

    Returns:
        The report: ``clips``, ``videos``, ``shards``, ``rejected`` files and why, and more.

    Raises:
        OptionError: shardtool is not installed.
        DataError: the build failed; the message is shardtool's.
    """
    program = os.environ.get("SHARDTOOL") or shutil.which("shardtool")
    if program is None:
        raise OptionError("the program shardtool is not on the PATH: install it with `cargo "
                          "install --path shardtool` in a clone, or set SHARDTOOL to its file")
    command = [program, "build", *paths_of(videos), "--out", os.fspath(out), "--json"]
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            command.append(flag)
        elif isinstance(value, (list, tuple)):
            command += [flag, *map(str, value)]
        elif value is not False and value is not None:
            command += [flag, str(value)]
    bar = _bar() if progress else None
    environment = {**os.environ, "PROGRESS": "json"}
    # The report goes to a file: a pipe that nobody reads meanwhile would fill, and stop the build.
    with (
        tempfile.TemporaryFile("w+") as output,
        subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE, text=True,
                         env=environment) as process,
    ):
        said: deque[str] = deque(maxlen=20)
        try:
            for line in process.stderr or []:
                if line.startswith('{"progress":'):
                    _advance(bar, json.loads(line)["progress"])
                else:
                    said.append(line)
                    if progress:
                        _say(bar, line)
            process.wait()
            output.seek(0)
            report = output.read()
        except BaseException:
            # shardtool ends its workers, and what is done stays.
            process.terminate()
            raise
        finally:
            if bar is not None:
                bar.close()
    if process.returncode != 0:
        raise DataError("".join(said).strip() or f"shardtool ended with {process.returncode}")
    result: dict[str, Any] = json.loads(report)
    return result


def _bar() -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm(unit="video")


def _advance(bar: Any, progress: dict[str, Any]) -> None:
    if bar is not None:
        bar.total = progress["total"]
        bar.set_postfix_str(progress["message"], refresh=False)
        bar.update(progress["done"] - bar.n)


def _say(bar: Any, line: str) -> None:
    if bar is None:
        sys.stderr.write(line)
    else:
        bar.write(line.rstrip(), file=sys.stderr)
