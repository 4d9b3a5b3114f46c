"""Settings from a file, the environment and flags: who wins, what is refused, what a dump says."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frieda.config import BrokerConfig, ConsumerConfig, ProducerConfig, TopicConfig
from frieda.config_sources import LoadedSettings, dump_json, dump_toml, load_settings
from frieda.errors import ConfigError

PREFIX = "FRIEDA_BROKER_"


def broker(
    tmp_path: Path | None = None,
    toml: str | None = None,
    environment: dict[str, str] | None = None,
    flags: dict[str, Any] | None = None,
    reserved: frozenset[str] = frozenset(),
) -> LoadedSettings[BrokerConfig]:
    file = None
    if toml is not None:
        assert tmp_path is not None
        file = tmp_path / "frieda.toml"
        file.write_text(toml, encoding="utf-8")
    return load_settings(
        BrokerConfig,
        file=file,
        environment=environment,
        prefix=PREFIX,
        flags=flags,
        reserved=reserved,
    )


def test_without_any_source_all_settings_are_the_defaults() -> None:
    loaded = broker()
    assert loaded.settings == BrokerConfig()
    assert {entry.source for entry in loaded.values()} == {"default"}


def test_flags_win_over_the_environment_which_wins_over_the_file(tmp_path: Path) -> None:
    loaded = broker(
        tmp_path,
        'data = "/file"\nflush = "batch"\npolling = "busy"\n',
        {"FRIEDA_BROKER_FLUSH": "interval", "FRIEDA_BROKER_POLLING": "event", "OTHER": "x"},
        {"polling": "adaptive", "listen": (), "broker_id": None},
    )
    assert loaded.settings == BrokerConfig(data="/file", flush="interval", polling="adaptive")
    assert loaded.sources == {
        "data": f"file {tmp_path / 'frieda.toml'}",
        "flush": "environment FRIEDA_BROKER_FLUSH",
        "polling": "flag --polling",
    }


@pytest.mark.parametrize(
    "toml",
    [
        "[topic]\nretention_ms = 5\n",
        '[topic]\n"retention.ms" = 5\n',
        "[topic]\nretention.ms = 5\n",
        "topic.retention_ms = 5\n",
        "topic = { retention_ms = 5 }\n",
    ],
)
def test_a_topic_setting_may_have_its_field_name_or_kafkas_dotted_name(
    tmp_path: Path, toml: str
) -> None:
    assert broker(tmp_path, toml).settings.topic == TopicConfig(retention_ms=5)


def test_the_environment_speaks_every_type() -> None:
    loaded = broker(
        environment={
            "FRIEDA_BROKER_LISTEN": "tcp://a:1, tcp://b:2",
            "FRIEDA_BROKER_BROKER_ID": "7",
            "FRIEDA_BROKER_AUTO_CREATE_TOPICS": "true",
            "FRIEDA_BROKER_SHUTDOWN_TIMEOUT_S": "1.5",
            "FRIEDA_BROKER_BUFFERS": '{"4096": 3}',
            "FRIEDA_BROKER_TOPIC_RETENTION_MS": "9",
        }
    )
    assert loaded.settings == BrokerConfig(
        listen=("tcp://a:1", "tcp://b:2"),
        broker_id=7,
        auto_create_topics=True,
        shutdown_timeout_s=1.5,
        buffers={4096: 3},
        topic=TopicConfig(retention_ms=9),
    )


def test_a_table_in_the_environment_may_be_pairs() -> None:
    environment = {
        "FRIEDA_BROKER_BUFFERS": "4096=3,16384=2",
        "FRIEDA_BROKER_TOPIC": "retention.ms=1,segment_ms=2",
        "FRIEDA_BROKER_TOPIC_SEGMENT_MS": "3",
    }
    settings = broker(environment=environment).settings
    assert settings.buffers == {4096: 3, 16384: 2}
    assert settings.topic == TopicConfig(retention_ms=1, segment_ms=3)


def test_a_buffer_table_in_a_file_has_sizes_for_keys(tmp_path: Path) -> None:
    assert broker(tmp_path, "[buffers]\n4096 = 3\n").settings.buffers == {4096: 3}


def test_an_optional_text_and_a_number_come_from_the_environment() -> None:
    environment = {"FRIEDA_CONSUMER_GROUP": "g", "FRIEDA_CONSUMER_MIN_BYTES": "2"}
    loaded = load_settings(ConsumerConfig, environment=environment, prefix="FRIEDA_CONSUMER_")
    assert loaded.settings == ConsumerConfig(group="g", min_bytes=2)


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ('datta = "x"', ["frieda.toml", "'datta'", "did you mean 'data'"]),
        ("[topic]\nretention_mss = 1", ["'topic.retention_mss'", "'topic.retention_ms'"]),
        ("[tpoic]", ["frieda.toml", "'tpoic'"]),
        ("listen = 5", ["listen = 5", "a list of texts"]),
        ("listen = [5]", ["listen = [5]", "a list of texts"]),
        ('broker_id = "one"', ["broker_id = 'one'", "a whole number"]),
        ("broker_id = true", ["broker_id = True", "a whole number"]),
        ("broker_id = 1.0", ["broker_id = 1.0", "a whole number"]),
        ("broker_id = -1", ["frieda.toml", "broker_id = -1", "from 0 to"]),
        ("shutdown_timeout_s = nan", ["shutdown_timeout_s = nan", "a finite number"]),
        ("auto_create_topics = 1", ["auto_create_topics = 1", "true or false"]),
        ('polling = "sometimes"', ["'sometimes'", "event, adaptive, busy"]),
        ("topic = 3", ["topic = 3", "[topic]"]),
        ("buffers = { big = 3 }", ["buffers", "a table of whole numbers"]),
        ("data = { a = 1 }", ["data", "a text"]),
        ('[topic]\nretention_ms = 1\n"retention.ms" = 1', ["topic.retention_ms", "given twice"]),
        ("data =", ["frieda.toml", "not valid TOML"]),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, toml: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        broker(tmp_path, toml)
    for word in ["frieda.toml" if "topic = 3" not in toml else "topic", *words]:
        assert word in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*missing\.toml: No such file"):
        load_settings(BrokerConfig, file=tmp_path / "missing.toml")


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"binary\.toml is not UTF-8"):
        load_settings(BrokerConfig, file=tmp_path / "binary.toml")


@pytest.mark.parametrize(
    ("variable", "text", "words"),
    [
        ("FRIEDA_BROKER_LISTN", "x", ["FRIEDA_BROKER_LISTN", "'FRIEDA_BROKER_LISTEN'"]),
        ("FRIEDA_BROKER_BROKER_ID", "one", ["FRIEDA_BROKER_BROKER_ID = 'one'", "whole number"]),
        ("FRIEDA_BROKER_BUFFERS", "{", ["FRIEDA_BROKER_BUFFERS", "not valid JSON"]),
        ("FRIEDA_BROKER_BUFFERS", "4096", ["FRIEDA_BROKER_BUFFERS", "name=value"]),
        ("FRIEDA_BROKER_TOPIC", "retnetion.ms=1", ["retnetion.ms", "topic.retention_ms"]),
        ("FRIEDA_BROKER_SHUTDOWN_TIMEOUT_S", "inf", ["finite number"]),
    ],
)
def test_a_mistake_in_the_environment_is_named(variable: str, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        broker(environment={variable: text})
    for word in words:
        assert word in str(caught.value)


def test_what_kubernetes_puts_in_the_environment_of_every_pod_is_not_a_mistake() -> None:
    environment = {
        "FRIEDA_BROKER_SERVICE_HOST": "10.0.0.1",
        "FRIEDA_BROKER_SERVICE_PORT": "9500",
        "FRIEDA_BROKER_PORT": "tcp://10.0.0.1:9500",
        "FRIEDA_BROKER_PORT_9500_TCP_ADDR": "10.0.0.1",
    }
    assert broker(environment=environment).settings == BrokerConfig()


def test_a_reserved_variable_is_not_a_setting() -> None:
    name = "FRIEDA_BROKER_CONFIG"
    loaded = broker(environment={name: "frieda.toml"}, reserved=frozenset({name}))
    assert loaded.settings == BrokerConfig()


def test_an_unknown_flag_and_a_wrong_one_are_named() -> None:
    with pytest.raises(
        ConfigError, match=r"flag: unknown setting 'lissten'; did you mean 'listen'"
    ):
        broker(flags={"lissten": "x"})
    with pytest.raises(ConfigError, match=r"flag --broker-id: broker_id = -2: must be from 0"):
        broker(flags={"broker_id": -2})


def test_a_dump_says_value_source_and_meaning_of_each_setting() -> None:
    loaded = broker(environment={"FRIEDA_BROKER_FLUSH": "batch"})
    rows = {row["name"]: row for row in json.loads(dump_json(loaded))}
    assert rows["flush"]["value"] == "batch"
    assert rows["flush"]["source"] == "environment FRIEDA_BROKER_FLUSH"
    assert rows["topic.retention_ms"]["meaning"].startswith("delete closed segments")
    assert rows["data"]["source"] == "default"
    assert '# from: environment FRIEDA_BROKER_FLUSH\nflush = "batch"\n' in dump_toml(loaded)


def test_a_setting_that_is_none_is_a_comment_in_a_toml_dump() -> None:
    assert "# group is not set" in dump_toml(load_settings(ConsumerConfig))


def test_a_text_that_utf8_cannot_hold_is_refused_by_a_toml_dump() -> None:
    with pytest.raises(ConfigError, match=r"data = .*UTF-8"):
        dump_toml(broker(environment={"FRIEDA_BROKER_DATA": "\udcff"}))


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@st.composite
def any_settings(draw: st.DrawFn, settings_class: type[Any]) -> Any:
    """Settings with each field drawn within its bounds and choices."""
    values: dict[str, Any] = {}
    for spec in fields(settings_class):
        default = getattr(settings_class(), spec.name)
        least, most = spec.metadata["least"], spec.metadata["most"]
        match default:
            case TopicConfig():
                values[spec.name] = draw(any_settings(TopicConfig))
            case bool():
                values[spec.name] = draw(st.booleans())
            case int():
                values[spec.name] = draw(st.integers(least, most or 2**63))
            case float():
                values[spec.name] = draw(st.floats(least, most or 1e300, allow_subnormal=False))
            case str() if spec.name in settings_class.choices:
                values[spec.name] = draw(st.sampled_from(settings_class.choices[spec.name]))
            case str():
                values[spec.name] = draw(TEXT)
            case None:
                values[spec.name] = draw(st.none() | TEXT)
            case tuple():
                values[spec.name] = tuple(draw(st.lists(TEXT, max_size=3)))
            case dict():
                numbers = st.integers(0, 2**40)
                values[spec.name] = draw(st.dictionaries(numbers, numbers, max_size=3))
            case _:
                raise AssertionError(f"the test does not know how to draw {spec.name}")
    return settings_class(**values)


@given(settings=st.one_of(map(any_settings, [BrokerConfig, ProducerConfig, ConsumerConfig])))
def test_a_toml_dump_loads_again_to_the_same_settings(
    settings: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("dump") / "frieda.toml"
    text = dump_toml(LoadedSettings(settings=settings, sources={"data": "file a\nb = 1"}))
    file.write_text(text, encoding="utf-8")
    assert load_settings(type(settings), file=file).settings == settings


def test_loading_leaves_other_topic_settings_at_their_defaults(tmp_path: Path) -> None:
    settings = broker(tmp_path, '[topic]\nflush = "batch"\n').settings
    assert settings.topic == replace(TopicConfig(), flush="batch")
