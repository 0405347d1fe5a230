"""The command line of kohya's flux_train_network.py, for the same work as ours."""

from blockrate.core.blocks import BlockLayout
from device.kohya.race import RANK, RATE, Race

# see ours.FILTERS
FILTERS = {"all": [], "attention": ["network_reg_dims=(mlp|mod|linear2)=0"]}


def peer_arguments(race: Race, name: str) -> list[str]:
    """Return the words for a contestant, whose name tells what is frozen and which AdamW it takes."""
    words = []
    for key, value in values_of(race, name).items():
        words += [f"--{key}", str(value)]
    words += ["--sdpa", "--cache_latents", "--cache_text_encoder_outputs"]
    words += ["--network_train_unet_only", "--lowram"]
    if race.checkpointing:
        words += ["--gradient_checkpointing"]
    network = network_arguments(race, name)
    if network:
        words += ["--network_args", *network]
    if "-fused" in name:
        words += ["--optimizer_args", "fused=True"]
    return words + race.peer_words


def values_of(race: Race, name: str) -> dict[str, object]:
    return {
        "pretrained_model_name_or_path": "random",
        "clip_l": "random",
        "t5xxl": "random",
        "ae": "random",
        "train_data_dir": race.folder / "peer-images",
        "resolution": f"{race.pixels},{race.pixels}",
        "caption_extension": ".txt",
        "train_batch_size": 1,
        "output_dir": race.folder / name,
        "output_name": "lora",
        "network_module": "networks.lora_flux",
        "network_dim": RANK,
        "network_alpha": RANK,
        "learning_rate": RATE,
        "optimizer_type": "AdamW",
        "lr_scheduler": "constant",
        "max_train_steps": 1_000_000,
        "seed": 7,
        "mixed_precision": "bf16" if race.is_bf16 else "no",
        "guidance_scale": 1.0,
        "timestep_sampling": "flux_shift",
        "model_prediction_type": "raw",
        "t5xxl_max_token_length": race.text_tokens,
        "max_data_loader_n_workers": 0,
        "loss_type": "l2",
    }


def network_arguments(race: Race, name: str) -> list[str]:
    """Return which modules get adapters, and how the first half of the blocks is frozen."""
    chosen = list(FILTERS[race.modules])
    if "-by-index" in name:
        return chosen + trained_by_index(race.spec.layout, race.frozen_half)
    if "-half" in name:
        count = race.frozen_half - race.spec.layout.double
        singles = "|".join(str(index) for index in range(count))
        return [*chosen, f"network_reg_lrs=double_blocks_|single_blocks_({singles})_=0"]
    return chosen


def trained_by_index(layout: BlockLayout, frozen: int) -> list[str]:
    """Return the index lists of the blocks from ``frozen`` on."""
    doubles = index_range(frozen, layout.double)
    singles = index_range(max(frozen - layout.double, 0), layout.single)
    return [
        f"train_double_block_indices={doubles}",
        f"train_single_block_indices={singles}",
    ]


def index_range(first: int, count: int) -> str:
    """Return blocks ``first`` to the last of ``count``, as the peer writes it."""
    if first >= count:
        return "none"
    return f"{first}-{count - 1}"
