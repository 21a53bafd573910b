"""The verbs of the two shells: operands, options, help and an example for each.

One table serves the parser, the completer, the toolbar and the help, so a verb reads
the same everywhere.
"""

from mbctl.actions.formats import parse_format
from mbctl.actions.places import PLACES
from mbctl.actions.receiving import PULL_COUNT
from mbctl.actions.topics import READ_COUNT
from mbctl.model import check_name
from mbctl.shell import commands as c
from mbctl.shell import values
from mbctl.shell.commands import Kind
from mbctl.shell.verb import Operand, Option, Verb, normalize


def _verb_name(text: str) -> str:
    verb = find_verb(text)
    if verb is None:
        raise ValueError(f"{values.shown(text)} is not a verb")
    return verb.name


_NEW_NAME = Operand(label="NAME", field="name", required=False)
_NEW_TOPIC = Operand(label="NAME", field="topic")
_TOPIC = Operand(label="TOPIC", field="topic", names="topics")

_LOOKS = (
    Option(
        flag="--format",
        field="template",
        value="F",
        convert=parse_format,
        help="what to write of each message: '%o %p\\n'",
    ),
    Option(flag="--full", field="full", help="headers, JSON folded, binary as hex"),
)

_PARKED = (
    Operand(label="TOPIC", field="topic", names="subscribed"),
    Operand(
        label="OFFSET", field="offsets", convert=values.offset, required=False, repeatable=True
    ),
)

_PUBLISHER: tuple[Verb, ...] = (
    Verb(
        name="registerPublisher",
        kinds=("publisher",),
        command=c.Register,
        operands=(_NEW_NAME,),
        summary="begin a new publisher session",
        details="Entering the shell has registered already; the name is a label.",
        example="registerPublisher till-3",
    ),
    Verb(
        name="createTopic",
        kinds=("publisher",),
        command=c.CreateTopic,
        operands=(_NEW_TOPIC,),
        options=(
            Option(
                flag="--max-messages",
                field="max_messages",
                value="N",
                convert=values.count,
                help="keep at most N messages",
            ),
            Option(
                flag="--max-bytes",
                field="max_bytes",
                value="SIZE",
                convert=values.size,
                help="keep messages of at most SIZE, such as 64M",
            ),
            Option(
                flag="--max-age",
                field="max_age",
                value="AGE",
                convert=values.age,
                help="drop older messages, read or not",
            ),
            Option(
                flag="--retain-age",
                field="retain_age",
                value="AGE",
                convert=values.age,
                help="keep read messages until they are so old",
            ),
            Option(
                flag="--retain-bytes",
                field="retain_bytes",
                value="SIZE",
                convert=values.size,
                help="keep read messages up to SIZE",
            ),
            Option(
                flag="--when-full",
                field="when_full",
                value="refuse|drop-oldest",
                convert=values.when_full,
                names="whenFull",
                help="what a send does that finds no room",
            ),
        ),
        summary="create a topic",
        details=(
            "A topic that exists with the same settings is left as it is. Read messages\n"
            "are those that every subscription has acknowledged. AGE is 30s, 5m or 7d."
        ),
        example="createTopic orders --max-messages 100000",
    ),
    Verb(
        name="send",
        kinds=("publisher",),
        command=c.Send,
        operands=(
            _TOPIC,
            Operand(label="MESSAGE", field="message", convert=values.utf8, tail=True),
        ),
        options=(
            Option(
                flag="--key", field="key", value="K", convert=values.utf8, help="the message's key"
            ),
            Option(
                flag="-H",
                field="headers",
                value="N=V",
                convert=values.header,
                repeatable=True,
                help="a header as name=value; may stand several times",
            ),
            Option(
                flag="--file",
                field="file",
                value="F",
                convert=values.path,
                is_message=True,
                help="send the content of a file",
            ),
            Option(
                flag="--hex",
                field="message",
                value="HEX",
                convert=values.hexadecimal,
                is_message=True,
                help="send bytes that cannot be typed",
            ),
        ),
        summary="send one message",
        details=(
            "After TOPIC and exactly one space, everything to the end of the line is the\n"
            "message as it is: quotes, spaces and # included. Options stand before TOPIC."
        ),
        example="""send orders {"id": 1, "note": "it's"}""",
    ),
    Verb(
        name="purgeTopic",
        kinds=("publisher",),
        command=c.PurgeTopic,
        operands=(Operand(label="NAME", field="topic", names="topics"),),
        summary="give up all messages of a topic, read or not",
        details="The topic stays, and so do its subscriptions.",
        example="purgeTopic orders",
    ),
    Verb(
        name="deleteTopic",
        kinds=("publisher",),
        command=c.DeleteTopic,
        operands=(Operand(label="NAME", field="topic", names="topics"),),
        summary="delete a topic with its messages and subscriptions",
        example="deleteTopic orders",
    ),
)

