"""ABINet: a vision part reads, a language part corrects, and both are aligned, again and again.

"Read Like Humans: Autonomous, Bidirectional and Iterative Language Modeling for Scene Text Recognition", Fang et al., CVPR
2021. The state dict is key for key that of the released weights of baudm/parseq, without their prefix `model.`.

Shapes: B batch, T `max_label_length`, S = T + 1 steps, C classes (charset + end), E `d_model`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from model.recognisers.abinet.config import ABINetConfig
from model.recognisers.abinet.language import Alignment, Language, text_lengths
from model.recognisers.abinet.vision import Vision
from model.recognisers.interface import Network
from model.recognisers.parts.initialise import initialise
from model.recognisers.parts.tokenizer import Tokenizer
from model.recognisers.restriction import restricted


class ABINet(Network):
    """The three parts."""

    def __init__(self, config: ABINetConfig) -> None:
        super().__init__()
        self.config: ABINetConfig = config
        self.tokenizer = Tokenizer(config.charset_train)
        self.vision = Vision(config)
        self.language = Language(config)
        self.alignment = Alignment(config)
        self.apply(initialise)

    def forward(self, images: Tensor, max_length: int | None = None) -> Tensor:
        """Read images.

        Args:
            images: Float `(B, 3, 32, 128)` in [-1, 1].
            max_length: Give so many characters at most. All are read in any case: each depends on all others.

        Returns:
            Logits, float `(B, S, C)`, or with `max_length` so many steps and one.
        """
        logits = self.passes(images)[-1]
        return logits if max_length is None else logits[:, : max_length + 1]

    def decode(self, logits: Tensor) -> tuple[list[str], list[Tensor]]:
        """Greedy reading (see `Tokenizer.decode`): texts, and the probabilities of their tokens, the end token's included."""
        return self.tokenizer.decode(logits.softmax(-1))

    def passes(self, images: Tensor, allowed: Tensor | None = None) -> Sequence[Tensor]:
        """What was seen, and what it was aligned to in each iteration.

        All of them tell the language part where the text ends.
        """
        features, logits = self.vision(images)
        seen = restricted(logits, allowed)
        return [seen, *(aligned for _, aligned in self.iterate(features, seen, allowed=allowed))]

    def step_probabilities(self, logits: Tensor) -> Tensor:
        """The softmax of the logits."""
        return logits.softmax(-1)

    def iterate(
        self, features: Tensor, seen: Tensor, times: int | None = None, allowed: Tensor | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        """Spell what was read and align it with what was seen.

        Args:
            features: Float `(B, S, E)`, of the vision part.
            seen: Float `(B, S, C)`, its logits.
            times: How often; the config's choice without it.
            allowed: As for `passes`.

        Returns:
            The logits of the language part and of the alignment in each iteration, float `(B, S, C)`.
        """
        found, logits = list[tuple[Tensor, Tensor]](), seen
        for _ in range(self.config.iter_size if times is None else times):
            spelt, language = self.language(logits.softmax(-1), text_lengths(logits))
            logits = restricted(self.alignment(spelt, features), allowed)
            found.append((language, logits))
        return found

    def ways(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """The vision part alone, one iteration, and the config's own number."""
        own = self.config.iter_size
        counts = {f"{count} iteration{'s' if count > 1 else ''}": count for count in (1, own)}
        return {"vision": lambda images: self.vision(images)[1]} | {
            name: partial(self._read, times=count) for name, count in counts.items()
        }

    def reads_by(self) -> dict[str, object]:
        """How often what was read is corrected."""
        return {"iterations": self.config.iter_size}

    def _read(self, images: Tensor, times: int) -> Tensor:
        features, seen = self.vision(images)
        return self.iterate(features, seen, times)[-1][1]
