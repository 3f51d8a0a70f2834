"""Which models to serve: the files that `PARSEQ_ARTIFACT` names at the time of asking.

It names a file, a folder of files, or several of either with commas between them. A name for the model may stand before a file,
`plates=/models/a.onnx`; else a single file is called as its artifact says, and several by their file names without `.onnx`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from service.config import Settings
from service.core.models import ModelSource
from service.errors import StartupError
from service.sessions.artifact import LoadedArtifact, load_artifact
from service.sessions.topology import Topology

SUFFIX: Final = ".onnx"
_NAME: Final = re.compile(r"(?!\.{1,2}$)[^\s/,=?#%\x00-\x1f\x7f\ud800-\udfff]{1,128}")
"""Names that can stand in a URL as they are: no blanks, and no dots alone, which clients take for folders. Bytes that are no
UTF-8 come from the system as halves of surrogate pairs, which no answer can have."""

OpenArtifact = Callable[[Settings, Topology | None, int], LoadedArtifact]


def model_sources(settings: Settings, load: OpenArtifact = load_artifact) -> list[ModelSource]:
    """The models of the settings, the default one first.

    Args:
        settings: Of the service.
        load: Opens a file; it gets settings that name this file alone.

    Raises:
        StartupError: A folder has none, one is named twice, two have the same name, or the default one is not among them.
    """
    named = list(_named_files(settings.artifact))
    single = len(named) == 1 and named[0][0] is None and named[0][1] == settings.artifact
    sources, paths = list[ModelSource](), dict[str, Path]()
    for name, path in named:
        called = name or path.stem
        if path.resolve() in {known.resolve() for known in paths.values()}:
            raise StartupError(f"PARSEQ_ARTIFACT names {path} twice")
        if called in paths:
            raise StartupError(f"{paths[called]} and {path} are both called {called!r}: name one of them, as other={path}")
        if not single and not _NAME.fullmatch(called):
            raise StartupError(f"{path} would be called {called!r}, which no address can have: name it, as other={path}")
        paths[called] = path
        open_ = partial(load, settings.model_copy(update={"artifact": path}))
        source = ModelSource(open_, called, key=path)
        sources.append(replace(source, name=None, aliases=(called,)) if single else source)
    return _default_first(sources, list(paths), settings.default_model, may_be_unknown=single)


def _named_files(setting: Path) -> Iterator[tuple[str | None, Path]]:
    """Given names (`None`: none) and files. A missing file is reported when it is opened."""
    if _is(setting.is_file):  # a file whose name may have commas
        yield None, setting
        return
    for item in str(setting).split(","):
        text = item.strip()
        if not text:
            continue
        name, path = _split(text)
        if not _is(path.is_dir):
            yield name, path
            continue
        files = _files_in(path)
        if not files:
            raise StartupError(f"the folder {path} has no {SUFFIX} file: put one there, or set PARSEQ_ARTIFACT to another")
        if name is not None and len(files) > 1:
            raise StartupError(f"the folder {path} has {len(files)} {SUFFIX} files, which cannot all be called {name!r}")
        for file in files:
            yield name or file.stem, file


def _is(asked: Callable[[], bool]) -> bool:
    """The answer of a check such as `Path.is_file`; a path that cannot be checked is reported when it is opened."""
    try:
        return asked()
    except (OSError, ValueError):
        return False


def _files_in(folder: Path) -> list[Path]:
    try:
        files = [file for file in folder.iterdir() if file.suffix == SUFFIX and not file.name.startswith(".")]
    except OSError as error:
        cure = "set PARSEQ_ARTIFACT to a folder that this user may read"
        raise StartupError(f"{folder} cannot be read ({error.strerror}): {cure}") from error
    return sorted(file for file in files if _is(file.is_file))


def _split(text: str) -> tuple[str | None, Path]:
    name, equals, rest = text.partition("=")
    if not equals or not rest or "/" in name or _is(Path(text).exists):
        return None, Path(text)
    return name, Path(rest)


def _default_first(sources: list[ModelSource], names: Sequence[str], default: str, may_be_unknown: bool) -> list[ModelSource]:
    if not sources:
        raise StartupError("PARSEQ_ARTIFACT names no file")
    if not default or (may_be_unknown and default not in names):  # it may be the name in the artifact
        return sources
    if default not in names:
        raise StartupError(f"PARSEQ_DEFAULT_MODEL={default} is none of the models, which are {', '.join(names)}")
    place = names.index(default)
    return [sources[place], *sources[:place], *sources[place + 1 :]]
