"""The nested parts of a config: model parts, optimizer, concepts, samples. OneTrainer's names throughout."""

import re
from typing import Literal

from blockrate.config.setting import (
    ANOTHER_RUN,
    FREE,
    LENGTH,
    RESULT,
    STATE,
    Flag,
    Folder,
    Fraction,
    ImageFile,
    Integer,
    Model,
    Pixels,
    Precision,
    Real,
    Settings,
    TextFile,
    TimeUnit,
    TransformerDtype,
    WeightDtype,
    setting,
)

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
Scheduler = Literal[
    "CONSTANT",
    "LINEAR",
    "COSINE",
    "COSINE_WITH_RESTARTS",
    "COSINE_WITH_HARD_RESTARTS",
    "REX",
]
AttentionBackend = Literal["DEFAULT", "CUDNN", "FLASH", "EFFICIENT"]
CaptionForm = Literal["LINES", "WHOLE"]


class Part(Settings):
    """One component of the model."""

    model_name: Model = setting(
        "",
        "Load this part from here instead of from the base model: a folder or file",
        ANOTHER_RUN,
    )


class TransformerPart(Part, title="The transformer"):
    """The part that trains."""

    weight_dtype: TransformerDtype = setting(
        "BFLOAT_16",
        "Form of the weights in memory; from FLOAT_8 on only if frozen; GGUF: as a .gguf file has them",
        STATE,
    )
    train: Flag = setting(
        True,
        "Train the transformer. Off: nothing of it trains, whatever the rates say",
        RESULT,
        tab="Training",
    )
    stop_training_after: Integer | None = setting(
        None,
        "Freeze it after this many units; empty = never",
        LENGTH,
        tab="Training",
        ge=0,
    )
    stop_training_after_unit: TimeUnit = setting(
        "NEVER",
        "Unit of the setting before; NEVER trains to the end",
        LENGTH,
        tab="Training",
    )
    learning_rate: Real | None = setting(
        None,
        "Base learning rate of the transformer; empty = the general one",
        RESULT,
        tab="Training",
        gt=0,
    )
    guidance_scale: Real = setting(
        1.0,
        "Guidance given to FLUX.1-dev in training; nearly everybody uses 1.0",
        RESULT,
        tab="Training",
        ge=0,
    )
    gradient_checkpointing: Flag = setting(
        True, "Much less memory, about a third slower", FREE, tab="Training"
    )
    layer_offload_fraction: Fraction = setting(
        0.0,
        "How much of the blocks' frozen weights waits in main memory and streams to the card: 0 nothing, 1 nearly all",
        FREE,
        tab="Training",
    )
    attention_backend: AttentionBackend = setting(
        "DEFAULT",
        "Which of torch's attention kernels an NVIDIA card is asked for first; DEFAULT: as torch has them",
        FREE,
        tab="Training",
    )


class TextEncoderPart(Part, title="The text encoders"):
    """CLIP or T5: frozen, its outputs are cached."""

    weight_dtype: WeightDtype = setting(
        "BFLOAT_16", "Form of the weights in memory", RESULT
    )
    dropout_probability: Fraction = setting(
        0.0, "Chance of an empty caption for this encoder", RESULT
    )


class VaePart(Part, title="The VAE"):
    """Turns images into latents and back: frozen."""

    weight_dtype: Precision = setting(
        "FLOAT_32", "Precision of the VAE. FLOAT_32 keeps the finest detail", RESULT
    )


