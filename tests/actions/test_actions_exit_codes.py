"""Every error has the exit code that the contract gives it."""

import pytest

from mbctl import errors
from mbctl.actions import exit_codes

# The table of the public contract, in its own words.
CONTRACT = {
    1: "ServerError, StorageCorrupt, DataLoss, ProtocolError",
    2: "InvalidName, MessageTooLarge, BatchTooLarge, OffsetOutOfRange, NotSupported",
    3: "TopicNotFound, TopicExists, SubscriptionNotFound, NotSubscribed",
    4: "Unauthenticated, Forbidden",
    5: "ConnectionLost, ServerStopping, VersionMismatch",
    6: "Timeout, OutcomeUnknown",
    9: "TopicFull, DiskFull, LimitExceeded",
}
EXPECTED = {name: code for code, names in CONTRACT.items() for name in names.split(", ")}
# A value that has no meaning is a wrong use of the command.
EXPECTED["InvalidArgument"] = 2
# These end a server.
EXPECTED |= dict.fromkeys(("NewerFormat", "StorageFailed", "BackupDamaged"), 1)
# Families and roots that no one raises, and a pipeline that does not say what was refused.
EXPECTED |= dict.fromkeys(
    ("MbctlError", "RequestRefused", "ConnectionFatal", "StorageError", "SendFailed"), 1
)

ERROR_CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, errors.MbctlError)
]


@pytest.mark.parametrize("error_class", ERROR_CLASSES, ids=lambda c: c.__name__)
def test_error_exits_as_the_contract_says(error_class: type[errors.MbctlError]) -> None:
    assert exit_codes.of(error_class()) == EXPECTED[error_class.__name__]


def test_the_contract_names_no_error_that_does_not_exist() -> None:
    assert {c.__name__ for c in ERROR_CLASSES} == set(EXPECTED)


def test_a_pipeline_exits_as_its_first_refusal() -> None:
    refused: list[tuple[str, list[bytes], errors.MbctlError]] = [
        ("orders", [b"x"], errors.TopicFull(topic="orders", what="messages", limit=1)),
        ("orders", [b"y"], errors.TopicNotFound(topic="orders")),
    ]
    assert exit_codes.of(errors.SendFailed.of(refused)) == 9


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyboardInterrupt(), 130), (BrokenPipeError(), 141), (OSError(), 1), (ValueError(), 1)],
    ids=repr,
)
def test_what_is_no_error_of_ours_has_a_code_too(error: BaseException, code: int) -> None:
    assert exit_codes.of(error) == code
