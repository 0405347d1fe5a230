"""Running the command line on the toy model, as a user does."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from support.commands import EXAMPLES, Command, Result, command


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small photographs of three shapes, with captions."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    for number, (name, size) in enumerate(
        {"astronaut": (96, 96), "coffee": (128, 96), "cat": (96, 144)}.items()
    ):
        with Image.open(EXAMPLES / "photos" / f"{name}.jpg") as image:
            image.resize(size).save(folder / f"{number}-{name}.png")
        (folder / f"{number}-{name}.txt").write_text(
            f"a photo of a {name}", encoding="utf-8"
        )
    return folder


@pytest.fixture(scope="session")
def small_run(
    tiny_flux: Path,
    photos: Path,
    warm_engine: Mapping[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Command:
    """``train`` a config on the toy model and the small photographs: (config, folder, more --set) -> Result."""
    cache = tmp_path_factory.mktemp("cache")

    def run(
        config: Path, folder: Path, *settings: str, options: Sequence[str] = ()
    ) -> Result:
        values = {
            "base_model_name": tiny_flux,
            "concepts.0.path": photos,
            "workspace_dir": folder / "run",
            "cache_dir": cache,
            "output_model_destination": folder / "result.safetensors",
            "resolution": "64",
            "epochs": 2,
            "batch_size": 2,
            "train_dtype": "FLOAT_32",
            "transformer.weight_dtype": "FLOAT_32",
            "text_encoder.weight_dtype": "FLOAT_32",
            "text_encoder_2.weight_dtype": "FLOAT_32",
            "text_encoder_2_sequence_length": 16,
            "learning_rate_warmup_steps": 0,
            "tensorboard": "false",
            "telemetry_every": 1,
        }
        sets = [
            word for item in values.items() for word in ("--set", "{}={}".format(*item))
        ]
        sets += [word for setting in settings for word in ("--set", setting)]
        return command(
            "train",
            str(config),
            *sets,
            *options,
            run=folder / "run",
            environment=warm_engine,
        )

    return run
