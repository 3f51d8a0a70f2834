"""Networks with weights: bundled, published, or from a file. Loading never runs code from a file."""

from __future__ import annotations

import json
import pickle  # nosec B403 - for its exceptions; weights are loaded without code
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from model.configs import ConfigError, PARSeqConfig, config_from_mapping, named_config
from model.download import released_file
from model.parseq import PARSeq

FREE_FIELDS = frozenset({"decode_ar", "refine_iters", "perm_num", "perm_forward", "perm_mirrored", "dropout"})
"""What weights can be used with otherwise than they were trained with."""
BUNDLED_FOLDER = Path(__file__).parent / "weights"
CONFIG_KEY = "parseq_config"
"""Of the architecture in the metadata of safetensors files."""
PREFIX = "model."
"""Of the network's keys in checkpoints that hold a whole training system."""


class WeightsError(ValueError):
    """A weights file is unreadable or belongs to another network; the message names the cause and the cure."""


def weights_path(name: str) -> Path:
    """The weights of a named network: the bundled file, else the published one (downloaded, checked and cached).

    Raises:
        ConfigError: there is no network of that name.
        DownloadError: the published file cannot be had.
    """
    named_config(name)
    name = name.replace("_", "-")
    return bundled_weights(name) or released_file(name)


def bundled_weights(name: str) -> Path | None:
    """The weights of a named network that come with the project, if there are any."""
    path = BUNDLED_FOLDER / f"{name}.safetensors"
    return path if path.is_file() else None


def load(
    name: str | None = None,
    *,
    config: PARSeqConfig | None = None,
    pretrained: bool = False,
    weights: str | Path | None = None,
) -> PARSeq:
    """Build a network, with weights if asked to, in evaluation mode on the CPU.

    Args:
        name: of a known architecture, such as `parseq-tiny`. May be left out when `config` or a training checkpoint tells it.
        config: the architecture itself, instead of a name.
        pretrained: take the bundled or published weights of `name`.
        weights: a file instead: a bare state dict (`.pt`), a safetensors file, or a Lightning checkpoint.

    Raises:
        ConfigError: the architecture is unknown, or not told.
        WeightsError: the file is unreadable, or its weights do not fit.
        DownloadError: the published file cannot be had.
    """
    if pretrained and weights is not None:
        raise ConfigError("give either pretrained or weights, not both")
    if pretrained:
        if name is None:
            raise ConfigError("pretrained weights need the name of a network")
        weights = weights_path(name)
    state, inside = read_weights(Path(weights)) if weights is not None else (None, None)
    if config is None:
        config = named_config(name) if name is not None else inside
    if config is None:
        raise ConfigError("the weights file does not tell its architecture: give the name of a network or a config")
    if inside is not None:
        check_agrees(config, inside, str(weights))
    network = PARSeq(config)
    if state is not None:
        check_fit(network, state, str(weights))
        network.load_state_dict(state)
    return network.eval()


def read_weights(path: Path) -> tuple[dict[str, Tensor], PARSeqConfig | None]:
    """Read a weights file.

    Returns:
        The network's state dict, without prefix, and its configuration where the file tells it.

    Raises:
        WeightsError: the file is missing, unreadable, or holds something else.
    """
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}")
    try:
        content = _read_file(path)
    except pickle.UnpicklingError:
        raise WeightsError(
            f"{path} holds more than weights, or is no PyTorch file; loading it could run code, so it is refused"
        ) from None
    except Exception:  # readers of pickles and archives fail on foreign bytes in every way there is
        raise WeightsError(f"{path} is damaged or is no weights file: fetch or export it again") from None
    inside = _config_beside(path)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        inside = config_inside(content.get("hyper_parameters"))
        content = content["state_dict"]
    if not isinstance(content, dict) or not content or not _is_state_dict(content):
        raise WeightsError(f"{path} does not hold a state dict (names to tensors)")
    if any(key.startswith(PREFIX) for key in content):
        content = {key.removeprefix(PREFIX): value for key, value in content.items() if key.startswith(PREFIX)}
    return content, inside


