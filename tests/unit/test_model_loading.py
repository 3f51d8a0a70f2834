from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import model
from model.checkpoints.download import DownloadError, released_file
from model.checkpoints.loading import WeightsError, load, read_weights
from model.errors import ConfigError
from model.recognisers.parseq.config import PARSeqConfig
from model.recognisers.parseq.network import PARSeq
from model.recognisers.registry import Published, published_files, recognisers

SMALL = PARSeqConfig(embed_dim=24, enc_num_heads=2, dec_num_heads=2, enc_depth=1, max_label_length=4)


@pytest.fixture(scope="module")
def network() -> PARSeq:
    torch.manual_seed(3)
    return PARSeq(SMALL).eval()


def same(left: PARSeq, right: PARSeq) -> bool:
    state = left.state_dict()
    return all(torch.equal(state[key], value) for key, value in right.state_dict().items())


def test_bare_state_dict_and_safetensors(network: PARSeq, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "w.pt")
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    for name in ("w.pt", "w.safetensors"):
        loaded = load(config=SMALL, weights=tmp_path / name)
        assert same(loaded, network)
        assert not loaded.training


@pytest.mark.parametrize("hyper_parameters", [{"config": SMALL.to_dict(), "lr": 1.0}, {**SMALL.to_dict(), "name": "parseq"}])
def test_lightning_checkpoint_tells_its_architecture(network: PARSeq, tmp_path: Path, hyper_parameters: dict[str, Any]) -> None:
    state = {f"model.{key}": value for key, value in network.state_dict().items()}
    state["glyph_head.weight"] = torch.zeros(2)
    torch.save({"state_dict": state, "hyper_parameters": hyper_parameters}, tmp_path / "w.ckpt")
    assert same(load(weights=tmp_path / "w.ckpt"), network)


@pytest.mark.parametrize(
    "other",
    [{"charset_train": SMALL.charset_train[::-1]}, {"dec_num_heads": 4}, {"patch_size": (8, 4)}],
    ids=lambda other: next(iter(other)),
)
def test_a_checkpoint_and_a_config_that_contradict_each_other(network: PARSeq, tmp_path: Path, other: dict[str, Any]) -> None:
    torch.save({"state_dict": network.state_dict(), "hyper_parameters": {"config": SMALL.to_dict()}}, tmp_path / "w.ckpt")
    with pytest.raises(WeightsError, match=f"was trained with {next(iter(other))} "):
        load(config=replace(SMALL, **other), weights=tmp_path / "w.ckpt")
    assert load(config=replace(SMALL, decode_ar=False, refine_iters=2), weights=tmp_path / "w.ckpt").config.refine_iters == 2


def test_weights_that_are_no_numbers(network: PARSeq, tmp_path: Path) -> None:
    state = {key: value.clone() for key, value in network.state_dict().items()}
    state["head.bias"][3] = torch.nan
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"is damaged: head\.bias holds"):
        load(config=SMALL, weights=tmp_path / "w.pt")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran-code",)


def test_code_in_a_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"head.weight": Evil()}, "evil.pt")
    Path("plain.pt").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pt", "plain.pt"):
        with pytest.raises(WeightsError, match="refused"):
            read_weights(Path(name))
    assert not Path("ran-code").exists()


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors", "w.ckpt"])
@pytest.mark.parametrize("keep", [0, 10, 2000])
def test_truncated_files(network: PARSeq, tmp_path: Path, name: str, keep: int) -> None:
    path = tmp_path / name
    (save_file if name.endswith("safetensors") else torch.save)(network.state_dict(), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=r"damaged|refused|empty"):
        load(config=SMALL, weights=path)


