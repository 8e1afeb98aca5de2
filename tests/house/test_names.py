"""One name, one thing; and nothing goes in a circle, not even for the type checker."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import grimp
import pytest

import gramian

PACKAGE = Path(gramian.__file__).parent


def twice(names: list[tuple[str, str]]) -> dict[str, list[str]]:
    """The names that stand for several things, with where these are."""
    where = defaultdict(list)
    for name, place in names:
        where[name].append(place)
    return {name: places for name, places in where.items() if len(places) > 1}


def test_no_two_classes_have_one_name() -> None:
    named = [
        (node.name, str(path.relative_to(PACKAGE)))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    assert len(named) > 200
    assert twice(named) == {}


def test_no_two_modules_have_one_name() -> None:
    modules = [(path.stem, str(path)) for path in PACKAGE.rglob("*.py") if path.stem != "__init__"]
    packages = [(path.parent.name, str(path)) for path in PACKAGE.rglob("__init__.py")]
    assert len(modules) > 100
    assert twice(modules + packages) == {}


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, the first again at the end; empty if there are none."""
    done: set[str] = set()

    def walk(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module not in done:
            for other in sorted(arrows.get(module, ())):
                found = walk(other, [*path, module])
                if found:
                    return found
            done.add(module)
        return []

    for module in sorted(arrows):
        found = walk(module, [])
        if found:
            return found
    return []


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []


@pytest.fixture(scope="module")
def arrows() -> dict[str, set[str]]:
    """What each module imports of ours, whether or not the program runs."""
    graph = grimp.build_graph("gramian", exclude_type_checking_imports=False, cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def test_no_module_imports_itself_by_way_of_others(arrows: dict[str, set[str]]) -> None:
    assert len(arrows) > 150
    assert circle(arrows) == []


@pytest.mark.parametrize(
    "room",
    [str(path.parent.relative_to(PACKAGE.parent)).replace("/", ".") for path in sorted(PACKAGE.rglob("__init__.py"))],
)
def test_no_room_within_a_room_goes_in_a_circle(room: str, arrows: dict[str, set[str]]) -> None:
    """Of what stands in a room, packages taken whole."""

    def part(module: str) -> str | None:
        return module.removeprefix(f"{room}.").split(".")[0] if module.startswith(f"{room}.") else None

    of_parts: dict[str, set[str]] = defaultdict(set)
    for module, others in arrows.items():
        own = part(module)
        if own is not None:
            of_parts[own] |= {other for other in map(part, others) if other not in (None, own)}  # type: ignore[misc]
    assert circle(dict(of_parts)) == []
