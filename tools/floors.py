"""Write the table of floors in CONTRIBUTING.md from the import contract and from what each room says at its door."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
TABLE = re.compile(r"\| floor \|.*?\n(?=\n)", re.DOTALL)


def floors() -> list[list[str]]:
    """The rooms of each floor, from the top, as the import contract has them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract.get("containers") == ["gramian"])
    return [re.split(r"\s*[|:]\s*", layer) for layer in layers]


def said(room: str) -> str:
    """The first sentence of a room's door, or of the module."""
    path = ROOT / "src" / "gramian" / room
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(text.split("\n\n")[0].split())


def table() -> str:
    """The table, a line for each room."""
    lines = ["| floor | room | what lives there |", "|---|---|---|"]
    rooms = floors()
    for height, floor in enumerate(rooms):
        for room in floor:
            name = f"`{room}/`" if (ROOT / "src" / "gramian" / room).is_dir() else f"`{room}`"
            lines.append(f"| {len(rooms) - height} | {name} | {said(room)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(TABLE.sub(lambda _: table(), PAGE.read_text()))
