"""What every family of models shares: what a family has to give, and how weights come onto the device."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from blockrate.config.parts import Sample
from blockrate.config.streamed import streaming_of, trained_modules
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError, is_full_memory
from blockrate.engine.compiling import compile_blocks
from blockrate.engine.memory import dtype_of, release
from blockrate.engine.models.few_bits import to_eight_bits
from blockrate.engine.models.file_weights import FileWeights, Filling
from blockrate.engine.models.finite import FiniteWeights
from blockrate.engine.models.from_folder import load_of_diffusers
from blockrate.engine.models.gguf_weights import refuse_without_gguf
from blockrate.engine.streaming import BlockStream
from blockrate.models.families import TransformerSpec, config_from_spec
from blockrate.models.part_files import checked_config
from blockrate.models.savings import FEW_BITS

# What a transformer is conditioned on by its prompt and by images: tensors by name, with or
# without a dimension for the batch.
Conditioning = Mapping[str, Tensor]
# Names in it beside those of the prompt's: latents of a masked image (B, C, h, w), and its
# mask (B, pixels of a latent, h, w), 1 where the image is drawn anew.
MASKED_IMAGE = "masked_image"
MASK = "mask"
_REFERENCE = "reference_"
_WORDS = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


def reference_name(index: int) -> str:
    """Return what the latents of a reference image are called in a conditioning; the first has index 0."""
    return f"{_REFERENCE}{index:02}"


def references_of(conditioning: Conditioning) -> list[Tensor]:
    """Return the latents of reference images in a conditioning, each (B, C, h, w), in their order."""
    names = [name for name in conditioning if name.startswith(_REFERENCE)]
    return [conditioning[name] for name in sorted(names)]


def batch_of_one(conditioning: Conditioning, weight: Tensor) -> Conditioning:
    """Return a conditioning without a batch as one of one image, where and in the form that a weight is."""
    return {name: tensor[None].to(weight) for name, tensor in conditioning.items()}


class FamilyModule(Protocol):
    """The functions that the module of each family has. It goes where its ModelFiles go."""

    def load_transformer(
        self, files: "ModelFiles", config: TrainConfig, device: torch.device
    ) -> Any:
        """Return the transformer on the device, frozen, in the forms of its config."""

    def load_vae(self, folder: Path, *, weight_dtype: str, device: torch.device) -> Any:
        """Return the VAE on the device, frozen."""

    def load_text_encoders(
        self, files: "ModelFiles", config: TrainConfig, device: torch.device
    ) -> Any:
        """Return what ``encode_prompts`` and ``prompt_lengths`` need, on the device, frozen."""

    def prompt_lengths(self, encoders: Any, prompts: Sequence[str]) -> list[int]:
        """Return how many tokens each prompt has before any is cut."""

    def encode_prompts(
        self, encoders: Any, prompts: Sequence[str]
    ) -> dict[str, Tensor]:
        """Return the conditioning of prompts, under the names that the family's facts list."""

    def encode_images(self, vae: Any, images: Tensor) -> Tensor:
        """Return latents (B, C, h, w), float32, of images (B, 3, H, W) in -1..1."""

    def decode_latents(self, vae: Any, latents: Tensor) -> Tensor:
        """Return images, float32, in -1..1, of latents; NaN where there is no number."""

    def image_tokens(self, latents: Tensor) -> int:
        """Return how many tokens the transformer makes of each of these latents."""

    def predict(
        self,
        transformer: Any,
        noisy_latents: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        *,
        guidance: float,
    ) -> Tensor:
        """Return the velocity that the transformer sees, of the shape of ``noisy_latents``.

        What the transformer of ``conditioning`` does not take must not be in there.
        """

    def denoise(
        self,
        transformer: Any,
        sample: Sample,
        conditioning: Conditioning,
        *,
        negative: Conditioning | None = None,
        files: "ModelFiles",
        should_stop: Callable[[], bool],
    ) -> Tensor:
        """Return the latents (1, C, h, w) of a drawn sample, float32, on the CPU.

        ``negative``: what the sample moves away from.
        """

    def make_tiny(self, folder: Path, *, spec: TransformerSpec) -> Path:
        """Write a whole model of toy width with random weights, and return its folder."""


