"""The character sets of the scene-text benchmarks."""

import string

DIGITS_AND_LOWERCASE = string.digits + string.ascii_lowercase
"""36 characters: case-insensitive alphanumeric."""
ALPHANUMERIC = DIGITS_AND_LOWERCASE + string.ascii_uppercase
"""62 characters: case-sensitive alphanumeric."""
PRINTABLE = ALPHANUMERIC + string.punctuation
"""94 characters: printable ASCII without the space. The order fixes the token ids of the released weights."""

CHARSETS = {"36": DIGITS_AND_LOWERCASE, "62": ALPHANUMERIC, "94": PRINTABLE}


class CharsetAdapter:
    """Maps any text onto a target character set, as the benchmarks score.

    Folds the case if the target has only one, and drops what the target lacks.
    """

    def __init__(self, target_charset: str) -> None:
        """Prepare the mapping onto `target_charset`."""
        self.allowed = frozenset(target_charset)
        self.fold_to_lower = target_charset == target_charset.lower()
        self.fold_to_upper = target_charset == target_charset.upper()

    def __call__(self, text: str) -> str:
        """Return `text` folded to the target's case, without the characters that the target lacks."""
        if self.fold_to_lower:
            text = text.lower()
        elif self.fold_to_upper:
            text = text.upper()
        return "".join(character for character in text if character in self.allowed)
