"""The ways in which the broker refuses: an error closes a channel or the whole connection."""

NAMES = {
    311: "CONTENT_TOO_LARGE",
    312: "NO_ROUTE",
    320: "CONNECTION_FORCED",
    403: "ACCESS_REFUSED",
    404: "NOT_FOUND",
    405: "RESOURCE_LOCKED",
    406: "PRECONDITION_FAILED",
    501: "FRAME_ERROR",
    502: "SYNTAX_ERROR",
    503: "COMMAND_INVALID",
    504: "CHANNEL_ERROR",
    505: "UNEXPECTED_FRAME",
    506: "RESOURCE_ERROR",
    530: "NOT_ALLOWED",
    540: "NOT_IMPLEMENTED",
    541: "INTERNAL_ERROR",
}
LONGEST_TEXT = 255  # bytes of a short string


class Refusal(Exception):
    """What the broker will not do; *code* and *text* are told to the client."""

    def __init__(self, code: int, text: str = "") -> None:
        name = NAMES.get(code, "")
        whole = f"{name} - {text}" if name and text else name or text
        super().__init__(whole)
        self.code = code
        octets = whole.encode()
        if len(octets) > LONGEST_TEXT:
            octets = octets[: LONGEST_TEXT - 3] + b"..."
        self.text = octets.decode(errors="ignore")


class ChannelRefusal(Refusal):
    """Closes the channel."""


class ConnectionRefusal(Refusal):
    """Closes the connection."""


class Malformed(ConnectionRefusal):
    """A frame that cannot be read."""

    def __init__(self, text: str) -> None:
        super().__init__(501, text)


class Hangup(Exception):
    """The socket is closed without a word, as RabbitMQ does with clients it cannot talk to."""


def octets(frame: bytes) -> str:
    """Write *frame* as RabbitMQ quotes it; only the beginning of a long one."""
    return "<<" + ",".join(str(octet) for octet in frame[:60]) + ">>"
