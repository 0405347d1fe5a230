"""The Block Learning Rate window over a config."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page
from support.apps import App
from support.faders import KEY, Faders


@pytest.fixture
def training(
    start_app: Callable[..., App], open_page: Callable[..., Page], tmp_path: Path
) -> Callable[..., Faders]:
    """Start an app with a config of these rates and settings, and show its Training tab."""

    def show(
        rates: object = None, look: dict[str, object] | None = None, **settings: object
    ) -> Faders:
        config = {
            "base_model_name": "tiny-flux1",
            "layer_filter_preset": "blocks",
            "learning_rate": 1e-4,
        }
        (tmp_path / "work").mkdir()
        (tmp_path / "work" / "config.json").write_text(
            json.dumps({**config, KEY: rates or {}, **settings})
        )
        app = start_app("config.json")
        return Faders(open_page(app, "/training", **(look or {})), app)

    return show


@pytest.fixture
def faders(training: Callable[..., Faders]) -> Faders:
    """The window over a config without rates, opened."""
    return training().open()
