"""From the words of a command line to sources."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final

from model.data.walk import files_below
from reading.bulk.sources.archives import open_archive
from reading.bulk.sources.files import beside, is_url, open_file, remote
from reading.bulk.sources.interface import Source, SourceError, reason_of
from reading.bulk.sources.pictures import Pictures
from reading.bulk.sources.tables import open_table
from reading.bulk.sources.tars import open_tar
from reading.pictures.paths import SUFFIXES

TABLES: Final = (".parquet", ".pq", ".arrow", ".feather", ".ipc")
TARS: Final = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
LISTS: Final = (".txt", ".lst", ".list")
KINDS: Final = (
    f"pictures ({', '.join(sorted(SUFFIXES))}), Parquet and Arrow ({', '.join(TABLES)}), tar archives ({', '.join(TARS)}), "
    f"LMDB archives (data.mdb), and as a source of its own a list of image files ({', '.join(LISTS)})"
)
COMMAND_LINE: Final = "files"
"""The name of the source that single image files are."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Where in a source pictures and ids are."""

    image: str = "image"
    id: str | None = None


def find_sources(arguments: Iterable[str], columns: Columns, skip: Path) -> list[Source]:
    """The sources that arguments mean, in their order; what two of them mean is there once.

    Args:
        arguments: Files, folders, patterns and URLs.
        columns: For tables and tar archives.
        skip: A folder in which nothing is looked for: where the results go.

    Raises:
        SourceError: One of them is no source.
    """
    found: dict[str, Source] = {}
    single: list[str] = []
    for argument in arguments:
        for name in _expanded(argument):
            if _kind(name) == "picture" and not _is_folder(name):
                single.append(name)
                continue
            for source in _opened(name, columns, skip):
                found.setdefault(source.identity, source)
    if single:
        found[COMMAND_LINE] = _pictures(COMMAND_LINE, f"files {Path.cwd()}", str(Path.cwd()), list(dict.fromkeys(single)))
    return [replace(source, stop=source.total) for source in _without_inner(list(found.values()))]


