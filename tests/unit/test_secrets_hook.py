"""What `make lint` leaves out of the search for secrets holds none."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from detect_secrets.plugins.artifactory import ArtifactoryDetector

from tests.secrets_hook import may_hold_secrets, signs_of

ROOT = Path(__file__).parents[2]
# In two parts each, so that this file itself holds none.
SECRETS = {
    "KeywordDetector": "pass" + 'word = "dr0wssap and more"',
    "AWSKeyDetector": "AKI" + "AIOSFODNN7EXAMPLF",
    "PrivateKeyDetector": "-----BEGIN RSA PRI" + "VATE KEY-----",
    "BasicAuthDetector": "http://someone:" + "d8f3k2l9@host.example",
    "GitHubTokenDetector": "gh" + "p_" + "a1B2" * 9,
    "ArtifactoryDetector": "AK" + "Cabcdefghij1234",
    "SlackDetector": "xo" + "xb-34532454-e039d02840a0b9379c",
    "SoftlayerDetector": "soft" + "layer_api_key = 'a1b2" + "c3d4" * 15 + "'",
}


@pytest.mark.parametrize("plugin", SECRETS)
def test_a_file_with_a_secret_is_searched(plugin: str, tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(f"import sys\n\n{SECRETS[plugin]}\n\nsys.exit()\n")
    assert may_hold_secrets(path, list(signs_of([plugin])))
    path.write_text("import sys\n\nsys.exit()\n")
    assert not may_hold_secrets(path, list(signs_of([plugin])))


def test_a_sign_may_be_a_whole_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ArtifactoryDetector, "denylist", [re.compile("^AKC[a-z]+$")])
    path = tmp_path / "program.py"
    path.write_text(f"import sys\n{'AK' + 'Csecret'}\nsys.exit()\n")
    assert may_hold_secrets(path, list(signs_of(["ArtifactoryDetector"])))


def test_other_kinds_of_files_and_plugins_without_patterns_are_left_to_the_hook(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("a: 1\n")
    assert may_hold_secrets(path, [])
    assert may_hold_secrets(ROOT / "tests" / "wire.py", list(signs_of(["HexHighEntropyString"])))


def test_the_command_ends_as_the_hook_does(tmp_path: Path) -> None:
    paths = [tmp_path / "harmless.py", tmp_path / "program.py"]
    paths[0].write_text("import sys\n")
    for secret, code in ((SECRETS["KeywordDetector"], 1), ("", 0)):
        paths[1].write_text(f"import sys\n{secret}\n")
        command = [sys.executable, "-m", "tests.secrets_hook", "--disable-plugin", "HexHighEntropyString",
                   "--disable-plugin", "Base64HighEntropyString", *map(str, paths)]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == code, done
        assert ("program.py" in done.stdout) == bool(code)
