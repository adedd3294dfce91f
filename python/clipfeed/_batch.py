"""Batches: arrays and tensors that share their memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import _native
from ._errors import OptionError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Format:
    """What the batches of a loader hold."""

    form: str
    dtype: str
    tokens: int
    has_masks: bool


class Batch:
    """Some clips, with masks and labels.

    Arrays are made when they are asked for. ``clips``, ``visible`` and ``target`` are the memory of
    the batch itself, without a copy, which goes back to the loader when nothing refers to it.
    bfloat16 is not known to numpy: such arrays have dtype uint16, and
    ``torch.from_numpy(a).view(torch.bfloat16)`` shares their memory.

    B is the number of clips, T that of frames, S the size in pixels, N the number of tokens:
    ``T / tubelet * (S / patch) ** 2``, in the order of time, rows and columns.
    """

    def __init__(self, native: _native.Batch, format: Format):
        self._native = native
        self._format = format

    def __len__(self) -> int:
        return len(self._native)

    def __repr__(self) -> str:
        form, dtype = self._format.form, self._format.dtype
        return f"Batch({len(self)} clips, form={form!r}, dtype={dtype!r})"

    @property
    def clips(self) -> np.ndarray[Any, Any]:
        """All pixels, (B, 3, T, S, S): normalised R, G, B, or their values for uint8."""
        self._need("clips", "clips")
        return _array(self._native.pixels())

    @property
    def visible(self) -> np.ndarray[Any, Any]:
        """The pixels of the visible tokens, (B, visible, 3, tubelet, patch, patch)."""
        self._need("visible", "patches")
        return _array(self._native.pixels())

    @property
    def target(self) -> np.ndarray[Any, Any]:
        """The pixels of the masked tokens, (B, masked, target_frames, patch, patch, 3)."""
        self._need("target", "patches")
        return _array(self._native.target())

    @property
    def bool_masked_pos(self) -> np.ndarray[Any, Any]:
        """Which tokens are masked, (B, N), bool."""
        return _from_bytes(self._native.masked(), "bool", (len(self), self._format.tokens))

    @property
    def visible_index(self) -> np.ndarray[Any, Any]:
        """The visible tokens of each clip, ascending, (B, visible), int64."""
        return _from_bytes(self._native.visible_index(), "int64", (len(self), -1))

    @property
    def masked_index(self) -> np.ndarray[Any, Any]:
        """The masked tokens of each clip, ascending, (B, masked), int64."""
        return _from_bytes(self._native.masked_index(), "int64", (len(self), -1))

    @property
    def labels(self) -> np.ndarray[Any, Any]:
        """The class of each clip, (B,), int64; -1 for none."""
        return _from_bytes(self._native.labels(), "int64", (len(self),))

    @property
    def clip_ids(self) -> np.ndarray[Any, Any]:
        """The number of each clip in the data, (B,), int64: several data sets are counted on."""
        return _from_bytes(self._native.clip_ids(), "int64", (len(self),))

    @property
    def skipped(self) -> list[tuple[int, str]]:
        """Clips that are missing because they could not be read: their numbers, and why."""
        return self._native.skipped()

    def torch(self) -> dict[str, Any]:
        """Tensors that share the memory of the batch, named as Hugging Face's models name them.

        With clips: ``pixel_values`` (B, T, 3, S, S), and ``bool_masked_pos``; without masks
        ``labels`` in its place, where all clips have one. With patches: ``visible``, ``target``,
        ``visible_index``, ``masked_index`` and ``bool_masked_pos``.
        """
        import torch

        # Few calls, and none that computes: after a step of training every one of them is cold.
        tensor = torch.from_numpy

        def pixels(array: np.ndarray[Any, Any]) -> Any:
            is_bits = self._format.dtype == "bfloat16"
            return tensor(array).view(torch.bfloat16) if is_bits else tensor(array)

        if self._format.form == "clips":
            tensors = {"pixel_values": pixels(self.clips.swapaxes(1, 2))}
        else:
            tensors = {
                "visible": pixels(self.visible),
                "target": pixels(self.target),
                "visible_index": tensor(self.visible_index),
                "masked_index": tensor(self.masked_index),
            }
        if self._format.has_masks:
            tensors["bool_masked_pos"] = tensor(self.bool_masked_pos)
        elif self._native.is_labelled():
            tensors["labels"] = tensor(self.labels)
        return tensors

    def fill(self, out: Any) -> None:
        """Copies the pixels into memory of the caller, such as a pinned tensor, without the GIL.

        ``out`` is a tensor on the CPU or an array, contiguous, of the shape and type of ``clips``;
        with patches a pair, for ``visible`` and ``target``.
        """
        if self._format.form == "clips":
            outs: Sequence[Any] = [out]
        else:
            if not isinstance(out, (tuple, list)) or len(out) != 2:
                raise OptionError("out: give a pair, for `visible` and `target`")
            outs = out
        for part, one in enumerate(outs):
            self._native.copy_to(part, *_memory(one, self._format.dtype))

    def _need(self, name: str, form: str) -> None:
        if self._format.form != form:
            raise OptionError(f"a batch of form {self._format.form!r} has no `{name}`: make the "
                              f"Loader with form={form!r}")


def _array(native: _native.Array | None) -> np.ndarray[Any, Any]:
    import numpy as np

    return np.asarray(native)


def _from_bytes(data: bytearray, dtype: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
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

        array: np.ndarray[Any, Any] = np.asarray(out)
        if not (array.flags.c_contiguous and array.flags.writeable):
            raise OptionError("out: give a contiguous array that can be written")
        kind, place = array.dtype.name, (array.ctypes.data, array.nbytes)
        if dtype == "bfloat16" and kind == "uint16":
            kind = dtype
    if kind != dtype:
        raise OptionError(f"out has dtype {kind}, the batch {dtype}")
    return place