def _expanded(argument: str) -> list[str]:
    if not glob.has_magic(argument):
        return [argument]
    if is_url(argument):
        files, path = remote(argument)
        try:
            found = [str(files.unstrip_protocol(match)) for match in files.glob(path)] or [argument]
        except Exception as error:  # each file system has errors of its own
            raise SourceError(f"{argument}: cannot be listed ({reason_of(error)})") from error
    elif Path(argument).exists():
        return [argument]
    else:
        found = glob.glob(argument, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute patterns
        if not found:
            raise SourceError(f"{argument}: no file matches")
    return sorted(found)


def _kind(name: str) -> str | None:
    """What a file is by its suffix."""
    lower = PurePosixPath(name.partition("?")[0] if is_url(name) else name).name.lower()
    if PurePosixPath(lower).suffix in SUFFIXES:
        return "picture"
    if lower.endswith(TABLES):
        return "Parquet" if lower.endswith(TABLES[:2]) else "Arrow"
    if lower.endswith(TARS):
        return "tar"
    if lower == "data.mdb":
        return "LMDB"
    return "list" if lower.endswith(LISTS) else None


def _is_folder(name: str) -> bool:
    if not is_url(name):
        return Path(name).is_dir()
    if name.startswith(("http://", "https://")):
        return False
    files, path = remote(name)
    try:
        return bool(files.isdir(path))
    except Exception as error:
        raise SourceError(f"{name}: cannot be looked at ({reason_of(error)})") from error


def _opened(name: str, columns: Columns, skip: Path) -> Iterator[Source]:
    if _is_folder(name):
        yield from _folder(name, columns, skip)
        return
    kind = _kind(name) or _kind_by_content(name)
    if kind == "picture":
        yield _pictures(name, f"file {_full(name)}", str(Path.cwd()), [name])
    else:
        yield _file(name, name, kind, columns)


def _file(file: str, name: str, kind: str | None, columns: Columns) -> Source:
    if kind == "Parquet" or kind == "Arrow":
        return open_table(_full(file), name, "Parquet" if kind == "Parquet" else "Arrow", columns.image, columns.id)
    if kind == "tar":
        # The column of a WebDataset is the suffix: `--image-column left.jpg`.
        suffix = None if columns.image == Columns().image else f".{columns.image.removeprefix('.')}"
        return open_tar(_full(file), name, suffix)
    if kind == "LMDB":
        if is_url(file):
            raise SourceError(f"{file}: LMDB archives are read from local folders only: download it first")
        return open_archive(Path(file).parent, name)
    if kind == "list":
        return _list(file)
    raise SourceError(f"{file} is nothing that can be read: there are {KINDS}")


def _full(name: str) -> str:
    return name if is_url(name) else str(Path(name).resolve())


def _kind_by_content(name: str) -> str | None:
    with open_file(name) as file:
        head = file.read(512)
    if head.startswith(b"PAR1"):
        return "Parquet"
    if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")) and not head.startswith(b"\xff\xff\xff\xff\0\0\0\0"):
        return "Arrow"
    if head[257:262] == b"ustar":
        return "tar"
    return "picture" if head.startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*")) else None


def _folder(name: str, columns: Columns, skip: Path) -> Iterator[Source]:
    files = sorted(_files_of(name, skip))
    pictures = [file for file in files if _kind(file) == "picture"]
    others = [file for file in files if _kind(file) in ("Parquet", "Arrow", "tar", "LMDB")]
    if not pictures and not others:
        raise SourceError(f"{name}: nothing that can be read is in this folder or below it; there are {KINDS}")
    if pictures:
        yield _pictures(name, f"pictures {_full(name)}", _full(name), pictures)
    for file in others:
        told = name if file == "data.mdb" else beside(name, file.removesuffix("/data.mdb"))
        yield _file(beside(name, file), told, _kind(file), columns)


def _files_of(name: str, skip: Path) -> Iterator[str]:
    """The files below a folder, relative to it."""
    if is_url(name):
        files, path = remote(name)
        try:
            found = files.find(path)
        except Exception as error:
            raise SourceError(f"{name}: cannot be listed ({reason_of(error)})") from error
        root = path.rstrip("/") + "/"
        yield from (each.removeprefix(root) for each in map(str, found))
        return
    skipped, folder = f"{skip.absolute()}{os.sep}", Path(name).absolute()
    for found_ in files_below(folder):
        if not str(found_).startswith(skipped):
            yield found_.relative_to(folder).as_posix()


def _pictures(name: str, identity: str, base: str, names: list[str]) -> Pictures:
    return Pictures(name=name, identity=identity, count=len(names), stop=len(names), base=base, names=tuple(names))


def _list(file: str) -> Pictures:
    """Image files that a list names, one a line."""
    with open_file(file) as content:
        try:
            lines = content.read().decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise SourceError(f"{file} is no list of names: it is not UTF-8") from None
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise SourceError(f"{file} names no file")
    base = _base(file, names[0])
    return _pictures(file, f"list {_full(file)} {base}", base, names)


def _base(file: str, first: str) -> str:
    """Where a list's relative names begin: where the command runs if the first is there, else where the list is."""
    if is_url(file):
        return file.rpartition("/")[0]
    folder, here = str(Path(file).resolve().parent), str(Path.cwd())
    with suppress(OSError):
        if not is_url(first) and not (Path(here) / first).exists() and (Path(folder) / first).exists():
            return folder
    return here


def _without_inner(sources: list[Source]) -> list[Source]:
    """Folders of pictures that lie in another one of them are read with that one."""
    roots = {source.base for source in sources if isinstance(source, Pictures) and source.identity == f"pictures {source.base}"}
    return [
        source
        for source in sources
        if not (
            isinstance(source, Pictures)
            and source.base in roots
            and source.identity == f"pictures {source.base}"
            and any(source.base != root and source.base.startswith(f"{root}/") for root in roots)
        )
    ]
