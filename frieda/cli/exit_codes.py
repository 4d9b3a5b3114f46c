"""What the exit code of `frieda` means: one table for scripts to rely on.

0    it was done
1    a check found something wrong (`frieda log verify`), or a failure that no other row names
2    the command line, a setting, the environment or the installation is not right
3    no connection to a broker, or it was lost
4    the broker refused, or its answer made no sense
5    the topic, partition or group is not there
6    storage: the folder, the disk, or damaged data
7    not done within the time allowed
130  interrupted (Ctrl-C)
141  the reader of our output went away (`frieda consume t | head`)
"""

from __future__ import annotations

from enum import IntEnum

from frieda.errors import (
    AddressInUseError,
    BrokerError,
    ConfigError,
    CorruptLogError,
    DeliveryTimeoutError,
    ErrorCode,
    MissingDependencyError,
    ProtocolError,
    StorageError,
    TransportError,
)


class ExitCode(IntEnum):
    """The exit codes of the `frieda` command."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    NOT_FOUND = 5
    STORAGE = 6
    TIMEOUT = 7
    INTERRUPTED = 130
    PIPE_CLOSED = 141


_BY_CODE = {
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: ExitCode.NOT_FOUND,
    ErrorCode.UNKNOWN_TOPIC_ID: ExitCode.NOT_FOUND,
    ErrorCode.NETWORK_EXCEPTION: ExitCode.UNREACHABLE,
    ErrorCode.REQUEST_TIMED_OUT: ExitCode.TIMEOUT,
    ErrorCode.STORAGE_ERROR: ExitCode.STORAGE,
    ErrorCode.DISK_FULL: ExitCode.STORAGE,
    ErrorCode.LOG_FAILED: ExitCode.STORAGE,
    ErrorCode.CORRUPT_LOG: ExitCode.STORAGE,
}


def exit_code_of(error: BaseException) -> ExitCode:
    """The exit code that tells of `error`."""
    match error:
        case StorageError() | CorruptLogError():
            return ExitCode.STORAGE
        case BrokerError(code=code):
            return _BY_CODE.get(code, ExitCode.REFUSED)
        case ProtocolError():
            return ExitCode.REFUSED
        case ConfigError() | MissingDependencyError() | AddressInUseError():
            return ExitCode.USAGE
        case TransportError():
            return ExitCode.UNREACHABLE
        case DeliveryTimeoutError() | TimeoutError():
            return ExitCode.TIMEOUT
        case _:
            return ExitCode.FAILURE
