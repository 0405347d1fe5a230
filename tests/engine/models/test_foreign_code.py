"""A model folder is data: nothing in it is run, nothing is fetched for it, and nothing outside of it is read for it."""

import json
import os
import pickle
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.model_folders import (
    change_config,
    config_of,
    split_in_shards,
    write_index,
)

from blockrate.core.errors import FileError
from blockrate.engine.models import flux1
from blockrate.engine.models.locate import locate, prompt_identity

CPU = torch.device("cpu")
WITH_WEIGHTS = ["transformer", "vae", "text_encoder", "text_encoder_2"]
ENCODERS = WITH_WEIGHTS[2:]


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """No test reaches for the network: not the hub, not a name of a host."""
    calls: list[object] = []

    def refuse(*arguments: object, **_: object) -> Any:
        calls.append(arguments)
        raise OSError("there is no network in this test")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    yield calls
    assert calls == []


def load(folder: Path, part: str) -> list[Any]:
    """What a run loads of a model where a part is needed; of text also what a prompt becomes."""
    chosen = config_of(folder)
    files = locate(chosen)
    if part == "vae":
        vae = flux1.load_vae(files.parts["vae"], weight_dtype="FLOAT_32", device=CPU)
        return [vae]
    if part == "transformer":
        return [flux1.load_transformer(files, chosen, CPU)]
    encoders = flux1.load_text_encoders(files, chosen, CPU)
    embeds = flux1.encode_prompts(encoders, ["a cat on a sofa"])
    return [encoders.clip, encoders.t5, *embeds.values()]


def same(some: list[Any], others: list[Any]) -> bool:
    for one, other in zip(some, others, strict=True):
        if isinstance(one, torch.Tensor):
            if not torch.equal(one, other):
                return False
        else:
            found = other.state_dict()
            if not all(torch.equal(found[k], v) for k, v in one.state_dict().items()):
                return False
    return True


