"""What the output of somebody else's graph says: its numbers as probabilities, tokens and texts, in plain NumPy.

None of this goes into the artifact, whose own nodes for it are compared with it.

Shapes: N crops, T steps or columns, C classes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from artifact.metadata import EOS_ID
from export.adopt.description import Description, Output
from export.graphs.interface import ExportError, Floats, Ids, Reference

SUM_TOLERANCE: Final = 0.01
"""How far the sum of probabilities may be from 1, for half precision."""
SMALLEST: Final = float(np.finfo(np.float32).tiny)


def class_table(description: Description, classes: int, entries: Sequence[str]) -> Ids:
    """The artifact's token id of every class: 0 blank or end, 1.. characters, -1 those that are never read.

    Raises:
        ExportError: There are more or fewer classes than the description says.
    """
    special, named = description.special_class(classes), description.character_classes(classes)
    wrong = [number for number in (special, *description.never) if number >= classes]
    if wrong:
        raise ExportError(f"the output has {classes} classes, from 0: there is no class {wrong[0]}")
    if len(named) != len(entries):
        raise ExportError(_miscount(description, classes, len(entries)))
    table = np.full(classes, -1, np.int64)
    table[special] = EOS_ID
    table[named] = np.arange(1, len(named) + 1)
    return table


def _miscount(description: Description, classes: int, entries: int) -> str:
    others = [f"the {description.special_name}"] + ([f"{len(description.never)} never read"] if description.never else [])
    says = f"{entries} characters, {' and '.join(others)}: {entries + 1 + len(set(description.never))}"
    missing = classes - entries - 1 - len(set(description.never))
    if missing == 1:
        cure = 'one class more; often it is the space: add "append": " " to the charset, or name a class that is `never` read'
    elif missing > 0:
        cure = f"{missing} classes more; is it another dictionary?"
    elif missing == -1:
        cure = "one class less; perhaps the dictionary has the space already, or lacks it"
    else:
        cure = f"{-missing} classes less; is it another dictionary?"
    return f"the output has {classes} classes, the description says {says}; there is {cure}"


@dataclass(frozen=True, slots=True)
class Scores:
    """A graph's output for some crops: a number for each class at each step or column."""

    values: Floats
    """`(N, T, C)`."""
    output: Output

    @property
    def steps(self) -> int:
        """T."""
        return len(self.values[0])

    @property
    def classes(self) -> int:
        """C."""
        return len(self.values[0, 0])

    def check(self) -> None:
        """Check that the values are what the description says, logits or probabilities.

        Raises:
            ExportError: They are not, or some are nan or infinite.
        """
        low, high, sums = float(self.values.min()), float(self.values.max()), self.values.sum(-1)
        if not np.isfinite(sums).all():
            raise ExportError("the original gives values that are no numbers (nan or infinite): is the normalisation another?")
        looks_so = low >= 0 and bool((np.abs(sums - 1) <= SUM_TOLERANCE).all())
        if self.output == "probabilities" and not looks_so:
            raise ExportError(
                f"the description says `probabilities`, but the output goes from {low:.3g} to {high:.3g} and its classes add "
                f"up to {float(sums.min()):.3g} to {float(sums.max()):.3g}: say `logits`"
            )
        if self.output == "logits" and looks_so:
            raise ExportError(
                "the description says `logits`, but the output's classes are from 0 to 1 and add up to 1: say `probabilities`"
            )

    def logs(self, classes: Ids) -> NDArray[np.float64]:
        """The logarithms of the probabilities of some classes, `(N, T, S)`."""
        chosen = np.take_along_axis(self.values, classes, -1).astype(np.float64)
        if self.output == "probabilities":
            return np.log(np.maximum(chosen, SMALLEST))
        highest = self.values.max(-1, keepdims=True)
        sums = np.log(np.exp(self.values - highest).sum(-1, keepdims=True, dtype=np.float64))
        return np.asarray(chosen - highest - sums, np.float64)

    def best(self, table: Ids) -> Ids:
        """The likeliest token of each step, `(N, T)`."""
        if (table >= 0).all():
            return np.asarray(table[self.values.argmax(-1)])
        kept = np.flatnonzero(table >= 0)
        return np.asarray(table[kept][self.values[..., kept].argmax(-1)])


def read(scores: Scores, description: Description, table: Ids) -> Reference:
    """Read one crop after another, as the artifact is to read them."""
    kept = np.flatnonzero(table >= 0)
    top = np.sort(scores.logs(np.broadcast_to(kept, (len(scores.values), scores.steps, len(kept)))), axis=-1)[..., -2:]
    best, certain, gaps = scores.best(table), np.exp(top[..., 1]), top[..., 1] - top[..., 0]
    columns = description.decoding == "ctc"
    rows = scores.steps + 1 if columns else scores.steps
    ids, confidences = np.zeros((len(best), rows), np.int64), np.ones((len(best), rows), np.float32)
    lengths, margins = np.zeros(len(best), np.int64), np.zeros(len(best), np.float32)
    for crop, tokens in enumerate(best.tolist()):
        if columns:
            texts, products = collapsed(tokens, certain[crop].tolist())
            lengths[crop], margins[crop] = len(products), gaps[crop].min()
        else:
            end = tokens.index(EOS_ID) + 1 if EOS_ID in tokens else len(tokens)
            texts, products = tokens, certain[crop].tolist()
            lengths[crop], margins[crop] = end, gaps[crop, :end].min()
        ids[crop, : len(texts)], confidences[crop, : len(products)] = texts, products
    return Reference(ids, confidences, np.zeros((len(best), rows, 0), np.float32), lengths, margins)


def collapsed(tokens: Sequence[int], probabilities: Sequence[float]) -> tuple[list[int], list[float]]:
    """Equal neighbours merged, blanks dropped: the tokens, the product of each one's columns, and last that of the blanks."""
    found, products, blanks, place = [], [], 1.0, 0
    for token, group in itertools.groupby(tokens):
        count = len(list(group))
        product = math.prod(probabilities[place : place + count])
        place += count
        if token == EOS_ID:
            blanks *= product
        else:
            found.append(token)
            products.append(product)
    return found, [*products, blanks]
