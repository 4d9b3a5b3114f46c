"""How the benchmark commands write their figures: each chart as PNG and SVG, a line for each file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from frieda.bench.charts import Chart
from frieda.errors import MissingDependencyError

FORMATS: Final = ("png", "svg")


def write_figures(charts: Sequence[Chart], folder: Path, formats: Sequence[str] = FORMATS) -> None:
    """Draw all into `folder`, made when missing. Raises MissingDependencyError, OSError."""
    from frieda.bench.drawing import write_chart  # noqa: PLC0415  (only when it runs)

    folder.mkdir(parents=True, exist_ok=True)
    for chart in charts:
        for suffix in formats:
            path = folder / f"{chart.name}.{suffix}"
            write_chart(path, chart)
            click.echo(f"{path}")


def write_figures_if_possible(charts: Sequence[Chart], folder: Path) -> None:
    """The same after a measurement, which must not fail for want of matplotlib: it says what to install."""
    try:
        write_figures(charts, folder)
    except MissingDependencyError as error:
        click.echo(f"figures not drawn: {error}; then: frieda bench figures {folder}", err=True)
