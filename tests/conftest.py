"""What several test folders share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder with a FLUX.1 of toy width, 19 + 38 blocks, float32. Read only: shared by the session."""
    from blockrate.engine.models.tiny import make_tiny_flux

    return make_tiny_flux(tmp_path_factory.mktemp("models") / "tiny-flux1")
