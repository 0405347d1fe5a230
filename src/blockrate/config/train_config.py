"""TrainConfig: everything a user can set, each field once, in OneTrainer's vocabulary.

Type, default, limits and description of a field are the only source of tooltips, the docs table and ``--set``.
Defaults are OneTrainer's, except those its Flux presets always set: training_method, model_type, base_model_name,
output_model_format, train_dtype, timestep_distribution, dynamic_timestep_shifting and resolution.
"""

import math
from typing import Literal

from blockrate.config.parts import (
    Concept,
    Flag,
    Fraction,
    OptimizerSettings,
    Place,
    Precision,
    Real,
    Sample,
    Settings,
    TextEncoderPart,
    TimeUnit,
    TransformerPart,
    VaePart,
    Whole,
    setting,
)
from blockrate.core.layer_filter import PRESETS, LayerFilter, split_patterns
from blockrate.core.schedules import rate_factor


class TrainConfig(Settings):
    """All settings of a run."""

    # The run.
    training_method: Literal["LORA", "FINE_TUNE"] = setting(
        "LORA", "Train small adapters, or the weights themselves"
    )
    model_type: Literal["FLUX_DEV_1", "FLUX_SCHNELL_1"] = setting(
        "FLUX_DEV_1", "FLUX.1-dev takes a guidance value, FLUX.1-schnell does not"
    )
    workspace_dir: Place = setting(
        "workspace/run",
        "The run folder: config, events, checkpoints, samples",
        min_length=1,
    )
    cache_dir: Place = setting(
        "workspace-cache/run",
        "Cached latents and embeddings; runs may share it",
        min_length=1,
    )
    only_cache: Flag = setting(False, "Fill the cache, then stop without training")
    seed: Whole = setting(
        42, "Fixes noise, timesteps, order and first values of a run", ge=0, lt=2**63
    )
    deterministic: Flag = setting(False, "Bit-exact repeats on a GPU, a little slower")
    tensorboard: Flag = setting(
        True, "Write TensorBoard scalars, when tensorboard is installed"
    )
    validation: Flag = setting(
        False, "Measure the loss on VALIDATION concepts, on fixed noise and timesteps"
    )
    validate_after: Whole = setting(
        1, "Measure the validation loss every so many units", ge=0
    )
    validate_after_unit: TimeUnit = setting("EPOCH", "Unit of the setting before")
    train_device: str | None = setting(
        None, "Device: cuda, cuda:1, mps or cpu; empty = the best one there is"
    )

    # The model.
    base_model_name: Place = setting(
        "black-forest-labs/FLUX.1-dev", "Hub id, folder or file", min_length=1
    )
    transformer: TransformerPart = setting(TransformerPart, "The part that trains")
    text_encoder: TextEncoderPart = setting(TextEncoderPart, "CLIP")
    text_encoder_2: TextEncoderPart = setting(TextEncoderPart, "T5")
    text_encoder_2_sequence_length: Whole = setting(
        77, "Tokens of a caption for T5; the rest is cut", ge=1, le=512
    )
    vae: VaePart = setting(VaePart, "Turns images into latents and back")
    compile: Flag = setting(
        False,
        "Compile the transformer block by block: slow start, faster steps on a GPU",
    )

    # What comes out.
    output_model_destination: Place = setting(
        "models/model.safetensors",
        "The finished file; of a fine-tune a folder",
        min_length=1,
    )
    output_model_format: Literal["DIFFUSERS_LORA", "KOHYA_LORA", "DIFFUSERS"] = setting(
        "DIFFUSERS_LORA", "Form of a LoRA file; DIFFUSERS is a fine-tune's folder"
    )
    output_dtype: Precision = setting(
        "FLOAT_32", "Precision of the weights in the result: LoRA file or model"
    )

    # Learning.
    learning_rate: Real = setting(
        3e-4, "Base learning rate; a block's rate is this times its multiplier", gt=0
    )
    learning_rate_scheduler: Literal[
        "CONSTANT",
        "LINEAR",
        "COSINE",
        "COSINE_WITH_RESTARTS",
        "COSINE_WITH_HARD_RESTARTS",
    ] = setting(
        "CONSTANT",
        "How the rate falls over the run; the ratio between blocks never changes",
    )
    learning_rate_warmup_steps: Real = setting(
        200.0, "Steps in which the rate rises; up to 1: a fraction of all", ge=0
    )
    learning_rate_cycles: Real = setting(
        1.0, "How often a schedule with restarts begins anew", gt=0
    )
    learning_rate_min_factor: Fraction = setting(
        0.0, "Floor of the schedule, as a factor of the rate"
    )
    learning_rate_scaler: Literal["NONE", "BATCH", "GRADIENT_ACCUMULATION", "BOTH"] = (
        setting(
            "NONE",
            "Multiply the rate by the square root of batch size, accumulation steps, or both",
        )
    )
    epochs: Whole = setting(100, "How often every image is seen", ge=1)
    batch_size: Whole = setting(1, "Images in one forward pass", ge=1)
    gradient_accumulation_steps: Whole = setting(
        1, "Forward passes for one change of the weights", ge=1
    )
    clip_grad_norm: Real | None = setting(
        1.0, "Longest gradient, over all trained weights; empty = not limited", gt=0
    )
    optimizer: OptimizerSettings = setting(OptimizerSettings, "The optimizer")
    ema: Literal["OFF", "GPU", "CPU"] = setting(
        "OFF", "Keep a moving average of the weights, and where"
    )
    ema_decay: Fraction = setting(0.999, "How slowly the average follows")
    ema_update_step_interval: Whole = setting(
        5, "Update the average every so many steps", ge=1
    )
    train_dtype: Literal["BFLOAT_16", "FLOAT_32"] = setting(
        "BFLOAT_16", "Precision of the computation"
    )

    # Which layers, and how fast.
    layer_filter: str = setting(
        "", "Train modules whose name contains one of these, between commas"
    )
    layer_filter_preset: Literal[
        "full", "blocks", "attn-mlp", "attn-only", "custom"
    ] = setting("full", "Ready-made layer filter, used when the text is empty")
    layer_filter_regex: Flag = setting(
        False, "The layer filter is a list of regular expressions"
    )
    block_learning_rate_multiplier: dict[str, Fraction] = setting(
        dict, "Rate of a block: 0.0 (frozen) to 1.0 (usual)"
    )

    # LoRA.
    lora_model_name: Place = setting("", "Go on from this LoRA file")
    lora_rank: Whole = setting(16, "Size of the adapters", ge=1, le=3072)
    lora_alpha: Real = setting(1.0, "Strength of the adapters: alpha / rank", gt=0)
    dropout_probability: Real = setting(
        0.0,
        "Chance that an element of a LoRA layer's input is dropped in a step",
        ge=0,
        lt=1,
    )
    lora_weight_dtype: Literal["FLOAT_32", "BFLOAT_16"] = setting(
        "FLOAT_32",
        "Form of adapters and gradients in training; BFLOAT_16: half the memory, less exact",
    )

    # Loss.
    mse_strength: Real = setting(1.0, "Weight of the mean squared error", ge=0)
    mae_strength: Real = setting(0.0, "Weight of the mean absolute error", ge=0)
    log_cosh_strength: Real = setting(0.0, "Weight of the log-cosh error", ge=0)
    huber_strength: Real = setting(0.0, "Weight of the Huber error", ge=0)
    huber_delta: Real = setting(
        1.0, "Where the Huber error turns from square to straight", gt=0
    )
    loss_weight_fn: Literal["CONSTANT", "SIGMA"] = setting(
        "CONSTANT", "Weight by noise level; SIGMA: times sigma"
    )

    # Noise.
    timestep_distribution: Literal["LOGIT_NORMAL", "UNIFORM"] = setting(
        "LOGIT_NORMAL", "How noise levels are drawn; LOGIT_NORMAL prefers the middle"
    )
    noising_weight: Real = setting(
        0.0, "LOGIT_NORMAL: the spread is this plus 1", gt=-1
    )
    noising_bias: Real = setting(
        0.0, "LOGIT_NORMAL: above 0 draws more noise, below 0 less"
    )
    min_noising_strength: Fraction = setting(
        0.0, "Least noise in training: 0 is a clean image, 1 pure noise"
    )
    max_noising_strength: Fraction = setting(
        1.0, "Most noise in training: 0 is a clean image, 1 pure noise"
    )
    timestep_shift: Real = setting(
        1.0, "Shift towards noise; 1.0 = none. Not used with dynamic shifting", gt=0
    )
    dynamic_timestep_shifting: Flag = setting(
        True, "Shift by image size, as FLUX.1 samples"
    )

    # Data.
    concepts: list[Concept] = setting(list, "Folders of images to learn from")
    concept_file_name: Place = setting(
        "", "A JSON file with the concepts, used when there are none here"
    )
    resolution: str = setting(
        "768",
        "Pixels: 768, several (512,768), or one exact size (832x1216)",
        min_length=1,
    )
    aspect_ratio_bucketing: Flag = setting(
        True, "Keep the shapes of images; off: squares only"
    )

    # Samples.
    samples: list[Sample] = setting(
        list, "Prompts that are turned into images while training"
    )
    sample_definition_file_name: Place = setting(
        "", "A JSON file with the samples, used when there are none here"
    )
    sample_after: Whole = setting(10, "Make samples every so many units", ge=0)
    sample_after_unit: TimeUnit = setting("MINUTE", "Unit of the setting before")
    sample_skip_first: Whole = setting(0, "Leave out the first so many times", ge=0)
    samples_to_tensorboard: Flag = setting(True, "Show samples in TensorBoard")
    non_ema_sampling: Flag = setting(
        True, "With EMA: sample the trained weights too, not the average only"
    )

    # Saving.
    backup_after: Whole = setting(30, "Save a checkpoint every so many units", ge=0)
    backup_after_unit: TimeUnit = setting("MINUTE", "Unit of the setting before")
    rolling_backup: Flag = setting(
        False, "Whether older checkpoints are deleted after a new one"
    )
    rolling_backup_count: Whole = setting(3, "How many checkpoints stay", ge=1)
    save_every: Whole = setting(0, "Export the model every so many units", ge=0)
    save_every_unit: TimeUnit = setting("NEVER", "Unit of the setting before")
    save_skip_first: Whole = setting(0, "Leave out the first so many exports", ge=0)
    save_filename_prefix: str = setting("", "Beginning of the names of exports")
    telemetry_every: Whole = setting(
        10, "Report gradients and changes by block every so many steps", ge=1
    )

    def base_learning_rate(self) -> float:
        """The rate that multipliers multiply: the transformer's own or the general one, times the scaler."""
        counts = {
            "BATCH": self.batch_size,
            "GRADIENT_ACCUMULATION": self.gradient_accumulation_steps,
        }
        scale = math.prod(
            count
            for name, count in counts.items()
            if self.learning_rate_scaler in (name, "BOTH")
        )
        return (self.transformer.learning_rate or self.learning_rate) * math.sqrt(scale)

    def rate_factor(self, step: int, total_steps: int) -> float:
        """What every rate is multiplied with in ``step`` (0 is the first) of ``total_steps``, 0 to 1."""
        return rate_factor(
            step,
            scheduler=self.learning_rate_scheduler,
            total_steps=total_steps,
            warmup_steps=self.learning_rate_warmup_steps,
            cycles=self.learning_rate_cycles,
            min_factor=self.learning_rate_min_factor,
        )

    def trained_dtype(self) -> str:
        """The data type of what trains: of adapters, or in a fine-tune of the weights themselves."""
        return (
            self.transformer.weight_dtype
            if self.training_method == "FINE_TUNE"
            else self.lora_weight_dtype
        )

    def layer_filter_in_effect(self) -> LayerFilter:
        """The filter that chooses modules: the text when there is one, else the preset's patterns."""
        if self.layer_filter.strip():
            return LayerFilter(
                split_patterns(self.layer_filter), regex=self.layer_filter_regex
            )
        return LayerFilter(PRESETS.get(self.layer_filter_preset, ()))
