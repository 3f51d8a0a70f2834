from __future__ import annotations

import hashlib
from pathlib import Path

import httpx
import pytest

from service.api_keys import LOOK_EVERY_S, ApiKeys
from service.errors import UNAUTHORIZED, Problem, StartupError
from tests.fakes import FakeClock, request, toy_runtime, with_client
from tests.toy_artifact import png_of

FIRST, SECOND = "first-key-0123456789", "second-key-0123456789"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"# of the team\n\n{FIRST}\nsha256:{hashlib.sha256(SECOND.encode()).hexdigest()}\n")
    return path


def replace(path: Path, text: str) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(path)


def passes(keys: ApiKeys, **headers: str) -> bool:
    try:
        keys.check({name.replace("_", "-").encode(): value.encode() for name, value in headers.items()})
    except Problem as caught:
        problem = caught
    else:
        return True
    assert problem.kind is UNAUTHORIZED
    assert problem.headers["WWW-Authenticate"] == "Bearer"
    assert FIRST not in problem.detail
    return False


@pytest.mark.parametrize(
    "headers",
    [
        {"x_api_key": FIRST},
        {"x_api_key": f" {SECOND} "},
        {"authorization": f"Bearer {FIRST}"},
        {"authorization": f"bearer  {SECOND}"},
    ],
)
def test_the_keys_of_the_file_pass(file: Path, headers: dict[str, str]) -> None:
    assert passes(ApiKeys(file), **headers)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x_api_key": ""},
        {"x_api_key": FIRST[:-1]},
        {"x_api_key": FIRST.upper()},
        {"x_api_key": "# of the team"},
        {"x_api_key": f"sha256:{hashlib.sha256(SECOND.encode()).hexdigest()}"},
        {"x_api_key": hashlib.sha256(SECOND.encode()).hexdigest()},
        {"authorization": FIRST},
        {"authorization": f"Basic {FIRST}"},
        {"authorization": "Bearer"},
        {"x_api_key": "wrong", "authorization": f"Bearer {FIRST}"},  # pragma: allowlist secret
    ],
)
def test_nothing_else_does(file: Path, headers: dict[str, str]) -> None:
    assert not passes(ApiKeys(file), **headers)


def test_keys_are_rotated_without_a_restart(file: Path) -> None:
    clock = FakeClock()
    keys = ApiKeys(file, clock)
    replace(file, "third-key-0123456789\n")
    assert passes(keys, x_api_key=FIRST)  # not looked at yet
    clock.advance(LOOK_EVERY_S)
    assert passes(keys, x_api_key="third-key-0123456789")  # pragma: allowlist secret
    assert not passes(keys, x_api_key=FIRST)


@pytest.mark.parametrize("text", ["", "short\n", "sha256:abc\n"])
def test_a_file_that_cannot_be_used_changes_nothing(file: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    keys = ApiKeys(file, clock)
    replace(file, text)
    clock.advance(LOOK_EVERY_S)
    assert passes(keys, x_api_key=FIRST)
    assert "the API keys stay as they were" in caplog.text
    file.unlink()
    clock.advance(LOOK_EVERY_S)
    assert passes(keys, x_api_key=FIRST)


@pytest.mark.parametrize("text", ["", "# nothing\n", "short\n", "sha256:abc\n", "with a space inside it\n"])
def test_at_the_start_such_a_file_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys"
    with pytest.raises(StartupError, match="PARSEQ_API_KEYS_FILE"):
        ApiKeys(path)
    path.write_text(text)
    with pytest.raises(StartupError, match="PARSEQ_API_KEYS_FILE") as told:
        ApiKeys(path)
    assert not text.strip("# \n") or text.strip() not in str(told.value)


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/recognize"), ("POST", "/recognize"), ("GET", "/v1/models")])
def test_what_costs_or_tells_something_wants_a_key(file: Path, method: str, path: str) -> None:
    content = png_of("abc") if method == "POST" else None
    refused = request(toy_runtime(api_keys_file=file), method, path, content=content)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert refused.headers["x-request-id"]
    assert refused.json()["type"] == UNAUTHORIZED.type
    headers = {"x-api-key": FIRST}
    assert request(toy_runtime(api_keys_file=file), method, path, content=content, headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/openapi.json", "/"])
def test_probes_and_pages_do_not(file: Path, path: str) -> None:
    assert request(toy_runtime(api_keys_file=file), "GET", path).status_code == 200


def test_refusals_for_want_of_a_key_are_counted(file: Path) -> None:
    runtime = toy_runtime(api_keys_file=file)
    request(runtime, "POST", "/v1/recognize", content=png_of("abc"))
    text = runtime.metrics.render().decode()
    assert 'parseq_problems_total{problem="unauthorized"} 1.0' in text
    assert 'parseq_request_duration_seconds_count{status="401"} 1.0' in text


def test_only_recognition_requests_count_as_such(file: Path) -> None:
    runtime = toy_runtime(api_keys_file=file)

    async def scenario(client: httpx.AsyncClient) -> None:
        for method, path in (("GET", "/v1/models"), ("HEAD", "/v1/models"), ("GET", "/v1/recognize"), ("POST", "/v1/nothing")):
            assert (await client.request(method, path)).status_code == 401
        text = (await client.get("/metrics")).text
        assert 'parseq_request_duration_seconds_count{status="401"}' not in text
        assert 'parseq_problems_total{problem="unauthorized"} 4.0' in text
        for path in ("/v1/recognize", "/recognize"):
            assert (await client.post(path)).status_code == 401
        assert 'parseq_request_duration_seconds_count{status="401"} 2.0' in (await client.get("/metrics")).text

    with_client(runtime, scenario)
