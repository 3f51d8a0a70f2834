"""How ABINet learns: three losses, in two phases.

First the three parts are trained apart: the language part on the labels as if they had been read with certainty, the alignment
on features that its loss leaves alone. Then the alignment begins anew, and all three are trained as they read, together.

What is to be done in a step follows from its number alone, so that a run that is resumed repeats one that was not interrupted.
The reference implementation cannot be resumed: it keeps in no checkpoint which phase it is in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F

from model.recognisers.abinet.language import Alignment
from model.recognisers.abinet.network import ABINet
from model.recognisers.abinet.options import APART_FRACTION
from model.recognisers.interface import Step, Training, decay_groups
from model.recognisers.parts.initialise import initialise
from model.recognisers.parts.token_loss import token_loss

WITHOUT_DECAY: Final = ("language.proj.weight",)
"""Besides vectors: an embedding of the characters."""

ANEW: Final = 2**40
"""Added to a run's seed, to draw nothing that was drawn before."""


class ABINetTraining(Training):
    """Cross-entropies of what was seen, what was spelt and what both were aligned to."""

    network: ABINet

    def __init__(
        self,
        network: ABINet,
        language_lr: float | None = None,
        apart_fraction: float = APART_FRACTION,
        lm_only: bool = False,
    ) -> None:
        """See `model.recognisers.abinet.options`."""
        super().__init__(network)
        self.language_lr, self.apart_fraction, self.lm_only = language_lr, apart_fraction, lm_only

    def steps_apart(self, steps: int) -> int:
        """Of so many steps those that train the parts apart."""
        # A product such as 8 / 18 * 9 may come out a little above the whole number that it is.
        return math.ceil(round(self.apart_fraction * steps, 6))

    def prepare(self, step: Step, optimizer: torch.optim.Optimizer) -> None:
        """Let the alignment begin anew before the first step that trains all parts together.

        What the optimiser remembers of it goes too (the reference keeps it): it is about weights that are no more, and by
        gradients that were small at the end of a phase the first steps of the next would be too large.

        With several batches a step this is done before each of them, and comes to the same.
        """
        apart = self.steps_apart(step.of)
        if self.lm_only or step.number != apart or not apart:
            return
        # Drawn on the CPU whatever the network is on, and by no more than the run's seed: alike in all processes.
        torch.manual_seed(step.seed + ANEW)
        fresh = Alignment(self.network.config).apply(initialise)
        self.network.alignment.load_state_dict(fresh.state_dict())
        for parameter in self.network.alignment.parameters():
            optimizer.state.pop(parameter, None)
        step.seed_alike()

    def loss(self, images: Tensor, labels: Sequence[str], centers: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of the three losses by their weights; each is logged too, as far as it is trained."""
        network, config = self.network, self.network.config
        step.seed_apart()
        targets = self._targets(labels, images.device)

        def of(*logits: Tensor) -> Tensor:
            # All iterations count alike.
            return token_loss(torch.cat(logits), targets.repeat(len(logits), 1), network.tokenizer.pad_id, step.shard)

        if self.lm_only:
            loss = of(self._spell(targets)[1])
            others = [*network.vision.parameters(), *network.alignment.parameters()]
            return loss + 0 * sum(parameter.sum() for parameter in others), {"loss": loss}
        features, seen = network.vision(images)
        if step.number < self.steps_apart(step.of):
            spelt, language = self._spell(targets)
            iterations = [(language, network.alignment(spelt.detach(), features.detach()))]
        else:
            iterations = network.iterate(features, seen)
        parts = {
            "vision_loss": of(seen),
            "language_loss": of(*(language for language, _ in iterations)),
            "alignment_loss": of(*(aligned for _, aligned in iterations)),
        }
        weights = (config.v_loss_weight, config.l_loss_weight, config.a_loss_weight)
        loss = torch.stack([weight * part for weight, part in zip(weights, parts.values(), strict=True)]).sum()
        return loss, {"loss": loss, **parts}

    def validated(self, images: Tensor, labels: Sequence[str]) -> list[str]:
        """The network's reading; of the language part alone, how it spells the labels, each character from all the others."""
        if not self.lm_only:
            return super().validated(images, labels)
        return self.network.decode(self._spell(self._targets(labels, images.device))[1])[0]

    def groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Vision and alignment, then the language part with its own rate; vectors and its embedding do not decay.

        Where the language part is trained alone, it is so at `lr`.
        """
        others = [named for named in self.parameters() if not named[0].startswith("model.language.")]
        language = [named for named in self.parameters() if named[0].startswith("model.language.")]
        if self.lm_only:
            return decay_groups(language, weight_decay, WITHOUT_DECAY)
        rate = lr if self.language_lr is None else self.language_lr
        own = [{**group, "lr": rate} for group in decay_groups(language, weight_decay, WITHOUT_DECAY)]
        return [*decay_groups(others, weight_decay), *own]

    def compile(self) -> None:
        """The two parts that take time; both see the same shapes in every batch."""
        self.network.vision.compile(dynamic=False)
        self.network.language.compile(dynamic=False)

    def _targets(self, labels: Sequence[str], device: torch.device) -> Tensor:
        """Ids of the characters and the end, padded to all steps: int64 `(B, S)`."""
        tokenizer = self.network.tokenizer
        targets = tokenizer.encode(labels, device)[:, 1:]
        return F.pad(targets, (0, self.network.config.steps - targets.shape[1]), value=tokenizer.pad_id)

    def _spell(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """What the language part makes of texts as they should be read, behind which it sees nothing but ends."""
        padding = targets == self.network.tokenizer.pad_id
        language = self.network.language
        certain = F.one_hot(targets.masked_fill(padding, 0), self.network.config.classes).to(language.proj.weight.dtype)
        spelt: tuple[Tensor, Tensor] = language(certain, (~padding).sum(-1))
        return spelt
