"""The cache: found again exactly when nothing that matters has changed, made anew when anything is wrong."""

import gc
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, load_file, save_file
from support.cached_images import ImageEncoder, PromptEncoder, Setup, never

from blockrate.core.errors import FileError, WriteError
from blockrate.engine.data.batches import TrainingExample, validation_batches
from blockrate.engine.data.cache import prefetch
from blockrate.engine.data.images import image_tensor


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path)


CAPTIONS = ["number 0, a, b, c", "number 1, a, b, c", "number 2, a, b, c"]


def test_everything_is_made_once_and_nothing_again(setup: Setup) -> None:
    assert setup.fill() == (3, CAPTIONS)
    assert setup.fill(load_image_encoder=never, load_prompt_encoder=never) == (0, [])


def edit_image(setup: Setup) -> None:
    file = setup.images / "1.bmp"
    times = file.stat()
    content = bytearray(file.read_bytes())
    content[-1] ^= 0x80
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def rename_image(setup: Setup) -> None:
    for suffix in ("bmp", "txt"):
        (setup.images / f"1.{suffix}").rename(setup.images / f"another name.{suffix}")


def edit_caption(setup: Setup) -> None:
    (setup.images / "1.txt").write_text("something else")


def change(**facts: Any) -> Callable[[Setup], None]:
    return lambda setup: setup.__dict__.update(facts)


def change_settings(**settings: Any) -> Callable[[Setup], None]:
    return lambda setup: setup.settings.update(settings)


def change_concept(**facts: Any) -> Callable[[Setup], None]:
    return lambda setup: setup.concept.update(facts)


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("what", "images", "texts"),
    [
        (lambda setup: None, 0, 0),
        (edit_image, 1, 0),
        (edit_caption, 0, 1),
        (change(image_identity="another vae"), 3, 0),
        (change(image_identity="vae bfloat16"), 3, 0),
        (change(prompt_identity="t5 float32 77"), 0, 3),
        (change(prompt_identity="t5 bfloat16 512"), 0, 3),
        (change_settings(resolution="96x96"), 3, 0),
        (change_settings(resolution="64x64,96x96"), 3, 0),
        (change_settings(resolution="64"), 2, 0),  # the first image is square
        (change_concept(image={"enable_fixed_flip": True}), 3, 0),
        # the square has nothing to jitter
        (change_concept(image={"enable_crop_jitter": False}), 2, 0),
        (change_concept(text={"prompt_source": "filename"}), 0, 3),
        (
            change_concept(text={"enable_tag_shuffling": True, "keep_tags_count": 0}),
            0,
            3,
        ),
        (change_settings(text_encoder_2={"dropout_probability": 0.1}), 0, 1),
        (rename_image, 1, 0),  # its crop is drawn anew, from its name
        (change_settings(batch_size=3, epochs=7, learning_rate=1.0), 0, 0),
    ],
)
def test_exactly_what_changed_is_made_anew(
    setup: Setup, what: Callable[[Setup], None], images: int, texts: int
) -> None:
    # leaves the second and the third image room to jitter
    setup.settings["resolution"] = "64x64"
    setup.fill()
    what(setup)
    encoded_images, encoded_texts = setup.fill()
    assert (encoded_images, len(encoded_texts)) == (images, texts)
    assert setup.fill(load_image_encoder=never, load_prompt_encoder=never) == (0, [])


