"""The report page: self-contained, escaped, complete."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest

from frieda.bench.charts import Chart
from frieda.bench.drawing import drawn
from frieda.bench.page import html_page, markdown_tables
from frieda.bench.results import Results, Run

MakeRun = Callable[..., Run]
MakeResults = Callable[..., Results]
VOID = {"meta", "img", "br", "hr", "link", "input", "source"}


class Document(HTMLParser):
    """Every element of a page, its nesting checked."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def no_picture(chart: Chart, file_format: str) -> bytes:
    return f"<svg>{file_format}</svg>".encode()


@pytest.fixture
def files(make_run: MakeRun, make_results: MakeResults) -> list[Results]:
    runs = [
        make_run(system, round=round, median_us=median_us, **{"durability": durability})
        for system, median_us in (("frieda", 50.0), ("kafka", 500.0))
        for durability in ("disk", "cache")
        for round in (0, 1)
    ]
    return [make_results(*runs)]


def test_the_page_has_tables_changes_commands_environment_and_settings(
    files: list[Results],
) -> None:
    page = Document(html_page(files, no_picture))
    for told in (
        *("Frieda tcp", "Kafka", "server CPU", "against", "valid rounds"),
        *("$ frieda bench compare --output results", "A Processor", "linger.ms", "flush"),
        "throughput of four brokers: not in the files",
    ):
        assert told in page.text


def test_cache_and_disk_have_sections_of_their_own_cache_first(files: list[Results]) -> None:
    page = html_page(files, no_picture)
    cache, disk = page.index('id="durability-cache"'), page.index('id="durability-disk"')
    assert cache < disk
    assert page[cache:disk].count("<table>") == 2
    assert "after fsync" not in page[cache:disk]


def test_the_page_loads_nothing_runs_nothing_and_its_policy_says_so(files: list[Results]) -> None:
    text = html_page(files, no_picture)
    page = Document(text)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.elements}
    assert not any("style" in attributes for _, attributes in page.elements)
    assert not any(name.startswith("on") for _, each in page.elements for name in each)
    pictures = [each["src"] or "" for each in page.attributes("img")]
    assert pictures
    assert all(source.startswith("data:image/svg+xml;base64,") for source in pictures)
    (policy,) = [each["content"] or "" for each in page.attributes("meta") if "http-equiv" in each]
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:"


def test_every_value_of_a_file_is_escaped(make_run: MakeRun, make_results: MakeResults) -> None:
    evil = "<script>alert('&\"')</script>"
    run = make_run(
        transport=evil, durability=evil, case=evil, invalid_because=evil, acks=evil, arrivals=evil
    )
    results = make_results(
        run,
        make_run(transport=evil, durability=evil),
        command=f"frieda {evil}",
        environment={evil: evil},
        settings={evil: [evil]},
        extra={evil: {evil: evil}},
        kind=evil,
    )
    text = html_page([results], no_picture)
    assert "<script" not in text
    assert "alert" in Document(text).text


def test_figures_are_inside_the_page_and_say_what_they_are(files: list[Results]) -> None:
    page = Document(html_page(files, drawn))
    for picture in page.attributes("img"):
        content = base64.b64decode((picture["src"] or "").partition(",")[2], validate=True)
        assert b"<svg" in content[:1000]
        assert "durability" in (picture["alt"] or "")


def test_without_figures_the_tables_are_all_there(files: list[Results]) -> None:
    page = Document(html_page(files, None))
    assert not page.attributes("img")
    assert len(page.attributes("table")) > 4


def test_it_is_readable_in_dark_and_in_light(files: list[Results]) -> None:
    text = html_page(files, None)
    assert "color-scheme: light dark" in text
    assert "@media (prefers-color-scheme: dark)" in text


def test_a_model_has_its_table_and_of_its_cells_only_one_is_shown_with_settings(
    make_run: MakeRun, make_results: MakeResults
) -> None:
    runs = [
        make_run(producers=1, record_size=size, rate=None, in_flight=1, case=f"cell {size}")
        for size in (100, 1000, 10_000)
    ]
    page = Document(html_page([make_results(*runs, kind="model")], None))
    assert "L + size / B" in page.text
    assert page.text.count("cell ") == 1


def test_no_file_at_all_is_a_page_that_names_what_is_missing() -> None:
    assert "not in the files" in Document(html_page([], no_picture)).text


def test_the_same_tables_come_as_markdown(files: list[Results]) -> None:
    text = markdown_tables(files)
    assert text.index("## Durability: cache") < text.index("## Durability: disk")
    assert text.count("| load | system | against |") == 2
    assert "```console\n$ frieda bench compare --output results\n```" in text
