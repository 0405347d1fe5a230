"""Whole runs that learn from references and masks: Kontext, klein with two references, Fill."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file
from support.lives import Small, events, make_small, saved_bytes
from support.probes import probed

from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import BlockLayout
from blockrate.core.errors import BlockrateError
from blockrate.core.timesteps import dynamic_shift
from blockrate.engine.flow_matching import draw
from blockrate.engine.models import FAMILY_MODULES
from blockrate.engine.models.locate import locate
from blockrate.models.families import FAMILIES
from blockrate.run.checkpoints import checkpoint_name
from blockrate.run.folder import RunFolder

pytestmark = pytest.mark.engine
LAYOUT = BlockLayout(2, 2)
FLUX1 = replace(FAMILIES["tiny-flux1"].spec, layout=LAYOUT, heads=2)
SPECS = {
    "kontext": FLUX1,
    "fill": replace(FLUX1, in_channels=384, extra_channels=320),
    "klein": replace(FAMILIES["tiny-flux2"].spec, layout=LAYOUT),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"model_variant": "DEV"},  # FLUX.1-dev, which takes neither
    "kontext": {},
    "fill": {"model_type": "FLUX_FILL_DEV_1"},
    "klein": {"model_type": "FLUX_2", "model_variant": "BASE"},
}
RATES = {"double_block_1": 0.3, "single_block_0": 0.0}
KINDS = tuple(SPECS)


@dataclass(frozen=True)
class Edits:
    """A model that takes references or masks, with images and what belongs to them."""

    kind: str
    small: Small

    @property
    def folder(self) -> Path:
        return self.small.folder

    def concept(self, **changes: Any) -> dict[str, Any]:
        concept: dict[str, Any] = {"path": str(self.folder / "photos")}
        if self.kind == "kontext":
            concept["references"] = [str(self.folder / "before")]
        elif self.kind == "klein":
            before = [str(self.folder / name) for name in ("before", "objects")]
            concept["references"] = before
        elif self.kind == "fill":
            concept["masks"] = str(self.folder / "masks")
        return {**concept, **changes}

    def sample(self) -> dict[str, Any]:
        sample: dict[str, Any] = {
            "prompt": "a cat",
            "width": 64,
            "height": 64,
            "diffusion_steps": 2,
        }
        if self.kind == "fill":
            sample["cfg_scale"] = 30.0
            sample["base_image_path"] = str(self.folder / "photos" / "0.png")
            sample["mask_image_path"] = str(self.folder / "masks" / "0.png")
        else:
            sample["references"] = [str(self.folder / "before" / "0.jpg")]
        return sample

    def config(self, run: Path, **settings: Any) -> TrainConfig:
        values: dict[str, Any] = {
            **SETTINGS[self.kind],
            "layer_filter": "",
            "layer_filter_preset": "blocks",
            "block_learning_rate_multiplier": RATES,
            "epochs": 2,
            "concepts": [self.concept()],
        }
        return self.small.config(run, **{**values, **settings})


def make_edits(kind: str, folder: Path) -> Edits:
    small = make_small(folder, SPECS[kind])
    if kind == "kontext":
        index = folder / "model" / "model_index.json"
        facts = json.loads(index.read_text())
        index.write_text(json.dumps({**facts, "_class_name": "FluxKontextPipeline"}))
    for name in ("before", "objects", "masks"):
        (folder / name).mkdir()
    for number in range(5):
        with Image.open(folder / "photos" / f"{number}.png") as image:
            ImageOps.invert(image).save(folder / "before" / f"{number}.jpg", quality=95)
            # half as large: the same shape, enlarged
            mask = Image.new("L", (image.width // 2, image.height // 2))
        mask.paste(255, (4, 4, 20, 24))
        mask.save(folder / "masks" / f"{number}.png")
        # of another shape
        Image.new("RGB", (96, 32), (40 * number, 90, 10)).save(
            folder / "objects" / f"{number}.png"
        )
    return Edits(kind, small)


@pytest.fixture(scope="module", params=KINDS)
def edits(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Edits:
    return make_edits(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def kontext(tmp_path_factory: Any) -> Edits:
    return make_edits("kontext", tmp_path_factory.mktemp("one"))


def test_a_lora_trains_by_block_draws_and_validates(
    edits: Edits, tmp_path: Path
) -> None:
    config = edits.config(
        tmp_path / "run",
        samples=[edits.sample()],
        sample_after=2,
        sample_after_unit="STEP",
        validation=True,
        concepts=[edits.concept(), edits.concept(type="VALIDATION")],
    )
    run = edits.small.live(config)
    groups = events(run, "started")[-1]["groups"]
    assert {group["name"]: group["learning_rate"] for group in groups} == pytest.approx(
        {"double_block_0": 1e-3, "double_block_1": 3e-4, "single_block_1": 1e-3}
    )
    assert events(run, "validated")
    [file, *_] = events(run, "sampled")[-1]["files"]
    with Image.open(run.path / file) as image:
        assert image.size == (64, 64)
    assert Path(config.output_model_destination).is_file()


def test_the_first_loss_is_that_of_a_few_lines_on_diffusers(
    edits: Edits, tmp_path: Path
) -> None:
    is_first_loss_of_diffusers(edits, tmp_path)


def test_the_first_loss_of_flux1_dev_is_that_of_a_few_lines_on_diffusers(
    kontext: Edits, tmp_path: Path
) -> None:
    is_first_loss_of_diffusers(replace(kontext, kind="plain"), tmp_path)


def is_first_loss_of_diffusers(edits: Edits, tmp_path: Path) -> None:
    one = tmp_path / "photos"
    one.mkdir()
    for ending in ("png", "txt"):
        shutil.copy(edits.folder / "photos" / f"0.{ending}", one)
    changes = {"path": str(one), "image": {"enable_crop_jitter": False}}
    config = edits.config(
        tmp_path / "run",
        concepts=[edits.concept(**changes)],
        text_encoder={"dropout_probability": 0.0},
        text_encoder_2={"dropout_probability": 0.0},
        batch_size=1,
        gradient_accumulation_steps=1,
        epochs=1,
    )
    run = edits.small.live(config)
    loss = events(run, "step")[0]["loss"]
    expected = reference_loss(edits, config, one / "0.png")
    assert loss == pytest.approx(expected, rel=3e-6)


@torch.no_grad()
def reference_loss(edits: Edits, config: TrainConfig, photo: Path) -> float:
    """The loss of the first step, with what belongs to the image put together here by pipelines' own functions."""
    import diffusers

    model = edits.folder / "model"
    name = json.loads((model / "transformer/config.json").read_text())["_class_name"]
    transformer = getattr(diffusers, name).from_pretrained(model / "transformer")
    files = locate(config)
    family = FAMILY_MODULES[files.spec.architecture]
    cpu = torch.device("cpu")
    vae = family.load_vae(model / "vae", weight_dtype="FLOAT_32", device=cpu)
    encoders = family.load_text_encoders(files, config, cpu)
    texts = family.encode_prompts(encoders, ["a photo of 0 cats"])
    latents = family.encode_images(vae, pixels(photo))
    noise, uniform = draw(config.seed, 0, 0, latents.shape)
    shift = dynamic_shift(16)
    middle = torch.special.ndtri(uniform.double()).sigmoid()
    time = (shift * middle / (1 + (shift - 1) * middle)).float()
    noisy = (1 - time) * latents + time * noise
    if edits.kind == "klein":
        answer = klein_answer(edits, transformer, vae, noisy, time, texts)
        target = (noise - latents).flatten(2).transpose(1, 2)
    else:
        answer = flux1_answer(edits, transformer, vae, noisy, time, texts, photo)
        target = diffusers.FluxPipeline._pack_latents(noise - latents, 1, 16, 8, 8)
    return float((answer - target).square().mean())


