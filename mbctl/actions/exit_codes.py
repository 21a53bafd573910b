"""The exit code of every error: what a script may rely on."""

from mbctl import errors

OK = 0
UNEXPECTED = 1
USAGE = 2
NOT_THERE = 3
NOT_ALLOWED = 4
NO_CONNECTION = 5
NOT_IN_TIME = 6
BATCH_FAILED = 7
CHECK_FAILED = 8
TRY_LATER = 9
INTERRUPTED = 130
CLOSED_PIPE = 141

_CODES: dict[type[BaseException], int] = {
    errors.InvalidName: USAGE,
    errors.InvalidArgument: USAGE,
    errors.MessageTooLarge: USAGE,
    errors.BatchTooLarge: USAGE,
    errors.OffsetOutOfRange: USAGE,
    errors.NotSupported: USAGE,
    errors.TopicNotFound: NOT_THERE,
    errors.TopicExists: NOT_THERE,
    errors.SubscriptionNotFound: NOT_THERE,
    errors.NotSubscribed: NOT_THERE,
    errors.Unauthenticated: NOT_ALLOWED,
    errors.Forbidden: NOT_ALLOWED,
    errors.ConnectionLost: NO_CONNECTION,
    errors.ServerStopping: NO_CONNECTION,
    errors.VersionMismatch: NO_CONNECTION,
    errors.Timeout: NOT_IN_TIME,
    errors.OutcomeUnknown: NOT_IN_TIME,
    errors.TopicFull: TRY_LATER,
    errors.DiskFull: TRY_LATER,
    errors.LimitExceeded: TRY_LATER,
    errors.ServerError: UNEXPECTED,
    errors.StorageCorrupt: UNEXPECTED,
    errors.NewerFormat: UNEXPECTED,
    errors.StorageFailed: UNEXPECTED,
    errors.BackupDamaged: UNEXPECTED,
    errors.DataLoss: UNEXPECTED,
    errors.ProtocolError: UNEXPECTED,
}


def of(error: BaseException) -> int:
    """The exit code that tells a script about ``error``.

    A pipeline that was refused sends exits as the first refusal would alone.
    """
    if isinstance(error, errors.SendFailed) and error.refused:
        return of(error.refused[0][2])
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        return CLOSED_PIPE
    # One that is derived to say more ends as what it is derived from.
    return next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), UNEXPECTED)
