"""`frieda bench report`: one self-contained HTML page of files of results, or its tables as Markdown."""

from __future__ import annotations

from pathlib import Path

import click

from frieda.errors import MissingDependencyError


@click.command()
@click.argument(
    "results",
    nargs=-1,
    required=True,
    metavar="RESULT...",
    type=click.Path(path_type=Path, exists=True),
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The page. [default with --markdown: standard output]",
)
@click.option("--markdown", is_flag=True, help="Only the tables, for a document.")
@click.option("--no-figures", is_flag=True, help="Leave the figures out; they need matplotlib.")
def report(
    results: tuple[Path, ...], output: Path | None, markdown: bool, no_figures: bool
) -> None:
    """Environment, settings, tables, figures, the change against each peer, and the commands that make it again.

    Cells are medians over the valid rounds with the least and the greatest. The page loads nothing and has no script.
    """
    from frieda.bench.page import html_page, markdown_tables  # noqa: PLC0415  (only when it runs)
    from frieda.bench.results import read_results  # noqa: PLC0415

    if output is None and not markdown:
        raise click.UsageError(
            "where to? give --output FILE (only --markdown goes to the terminal)"
        )
    files = [read_results(path) for path in results]
    if markdown:
        text = markdown_tables(files)
    elif no_figures:
        text = html_page(files, None)
    else:
        from frieda.bench.drawing import drawn  # noqa: PLC0415

        try:
            text = html_page(files, drawn)
        except MissingDependencyError as error:
            raise MissingDependencyError(f"{error}; or leave them out: --no-figures") from None
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")
        click.echo(f"{output}")
