"""The catalogue: rows, defaults, and who can give blocks rates of their own."""

import pytest

from blockrate.config.optimizers import OPTIMIZERS, differing_rates_refusal
from blockrate.config.parts import OptimizerSettings


def test_every_parameter_is_a_setting_and_every_setting_is_taken_by_somebody() -> None:
    taken = {name for row in OPTIMIZERS.values() for name in row.parameters}
    assert taken == set(OptimizerSettings.model_fields) - {"optimizer"}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_defaults_are_values_that_could_be_set(name: str) -> None:
    row = OPTIMIZERS[name]
    settings = OptimizerSettings(optimizer=name, **row.parameters)
    assert (
        row.values(settings)
        == dict(row.parameters)
        == row.values(OptimizerSettings(optimizer=name))
    )


def test_a_users_value_wins_even_when_it_is_false_or_zero() -> None:
    settings = OptimizerSettings(stochastic_rounding=False, weight_decay=0.0)
    values = OPTIMIZERS["ADAMW"].values(settings)
    assert values["stochastic_rounding"] is False
    assert values["weight_decay"] == 0.0


def test_only_prodigy_and_adafactors_own_rate_are_refused() -> None:
    refused = {
        name
        for name in OPTIMIZERS
        if differing_rates_refusal(OptimizerSettings(optimizer=name))
    }
    assert refused == {"PRODIGY"}
    own_rate = differing_rates_refusal(
        OptimizerSettings(optimizer="ADAFACTOR", relative_step=True)
    )
    assert "relative_step" in own_rate
