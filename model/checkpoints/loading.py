"""Networks with weights: bundled, published, or from a file. Loading never runs code from a file (see `torch_file`)."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from model.checkpoints.agreement import check_agrees, check_fit, check_told
from model.checkpoints.download import released_file
from model.checkpoints.hyper_parameters import entries, read_scalar_or_pair
from model.checkpoints.inert_pickle import Made
from model.checkpoints.recognise import AVERAGES, architecture_of, networks_in, own_tensors
from model.checkpoints.torch_file import FormatError, StoredTensor, TorchFile, open_torch_file, stored_tensor
from model.errors import LONGEST_SHOWN, ConfigError
from model.errors import WeightsError as WeightsError
from model.recognisers.interface import Config, Network
from model.recognisers.registry import (
    FOREIGN,
    RECOGNISER,
    Recogniser,
    candidates,
    default_recogniser,
    hyphenated,
    named_config,
    named_in,
    recogniser_of,
    recognisers,
)

BUNDLED_FOLDER: Final = Path(__file__).parent.parent / "weights"
CONFIG_KEY: Final = "{recogniser}_config"
"""Key of the architecture in the metadata of safetensors files."""
WEIGHTS_INSIDE: Final = (
    *sorted(AVERAGES), "state_dict", "model_state_dict", "model", "module", "net", "network", "model_state", "weights", "params"
)  # fmt: skip
"""Keys under which checkpoints keep their weights; of weights beside their average, the average is taken."""


def weights_path(name: str) -> Path:
    """The weights of a named network: the bundled file, else the published one (downloaded, checked and cached).

    Raises:
        ConfigError: There is no network of that name.
        DownloadError: The published file cannot be had.
    """
    named_config(name)
    return bundled_weights(name) or released_file(hyphenated(name))


def bundled_weights(name: str) -> Path | None:
    """The weights of a named network that come with the project, if there are any."""
    path = BUNDLED_FOLDER / f"{hyphenated(name)}.safetensors"
    return path if path.is_file() else None


def load(
    name: str | None = None,
    *,
    config: Config | None = None,
    pretrained: bool = False,
    weights: str | Path | None = None,
) -> Network:
    """Build a network in evaluation mode on the CPU, with weights if asked to.

    Args:
        name: Of a known architecture, such as `parseq-tiny`. May be left out where `config` or the weights tell it, as a bare
            state dict does by the names and shapes of its tensors.
        config: The architecture itself, instead of a name.
        pretrained: Take the bundled or published weights of `name`.
        weights: A file instead: a bare state dict (`.pt`), a safetensors file, or a Lightning checkpoint.

    Raises:
        ConfigError: The architecture is unknown, or not told.
        WeightsError: The file is unreadable, or its weights do not fit.
        DownloadError: The published file cannot be had.
    """
    if pretrained and weights is not None:
        raise ConfigError("give either pretrained or weights, not both")
    if pretrained:
        if name is None:
            raise ConfigError("pretrained weights need the name of a network")
        weights = weights_path(name)
    if config is None and name is not None:
        config = named_config(name)
    if weights is not None:
        return network_with(*read_weights(Path(weights)), str(weights), config)
    if config is None:
        raise ConfigError("nothing tells the architecture: give the name of a network, a config or weights")
    return recogniser_of(config).build_network(config).eval()


def network_with(state: dict[str, Tensor], inside: Config | None, source: str, config: Config | None = None) -> Network:
    """The network of weights, in evaluation mode on the CPU.

    Args:
        state: The weights (`read_weights`).
        inside: The architecture that their file tells, if it does.
        source: Its name, for messages.
        config: The architecture they are to be of.

    Raises:
        ConfigError: No architecture is known for them.
        WeightsError: They do not fit.
    """
    config = config or inside or architecture_of(state, source)
    if inside is not None:
        check_agrees(config, inside, source)
    network = recogniser_of(config).build_network(config)
    check_fit(network, state, source)
    network.load_state_dict(state)
    return network.eval()


def read_weights(path: Path) -> tuple[dict[str, Tensor], Config | None]:
    """Read a weights file.

    Returns:
        The network's state dict, without prefix, and its configuration where the file tells it.

    Raises:
        WeightsError: The file is missing, unreadable, or holds something else.
    """
    try:
        if not path.is_file():
            raise WeightsError(f"there is no weights file {path}")
        if path.suffix == ".onnx":
            raise WeightsError(f"{path} is a graph, not weights: give the file of weights from which it was exported")
        if _is_safetensors(path):
            state, inside = own_tensors(load_file(path), str(path)), _config_beside(path)
        else:
            with open_torch_file(path) as file:
                state, inside = _read_content(file, path)
    except WeightsError:
        raise
    except FormatError as error:
        raise WeightsError(f"{path} {error}") from None
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}") from None
    except Exception:  # readers of archives may raise any exception on foreign bytes
        raise WeightsError(f"{path} is damaged or is no weights file: fetch or export it again") from None
    if inside is not None:
        check_told(inside, state, str(path))
    return state, inside


def _is_safetensors(path: Path) -> bool:
    """Whether a file begins with the length of a JSON object, or is called safetensors and does not begin as an archive."""
    with path.open("rb") as file:
        start = file.read(9)
    fits = int.from_bytes(start[:8], "little") <= path.stat().st_size
    return (fits and start[8:] == b"{") or (path.suffix == ".safetensors" and start[:2] != b"PK")


def _read_content(file: TorchFile, path: Path) -> tuple[dict[str, Tensor], Config | None]:
    """The network's tensors and its configuration, found in whatever a training job has put around them."""
    content, told = file.content, []
    for _ in range(len(WEIGHTS_INSIDE)):
        table = entries(content)
        if table is None:
            break
        told.append(table.get("hyper_parameters"))
        names = [name for name in WEIGHTS_INSIDE if name in table and _may_be_weights(name, table[name])]
        if not names or stored_tensor(table[names[0]]) is not None:
            break
        content = table[names[0]]
    table = entries(content)
    # A module, as it is or as a program of TorchScript.
    whole = isinstance(content, Made) and content.called.startswith("__torch__")
    if table is None or whole or "_modules" in table or "_parameters" in table:
        raise WeightsError(_no_state_dict(path, content))
    if not all(isinstance(name, str) for name in table):
        raise WeightsError(_no_state_dict(path, None))
    kept = own_tensors({name: stored_tensor(value) or value for name, value in table.items()}, str(path))
    tensors = {}
    for name, value in kept.items():
        if not isinstance(value, StoredTensor):
            raise WeightsError(_no_state_dict(path, value))
        tensors[name] = file.tensor(value)
    configs = (config_inside(hyper_parameters, tensors) for hyper_parameters in told)
    return tensors, next((config for config in configs if config is not None), None)


