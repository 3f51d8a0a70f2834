"""Whose weights a file holds, and of which architecture: by what it says, else by the names and shapes of its tensors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model.charsets import CHARSETS
from model.checkpoints.choose import choose_config, choose_network
from model.checkpoints.loading import WeightsError, load, read_weights, save_weights
from model.checkpoints.recognise import WRAPPERS, architecture_of
from model.errors import ConfigError
from model.recognisers.interface import Network
from model.recognisers.parseq.config import NAMED, PARSeqConfig
from model.recognisers.registry import named_config, recogniser_of, recognisers
from model.training.train import main, network_config, parse_args
from tests.archives import png, write_lmdb
from tests.toy_recogniser import Toy, ToyConfig
from tests.toy_relatives import NormedConfig, NormedToy, SisterConfig, SisterToy, relatives_registered
from tests.training_runs import words

SMALL = PARSeqConfig(embed_dim=24, enc_num_heads=2, dec_num_heads=2, enc_depth=1, max_label_length=4)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    with relatives_registered():
        yield


def saved(path: Path, network: Network, prefix: str = "", **settings: Any) -> Path:
    """A bare state dict, or a training checkpoint where there are settings."""
    state = {f"{prefix}{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state, "hyper_parameters": settings} if settings else state, path)
    return path


def assert_same(network: Network, other: Network) -> None:
    assert type(network) is type(other)
    assert network.config == other.config
    state = other.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


NETWORKS = {
    "toy": lambda: Toy(ToyConfig()),
    "normed": lambda: NormedToy(NormedConfig()),
    "normed-wide": lambda: NormedToy(NormedConfig(channels=6)),
    "sister": lambda: SisterToy(SisterConfig()),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("prefix", ["", "model.", "module._orig_mod.model.", "net.", "my_system.recogniser."])
def test_a_bare_state_dict_of_a_named_network_tells_all(name: str, prefix: str, tmp_path: Path) -> None:
    network = NETWORKS[name]()
    path = saved(tmp_path / "parseq-vitstr-crnn.pt", network, prefix)
    assert_same(load(weights=path), network)
    assert choose_config(None, None, path) == network.config
    assert_same(choose_network(None, None, path, "parseq-nano")[0], network)
    assert network_config(parse_args(["--output", "x", "--weights", str(path)])[0], None) == network.config


@pytest.mark.parametrize("name", NAMED)
def test_the_named_architectures_are_told_apart_by_shape(name: str) -> None:
    with torch.device("meta"):
        state = recogniser_of(NAMED[name]).build_network(NAMED[name]).state_dict()
    assert architecture_of(state, "w.pt") == NAMED[name]


@pytest.mark.parametrize("size", ["36", "62"])
def test_a_standard_charset_and_a_label_length_are_told_by_shape(size: str, tmp_path: Path) -> None:
    config = NormedConfig(charset_train=CHARSETS[size])
    network = NormedToy(config)
    assert_same(load(weights=saved(tmp_path / "w.pt", network)), network)
    nano = replace(named_config("parseq-nano"), charset_train=CHARSETS[size], max_label_length=7)
    network = recogniser_of(nano).build_network(nano)
    assert_same(load(weights=saved(tmp_path / "n.pt", network, "module.")), network)


def test_a_charset_of_ones_own_is_asked_for(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pt", NormedToy(NormedConfig(charset_train="xyz")))
    with pytest.raises(WeightsError, match="trained with 3 characters, the charset has 94: give the config the charset"):
        load(weights=path)
    assert load(config=NormedConfig(charset_train="xyz"), weights=path).config.charset_train == "xyz"


def test_sizes_without_a_name_are_asked_for(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pt", NormedToy(NormedConfig(channels=3)))
    wanted = (
        r"holds weights of NormedToy and does not tell their architecture, .* \(normed, normed-wide, sister\): give its config"
    )
    with pytest.raises(ConfigError, match=wanted):
        load(weights=path)
    # A config need not say whose it is where the weights do.
    (tmp_path / "c.json").write_text(json.dumps({"channels": 3}))
    network, _ = choose_network(None, tmp_path / "c.json", path)
    assert_same(network, load(config=NormedConfig(channels=3), weights=path))
    assert choose_config(None, tmp_path / "c.json", path) == NormedConfig(channels=3)
    with pytest.raises(ConfigError, match=r"names of no network that is known here \(.*PARSeq, .*Toy, NormedToy"):
        load(weights=saved(tmp_path / "other.pt", Other()))


class Other(Toy):
    """Of nobody's names."""

    def __init__(self) -> None:
        super().__init__(ToyConfig())
        self.called = self.naming
        del self.naming


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        # What no shape tells is taken from what a checkpoint says,
        ({"_target_": "strhub.models.normed.system.NormedToy", "channels": 4, "gain": 2.0, "lr": 1e-3}, NormedConfig(gain=2.0)),
        ({"name": "normed-toy", "channels": 4, "gain": 2.0, "img_size": [16, 64]}, NormedConfig(gain=2.0)),
        ({"channels": 4, "gain": 2.0}, NormedConfig(gain=2.0)),
        # whose run may be called as it likes, also by the name of another recogniser;
        ({"name": "parseq", "embed_dim": 384, "channels": 4, "gain": 2.0}, NormedConfig(gain=2.0)),
        ({"_target_": "their.own.Thing", "channels": 4, "gain": 2.0}, NormedConfig(gain=2.0)),
        # else from the architecture with a name.
        ({"lr": 1e-3, "embed_dim": 384}, NormedConfig()),
    ],
)
def test_settings_tell_what_shapes_do_not(settings: dict[str, Any], wanted: NormedConfig, tmp_path: Path) -> None:
    path = saved(tmp_path / "w.ckpt", NormedToy(wanted), "model.", **settings)
    assert load(weights=path).config == wanted


