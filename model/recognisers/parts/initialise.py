"""Initial weights of the reference implementation's networks, where a layer has no rule of its own."""

from __future__ import annotations

from torch import nn


def initialise(module: nn.Module) -> None:
    """Draw the weights of one layer; meant for `Module.apply`.

    Linear layers and embeddings: normal, cut at two units, of spread 0.02. Convolutions: Kaiming normal by the fan out. Their
    biases: 0. Norms: 1 and 0. Everything else (recurrent layers, the joined projection of an attention) keeps PyTorch's
    default. Source: `init_weights` of the reference implementation.
    """
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
        nn.init.ones_(module.weight)
    else:
        return
    if isinstance(bias := getattr(module, "bias", None), nn.Parameter):
        nn.init.zeros_(bias)
