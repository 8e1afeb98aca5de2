"""How tests run the command line: within the test's process by the fixture ``run``, or as a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable

__all__ = ["SUBPROCESS", "Run"]

Run = Callable[..., tuple[int, str, str]]
SUBPROCESS = [sys.executable, "-c", "from gramian.cli.main import main; main()"]