_SUBSCRIBER: tuple[Verb, ...] = (
    Verb(
        name="registerSubscriber",
        kinds=("subscriber",),
        command=c.Register,
        operands=(_NEW_NAME,),
        summary="begin again under a name, or as an ephemeral subscriber",
        details="The subscriptions of a name stay when the shell ends.",
        example="registerSubscriber billing",
    ),
    Verb(
        name="subscribe",
        kinds=("subscriber",),
        command=c.Subscribe,
        operands=(_TOPIC,),
        options=(
            Option(
                flag="--from",
                field="start",
                value=PLACES,
                convert=values.start,
                names="starts",
                help="where to begin",
            ),
            Option(
                flag="--ack-wait",
                field="ack_wait",
                value="S",
                convert=values.ack_wait,
                help="seconds until a message comes again",
            ),
            Option(
                flag="--max-deliveries",
                field="max_deliveries",
                value="N",
                convert=values.deliveries,
                help="give a message up after N deliveries",
            ),
            Option(
                flag="--dead-letter",
                field="dead_letter",
                value="TOPIC",
                convert=check_name,
                names="topics",
                help="where it goes then; else it is parked",
            ),
        ),
        summary="subscribe to a topic",
        details=(
            "Without --from, the first subscription of a topic begins at the earliest\n"
            "message kept and later ones at new. Subscribing again keeps the place.\n"
            "TIME is 2026-01-02T03:04:05Z, or 2h for two hours ago."
        ),
        example="subscribe orders --from earliest",
    ),
    Verb(
        name="unsubscribe",
        kinds=("subscriber",),
        command=c.Unsubscribe,
        operands=(Operand(label="TOPIC", field="topic", names="subscribed"),),
        summary="give up a subscription and its place",
        example="unsubscribe orders",
    ),
    Verb(
        name="pull",
        kinds=("subscriber",),
        command=c.Pull,
        operands=(Operand(label="TOPIC", field="topic", required=False, names="subscribed"),),
        options=(
            Option(
                flag="-n",
                field="max_messages",
                value="N",
                convert=values.count,
                help=f"at most N messages, {PULL_COUNT} if not given",
            ),
            Option(
                flag="--wait",
                field="wait",
                value="S",
                convert=values.seconds,
                help="wait up to S seconds for the first message",
            ),
            Option(
                flag="--no-ack",
                field="no_ack",
                help="leave acknowledging to the verb ack",
            ),
            *_LOOKS,
        ),
        summary="get the next messages",
        details=(
            "TOPIC may be left out with only one subscription. The next pull of the topic,\n"
            "or leaving the shell, acknowledges the messages."
        ),
        example="pull orders -n 5 --wait 2",
    ),
    Verb(
        name="ack",
        kinds=("subscriber",),
        command=c.Ack,
        summary="acknowledge the messages of the last pull",
        example="ack",
    ),
    Verb(
        name="nack",
        kinds=("subscriber",),
        command=c.Nack,
        options=(
            Option(
                flag="--delay",
                field="delay",
                value="S",
                convert=values.seconds,
                help="seconds until they are delivered again",
            ),
        ),
        summary="give back the messages of the last pull",
        example="nack --delay 5",
    ),
    Verb(
        name="extend",
        kinds=("subscriber",),
        command=c.Extend,
        summary="keep the messages of the last pull for another --ack-wait",
        example="extend",
    ),
    Verb(
        name="seek",
        kinds=("subscriber",),
        command=c.Seek,
        operands=(
            Operand(label="TOPIC", field="topic", names="subscribed"),
            Operand(label=PLACES, field="start", convert=values.start, names="starts"),
        ),
        summary="go on reading from elsewhere, back or forward",
        details=(
            "Back, messages are unread again, as far as they are kept. Forward, what is\n"
            "passed over counts as acknowledged. What was pulled before cannot be\n"
            "acknowledged any more. TIME is 2026-01-02T03:04:05Z, or 2h for two hours ago."
        ),
        example="seek orders earliest",
    ),
    Verb(
        name="release",
        kinds=("subscriber",),
        command=c.Release,
        operands=_PARKED,
        summary="deliver parked messages again: all, or those at OFFSETs",
        details="Parked messages were delivered --max-deliveries times and not acknowledged.",
        example="release orders",
    ),
    Verb(
        name="drop",
        kinds=("subscriber",),
        command=c.Drop,
        operands=_PARKED,
        summary="give up parked messages: all, or those at OFFSETs",
        details="They count as acknowledged by this subscriber.",
        example="drop orders 3 7",
    ),
    Verb(
        name="follow",
        kinds=("subscriber",),
        command=c.Follow,
        operands=(
            Operand(
                label="TOPIC", field="topics", required=False, repeatable=True, names="subscribed"
            ),
        ),
        options=_LOOKS,
        summary="show messages as they come, until Ctrl-C, or while you type",
        details=(
            "Without TOPIC it follows every subscription. Messages shown are acknowledged.\n"
            "`follow on [TOPIC...]` shows them above the prompt while you go on typing, so\n"
            "many a second at most; the others wait on the server. `follow off` ends it."
        ),
        example="follow on orders",
    ),
    Verb(
        name="subscriptions",
        kinds=("subscriber",),
        command=c.Subscriptions,
        summary="list the subscriptions of this subscriber",
        example="subscriptions",
    ),
)

