"""Which functions say what a caller needs: the public ones, unless they are so short that reading them is quicker."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("artifact", "benchmarks", "export", "model", "reading", "service")
MAX_LINES = 5
"""Of a body that speaks for itself."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def public_functions(tree: ast.AST) -> Iterator[Function]:
    """Of a module and of its public classes; those inside functions are nobody else's."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield node
        elif isinstance(node, ast.If | ast.Try) or (isinstance(node, ast.ClassDef) and not node.name.startswith("_")):
            yield from public_functions(node)


def undocumented(source: str) -> list[str]:
    found = []
    for function in public_functions(ast.parse(source)):
        last = function.body[-1].end_lineno or 0
        if ast.get_docstring(function) is None and last - function.body[0].lineno >= MAX_LINES:
            found.append(f"{function.name} (line {function.lineno})")
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_public_functions_of_more_than_a_few_lines_have_a_docstring(package: str) -> None:
    modules = sorted((ROOT / package).rglob("*.py"))
    assert modules
    found = {str(path.relative_to(ROOT)): names for path in modules if (names := undocumented(path.read_text("utf-8")))}
    assert found == {}


@pytest.mark.parametrize(("n_lines", "missing"), [(MAX_LINES, []), (MAX_LINES + 1, ["long (line 2)"])])
def test_what_is_found(n_lines: int, missing: list[str]) -> None:
    body = "        pass\n" * n_lines
    assert undocumented(f"class Public:\n    def long(self):\n{body}") == missing
    assert undocumented(f"class Public:\n    def long(self):\n        '''Say.'''\n{body}") == []
    assert undocumented(f"class _Own:\n    def long(self):\n{body}") == []
    assert undocumented(f"class Public:\n    def _own(self):\n{body}") == []
