"""Plain data: what JSON can hold, and what stands in the header of a file, an answer of the server, a line of a log."""

from __future__ import annotations

from typing import Any

__all__ = ["Plain"]

Plain = dict[str, Any]  # values are None, True, False, numbers, text, lists and dictionaries of these
