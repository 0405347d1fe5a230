"""What strangers and broken packets do to the server is one line a minute in its log, and no traceback.

Otherwise nonsense from the network would fill the terminal, and the disk.
"""

import logging
import time

from blockrate.core.plain_text import visible

# who logs what comes over a websocket, and is no packet of a page
_OF_PACKETS = ("engineio.server", "socketio.server")
_PACKET = "a message on a websocket was not understood and is passed over"
_EVENT_TASK = "AsyncServer._handle_event_internal"
# uvicorn's, after each refusal of a websocket that was answered as it should be
_REFUSED = "ASGI callable returned without completing handshake."
_OF_STRANGERS = ("Invalid HTTP request received.", "Unsupported upgrade request.")
_PAUSE = 60.0  # seconds


class Sparing(logging.Filter):
    """Lets what others cause through once a minute, as a line; everything else as it is."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is to be told; of a broken packet it becomes a line."""
        message = record.getMessage()
        if message == _REFUSED:
            return False
        is_packet = record.name in _OF_PACKETS or _EVENT_TASK in message
        if is_packet and record.levelno >= logging.ERROR:
            _shorten(record)
        elif message not in _OF_STRANGERS:
            return True
        now = time.monotonic()
        before = self._told.get(str(record.msg), -_PAUSE)
        if now - before < _PAUSE:
            return False
        self._told[str(record.msg)] = now
        return True


def speak_sparingly() -> None:
    """Let the loggers of this process's server tell what others cause sparingly."""
    sparing = Sparing()
    for name in (*_OF_PACKETS, "uvicorn.error", "asyncio"):
        logging.getLogger(name).addFilter(sparing)


def tell_broken_packet(error: Exception) -> None:
    """Log that a websocket had to be closed, for what came over it."""
    logging.getLogger(_OF_PACKETS[0]).error("%s", _PACKET, exc_info=error)


def _shorten(record: logging.LogRecord) -> None:
    """Make one line of a record that has a traceback."""
    error = record.exc_info[1] if record.exc_info else None
    kind = visible(type(error).__name__) if error else "no exception"
    record.msg = f"{_PACKET} ({kind})"
    record.args = ()
    record.exc_info = None
    record.exc_text = None
