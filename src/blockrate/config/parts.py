"""The nested parts of a config: model parts, optimizer, concepts, samples. OneTrainer's names throughout."""

from os.path import expanduser
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict

# Strict, because pydantic would otherwise read true as 1 and "0.5" as 0.5.
Flag = Annotated[bool, Strict()]
Whole = Annotated[int, Strict()]
Real = Annotated[float, Strict()]
Fraction = Annotated[float, Strict(), Field(ge=0.0, le=1.0)]
# no shell reads a config, so ~ would be a folder of that name
Place = Annotated[str, AfterValidator(expanduser)]
Pixels = Annotated[int, Strict(), Field(ge=16, le=8192, multiple_of=16)]
TimeUnit = Literal["NEVER", "EPOCH", "STEP", "SECOND", "MINUTE", "HOUR", "ALWAYS"]
Precision = Literal["FLOAT_32", "BFLOAT_16", "FLOAT_16"]
WeightDtype = Literal["FLOAT_32", "BFLOAT_16", "FLOAT_16", "FLOAT_8", "NFLOAT_4"]
OptimizerName = Literal[
    "ADAMW",
    "ADAMW_8BIT",
    "ADAFACTOR",
    "CAME",
    "LION",
    "LION_8BIT",
    "PRODIGY",
    "SCHEDULE_FREE_ADAMW",
    "SGD",
]


class Settings(BaseModel):
    """Settings that refuse unknown names and not-a-number, at loading and at every assignment."""

    model_config = ConfigDict(
        extra="forbid",
        validate_assignment=True,
        allow_inf_nan=False,
        coerce_numbers_to_str=True,
    )


def setting(default: Any, description: str, **limits: Any) -> Any:
    """Return a field whose description is tooltip, docs and help at once; a class as default is made anew each time."""
    if isinstance(default, type):
        return Field(default_factory=default, description=description, **limits)
    return Field(default=default, description=description, **limits)


class Part(Settings):
    """One component of the model."""

    model_name: Place = setting(
        "", "Load this part from here instead of from the base model: a folder or file"
    )


class TransformerPart(Part):
    """The part that trains."""

    weight_dtype: WeightDtype = setting(
        "BFLOAT_16", "Form of the weights in memory; the last two only if frozen"
    )
    train: Flag = setting(
        True, "Train the transformer. Off: nothing of it trains, whatever the rates say"
    )
    stop_training_after: Whole | None = setting(
        None, "Freeze it after this many units; empty = never", ge=0
    )
    stop_training_after_unit: TimeUnit = setting(
        "NEVER", "Unit of the setting before; NEVER trains to the end"
    )
    learning_rate: Real | None = setting(
        None, "Base learning rate of the transformer; empty = the general one", gt=0
    )
    guidance_scale: Real = setting(
        1.0, "Guidance told to FLUX.1-dev in training; nearly everybody uses 1.0", ge=0
    )
    gradient_checkpointing: Flag = setting(
        True, "Much less memory, about a third slower"
    )


class TextEncoderPart(Part):
    """CLIP or T5: frozen, its outputs are cached."""

    weight_dtype: WeightDtype = setting("BFLOAT_16", "Form of the weights in memory")
    dropout_probability: Fraction = setting(
        0.0, "Chance of an empty caption for this encoder"
    )


class VaePart(Part):
    """Turns images into latents and back: frozen."""

    weight_dtype: Precision = setting(
        "FLOAT_32", "Precision of the VAE. FLOAT_32 keeps the finest detail"
    )


