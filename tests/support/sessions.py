"""Configs for tests of the open config, written as a user or another program leaves them."""

import json
from pathlib import Path

KEY = "block_learning_rate_multiplier"


def written(name, data):
    path = Path(name).absolute()
    path.write_text(
        data if isinstance(data, str) else json.dumps(data), encoding="utf-8"
    )
    return path


def right(**settings):
    return {
        "base_model_name": "tiny-flux1",
        "concepts": [{"path": "photos"}],
        **settings,
    }


def fields(session):
    return [problem.field for problem in session.problems]
