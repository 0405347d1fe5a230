"""Samples, validation losses and steps that are no numbers: never drawn or charted, always told with what fits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.lives import Small, events

from blockrate.core.errors import NotANumberError
from blockrate.engine import steps, validation
from blockrate.engine.models import common, flux1
from blockrate.engine.spoilt import samples_in_words, steps_cure

pytestmark = pytest.mark.usefixtures("no_sync")
CAT = {"prompt": "a cat", "width": 64, "height": 64, "diffusion_steps": 1}
DRAWN: dict[str, Any] = {
    "epochs": 4,
    "learning_rate_warmup_steps": 0,
    "samples": [CAT, {**CAT, "prompt": "a dog", "seed": 1}],
    "sample_after": 6,
    "sample_after_unit": "STEP",
}
PRECISE = {"weight_dtype": "FLOAT_32"}
HALF = {"weight_dtype": "FLOAT_16"}


def spoil(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, factor: float, first: int
) -> None:
    """Multiply what a function gives, from one call on."""
    real: Callable[..., torch.Tensor] = getattr(where, name)
    calls = iter(range(1000))

    def spoilt(*given: Any, **named: Any) -> torch.Tensor:
        result = real(*given, **named)
        return result * factor if next(calls) >= first else result

    monkeypatch.setattr(where, name, spoilt)


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("where", "name", "factor", "cause"),
    [
        (flux1, "denoise", float("nan"), "the transformer gives no numbers"),
        (flux1, "decode_latents", float("nan"), "the VAE gives no numbers"),
        (common, "decode_in_tiles_if_needed", float("inf"), "the VAE gives no numbers"),
        (common, "decode_in_tiles_if_needed", 0.0, "every pixel of them is the same"),
    ],
)
def test_what_is_no_picture_is_told_and_not_drawn(
    small: Small,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: Any,
    name: str,
    factor: float,
    cause: str,
) -> None:
    spoil(monkeypatch, where, name, factor, first=1)
    run = small.live(small.config(tmp_path, vae=PRECISE, **DRAWN))
    (told,) = events(run, "warned")
    assert told["code"] == "sample"
    assert f"samples.1: {cause}" in told["message"]
    assert "vae.weight_dtype to FLOAT_32" not in told["message"]  # which it is
    (drawn,) = events(run, "sampled")
    assert [Path(file).name for file in drawn["files"]] == ["step-00000006-0-a-cat.png"]
    assert len(list(run.samples.glob("*.png"))) == 1


def test_a_run_of_spoilt_samples_has_no_picture_at_all(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, flux1, "decode_latents", float("nan"), first=0)
    run = small.live(small.config(tmp_path, vae=HALF, **DRAWN))
    (told,) = events(run, "warned")
    assert "samples.0, samples.1: the VAE gives no numbers" in told["message"]
    assert "Set vae.weight_dtype to FLOAT_32." in told["message"]
    assert not events(run, "sampled")
    assert not list(run.samples.glob("*.png"))
    assert (tmp_path / "result.safetensors").exists()


def test_a_validation_loss_that_is_no_number_is_told_with_its_images_and_not_charted(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = str(small.folder / "photos")
    flipped = {"path": photos, "image": {"enable_random_flip": True}}
    concepts = [flipped, {"path": photos, "type": "VALIDATION"}]
    settings = {**DRAWN, "samples": [], "concepts": concepts, "validation": True}
    real = steps.sample_losses
    monkeypatch.setattr(
        validation, "sample_losses", lambda *given: real(*given) * float("nan")
    )
    run = small.live(small.config(tmp_path, **settings))
    assert not events(run, "validated")
    first = events(run, "warned")[0]
    assert first["code"] == "validation"
    assert "validation: the loss on" in first["message"]
    assert "photos" in first["message"]
    assert len(events(run, "step")) == 6


def test_steps_without_one_good_one_point_at_the_weights_and_never_at_what_is_set(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = steps.flow_loss
    monkeypatch.setattr(steps, "flow_loss", lambda *given: real(*given) * float("nan"))
    config = small.config(tmp_path)
    with pytest.raises(NotANumberError, match="5 steps in a row") as caught:
        small.live(config)
    text = str(caught.value)
    assert f"fetch the weights of {config.base_model_name} again" in text
    assert "Lower learning_rate" not in text
    assert "train_dtype to FLOAT_32" not in text


def test_cures_name_no_setting_that_is_set_already(
    small: Small, tmp_path: Path
) -> None:
    precise = small.config(tmp_path, vae=PRECISE)
    assert steps_cure(precise, trained=True) == (
        "Lower learning_rate, or leave out the named images; saves are untouched."
    )
    assert samples_in_words([], precise) == ""
    rough = small.config(tmp_path, train_dtype="BFLOAT_16", transformer=HALF)
    for text in (steps_cure(rough, trained=True), steps_cure(rough, trained=False)):
        assert "set train_dtype to FLOAT_32" in text
        assert "set transformer.weight_dtype to BFLOAT_16" in text