@dataclass(frozen=True)
class ModelFiles:
    """A model on this computer: its family, its sizes, and where each of its parts lies.

    ``parts``: folders by diffusers' names; the transformer may be a single .safetensors file. ``negative_prompt``: the
    caption that samples move away from, where the model has no guidance of its own and is not distilled. ``variant``:
    which of the models with the same sizes it is, if there are several.
    """

    family: FamilyModule
    spec: TransformerSpec
    parts: Mapping[str, Path]
    negative_prompt: str | None = None
    variant: str = ""


def load_transformer(
    model_class: Any, files: ModelFiles, config: TrainConfig, device: torch.device
) -> Any:
    """Return a transformer of diffusers' ``model_class`` on the device, frozen.

    FLOAT_8, INT_8 and NFLOAT_4 are the forms of the blocks' Linears between uses; the rest stays in ``train_dtype``.
    """
    part = config.transformer
    source = files.parts["transformer"]
    dtype = compute_dtype("transformer", part.weight_dtype, config.train_dtype, device)
    release()
    transformer, fill = _made(model_class, files, part.weight_dtype, dtype)
    transformer.requires_grad_(False)
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    stream = BlockStream(device)
    names = streaming_of(config, files.spec, trained_modules(config, files.spec)).blocks
    by_name = zip(files.spec.layout.names, blocks, strict=True)
    streamed = {name: block for name, block in by_name if name in names}
    place(
        transformer,
        blocks,
        part.weight_dtype,
        dtype,
        device,
        where=source,
        trains=True,
        fill=fill,
        stream=stream if streamed else None,
        streamed=streamed,
    )
    transformer.block_stream = stream if streamed else None
    # PEFT asks which kind of adapter fits
    transformer.is_loaded_in_4bit = part.weight_dtype == "NFLOAT_4"
    if part.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    if config.compile:
        compile_blocks(transformer)
    return transformer


def load_vae(
    model_class: Any, architecture: str, folder: Path, form: str, device: torch.device
) -> Any:
    """Return a VAE of diffusers' ``model_class`` on the device, frozen; ``form``: of its weights."""
    release()
    vae = load_of_diffusers(model_class, "vae", folder, architecture, dtype_of(form))
    place(vae, [], form, dtype_of(form), device, where=folder)
    return vae


def decode_in_tiles_if_needed(vae: Any, latents: Tensor) -> Tensor:
    """Return what the VAE makes of latents; by overlapping tiles of 512 pixels when memory runs out."""
    try:
        images: Tensor = vae.decode(latents).sample
    except RuntimeError as error:
        if not is_full_memory(error):
            raise
        release()
        vae.tile_sample_min_size = 512
        vae.tile_latent_min_size = 64
        vae.enable_tiling()
        images = vae.decode(latents).sample
    return images


def compute_dtype(
    part: str, form: str, train_dtype: str, device: torch.device
) -> torch.dtype:
    """Return the dtype a part computes in: of its weights, or ``train_dtype`` where they are kept in fewer bits.

    Raises ConfigError for a form that this computer cannot have.
    """
    field = f"{part}.weight_dtype"
    if form == "FLOAT_8" and device.type == "mps":
        raise ConfigError(
            field,
            "Apple's GPU does not support FLOAT_8",
            "Use INT_8, as small and more exact, or BFLOAT_16.",
        )
    if form == "GGUF":
        refuse_without_gguf()
    if form == "NFLOAT_4":
        try:
            import bitsandbytes  # noqa: F401
        except ImportError:
            cure = "Run `pip install bitsandbytes`, or use FLOAT_8."
            raise ConfigError(
                field, "NFLOAT_4 needs bitsandbytes, which is not installed", cure
            ) from None
    return dtype_of(train_dtype if form in FEW_BITS else form)


