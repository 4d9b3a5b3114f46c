"""Frieda: a message broker whose one obsession is tail latency.

    from frieda import Admin, Consumer, Producer

The names below are imported when first used, so that a broker never loads the client library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from frieda.clients.admin import Admin as Admin
    from frieda.clients.consumer import Consumer as Consumer
    from frieda.clients.producer import Producer as Producer
    from frieda.errors import BrokerError as BrokerError
    from frieda.errors import ErrorCode as ErrorCode
    from frieda.errors import FriedaError as FriedaError
    from frieda.model import Record as Record
    from frieda.model import RecordMetadata as RecordMetadata
    from frieda.model import TopicPartition as TopicPartition

__version__ = "0.1.0"

_HOME = {
    "Admin": "frieda.clients.admin",
    "Consumer": "frieda.clients.consumer",
    "Producer": "frieda.clients.producer",
    "BrokerError": "frieda.errors",
    "ErrorCode": "frieda.errors",
    "FriedaError": "frieda.errors",
    "Record": "frieda.model",
    "RecordMetadata": "frieda.model",
    "TopicPartition": "frieda.model",
}

__all__ = ["__version__", *_HOME]  # noqa: PLE0604  (the names of the table, which are all strings)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'frieda' has no attribute {name!r}")
