"""What `GET /v1/models` tells of charsets that are long and of weights that others made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest

from artifact.metadata import ArtifactMetadata
from service import errors
from service.http.dialects.v1_schemas import MAX_INLINE, CharsetOfModel, ModelList
from tests.fakes import request, toy_runtime, with_client
from tests.toy_artifact import CHARSET, METADATA

LONG = CHARSET + "".join(map(chr, range(0x4E00, 0x4E00 + MAX_INLINE)))


def told(metadata: ArtifactMetadata) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is told of the one model, and what is at the address of its charset."""

    async def ask(client: httpx.AsyncClient) -> tuple[dict[str, Any], dict[str, Any]]:
        answer = await client.get("/v1/models")
        ModelList.model_validate_json(answer.content)
        [model] = answer.json()["models"]
        charset = await client.get(urljoin(str(answer.url), model["charset_url"]))
        assert charset.status_code == 200, charset.text
        CharsetOfModel.model_validate_json(charset.content)
        assert len(answer.content) < 5000
        return model, charset.json()

    found: tuple[dict[str, Any], dict[str, Any]] = with_client(toy_runtime(metadata=metadata), ask)
    return found


def test_a_short_charset_is_told_with_the_model() -> None:
    model, charset = told(METADATA)
    assert (model["charset"], model["charset_size"], model["architecture"]) == (CHARSET, len(CHARSET), "parseq")
    assert charset == {"charset": CHARSET}
    assert not {"source", "licence", "notice"} & model.keys()


@pytest.mark.parametrize("name", ["toy", "a/b c", "é?#%2F"])
def test_a_long_one_has_an_address_of_its_own(name: str) -> None:
    model, charset = told(replace(METADATA, model_name=name, charset=LONG))
    assert "charset" not in model
    assert model["charset_size"] == len(LONG)
    assert charset == {"charset": LONG}


def test_symbols_are_told_with_the_charset() -> None:
    symbols = (*CHARSET, "ch")
    _, charset = told(replace(METADATA, symbols=symbols))
    assert charset == {"charset": CHARSET, "symbols": list(symbols)}


def test_where_weights_come_from_is_told() -> None:
    model, _ = told(replace(METADATA, source="https://example.org/a", licence="Apache-2.0", notice="By A.\nChanged."))
    assert (model["source"], model["licence"], model["notice"]) == ("https://example.org/a", "Apache-2.0", "By A.\nChanged.")


def test_there_is_no_charset_of_other_models() -> None:
    answer = request(toy_runtime(), "GET", "/v1/models/other/charset")
    assert (answer.status_code, answer.json()["type"]) == (404, errors.NOT_FOUND.type)
    assert answer.json()["detail"] == "There is no model `other`; those there are: toy."
