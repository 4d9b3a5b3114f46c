"""The bytes in docs/protocol.md are the bytes that a broker understands."""

from __future__ import annotations

import re
from pathlib import Path

from frieda.testing.brokers import running_server
from frieda.testing.raw_client import raw_client
from frieda.wire.messages import APIS, ApiKey, HealthResponse, HelloResponse
from frieda.wire.schema import decode_fields

DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()


def example_bytes() -> bytes:
    example = DOCUMENT.split("```text\n")[1].split("```")[0]
    columns = [re.split(r"\s{2,}", line)[0] for line in example.splitlines()]
    return bytes.fromhex("".join(columns).replace(" ", ""))


async def test_the_example_session_is_answered_as_the_document_says(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path) as server,
        raw_client(server.urls[0], hello=False) as client,
    ):
        client.write(example_bytes())
        hello = await client.next_answer()
        assert hello[:2] == (0, 0)
        assert decode_fields(HelloResponse, hello.fields).protocol_version == 1
        health = await client.next_answer()
        assert health[:2] == (1, 0)
        assert decode_fields(HealthResponse, health.fields).status == "ok"


def test_every_api_is_described_under_its_number() -> None:
    for api in APIS.values():
        name = "".join(part.capitalize() for part in api.key.name.split("_"))
        heading = (
            "| Hello | 10000 | 0 |" if api.key is ApiKey.HELLO else f"{name} ({api.key.value})"
        )
        assert heading in DOCUMENT


def test_every_field_of_every_message_is_named() -> None:
    for api in APIS.values():
        for message in (api.request, api.response):
            for field in message._fields:
                assert field in DOCUMENT, f"{message.__name__}.{field}"