def test_a_batch_holds_what_encoding_its_samples_gives(setup: Setup) -> None:
    setup.concept |= {"loss_weight": 0.25}
    setup.settings |= {
        "text_encoder": {"dropout_probability": 0.5},
        "text_encoder_2": {"dropout_probability": 0.5},
    }
    setup.fill()
    order = setup.order()
    cache = setup.cache
    samples = [
        sample
        for step in range(order.number_of_steps)
        for sample in order.step_batches(step)[0]
    ]
    dropped = {tuple(not text for text in s.captions.values()) for s in samples}
    assert len(dropped) > 1
    for sample in samples:
        batch = cache.batch([sample])
        image = image_tensor(sample.item.path, sample.item.sha256, sample.crop)
        assert torch.equal(batch.latents, ImageEncoder()(image[None]))
        assert batch.latents.shape == (
            1,
            16,
            sample.bucket.height // 8,
            sample.bucket.width // 8,
        )
        for name, encoder in (
            ("prompt_embeds", "text_encoder_2"),
            ("pooled_prompt_embeds", "text_encoder"),
        ):
            expected = PromptEncoder()([sample.captions[encoder]])[name]
            assert torch.equal(batch.conditioning[name], expected)
            assert batch.conditioning[name].dtype == torch.bfloat16
        assert batch.loss_weights.tolist() == [0.25]
        assert batch.files == (str(sample.item.path),)


def test_a_batch_stacks_samples_of_one_bucket_in_order(setup: Setup) -> None:
    setup.settings["aspect_ratio_bucketing"] = False
    setup.fill()
    (first, second) = setup.order().step_batches(0)[0]
    cache = setup.cache
    batch = cache.batch([first, second])
    parts = [cache.batch([first]), cache.batch([second])]
    for field in ("latents", "loss_weights"):
        assert torch.equal(
            getattr(batch, field), torch.cat([getattr(part, field) for part in parts])
        )
    for name in ("prompt_embeds", "pooled_prompt_embeds"):
        alone = [part.conditioning[name] for part in parts]
        assert torch.equal(batch.conditioning[name], torch.cat(alone))
    assert batch.files == (str(first.item.path), str(second.item.path))


def test_an_entry_is_called_and_filled_as_in_every_cache_made_before(
    setup: Setup,
) -> None:
    setup.fill(prompts=["a cat"])
    name = "15/15dd9fa04b00f3273528479c7620a5d2724b04a8.safetensors"
    entry = load_file(setup.folder / "cache" / "prompts" / name)
    expected = PromptEncoder()(["a cat"])
    assert entry.keys() == expected.keys()
    for key, tensor in entry.items():
        assert torch.equal(tensor, expected[key][0])


def test_further_prompts_and_validation_images_are_filled_too(setup: Setup) -> None:
    prompts = ["a sample to show", "number 0, a, b, c"]
    assert setup.fill(prompts=prompts)[1] == [*prompts, *CAPTIONS[1:]]
    found = setup.cache.prompt("a sample to show")
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == {
        "prompt_embeds": (4, 6),
        "pooled_prompt_embeds": (5,),
    }
    held = [replace(item, validation=True) for item in setup.order().items]
    batches = validation_batches(setup.order().config, held)
    images = ImageEncoder()
    texts = PromptEncoder()
    setup.cache.fill(
        [sample for batch in batches for sample in batch],
        load_image_encoder=lambda: images,
        load_prompt_encoder=lambda: texts,
        progress=lambda *_: None,
        should_stop=lambda: False,
    )
    assert not texts.texts
    assert sum(len(setup.cache.batch(batch).files) for batch in batches) == 3


def become_a_folder_and_go(file: Path) -> None:
    file.unlink(missing_ok=True)
    file.mkdir()
    file.rmdir()