def place(
    model: Any,
    blocks: Iterable[nn.Module],
    form: str,
    dtype: torch.dtype,
    device: torch.device,
    *,
    where: Path,
    keep: str = "(?!)",
    trains: bool = False,
    fill: Callable[[nn.Module], None] = lambda part: None,
    stream: BlockStream | None = None,
    streamed: Mapping[str, nn.Module] = MappingProxyType({}),
) -> None:
    """Move a model to the device in the wished form, block by block: no memory ever holds two whole copies.

    Each weight is looked at on the way, while it is at hand: FileError names ``where`` it comes from and which are
    not finite numbers.

    FLOAT_8 is diffusers' layerwise casting, or, where gradients go through (``trains``), a Linear that keeps 8 bits for
    the backward too; to the same bits, and of modulations as well, a quarter of FLUX.1's weights: with them in bf16 it
    fits no 16 GB card. INT_8 is such a Linear in both cases. ``keep``: pattern of modules that stay in ``dtype``, of
    what does not train. ``fill``: reads the weights of a part that has none yet.
    """
    weights = FiniteWeights(model)
    for block in blocks:
        fill(block)
        weights.look_at(block)
        if form == "NFLOAT_4":
            _to_four_bits(block, dtype, keep)
        if form == "INT_8" or (form == "FLOAT_8" and trains):
            to_eight_bits(block, dtype, form, keep)
        block.to(device)
        if form == "FLOAT_8" and not trains:
            from diffusers.hooks import apply_layerwise_casting

            apply_layerwise_casting(
                block, torch.float8_e4m3fn, dtype, skip_modules_pattern=(keep,)
            )
        for name, one in streamed.items():
            if stream and one is block:
                stream.take(block, name)
    fill(model)
    weights.look_at(model)
    weights.refuse(where)
    model.to(device)
    if stream:
        stream.start()


def _to_four_bits(block: nn.Module, dtype: torch.dtype, keep: str) -> None:
    """Replace every Linear by bitsandbytes' own, whose weights become NF4 on the next move to a device.

    By hand, because diffusers and transformers refuse or differ without a GPU, and for single files.
    """
    import bitsandbytes as bnb

    for name, linear in list(block.named_modules()):
        if isinstance(linear, nn.Linear) and not re.search(keep, name):
            with torch.device("meta"):
                small = bnb.nn.Linear4bit(
                    linear.in_features,
                    linear.out_features,
                    False,
                    dtype,
                    quant_type="nf4",
                )
            small.weight = bnb.nn.Params4bit(
                linear.weight.data, requires_grad=False, quant_type="nf4"
            )
            small.bias = linear.bias
            # in evaluation it repacks weights for this processor, which cannot train afterwards
            small.support_avx512bf16_for_cpu = False
            block.set_submodule(name, small)


def weights_in(files: ModelFiles, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights of a transformer by diffusers' names, written out, from folder or single file."""
    weights = FileWeights.of(files.parts["transformer"], files.spec)
    for name in weights.names():
        yield name, weights.plain(name, dtype)


def _made(
    model_class: Any, files: ModelFiles, form: str, dtype: torch.dtype
) -> tuple[Any, Callable[[nn.Module], None]]:
    """Return a transformer on the CPU, and what reads the weights of a part of it that has none yet.

    A folder in the wished precision lies where its files are mapped; all else is read a weight at a time.
    """
    source = files.parts["transformer"]
    weights = FileWeights.of(source, files.spec)
    if source.is_dir() and weights.dtypes == {_WORDS[dtype]}:
        transformer = load_of_diffusers(
            model_class, "transformer", source, files.spec.architecture, dtype
        )
        return transformer, lambda part: None
    from accelerate import init_empty_weights

    # what is no weight is computed, as tables of positions are
    with init_empty_weights(include_buffers=False):
        if source.is_dir():
            stated = checked_config("transformer", source)
            transformer = model_class.from_config(stated)
        else:
            transformer = model_class(**config_from_spec(files.spec))
    filling = Filling(transformer.eval(), weights, dtype, packed=form == "GGUF")
    return transformer, filling.fill
