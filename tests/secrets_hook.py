"""`detect-secrets-hook` without the programs and pages in which it could find nothing: it shows each line to each plug-in by
itself, which takes several times as long as to search whole files.

`python -m tests.secrets_hook [options of the hook] FILES...` ends as the hook does.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.plugins.keyword import DENYLIST_REGEX, KeywordDetector
from detect_secrets.pre_commit_hook import main

LINE_BY_LINE = {".js", ".md", ".py"}
EVERYTHING = re.compile("")


def may_hold_secrets(path: Path, signs: Sequence[re.Pattern[str]]) -> bool:
    """Whether any of the signs is anywhere in a file; of others than programs and pages always, since the hook puts together
    lines of some."""
    if path.suffix not in LINE_BY_LINE:
        return True
    text = path.read_text(encoding="utf-8", errors="replace")
    return any(sign.search(text) for sign in signs)


def signs_of(plugins: Sequence[str]) -> Iterator[re.Pattern[str]]:
    """What a text has at least where one of these plug-ins finds something; every text has that of an unknown kind."""
    for plugin in get_mapping_from_secret_type_to_class().values():
        if plugin.__name__ in plugins:
            # Every pattern of keywords has one of them within.
            keywords = [re.compile(DENYLIST_REGEX, re.IGNORECASE)] if issubclass(plugin, KeywordDetector) else None
            for sign in keywords or getattr(plugin(), "denylist", None) or [EVERYTHING]:
                # They are meant for one line: where it begins and ends, a sign may say so.
                yield re.compile(sign.pattern, sign.flags | re.MULTILINE)


def _run(arguments: Sequence[str]) -> int:
    disabled = {value for option, value in itertools.pairwise(arguments) if option == "--disable-plugin"}
    plugins = {plugin.__name__ for plugin in get_mapping_from_secret_type_to_class().values()} - disabled
    signs = list(signs_of(sorted(plugins)))
    return int(main([given for given in arguments if not Path(given).is_file() or may_hold_secrets(Path(given), signs)]))


if __name__ == "__main__":
    sys.exit(_run(sys.argv[1:]))
