"""The first half of a config: the run, the model, and what comes out of it."""

from typing import Literal

from blockrate.config.parts import TextEncoderPart, TransformerPart, VaePart
from blockrate.config.setting import (
    ANOTHER_RUN,
    FREE,
    LENGTH,
    OUTPUT,
    RESULT,
    SILENT,
    Flag,
    Folder,
    GpuNumbers,
    Integer,
    Model,
    NewPlace,
    Precision,
    Section,
    Settings,
    TimeUnit,
    setting,
)


class ModelConfig(Settings):
    """What is trained, from where, and to where; ``TrainConfig`` says how."""

    training_method: Literal["LORA", "FINE_TUNE"] = setting(
        "LORA",
        "Train small adapters, or the weights themselves",
        ANOTHER_RUN,
        section=Section("The run", "Model"),
    )
    model_type: Literal[
        "FLUX_DEV_1", "FLUX_SCHNELL_1", "FLUX_FILL_DEV_1", "FLUX_2", "CHROMA_1"
    ] = setting(
        "FLUX_DEV_1",
        "FLUX.1-dev and Kontext take a guidance value, FLUX.1-schnell none; FLUX_2: klein and dev; CHROMA_1: Chroma",
        ANOTHER_RUN,
    )
    workspace_dir: Folder = setting(
        "workspace/run",
        "The run folder; left as it is, it is named like the config's file",
        SILENT,
        min_length=1,
    )
    cache_dir: Folder = setting(
        "workspace-cache/run",
        "Cached latents and embeddings; runs may share it",
        SILENT,
        min_length=1,
    )
    only_cache: Flag = setting(
        False, "Fill the cache, then stop without training", LENGTH
    )
    seed: Integer = setting(
        42,
        "Fixes noise, timesteps, order and first values of a run",
        ANOTHER_RUN,
        ge=0,
        lt=2**63,
    )
    deterministic: Flag = setting(
        False, "Bit-exact repeats on a GPU, a little slower", RESULT
    )
    tensorboard: Flag = setting(
        True, "Write TensorBoard scalars, when tensorboard is installed", FREE
    )
    validation: Flag = setting(
        False,
        "Measure the loss on VALIDATION concepts, on fixed noise and timesteps",
        FREE,
        tab="Data",
    )
    validate_after: Integer = setting(
        1, "Measure the validation loss every so many units", FREE, tab="Data", ge=0
    )
    validate_after_unit: TimeUnit = setting(
        "EPOCH", "Unit of the setting before", FREE, tab="Data"
    )
    train_device: str | None = setting(
        None, "Device: cuda, cuda:1, mps or cpu; empty = the best one there is", FREE
    )
    multi_gpu: Flag = setting(
        False,
        "Train on several GPUs of this machine: the same run, faster",
        FREE,
        tab="Training",
    )
    device_indexes: GpuNumbers = setting(
        "",
        "Which GPUs multi_gpu takes, by number, as 0,1; empty = all",
        FREE,
        tab="Training",
    )
    sharding: Literal["NONE", "FULL"] = setting(
        "NONE",
        "FULL: share the weights over the GPUs, for models that do not fit one",
        FREE,
        tab="Training",
    )

    base_model_name: Model = setting(
        "black-forest-labs/FLUX.1-dev",
        "Hub id, folder or file; miniature: a small Flux that draws pictograms, in the box",
        ANOTHER_RUN,
        section=Section("The model", "Model"),
        min_length=1,
    )
    model_variant: Literal["", "BASE", "DISTILLED", "DEV", "KONTEXT"] = setting(
        "",
        "Which of two models with the same sizes, where files and name are silent; DISTILLED trains such a one, too",
        FREE,
    )
    transformer: TransformerPart = setting(TransformerPart, "The part that trains")
    text_encoder: TextEncoderPart = setting(
        TextEncoderPart, "CLIP; in FLUX.2 its language model, in Chroma T5"
    )
    text_encoder_2: TextEncoderPart = setting(
        TextEncoderPart, "T5 of FLUX.1; the others have one text encoder"
    )
    text_encoder_2_sequence_length: Integer = setting(
        77,
        "Tokens of a caption for T5 of FLUX.1; the rest is cut. Other models have always 512",
        RESULT,
        ge=1,
        le=512,
    )
    vae: VaePart = setting(VaePart, "Turns images into latents and back")
    compile: Flag = setting(
        False,
        "Compile the transformer's blocks, and AdamW's change of bf16 weights: slow start, faster steps on a GPU",
        FREE,
    )

    output_model_destination: NewPlace = setting(
        "models/model.safetensors",
        "The finished file, or the folder of a fine-tune; left as it is, named like the run",
        OUTPUT,
        section=Section("What comes out", "Model"),
        min_length=1,
    )
    output_model_format: Literal[
        "DIFFUSERS_LORA",
        "KOHYA_LORA",
        "COMFY_LORA",
        "DIFFUSERS",
        "ORIGINAL_TRANSFORMER",
    ] = setting(
        "DIFFUSERS_LORA",
        "Form of a LoRA file, COMFY_LORA not for FLUX.1; a fine-tune is DIFFUSERS, a folder, or ORIGINAL_TRANSFORMER",
        OUTPUT,
    )
    output_dtype: Precision = setting(
        "FLOAT_32", "Precision of the weights in the result: LoRA file or model", OUTPUT
    )
    output_frozen_blocks: Flag = setting(
        False,
        "Write blocks at 0.0 into a LoRA file too, as zeros, for programs that ask for every block",
        OUTPUT,
    )
