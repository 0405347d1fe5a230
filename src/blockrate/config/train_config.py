"""TrainConfig: everything a user can set, each field once, in OneTrainer's vocabulary.

Type, default, limits and description of a field are the only source of tooltips, the docs table and ``--set``.
Defaults are OneTrainer's, except those its Flux presets always set: training_method, model_type, base_model_name,
output_model_format, train_dtype, timestep_distribution, dynamic_timestep_shifting and resolution.
"""

import math
from typing import Literal

from blockrate.config.custom_presets import KeptRates
from blockrate.config.model_config import ModelConfig
from blockrate.config.parts import (
    Concept,
    OptimizerSettings,
    Sample,
    Scheduler,
)
from blockrate.config.rate_phases import PHASES_KEY, RatePhases, profile_of
from blockrate.config.setting import (
    ANOTHER_RUN,
    DATA,
    FREE,
    LENGTH,
    MODULES,
    RESULT,
    SILENT,
    STATE,
    Count,
    Flag,
    Fraction,
    Integer,
    JsonFile,
    LoraFile,
    Real,
    Section,
    TimeUnit,
    setting,
)
from blockrate.core.blocks import BlockLayout
from blockrate.core.layer_filter import PRESETS, LayerFilter, split_patterns
from blockrate.core.profile import KEY, Profile
from blockrate.core.schedules import schedule_factor
from blockrate.core.timesteps import dynamic_shift, timestep_at

# the forms of a fine-tune: diffusers' folder, and one file with the names of the model's makers
FOLDER = "DIFFUSERS"
SINGLE_FILE = "ORIGINAL_TRANSFORMER"