def _may_be_weights(name: str, value: Any) -> bool:
    """Whether the value that a checkpoint keeps under `name` may be weights; an average must also have a network's names."""
    table = entries(value)
    if table is None or name not in AVERAGES:
        return table is not None
    inner = next((entries(table[key]) or {} for key in WEIGHTS_INSIDE if key in table and key not in AVERAGES), table)
    return bool(networks_in(tuple(key.split(".")) for key in inner if isinstance(key, str)))


def _no_state_dict(path: Path, found: Any) -> str:
    """What is wrong with a file that holds `found` where weights should be, and what to do."""
    cure = "where it was made, save the weights alone: torch.save(model.state_dict(), 'weights.pt')"
    if isinstance(found, Made) and found.called != "collections.OrderedDict":
        what = f"an object of {found.called!r:{LONGEST_SHOWN}}" if found.called else "an object of an unknown kind"
        return f"{path} holds {what} where weights should be; only its code could read it, so it is refused: {cure}"
    return f"{path} does not hold a state dict (names to tensors): {cure}"


def save_weights(network: Network, path: Path, *, half: bool = False) -> None:
    """Write the network's weights as safetensors; the file tells its architecture.

    Args:
        network: The network.
        path: The file; an existing one is replaced.
        half: Write floating-point numbers as float16. They become float32 again when a network is loaded.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    if half:
        state = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    key = CONFIG_KEY.format(recogniser=network.config.RECOGNISER)
    content = save(state, {key: json.dumps(network.config.to_dict())})
    path.write_bytes(content)  # unlike `save_file`, this gives the file the user's usual permissions


def _config_beside(path: Path) -> Config | None:
    """The architecture in the metadata of a safetensors file that `save_weights` has written."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    for name, recogniser in recognisers().items():
        if told := metadata.get(CONFIG_KEY.format(recogniser=name)):
            try:
                return _config(recogniser, entries(json.loads(told)) or {})
            except ValueError:
                return None
    return None


def read_checkpoint(path: Path, instead: str) -> dict[str, Any]:
    """The whole content of one of our own training checkpoints, on the CPU.

    Raises:
        WeightsError: It is damaged; the message says to remove it and, by `instead`, what to do then.
    """
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception:  # a damaged archive may raise any exception
        raise WeightsError(f"{path} is damaged: remove it and {instead}") from None


def config_inside(hyper_parameters: Any, tensors: Collection[str] = ()) -> Config | None:
    """The architecture in a training checkpoint, one of ours (under `config`) or the reference's (flat names).

    They may be kept in mappings and wrappers of any library (`model.checkpoints.hyper_parameters`).

    Args:
        hyper_parameters: What the checkpoint keeps under this name.
        tensors: Names of the network's tensors, which tell the recogniser where the settings do not, or name another.
    """
    flat = entries(hyper_parameters) or {}
    ours = entries(flat.get("config"))
    told, seen = named_in(_plain(flat, (RECOGNISER, *FOREIGN))), candidates(tensors)
    if told is not None and (not seen or told.keys.issubset(tensors)):
        return _config(told, ours or flat)
    # The settings of another job may name a network by chance; the names of tensors are sure.
    if not seen and ours:
        seen = [default_recogniser()]  # our earlier checkpoints did not name it
    configs = (_config(entry, ours or flat) for entry in seen)
    return next((config for config in configs if config is not None), None)


def _config(recogniser: Recogniser, values: Mapping[Any, Any]) -> Config | None:
    """The configuration among other settings; None if they do not hold one."""
    if not recogniser.essential.issubset(values):
        return None
    known = recogniser.config.__dataclass_fields__
    try:
        return recogniser.config.from_mapping(
            {name: read_scalar_or_pair(value) for name, value in values.items() if name in known}
        )
    except ValueError:
        return None


def _plain(values: Mapping[Any, Any], names: Collection[str]) -> dict[str, Any]:
    """The settings of these names that are plain values."""
    found = {}
    for name in names:
        try:
            found[name] = read_scalar_or_pair(values.get(name))
        except ValueError:
            continue
    return found