def test_weights_of_another_model(network: PARSeq, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(network.state_dict(), path)
    with pytest.raises(WeightsError, match="another network"):
        load("parseq-nano", weights=path)
    with pytest.raises(WeightsError, match="another size"):
        load(config=PARSeqConfig(embed_dim=48, enc_num_heads=2, dec_num_heads=2, enc_depth=1), weights=path)
    with pytest.raises(WeightsError, match="trained with 94 characters, the charset has 3"):
        load(config=PARSeqConfig(charset_train="abc"), weights=path)


def test_what_is_no_state_dict(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(WeightsError, match="does not hold a state dict"):
        read_weights(tmp_path / "list.pt")
    with pytest.raises(WeightsError, match="there is no weights file"):
        read_weights(tmp_path / "none.pt")


@pytest.mark.parametrize("content", [b"hello world", b"epoch 1 done", b"a,b\n1,2\n", b"(dp0\n.", b"\x80\x02}q"])
def test_foreign_files_are_one_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(WeightsError):
        read_weights(tmp_path / "w.pt")


def test_odd_state_dicts(tmp_path: Path) -> None:
    torch.save({1: torch.zeros(1)}, tmp_path / "keys.pt")
    with pytest.raises(WeightsError, match="does not hold a state dict"):
        read_weights(tmp_path / "keys.pt")
    torch.save({"head.weight": torch.tensor(1.0)}, tmp_path / "scalar.pt")
    with pytest.raises(WeightsError, match="only a part of the network PARSeq"):
        load(config=SMALL, weights=tmp_path / "scalar.pt")


def test_contradictory_calls(network: PARSeq, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "w.pt")
    with pytest.raises(ConfigError, match="either pretrained or weights"):
        load("parseq-tiny", pretrained=True, weights=tmp_path / "w.pt")
    with pytest.raises(ConfigError, match="need the name"):
        load(pretrained=True)
    with pytest.raises(ConfigError, match="does not tell their architecture"):
        load(weights=tmp_path / "w.pt")


class Server:
    """A server of published files on this machine."""

    def __init__(self) -> None:
        self.content = b"weights " * 1000
        self.requests = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests += 1
                self.send_response(200)
                self.send_header("Content-Length", str(len(outer.content)))
                self.end_headers()
                self.wfile.write(outer.content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    published = Server()
    digest = hashlib.sha256(published.content).hexdigest()[:8]
    monkeypatch.setenv("PARSEQ_CACHE", str(tmp_path / "cache"))
    file = Published(f"{published.url}parseq_tiny-{digest}.pt", digest)
    monkeypatch.setitem(recognisers()["parseq"].published, "parseq-tiny", file)  # type: ignore[arg-type]
    yield published
    published.server.shutdown()
    published.server.server_close()


def test_a_published_file_is_fetched_once(published: Server) -> None:
    first = released_file("parseq-tiny")
    assert first.read_bytes() == published.content
    assert released_file("parseq-tiny") == first
    assert published.requests == 1


def test_an_altered_file_is_refused_and_not_kept(published: Server, tmp_path: Path) -> None:
    published.content = b"altered"
    with pytest.raises(DownloadError, match=r"cut short or altered"):
        released_file("parseq-tiny")
    assert list((tmp_path / "cache").iterdir()) == []


def test_offline(published: Server) -> None:
    published.server.shutdown()
    published.server.server_close()
    with pytest.raises(DownloadError, match=r"cannot download .*without a network, fetch the file elsewhere and put it at"):
        released_file("parseq-tiny")


def test_released_names_have_the_published_prefixes() -> None:
    prefixes = {name: file.sha256 for name, file in published_files().items()}
    released = {
        "parseq-tiny": "e7a21b54",
        "parseq": "bb5792a6",
        "parseq-patch16-224": "fcf06f5a",
        "abinet": "1d1e373e",
        "trba": "cfaed284",
        "vitstr": "26d0fcf4",
        "crnn": "679d0e31",
    }
    assert {"parseq-tiny", "parseq", "parseq-patch16-224"} <= prefixes.keys()
    assert prefixes.items() <= released.items()
    assert all(file.file_name.endswith(f"-{file.sha256}.pt") for file in published_files().values())


def test_load_is_at_the_top_and_torch_is_imported_late() -> None:
    assert model.load is load
    code = "import sys, model; from model.recognisers import registry; "
    code += "sys.exit(not registry.named_configs() or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError, match="has no attribute 'nope'"):
        _ = model.nope
