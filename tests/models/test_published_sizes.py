"""The published models, counted from their facts alone: as their makers' weights were counted."""

from collections import Counter
from dataclasses import asdict
from typing import NamedTuple

import pytest

from blockrate.cli.show import plan_table
from blockrate.config.files import parse_config
from blockrate.config.plan import make_plan
from blockrate.core.blocks import split_block
from blockrate.models.families import FAMILIES, Family, known_as
from blockrate.models.module_table import Module, modules


class Counted(NamedTuple):
    """What diffusers' class of a model's sizes holds. Parameters in millions; ``all``, in thousands of millions.

    ``linears``: of a double block, of a single one, of what is in no block. ``adapters``:
    parameters of a LoRA of rank 16 on every Linear of the blocks.
    """

    blocks: tuple[int, int]
    width: int
    all: float
    double: float
    single: float
    other: float
    linears: tuple[int, int, int]
    adapters: float


DEV = Counted((19, 38), 3072, 11.901, 339.8, 141.6, 64.1, (14, 6, 10), 85.9)
CHROMA = Counted((19, 38), 3072, 8.900, 226.5, 113.3, 291.3, (12, 5, 15), 65.4)
KLEIN_4B = Counted((5, 20), 3072, 3.876, 245.4, 122.7, 195.0, (12, 2, 9), 24.1)
KLEIN_9B = Counted((8, 24), 4096, 9.079, 436.2, 218.1, 354.4, (12, 2, 9), 43.5)
BFL = "black-forest-labs"
PUBLISHED = {
    f"{BFL}/FLUX.1-dev": DEV,
    f"{BFL}/FLUX.1-Krea-dev": DEV,
    f"{BFL}/FLUX.1-Kontext-dev": DEV,
    f"{BFL}/FLUX.1-schnell": DEV._replace(all=11.891, other=53.9, linears=(14, 6, 8)),
    f"{BFL}/FLUX.1-Fill-dev": DEV._replace(all=11.902, other=65.1),
    f"{BFL}/FLUX.2-dev": Counted(
        (8, 48), 6144, 32.223, 981.5, 490.7, 816.3, (12, 2, 11), 100.7
    ),
    f"{BFL}/FLUX.2-klein-base-9B": KLEIN_9B,
    f"{BFL}/FLUX.2-klein-9B": KLEIN_9B,
    f"{BFL}/FLUX.2-klein-base-4B": KLEIN_4B,
    f"{BFL}/FLUX.2-klein-4B": KLEIN_4B,
    "lodestones/Chroma1-HD": CHROMA,
    "lodestones/Chroma1-Base": CHROMA,
}
KNOWN = {repo: family for repo in PUBLISHED if (family := known_as(repo))}
EVERY = pytest.mark.parametrize(("repo", "family"), KNOWN.items(), ids=KNOWN)


def kind_of(module: Module) -> str:
    return split_block(module.block)[0] if module.block else "other"


def test_no_published_model_is_left_uncounted() -> None:
    assert {row.repo for row in FAMILIES.values() if row.repo} == KNOWN.keys()


@EVERY
def test_blocks_parameters_and_linears_are_as_counted(
    repo: str, family: Family
) -> None:
    counted = PUBLISHED[repo]
    layout = family.spec.layout
    assert (layout.double, layout.single) == counted.blocks
    assert family.spec.hidden == counted.width
    sizes: Counter[str] = Counter()
    linears: Counter[str] = Counter()
    for module in modules(family.spec):
        kind = kind_of(module)
        sizes[kind] += module.parameters
        linears[kind] += module.linear
    blocks = {"double": layout.double, "single": layout.single, "other": 1}
    assert {kind: sizes[kind] / blocks[kind] / 1e6 for kind in blocks} == pytest.approx(
        {
            "double": counted.double,
            "single": counted.single,
            "other": counted.other,
        },
        abs=0.051,
    )
    assert tuple(linears[kind] / blocks[kind] for kind in blocks) == counted.linears


@EVERY
def test_the_plan_prints_the_model_and_its_parameters(
    repo: str, family: Family
) -> None:
    settings = {
        "base_model_name": repo,
        "model_type": family.model_type,
        "model_variant": "DISTILLED" if family.distilled else "",
        "layer_filter_preset": "blocks",
        "lora_rank": 16,
    }
    plan = make_plan(parse_config(settings).config)
    counted = PUBLISHED[repo]
    assert plan.model_parameters / 1e9 == pytest.approx(counted.all, abs=0.00051)
    trained = sum(group.parameters for group in plan.groups)
    assert trained / 1e6 == pytest.approx(counted.adapters, abs=0.051)
    _, line, *_ = plan_table(asdict(plan))
    blocks = f"{counted.blocks[0]} double and {counted.blocks[1]} single blocks"
    assert line == f"{family.title}: {blocks}, {plan.model_parameters:,} parameters"
