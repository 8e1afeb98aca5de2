"""Every snippet of the README and the docs is run, and the output shown is the output seen."""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from gramian.registry import RECIPES

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(python|pycon|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture
def recipes() -> Iterator[None]:
    """What a page registers is forgotten after it."""
    known = dict(RECIPES)
    yield
    RECIPES.clear()
    RECIPES.update(known)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
@pytest.mark.usefixtures("recipes")
def test_snippets_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    names: dict[str, object] = {}
    blocks = BLOCK.findall(page.read_text())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind, code in blocks:
            if kind == "console":
                run_console(code)
            elif kind == "python":
                exec(compile(code, page.name, "exec", dont_inherit=True), names)
            else:
                run_doctest(code, names, page.name)


def run_console(code: str) -> None:
    """Run the `$ gramian …` lines of a block; the lines after one must be a part of what it prints."""
    for block in re.split(r"^\$ ", code, flags=re.MULTILINE)[1:]:
        command, _, expected = block.partition("\n")
        words = shlex.split(command)
        if words[0] != "gramian":
            continue
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == (2 if expected.startswith("error:") else 0), done.stderr
        seen = done.stdout + done.stderr
        for line in filter(None, map(str.strip, expected.splitlines())):
            assert pattern(line).search(seen), f"{command!r} did not print {line!r} but\n{seen}"


def pattern(line: str) -> re.Pattern[str]:
    """A shown line as a pattern: `…` stands for anything, white space for any white space."""
    pieces = [r"\s+".join(map(re.escape, piece.split())) for piece in line.split("…")]
    return re.compile(r"\s*.*?\s*".join(pieces))


def run_doctest(code: str, names: dict[str, object], page: str) -> None:
    test = doctest.DocTestParser().get_doctest(code, names, page, page, 0)
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    failures: list[str] = []
    runner.run(test, out=failures.append, clear_globs=False)
    names.update(test.globs)
    assert runner.failures == 0, "".join(failures)


def test_every_page_has_a_snippet_and_is_linked() -> None:
    readme = (ROOT / "README.md").read_text()
    for page in PAGES[1:]:
        assert BLOCK.search(page.read_text()), f"{page.name} has no snippet"
        assert f"docs/{page.name}" in readme, f"{page.name} is not linked from the README"
