"""`python -m frieda` is the command line."""

from __future__ import annotations

from frieda.cli.main import main

main()
