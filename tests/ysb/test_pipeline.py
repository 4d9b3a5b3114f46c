"""The pipeline without a broker: what it makes of records, and that what it gives to write is whole."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from frieda.bench.drivers.base import Taken
from frieda.testing.effort import examples
from frieda.ysb.cadence import Cadence
from frieda.ysb.campaigns import Campaigns
from frieda.ysb.layout import PartitionState
from frieda.ysb.pipeline import Pipeline, Writer
from frieda.ysb.sink import Commit
from frieda.ysb.updates import WindowUpdates
from frieda.ysb.window import WindowRule, each_count

CAMPAIGNS = Campaigns.seeded(1, campaigns=3, ads_per_campaign=2)
CAMPAIGN_OF = CAMPAIGNS.by_ad()
RULE = WindowRule(10, 20)


def event(ad: str, time_ms: int, event_type: str = "view", **more: int) -> bytes:
    fields = {"ad_id": ad, "event_type": event_type, "event_time": str(time_ms)}
    return json.dumps(fields | more).encode()


class LookUp:
    """Stands for Redis, and notes what was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    async def __call__(self, ads: Sequence[str]) -> dict[str, str]:
        self.asked.append(list(ads))
        await asyncio.sleep(0)
        return {ad: CAMPAIGN_OF[ad] for ad in ads if ad in CAMPAIGN_OF}


def pipeline_of(look_up: LookUp | None = None, **states: PartitionState) -> Pipeline:
    at = {int(name[1:]): state for name, state in states.items()} or {0: PartitionState()}
    return Pipeline(RULE, at, look_up or LookUp())


def counted(*commits: Commit | None) -> dict[tuple[str, int], int]:
    found: dict[tuple[str, int], int] = {}
    for commit in filter(None, commits):
        for window_ms, campaign, views in each_count(commit.counts):
            found[campaign, window_ms] = found.get((campaign, window_ms), 0) + views
    return found


async def test_only_views_are_counted_and_an_ad_is_looked_up_once() -> None:
    look_up = LookUp()
    pipeline = pipeline_of(look_up)
    first, second = CAMPAIGNS.ads[0], CAMPAIGNS.ads[2]
    values = [event(first, 1), event(second, 2, "click"), event(first, 3), event(second, 11)]
    await pipeline.process(Taken(0, values, 4), 0)
    await pipeline.process(Taken(0, values, 8), 0)
    assert look_up.asked == [[first, second]]
    commit = pipeline.take_commit()
    assert commit is not None
    assert counted(commit) == {(CAMPAIGNS.ids[0], 0): 4, (CAMPAIGNS.ids[1], 10): 2}
    assert commit.states == {
        0: PartitionState(position=8, watermark_ms=11, events=8, views=6, late=2)
    }
    assert pipeline.take_commit() is None


async def test_a_record_that_is_no_event_is_counted_and_the_next_is_read() -> None:
    pipeline = pipeline_of()
    ad = CAMPAIGNS.ads[0]
    values = [b"", event(ad, 1), b"{}", b"\xff", event(ad, 2), b"[1]"]
    await pipeline.process(Taken(0, values, 6), 0)
    assert pipeline.totals() == {
        "events": 6, "views": 2, "late": 0, "dropped": 0, "malformed": 4, "unjoined": 0
    }  # fmt: skip
    assert counted(pipeline.take_commit()) == {(CAMPAIGNS.ids[0], 0): 2}


async def test_a_view_of_an_ad_without_a_campaign_is_told_and_asked_for_again() -> None:
    look_up = LookUp()
    pipeline = pipeline_of(look_up)
    for position in (1, 2):
        await pipeline.process(Taken(0, [event("stranger", 5)], position), 0)
    assert look_up.asked == [["stranger"], ["stranger"]]
    assert pipeline.totals()["unjoined"] == 2
    assert counted(pipeline.take_commit()) == {}


async def test_late_views_count_and_those_behind_the_allowed_lateness_are_dropped_by_window() -> (
    None
):
    pipeline = pipeline_of()
    ad, campaign = CAMPAIGNS.ads[0], CAMPAIGNS.ids[0]
    values = [event(ad, time_ms) for time_ms in (5, 12, 6, 29, 7, 30, 8)]
    await pipeline.process(Taken(0, values, 7), 0)
    commit = pipeline.take_commit()
    assert commit is not None
    assert counted(commit) == {
        (campaign, 0): 3,
        (campaign, 10): 1,
        (campaign, 20): 1,
        (campaign, 30): 1,
    }
    assert commit.dropped == {0: {campaign: 1}}
    assert (commit.states[0].late, commit.states[0].dropped) == (2, 1)


async def test_each_partition_has_a_watermark_of_its_own() -> None:
    pipeline = pipeline_of(p0=PartitionState(), p1=PartitionState())
    ad = CAMPAIGNS.ads[0]
    await pipeline.process(Taken(0, [event(ad, 1000)], 1), 0)
    await pipeline.process(Taken(1, [event(ad, 5)], 1), 0)
    assert pipeline.totals()["dropped"] == 0
    assert pipeline.watermark_ms == 1000


