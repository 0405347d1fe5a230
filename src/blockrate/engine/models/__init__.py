"""The families of models that can be trained: each is one module with the same functions."""

from blockrate.engine.models import chroma, flux1, flux2
from blockrate.engine.models.common import FamilyModule

# By the architecture that a model's config.json or header states.
FAMILY_MODULES: dict[str, FamilyModule] = {
    "FLUX.1": flux1,
    "FLUX.2": flux2,
    "Chroma": chroma,
}