_BOTH: tuple[Verb, ...] = (
    Verb(
        name="peek",
        command=c.Peek,
        operands=(_TOPIC,),
        options=(
            Option(
                flag="--from",
                field="start",
                value=PLACES,
                convert=values.start,
                names="starts",
                help="where to begin, if not at the earliest",
            ),
            Option(
                flag="-n",
                field="max_messages",
                value="N",
                convert=values.count,
                help=f"at most N messages, {READ_COUNT} if not given",
            ),
            *_LOOKS,
        ),
        summary="look at messages of a topic, whoever reads them",
        details=(
            "Nothing is acknowledged or counted, and no subscription is needed. TIME is\n"
            "2026-01-02T03:04:05Z, or 2h for two hours ago."
        ),
        example="peek orders --from 2h -n 5",
    ),
    Verb(
        name="last",
        command=c.Last,
        operands=(Operand(label="N", field="count", convert=values.count, required=False),),
        summary="show the last message again, in full; or the last N",
        details="With its headers, JSON folded, binary as hex. It asks no server.",
        example="last 3",
    ),
    Verb(
        name="use",
        command=c.Use,
        operands=(Operand(label="TOPIC", field="topic", required=False, names="topics"),),
        summary="let . stand for a topic, in place of its name",
        details=(
            "The prompt shows it. pull and follow take it where they are given no topic.\n"
            "Without TOPIC no topic is in use any more."
        ),
        example="use orders",
    ),
    Verb(
        name="watch",
        command=c.Watch,
        operands=(
            Operand(label="SECONDS", field="interval", convert=values.interval),
            Operand(label="VERB...", field="line", convert=str, tail=True, names="verbs"),
        ),
        summary="run a verb every SECONDS, until Ctrl-C",
        details="The screen shows its newest answer. Not for verbs that go on by themselves.",
        example="watch 2 topics",
    ),
    Verb(name="topics", command=c.Topics, summary="list the topics", example="topics"),
    Verb(name="status", command=c.Status, summary="show the server's state", example="status"),
    Verb(
        name="help",
        command=c.Help,
        operands=(
            Operand(label="VERB", field="verb", convert=_verb_name, required=False, names="verbs"),
        ),
        summary="list the verbs, or explain one",
        example="help pull",
    ),
    Verb(
        name="history", command=c.History, summary="show the lines typed so far", example="history"
    ),
    Verb(name="clear", command=c.Clear, summary="clear the screen", example="clear"),
    Verb(
        name="exit",
        command=c.Exit,
        summary="leave the shell; Ctrl-D does the same",
        example="exit",
        aliases=("quit",),
    ),
)

VERBS: tuple[Verb, ...] = _PUBLISHER + _SUBSCRIBER + _BOTH

_BY_NAME = {normalize(name): verb for verb in VERBS for name in (verb.name, *verb.aliases)}


def verbs_of(kind: Kind) -> list[Verb]:
    """The verbs of one shell, in the order in which help lists them."""
    return [verb for verb in VERBS if kind in verb.kinds]


def find_verb(word: str) -> Verb | None:
    """The verb of either shell that ``word`` means, however it is written."""
    return _BY_NAME.get(normalize(word))
