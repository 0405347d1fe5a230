"""What samples, validation and exports see of a model in training."""

import pytest
import torch
from torch import nn

from blockrate.core.blocks import BlockLayout
from blockrate.core.profile import Profile
from blockrate.engine.ema import Ema
from blockrate.engine.models import flux1
from blockrate.engine.state import TrainingState

CPU = torch.device("cpu")


def training_state() -> TrainingState:
    model = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5))
    trained = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(trained.values())
    blocks = dict.fromkeys(trained, "other")
    return TrainingState(
        transformer=model,
        family=flux1,
        device=CPU,
        optimizer=optimizer,
        trained=trained,
        blocks=blocks,
        formerly_trained={},
        ema=Ema(trained, decay=0.5),
        profile=Profile.of({}, BlockLayout(0, 0)),
    )


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_and_the_weights_come_back_even_after_a_failure(
    training: bool,
) -> None:
    of = training_state()
    of.transformer.train(training)
    with torch.no_grad():
        for parameter in of.trained.values():
            parameter.add_(1.0)
    before = {name: tensor.clone() for name, tensor in of.trained.items()}
    ema = of.ema
    assert ema

    def look(fail: bool) -> None:
        with of.evaluation():
            assert not of.transformer.training
            weights = dict(of.transformer.named_parameters())
            assert all(
                torch.equal(weights[name], average)
                for name, average in ema.average.items()
            )
            if fail:
                raise ZeroDivisionError

    look(fail=False)
    with pytest.raises(ZeroDivisionError):
        look(fail=True)
    assert of.transformer.training is training
    assert all(torch.equal(of.trained[name], values) for name, values in before.items())
