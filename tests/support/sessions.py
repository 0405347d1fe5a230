"""Configs for tests of the open config, written as a user or another program leaves them."""

import json
from pathlib import Path
from typing import Any

from blockrate.ui.session import Session

KEY = "block_learning_rate_multiplier"


def written(name: str, data: Any) -> Path:
    path = Path(name).absolute()
    path.write_text(
        data if isinstance(data, str) else json.dumps(data), encoding="utf-8"
    )
    return path


def right(**settings: Any) -> dict[str, Any]:
    return {
        "base_model_name": "tiny-flux1",
        "concepts": [{"path": "photos"}],
        **settings,
    }


def fields(session: Session) -> list[str]:
    return [problem.field for problem in session.problems]
