"""The name of everything in the wheel: `parseq_service.reading` is what the repository calls `reading`.

In a source tree this package leads from the one name to the other (docs/adr/0016-one-name-in-site-packages.md), so that
programs which use the library run with both. In the wheel the packages themselves lie here instead.
"""

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any

ROOMS = ("artifact", "export", "model", "reading", "service")


class _ByItsOtherName(MetaPathFinder, Loader):
    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        here, _, real = name.partition(".")
        return ModuleSpec(name, self) if here == __name__ and real.partition(".")[0] in ROOMS else None

    def exec_module(self, module: Any) -> None:
        """The same module, not a second one: the import system takes what stands in `sys.modules` afterwards."""
        sys.modules[module.__name__] = importlib.import_module(module.__name__.partition(".")[2])


sys.meta_path.insert(0, _ByItsOtherName())