def klein_answer(
    edits: Edits, transformer: Any, vae: Any, noisy: Any, time: Any, texts: Any
) -> torch.Tensor:
    from diffusers import Flux2KleinPipeline as Pipeline

    encode = FAMILY_MODULES["FLUX.2"].encode_images
    # 96 x 32 in at most 64 x 64 pixels, in whole tokens
    references = [
        encode(vae, pixels(edits.folder / "before" / "0.jpg")),
        encode(vae, pixels(edits.folder / "objects" / "0.png")),
    ]
    ids = torch.cat(
        (Pipeline._prepare_latent_ids(noisy), Pipeline._prepare_image_ids(references)),
        dim=1,
    )
    tokens = [Pipeline._pack_latents(image) for image in (noisy, *references)]
    text_ids = Pipeline._prepare_text_ids(texts["prompt_embeds"])
    every = torch.cat(tokens, dim=1)
    answer: torch.Tensor = transformer(
        every, texts["prompt_embeds"], time, ids, text_ids
    ).sample
    return answer[:, :16]


def flux1_answer(
    edits: Edits,
    transformer: Any,
    vae: Any,
    noisy: Any,
    time: Any,
    texts: Any,
    photo: Path,
) -> torch.Tensor:
    from diffusers import FluxPipeline as Pipeline

    encode = FAMILY_MODULES["FLUX.1"].encode_images
    tokens = Pipeline._pack_latents(noisy, 1, 16, 8, 8)
    ids = Pipeline._prepare_latent_image_ids(
        1, 4, 4, torch.device("cpu"), torch.float32
    )
    if edits.kind == "kontext":
        before = encode(vae, pixels(edits.folder / "before" / "0.jpg"))
        behind = Pipeline._pack_latents(before, 1, 16, 8, 8)
        tokens = torch.cat((tokens, behind), dim=1)
        ids = torch.cat((ids, ids + torch.tensor([1.0, 0.0, 0.0])))
    elif edits.kind == "fill":
        with Image.open(edits.folder / "masks" / "0.png") as image:
            large = image.resize((64, 64), Image.Resampling.LANCZOS)
        grey = torch.frombuffer(bytearray(large.tobytes()), dtype=torch.uint8)
        white = (grey.view(1, 1, 64, 64) >= 128).float()
        rest = encode(vae, pixels(photo) * (1 - white))
        folded = white.view(1, 8, 8, 8, 8).permute(0, 2, 4, 1, 3).reshape(1, 64, 8, 8)
        more = [
            Pipeline._pack_latents(rest, 1, 16, 8, 8),
            Pipeline._pack_latents(folded, 1, 64, 8, 8),
        ]
        tokens = torch.cat((tokens, *more), dim=2)
    answer: torch.Tensor = transformer(
        hidden_states=tokens,
        encoder_hidden_states=texts["prompt_embeds"],
        pooled_projections=texts["pooled_prompt_embeds"],
        timestep=time,
        img_ids=ids,
        txt_ids=torch.zeros(texts["prompt_embeds"].shape[1], 3),
        guidance=torch.ones(1),
    ).sample
    return answer[:, :16]