async def test_the_brokers_share_is_sampled_from_the_events_that_carry_their_send_time() -> None:
    pipeline = pipeline_of()
    ad = CAMPAIGNS.ads[0]
    values = [event(ad, 1), event(ad, 2, sent_ns=1000), event(ad, 3, "click", sent_ns=5)]
    await pipeline.process(Taken(0, values, 3), 2500)
    assert (pipeline.broker_share.count, pipeline.broker_share.max_ns) == (1, 1500)
    pipeline.sample_from(1000)
    await pipeline.process(Taken(0, values, 6), 2500)
    assert pipeline.broker_share.count == 1


records = st.lists(
    st.one_of(
        st.builds(
            event,
            st.sampled_from([*CAMPAIGNS.ads, "stranger"]),
            st.integers(0, 100),
            st.sampled_from(["view", "view", "click"]),
        ),
        st.just(b"nonsense"),
    ),
    max_size=40,
)


@settings(max_examples=examples(60))
@given(records, st.integers(0, 2**32))
def test_a_worker_that_is_replaced_at_any_batch_ends_with_the_same_counts(
    values: list[bytes], seed: int
) -> None:
    async def whole() -> tuple[dict[tuple[str, int], int], dict[str, int]]:
        pipeline = pipeline_of()
        await pipeline.process(Taken(0, values, len(values)), 0)
        return counted(pipeline.take_commit()), pipeline.totals()

    async def interrupted() -> tuple[dict[tuple[str, int], int], dict[str, int]]:
        chance = random.Random(seed)
        pipeline, state = pipeline_of(), PartitionState(position=0)
        commits: list[Commit | None] = []
        at = 0
        while at < len(values) or pipeline.totals()["events"] < len(values):
            end = min(len(values), at + chance.randint(1, 10))
            await pipeline.process(Taken(0, values[at:end], end), 0)
            at = end
            match chance.choice(["on", "on", "commit", "crash", "commit and crash"]):
                case "on":
                    continue
                case "crash":
                    pass
                case _ as what:
                    commits.append(commit := pipeline.take_commit())
                    assert commit is not None
                    state = commit.states[0]
                    if what == "commit":
                        continue
            pipeline = pipeline_of(p0=state)
            assert isinstance(state.position, int)
            at = state.position
        commits.append(pipeline.take_commit())
        return counted(*commits), pipeline.totals()

    assert asyncio.run(interrupted()) == asyncio.run(whole())


class SlowSink:
    """Takes a commit when it is let."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.may_end = asyncio.Event()
        self.commits: list[Commit] = []

    async def commit(self, commit: Commit, time_ms: int) -> None:
        self.began.set()
        await self.may_end.wait()
        self.commits.append(commit)


async def test_a_writer_that_is_told_to_end_finishes_the_write_under_way() -> None:
    pipeline, sink = pipeline_of(), SlowSink()
    updates = WindowUpdates(RULE.size_ms)
    writer = Writer(pipeline, sink, Cadence(0, 1.0, 0.0), updates, epoch_ns=0)  # type: ignore[arg-type]
    await pipeline.process(Taken(0, [event(CAMPAIGNS.ads[0], 1)], 1), 0)
    running = asyncio.ensure_future(writer.run())
    await sink.began.wait()
    running.cancel()
    await asyncio.sleep(0)
    assert not running.done()
    sink.may_end.set()
    await asyncio.wait([running])
    assert running.cancelled()
    assert counted(*sink.commits) == {(CAMPAIGNS.ids[0], 0): 1}
    assert [window for window, _ in updates.as_json()] == [0]


async def test_what_is_written_is_of_one_moment_between_two_batches() -> None:
    # The look-up stands still in the middle of a batch: a write must wait for its end.
    may_answer = asyncio.Event()
    asked = asyncio.Event()

    class Held(LookUp):
        async def __call__(self, ads: Sequence[str]) -> dict[str, str]:
            asked.set()
            await may_answer.wait()
            return await super().__call__(ads)

    pipeline, sink = pipeline_of(Held()), SlowSink()
    sink.may_end.set()
    writer = Writer(pipeline, sink, Cadence(0, 1.0, 0.0), WindowUpdates(10), epoch_ns=0)  # type: ignore[arg-type]

    async def batch() -> None:
        async with writer.between_batches:
            await pipeline.process(Taken(0, [event(CAMPAIGNS.ads[0], 1)], 1), 0)

    processing = asyncio.ensure_future(batch())
    await asked.wait()
    writing = asyncio.ensure_future(writer.write())
    await asyncio.sleep(0)
    may_answer.set()
    await asyncio.gather(processing, writing)
    (commit,) = sink.commits
    assert commit.states[0] == PartitionState(position=1, watermark_ms=1, events=1, views=1)
    assert counted(commit) == {(CAMPAIGNS.ids[0], 0): 1}