def damages(file: Path) -> Iterator[Callable[[], object]]:
    whole = file.read_bytes()
    tensors = load(whole)
    name, tensor = next(iter(tensors.items()))
    yield lambda: file.write_bytes(b"")
    yield lambda: file.write_bytes(whole[: len(whole) // 2])
    yield lambda: file.write_bytes(whole[:-1])
    yield lambda: file.write_bytes(whole + b"x")
    yield lambda: file.write_bytes(b"\xff" * len(whole))
    yield lambda: file.write_bytes(
        whole.replace(b"BF16", b"NONE").replace(b"F32", b"???")
    )
    yield lambda: save_file({**tensors, name: tensor[..., None]}, file)
    yield lambda: save_file(
        {**tensors, name: torch.full_like(tensor, float("nan"))}, file
    )
    yield lambda: save_file(
        {**tensors, name: torch.full_like(tensor, float("inf"))}, file
    )
    yield lambda: save_file({f"{key}_": value for key, value in tensors.items()}, file)
    yield file.unlink
    yield partial(become_a_folder_and_go, file)


@pytest.mark.parametrize("kind", ["latents", "prompts"])
def test_a_damaged_entry_is_found_and_made_anew(setup: Setup, kind: str) -> None:
    setup.fill()
    file = setup.entries(kind)[1]
    whole = file.read_bytes()
    for damage in damages(file):
        damage()
        images, texts = setup.fill()
        assert (images, len(texts)) == ((1, 0) if kind == "latents" else (0, 1))
        assert file.read_bytes() == whole


def test_latents_of_another_size_are_damage(setup: Setup) -> None:
    setup.fill()
    file = setup.entries("latents")[0]
    save_file({"latents": torch.zeros(16, 3, 3)}, file)
    assert setup.fill() == (1, [])


def test_an_entry_lost_while_training_is_one_sentence(setup: Setup) -> None:
    setup.fill()
    samples = setup.order().step_batches(0)[0]
    for kind in ("latents", "prompts"):
        for file in setup.entries(kind):
            file.write_bytes(b"")
        with pytest.raises(FileError, match=r"missing or damaged\. Start again"):
            setup.cache.batch(samples)
        setup.fill()
    assert setup.cache.batch(samples).files


def test_an_interrupted_filling_goes_on_where_it_was(setup: Setup) -> None:
    encoded_in_all: list[tuple[int, list[str]]] = []
    for _ in range(6):
        encoded_in_all.append(setup.fill(should_stop=lambda: True))
    assert encoded_in_all == [
        (1, []),
        (1, []),
        (1, []),
        (0, [CAPTIONS[0]]),
        (0, [CAPTIONS[1]]),
        (0, [CAPTIONS[2]]),
    ]
    assert setup.fill(load_image_encoder=never, load_prompt_encoder=never) == (0, [])


def test_a_crash_keeps_what_was_made(setup: Setup) -> None:
    class Crash(ImageEncoder):
        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            if self.calls == 2:
                raise RuntimeError("out of luck")
            return super().__call__(images)

    with pytest.raises(RuntimeError, match="out of luck"):
        setup.fill(load_image_encoder=Crash)
    assert setup.fill() == (1, CAPTIONS)


def test_progress_counts_what_was_there_already(setup: Setup) -> None:
    seen: list[tuple[int, int]] = []
    setup.fill(progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 6) for done in range(1, 7)]
    seen.clear()
    edit_caption(setup)
    setup.fill(progress=lambda done, total: seen.append((done, total)))
    assert seen == [(6, 6)]


def test_the_image_encoder_is_gone_before_the_prompt_encoder_comes(
    setup: Setup,
) -> None:
    alive: list[weakref.ref[ImageEncoder]] = []

    def load_images() -> ImageEncoder:
        encoder = ImageEncoder()
        alive.append(weakref.ref(encoder))
        return encoder

    def load_prompts() -> PromptEncoder:
        assert alive[0]() is None
        encoder = PromptEncoder()
        alive.append(weakref.ref(encoder))  # type: ignore[arg-type]
        return encoder

    setup.fill(load_image_encoder=load_images, load_prompt_encoder=load_prompts)
    gc.collect()
    assert [reference() for reference in alive] == [None, None]


def test_an_entry_does_not_depend_on_what_else_was_missing(setup: Setup) -> None:
    setup.fill()
    files = [file for kind in ("latents", "prompts") for file in setup.entries(kind)]
    before = {file: file.read_bytes() for file in files}
    for file in files[::2]:
        file.unlink()
    setup.fill()
    assert {file: file.read_bytes() for file in files} == before


def test_what_is_not_finite_is_never_kept_and_names_its_source(setup: Setup) -> None:
    with pytest.raises(FileError, match="latents are not finite") as error:
        setup.fill(load_image_encoder=lambda: ImageEncoder(float("nan")))
    assert error.value.where == str(setup.images / "0.bmp")
    assert setup.entries("latents") == []

    class Overflow(PromptEncoder):
        def __call__(self, texts: list[str]) -> dict[str, torch.Tensor]:
            made = super().__call__(texts)
            return {**made, "prompt_embeds": made["prompt_embeds"] * float("inf")}

    with pytest.raises(FileError, match="'number 0, a, b, c': its prompt_embeds"):
        setup.fill(load_prompt_encoder=Overflow)


def test_an_image_edited_while_the_run_starts_is_never_cached_as_the_old_one(
    setup: Setup,
) -> None:
    samples = setup.order().every_example()
    edit_image(setup)
    with pytest.raises(FileError, match=r"1\.bmp: changed while the run was starting"):
        setup.cache.fill(
            samples,
            load_image_encoder=ImageEncoder,
            load_prompt_encoder=PromptEncoder,
            progress=lambda *_: None,
            should_stop=lambda: False,
        )


def test_a_cache_that_cannot_be_written_is_one_sentence(setup: Setup) -> None:
    (setup.folder / "cache").mkdir()
    (setup.folder / "cache" / "latents").write_text("in the way")
    with pytest.raises(WriteError):
        setup.fill()


def numbers(count: int, made: list[int]) -> Callable[[int], int]:
    def make(number: int) -> int:
        made.append(number)
        if number == count:
            raise ValueError(f"number {number} fails")
        return number * 10

    return make


def test_prefetch_keeps_the_order_and_ends() -> None:
    made: list[int] = []
    assert list(prefetch(numbers(99, made), range(20), ahead=3)) == [
        number * 10 for number in range(20)
    ]
    assert made == list(range(20))
    assert list(prefetch(numbers(99, made), [])) == []
    assert list(prefetch(numbers(99, made), [5])) == [50]


def test_prefetch_works_ahead_but_not_far_and_in_one_other_thread() -> None:
    made = []
    threads = set()
    third = threading.Event()

    def make(number: int) -> int:
        made.append(number)
        threads.add(threading.get_ident())
        if len(made) == 3:
            third.set()
        return number

    results = prefetch(make, range(100), ahead=2)
    assert next(results) == 0
    assert third.wait(10)
    results.close()
    assert made == [0, 1, 2]
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_an_error_while_prefetching_surfaces_at_its_place() -> None:
    results = prefetch(numbers(3, []), range(10), ahead=5)
    assert [next(results), next(results), next(results)] == [0, 10, 20]
    with pytest.raises(ValueError, match="number 3 fails"):
        next(results)
    assert list(results) == []


def test_closing_a_prefetch_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    for close in (True, False):
        results = prefetch(lambda number: number, range(1000))
        next(results)
        if close:
            results.close()
        del results
        for thread in set(threading.enumerate()) - before:
            thread.join(10)
            assert not thread.is_alive()


def test_closing_a_prefetch_waits_for_nothing() -> None:
    """The garbage collector may do it while a thread is being started, with the lock that a wait would need."""
    begun = threading.Event()
    stuck = threading.Event()

    def make(number: int) -> int:
        if number:
            begun.set()
            stuck.wait()
        return number

    results = prefetch(make, range(9))
    assert next(results) == 0
    assert begun.wait(10)
    closing = threading.Thread(target=results.close)
    closing.start()
    closing.join(10)
    waits = closing.is_alive()
    stuck.set()
    closing.join()
    assert not waits


def test_prefetched_batches_are_the_batches_in_order(setup: Setup) -> None:
    setup.fill()
    order = setup.order()
    cache = setup.cache
    steps: list[list[TrainingExample]] = [
        order.step_batches(step)[0] for step in range(order.number_of_steps)
    ]
    for samples, batch in zip(steps, prefetch(cache.batch, steps), strict=True):
        assert batch.files == tuple(str(sample.item.path) for sample in samples)
        assert torch.equal(batch.latents, cache.batch(samples).latents)
