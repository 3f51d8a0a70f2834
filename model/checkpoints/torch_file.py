"""Reads what `torch.save` writes, both its zip files and the older plain ones, without running anything from them.

The content is read as an inert tree (`inert_pickle`). A tensor's numbers are read only when they are asked for, so the state of
an optimizer costs nothing. No more is read than the file's size, whatever the file claims.

Layouts: a zip file holds the pickle `NAME/data.pkl` and the numbers of each storage, as they are in memory, in `NAME/data/KEY`;
the older file holds pickles of a magic number, the version, the machine, the content and the keys, then for each key the count
(int64) and the numbers.
"""

from __future__ import annotations

import io
import math
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from model.checkpoints.inert_pickle import Made, Name, Persistent, PickleError, read_pickle
from model.errors import LONGEST_SHOWN

ZIP_BEGINS: Final = b"PK\x03\x04"
LEGACY_MAGIC: Final = 0x1950A86A20F9469CFC6C
MAX_DIMENSIONS: Final = 8
FALSE_CLAIM: Final = "claims more numbers than it holds: fetch or save it again"
FOREIGN_BYTES: Final = "was written by a machine of another byte order: load and save it again with PyTorch there"
STORAGE_DTYPES: Final = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# PyTorch's functions whose calls stand for a tensor, for one that they wrap, or for a call of another function.
_REBUILT: Final = frozenset({"torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"})
_WRAPPED: Final = frozenset({"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"})
_TYPED: Final = "torch._tensor._rebuild_from_type_v2"
_MOST_WRAPS: Final = 4


class FormatError(ValueError):
    """A file cannot be read; the message continues the file's name: what is wrong, and what to do."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredTensor:
    """Where a tensor's numbers are: the storage, and offset and strides in it, counted in numbers as PyTorch does."""

    key: str
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(slots=True)
class TorchFile:
    """A file of `torch.save` of which the pickle has been read."""

    content: Any
    """See `inert_pickle.Pickle.value`."""
    size_bytes: int
    _record: Callable[[str], bytes]
    """Reads the numbers of a storage, given its key."""
    _storages: dict[str, bytearray] = field(default_factory=dict)

    def tensor(self, stored: StoredTensor) -> Tensor:
        """Read a tensor into memory; tensors of one storage share it.

        Raises:
            FormatError: The file holds fewer numbers than the tensor claims.
        """
        held = self._storages.get(stored.key)
        if held is None:
            held = self._storages[stored.key] = bytearray(self._record(stored.key))
            # Otherwise overlapping records could give more numbers than the file holds.
            if sum(map(len, self._storages.values())) > self.size_bytes:
                raise FormatError(FALSE_CLAIM)
        if 0 in stored.size:
            return torch.empty(stored.size, dtype=stored.dtype)
        count = len(held) // stored.dtype.itemsize
        last = stored.offset + sum((size - 1) * stride for size, stride in zip(stored.size, stored.stride, strict=True))
        if last >= count or math.prod(stored.size) > count:
            raise FormatError(FALSE_CLAIM)
        numbers = torch.frombuffer(held, dtype=stored.dtype, count=count)
        return numbers.as_strided(stored.size, stored.stride, stored.offset)


