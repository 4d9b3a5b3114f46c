"""The load generators that systems bring along, run at the points of a comparison as a check of ours."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from frieda.bench.compare import CrossCheck
from frieda.bench.drive import DriveSettings, prepare_topic, with_topic
from frieda.bench.kafka_tools import run_producer_performance


def kafka_performance(address: str, settings: DriveSettings) -> dict[str, object]:
    """Kafka's own ProducerPerformance: one producer at the rate of all of ours, in whole milliseconds from the send.

    Raises FriedaError.
    """
    load = settings.load
    named = with_topic(settings)
    prepare_topic(named)
    told = run_producer_performance(
        address,
        named.topic,
        records=load.warm_up_records + load.records,
        warm_up_records=load.warm_up_records,
        record_size_bytes=load.record_size_bytes,
        rate=load.rate,
        acks=settings.acks,
        linger_ms=settings.linger_ms,
        batch_bytes=settings.batch_bytes,
    )
    return {"tool": "ProducerPerformance", "producers": 1, "rate": load.rate, **asdict(told)}


CROSS_CHECKS: Final[dict[str, CrossCheck]] = {"confluent-kafka": kafka_performance}
"""By driver."""
