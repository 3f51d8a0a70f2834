from __future__ import annotations

from pathlib import Path

import pytest

from service.config import BUNDLED_ARTIFACT
from tests.integration.server import running
from tests.reliability.api_fuzz import fuzz

MODEL = "/v2/models/{name}"
OPERATIONS = {
    "GET /livez", "GET /metrics", "GET /readyz", "GET /v1/models", "GET /v1/models/{name}/charset", "POST /v1/recognize",
    "POST /v1/regions",
    "GET /v2", "GET /v2/health/live", "GET /v2/health/ready", "POST /v2/repository/index", f"GET {MODEL}", f"GET {MODEL}/ready",
    f"GET {MODEL}/versions/{{version}}", f"GET {MODEL}/versions/{{version}}/ready", f"POST {MODEL}/infer",
}  # fmt: skip
CASES = 12


def test_a_few_hundred_cases_get_no_5xx_and_nothing_undocumented(tmp_path: Path) -> None:
    with running(BUNDLED_ARTIFACT, tmp_path / "log") as server:
        result = fuzz(server, CASES, tmp_path)
        assert result.exit_code == 0, result.report
        assert result.answers.keys() == OPERATIONS
        assert all(statuses.total() >= CASES for statuses in result.answers.values()), result.answers
        assert not [status for statuses in result.answers.values() for status in statuses if status >= 500], result.answers
        assert result.answers["POST /v1/recognize"][200] > 0
        assert server.terminate() == 0
        assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize(("status", "check"), [(418, "status_code_conformance"), (500, "no_server_error")])
def test_a_server_that_answers_otherwise_is_found_out(tmp_path: Path, status: int, check: str) -> None:
    variables = {"STATUS": str(status)}
    with running(
        BUNDLED_ARTIFACT, tmp_path / "log", module="tests.reliability.undocumented_server", variables=variables
    ) as server:
        result = fuzz(server, 1, tmp_path, "--include-path", "/v1/models", "--phases", "fuzzing", "--checks", check)
    assert result.exit_code == 1
    assert str(status) in result.report