def test_names_that_several_have_are_told_apart_by_shape_or_by_what_is_said(tmp_path: Path) -> None:
    normed, sister = saved(tmp_path / "n.pt", NormedToy(NormedConfig())), saved(tmp_path / "s.pt", SisterToy(SisterConfig()))
    assert [type(load(weights=path)) for path in (normed, sister)] == [NormedToy, SisterToy]
    # One with all the names of a toy and more is none.
    with pytest.raises(WeightsError, match="holds weights of NormedToy, not of Toy: leave the model's name and config out"):
        load("toy", weights=normed)
    with pytest.raises(WeightsError, match="holds weights of Toy, not of NormedToy"):
        load("normed", weights=saved(tmp_path / "t.pt", Toy(ToyConfig())))
    told = saved(tmp_path / "told.ckpt", SisterToy(SisterConfig(channels=3)), "model.", name="sister-toy", channels=3)
    assert load(weights=told).config == SisterConfig(channels=3)


def test_a_wrong_choice_says_what_the_file_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy, parseq = saved(tmp_path / "toy.pt", Toy(ToyConfig())), tmp_path / "parseq.pt"
    torch.save(recogniser_of(SMALL).build_network(SMALL).state_dict(), parseq)
    (tmp_path / "c.json").write_text(json.dumps({"cls": "PARSeq", "system_args": {"embed_dim": 24}}))
    for choice in ({"model": "parseq", "config": None}, {"model": None, "config": tmp_path / "c.json"}):
        with pytest.raises(WeightsError, match="holds weights of Toy, not of PARSeq: leave the model's name and config out"):
            choose_network(**choice, weights=toy)  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match="holds weights of PARSeq, not of Toy"):
        choose_network("toy", None, parseq)
    write_lmdb(tmp_path / "crops", [(png(0), "a")] * 10)
    run = {"--source": tmp_path / "crops", "--output": tmp_path / "run", "--model": "parseq-nano", "--weights": toy}
    assert main(words(run)) == 2
    assert "holds weights of Toy, not of PARSeq" in capsys.readouterr().err
    save_weights(Toy(ToyConfig()), tmp_path / "toy.safetensors")
    with pytest.raises(WeightsError, match="says that it is of the recogniser toy, not parseq"):
        load("parseq-nano", weights=tmp_path / "toy.safetensors")


@pytest.mark.parametrize(
    "layout",
    [
        lambda state, average: {"state_dict": state, "state_dict_ema": average},
        lambda state, average: {"model": state, "model_ema": {"module": average}, "epoch": 3},
        lambda state, average: {"net": state, "ema": {"state_dict": average, "decay": 0.9}},
        lambda state, average: {**with_prefix("model.", state), **with_prefix("ema_model.module.", average)},
        lambda state, average: {"state_dict": {**with_prefix("net.", state), **with_prefix("model_ema.", average)}},
        # An average that holds none of a network's names is none.
        lambda state, average: {"state_dict": average, "ema": {"decay": 0.9, "shadow": {"0": state["naming.bias"]}}},
        lambda state, average: {"module": average, "ema": 0.999, "epoch": len(state)},
    ],
)
def test_of_weights_beside_their_average_the_average_is_taken(layout: Any, tmp_path: Path) -> None:
    network, average = NormedToy(NormedConfig()), NormedToy(NormedConfig())
    torch.save(layout(dict(network.state_dict()), dict(average.state_dict())), tmp_path / "w.pt")
    assert_same(load(weights=tmp_path / "w.pt"), average)


