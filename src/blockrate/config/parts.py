"""The nested parts of a config: model parts, optimizer, concepts, samples. OneTrainer's names throughout."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict

# Strict, because pydantic would otherwise read true as 1 and "0.5" as 0.5.
Flag = Annotated[bool, Strict()]
Whole = Annotated[int, Strict()]
Real = Annotated[float, Strict()]
Fraction = Annotated[float, Strict(), Field(ge=0.0, le=1.0)]
Pixels = Annotated[int, Strict(), Field(ge=16, le=8192, multiple_of=16)]
TimeUnit = Literal["NEVER", "EPOCH", "STEP", "SECOND", "MINUTE", "HOUR", "ALWAYS"]
WeightDtype = Literal["FLOAT_32", "BFLOAT_16", "FLOAT_16", "FLOAT_8", "NFLOAT_4"]
OptimizerName = Literal[
    "ADAMW", "ADAMW_8BIT", "ADAFACTOR", "CAME", "LION", "LION_8BIT", "PRODIGY", "SCHEDULE_FREE_ADAMW", "SGD"
]


class Settings(BaseModel):
    """Settings that refuse unknown names and not-a-number, at loading and at every assignment."""

    model_config = ConfigDict(
        extra="forbid",
        validate_assignment=True,
        allow_inf_nan=False,
        coerce_numbers_to_str=True,
        protected_namespaces=(),
    )


class Part(Settings):
    """One component of the model."""

    model_name: str = Field("", description="Load this part from here instead of from the base model: a folder or file")
    weight_dtype: WeightDtype = Field(
        "BFLOAT_16",
        description="How the weights lie in memory. FLOAT_8 halves and NFLOAT_4 quarters what BFLOAT_16 needs; "
        "both are for frozen weights only",
    )


class TransformerPart(Part):
    """The part that trains."""

    train: Flag = Field(True, description="Train the transformer. Off: nothing of it trains, whatever the rates say")
    stop_training_after: Whole | None = Field(
        None, ge=0, description="Freeze the transformer after this many units; empty = never"
    )
    stop_training_after_unit: TimeUnit = Field(
        "NEVER", description="Unit of the setting before; NEVER trains to the end"
    )
    learning_rate: Real | None = Field(
        None, gt=0, description="Base learning rate of the transformer; empty = the general learning rate"
    )
    guidance_scale: Real = Field(
        1.0, ge=0, description="Guidance the model is told during training. 1.0 is what FLUX.1-dev trainers use"
    )
    gradient_checkpointing: Flag = Field(
        True, description="Compute activations twice instead of keeping them: much less memory, about a third slower"
    )


class TextEncoderPart(Part):
    """CLIP or T5: frozen, its outputs are cached."""

    dropout_probability: Fraction = Field(
        0.0, description="Chance that a caption is replaced by an empty one for this encoder (caption dropout)"
    )


class VaePart(Part):
    """Turns images into latents and back: frozen."""

    weight_dtype: WeightDtype = Field("FLOAT_32", description="Precision of the VAE. FLOAT_32 keeps the finest detail")


class OptimizerSettings(Settings):
    """The optimizer and its parameters; an empty one takes the optimizer's default (config/optimizers.py)."""

    optimizer: OptimizerName = Field("ADAMW", description="Which optimizer turns gradients into changes of the weights")
    beta1: Real | None = Field(None, ge=0, lt=1, description="Decay of the running mean of gradients")
    beta2: Real | None = Field(None, ge=0, lt=1, description="Decay of the running mean of squared gradients")
    beta3: Real | None = Field(
        None, ge=0, lt=1, description="CAME: decay of the confidence; Prodigy: decay of its estimate"
    )
    eps: Real | None = Field(None, ge=0, description="Small number that keeps divisions away from zero")
    eps2: Real | None = Field(
        None, ge=0, description="Adafactor: floor of the weight scale; CAME: floor of the confidence"
    )
    weight_decay: Real | None = Field(
        None, ge=0, description="Pull of the weights towards zero, times the learning rate"
    )
    fused: Flag | None = Field(
        None, description="One kernel for all weights; empty = wherever it works (3-6 times faster)"
    )
    stochastic_rounding: Flag | None = Field(
        None, description="Round bf16 weights by chance, so that small changes are not lost. No effect on fp32 weights"
    )
    clip_threshold: Real | None = Field(None, gt=0, description="Largest root mean square of an update")
    decay_rate: Real | None = Field(
        None, le=0, description="Adafactor: how the decay of squared gradients grows by step"
    )
    relative_step: Flag | None = Field(
        None, description="Adafactor finds its own rate. Every learning rate, of blocks too, is then ignored"
    )
    scale_parameter: Flag | None = Field(None, description="Adafactor: multiply the rate by the size of the weights")
    warmup_init: Flag | None = Field(None, description="Adafactor with relative_step: begin with tiny steps")
    min_8bit_size: Whole | None = Field(None, ge=0, description="Tensors with fewer elements keep 32-bit state")
    is_paged: Flag | None = Field(
        None, description="Let optimizer state move to the computer's memory when the GPU is full"
    )
    momentum: Real | None = Field(None, ge=0, lt=1, description="SGD: how much of the last step is kept")
    dampening: Real | None = Field(
        None, ge=0, le=1, description="SGD: how much of the new gradient the momentum leaves out"
    )
    nesterov: Flag | None = Field(None, description="SGD: Nesterov's momentum")
    decouple: Flag | None = Field(None, description="Prodigy: weight decay as in AdamW, not inside the gradient")
    use_bias_correction: Flag | None = Field(None, description="Prodigy: Adam's bias correction")
    safeguard_warmup: Flag | None = Field(
        None, description="Prodigy: ignore the learning rate's warm-up in its estimate"
    )
    d0: Real | None = Field(None, gt=0, description="Prodigy: first guess of the step size")
    d_coef: Real | None = Field(None, gt=0, description="Prodigy: factor of the step size it finds; 0.5 to 2")
    growth_rate: Real | None = Field(
        None, ge=1, description="Prodigy: most that its step size may grow in a step; empty = any"
    )
    slice_p: Whole | None = Field(
        None, ge=1, description="Prodigy: use every n-th value for its estimate, to save memory"
    )
    r: Real | None = Field(None, ge=0, description="Schedule-free: power of the step number in the averaging weights")
    weight_lr_power: Real | None = Field(
        None, ge=0, description="Schedule-free: power of the rate in the averaging weights"
    )