class OptimizerSettings(Settings, title="The optimizer"):
    """The optimizer and its parameters; an empty one takes the optimizer's default (config/optimizers.py)."""

    optimizer: OptimizerName = setting(
        "ADAMW",
        "Which optimizer turns gradients into changes of the weights",
        STATE,
        window="",
    )
    beta1: Real | None = setting(
        None, "Decay of the running mean of gradients", STATE, ge=0, lt=1
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
        None,
        "One kernel for all weights; empty = wherever it works (3-6 times faster)",
        STATE,
    )
    fused_back_pass: Flag | None = setting(
        None,
        "Change each block as soon as its gradients are there, and drop them: far less memory in a fine-tune",
        FREE,
    )
    stochastic_rounding: Flag | None = setting(
        None, "Round trained bf16 weights by chance: keeps small changes", STATE
    )
    clip_threshold: Real | None = setting(
        None, "Largest root mean square of an update", gt=0
    )
    decay_rate: Real | None = setting(
        None, "Adafactor: how the decay of squared gradients grows by step", le=0
    )
    relative_step: Flag | None = setting(
        None, "Adafactor finds its own rate and ignores all others", STATE
    )
    scale_parameter: Flag | None = setting(
        None, "Adafactor: multiply the rate by the size of the weights"
    )
    warmup_init: Flag | None = setting(
        None, "Adafactor with relative_step: begin with tiny steps"
    )
    min_8bit_size: Integer | None = setting(
        None, "Tensors with fewer elements keep 32-bit state", STATE, ge=0
    )
    is_paged: Flag | None = setting(
        None,
        "Let optimizer state move to the computer's memory when the GPU is full",
        FREE,
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
    slice_p: Integer | None = setting(
        None,
        "Prodigy: use every n-th value for its estimate, to save memory",
        STATE,
        ge=1,
    )
    r: Real | None = setting(
        None, "Schedule-free: power of the step number in the averaging weights", ge=0
    )
    weight_lr_power: Real | None = setting(
        None, "Schedule-free: power of the rate in the averaging weights", ge=0
    )


class ConceptImage(Settings, title="A concept's images"):
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


class ConceptText(Settings, title="A concept's captions"):
    """Where a concept's captions come from and what is done to them."""

    prompt_source: Literal["sample", "concept", "filename"] = setting(
        "sample", "A .txt per image, one file, or names"
    )
    prompt_path: TextFile = setting(
        "", "The text file for the source 'concept'; each line is one caption"
    )
    caption_form: CaptionForm = setting(
        "LINES",
        "LINES: each line of a text file is a caption. WHOLE: the file is one, its lines joined by spaces",
    )
    enable_tag_shuffling: Flag = setting(
        False, "Put the tags of a caption in a new order every time"
    )
    tag_delimiter: str = setting(",", "What stands between tags", min_length=1)
    keep_tags_count: Integer = setting(
        1, "How many tags at the beginning keep their place", ge=0
    )


class Concept(Settings, title="A concept"):
    """A folder of images to learn from."""

    name: str = setting("", "Your name for the concept", FREE)
    path: Folder = setting("", "Folder of the images")
    references: list[Folder] = setting(
        list,
        "Folders with a reference image of each image's name, for editing: FLUX.1 Kontext takes one, FLUX.2 up to 10",
    )
    masks: Folder = setting(
        "",
        "FLUX.1 Fill: folder of masks named like the images, white is drawn anew; empty: NAME-masklabel.png beside",
    )
    seed: Integer = setting(0, "Changes the random choices made for this concept")
    enabled: Flag = setting(True, "Use this concept")
    type: Literal["STANDARD", "VALIDATION"] = setting(
        "STANDARD", "VALIDATION images are measured, never trained on"
    )
    role: Literal["subject", "keep"] = setting(
        "subject",
        "What VALIDATION images show: the subject that is learned, or what the model knows and should keep",
        FREE,
    )
    include_subdirectories: Flag = setting(False, "Use images in sub-folders too")
    image_variations: Integer = setting(
        1, "How many crops and flips of each image are cached", ge=1, le=1000
    )
    text_variations: Integer = setting(
        1, "How many variants of each caption are cached", ge=1, le=1000
    )
    balancing: Real = setting(
        1.0,
        "Repeats of each image an epoch, or the number of samples",
        ge=0,
        le=1_000_000,
    )
    balancing_strategy: Literal["REPEATS", "SAMPLES"] = setting(
        "REPEATS", "Balancing is a factor, or a count"
    )
    loss_weight: Real = setting(1.0, "Factor of the loss of these images", ge=0)
    image: ConceptImage = setting(ConceptImage, "What is done to the images")
    text: ConceptText = setting(ConceptText, "Where captions come from")

    def measuring(self, folder: str) -> "Concept":
        """Return a concept like this one whose images lie in ``folder`` and are measured instead of learned."""
        changes = {"name": "validation", "path": folder, "type": "VALIDATION"}
        return self.model_copy(update=changes)


class Sample(Settings, title="A sample"):
    """A prompt that is turned into an image while training."""

    enabled: Flag = setting(True, "Make this sample")
    prompt: str = setting("", "What the image shows")
    references: list[ImageFile] = setting(
        list, "Reference images that it is made from, for editing"
    )
    base_image_path: ImageFile = setting("", "FLUX.1 Fill: the image to draw into")
    mask_image_path: ImageFile = setting(
        "", "FLUX.1 Fill: its mask; what is white is drawn anew"
    )
    width: Pixels = setting(1024, "Width in pixels")
    height: Pixels = setting(1024, "Height in pixels")
    seed: Integer = setting(
        42, "Seed of the first noise; the same seed makes samples comparable", ge=0
    )
    diffusion_steps: Integer = setting(
        30, "Sampling steps; FLUX.1-schnell needs 4", ge=1, le=1000
    )
    cfg_scale: Real = setting(
        3.5, "Guidance of the sample; FLUX.1-schnell ignores it", ge=0
    )
    preview: Model = setting(
        "",
        "Draw by this distilled twin with what the LoRA has learned, as klein 4B of klein base 4B: 4 sampling steps",
    )

    @property
    def file_words(self) -> str:
        """The prompt as it stands in the name of a picture."""
        words = re.sub(r"[\W_]+", "-", self.prompt.lower())[:40].strip("-")
        return words or "sample"
