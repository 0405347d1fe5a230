"""Words for settings and their values: one rule, and a table where the rule reads badly."""

# By path, or by the last name of any path.
LABELS = {
    "base_model_name": "Base model",
    "transformer.weight_dtype": "Transformer weights",
    "transformer.train": "Train the transformer",
    "transformer.learning_rate": "Transformer learning rate",
    "transformer.model_name": "Transformer from",
    "transformer.guidance_scale": "Guidance in training",
    "transformer.stop_training_after_unit": "Unit",
    "text_encoder.weight_dtype": "CLIP weights",
    "text_encoder.model_name": "CLIP from",
    "text_encoder.dropout_probability": "CLIP caption dropout",
    "text_encoder_2.weight_dtype": "T5 weights",
    "text_encoder_2.model_name": "T5 from",
    "text_encoder_2.dropout_probability": "T5 caption dropout",
    "text_encoder_2_sequence_length": "T5 sequence length",
    "vae.weight_dtype": "VAE weights",
    "vae.model_name": "VAE from",
    "optimizer.optimizer": "Optimizer",
    "workspace_dir": "Run folder",
    "cache_dir": "Cache folder",
    "only_cache": "Only fill the cache",
    "train_device": "Device",
    "tensorboard": "TensorBoard",
    "samples_to_tensorboard": "Samples to TensorBoard",
    "output_model_destination": "Output file",
    "output_model_format": "Output format",
    "output_dtype": "Output precision",
    "train_dtype": "Training precision",
    "compile": "Compile the transformer",
    "learning_rate_scheduler": "Learning Rate Scheduler",
    "learning_rate_warmup_steps": "Warm-up steps",
    "learning_rate_cycles": "Cycles",
    "learning_rate_min_factor": "Floor",
    "gradient_accumulation_steps": "Accumulation steps",
    "clip_grad_norm": "Gradient clipping",
    "ema_update_step_interval": "EMA update interval",
    "layer_filter": "Pattern",
    "layer_filter_preset": "Layer Filter",
    "layer_filter_regex": "Regular expression",
    "block_learning_rate_multiplier": "Block learning rates",
    "lora_model_name": "Start from LoRA",
    "lora_rank": "LoRA rank",
    "lora_alpha": "LoRA alpha",
    "dropout_probability": "LoRA dropout",
    "log_cosh_strength": "Log-cosh strength",
    "loss_weight_fn": "Loss weight",
    "timestep_distribution": "Timestep Distribution",
    "noising_weight": "Spread",
    "noising_bias": "Bias",
    "min_noising_strength": "Least noise",
    "max_noising_strength": "Most noise",
    "concept_file_name": "Concepts file",
    "sample_definition_file_name": "Samples file",
    "sample_after": "Sample every",
    "sample_skip_first": "Skip the first samples",
    "non_ema_sampling": "Sample without EMA too",
    "validate_after": "Validate every",
    "backup_after": "Checkpoint every",
    "rolling_backup": "Delete old checkpoints",
    "rolling_backup_count": "Checkpoints to keep",
    "save_every": "Export every",
    "save_skip_first": "Skip the first exports",
    "save_filename_prefix": "Prefix of exports",
    "telemetry_every": "Report blocks every",
    "path": "Folder",
    "include_subdirectories": "Sub-folders too",
    "balancing": "Repeats",
    "balancing_strategy": "Repeats are",
    "enable_crop_jitter": "Random crop",
    "enable_random_flip": "Random flip",
    "enable_fixed_flip": "Mirror all",
    "enable_resolution_override": "Own resolution",
    "resolution_override": "Resolution",
    "prompt_source": "Captions from",
    "prompt_path": "Caption file",
    "enable_tag_shuffling": "Shuffle tags",
    "keep_tags_count": "Tags to keep first",
    "diffusion_steps": "Steps",
    "cfg_scale": "Guidance",
    "min_8bit_size": "Least size for 8 bit",
    "is_paged": "Paged state",
}
OPTION_LABELS = {
    "LORA": "LoRA",
    "FINE_TUNE": "Fine-tune",
    "FLUX_DEV_1": "FLUX.1-dev",
    "FLUX_SCHNELL_1": "FLUX.1-schnell",
    "DIFFUSERS_LORA": "Diffusers LoRA",
    "KOHYA_LORA": "Kohya LoRA",
    "DIFFUSERS": "Diffusers folder",
    "FLOAT_32": "float32",
    "BFLOAT_16": "bfloat16",
    "FLOAT_16": "float16",
    "FLOAT_8": "float8",
    "NFLOAT_4": "nf4 (4 bit)",
    "ADAMW": "AdamW",
    "ADAMW_8BIT": "AdamW 8-bit",
    "CAME": "CAME",
    "LION_8BIT": "Lion 8-bit",
    "SCHEDULE_FREE_ADAMW": "Schedule-free AdamW",
    "SGD": "SGD",
    "GPU": "On the GPU",
    "CPU": "On the CPU",
    "BOTH": "Both",
    "LOGIT_NORMAL": "Logit-normal",
    "EPOCH": "epochs",
    "STEP": "steps",
    "SECOND": "seconds",
    "MINUTE": "minutes",
    "HOUR": "hours",
    "NEVER": "never",
    "ALWAYS": "always",
    "sample": "A .txt per image",
    "concept": "One text file",
    "filename": "File names",
}
_FLAGS = {None: "Usual", True: "On", False: "Off"}
_SPELLINGS = {"ema": "EMA", "lora": "LoRA", "vae": "VAE", "mse": "MSE", "mae": "MAE", "cfg": "CFG", "adamw": "AdamW"}


def label_of(path: str) -> str:
    """What a setting is called in the interface."""
    last = path.rpartition(".")[2]
    return LABELS.get(path) or LABELS.get(last) or _sentence(last)


def option_label(value: str | bool | None) -> str:
    """What a value of a choice is called; a value in small letters is a word of the field and stays."""
    if value is None or isinstance(value, bool):
        return _FLAGS[value]
    return OPTION_LABELS.get(value) or (_sentence(value) if value.isupper() else value)


def _sentence(name: str) -> str:
    words = name.lower().split("_")
    text = " ".join(_SPELLINGS.get(word, word) for word in words)
    return text[:1].upper() + text[1:]
