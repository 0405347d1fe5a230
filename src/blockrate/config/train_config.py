"""TrainConfig: everything a user can set, each field once, in OneTrainer's vocabulary.

Type, default, limits and description of a field are the only source of tooltips, the docs table and ``--set``.
Defaults are OneTrainer's, except those its Flux presets always set: marked "Flux" below.
"""

import math
from typing import Literal

from pydantic import Field

from blockrate.config.parts import (
    Concepts,
    Flag,
    Fraction,
    OptimizerSettings,
    Real,
    Samples,
    Settings,
    TextEncoderPart,
    TimeUnit,
    TransformerPart,
    VaePart,
    Whole,
)
from blockrate.core.layer_filter import PRESETS, LayerFilter, split_patterns


class TrainConfig(Settings):
    """All settings of a run."""

    # The run.
    training_method: Literal["LORA", "FINE_TUNE"] = Field(  # Flux
        "LORA", description="LORA trains small adapters; FINE_TUNE trains the weights of the transformer themselves"
    )
    model_type: Literal["FLUX_DEV_1", "FLUX_SCHNELL_1"] = Field("FLUX_DEV_1", description="Which model")  # Flux
    workspace_dir: str = Field(
        "workspace/run", min_length=1, description="The run folder: config, events, checkpoints, samples"
    )
    cache_dir: str = Field(
        "workspace-cache/run",
        min_length=1,
        description="Cached latents and prompt embeddings; several runs may share it",
    )
    only_cache: Flag = Field(False, description="Fill the cache, then stop without training")
    seed: Whole = Field(42, ge=0, lt=2**63, description="Fixes noise, timesteps, order and first values of a run")
    deterministic: Flag = Field(False, description="Bit-exact repeats on a GPU, a little slower")
    debug_mode: Flag = Field(False, description="Write more to the log")
    tensorboard: Flag = Field(True, description="Write TensorBoard scalars, when tensorboard is installed")
    validation: Flag = Field(False, description="Measure the loss on VALIDATION concepts, on fixed noise and timesteps")
    validate_after: Whole = Field(1, ge=1, description="Measure the validation loss every so many units")
    validate_after_unit: TimeUnit = Field("EPOCH", description="Unit of the setting before")
    train_device: str | None = Field(
        None, description="Device to train on: cuda, cuda:1, mps or cpu; empty = the best one there is"
    )

    # The model.
    base_model_name: str = Field(  # Flux
        "black-forest-labs/FLUX.1-dev", min_length=1, description="A hub id, a diffusers folder, or a single file"
    )
    transformer: TransformerPart = Field(default_factory=TransformerPart, description="The part that trains")
    text_encoder: TextEncoderPart = Field(default_factory=TextEncoderPart, description="CLIP")
    text_encoder_2: TextEncoderPart = Field(default_factory=TextEncoderPart, description="T5")
    text_encoder_2_sequence_length: Whole = Field(
        77, ge=1, le=512, description="Longest caption for T5, in tokens; longer ones are cut"
    )
    vae: VaePart = Field(default_factory=VaePart, description="Turns images into latents and back")
    compile: Flag = Field(
        False, description="Compile the transformer block by block: slow start, faster steps on a GPU"
    )

    # What comes out.
    output_model_destination: str = Field(
        "models/model.safetensors", min_length=1, description="The finished file, or the folder of a fine-tune"
    )
    output_model_format: Literal["DIFFUSERS_LORA", "KOHYA_LORA", "DIFFUSERS"] = Field(  # Flux
        "DIFFUSERS_LORA", description="Form of a LoRA file; DIFFUSERS is a fine-tune's folder"
    )
    output_dtype: Literal["FLOAT_32", "BFLOAT_16", "FLOAT_16"] = Field(
        "FLOAT_32", description="Precision of the output"
    )

    # Learning.
    learning_rate: Real = Field(
        3e-4, gt=0, description="Base learning rate; a block's rate is this times its multiplier"
    )
    learning_rate_scheduler: Literal["CONSTANT", "LINEAR", "COSINE", "COSINE_WITH_RESTARTS"] = Field(
        "CONSTANT", description="How the rate falls over the run; the ratio between blocks never changes"
    )
    learning_rate_warmup_steps: Real = Field(
        200.0, ge=0, description="Steps in which the rate rises from 0; up to 1 it is a fraction of all steps"
    )
    learning_rate_cycles: Real = Field(1.0, gt=0, description="How often a schedule with restarts begins anew")
    learning_rate_min_factor: Fraction = Field(0.0, description="Floor of the schedule, as a factor of the rate")
    learning_rate_scaler: Literal["NONE", "BATCH", "GRADIENT_ACCUMULATION", "BOTH"] = Field(
        "NONE", description="Multiply the rate by the square root of batch size, accumulation steps, or both"
    )
    epochs: Whole = Field(100, ge=1, description="How often every image is seen")
    batch_size: Whole = Field(1, ge=1, description="Images in one forward pass")
    gradient_accumulation_steps: Whole = Field(1, ge=1, description="Forward passes for one change of the weights")
    clip_grad_norm: Real | None = Field(
        1.0, gt=0, description="Longest gradient over all trained parameters; empty = not limited"
    )
    optimizer: OptimizerSettings = Field(default_factory=OptimizerSettings, description="The optimizer")
    optimizer_defaults: dict[str, OptimizerSettings] = Field(
        default_factory=dict, description="Remembered parameters of optimizers that are not in use; no effect on a run"
    )
    ema: Literal["OFF", "GPU", "CPU"] = Field("OFF", description="Keep a moving average of the weights, and where")
    ema_decay: Fraction = Field(0.999, description="How slowly the average follows")
    ema_update_step_interval: Whole = Field(5, ge=1, description="Update the average every so many steps")
    train_dtype: Literal["BFLOAT_16", "FLOAT_16", "FLOAT_32"] = Field(  # Flux
        "BFLOAT_16", description="Precision of the computation; FLOAT_16 is refused, FLUX.1 overflows in it"
    )

    # Which layers, and how fast.
    layer_filter: str = Field("", description="Train modules whose name contains one of these, between commas")
    layer_filter_preset: Literal["full", "blocks", "attn-mlp", "attn-only", "custom"] = Field(
        "full", description="Ready-made layer filter, used when the text is empty"
    )
    layer_filter_regex: Flag = Field(False, description="The layer filter is a list of regular expressions")
    block_learning_rate_multiplier: dict[str, Fraction] = Field(
        default_factory=dict, description="Multiplier of the rate by block, 0.0 (frozen) to 1.0; missing means 1.0"
    )

    # LoRA.
    lora_model_name: str = Field("", description="Go on from this LoRA file")
    lora_rank: Whole = Field(16, ge=1, le=3072, description="Size of the adapters")
    lora_alpha: Real = Field(1.0, gt=0, description="Strength of the adapters: alpha / rank")
    lora_weight_dtype: Literal["FLOAT_32"] = Field("FLOAT_32", description="Trained LoRA weights are always FLOAT_32")
    dropout_probability: Real = Field(0.0, ge=0, lt=1, description="LoRA dropout")

    # Loss.
    mse_strength: Real = Field(1.0, ge=0, description="Weight of the mean squared error")
    mae_strength: Real = Field(0.0, ge=0, description="Weight of the mean absolute error")
    log_cosh_strength: Real = Field(0.0, ge=0, description="Weight of the log-cosh error")
    huber_strength: Real = Field(0.0, ge=0, description="Weight of the Huber error")
    huber_delta: Real = Field(1.0, gt=0, description="Where the Huber error turns from square to straight")
    loss_weight_fn: Literal["CONSTANT", "SIGMA"] = Field(
        "CONSTANT", description="Weight by noise level; SIGMA: times sigma"
    )

    # Noise.
    timestep_distribution: Literal["LOGIT_NORMAL", "UNIFORM"] = Field(  # Flux
        "LOGIT_NORMAL", description="How noise levels are drawn; LOGIT_NORMAL prefers the middle"
    )
    noising_weight: Real = Field(0.0, gt=-1, description="LOGIT_NORMAL: the spread is this plus 1")
    noising_bias: Real = Field(0.0, description="LOGIT_NORMAL: above 0 draws more noise, below 0 less")
    min_noising_strength: Fraction = Field(0.0, description="Least noise")
    max_noising_strength: Fraction = Field(1.0, description="Most noise")
    timestep_shift: Real = Field(
        1.0, gt=0, description="Shift towards noise; 1.0 = none. Not used with dynamic shifting"
    )
    dynamic_timestep_shifting: Flag = Field(True, description="Shift by image size, as FLUX.1 samples")  # Flux

    # Data.
    concepts: Concepts = Field(default_factory=list, description="Folders of images to learn from")
    concept_file_name: str = Field("", description="A JSON file with the concepts, used when there are none here")
    resolution: str = Field(  # Flux
        "768", min_length=1, description="Pixels: 768, or several (512,768), or one exact size (832x1216)"
    )
    aspect_ratio_bucketing: Flag = Field(True, description="Keep the shapes of images; off: squares only")
    latent_caching: Flag = Field(True, description="Keep latents on disk instead of encoding images anew")

    # Samples.
    samples: Samples = Field(default_factory=list, description="Prompts that are turned into images while training")
    sample_definition_file_name: str = Field(
        "", description="A JSON file with the samples, used when there are none here"
    )
    sample_after: Whole = Field(10, ge=1, description="Make samples every so many units")
    sample_after_unit: TimeUnit = Field("MINUTE", description="Unit of the setting before")
    sample_skip_first: Whole = Field(0, ge=0, description="Leave out the first so many times")
    samples_to_tensorboard: Flag = Field(True, description="Show samples in TensorBoard")
    non_ema_sampling: Flag = Field(True, description="With EMA: sample the trained weights too, not the average only")

    # Saving.
    backup_after: Whole = Field(30, ge=1, description="Save a checkpoint every so many units")
    backup_after_unit: TimeUnit = Field("MINUTE", description="Unit of the setting before")
    rolling_backup: Flag = Field(False, description="Delete old checkpoints")
    rolling_backup_count: Whole = Field(3, ge=1, description="How many checkpoints stay")
    save_every: Whole = Field(0, ge=0, description="Export the model every so many units")
    save_every_unit: TimeUnit = Field("NEVER", description="Unit of the setting before")
    save_skip_first: Whole = Field(0, ge=0, description="Leave out the first so many exports")
    save_filename_prefix: str = Field("", description="Beginning of the names of exports")
    telemetry_every: Whole = Field(10, ge=1, description="Report gradients and changes by block every so many steps")

    def base_learning_rate(self) -> float:
        """The rate that multipliers multiply: the transformer's own or the general one, times the scaler."""
        rate = self.transformer.learning_rate or self.learning_rate
        batch = self.batch_size if self.learning_rate_scaler in ("BATCH", "BOTH") else 1
        steps = (
            self.gradient_accumulation_steps if self.learning_rate_scaler in ("GRADIENT_ACCUMULATION", "BOTH") else 1
        )
        return rate * math.sqrt(batch * steps)

    def layer_filter_in_effect(self) -> LayerFilter:
        """The filter that chooses modules: the text when there is one, else the preset's patterns."""
        if self.layer_filter.strip():
            return LayerFilter(split_patterns(self.layer_filter), regex=self.layer_filter_regex)
        return LayerFilter(PRESETS.get(self.layer_filter_preset, ()))
