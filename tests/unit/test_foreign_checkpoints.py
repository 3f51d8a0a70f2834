"""Checkpoints of other training jobs: their weights and settings are read, and nothing in them is run."""

from __future__ import annotations

import argparse
import io
import json
import pickle
import random
import struct
import subprocess
import sys
import types
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.checkpoints import inert_pickle
from model.checkpoints.loading import WeightsError, load, network_with, read_weights
from model.errors import ConfigError
from model.recognisers.parseq.config import PARSeqConfig
from model.recognisers.parseq.network import PARSeq
from tests.training_runs import ROOT, environment

SMALL = PARSeqConfig(
    embed_dim=24, enc_num_heads=2, dec_num_heads=2, enc_depth=1, max_label_length=4, charset_train="abc", img_size=(16, 32)
)
FLAT = {**SMALL.to_dict(), "img_size": [16, 32], "patch_size": [4, 8], "name": "parseq", "lr": 7e-4, "batch_size": 384}


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    torch.manual_seed(3)
    return dict(PARSeq(SMALL).state_dict())


def assert_read(path: Path, weights: dict[str, Tensor], *, told: bool = True) -> None:
    state, inside = read_weights(path)
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[name], value) and state[name].dtype == value.dtype for name, value in weights.items())
    assert inside == (SMALL if told else None)