def save_weights(network: PARSeq, path: Path) -> None:
    """Write the network's weights as safetensors; the file tells its architecture."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    content = save(state, {CONFIG_KEY: json.dumps(network.config.to_dict())})
    path.write_bytes(content)  # unlike `save_file`, with the permissions that the user's files have


def _config_beside(path: Path) -> PARSeqConfig | None:
    """The architecture in the metadata of a safetensors file that `save_weights` has written."""
    if path.suffix != ".safetensors":
        return None
    with safe_open(path, "pt") as file:
        told = (file.metadata() or {}).get(CONFIG_KEY)
    try:
        return config_inside(json.loads(told)) if told else None
    except ValueError:
        return None


def _is_state_dict(content: dict[Any, Any]) -> bool:
    return all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items())


def _read_file(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    with warnings.catch_warnings():
        # A foreign file makes torch warn of its format before it refuses it.
        warnings.simplefilter("ignore", UserWarning)
        return torch.load(path, map_location="cpu", weights_only=True)


def read_checkpoint(path: Path, instead: str) -> dict[str, Any]:
    """All of a training checkpoint of ours, on the CPU.

    Raises:
        WeightsError: it is damaged; the message says to remove it, and what happens or is to be done then (`instead`).
    """
    try:
        return dict(_read_file(path))
    except Exception:  # a damaged archive fails in every way there is
        raise WeightsError(f"{path} is damaged: remove it and {instead}") from None


def config_inside(hyper_parameters: Any) -> PARSeqConfig | None:
    """The architecture that a training checkpoint tells, ours (`config`) or the reference's (flat names)."""
    if not isinstance(hyper_parameters, dict):
        return None
    values = hyper_parameters.get("config", hyper_parameters)
    if not isinstance(values, dict) or "embed_dim" not in values:
        return None
    known = PARSeqConfig().to_dict()
    try:
        return config_from_mapping({key: value for key, value in values.items() if key in known})
    except ConfigError:
        return None


def check_agrees(wanted: PARSeqConfig, inside: PARSeqConfig, source: str, but: frozenset[str] = frozenset()) -> None:
    """What no tensor's shape would tell: other heads, or the same number of other characters. Fields of `but` may differ.

    Raises:
        WeightsError: they contradict each other.
    """
    for name, value in inside.to_dict().items():
        if name not in FREE_FIELDS | but and wanted.to_dict()[name] != value:
            raise WeightsError(
                f"{source} says that it was trained with {name} {value!r}, not {wanted.to_dict()[name]!r}: "
                "leave the model's name and config out, or give those it was trained with"
            )


def check_fit(network: PARSeq, state: dict[str, Tensor], source: str) -> None:
    """Whether `state` has all of the network's tensors, in their shapes, and no others.

    Raises:
        WeightsError: it has not.
    """
    wanted = network.state_dict()
    classes = state.get("head.weight")
    if classes is not None and classes.dim() == 2 and classes.shape[0] != wanted["head.weight"].shape[0]:
        raise WeightsError(
            f"{source} was trained with {classes.shape[0] - 1} characters, the charset has "
            f"{wanted['head.weight'].shape[0] - 1}: give the config the charset that the weights were trained with"
        )
    missing, unexpected = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or unexpected:
        example = f"lacks {missing[0]}" if missing else f"has {unexpected[0]} besides"
        raise WeightsError(
            f"{source} belongs to another network ({len(missing)} names missing, {len(unexpected)} unknown; it {example}): "
            "check the model's name or config"
        )
    for key, tensor in wanted.items():
        if not torch.isfinite(state[key]).all():
            raise WeightsError(f"{source} is damaged: {key} holds numbers that are none (nan or inf); fetch or train it again")
        if state[key].shape != tensor.shape:
            raise WeightsError(
                f"{source} belongs to a network of another size: {key} is {tuple(state[key].shape)}, "
                f"expected {tuple(tensor.shape)}; check the model's name or config"
            )
