"""Loading pyverbs: where it is missing, and where it is installed."""

from __future__ import annotations

import logging
import sys

import pytest
from fake_pyverbs import FakeError, FakeVerbs

from frieda.errors import MissingDependencyError
from frieda.transports.registry import open_transport
from frieda.transports.verbs import binding


@pytest.fixture
def not_loaded(monkeypatch):
    """As in a process that has not loaded it."""
    for name in [each for each in sys.modules if each.partition(".")[0] == "pyverbs"]:
        monkeypatch.delitem(sys.modules, name)
    binding.load.cache_clear()
    yield
    binding.load.cache_clear()


def test_where_pyverbs_is_missing_one_sentence_says_what_to_install_and_use(
    not_loaded, monkeypatch
):
    monkeypatch.setattr(binding, "DISTRIBUTION_FOLDERS", ())
    monkeypatch.setitem(sys.modules, "pyverbs", None)
    with pytest.raises(MissingDependencyError) as caught:
        open_transport("verbs://10.0.0.1:9501", _Runtime())
    said = str(caught.value)
    assert "verbs:// needs pyverbs" in said
    assert "apt-get install python3-pyverbs" in said
    assert "tcp://" in said
    assert "shm://" in said


def test_loading_pyverbs_leaves_the_root_logger_as_it_was_and_its_objects_log_nowhere():
    root = logging.getLogger()
    before = list(root.handlers), root.level
    try:
        verbs = binding.load()
    except MissingDependencyError as error:
        pytest.skip(f"pyverbs is not installed ({error})")
    assert (list(root.handlers), root.level) == before
    assert binding.load() is verbs
    assert verbs.constants.IBV_QPT_RC == 2
    element = verbs.SGE(1, 2, 3)
    element.length = 7
    assert element.length == 7
    element.close()
    with pytest.raises(AttributeError, match="pyverbs has no Nothing here"):
        verbs.Nothing  # noqa: B018


def test_an_error_of_pyverbs_is_told_by_its_errno():
    assert binding.errno_of(FakeError("x", 12)) == 12
    assert binding.errno_of(FakeError("x")) == 0
    assert binding.errno_of(ValueError("x")) == 0
    assert binding.reason_of(FakeError("x", 13)) == "Permission denied"
    assert binding.reason_of(FakeError("what it said")) == "what it said"


def test_an_event_is_taken_once_and_none_is_no_error():
    verbs = FakeVerbs()
    with verbs.Context("fake0") as context:
        channel, descriptor = binding.make_channel(verbs, context)
        assert descriptor == channel.fd
        queue = verbs.CQ(context, 10, None, channel, 0)
        assert not binding.take_event(verbs, channel, queue)
        queue.req_notify()
        queue.add(1, 0)
        assert binding.take_event(verbs, channel, queue)
        assert not binding.take_event(verbs, channel, queue)

        def fail(_queue):
            raise FakeError("gone", 5)

        channel.get_cq_event = fail
        with pytest.raises(FakeError):
            binding.take_event(verbs, channel, queue)
        queue.close()
        channel.close()


class _Runtime:
    """Never looked at."""
