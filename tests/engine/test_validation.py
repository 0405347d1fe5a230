"""The loss of each concept and the drift, beside what is computed by hand: one image at a time, weights merged."""

import copy
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from support.lives import Small, events
from torch import Tensor

from blockrate.engine.flow_matching import draw
from blockrate.engine.validation import Validation
from blockrate.run.folder import RunFolder
from blockrate.run.measures import read_run

pytestmark = pytest.mark.engine


class Lived(NamedTuple):
    """A run, and what measured it, as it was at the end."""

    run: RunFolder
    by: Validation


@pytest.fixture
def live(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    made: list[Validation] = []
    real = Validation.__init__

    def keep(self: Validation, *given: Any) -> None:
        real(self, *given)
        made.append(self)

    def life(name: str = "run", *roles: str, **settings: Any) -> Lived:
        photos = str(small.folder / "photos")
        concepts = [{"path": photos, "image": {"enable_random_flip": True}}]
        for role in roles:
            concepts.append({"path": photos, "type": "VALIDATION", "role": role})
        values = {"concepts": concepts, "validation": True, "epochs": 2, **settings}
        config = small.config(tmp_path / name, **values)
        return Lived(small.live(config), made[-1])

    monkeypatch.setattr(Validation, "__init__", keep)
    return life


def by_hand(lived: Lived) -> dict[int, list[tuple[float, float]]]:
    """The loss and the drift of each image, by concept: each by itself, by models without adapters, one merged."""
    state, data, config = lived.by._state, lived.by._data, lived.by._config
    base = data.files.family.load_transformer(data.files, config, state.device).eval()
    merged = copy.deepcopy(base)
    for name, layer in state.transformer.named_modules():
        if isinstance(layer, LoraLayer):
            down, up = (part["default"].weight for part in (layer.lora_A, layer.lora_B))
            with torch.no_grad():
                weight = merged.get_submodule(name).weight
                weight += layer.scaling["default"] * up @ down
    images = list(chain.from_iterable(data.validation))
    count = dict.fromkeys(range(3), 0)
    found: dict[int, list[tuple[float, float]]] = {}
    for number, batch in enumerate(data.validation):
        for row, example in enumerate(batch):
            concept = example.item.concept
            mine = [image for image in images if image.item.concept == concept]
            place = (count[concept] + 0.5) / len(mine)
            count[concept] += 1
            tensors = data.cache.batch([example])
            noise, _ = draw(config.seed, -1, number, tensors.latents.shape, first=row)
            tokens = state.family.image_tokens(tensors.latents)
            time = config.timestep_at(place, tokens=tokens)
            noisy = (1 - time) * tensors.latents + time * noise
            given = (noisy, torch.tensor([time]), tensors.conditioning)
            with torch.no_grad():
                before, after = (
                    state.family.predict(
                        model, *given, guidance=config.transformer.guidance_scale
                    )
                    for model in (base, merged)
                )
            loss = (after - (noise - tensors.latents)).square().mean()
            drift = (after - before).square().mean()
            found.setdefault(concept, []).append((float(loss), float(drift)))
    return found


def mean(values: list[tuple[float, float]], what: int) -> float:
    return sum(value[what] for value in values) / len(values)


def test_losses_by_concept_and_drift_are_what_is_computed_by_hand(live: Any) -> None:
    lived = live("run", "subject", "keep")
    told = events(lived.run, "validated")
    before, after = told[0], told[-1]
    subject, keep = after["concepts"]
    assert before["drift"] == 0.0
    assert (subject["role"], keep["role"]) == ("subject", "keep")
    assert (subject["images"], keep["images"]) == (5, 5)
    assert subject["name"] != keep["name"]
    hand = by_hand(lived)
    assert subject["loss"] == pytest.approx(mean(hand[1], 0), rel=1e-4)
    assert keep["loss"] == pytest.approx(mean(hand[2], 0), rel=1e-4)
    assert after["drift"] > 0
    # of the images to keep alone
    assert after["drift"] == pytest.approx(mean(hand[2], 1), rel=1e-3)
    assert after["loss"] == pytest.approx((subject["loss"] + keep["loss"]) / 2)


def test_without_a_role_all_is_as_it_was_and_drift_is_that_of_all(live: Any) -> None:
    lived = live("run", "subject")
    [concept] = events(lived.run, "validated")[-1]["concepts"]
    told = events(lived.run, "validated")[-1]
    assert concept["loss"] == pytest.approx(told["loss"])
    hand = by_hand(lived)
    assert told["loss"] == pytest.approx(mean(hand[1], 0), rel=1e-4)
    assert told["drift"] == pytest.approx(mean(hand[1], 1), rel=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {"ema": "CPU", "ema_update_step_interval": 1},
        {"optimizer": {"optimizer": "SCHEDULE_FREE_ADAMW"}},
    ],
)
def test_measuring_the_drift_changes_nothing_that_is_learned(
    live: Any, settings: dict[str, Any]
) -> None:
    """Also with an average, and with weights that are put into another form to be looked at."""
    often = {"validate_after": 1, "validate_after_unit": "STEP"}
    seldom = {"validate_after_unit": "NEVER"}
    runs = [
        live(name, "subject", "keep", **settings, **unit).run
        for name, unit in (("often", often), ("seldom", seldom))
    ]
    assert len(events(runs[0], "validated")) > len(events(runs[1], "validated"))
    one, other = (load_file(run.path / "result.safetensors") for run in runs)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert events(runs[0], "validated")[-1]["drift"] > 0


def test_a_fine_tune_has_losses_by_concept_and_no_drift(live: Any) -> None:
    lived = live("run", "subject", "keep", training_method="FINE_TUNE", epochs=1)
    for told in events(lived.run, "validated"):
        assert told["drift"] is None
        assert len(told["concepts"]) == 2


def test_runs_of_other_rates_are_measured_on_the_same_noise_and_times(
    live: Any,
) -> None:
    def drawn(lived: Lived) -> list[Tensor]:
        measured = [
            lived.by._drawn(piece, batch)
            for piece, batch in lived.by._data.validation_pieces()
        ]
        return [tensor for each in measured for tensor in (each.noise, each.timesteps)]

    one = live("one", "subject", "keep", epochs=1)
    other = live(
        "other", "subject", "keep", epochs=1, block_learning_rate_multiplier={}
    )
    pairs = zip(drawn(one), drawn(other), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)
    assert events(one.run, "validated")[0] != events(one.run, "validated")[-1]
    first = [events(each.run, "validated")[0]["concepts"] for each in (one, other)]
    assert first[0] == first[1]
    seen = [read_run(each.run.path) for each in (one, other)]
    assert seen[0].data == seen[1].data != ""
    assert seen[0].measured_on == seen[1].measured_on != ()
