"""Every mistake of a user is one message with the right exit code, never a traceback, and no run is left behind."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from support.commands import EXAMPLES, Command

RATES = "block_learning_rate_multiplier"


def config_with(multipliers: str) -> Callable[[Path, Path], list[str]]:
    return lambda folder, model: [f"{RATES}={multipliers}"]


def empty_folder(folder: Path, model: Path) -> list[str]:
    (folder / "empty").mkdir()
    return [f"concepts.0.path={folder / 'empty'}"]


def bad_images(folder: Path, model: Path) -> list[str]:
    images = folder / "images"
    images.mkdir()
    Image.new("RGB", (64, 64), "red").save(images / "good.png")
    (images / "zero.png").write_bytes(b"")
    (images / "text.jpg").write_text("no picture", encoding="utf-8")
    Image.new("RGB", (64, 64)).save(images / "cut.png")
    (images / "cut.png").write_bytes((images / "cut.png").read_bytes()[:60])
    return [f"concepts.0.path={images}"]


def cp1252_caption(folder: Path, model: Path) -> list[str]:
    images = folder / "images"
    images.mkdir()
    Image.new("RGB", (64, 64), "red").save(images / "a.png")
    (images / "a.txt").write_bytes(b"it\x92s red")
    return [f"concepts.0.path={images}"]


def other_architecture(folder: Path, model: Path) -> list[str]:
    other = folder / "other" / "transformer"
    other.mkdir(parents=True)
    (other.parent / "model_index.json").write_text(
        '{"_class_name": "StableDiffusion3Pipeline"}', encoding="utf-8"
    )
    (other / "config.json").write_text(
        '{"_class_name": "SD3Transformer2DModel", "num_layers": 2}', encoding="utf-8"
    )
    return [f"base_model_name={other.parent}"]


def pickle_file(folder: Path, model: Path) -> list[str]:
    file = folder / "flux.ckpt"
    file.write_bytes(b"\x80\x02}q\x00.")
    return [f"transformer.model_name={file}"]


def scaled_fp8(folder: Path, model: Path) -> list[str]:
    import torch
    from safetensors.torch import save_file

    file = folder / "scaled.safetensors"
    names = ("double_blocks.0.img_attn.qkv", "single_blocks.0.linear1")
    tensors = {
        f"{name}.weight": torch.zeros(4, 4).to(torch.float8_e4m3fn) for name in names
    }
    save_file(
        {**tensors, "double_blocks.0.img_attn.qkv.scale_weight": torch.ones(1)}, file
    )
    return [f"transformer.model_name={file}"]


def lora_of_higher_rank(folder: Path, model: Path) -> list[str]:
    import torch
    from safetensors.torch import save_file

    name = "transformer.transformer_blocks.0.attn.to_q"
    tensors = {
        f"{name}.lora_A.weight": torch.zeros(32, 64),
        f"{name}.lora_B.weight": torch.zeros(64, 32),
    }
    save_file(tensors, folder / "start.safetensors")
    return [f"lora_model_name={folder / 'start.safetensors'}"]


def read_only_output(folder: Path, model: Path) -> list[str]:
    (folder / "file").write_text("", encoding="utf-8")
    return [f"output_model_destination={folder / 'file' / 'lora.safetensors'}"]


CASES = {
    "unknown block": (config_with('{"double_block_19": 0.5}'), 2, "double_block_18"),
    "too high": (config_with('{"double_block_1": 1.5}'), 2, "1.5"),
    "not a number": (config_with('{"double_block_1": NaN}'), 2, "double_block_1"),
    "a word": (config_with('{"double_block_1": "high"}'), 2, "high"),
    "everything frozen": (
        config_with(
            json.dumps(
                {
                    f"{kind}_block_{i}": 0.0
                    for kind, n in (("double", 19), ("single", 38))
                    for i in range(n)
                }
            )
        ),
        2,
        "",
    ),
    "Prodigy with rates": (lambda f, m: ["optimizer.optimizer=PRODIGY"], 2, "Prodigy"),
    "unknown key": (lambda f, m: ["learning_rat=1"], 2, "learning_rate"),
    "masked training": (lambda f, m: ["masked_training=true"], 2, "masked_training"),
    "empty folder": (empty_folder, 2, "empty"),
    "missing folder": (lambda f, m: [f"concepts.0.path={f / 'nowhere'}"], 2, "nowhere"),
    "bad images": (bad_images, 65, "zero.png"),
    "caption in cp1252": (cp1252_caption, 65, "a.txt"),
    "missing model": (
        lambda f, m: [f"base_model_name={f / 'no-model'}"],
        65,
        "no-model",
    ),
    "other architecture": (other_architecture, 65, "SD3Transformer2DModel"),
    "pickle": (pickle_file, 65, "flux.ckpt"),
    "scaled fp8": (scaled_fp8, 65, "scaled.safetensors"),
    "start of a higher rank": (lora_of_higher_rank, 2, "rank 32"),
    "no place to write": (read_only_output, 73, "is not a folder"),
}


@pytest.mark.parametrize("case", CASES)
def test_mistake_is_one_message_with_its_exit_code(
    case: str, small_run: Command, tmp_path: Path, tiny_flux: Path
) -> None:
    settings, code, word = CASES[case]
    done = small_run(
        EXAMPLES / "block_rates.json", tmp_path, *settings(tmp_path, tiny_flux)
    )
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert (done.code, len(errors)) == (code, 1), done.err
    assert word in done.err
    assert "Traceback" not in done.err + done.out
    assert not (tmp_path / "result.safetensors").exists()
    if done.run.exists():  # no model was loaded: not even an encoder
        assert not [
            event for event in done.events("phase") if event["name"] != "loading"
        ]
        assert not done.events("started")


def test_all_bad_images_are_named_at_once(
    small_run: Command, tmp_path: Path, tiny_flux: Path
) -> None:
    done = small_run(
        EXAMPLES / "block_rates.json", tmp_path, *bad_images(tmp_path, tiny_flux)
    )
    assert all(name in done.err for name in ("zero.png", "text.jpg", "cut.png"))
    assert "good.png" not in done.err.partition("error: ")[2]