class Evil:
    """A pickle that writes a file when it is read."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.canary}'",)


SHARD_NAMES = [
    "sub/w.data",
    "sub/w.safetensors",
    "./model.safetensors",
    "../text_encoder_2/model.safetensors",
    "sub\\w.safetensors",
    "C:w.safetensors",
    "w.data",
    "w.bin",
    "model.safetensors.bin",
    "w.safetensors\0",
    ".",
    "",
    3,
    None,
    ["model.safetensors"],
]


@pytest.mark.parametrize("name", [*SHARD_NAMES, "/ABSOLUTE/w.safetensors"])
@pytest.mark.parametrize("part", ["vae", "text_encoder_2"])
def test_shards_named_by_paths_or_of_other_kinds_are_refused(
    folder: Path, tmp_path: Path, part: str, name: Any
) -> None:
    names: dict[str, Any] = dict(split_in_shards(folder, part, count=1))
    inside = folder / part
    [shard] = set(names.values())
    (inside / "sub").mkdir()
    canary = tmp_path / "canary"
    for place in ("sub/w.data", "w.bin"):
        (inside / place).write_bytes(pickle.dumps({"a": Evil(canary)}))
    # harmless files lie where a checker that cuts folders off would look
    for place in ("w.data", "w.safetensors", "sub/w.safetensors"):
        shutil.copy(inside / shard, inside / place)
    if isinstance(name, str):
        name = name.replace("/ABSOLUTE", str(tmp_path))
        shutil.copy(inside / shard, tmp_path / "w.safetensors")
    index = write_index(folder, part, {**names, next(iter(names)): name})
    with pytest.raises(FileError, match=r"not a \.safetensors file beside") as caught:
        load(folder, part)
    assert caught.value.where == str(index)
    assert not canary.exists()


@pytest.mark.parametrize("content", [[], {}, "x", None, 3])
def test_an_index_without_names_is_refused(folder: Path, content: Any) -> None:
    split_in_shards(folder, "text_encoder")
    write_index(folder, "text_encoder", content)
    with pytest.raises(FileError, match="has no weight_map"):
        load(folder, "text_encoder")


@pytest.mark.parametrize("part", WITH_WEIGHTS)
def test_pickles_beside_or_instead_of_the_weights_are_never_read(
    folder: Path, tmp_path: Path, part: str
) -> None:
    canary = tmp_path / "canary"
    evil = pickle.dumps(Evil(canary))
    for name in ("pytorch_model.bin", "model.ckpt", "diffusion_pytorch_model.bin"):
        (folder / part / name).write_bytes(evil)
    load(folder, part)
    for file in (folder / part).glob("*.safetensors"):
        file.write_bytes(evil)
    with pytest.raises(FileError):
        load(folder, part)
    for file in (folder / part).glob("*.safetensors"):
        file.unlink()
    with pytest.raises(FileError, match=r"lacks|no \.safetensors"):
        load(folder, part)
    assert not canary.exists()


@pytest.mark.parametrize("part", WITH_WEIGHTS)
@pytest.mark.parametrize("base", ["attacker/any-repo", "OTHER"])
def test_an_adapter_config_is_not_obeyed(
    folder: Path, tmp_path: Path, part: str, base: str
) -> None:
    before = load(folder, part)
    facts = {
        "peft_type": "LORA",
        "base_model_name_or_path": base.replace("OTHER", str(tmp_path / "other")),
        "target_modules": ["q_proj"],
        "r": 2,
        "auto_mapping": {"base_model_class": "Pwn", "parent_library": "evil"},
        "megatron_core": "evil.pwn",
    }
    (folder / part / "adapter_config.json").write_text(json.dumps(facts))
    (folder / part / "evil.py").write_text("raise SystemExit('run')")
    assert same(before, load(folder, part))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # between PEFT and transformers
def test_an_adapter_beside_clip_is_not_applied(folder: Path) -> None:
    before = load(folder, "text_encoder")
    torch.manual_seed(1)
    lora = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    model = get_peft_model(load(folder, "text_encoder")[0], lora)
    # else it asks the hub how large the model's vocabulary was
    model.save_pretrained(folder / "text_encoder", save_embedding_layers=False)
    assert (folder / "text_encoder/adapter_model.safetensors").is_file()
    assert same(before, load(folder, "text_encoder"))


@pytest.mark.parametrize("part", [*WITH_WEIGHTS, "tokenizer", "scheduler"])
def test_a_part_with_an_adapter_config_in_place_of_its_own_is_lacking(
    folder: Path, part: str
) -> None:
    for file in (folder / part).glob("*config.json"):
        file.rename(folder / part / "adapter_config.json")
    with pytest.raises(FileError):
        load(folder, part)


FOREIGN = {
    "auto_map": {"AutoModel": "evil.Pwn", "AutoConfig": "attacker/repo--evil.Pwn"},
    "trust_remote_code": True,
    "custom_pipeline": "evil",
    "_attn_implementation": "attacker/kernel",
    "attn_implementation": "attacker/kernel",
    "_attn_implementation_internal": "attacker/kernel",
    "_experts_implementation": "attacker/kernel",
    "transformers_weights": "../elsewhere.safetensors",
    "fusion_config": {"x": True},
    "_name_or_path": "attacker/any-repo",
    "_commit_hash": "main",
    "configuration_files": ["config.99.0.0.json"],
    "return_dict": False,
    "output_hidden_states": True,
    "custom_generate": "attacker/repo",
    "name_or_path": "attacker/any-repo",
}


@pytest.mark.parametrize("part", WITH_WEIGHTS)
def test_a_config_asks_for_foreign_code_in_vain(folder: Path, part: str) -> None:
    before = load(folder, part)
    (folder / part / "evil.py").write_text("raise SystemExit('run')")
    (folder / part / "config.99.0.0.json").write_text("{}")
    shutil.copytree(folder / part, folder / "elsewhere.safetensors")
    change_config(folder / part / "config.json", **FOREIGN)
    if part in ENCODERS:
        change_config(folder / part / "config.json", dtype="evil")
    assert same(before, load(folder, part))


@pytest.mark.parametrize(
    "facts",
    [
        {"tokenizer_file": "/etc/passwd", "vocab_file": "/etc/passwd"},
        {"merges_file": "/etc/passwd", "spm_file": "/etc/passwd"},
        {"auto_map": {"AutoTokenizer": ["evil.Pwn", None]}, "trust_remote_code": True},
        {"name_or_path": "attacker/repo", "_commit_hash": "main"},
        {"chat_template": "{{ ''.__class__.__mro__ }}", "tokenizer_class": "Pwn"},
    ],
)
@pytest.mark.parametrize("part", ["tokenizer", "tokenizer_2"])
def test_a_tokenizer_asks_for_foreign_files_in_vain(
    folder: Path, part: str, facts: dict[str, Any]
) -> None:
    before = load(folder, part)
    (folder / part / "evil.py").write_text("raise SystemExit('run')")
    change_config(folder / part / "tokenizer_config.json", **facts)
    assert same(before, load(folder, part))


@pytest.mark.parametrize("part", WITH_WEIGHTS)
@pytest.mark.parametrize(
    "facts",
    [
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        {"quant_method": "gptq"},
        {"quant_method": "evil"},
        {},
        "x",
    ],
)
def test_a_quantization_config_is_one_sentence_in_every_part(
    folder: Path, part: str, facts: Any
) -> None:
    change_config(folder / part / "config.json", quantization_config=facts)
    with pytest.raises(FileError, match="already quantized") as caught:
        load(folder, part)
    assert caught.value.where == str(folder / part / "config.json")


def test_a_quantization_config_of_nothing_is_none(folder: Path) -> None:
    for part in WITH_WEIGHTS:
        change_config(folder / part / "config.json", quantization_config=None)
    for part in WITH_WEIGHTS[:3]:
        load(folder, part)


@pytest.mark.parametrize("part", ENCODERS)
def test_what_no_loader_reads_changes_no_identity(folder: Path, part: str) -> None:
    chosen = config_of(folder)
    before = prompt_identity(locate(chosen), chosen)
    (folder / part / "adapter_config.json").write_text("{}")
    assert prompt_identity(locate(chosen), chosen) == before


@pytest.mark.parametrize("part", WITH_WEIGHTS)
def test_links_lead_the_checker_and_the_loader_to_the_same_file(
    folder: Path, tmp_path: Path, part: str
) -> None:
    """As the hub's own cache has them."""
    before = load(folder, part)
    [file] = (folder / part).glob("*.safetensors")
    blob = tmp_path / "blob"
    file.rename(blob)
    try:
        file.symlink_to(blob)
    except OSError:
        pytest.skip("this system makes no links")
    assert same(before, load(folder, part))
    content = bytearray(blob.read_bytes())
    blob.write_bytes(content[:100])
    with pytest.raises(FileError):
        load(folder, part)