class ConceptImage(Settings):
    """What is done to a concept's images."""

    enable_crop_jitter: Flag = Field(True, description="Cut images at random places instead of the middle")
    enable_random_flip: Flag = Field(False, description="Mirror images left to right by chance")
    enable_fixed_flip: Flag = Field(False, description="Mirror every image left to right")
    enable_resolution_override: Flag = Field(False, description="Use this concept's own resolution")
    resolution_override: str = Field("512", description="The concept's own resolution, written like the general one")


class ConceptText(Settings):
    """Where a concept's captions come from and what is done to them."""

    prompt_source: Literal["sample", "concept", "filename"] = Field(
        "sample", description="sample = a .txt beside each image, concept = one text file, filename = the image's name"
    )
    prompt_path: str = Field("", description="The text file for the source 'concept'; each line is one caption")
    enable_tag_shuffling: Flag = Field(False, description="Put the tags of a caption in a new order every time")
    tag_delimiter: str = Field(",", min_length=1, description="What stands between tags")
    keep_tags_count: Whole = Field(1, ge=0, description="How many tags at the beginning keep their place")


class Concept(Settings):
    """A folder of images to learn from."""

    name: str = Field("", description="Your name for the concept")
    path: str = Field("", description="Folder of the images")
    seed: Whole = Field(0, description="Changes the random choices made for this concept")
    enabled: Flag = Field(True, description="Use this concept")
    type: Literal["STANDARD", "VALIDATION"] = Field(
        "STANDARD", description="VALIDATION images are never trained on; the loss on them is measured"
    )
    include_subdirectories: Flag = Field(False, description="Use images in sub-folders too")
    image_variations: Whole = Field(1, ge=1, le=1000, description="How many crops and flips of each image are cached")
    text_variations: Whole = Field(1, ge=1, le=1000, description="How many variants of each caption are cached")
    balancing: Real = Field(1.0, ge=0, description="Repeats of each image an epoch, or the number of samples")
    balancing_strategy: Literal["REPEATS", "SAMPLES"] = Field(
        "REPEATS", description="REPEATS: balancing is a factor. SAMPLES: balancing is a number of images an epoch"
    )
    loss_weight: Real = Field(1.0, ge=0, description="Factor of the loss of these images")
    image: ConceptImage = Field(default_factory=ConceptImage, description="What is done to the images")
    text: ConceptText = Field(default_factory=ConceptText, description="Where captions come from")


class Sample(Settings):
    """A prompt that is turned into an image while training."""

    enabled: Flag = Field(True, description="Make this sample")
    prompt: str = Field("", description="What the image shows")
    negative_prompt: str = Field("", description="Kept for other programs: FLUX.1 takes no negative prompt")
    width: Pixels = Field(1024, description="Width in pixels")
    height: Pixels = Field(1024, description="Height in pixels")
    seed: Whole = Field(42, ge=0, description="Seed of the first noise; the same seed makes samples comparable")
    diffusion_steps: Whole = Field(30, ge=1, le=1000, description="Sampling steps; FLUX.1-schnell needs 4")
    cfg_scale: Real = Field(3.5, ge=0, description="Guidance of the sample; FLUX.1-schnell ignores it")


def _empty_for_null(value: object) -> object:
    return [] if value is None else value


# OneTrainer writes null where the list lies in a file of its own.
Concepts = Annotated[list[Concept], BeforeValidator(_empty_for_null)]
Samples = Annotated[list[Sample], BeforeValidator(_empty_for_null)]