@contextmanager
def open_torch_file(path: Path) -> Iterator[TorchFile]:
    """Open a file of `torch.save`, to read tensors from it.

    Raises:
        FormatError: It is another file, or is damaged; also raised later, when tensors are read.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        begins = file.read(len(ZIP_BEGINS))
    if not begins:
        raise FormatError("is empty: fetch or save it again")
    try:
        if begins != ZIP_BEGINS:
            yield _open_legacy(path)
            return
        with zipfile.ZipFile(path) as archive:
            yield _open_zip(archive, path.stat().st_size)
    except PickleError as error:
        raise FormatError(f"is damaged, or is no weights file ({error}): fetch or save it again") from None
    except (zipfile.BadZipFile, NotImplementedError, EOFError):
        raise FormatError("is damaged: fetch or save it again") from None


def stored_tensor(value: Any) -> StoredTensor | None:
    """The tensor that a value of the content stands for; None if it stands for something else.

    Raises:
        FormatError: It is an impossible tensor.
    """
    for _ in range(_MOST_WRAPS):
        if not isinstance(value, Made) or not isinstance(value.args, tuple):
            return None
        if value.called in _REBUILT and len(value.args) >= 4:
            return _laid_out(*value.args[:4])
        if value.called in _WRAPPED and value.args:
            value = value.args[0]
        elif value.called == _TYPED and len(value.args) >= 3:
            value = Made(value.args[0], value.args[2])
        else:
            return None
    return None


def _laid_out(storage: Any, offset: Any, size: Any, stride: Any) -> StoredTensor:
    identity = storage.id if isinstance(storage, Persistent) else None
    key, dtype = _storage(identity)
    sizes, strides = _whole_numbers(size), _whole_numbers(stride)
    (first,) = _whole_numbers((offset,))
    if len(sizes) != len(strides):
        raise FormatError("is damaged: a tensor has fewer strides than dimensions; fetch or save it again")
    return StoredTensor(key, dtype, first, sizes, strides)


def _storage(identity: Any) -> tuple[str, torch.dtype]:
    """Key and type of a storage that a pickle refers to: `("storage", class, key, device, count, ...)`."""
    if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage" or not isinstance(identity[1], Name):
        raise FormatError("refers to something else than numbers: save it again with torch.save(model.state_dict(), ...)")
    kind, key = identity[1], identity[2]
    if kind.module not in ("torch", "torch.cuda") or kind.name not in STORAGE_DTYPES:
        raise FormatError(
            f"holds numbers of the kind {str(kind)!r:{LONGEST_SHOWN}}: save it again after model.float() where it was made"
        )
    if type(key) is not str or (len(identity) > 5 and identity[5] is not None):
        raise FormatError("has a layout that is too old: load and save it again with PyTorch 1.6 or later")
    return key, STORAGE_DTYPES[kind.name]


def _whole_numbers(values: Any) -> tuple[int, ...]:
    if isinstance(values, Made) and values.called == "torch.Size" and isinstance(values.args, tuple) and values.args:
        values = values.args[0]
    if not isinstance(values, list | tuple) or len(values) > MAX_DIMENSIONS:
        raise FormatError("is damaged: a tensor has no shape; fetch or save it again")
    if not all(type(value) is int and 0 <= value < 2**48 for value in values):
        raise FormatError("is damaged: a tensor has an impossible shape; fetch or save it again")
    return tuple(values)


def _open_zip(archive: zipfile.ZipFile, size_bytes: int) -> TorchFile:
    names = archive.namelist()
    pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise FormatError("is a zip file, but none of PyTorch: give the file that torch.save has written")
    folder = pickles[0].removesuffix("data.pkl")

    def record(name: str) -> bytes:
        """One file of the archive. Compressed ones are refused, since `torch.save` does not compress."""
        try:
            found = archive.getinfo(folder + name)
        except KeyError:
            raise FormatError("is damaged: numbers are missing in it; fetch or save it again") from None
        if found.compress_type != zipfile.ZIP_STORED or found.file_size != found.compress_size or found.flag_bits & 1:
            raise FormatError("is compressed, which torch.save does not do: unpack it, or save it again")
        if found.file_size > size_bytes:
            raise FormatError(FALSE_CLAIM)
        return archive.read(found)

    if folder + "byteorder" in names and record("byteorder") != sys.byteorder.encode():
        raise FormatError(FOREIGN_BYTES)
    return TorchFile(read_pickle(io.BytesIO(record("data.pkl"))).value, size_bytes, lambda key: record(f"data/{key}"))


def _open_legacy(path: Path) -> TorchFile:
    stream = io.BytesIO(path.read_bytes())
    if read_pickle(stream).value != LEGACY_MAGIC:
        raise FormatError("is a pickle, but none of PyTorch; reading it could run code, so it is refused: use torch.save")
    read_pickle(stream)
    machine = read_pickle(stream).value
    if not isinstance(machine, dict) or machine.get("little_endian") is not (sys.byteorder == "little"):
        raise FormatError(FOREIGN_BYTES)
    content = read_pickle(stream)
    keys = read_pickle(stream).value
    if not isinstance(keys, list):
        raise FormatError("is damaged: fetch or save it again")
    # Old PyTorch refers to the classes of modules in this way too.
    references = [reference.id for reference in content.references if isinstance(reference.id, tuple)]
    dtypes = dict(_storage(identity) for identity in references if identity[:1] == ("storage",))
    held = stream.getbuffer()
    places: dict[str, tuple[int, int]] = {}
    at = stream.tell()
    for key in keys:
        if type(key) is not str or key not in dtypes or key in places:
            raise FormatError("is damaged: fetch or save it again")
        count = int.from_bytes(held[at : at + 8], "little", signed=True)
        end = at + 8 + count * dtypes[key].itemsize
        if count < 0 or end > len(held):
            raise FormatError("is cut short: fetch or save it again")
        places[key] = (at + 8, end)
        at = end

    def record(key: str) -> bytes:
        if key not in places:
            raise FormatError("is damaged: numbers are missing in it; fetch or save it again")
        begin, end = places[key]
        return bytes(held[begin:end])

    return TorchFile(content.value, len(held), record)