def saved(path: Path, content: Any, *, legacy: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


class ListConfig:
    """As OmegaConf keeps lists."""

    def __init__(self, values: Any) -> None:
        self._content = [Node(value) for value in values]
        self._parent = self


class Node:
    """As OmegaConf keeps values."""

    def __init__(self, value: Any) -> None:
        self.__setstate__({"_metadata": Path("x"), "_val": value})

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class DictConfig:
    """As OmegaConf keeps mappings."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._metadata = Path("x")
        self._content = {
            name: ListConfig(value) if isinstance(value, list | tuple) else Node(value) for name, value in values.items()
        }


class AttributeDict(dict[str, Any]):
    """A mapping of another library."""


@dataclass
class Settings:
    """A data class of another job."""

    embed_dim: int = 24
    enc_num_heads: int = 2
    dec_num_heads: int = 2
    enc_depth: int = 1
    max_label_length: int = 4
    charset_train: str = "abc"
    img_size: tuple[int, int] = (16, 32)
    weird: Any = None


def with_numpy(values: dict[str, Any]) -> dict[str, Any]:
    kinds: dict[type, Callable[[Any], Any]] = {int: np.int64, float: np.float64, bool: np.bool_, str: np.str_}
    changed = {name: kinds[type(value)](value) if type(value) in kinds else value for name, value in values.items()}
    return {**changed, "img_size": [np.int32(16), np.uint8(32)], "patch_size": torch.Size([4, 8]), "stem": "patch"}


KEPT_IN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "dict": dict,
    "config": lambda values: {"config": {name: values[name] for name in SMALL.to_dict()}, "lr": 1.0},
    "namespace": lambda values: argparse.Namespace(**values, output=Path("/tmp/x"), seed=np.int64(3)),
    "simple namespace": lambda values: types.SimpleNamespace(**values),
    "omegaconf": DictConfig,
    "omegaconf list": lambda values: {**values, "img_size": ListConfig([16, 32])},
    "attribute dict": AttributeDict,
    "ordered": OrderedDict,
    "numpy": with_numpy,
    "data class": lambda _: Settings(weird=threading_like()),
    "namespace in config": lambda values: {"config": argparse.Namespace(**values)},
}


def threading_like() -> Any:
    """A function, and a class that nobody has."""
    return {"function": json.dumps, "class": Node, "partial": [sys.intern, Path("y")]}


@pytest.mark.parametrize("kept_in", KEPT_IN)
def test_settings_are_read_whatever_they_are_kept_in(kept_in: str, weights: dict[str, Tensor], tmp_path: Path) -> None:
    checkpoint = {
        "epoch": np.int64(3),
        "global_step": 1000,
        "pytorch-lightning_version": "2.2.0.post0",
        "state_dict": OrderedDict((f"model.{name}", value) for name, value in weights.items()),
        "callbacks": {"ModelCheckpoint": {"dirpath": Path("/tmp/x"), "best": torch.tensor(0.9)}},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}}],
        # As PyTorch up to 2.3 kept OneCycleLR.
        "lr_schedulers": [{"total_steps": 10, "anneal_func": torch.optim.lr_scheduler.OneCycleLR._annealing_cos}],
        "hyper_parameters": KEPT_IN[kept_in](FLAT),
    }
    assert_read(saved(tmp_path / "w.ckpt", checkpoint), weights)
    assert_read(saved(tmp_path / "old.ckpt", checkpoint, legacy=True), weights)
    assert load(weights=tmp_path / "w.ckpt").config == SMALL


@pytest.mark.parametrize(
    "value", [torch.tensor(24), Path("24"), [24, 24], 10**5000, np.arange(3), {}, "24"], ids=lambda value: str(type(value))
)
def test_settings_that_are_no_settings_are_not_told(value: Any, weights: dict[str, Tensor], tmp_path: Path) -> None:
    checkpoint = {"state_dict": weights, "hyper_parameters": {**FLAT, "embed_dim": value}}
    assert_read(saved(tmp_path / "w.ckpt", checkpoint), weights, told=False)


@pytest.mark.parametrize(
    "prefix", ["", "model.", "module.", "_orig_mod.", "module._orig_mod.model.", "model.module.", "model.model."]
)
@pytest.mark.parametrize("inside", ["", "state_dict", "model", "model_state_dict", "module", "net", "weights"])
def test_prefixes_and_what_weights_are_kept_in(prefix: str, inside: str, weights: dict[str, Tensor], tmp_path: Path) -> None:
    state = {f"{prefix}{name}": value for name, value in weights.items()}
    checkpoint: dict[str, Any] = {inside: state, "epoch": 3} if inside else state
    assert_read(saved(tmp_path / "w.pt", checkpoint), weights, told=False)
    assert_read(saved(tmp_path / "old.pt", checkpoint, legacy=True), weights, told=False)


def test_prefixes_within_names_and_beside_other_tensors(weights: dict[str, Tensor], tmp_path: Path) -> None:
    state = {f"_orig_mod.model.{name.replace('encoder.', 'encoder._orig_mod.')}": value for name, value in weights.items()}
    state |= {"_orig_mod.glyph_head.weight": torch.zeros(2), "n_averaged": torch.tensor(3)}
    assert_read(saved(tmp_path / "w.pt", {"model": state, "args": argparse.Namespace(x=1)}), weights, told=False)


def test_parameters_and_other_types(weights: dict[str, Tensor], tmp_path: Path) -> None:
    half = {name: torch.nn.Parameter(value.half(), requires_grad=False) for name, value in weights.items()}
    marked = torch.nn.Parameter(half["pos_queries"].data)
    marked.note = "a parameter with an attribute"  # type: ignore[attr-defined]
    shared = torch.arange(200.0).bfloat16()
    halves = {**half, "pos_queries": marked, "head.bias": shared[3:7], "head.weight": shared.view(2, 100)[:, :96].t()[:24].t()}
    for legacy in (False, True):
        state, _ = read_weights(saved(tmp_path / "w.pt", halves, legacy=legacy))
        assert all(torch.equal(state[name], value) and state[name].dtype == value.dtype for name, value in halves.items())


@pytest.mark.parametrize("content", [lambda m: m, lambda m: {"model": m, "epoch": 3}, lambda m: {"state_dict": {"encoder": m}}])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_whole_module_is_refused_with_what_to_do(content: Callable[[Any], Any], legacy: bool, tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pt", content(PARSeq(SMALL)), legacy=legacy)
    with pytest.raises(
        WeightsError,
        match=r"object of 'model\.recognisers\.parseq\.network\.PARSeq'.* refused: .*torch\.save\(model\.state_dict",
    ):
        read_weights(path)


def test_weights_that_nobody_would_look_for_are_no_foreign_object(weights: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"does not hold a state dict .*torch\.save\(model\.state_dict"):
        read_weights(saved(tmp_path / "w.pt", {"generator": OrderedDict(weights), "epoch": 3}))


def test_a_torchscript_program_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"refused: .*torch\.save\(model\.state_dict"):
        read_weights(tmp_path / "w.pt")


def test_two_networks_in_one_file(weights: dict[str, Tensor], tmp_path: Path) -> None:
    both = {f"{prefix}.{name}": value for prefix in ("model", "module") for name, value in weights.items()}
    with pytest.raises(WeightsError, match="holds several networks, with the prefixes 'model' and 'module'"):
        read_weights(saved(tmp_path / "both.pt", both))
    with pytest.raises(WeightsError, match="twice"):
        read_weights(saved(tmp_path / "twice.pt", {"encoder.x": torch.zeros(1), "encoder._orig_mod.x": torch.zeros(1)}))


@pytest.mark.parametrize("name", ["b" * 100_000, "two\nlines\x1b[31m"])
def test_what_is_said_of_names_is_one_short_line(name: str, weights: dict[str, Tensor], tmp_path: Path) -> None:
    for content in (
        {**weights, name: torch.zeros(1)},
        {f"{prefix}.{key}": value for prefix in (name, f"{name}c") for key, value in weights.items()},
        {f"{name}.x": torch.zeros(1), f"{name}._orig_mod.x": torch.zeros(1)},
    ):
        with pytest.raises(WeightsError) as told:
            network_with(*read_weights(saved(tmp_path / "w.pt", content)), "w.pt", SMALL)
        assert len(str(told.value)) < 1000
        assert str(told.value).isprintable()


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "w.pt").touch()
    (tmp_path / "text.pt").write_text("hello\n")
    for path, said in (
        (tmp_path / "w.pt", "is empty"),
        (tmp_path / "text.pt", "no pickle, or a broken one"),
        (tmp_path / ("w" * 1000), "File name too long"),
    ):
        with pytest.raises(WeightsError, match=said):
            read_weights(path)


@pytest.mark.parametrize(
    "claims", [{"embed_dim": 2**30}, {"enc_depth": 10**6}, {"max_label_length": 2**30}, {"img_size": (2**20, 2**20)}]
)
def test_a_file_that_tells_of_more_than_it_holds(claims: dict[str, Any], weights: dict[str, Tensor], tmp_path: Path) -> None:
    checkpoint = {"state_dict": weights, "hyper_parameters": {**FLAT, **claims}}
    with pytest.raises(WeightsError, match="tells of a larger network than it holds"):
        read_weights(saved(tmp_path / "w.ckpt", checkpoint))


# Pickles by hand. Each calls what must not be called, in another way; the file `ran` would tell.
RUN = b"__import__('pathlib').Path('ran').touch()"
TOUCH = b"touch ran"


def text(value: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value


def call(module: bytes, name: bytes, *args: bytes) -> bytes:
    return b"c" + module + b"\n" + name + b"\n(" + b"".join(args) + b"tR"


TOUCHED = b"(" + text(TOUCH) + b"tR"
OBJECT = b"cbuiltins\nobject\n"
GETATTR = b"cbuiltins\ngetattr\n"
ATTACKS: dict[str, bytes] = {
    "system": call(b"os", b"system", text(TOUCH)),
    "posix": call(b"posix", b"system", text(TOUCH)),
    "eval": call(b"builtins", b"eval", text(RUN)),
    "exec in Python 2": call(b"__builtin__", b"eval", text(RUN)),
    "by names on the stack": text(b"builtins") + text(b"exec") + b"\x93(" + text(RUN) + b"tR",
    "dotted name": text(b"os") + text(b"system.__call__") + b"\x93(" + text(TOUCH) + b"tR",
    "importlib": call(b"importlib", b"import_module", text(b"antigravity")),
    "getattr chain": GETATTR + b"(" + call(b"importlib", b"import_module", text(b"os")) + text(b"system") + b"tR" + TOUCHED,
    "obj": b"(cbuiltins\neval\n" + text(RUN) + b"o",
    "inst": b"(" + text(RUN) + b"ibuiltins\neval\n",
    "newobj": b"cbuiltins\neval\n(" + text(RUN) + b"t\x81",
    "newobj_ex": b"csubprocess\nPopen\n((" + text(b"touch") + text(b"ran") + b"lt}\x92",
    "build": b"ctorch\nTensor\n)\x81}(" + text(b"__setstate__") + b"cos\nsystem\nub" + text(TOUCH) + b"b",
    "build of slots": b"ctorch._utils\n_rebuild_tensor_v2\n(N}(" + text(b"__defaults__") + b"(cos\nsystem\ntutb",
    "set attribute": call(b"builtins", b"setattr", b"ctorch\nload\n", text(b"x"), b"cos\nsystem\n"),
    "copyreg": call(b"copyreg", b"_reconstructor", b"csubprocess\nPopen\n", b"cbuiltins\nobject\n", b"N"),
    "copyreg's numbers": call(b"copyreg", b"add_extension", text(b"os"), text(b"system"), b"K\x01") + b"0\x82\x01" + TOUCHED,
    "codecs": call(b"_codecs", b"encode", text(RUN), text(b"unicode_escape")),
    "codec lookup": call(b"_codecs", b"decode", call(b"_codecs", b"encode", text(b"41"), text(b"latin1")), text(b"hex")),
    "nested pickle": call(b"pickle", b"loads", b"C" + bytes([3]) + b"cx."),
    "nested torch file": call(b"torch.storage", b"_load_from_bytes", b"C\x03cx."),
    "torch.load": call(b"torch", b"load", text(b"evil.pt")),
    "map": call(b"builtins", b"list", call(b"builtins", b"map", b"cbuiltins\neval\n", b"(" + text(RUN) + b"l")),
    "partial": b"cfunctools\npartial\n(cos\nsystem\ntR(" + text(TOUCH) + b"tR",
    "apply of a class": call(b"torch._tensor", b"_rebuild_from_type_v2", b"cos\nsystem\n", OBJECT, b"(" + text(TOUCH) + b"t"),
    "rebuilt with hooks": call(b"torch._utils", b"_rebuild_parameter", call(b"os", b"system", text(TOUCH)), b"\x88", b"}"),
    "persistent reference to a call": call(b"os", b"system", text(TOUCH)) + b"Q",
    "persistent reference as text": b"Pos.system('touch ran')\n",
    "storage of another class": b"(" + text(b"storage") + b"cos\nsystem\n" + text(b"touch ran") + text(b"cpu") + b"K\x01tQ",
    "hash of a key": b"}" + b"(cos\nsystem\n(" + text(TOUCH) + b"tRK\x01u",
    "appends": b"cos\nsystem\n(" + text(TOUCH) + b"e",
    "set item": b"cos\nenviron\n(" + text(b"LD_PRELOAD") + text(b"x.so") + b"u",
    "numpy": call(b"numpy.testing._private.utils", b"runstring", text(RUN), b"}"),
    "numpy file": call(b"numpy", b"load", text(b"evil.npy"), b"N", b"\x88"),
    "runpy": call(b"runpy", b"run_path", text(b"evil.py")),
    "pty": call(b"pty", b"spawn", text(b"sh")),
    "ctypes": call(b"ctypes", b"CDLL", text(b"evil.so")),
    "exit": call(b"sys", b"exit", text(b"x")),
    "buffers": b"\x97\x98",
}  # fmt: skip
PLACES = ["alone", "weight", "setting", "beside", "key"]


def around(attack: bytes, place: str) -> bytes:
    """A pickle with the attack as all of its content, a weight, a setting, something beside them, or a key."""
    if place == "alone":
        return b"\x80\x02" + attack + b"."
    if place == "key":
        return b"\x80\x02}(" + attack + b"K\x01u."
    weight = text(b"head.weight") + (attack if place == "weight" else b"K\x01")
    setting = text(b"hyper_parameters") + b"}(" + text(b"embed_dim") + (attack if place == "setting" else b"K\x18") + b"u"
    beside = text(b"lr_schedulers") + (attack if place == "beside" else b"N")
    return b"\x80\x02}(" + beside + text(b"state_dict") + b"}(" + weight + b"u" + setting + b"u."


def zipped(path: Path, content: bytes, records: dict[str, bytes] | None = None, how: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, held in {"x/data.pkl": content, **(records or {})}.items():
            archive.writestr(name, held)
    return path


def legacy_head() -> bytes:
    """What is before the content in files of old PyTorch."""
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    return b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, machine))


WATCHED = """
import encodings.cp437  # of names in zip files
import sys
from pathlib import Path
from model.checkpoints.loading import WeightsError, read_weights

read_weights(Path("good.pt"))
events = []
# What reading a file may do: open it, and nothing else that Python tells of.
HARMLESS = {"open", "object.__getattr__", "os.stat", "marshal.loads", "sys._getframe", "builtins.id"}
watching = False
def hook(event, args):
    if watching and (event not in HARMLESS or event == "open" and args[1] not in ("r", "rb")):
        events.append((event, str(args)[:200]))
sys.addaudithook(hook)
modules = set(sys.modules)
for path in sorted(Path("attacks").iterdir()):
    watching = True
    try:
        read_weights(path)
        said = "read"
    except WeightsError as error:
        said = str(error)
    except BaseException as error:
        said = "FAILED " + repr(error)
    watching = False
    print(path.name, "|", said.replace(chr(10), " "), "|", events, sorted(set(sys.modules) - modules))
    events.clear()
"""


def test_nothing_in_a_file_is_run(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    saved(tmp_path / "good.pt", {"state_dict": weights, "hyper_parameters": FLAT})
    (tmp_path / "attacks").mkdir()
    wanted = 0
    for number, attack in enumerate(ATTACKS.values()):
        for place in PLACES:
            content = around(attack, place)
            name = f"{number:02}-{place}"
            zipped(tmp_path / "attacks" / f"{name}.pt", content)
            (tmp_path / "attacks" / f"{name}-legacy.pt").write_bytes(legacy_head() + content + pickle.dumps([], 2))
            (tmp_path / "attacks" / f"{name}-plain.pt").write_bytes(content)
            wanted += 3
    done = subprocess.run(
        [sys.executable, "-c", WATCHED], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == wanted
    for line in lines:
        _, said, seen = line.split(" | ")
        assert seen == "[] []", line
        # None of them holds a single weight.
        assert not said.startswith(("read", "FAILED")), line
    assert not list(tmp_path.rglob("ran*"))


def refused(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        read_weights(path)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


def tensor(key: bytes = b"0", numel: int = 1, size: str = "1", stride: str = "1", offset: int = 0) -> bytes:
    """A tensor's call in a pickle."""
    storage = b"(" + text(b"storage") + b"ctorch\nFloatStorage\n" + text(key) + text(b"cpu") + f"I{numel}\n".encode() + b"tQ"
    numbers = [b"(" + b"".join(f"I{number}\n".encode() for number in part.split(",")) + b"t" for part in (size, stride)]
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + f"I{offset}\n".encode() + b"".join(numbers) + b"\x89}tR"


@pytest.mark.parametrize(
    "odd",
    [
        {"size": str(2**40), "stride": "0"},
        {"size": "1048576,1048576", "stride": "0,0"},
        {"size": str(2**40)},
        {"size": "2", "stride": str(2**45)},
        {"size": "-1"},
        {"size": "2", "stride": "-1", "offset": 1},
        {"offset": 2**62},
        {"offset": -4},
        {"size": "1,1", "stride": "1"},
        {"size": ",".join("1" * 70), "stride": ",".join("1" * 70)},
        {"key": b"../../../etc/passwd"},
        {"key": b"missing"},
    ],
    ids=str,
)
def test_tensors_that_claim_what_is_not_there(odd: dict[str, Any], tmp_path: Path) -> None:
    content = b"\x80\x02}(" + text(b"head.weight") + tensor(**odd) + b"u."
    refused(zipped(tmp_path / "w.pt", content, {"x/data/0": bytes(4), "x/data/../../../etc/passwd": b""}))
    old = legacy_head() + content + pickle.dumps([odd.get("key", b"0").decode()], 2) + struct.pack("<q", 1) + bytes(4)
    (tmp_path / "old.pt").write_bytes(old)
    if odd.keys() != {"key"}:  # the old layout gives the numbers whatever name it likes
        refused(tmp_path / "old.pt")


@pytest.mark.parametrize("count", [2**40, -1, 2**62, 3])
def test_old_files_that_claim_what_is_not_there(count: int, tmp_path: Path) -> None:
    content = b"\x80\x02}(" + text(b"head.weight") + tensor(numel=count) + b"u."
    (tmp_path / "w.pt").write_bytes(legacy_head() + content + pickle.dumps(["0"], 2) + struct.pack("<q", count) + bytes(4))
    refused(tmp_path / "w.pt")


def test_zip_files_that_are_more_than_they_seem(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    content = b"\x80\x02}(" + text(b"head.weight") + tensor(numel=2**24, size=str(2**24)) + b"u."
    bomb = zipped(tmp_path / "bomb.pt", content, {"x/data/0": bytes(2**26)}, zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 2**20
    assert "compressed" in refused(bomb)
    # Two places for one content: none of them is guessed to be the right one.
    refused(zipped(tmp_path / "two.pt", content, {"y/data.pkl": content}))
    refused(zipped(tmp_path / "none.pt", content, {}).rename(tmp_path / "renamed.pt"))
    good = saved(tmp_path / "good.pt", weights).read_bytes()
    # Every entry of the directory points at the same bytes.
    many = (
        b"\x80\x02}("
        + b"".join(text(b"w%d" % number) + tensor(b"%d" % number, 2**18, str(2**18)) for number in range(64))
        + b"u."
    )
    overlapping = zipped(
        tmp_path / "overlap.pt", many, {f"x/data/{number}": bytes(4) for number in range(64)} | {"x/data/64": bytes(2**20)}
    )
    held = bytearray(overlapping.read_bytes())
    with zipfile.ZipFile(overlapping) as archive:
        large = archive.getinfo("x/data/64")
    at = held.find(b"PK\x01\x02")
    while at >= 0:
        if b"data/" in held[at + 46 : at + 60]:
            held[at + 16 : at + 28] = struct.pack("<III", large.CRC, 2**20, 2**20)
            held[at + 42 : at + 46] = struct.pack("<I", large.header_offset)
        at = held.find(b"PK\x01\x02", at + 4)
    overlapping.write_bytes(held)
    refused(overlapping)
    for place in (len(good) // 2, 100):
        flipped = bytearray(good)
        flipped[place] ^= 0xFF
        (tmp_path / "flipped.pt").write_bytes(flipped)
        refused(tmp_path / "flipped.pt")


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02" + b"]" + b"(" * 100_000 + b"t" * 100_000 + b".",
        b"\x80\x02})" + b"\x85" * 100_000 + b"K\x01s.",
        b"\x80\x02)" + b"\x85" * 100_000 + b".",
        b"\x80\x02cbuiltins\nobject\n" + b"c_\n_\n\x81" * 30_000 + b".",
        b"\x80\x02]q\x00" + b"(h\x00h\x00h\x00h\x00h\x00h\x00h\x00h\x00lq\x00" * 60 + b".",
        b"\x80\x02}q\x00(" + text(b"state_dict") + b"h\x00u.",
        b"\x80\x02}q\x00(" + text(b"state_dict") + b"h\x00" + text(b"hyper_parameters") + b"h\x00u.",
        b"\x80\x02(" + b"".join(f"I{(2**61 - 1) * number}\nI1\n".encode() for number in range(20_000)) + b"d.",
        b"\x80\x02" + b"".join(f"Np{(2**61 - 1) * number}\n".encode() for number in range(1, 100)) + b".",
        b"\x80\x02N" + b"r\xff\xff\xff\xff" + b".",
        b"\x80\x02\x8e" + b"\xff" * 7 + b"\x7f.",
        b"\x80\x02B\xff\xff\xff\x7f.",
        b"\x80\x02\x8b\xff\xff\xff\x7f.",
        b"\x80\x02I" + b"9" * 100_000 + b"\n.",
        b"\x80\x02" + b"2" * 10 + b".",
    ],
    ids=lambda content: f"{content[2:12]!r}",
)
def test_deep_large_and_endless_pickles(content: bytes, tmp_path: Path) -> None:
    refused(zipped(tmp_path / "w.pt", content))
    (tmp_path / "old.pt").write_bytes(legacy_head() + content)
    refused(tmp_path / "old.pt")


def test_the_work_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inert_pickle, "MAX_OPCODES", 1000)
    assert "more than 1000 steps" in refused(zipped(tmp_path / "w.pt", b"\x80\x02" + b"]" * 1000 + b"."))


def test_altered_files_are_refused_or_read_but_never_fail_otherwise(weights: dict[str, Tensor], tmp_path: Path) -> None:
    checkpoint = {"state_dict": weights, "hyper_parameters": argparse.Namespace(**FLAT), "epoch": np.int64(3)}
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    with zipfile.ZipFile(buffer) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    pickled = next(name for name in records if name.endswith("data.pkl"))
    legacy = saved(tmp_path / "old.pt", checkpoint, legacy=True).read_bytes()
    rng = random.Random(17)
    read = 0
    for number in range(150):
        altered = bytearray(records[pickled] if number % 2 else legacy)
        for _ in range(rng.randint(1, 4)):
            altered[rng.randrange(min(len(altered), len(records[pickled])))] = rng.randrange(256)
        path = tmp_path / "altered.pt"
        if number % 2:
            with zipfile.ZipFile(path, "w") as archive:
                for name, held in {**records, pickled: bytes(altered)}.items():
                    archive.writestr(name, held)
        else:
            path.write_bytes(altered)
        try:
            load(weights=path)
            read += 1
        except (WeightsError, ConfigError):  # of a file that does not tell its architecture any more
            pass
    assert read < 150


def test_the_project_is_what_runs() -> None:
    assert Path(sys.modules["model.checkpoints.loading"].__file__ or "").is_relative_to(ROOT)
