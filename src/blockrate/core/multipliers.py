"""The old home of names that are in ``blockrate`` itself now, for scripts that still take them from here."""

from blockrate.core.profile import complete as complete
from blockrate.core.selection import parse_selection as parse_selection
from blockrate.core.shapes import layer_wise_decay as layer_wise_decay
from blockrate.core.shapes import only as only
