"""Which samples make which step: nothing left out, nothing depending on what came before."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockrate.config.train_config import TrainConfig
from blockrate.core.buckets import Bucket, buckets
from blockrate.core.errors import ConfigError
from blockrate.engine.data.batches import StepOrder, TrainingExample, validation_batches
from blockrate.engine.data.concepts import Item

SIZES = [
    (640, 480),
    (480, 640),
    (512, 512),
    (3000, 1000),
    (1, 5000),
    (1, 1),
    (1023, 769),
]


def item(
    name: str, *, size: tuple[int, int] = (640, 480), concept: int = 0, **facts: Any
) -> Item:
    given = {
        "captions": ("a, b, c, d, e",),
        "note": "",
        "loss_weight": 1.0,
        "validation": False,
        **facts,
    }
    return Item(
        Path("/pictures", name),
        f"pictures/{name}",
        f"hash of {name}",
        *size,
        concept,
        **given,
    )


def items(count: int, **facts: Any) -> list[Item]:
    return [
        item(f"{number}.png", size=SIZES[number % len(SIZES)], **facts)
        for number in range(count)
    ]


def config(concept: dict[str, Any] | None = None, **settings: Any) -> TrainConfig:
    return TrainConfig(
        concepts=[{"path": "/pictures", **(concept or {})}], **{"epochs": 3, **settings}
    )


def all_steps(order: StepOrder) -> list[list[list[TrainingExample]]]:
    return [order.step_batches(step) for step in range(order.number_of_steps)]


def flat(steps: list[list[list[TrainingExample]]]) -> list[TrainingExample]:
    return [sample for step in steps for batch in step for sample in batch]


def by_epoch(order: StepOrder) -> list[list[TrainingExample]]:
    """The samples of each epoch; for runs that accumulate nothing."""
    epochs: list[list[TrainingExample]] = [[] for _ in range(order.config.epochs)]
    for step, batches in enumerate(all_steps(order)):
        epochs[order.epoch_of(step)] += flat([batches])
    return epochs


runs = st.builds(
    config,
    st.fixed_dictionaries({"balancing": st.sampled_from([1.0, 2.0, 2.5, 0.4])}),
    batch_size=st.integers(1, 5),
    gradient_accumulation_steps=st.integers(1, 4),
    resolution=st.sampled_from(["64", "512", "512,768", "832x1216"]),
    aspect_ratio_bucketing=st.booleans(),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 5),
)


@settings(max_examples=60, deadline=None)
@given(runs, st.integers(1, 30))
def test_no_image_is_left_out_and_none_comes_too_often(
    run: TrainConfig, count: int
) -> None:
    balancing = run.concepts[0].balancing
    if not round(balancing * count):
        return
    steps = all_steps(StepOrder(run, items(count)))
    times = Counter(sample.item.name for sample in flat(steps))
    assert sum(times.values()) == round(balancing * count) * run.epochs
    full, rest = divmod(round(balancing * count), count)
    assert set(times) <= {one.name for one in items(count)}
    assert all(
        full * run.epochs <= times[one.name] <= (full + bool(rest)) * run.epochs
        for one in items(count)
    )
    for batches in steps:
        assert all(1 <= len(batch) <= run.batch_size for batch in batches)
        assert all(len({sample.bucket for sample in batch}) == 1 for batch in batches)
    assert all(
        len(batches) == run.gradient_accumulation_steps for batches in steps[:-1]
    )
    assert 1 <= len(steps[-1]) <= run.gradient_accumulation_steps


@settings(max_examples=30, deadline=None)
@given(runs, st.integers(3, 20), st.data())
def test_any_step_alone_is_that_step_of_the_whole_run(
    run: TrainConfig, count: int, data: st.DataObject
) -> None:
    steps = all_steps(StepOrder(run, items(count)))
    fresh = StepOrder(run, items(count))
    for step in data.draw(st.lists(st.integers(0, len(steps) - 1), max_size=6)):
        assert fresh.step_batches(step) == steps[step]


def test_each_epoch_holds_each_image_once_in_another_order() -> None:
    first, second, third = by_epoch(StepOrder(config(batch_size=2), items(20)))
    names = [[sample.item.name for sample in epoch] for epoch in (first, second, third)]
    assert (
        sorted(names[0])
        == sorted(names[1])
        == sorted(names[2])
        == sorted(one.name for one in items(20))
    )
    assert len({tuple(order) for order in names}) == 3


def test_images_meet_others_in_their_batch_in_another_epoch() -> None:
    order = StepOrder(config(batch_size=2, epochs=2, resolution="512x512"), items(20))
    pairs: list[set[frozenset[str]]] = [set(), set()]
    for step, (batch,) in enumerate(all_steps(order)):
        pairs[order.epoch_of(step)].add(frozenset(sample.item.name for sample in batch))
    assert len(pairs[0] & pairs[1]) < 5


def test_batches_of_different_buckets_are_mixed() -> None:
    wide = [item(f"w{n}", size=(640, 480)) for n in range(20)]
    high = [item(f"h{n}", size=(480, 640)) for n in range(20)]
    order = [
        batches[0][0].bucket
        for batches in all_steps(StepOrder(config(batch_size=2, epochs=1), wide + high))
    ]
    assert sum(before != after for before, after in pairwise(order)) > 3


def test_the_seed_changes_order_and_choices_and_the_concepts_seed_only_choices() -> (
    None
):
    def run(concept_seed: int, seed: int) -> list[TrainingExample]:
        return flat(
            all_steps(
                StepOrder(
                    config({"seed": concept_seed}, seed=seed, epochs=1), items(20)
                )
            )
        )

    def names(samples: list[TrainingExample]) -> list[str]:
        return [sample.item.name for sample in samples]

    assert run(0, 1) == run(0, 1)
    assert names(run(0, 1)) != names(run(0, 2))
    assert names(run(0, 1)) == names(run(5, 1))
    assert run(0, 1) != run(5, 1)


def test_steps_go_on_across_epochs_and_the_last_may_be_shorter() -> None:
    # 15 batches
    order = StepOrder(
        config(gradient_accumulation_steps=4, resolution="512x512"), items(5)
    )
    assert [len(batches) for batches in all_steps(order)] == [4, 4, 4, 3]
    assert [order.epoch_of(step) for step in range(5)] == [0, 0, 1, 2, 3]


def test_repeats_may_be_broken_numbers() -> None:
    for epoch in by_epoch(StepOrder(config({"balancing": 2.5}), items(10))):
        times = Counter(sample.item.name for sample in epoch)
        assert sorted(times.values()) == [2] * 5 + [3] * 5


def test_the_remainder_is_another_one_in_another_epoch() -> None:
    chosen = [
        {sample.item.name for sample in epoch}
        for epoch in by_epoch(StepOrder(config({"balancing": 0.5}), items(20)))
    ]
    assert all(len(names) == 10 for names in chosen)
    assert len({frozenset(names) for names in chosen}) == 3


@pytest.mark.parametrize(("wanted", "most"), [(3, 1), (10, 1), (25, 3)])
def test_balancing_by_samples_is_a_number_an_epoch(wanted: int, most: int) -> None:
    for epoch in by_epoch(
        StepOrder(
            config({"balancing": wanted, "balancing_strategy": "SAMPLES"}), items(10)
        )
    ):
        assert len(epoch) == wanted
        assert max(Counter(sample.item.name for sample in epoch).values()) == most


def test_each_concept_is_balanced_by_itself() -> None:
    concepts = [
        {"path": "a", "balancing": 3.0},
        {"path": "b", "enabled": False},
        {"path": "c"},
    ]
    order = StepOrder(
        TrainConfig(concepts=concepts, epochs=1),
        [*items(4), *items(6, concept=2, loss_weight=0.5)],
    )
    samples = flat(all_steps(order))
    assert Counter(sample.item.concept for sample in samples) == {0: 12, 2: 6}


def test_balancing_that_leaves_nothing_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="balancing leaves no image"):
        StepOrder(config({"balancing": 0.0}), items(5))


def test_buckets_follow_the_shape_or_are_one_square() -> None:
    wide = item("wide.png", size=(1600, 800))
    (sample,) = flat(all_steps(StepOrder(config(epochs=1, resolution="512"), [wide])))
    assert sample.bucket.width / sample.bucket.height == pytest.approx(2, rel=0.15)
    (sample,) = flat(
        all_steps(
            StepOrder(
                config(epochs=1, resolution="512", aspect_ratio_bucketing=False), [wide]
            )
        )
    )
    assert sample.bucket == Bucket(512, 512)


def test_of_several_resolutions_every_image_sees_all_in_time() -> None:
    epochs = by_epoch(
        StepOrder(config(resolution="256,512", epochs=20, batch_size=4), items(8))
    )
    assert all(
        len({sample.item.name for sample in epoch}) == len(epoch) == 8
        for epoch in epochs
    )
    small = set(buckets("256")[0])
    share = [sample.bucket in small for epoch in epochs for sample in epoch]
    assert 0.3 < sum(share) / len(share) < 0.7
    assert (
        len(
            {
                (sample.item.name, sample.bucket in small)
                for epoch in epochs
                for sample in epoch
            }
        )
        == 16
    )


def test_a_concepts_own_resolution_wins() -> None:
    override = {
        "image": {"enable_resolution_override": True, "resolution_override": "832x1216"}
    }
    samples = flat(all_steps(StepOrder(config(override, resolution="512"), items(5))))
    assert {sample.bucket for sample in samples} == {Bucket(832, 1216)}


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 6000), st.integers(1, 6000), st.booleans(), st.integers(0, 9))
def test_a_crop_fills_its_bucket_and_lies_in_the_scaled_image(
    width: int, height: int, jitter: bool, seed: int
) -> None:
    run = config(
        {"image": {"enable_crop_jitter": jitter}}, seed=seed, epochs=1, resolution="512"
    )
    (sample,) = flat(all_steps(StepOrder(run, [item("a", size=(width, height))])))
    (across, down), (left, top, right, bottom) = sample.crop.scaled, sample.crop.box
    assert (right - left, bottom - top) == (sample.bucket.width, sample.bucket.height)
    assert 0 <= left < right <= across
    assert 0 <= top < bottom <= down
    assert right - left == across or bottom - top == down  # as much as possible is kept
    assert across / width == pytest.approx(
        down / height, abs=0.5 / min(width, height) + 0.5 / width + 0.5 / height
    )
    if not jitter:
        assert abs(left - (across - right)) <= 1
        assert abs(top - (down - bottom)) <= 1


def test_crops_and_flips_vary_with_the_variation_and_come_round_again() -> None:
    image = {"enable_random_flip": True}
    run = config(
        {"image": image, "image_variations": 4}, epochs=12, resolution="512x512"
    )
    wide = [item(f"{n}", size=(1600, 800)) for n in range(10)]
    epochs = [
        {sample.item.name: sample.crop for sample in epoch}
        for epoch in by_epoch(StepOrder(run, wide))
    ]
    assert epochs[0] == epochs[4] == epochs[8] != epochs[1]
    assert len({epoch["pictures/0"] for epoch in epochs}) == 4
    flips = [crop.flip for epoch in epochs[:4] for crop in epoch.values()]
    assert 8 < sum(flips) < 32


def test_without_variations_an_image_is_always_the_same() -> None:
    run = config(
        {"image": {"enable_random_flip": True}, "text": {"enable_tag_shuffling": True}}
    )
    seen = {
        (sample.item.name, sample.crop, sample.captions["text_encoder_2"])
        for sample in flat(all_steps(StepOrder(run, items(10))))
    }
    assert len(seen) == 10


def test_a_fixed_flip_is_for_every_image_and_none_for_none() -> None:
    for fixed in (True, False):
        samples = flat(
            all_steps(
                StepOrder(config({"image": {"enable_fixed_flip": fixed}}), items(5))
            )
        )
        assert {sample.crop.flip for sample in samples} == {fixed}


def captions_of(
    text: dict[str, Any], lines: tuple[str, ...], variations: int
) -> list[str]:
    run = config({"text": text, "text_variations": variations}, epochs=variations)
    return [
        epoch[0].captions["text_encoder_2"]
        for epoch in by_epoch(StepOrder(run, [item("a", captions=lines)]))
    ]


def test_every_line_of_a_caption_comes_if_there_are_variations_enough() -> None:
    assert sorted(captions_of({}, ("one", "two", "three"), 3)) == [
        "one",
        "three",
        "two",
    ]
    assert len(set(captions_of({}, ("one", "two", "three"), 1))) == 1


def test_tags_are_shuffled_behind_the_kept_ones() -> None:
    shuffled = captions_of(
        {"enable_tag_shuffling": True, "keep_tags_count": 2}, ("a,b , c,, d,e",), 30
    )
    assert all(caption.startswith("a, b, ") for caption in shuffled)
    assert all(sorted(caption.split(", ")) == list("abcde") for caption in shuffled)
    assert len(set(shuffled)) == 6
    assert captions_of(
        {"enable_tag_shuffling": True, "keep_tags_count": 9}, ("a,b",), 2
    ) == ["a, b", "a, b"]
    assert captions_of(
        {"enable_tag_shuffling": True, "tag_delimiter": "|"}, ("a|b",), 1
    ) == ["a| b"]
    assert captions_of({"enable_tag_shuffling": True}, ("",), 1) == [""]


def test_a_caption_without_shuffling_is_left_as_it_is() -> None:
    assert captions_of({}, ("a,b ,, c",), 2) == ["a,b ,, c"] * 2


def test_captions_are_dropped_for_each_encoder_by_itself() -> None:
    run = config(
        epochs=40,
        text_encoder={"dropout_probability": 0.5},
        text_encoder_2={"dropout_probability": 0.25},
    )
    samples = flat(all_steps(StepOrder(run, items(20))))
    assert sum(not sample.captions["text_encoder"] for sample in samples) / len(
        samples
    ) == pytest.approx(0.5, abs=0.07)
    assert sum(not sample.captions["text_encoder_2"] for sample in samples) / len(
        samples
    ) == pytest.approx(0.25, abs=0.07)
    both = sum(not any(sample.captions.values()) for sample in samples) / len(samples)
    assert both == pytest.approx(0.125, abs=0.06)
    assert {sample.captions["text_encoder_2"] for sample in samples} == {
        "",
        "a, b, c, d, e",
    }


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_dropout_of_none_and_of_all(probability: float) -> None:
    part = {"dropout_probability": probability}
    samples = flat(
        all_steps(StepOrder(config(text_encoder=part, text_encoder_2=part), items(10)))
    )
    assert {bool(sample.captions["text_encoder_2"]) for sample in samples} == {
        bool(sample.captions["text_encoder"]) for sample in samples
    }
    assert {bool(sample.captions["text_encoder_2"]) for sample in samples} == {
        probability == 0
    }


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from(["512", "256,512"]),
    st.sampled_from([1.0, 2.5]),
    st.sampled_from([0.0, 0.5]),
)
def test_every_sample_a_step_asks_for_is_among_those_made_before(
    image_variations: int,
    text_variations: int,
    resolution: str,
    balancing: float,
    dropout: float,
) -> None:
    concept = {
        "image_variations": image_variations,
        "text_variations": text_variations,
        "balancing": balancing,
        "image": {"enable_random_flip": True},
        "text": {"enable_tag_shuffling": True},
    }
    order = StepOrder(
        config(
            concept,
            resolution=resolution,
            epochs=9,
            text_encoder={"dropout_probability": dropout},
        ),
        items(6),
    )
    made = order.every_example()
    asked = flat(all_steps(order))
    assert {(sample.item, sample.bucket, sample.crop) for sample in asked} <= {
        (sample.item, sample.bucket, sample.crop) for sample in made
    }
    assert {text for sample in asked for text in sample.captions.values()} <= {
        text for sample in made for text in sample.captions.values()
    }
    assert len(made) <= 6 * (image_variations * 2 + text_variations)


def test_a_new_image_changes_no_choice_for_the_others() -> None:
    run = config(
        {"image": {"enable_random_flip": True}, "text": {"enable_tag_shuffling": True}},
        resolution="256,512",
    )
    before = {
        (sample.item.name, sample.crop, sample.captions["text_encoder_2"])
        for sample in StepOrder(run, items(10)).every_example()
    }
    after = {
        (sample.item.name, sample.crop, sample.captions["text_encoder_2"])
        for sample in StepOrder(run, [item("0 new.png"), *items(10)]).every_example()
    }
    assert before < after


def test_validation_items_are_never_trained_and_always_measured_alike() -> None:
    held = items(9, validation=True)
    concept = {"image": {"enable_random_flip": True}, "balancing": 3.0}
    run = config(
        concept,
        batch_size=2,
        resolution="512,768",
        text_encoder={"dropout_probability": 1.0},
    )
    assert {
        sample.item for sample in flat(all_steps(StepOrder(run, [*items(4), *held])))
    } == set(items(4))
    batches = validation_batches(run, [*items(4), *held])
    samples = flat([batches])
    assert sorted(sample.item.name for sample in samples) == sorted(
        one.name for one in held
    )
    assert all(
        len(batch) <= 2 and len({sample.bucket for sample in batch}) == 1
        for batch in batches
    )
    assert all(set(sample.captions.values()) == {"a, b, c, d, e"} for sample in samples)
    assert not any(sample.crop.flip for sample in samples)
    assert {sample.bucket for sample in samples} <= set(buckets("512")[0])
    assert batches == validation_batches(run, held)
