"""Which signals ask a run to stop, and which of them only warn that its time is nearly over."""

import signal
from collections.abc import Sequence

# every system lacks some
_ASKING = ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK", "SIGQUIT")
# clusters send them some time before the end, XCPU every second, and after them often SIGTERM
_WARNING = ("SIGUSR1", "SIGUSR2", "SIGXCPU")


def _numbers(names: Sequence[str]) -> tuple[int, ...]:
    found = [getattr(signal, name, None) for name in names]
    return tuple(int(number) for number in found if number is not None)


WARNINGS = _numbers(_WARNING)
STOPS = (*_numbers(_ASKING), *WARNINGS)


def leaves_at_once(signals: Sequence[int]) -> bool:
    """Whether the newest of the signals that came asks for the second time; those that warn ask once, all together."""
    asking = [number for number in signals if number not in WARNINGS]
    return signals[-1] not in WARNINGS and len(asking) > 1
