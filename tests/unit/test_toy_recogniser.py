"""A recogniser of which model/training, model/data and model/checkpoints know nothing is chosen, trained, saved and read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.checkpoints.choose import choose_config, choose_network, name_of
from model.checkpoints.loading import WeightsError, load, read_weights, save_weights
from model.errors import ConfigError
from model.recognisers.registry import named_config, named_configs, read_config, recognisers, register
from model.training.finetune import begin_with
from model.training.options import recipe_names
from model.training.train import main
from tests.archives import png, write_lmdb
from tests.toy_recogniser import TOY, Toy, ToyConfig, toy_registered
from tests.training_runs import words


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    with toy_registered():
        yield


def logits_of(columns: str) -> torch.Tensor:
    """Columns that say this surely, `-` the blank; one row."""
    ids = torch.tensor([["-ab".index(column) for column in columns]])
    return 20 * torch.nn.functional.one_hot(ids, 3).float()


@pytest.mark.parametrize(("columns", "text"), [("aa-a-bb-", "aab"), ("abab", "abab"), ("----", ""), ("-b", "b"), ("aaaa", "a")])
def test_its_own_decoding(columns: str, text: str) -> None:
    logits = logits_of(columns)
    logits[0, -1] /= 10
    [read], [probabilities] = Toy(ToyConfig()).decode(logits)
    assert read == text
    assert len(probabilities) == len(text) + 1
    # All columns count.
    torch.testing.assert_close(probabilities.prod(), logits.softmax(-1).max(-1).values.prod())


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="called toy already"):
        register(TOY)
    with pytest.raises(ValueError, match="called parseq-tiny already"):
        register(replace(TOY, name="other", named={"parseq-tiny": ToyConfig()}))
    assert "other" not in recognisers()


def test_every_entry_is_whole() -> None:
    for name, recogniser in recognisers().items():
        assert recogniser.name == name
        assert recogniser.recipe in recipe_names()
        assert not recogniser.training_options or recogniser.training_options()
        fields = recogniser.config.__dataclass_fields__.keys()
        assert recogniser.essential | recogniser.config.FREE | recogniser.config.ADAPTABLE <= fields
        assert recogniser.published.keys() <= recogniser.named.keys()
        adapting, positions = recogniser.adapting, set(recogniser.adapting.by_position)
        for config in recogniser.named.values():
            with torch.device("meta"):
                state = recogniser.build_network(config).state_dict()
            assert recogniser.keys | adapting.by_character.keys() <= state.keys()
            places = {state[name].shape[axis] for name, axis in adapting.by_position.items() if name in state}
            assert places <= {config.max_label_length + 1}
            positions -= state.keys()
            classes = [state[tensor].shape[axis] for tensor, axis in adapting.by_character.items()]
            assert min(classes) > len(config.charset_train)
            tensors, numbers = config.least_size()
            assert tensors <= len(state)
            assert numbers <= sum(tensor.numel() for tensor in state.values())
        assert positions == set(), "each is in the networks of some configuration"


def test_it_is_chosen_by_name_by_file_and_by_its_weights(tmp_path: Path) -> None:
    narrow = ToyConfig(column_width=4)
    (tmp_path / "toy.json").write_text(json.dumps({"recogniser": "toy", "column_width": 4}))
    save_weights(Toy(narrow), tmp_path / "w.safetensors")
    assert named_config("toy") == choose_config("toy", None) == ToyConfig()
    assert choose_config("parseq", tmp_path / "toy.json") == narrow
    assert choose_config(None, None, tmp_path / "w.safetensors") == narrow
    assert choose_config(None, None, "toy") == ToyConfig()
    assert choose_config(None, None) is None
    network, source = choose_network(None, None, tmp_path / "w.safetensors")
    assert (type(network), network.config, source) == (Toy, narrow, tmp_path / "w.safetensors")
    assert choose_network(None, tmp_path / "toy.json", None)[1] is None
    with pytest.raises(ConfigError, match="give --weights FILE, or --model NAME"):
        choose_network(None, None, None)
    assert [name_of(replace(config, charset_train="xyz")) for config in named_configs().values()] == list(named_configs())
    assert name_of(narrow) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"recogniser": ["toy"]}, "names the recogniser"),
        ({"recogniser": "top"}, "names the recogniser 'top'; there are .*parseq, .*toy"),
        ({"cls": "SVTR", "column_width": 4}, "names the class 'SVTR'; there are .*PARSeq.*, Toy"),
        ({"_target_": "strhub.models.svtr.system.SVTR"}, "names the class 'SVTR'; there are"),
        ({"recogniser": "toy", "embed_dim": 4}, "unknown configuration names: embed_dim; known are charset_train"),
        ({"column_width": 4}, "unknown configuration names: column_width"),
        ({"recogniser": "toy", "column_width": 3}, "not a multiple of column_width 3"),
    ],
)
def test_files_that_describe_none(values: dict[str, object], message: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=message):
        read_config(tmp_path / "c.json")


@pytest.mark.parametrize(
    "told",
    [
        {"column_width": 4},
        {"column_width": 4, "_target_": "a.system.Toy", "name": "parseq"},
        {"column_width": 4, "name": "toy"},
        {"column_width": 4, "name": "my-run", "_target_": "their.own.Class"},
        {"recogniser": "toy", "config": {"column_width": 4}},
        {"config": {"column_width": 4}},
    ],
)
def test_checkpoints_tell_it_by_name_by_class_or_by_their_tensors(told: dict[str, object], tmp_path: Path) -> None:
    network = Toy(ToyConfig(column_width=4))
    state = {f"model.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state, "hyper_parameters": told}, tmp_path / "w.ckpt")
    assert load(weights=tmp_path / "w.ckpt").config == network.config


def test_weights_of_another_recogniser_are_refused(tmp_path: Path) -> None:
    save_weights(Toy(ToyConfig()), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="says that it is of the recogniser toy, not parseq"):
        load("parseq-tiny", weights=tmp_path / "w.safetensors")
    torch.save(Toy(ToyConfig()).state_dict(), tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="belongs to another network"):
        load("parseq-nano", weights=tmp_path / "w.pt")
    # Its name is told, but the sizes are not its.
    torch.save({"state_dict": {}, "hyper_parameters": {"recogniser": "toy", "column_width": 4}}, tmp_path / "none.ckpt")
    with pytest.raises(WeightsError):
        load(weights=tmp_path / "none.ckpt")


@pytest.mark.parametrize("told", [True, False])
def test_it_begins_with_weights_of_another_charset(told: bool) -> None:
    old, new = Toy(ToyConfig()), Toy(ToyConfig(charset_train="cba" if told else "ba"))
    fresh = new.naming.weight.detach().clone()
    kept = begin_with(new, old.state_dict(), old.config if told else None, "old")
    if told:
        assert torch.equal(new.naming.weight[[0, 2, 3]], old.naming.weight[[0, 2, 1]])
        assert torch.equal(new.naming.weight[1], fresh[1])
        assert "2 characters keep their rows of the embedding and the head; 1 new ones begin at random: 'c'; all other" in str(
            kept
        )
    else:
        # As many characters: taken for the same ones.
        assert torch.equal(new.naming.weight, old.naming.weight)


def test_it_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lmdb(tmp_path / "crops", [(png(i), ["a", "ba", "abba"][i % 3]) for i in range(12)])
    run = {
        "--source": tmp_path / "crops",
        "--validation": tmp_path / "crops",
        "--output": tmp_path / "run",
        "--batch-size": 6,
        "--threads": 1,
        "--trainer.enable_progress_bar": "false",
    }
    assert main(words({**run, "--model": "toy", "--steps": 1})) == 0
    network = load(weights=tmp_path / "run" / "toy.safetensors")
    assert isinstance(network, Toy)
    state = network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in read_weights(tmp_path / "run" / "last.ckpt")[0].items())
    # The rest of the run needs no name: the checkpoint tells it.
    assert main(words({**run, "--steps": 2, "--resume": True})) == 0
    later = load(weights=tmp_path / "run" / "last.ckpt")
    assert isinstance(later, Toy)
    assert not torch.equal(later.naming.weight, network.naming.weight)
    assert main(words({**run, "--model": "parseq-nano", "--steps": 2, "--resume": True})) == 2
    assert "has recogniser 'toy', not 'parseq'" in capsys.readouterr().err
    begun = {**run, "--output": tmp_path / "next", "--weights": tmp_path / "run" / "toy.safetensors", "--steps": 1}
    assert main(words({**begun, "--add-characters": "c"})) == 0
    assert "1 new ones begin at random: 'c'" in capsys.readouterr().err
    assert load(weights=tmp_path / "next" / "toy.safetensors").config == ToyConfig(charset_train="abc")
