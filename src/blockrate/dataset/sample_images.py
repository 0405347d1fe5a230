"""The images that samples are made from: references, or an image with a mask."""

import os
from collections.abc import Iterator
from pathlib import Path

from blockrate.config.partners import asks_for_masks
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError, FileError
from blockrate.dataset.folders import missing
from blockrate.dataset.headers import image_header
from blockrate.dataset.partner_findings import wrong_mask


def sample_files(config: TrainConfig) -> Iterator[tuple[str, str]]:
    """Yield the settings that name an image which a sample needs, with their values."""
    for index, sample in enumerate(config.samples):
        if not sample.enabled:
            continue
        for number, path in enumerate(sample.references):
            yield f"samples.{index}.references.{number}", path
        if asks_for_masks(config):
            yield f"samples.{index}.base_image_path", sample.base_image_path
            yield f"samples.{index}.mask_image_path", sample.mask_image_path


def sample_problems(
    config: TrainConfig, *, beside: Path | None = None
) -> list[ConfigError]:
    """Return which images of samples are not there or cannot be used. ``beside``: the folder of the config."""
    problems = []
    for where, path in sample_files(config):
        if not path:
            continue  # the plan tells it
        if not os.path.isfile(path):
            problems.append(missing(path, where, "file", "file of an image", beside))
            continue
        try:
            image_header(Path(path))
        except FileError as error:
            problem = f"{error.where} {error.problem}"
            problems.append(ConfigError(where, problem, "Name another image."))
    return problems or list(_unfit_masks(config))


def _unfit_masks(config: TrainConfig) -> Iterator[ConfigError]:
    if not asks_for_masks(config):
        return
    for index, sample in enumerate(config.samples):
        both = sample.base_image_path and sample.mask_image_path
        if sample.enabled and both:
            mask = Path(sample.mask_image_path)
            image = image_header(Path(sample.base_image_path))
            wrong = wrong_mask(mask, image_header(mask), image)
            if wrong:
                where = f"samples.{index}.mask_image_path"
                yield ConfigError(where, f"{wrong.where} {wrong.problem}", wrong.cure)
