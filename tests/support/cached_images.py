"""A folder of three images, a cache, and encoders that count what they are asked for."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from blockrate.config.train_config import TrainConfig
from blockrate.engine.data.batches import StepOrder
from blockrate.engine.data.cache import Cache
from blockrate.engine.data.concepts import find_items
from blockrate.models.families import DEFAULT_FAMILY, conditioning_of
from support.image_zoo import encoded


class ImageEncoder:
    """16 latent channels of the mean of each 8 x 8 square; counts what it is asked for."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor
        self.calls = 0

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        assert images.shape[0] == 1
        grey = torch.nn.functional.avg_pool2d(images.mean(1, keepdim=True), 8)
        return self.factor * grey * torch.arange(1.0, 17.0).view(1, 16, 1, 1)


class PromptEncoder:
    """4 tokens of 6 values and 5 pooled ones, told by the text; bf16, as a bf16 encoder gives."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, texts: list[str]) -> dict[str, torch.Tensor]:
        assert len(texts) == 1
        self.texts += texts
        generator = torch.Generator().manual_seed(int.from_bytes(texts[0].encode()[:7]))
        return {
            "prompt_embeds": torch.randn(1, 4, 6, generator=generator).bfloat16(),
            "pooled_prompt_embeds": torch.randn(1, 5, generator=generator).bfloat16(),
        }


class Setup:
    """A folder of three images, a cache, and what filling it loaded and encoded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images = folder / "images"
        self.images.mkdir()
        for number, colour in enumerate([(200, 30, 30), (30, 200, 30), (30, 30, 200)]):
            image = Image.linear_gradient("L").resize((96 + 96 * number, 96))
            image = Image.composite(
                Image.new("RGB", image.size, colour),
                Image.new("RGB", image.size),
                image,
            )
            (self.images / f"{number}.bmp").write_bytes(encoded(image, "BMP"))
            (self.images / f"{number}.txt").write_text(f"number {number}, a, b, c")
        self.concept: dict[str, Any] = {"path": str(self.images)}
        self.settings: dict[str, Any] = {
            "resolution": "64",
            "epochs": 2,
            "batch_size": 2,
        }
        self.image_identity = "vae float32"
        self.prompt_identity = "t5 bfloat16 77"

    @property
    def cache(self) -> Cache:
        return Cache(
            self.folder / "cache",
            image_identity=self.image_identity,
            prompt_identity=self.prompt_identity,
            conditioning=conditioning_of(DEFAULT_FAMILY.architecture),
            latent_pixels=8,
        )

    def order(self) -> StepOrder:
        config = TrainConfig(
            concepts=[self.concept],
            cache_dir=str(self.folder / "cache"),
            **self.settings,
        )
        return StepOrder(config, find_items(config, lambda *_: None))

    def fill(self, **options: Any) -> tuple[int, list[str]]:
        """Return how many images were encoded and which texts."""
        images = ImageEncoder()
        prompts = PromptEncoder()
        given: dict[str, Any] = {
            "load_image_encoder": lambda: images,
            "load_prompt_encoder": lambda: prompts,
            "progress": lambda *_: None,
            "should_stop": lambda: False,
            **options,
        }
        self.cache.fill(self.order().every_example(), **given)
        return images.calls, prompts.texts

    def entries(self, kind: str) -> list[Path]:
        return sorted((self.folder / "cache" / kind).glob("*/*.safetensors"))


def never() -> Any:
    raise AssertionError("an encoder was loaded that nothing needs")