@pytest.mark.parametrize("part", [*WITH_WEIGHTS, "tokenizer_2", "scheduler"])
def test_a_pipe_for_a_config_is_waited_for_by_nobody(folder: Path, part: str) -> None:
    [file] = (folder / part).glob("*config.json")
    file.unlink()
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no pipes")
    os.mkfifo(file)
    with pytest.raises(FileError):
        load(folder, part)


def test_a_model_of_this_computer_loads_without_a_network(folder: Path) -> None:
    embeds = load(folder, "text_encoder")[-2:]
    assert all(tensor.isfinite().all() for tensor in embeds)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
@pytest.mark.parametrize(
    "name", ["tokenizer.json", "special_tokens_map.json", "vocab.json", "spiece.model"]
)
def test_a_pipe_in_a_tokenizer_is_waited_for_by_nobody(folder: Path, name: str) -> None:
    file = folder / "tokenizer_2" / name
    file.unlink(missing_ok=True)
    os.mkfifo(file)
    with pytest.raises(FileError, match=f"{name} is not a plain file"):
        load(folder, "text_encoder")


@pytest.mark.parametrize(
    "memo", ["[]", "{", "3", '{"FILE": 3}', '{"FILE": [1, 2, 3]}', "[" * 100_000, None]
)
def test_a_memo_of_hashes_that_is_none_is_made_anew(
    folder: Path, memo: str | None
) -> None:
    chosen = config_of(folder)
    expected = prompt_identity(locate(chosen), chosen)
    file = Path(chosen.cache_dir) / "file-hashes.json"
    weights = folder.resolve() / "text_encoder/model.safetensors"
    if memo is None:
        rows = json.loads(file.read_bytes())
        rows[str(weights)][3] = 7
        memo = json.dumps(rows)
    file.write_text(memo.replace("FILE", str(weights)))
    assert prompt_identity(locate(chosen), chosen) == expected