def with_prefix(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize("prefixes", [("", "model."), ("student.", "teacher."), ("ema.a.", "ema.b.")])
def test_several_networks_are_refused(prefixes: tuple[str, str], tmp_path: Path) -> None:
    state = NormedToy(NormedConfig()).state_dict()
    torch.save({**with_prefix(prefixes[0], state), **with_prefix(prefixes[1], state)}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"holds several networks, with the prefixes '.*' and '.*'"):
        read_weights(tmp_path / "w.pt")


def test_wrapped_parts_and_tensors_beside(tmp_path: Path) -> None:
    network = NormedToy(NormedConfig())
    state = {
        f"system.model.{name.replace('features.', 'features._orig_mod.').replace('naming', 'naming.module')}": value
        for name, value in network.state_dict().items()
    }
    state |= {"system.loss.weight": torch.zeros(2), "n_averaged": torch.tensor(3), "model.x": torch.zeros(1)}
    torch.save(state, tmp_path / "w.pt")
    assert_same(load(weights=tmp_path / "w.pt"), network)
    # As PyTorch's own average of a network is saved.
    average = torch.optim.swa_utils.AveragedModel(network)
    torch.save(average.state_dict(), tmp_path / "swa.pt")
    assert_same(load(weights=tmp_path / "swa.pt"), network)


def test_integers_and_tables_are_read(tmp_path: Path) -> None:
    network = NormedToy(NormedConfig())
    network.get_buffer("features.model.1.num_batches_tracked").fill_(5)
    network.get_buffer("table").mul_(2)
    for path in (saved(tmp_path / "w.pt", network, "model."), tmp_path / "w.safetensors"):
        if not path.exists():
            save_weights(network, path)
        assert_same(load(weights=path), network)


def test_every_recogniser_can_be_told_by_its_names() -> None:
    for entry in recognisers().values():
        assert entry.keys
        assert not WRAPPERS & {part for key in entry.keys for part in key.split(".")}
        for config in entry.named.values():
            with torch.device("meta"):
                names = entry.build_network(config).state_dict().keys()
            assert not WRAPPERS & {part for name in names for part in name.split(".")}


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_training_begins_with_a_bare_state_dict_of_any_recogniser(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = SisterToy(SisterConfig())
    write_lmdb(tmp_path / "crops", [(png(i), ["a", "ba", "abba"][i % 3]) for i in range(12)])
    run = {
        "--source": tmp_path / "crops",
        "--validation": tmp_path / "crops",
        "--weights": saved(tmp_path / "w.pt", network, "module.model."),
        "--batch-size": 6,
        "--steps": 1,
        "--lr": 0,
        "--threads": 1,
        "--trainer.enable_progress_bar": "false",
    }
    assert main(words({**run, "--output": tmp_path / "same"})) == 0
    assert "w.pt: all weights are kept" in capsys.readouterr().err
    left = load(weights=tmp_path / "same" / "sister.safetensors")
    assert torch.equal(left.get_parameter("naming.weight"), network.naming.weight)
    assert main(words({**run, "--output": tmp_path / "more", "--add-characters": "é"})) == 0
    told = capsys.readouterr().err
    assert "94 characters keep their rows of the embedding and the head; 1 new ones begin at random: 'é'; all other" in told
    left = load(weights=tmp_path / "more" / "sister.safetensors")
    assert torch.equal(left.get_parameter("naming.weight")[:95], network.naming.weight[:95])
    # The class that is never answered keeps its row behind the new one.
    assert torch.equal(left.get_parameter("naming.weight")[-1], network.naming.weight[-1])


def test_a_part_of_a_network_is_called_so(tmp_path: Path) -> None:
    weights = recogniser_of(named_config("crnn")).build_network(named_config("crnn")).state_dict()
    # Also where what would tell the recogniser is missing.
    for part in ("cnn.", "rnn."):
        path = tmp_path / "part.pt"
        torch.save({f"model.{name}": value for name, value in weights.items() if name.startswith(part)}, path)
        for name in (None, "crnn"):
            with pytest.raises(
                WeightsError, match=r"holds only a part of the network CRNN: \d+ tensors are missing, such as .*nn\."
            ):
                choose_network(name, None, path)


def test_what_a_file_is_does_not_depend_on_its_name(tmp_path: Path) -> None:
    network = NETWORKS["toy"]()
    save_weights(network, tmp_path / "w.safetensors")
    saved(tmp_path / "w.pt", network)
    for name, other in (("w.safetensors", "w.bin"), ("w.pt", "w2.safetensors")):
        (tmp_path / name).rename(tmp_path / other)
        assert_same(load(weights=tmp_path / other), network)
    (tmp_path / "w.bin").rename(tmp_path / "w.onnx")
    with pytest.raises(WeightsError, match="is a graph, not weights: give the file of weights from which it was exported"):
        load(weights=tmp_path / "w.onnx")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "w.onnx").read_bytes()[:1000])
    with pytest.raises(WeightsError, match="damaged or is no weights file"):
        load(weights=tmp_path / "cut.safetensors")