def pixels(file: Path) -> torch.Tensor:
    with Image.open(file) as image:
        rgb = image.convert("RGB")
    values = torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8)
    return values.view(1, rgb.height, rgb.width, 3).permute(0, 3, 1, 2) / 127.5 - 1


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(
    edits: Edits, tmp_path: Path
) -> None:
    whole = edits.small.live(edits.config(tmp_path / "whole"))
    stop, last = 1, 3
    expected = saved_bytes(whole.checkpoints / checkpoint_name(last))
    run = RunFolder(tmp_path / "parts")
    shutil.copytree(
        whole.checkpoints / checkpoint_name(stop),
        run.checkpoints / checkpoint_name(stop),
    )
    edits.small.live(edits.config(run.path))
    assert saved_bytes(run.checkpoints / checkpoint_name(last)) == expected


def test_checkpointing_changes_no_gradient(edits: Edits, tmp_path: Path) -> None:
    files = []
    for on in (False, True):
        run = tmp_path / f"run-{on}"
        part = {"weight_dtype": "FLOAT_32", "gradient_checkpointing": on}
        config = edits.config(run, transformer=part)
        edits.small.live(config)
        files.append(load_file(config.output_model_destination))
    one, other = files
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_other_partners_are_other_data(kontext: Edits, tmp_path: Path) -> None:
    run = tmp_path / "run"
    kontext.small.live(kontext.config(run))
    moved = tmp_path / "moved"
    shutil.copytree(kontext.folder / "before", moved)
    longer = {"epochs": 3}
    same = kontext.concept(references=[str(moved)])
    kontext.small.live(kontext.config(run, concepts=[same], **longer))
    Image.new("RGB", (64, 64), "red").save(moved / "0.jpg")
    with pytest.raises(BlockrateError, match=r"data set|images or captions"):
        kontext.small.live(kontext.config(run, concepts=[same], epochs=4))


def test_an_image_that_is_used_twice_is_encoded_once(
    kontext: Edits, tmp_path: Path
) -> None:
    twins = tmp_path / "twins"
    shutil.copytree(kontext.folder / "photos", twins)
    for folder in ("one", "two"):
        cache = tmp_path / folder
        references = str(twins if folder == "two" else kontext.folder / "before")
        concept = kontext.concept(references=[references])
        config = kontext.config(
            tmp_path / "run",
            concepts=[concept],
            only_cache=True,
            cache_dir=str(cache),
        )
        kontext.small.live(config)
        shutil.rmtree(tmp_path / "run")
    counts = [
        len(list((tmp_path / folder / "latents").rglob("*.safetensors")))
        for folder in ("one", "two")
    ]
    assert counts == [10, 5]


def test_the_reference_moves_what_is_learned(kontext: Edits, tmp_path: Path) -> None:
    plain = kontext.config(
        tmp_path / "plain", concepts=[kontext.concept(references=[])]
    )
    kontext.small.live(plain)
    edited = kontext.config(tmp_path / "edited")
    kontext.small.live(edited)
    one, other = (
        load_file(config.output_model_destination) for config in (plain, edited)
    )
    assert one.keys() == other.keys()
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_probe_measures_by_references_and_masks(edits: Edits, tmp_path: Path) -> None:
    found = probed(edits.config(tmp_path / "run"))
    assert len(found.blocks) == 4
    assert all(block.gradient_norm > 0 for block in found.blocks.values())