class OptimizerSettings(Settings):
    """The optimizer and its parameters; an empty one takes the optimizer's default (config/optimizers.py)."""

    optimizer: OptimizerName = setting(
        "ADAMW", "Which optimizer turns gradients into changes of the weights"
    )
    beta1: Real | None = setting(
        None, "Decay of the running mean of gradients", ge=0, lt=1
    )
    beta2: Real | None = setting(
        None, "Decay of the running mean of squared gradients", ge=0, lt=1
    )
    beta3: Real | None = setting(
        None,
        "CAME: decay of the confidence; Prodigy: decay of its estimate",
        ge=0,
        lt=1,
    )
    eps: Real | None = setting(
        None, "Small number that keeps divisions away from zero", ge=0
    )
    eps2: Real | None = setting(
        None,
        "Adafactor: floor of the weight scale; CAME: floor of the confidence",
        ge=0,
    )
    weight_decay: Real | None = setting(
        None, "Pull of the weights towards zero, times the learning rate", ge=0
    )
    fused: Flag | None = setting(
        None, "One kernel for all weights; empty = wherever it works (3-6 times faster)"
    )
    stochastic_rounding: Flag | None = setting(
        None, "Round trained bf16 weights by chance: keeps small changes"
    )
    clip_threshold: Real | None = setting(
        None, "Largest root mean square of an update", gt=0
    )
    decay_rate: Real | None = setting(
        None, "Adafactor: how the decay of squared gradients grows by step", le=0
    )
    relative_step: Flag | None = setting(
        None, "Adafactor finds its own rate and ignores all others"
    )
    scale_parameter: Flag | None = setting(
        None, "Adafactor: multiply the rate by the size of the weights"
    )
    warmup_init: Flag | None = setting(
        None, "Adafactor with relative_step: begin with tiny steps"
    )
    min_8bit_size: Whole | None = setting(
        None, "Tensors with fewer elements keep 32-bit state", ge=0
    )
    is_paged: Flag | None = setting(
        None, "Let optimizer state move to the computer's memory when the GPU is full"
    )
    momentum: Real | None = setting(
        None, "SGD: how much of the last step is kept", ge=0, lt=1
    )
    dampening: Real | None = setting(
        None, "SGD: how much of the new gradient the momentum leaves out", ge=0, le=1
    )
    nesterov: Flag | None = setting(None, "SGD: Nesterov's momentum")
    decouple: Flag | None = setting(
        None, "Prodigy: weight decay as in AdamW, not inside the gradient"
    )
    use_bias_correction: Flag | None = setting(None, "Prodigy: Adam's bias correction")
    safeguard_warmup: Flag | None = setting(
        None, "Prodigy: ignore the learning rate's warm-up in its estimate"
    )
    d0: Real | None = setting(None, "Prodigy: first guess of the step size", gt=0)
    d_coef: Real | None = setting(
        None, "Prodigy: factor of the step size it finds; 0.5 to 2", gt=0
    )
    growth_rate: Real | None = setting(
        None, "Prodigy: most that its step size may grow in a step; empty = any", ge=1
    )
    slice_p: Whole | None = setting(
        None, "Prodigy: use every n-th value for its estimate, to save memory", ge=1
    )
    r: Real | None = setting(
        None, "Schedule-free: power of the step number in the averaging weights", ge=0
    )
    weight_lr_power: Real | None = setting(
        None, "Schedule-free: power of the rate in the averaging weights", ge=0
    )


class ConceptImage(Settings):
    """What is done to a concept's images."""

    enable_crop_jitter: Flag = setting(
        True, "Cut images at random places instead of the middle"
    )
    enable_random_flip: Flag = setting(False, "Mirror images left to right by chance")
    enable_fixed_flip: Flag = setting(False, "Mirror every image left to right")
    enable_resolution_override: Flag = setting(
        False, "Use this concept's own resolution"
    )
    resolution_override: str = setting(
        "512", "The concept's own resolution, written like the general one"
    )


class ConceptText(Settings):
    """Where a concept's captions come from and what is done to them."""

    prompt_source: Literal["sample", "concept", "filename"] = setting(
        "sample", "A .txt per image, one file, or names"
    )
    prompt_path: Place = setting(
        "", "The text file for the source 'concept'; each line is one caption"
    )
    enable_tag_shuffling: Flag = setting(
        False, "Put the tags of a caption in a new order every time"
    )
    tag_delimiter: str = setting(",", "What stands between tags", min_length=1)
    keep_tags_count: Whole = setting(
        1, "How many tags at the beginning keep their place", ge=0
    )


class Concept(Settings):
    """A folder of images to learn from."""

    name: str = setting("", "Your name for the concept")
    path: Place = setting("", "Folder of the images")
    seed: Whole = setting(0, "Changes the random choices made for this concept")
    enabled: Flag = setting(True, "Use this concept")
    type: Literal["STANDARD", "VALIDATION"] = setting(
        "STANDARD", "VALIDATION images are measured, never trained on"
    )
    include_subdirectories: Flag = setting(False, "Use images in sub-folders too")
    image_variations: Whole = setting(
        1, "How many crops and flips of each image are cached", ge=1, le=1000
    )
    text_variations: Whole = setting(
        1, "How many variants of each caption are cached", ge=1, le=1000
    )
    balancing: Real = setting(
        1.0, "Repeats of each image an epoch, or the number of samples", ge=0
    )
    balancing_strategy: Literal["REPEATS", "SAMPLES"] = setting(
        "REPEATS", "Balancing is a factor, or a count"
    )
    loss_weight: Real = setting(1.0, "Factor of the loss of these images", ge=0)
    image: ConceptImage = setting(ConceptImage, "What is done to the images")
    text: ConceptText = setting(ConceptText, "Where captions come from")


class Sample(Settings):
    """A prompt that is turned into an image while training."""

    enabled: Flag = setting(True, "Make this sample")
    prompt: str = setting("", "What the image shows")
    width: Pixels = setting(1024, "Width in pixels")
    height: Pixels = setting(1024, "Height in pixels")
    seed: Whole = setting(
        42, "Seed of the first noise; the same seed makes samples comparable", ge=0
    )
    diffusion_steps: Whole = setting(
        30, "Sampling steps; FLUX.1-schnell needs 4", ge=1, le=1000
    )
    cfg_scale: Real = setting(
        3.5, "Guidance of the sample; FLUX.1-schnell ignores it", ge=0
    )
