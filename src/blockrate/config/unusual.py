"""Which settings of a config are neither at their default nor as what suits its model brings them."""

from collections.abc import Collection

from blockrate.config.gallery import offered_as, settings_of
from blockrate.config.paths import find
from blockrate.config.reading import Json
from blockrate.config.value_errors import default

_MODEL = "base_model_name"
_METHOD = "training_method"


def unusual(data: Json, paths: Collection[str]) -> list[str]:
    """Return which of these settings a config sets to something else; a wrong value is something else."""
    model = str(data.get(_MODEL, default(_MODEL)))
    method = str(data.get(_METHOD, default(_METHOD)))
    suits = settings_of(offered_as(model), method)
    return [
        path
        for path in paths
        if (found := find(data, path))
        and found[0][found[1]] not in (suits.get(path), default(path))
    ]