class TrainConfig(ModelConfig):
    """All settings of a run."""

    learning_rate: Real = setting(
        3e-4,
        "Base learning rate; a block's rate is this times its multiplier",
        RESULT,
        section=Section("Learning", "Training"),
        gt=0,
    )
    learning_rate_scheduler: Scheduler = setting(
        "CONSTANT",
        "How the rate falls over the run; the ratio between blocks never changes",
        RESULT,
    )
    learning_rate_warmup_steps: Real = setting(
        200.0, "Steps in which the rate rises; up to 1: a fraction of all", RESULT, ge=0
    )
    learning_rate_scaler: Literal["NONE", "BATCH", "GRADIENT_ACCUMULATION", "BOTH"] = (
        setting(
            "NONE",
            "Multiply the rate by the square root of batch size, accumulation steps, or both",
            RESULT,
            window="Learning Rate Scheduler",
        )
    )
    learning_rate_min_factor: Fraction = setting(
        0.0,
        "Floor of the schedule, as a factor of the rate",
        RESULT,
        window="Learning Rate Scheduler",
    )
    learning_rate_cycles: Real = setting(
        1.0,
        "How often a schedule with restarts begins anew",
        RESULT,
        window="Learning Rate Scheduler",
        gt=0,
        le=1_000_000,
    )
    epochs: Count = setting(100, "How often every image is seen", LENGTH)
    batch_size: Count = setting(1, "Images in one forward pass", ANOTHER_RUN)
    gradient_accumulation_steps: Count = setting(
        1, "Forward passes for one change of the weights", ANOTHER_RUN
    )
    clip_grad_norm: Real | None = setting(
        1.0,
        "Longest gradient, over all trained weights; empty = not limited",
        RESULT,
        gt=0,
    )
    optimizer: OptimizerSettings = setting(
        OptimizerSettings, "The optimizer", RESULT, window="Optimizer"
    )
    ema: Literal["OFF", "GPU", "CPU"] = setting(
        "OFF", "Keep a moving average of the weights, and where", RESULT
    )
    ema_decay: Fraction = setting(0.999, "How slowly the average follows", RESULT)
    ema_update_step_interval: Integer = setting(
        5, "Update the average every so many steps", RESULT, ge=1
    )
    train_dtype: Literal["BFLOAT_16", "FLOAT_32"] = setting(
        "BFLOAT_16",
        "Precision of the computation; FLOAT_32 in TF32 on NVIDIA cards, unless deterministic",
        RESULT,
    )
    enable_autocast: Flag = setting(
        True,
        "BFLOAT_16: norms and sums in FLOAT_32 all the same; off: all in BFLOAT_16, with less memory traffic",
        RESULT,
    )

    layer_filter: str = setting(
        "",
        "Train modules whose name contains one of these, between commas",
        MODULES,
        section=Section("Which layers, and how fast", "Training"),
    )
    layer_filter_preset: Literal[
        "full", "blocks", "attn-mlp", "attn-only", "custom"
    ] = setting("full", "Ready-made layer filter, used when the text is empty", MODULES)
    layer_filter_regex: Flag = setting(
        False, "The layer filter is a list of regular expressions", MODULES
    )
    block_learning_rate_multiplier: dict[str, Fraction] = setting(
        dict,
        "Rate of a block: 0.0 (frozen) to 1.0 (the default)",
        RESULT,
        window="Block Learning Rate",
    )
    block_learning_rate_phases: RatePhases = setting(
        list,
        "Rates of blocks that change in a run: each phase from a fraction of it, or from a step",
        RESULT,
        window="Block Learning Rate",
    )
    block_learning_rate_custom_presets: dict[str, KeptRates] = setting(
        dict,
        "Rates kept under names, for the window's presets; they train nothing",
        SILENT,
        window="Block Learning Rate",
    )

    lora_model_name: LoraFile = setting(
        "",
        "Go on from this LoRA file",
        ANOTHER_RUN,
        section=Section("LoRA", "Training"),
    )
    lora_rank: Integer = setting(16, "Size of the adapters", ANOTHER_RUN, ge=1, le=3072)
    lora_alpha: Real = setting(
        1.0, "Strength of the adapters: alpha / rank", ANOTHER_RUN, gt=0
    )
    dropout_probability: Real = setting(
        0.0,
        "Chance that an element of a LoRA layer's input is dropped in a step",
        RESULT,
        ge=0,
        lt=1,
    )
    lora_weight_dtype: Literal["FLOAT_32", "BFLOAT_16"] = setting(
        "FLOAT_32",
        "Form of adapters and gradients in training; BFLOAT_16: half the memory, less exact",
        STATE,
    )

    mse_strength: Real = setting(
        1.0,
        "Weight of the mean squared error",
        RESULT,
        section=Section("Loss", "Training"),
        ge=0,
    )
    mae_strength: Real = setting(0.0, "Weight of the mean absolute error", RESULT, ge=0)
    log_cosh_strength: Real = setting(0.0, "Weight of the log-cosh error", RESULT, ge=0)
    huber_strength: Real = setting(0.0, "Weight of the Huber error", RESULT, ge=0)
    huber_delta: Real = setting(
        1.0, "Where the Huber error turns from square to straight", RESULT, gt=0
    )
    loss_weight_fn: Literal["CONSTANT", "SIGMA"] = setting(
        "CONSTANT", "Weight by noise level; SIGMA: times sigma", RESULT
    )

    timestep_distribution: Literal["LOGIT_NORMAL", "UNIFORM", "INVERTED_PARABOLA"] = (
        setting(
            "LOGIT_NORMAL",
            "How noise levels are drawn; LOGIT_NORMAL and INVERTED_PARABOLA prefer the middle",
            RESULT,
            section=Section("Noise", "Training", "Timestep Distribution"),
            window="",
        )
    )
    noising_weight: Real = setting(
        0.0,
        "LOGIT_NORMAL: the spread is this plus 1. INVERTED_PARABOLA: how steep it falls, Chroma's is 7.7",
        RESULT,
        gt=-1,
    )
    noising_bias: Real = setting(
        0.0,
        "Above 0 draws more noise, below 0 less; INVERTED_PARABOLA: how far its middle lies from 0.5",
        RESULT,
    )
    min_noising_strength: Fraction = setting(
        0.0, "Least noise in training: 0 is a clean image, 1 pure noise", RESULT
    )
    max_noising_strength: Fraction = setting(
        1.0, "Most noise in training: 0 is a clean image, 1 pure noise", RESULT
    )
    dynamic_timestep_shifting: Flag = setting(
        True, "Shift by image size, as FLUX.1 samples", RESULT
    )
    timestep_shift: Real = setting(
        1.0,
        "Shift towards noise; 1.0 = none. Not used with dynamic shifting",
        RESULT,
        gt=0,
    )

    concepts: list[Concept] = setting(
        list, "Folders of images to learn from", DATA, section=Section("Data", "Data")
    )
    concept_file_name: JsonFile = setting(
        "", "A JSON file with the concepts, used when there are none here", FREE
    )
    resolution: str = setting(
        "768",
        "Pixels: 768, several (512,768), or one exact size (832x1216)",
        ANOTHER_RUN,
        tab="Training",
        min_length=1,
    )
    aspect_ratio_bucketing: Flag = setting(
        True, "Keep the shapes of images; off: squares only", ANOTHER_RUN
    )

    samples: list[Sample] = setting(
        list,
        "Prompts that are turned into images while training",
        FREE,
        section=Section("Samples", "Sampling"),
    )
    sample_definition_file_name: JsonFile = setting(
        "", "A JSON file with the samples, used when there are none here", FREE
    )
    sample_at_start: Flag = setting(
        False,
        "Make samples before the first step, too: what the base model draws",
        FREE,
    )
    sample_after: Integer = setting(10, "Make samples every so many units", FREE, ge=0)
    sample_after_unit: TimeUnit = setting("MINUTE", "Unit of the setting before", FREE)
    sample_skip_first: Integer = setting(
        0, "Leave out the first so many times", FREE, ge=0
    )
    samples_to_tensorboard: Flag = setting(True, "Show samples in TensorBoard", FREE)
    non_ema_sampling: Flag = setting(
        True, "With EMA: sample the trained weights too, not the average only", FREE
    )

    backup_after: Integer = setting(
        30,
        "Save a checkpoint every so many units",
        FREE,
        section=Section("Saving", "Training"),
        ge=0,
    )
    backup_after_unit: TimeUnit = setting("MINUTE", "Unit of the setting before", FREE)
    rolling_backup: Flag = setting(
        False, "Whether older checkpoints are deleted after a new one", FREE
    )
    rolling_backup_count: Integer = setting(3, "How many checkpoints stay", FREE, ge=1)
    save_every: Integer = setting(0, "Export the model every so many units", FREE, ge=0)
    save_every_unit: TimeUnit = setting("NEVER", "Unit of the setting before", FREE)
    save_skip_first: Integer = setting(
        0, "Leave out the first so many exports", FREE, ge=0
    )
    save_filename_prefix: str = setting("", "Beginning of the names of exports", FREE)
    telemetry_every: Integer = setting(
        10, "Report gradients and changes by block every so many steps", FREE, ge=1
    )

    def base_learning_rate(self) -> float:
        """The rate that multipliers multiply: the transformer's own or the general one, times the scaler."""
        images = 1
        if self.learning_rate_scaler in ("BATCH", "BOTH"):
            images *= self.batch_size
        if self.learning_rate_scaler in ("GRADIENT_ACCUMULATION", "BOTH"):
            images *= self.gradient_accumulation_steps
        rate = self.transformer.learning_rate or self.learning_rate
        return rate * math.sqrt(images)

    def timestep_at(self, share: float, *, tokens: int) -> float:
        """Return the timestep that ``share`` (0 to 1) of those drawn for images of so many tokens lie below."""
        shift = self.timestep_shift
        if self.dynamic_timestep_shifting:
            shift = dynamic_shift(tokens)
        return timestep_at(
            share,
            distribution=self.timestep_distribution,
            weight=self.noising_weight,
            bias=self.noising_bias,
            low=self.min_noising_strength,
            high=self.max_noising_strength,
            shift=shift,
        )

    def rate_factor(self, step: float, total_steps: int) -> float:
        """What every rate is multiplied with in ``step`` (0 is the first) of ``total_steps``, 0 to 1."""
        return schedule_factor(
            step,
            scheduler=self.learning_rate_scheduler,
            total_steps=total_steps,
            warmup_steps=self.learning_rate_warmup_steps,
            cycles=self.learning_rate_cycles,
            min_factor=self.learning_rate_min_factor,
        )

    def trained_dtype(self) -> str:
        """The data type of what trains: of adapters, or in a fine-tune of the weights themselves."""
        if self.training_method == "FINE_TUNE":
            return self.transformer.weight_dtype
        return self.lora_weight_dtype

    def writes_folder(self) -> bool:
        """Whether the result is a folder, and not one file."""
        return self.output_model_format == FOLDER

    def autocasts(self) -> bool:
        """Whether the transformer computes under autocast: its products in bf16, norms and sums in fp32."""
        return self.train_dtype == "BFLOAT_16" and self.enable_autocast

    def profile(
        self,
        layout: BlockLayout,
        model: str = "this model",
        *,
        total_steps: int | None = None,
    ) -> Profile:
        """Return what multiplies the rate of every block, see ``profile_of``."""
        rates = {
            KEY: self.block_learning_rate_multiplier,
            PHASES_KEY: self.block_learning_rate_phases,
        }
        return profile_of(rates, layout, model, total_steps=total_steps)

    def first_rates(self) -> dict[str, float]:
        """The block rates that a run begins with."""
        if not self.block_learning_rate_phases:
            return self.block_learning_rate_multiplier
        rates: dict[str, float] = self.block_learning_rate_phases[0][KEY]
        return rates

    def layer_filter_in_effect(self) -> LayerFilter:
        """The filter that chooses modules: the text when there is one, else the preset's patterns."""
        if self.layer_filter.strip():
            patterns = split_patterns(self.layer_filter)
            return LayerFilter(patterns, regex=self.layer_filter_regex)
        return LayerFilter(PRESETS.get(self.layer_filter_preset, ()))
