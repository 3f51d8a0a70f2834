"""Loading an artifact: the graph must offer what its metadata says, or the server does not start."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from artifact.metadata import ArtifactError, ArtifactMetadata, Shape
from artifact.session import open_cpu_session
from service.config import Settings
from service.engine.types import Session
from service.errors import StartupError
from service.process.cpu import cpu_budget
from service.sessions.opening import open_engine_sessions
from service.sessions.self_check import KnownAnswer, stored_answer
from service.sessions.topology import Topology

VERSION_DIGITS: Final = 12
"""Digits of the digest in a version: enough to tell a server's artifacts apart, and short enough for an address."""


@dataclass(frozen=True, slots=True)
class LoadedArtifact:
    """A model ready to run."""

    metadata: ArtifactMetadata
    session: Session
    provider: str
    """The execution provider in use: `cpu`, `cuda`, `tensorrt` or `openvino`."""
    topology: Topology
    """What the session was opened for."""
    alone: Session | None = None
    """The session for a crop that is the only one in the engine; `None`: `session` reads it too."""
    known_answer: KnownAnswer | None = None
    """As the exporter wrote it; `None`: the artifact carries none."""
    sha256: str = ""
    """SHA-256 of the file, in hexadecimal; empty for a model that does not come from a file."""

    @property
    def version(self) -> str:
        """What tells it from other artifacts of the same name: the first digits of its digest."""
        return (self.sha256 or self.metadata.weights_sha256)[:VERSION_DIGITS]


def load_artifact(settings: Settings, like: Topology | None = None, budget: int | None = None) -> LoadedArtifact:
    """Open the artifact of the settings, check it, and settle how it is run.

    Args:
        settings: Of the service.
        like: How to run it where that is not known yet: while a model serves, nothing is measured. Default: measure.
        budget: Cores for its lanes. Default: all that this process may use.

    Raises:
        StartupError: There is no such file, it is not an artifact this version can run, or the provider is not there.
    """
    path = settings.artifact
    metadata, known_answer = read_artifact(path)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    opened = open_engine_sessions(settings, metadata, budget or cpu_budget(), like)
    return LoadedArtifact(metadata, opened.session, opened.provider, opened.topology, opened.alone, known_answer, sha256)


def read_artifact(path: Path) -> tuple[ArtifactMetadata, KnownAnswer | None]:
    """What an artifact says about itself, compared with its graph, and the known answer it carries.

    Raises:
        StartupError: There is no such file, or it is not an artifact this version can run.
    """
    _check_file(path)
    try:
        session = open_cpu_session(path, threads=1, optimised=False)
        properties = session.get_modelmeta().custom_metadata_map
        metadata = ArtifactMetadata.from_map(properties)
        check_interface(metadata, session.get_inputs(), session.get_outputs(), session.get_overridable_initializers())
        return metadata, stored_answer(metadata, properties)
    except ArtifactError as error:
        message = str(error)
        raise StartupError(message if str(path) in message else f"{path}: {message}") from error


def _check_file(path: Path) -> None:
    """Look at the file first: ONNX Runtime's message for a file it may not read does not help."""
    cure = "set PARSEQ_ARTIFACT or --artifact to an .onnx file"
    try:
        if path.is_dir():
            raise StartupError(f"{path} is a folder: {cure}")
        if not path.is_file():
            raise StartupError(f"there is no artifact at {path}: {cure}")
        with path.open("rb"):
            pass
    except OSError as error:
        raise StartupError(f"{path} cannot be read ({error.strerror}): {cure} that this user may read") from error


def check_interface(
    metadata: ArtifactMetadata, inputs: Sequence[Any], outputs: Sequence[Any], optional_inputs: Sequence[Any] = ()
) -> None:
    """Compare the graph's inputs and outputs (each with `name`, `type`, `shape`) with the metadata.

    Args:
        metadata: Of the artifact.
        inputs: That must be given.
        outputs: All of them.
        optional_inputs: That have a value if they are not given. Those that the metadata does not know may be there.

    Raises:
        ArtifactError: A name, type or size differs, or the batch axis is fixed.
    """
    _compare("inputs", metadata.inputs(), {value.name: value for value in inputs})
    _compare("outputs", metadata.outputs(), {value.name: value for value in outputs})
    wanted, found = metadata.optional_inputs(), {value.name: value for value in optional_inputs}
    _compare("optional inputs", wanted, {name: value for name, value in found.items() if name in wanted})


def _compare(what: str, wanted: dict[str, tuple[str, Shape]], found: dict[str, Any]) -> None:
    if wanted.keys() != found.keys():
        raise ArtifactError(f"the graph's {what} are {sorted(found)}, its metadata promises {sorted(wanted)}")
    for name, (type_, shape) in wanted.items():
        value = found[name]
        if value.type != type_:
            raise ArtifactError(f"the graph's {name} is {value.type}, not {type_}")
        if not _fits(value.shape, shape):
            raise ArtifactError(f"the graph's {name} has shape {value.shape}, not {['batch', *shape[1:]]}")


def _fits(found: Sequence[Any], wanted: Shape) -> bool:
    """Whether the sizes agree; those that the graph leaves open (a name or `None`) are checked by the warm-up."""
    if len(found) != len(wanted):
        return False
    return all(
        not isinstance(size, int) if want is None else not isinstance(size, int) or size == want
        for size, want in zip(found, wanted, strict=True)
    )
