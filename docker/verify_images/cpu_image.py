"""The CPU image, run with no right and no place to write but what it needs."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

from building import CPU_FILE, PODMAN, build, check_size
from container import TMP, Container, run_once, serving, started
from sample_crops import SAMPLES, metric, read_many, read_samples, stop_under_load
from scraping import scrape
from steps import ROOT, WORK, CheckError, check, heading, note, run

UID = "10001"
MOST_MB = 400
BUNDLED = ROOT / "service" / "bundled" / "parseq-mini.onnx"
LIMIT_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
LIMIT_BYTES = 512 * 2**20
EXIT_NOT_FETCHED = 3
PATIENT = ("--env=PARSEQ_MAX_BATCH_QUEUE_WAIT_MS=30000", "--env=PARSEQ_BATCH_TIMEOUT_MS=60000")
"""On one core, or a busy machine, requests of many crops would be refused; here they are to be read."""


def verify_cpu_image(image: str) -> None:
    """Build it, run it, read with it, scrape it, stop it."""
    heading("The CPU image")
    build(CPU_FILE, image)
    check_size(image, CPU_FILE, MOST_MB)
    _look_inside(image)
    heading("A container of it: read-only root, no capability, no new privileges, 512 MiB, 1 CPU")
    with serving(image, *TMP, *PATIENT) as container:
        _check_rights(container)
        _check_health(image, container)
        read_samples(container)
        n_crops = len(SAMPLES) + read_many(container)
        scrape(container, n_crops)
        note(f"{metric(container, 'process_resident_memory_bytes') / 2**20:.0f} MiB of memory in use after that")
        stop_under_load(container)
    heading("Without a network, with nothing that can be written, on the default port")
    with started(image) as container:
        container.wait_ready()
        _check_health(image, container)
        check(container.execute("touch", "/tmp/x")[0] != 0, "not even /tmp can be written")
        check(container.stop() == 0, "it ends with exit code 0")
    with started(image) as container:
        exit_code = container.stop()
        # By the signal if that was faster than the program.
        check(exit_code in (0, 143), "a container that is stopped as it starts ends at once (0, or 143)", exit_code)
    _bring_another_artifact(image)


def _look_inside(image: str) -> None:
    code = (
        "import json, sys; from importlib.metadata import distributions; from pathlib import Path; import artifact, service\n"
        "files = [str(f.relative_to(p)) for p in map(Path, sys.path) if p.is_dir() for f in p.rglob('*')]\n"
        "print(json.dumps({'packages': sorted(d.name for d in distributions()), 'python': sys.version.split()[0],\n"
        "'weights': [f for f in files if f.endswith(('.safetensors', '.pt'))],\n"
        "'rooms': sorted({'artifact', 'model', 'export', 'reading'} & "
        "{found.name for found in Path(service.__file__).parents[1].iterdir()})}))"
    )
    exit_code, output = run_once(image, "--entrypoint=python3", arguments=["-c", code])
    check(exit_code == 0, "its Python starts", output)
    found = json.loads(output)
    note(f"Python {found['python']}, {len(found['packages'])} packages")
    check(not {"torch", "onnx", "pip"} & set(found["packages"]), "no PyTorch in it, nor anything else of the offline programs")
    offline = found["rooms"] == ["artifact", "model", "reading"] and not found["weights"]
    check(offline, "of the offline programs only what reads, and no weights", found)
    _read_offline(image)


def _read_offline(image: str) -> None:
    """The commands that read are there and need nothing that is not."""
    options = ("--entrypoint=parseq-read", f"--volume={ROOT / 'docs' / 'samples'}:/crops:ro")
    exit_code, output = run_once(image, *options, arguments=["--artifact", "bundled", "/crops/bakery.png"])
    check(exit_code == 0 and SAMPLES["bakery"] in output, "parseq-read reads a crop with the bundled artifact", output)
    exit_code, output = run_once(image, "--entrypoint=parseq-evaluate", arguments=["--artifact", "bundled", "--data", "/tmp"])
    check(exit_code == 2 and "no LMDB archive" in output, "parseq-evaluate looks for labelled crops", output)


def _check_rights(container: Container) -> None:
    check(set(container.status_field("Uid").split()) == {UID}, f"it runs as user {UID}", container.status_field("Uid"))
    check(int(container.status_field("CapEff"), 16) == 0, "it has no capability")
    check(container.status_field("NoNewPrivs") == "1", "it can get no new privileges")
    check(container.execute("touch", "/opt/venv/x")[0] != 0, "its root cannot be written")
    check(_number(container, LIMIT_FILES) == LIMIT_BYTES, "its memory is limited to 512 MiB")
    measured = "tuned in" in container.log or "not tuned: while lanes" in container.log
    check(measured, "it measured its lanes at its start, or says that the machine was too busy for that", container.log)


def _check_health(image: str, container: Container) -> None:
    kind, *command = json.loads(run([*PODMAN, "image", "inspect", "--format", "{{json .HealthCheck.Test}}", image]))
    exit_code, output = container.execute(*command)
    check(kind == "CMD" and exit_code == 0, f"HEALTHCHECK {' '.join(command)} passes inside", output)


def _number(container: Container, files: tuple[str, ...]) -> int:
    """The number in the first of some files that is there: cgroups of version 2, or of version 1."""
    for file in files:
        exit_code, output = container.execute("cat", file)
        if exit_code == 0:
            return int(output)
    raise CheckError(f"there is none of {files}")


def _bring_another_artifact(image: str) -> None:
    heading("Another artifact, fetched by an init container of the same image")
    sha256 = hashlib.sha256(BUNDLED.read_bytes()).hexdigest()
    with TemporaryDirectory(dir=WORK) as folder, _file_server(BUNDLED.parent) as url:
        Path(folder).chmod(0o777)  # as an emptyDir is
        fetch = ["-m", "service.fetch_artifact", f"{url}/{BUNDLED.name}"]
        volume = f"--volume={folder}:/models:rw"
        options = ["--entrypoint=python3", volume]
        wrong = run_once(image, *options, arguments=[*fetch, "0" * 64, "/models/model.onnx"], network="host")
        check(wrong[0] == EXIT_NOT_FETCHED and not list(Path(folder).iterdir()), "a wrong checksum leaves nothing", wrong)
        right = run_once(image, *options, arguments=[*fetch, sha256, "/models/model.onnx"], network="host")
        check(right[0] == 0, right[1].splitlines()[-1], right)
        with serving(image, *TMP, f"--volume={folder}:/models:ro", "--env=PARSEQ_ARTIFACT=/models/model.onnx") as container:
            read_samples(container)
            check(container.stop() == 0, "it ends with exit code 0")


@contextmanager
def _file_server(folder: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
