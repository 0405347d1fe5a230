"""The command line: results on stdout, the rest on stderr, one line and a code for a mistake."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from support.commands import SMALL_ENGINE
from support.event_lines import event_lines
from support.image_zoo import picture
from support.small_lora import lora_file

from blockrate.cli.show import View
from blockrate.run.events import (
    Event,
    Phase,
    Record,
    Skipped,
    Step,
    Validated,
)
from blockrate.run.folder import RunFolder, is_alive, read_json
from blockrate.run.process import run_state

REPOSITORY = Path(__file__).parents[2]
CONFIG = {
    "base_model_name": "tiny-flux1",
    "workspace_dir": "run",
    "layer_filter_preset": "blocks",
    "concepts": [{"path": "photos"}],
    "block_learning_rate_multiplier": {
        "double_block_0": 0.0,
        "double_block_1": 0.0,
        "single_block_37": 0.5,
    },
}
posix = pytest.mark.skipif(os.name == "nt", reason="signals")
Blockrate = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a config, and an engine that needs no torch."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    picture(tmp_path / "photos" / "a.png", 1024, 1024)
    (tmp_path / "photos" / "a.txt").write_text("a dog")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BLOCKRATE_ENGINE", SMALL_ENGINE)
    return tmp_path


@pytest.fixture
def started(
    folder: Path, request: pytest.FixtureRequest
) -> "Iterator[subprocess.Popen[str]]":
    """``blockrate train`` with slow steps as a process of its own, alone in its process group, once it is training."""
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from blockrate.cli.commands import main; main()",
            "train",
            "config.json",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "SMALL_TRAINER": getattr(request, "param", "slow")},
    ) as process:
        try:
            wait_for(
                lambda: (
                    process.poll() is not None
                    or run_state(RunFolder(folder / "run")).name == "Running"
                )
            )
            yield process
        finally:
            process.kill()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def kinds(folder: Path) -> list[str]:
    return [event["type"] for event in event_lines(folder / "run" / "events.jsonl")]


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    script = """
import atexit, sys
atexit.register(lambda: print("LOADED", *{name.partition(".")[0] for name in sys.modules}))
sys.argv[1:] = ["--help"]
from blockrate.cli.commands import main
main()
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    text, _, loaded = ended.stdout.partition("LOADED")
    assert all(
        command in text
        for command in ("demo", "train", "plan", "inspect", "status", "stop")
    )
    heavy = {
        "torch",
        "nicegui",
        "diffusers",
        "transformers",
        "peft",
        "pydantic",
        "numpy",
        "psutil",
    }
    assert not heavy & set(loaded.split())


def test_train_prints_the_files_it_made_and_nothing_else(
    blockrate: Blockrate, folder: Path
) -> None:
    code, out, err = blockrate("train", "config.json")
    assert (code, out) == (0, f"{folder / 'run' / 'out.safetensors'}\n")
    assert "training 20/20" in err
    assert "loss 0.0500" in err
    config = json.loads((folder / "run" / "config.json").read_text())
    assert (
        config["block_learning_rate_multiplier"]
        == CONFIG["block_learning_rate_multiplier"]
    )


def test_a_setting_on_the_command_line_reaches_the_run(
    blockrate: Blockrate, folder: Path
) -> None:
    assert (
        blockrate(
            "train",
            "config.json",
            "--set",
            "lora_rank=3",
            "--set",
            "workspace_dir=other",
        )[0]
        == 0
    )
    assert json.loads((folder / "other" / "config.json").read_text())["lora_rank"] == 3


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["train", "nowhere"],
            2,
            "error: nowhere: there is no such file, preset or example. Known names: ",
        ),
        (["train", "config.json", "--set", "lora_rnk=3"], 2, "lora_rank"),
        (
            [
                "train",
                "config.json",
                "--set",
                "block_learning_rate_multiplier.double_block_19=1",
            ],
            2,
            "double_block_19",
        ),
        (
            [
                "plan",
                "config.json",
                "--set",
                "block_learning_rate_multiplier.other=high",
            ],
            2,
            "other",
        ),
        (["inspect", "nowhere.safetensors"], 65, "nowhere.safetensors"),
        (["inspect", "config.json"], 65, "config.json"),
        (["inspect", "photos"], 65, "photos: is a folder. Give inspect the LoRA file"),
        (["status", "nowhere"], 2, "there is no such run folder"),
        (["stop", "nowhere"], 2, "there is no such run folder"),
        (["train"], 2, "error: Missing argument 'CONFIG'. Name a config file"),
        (["train", "config.json", "--frsh"], 2, "--frsh"),
        (["trian"], 2, "trian"),
        (["train", "config.json", "--reset-optimizer", "some"], 2, "'new', 'all'"),
    ],
)
def test_a_mistake_is_one_message_and_a_code_before_anything_starts(
    blockrate: Blockrate, folder: Path, arguments: list[str], code: int, message: str
) -> None:
    ended, out, err = blockrate(*arguments)
    assert (ended, out) == (code, "")
    assert message in err
    assert err.count("error:") == len(err.splitlines()) == 1
    assert "Traceback" not in err
    assert not (folder / "run").exists()


def test_a_folder_that_cannot_be_written_is_code_73(
    blockrate: Blockrate, folder: Path
) -> None:
    (folder / "run").write_text("a file")
    code, _, err = blockrate("train", "config.json")
    assert code == 73
    assert "cannot be written" in err


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--help"], 0), (["train", "--help"], 0), ([], 2)]
)
def test_help_is_shown_where_it_is_asked_for(
    blockrate: Blockrate, arguments: list[str], code: int
) -> None:
    ended, out, err = blockrate(*arguments)
    assert ended == code
    assert "Usage" in out + err
    assert "error:" not in err


def test_without_a_terminal_a_line_is_not_said_again_after_a_save(
    capsys: pytest.CaptureFixture[str],
) -> None:
    view = View()
    training = Phase("training", 1, 10)
    sampling = Phase("sampling")
    later = Phase("training", 2, 10)
    for event in [training, sampling, training, sampling, later]:
        view.show(Record(event))
    assert capsys.readouterr().err.splitlines() == [
        "training 1/10",
        "sampling",
        "training 2/10",
    ]


@pytest.mark.parametrize("number", [None, -1e300, 0.0, 1e-300, 1e308])
@pytest.mark.parametrize("whole", [-(2**62), 0, 2**62])
def test_the_oddest_numbers_of_a_file_are_shown(
    number: float | None, whole: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """A damaged file may hold them; that is no reason to leave a run that trains."""
    view = View()
    events: list[Event] = [
        Phase("training", whole, 2**62),
        Step(number, number, number, number or 0.0),
        Validated(number),
        Skipped("odd", ["a.png"]),
    ]
    for event in events:
        view.show(Record(event, whole))
    assert f"step {whole}: validation loss" in capsys.readouterr().err


def test_dir_shows_the_public_names_without_torch() -> None:
    script = "import blockrate, sys; print('torch' in sys.modules, {*blockrate.__all__} <= {*dir(blockrate)})"
    assert subprocess.check_output(
        [sys.executable, "-c", script], text=True
    ).split() == ["False", "True"]


@pytest.mark.parametrize(
    ("trainer", "code"), [("nan", 76), ("full", 73), ("fault", 1), ("config", 2)]
)
def test_a_failed_run_ends_with_its_code_and_one_error(
    blockrate: Blockrate, trainer: str, code: int
) -> None:
    ended, out, err = blockrate("train", "config.json", trainer=trainer)
    assert (ended, out) == (code, "")
    assert err.count("error:") == 1
    assert "Traceback" not in err


def test_the_ways_on_from_a_failure_are_options_of_the_command(
    blockrate: Blockrate,
) -> None:
    code, _, err = blockrate("train", "config.json", trainer="gone")
    told = "run: all are gone. Find them. Or start anew with --fresh: the earlier run"
    assert code == 74
    assert f"error: {told}" in err
    assert blockrate("status", "run")[1].startswith(f"Failed: {told}")
    state = json.loads(blockrate("status", "run", "--json")[1])
    assert (state["sentence"], state["ways_on"]) == (
        "run: all are gone. Find them.",
        ["fresh"],
    )


def test_the_engine_that_asks_for_fresh_moments_names_the_option(
    blockrate: Blockrate,
) -> None:
    code, _, err = blockrate("train", "config.json", trainer="moments")
    assert code == 2
    assert "error: optimizer: does not fit. Or add --reset-optimizer all: the" in err


def test_an_earlier_run_is_never_mixed_with_a_new_one(
    blockrate: Blockrate, folder: Path
) -> None:
    blockrate("train", "config.json")
    before = (folder / "run" / "events.jsonl").read_bytes()
    code, out, err = blockrate("train", "config.json")
    assert (code, out) == (2, "")
    assert "--fresh" in err
    assert (folder / "run" / "events.jsonl").read_bytes() == before
    assert blockrate("train", "config.json", "--fresh")[0] == 0
    (aside,) = (folder / "run" / "earlier").iterdir()
    assert (aside / "events.jsonl").read_bytes() == before


@posix
def test_ctrl_c_is_handed_on_once_and_the_run_stops_after_its_step(
    folder: Path, started: "subprocess.Popen[str]"
) -> None:
    os.killpg(started.pid, signal.SIGINT)
    out, err = started.communicate()
    assert (started.returncode, out) == (75, "")
    assert err.count("Stopping after this step") == 1
    assert "The same command goes on where it was." in err
    assert "Traceback" not in err
    assert kinds(folder)[-2:] == ["step", "stopped"]


@pytest.mark.cases(2)
@posix
@pytest.mark.parametrize("name", ["SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGTERM"])
def test_a_clusters_signal_to_every_process_at_once_is_one_stop(
    folder: Path, started: "subprocess.Popen[str]", name: str
) -> None:
    """Clusters, and systemd, send it to the command and to the engine, in a session of its own or not."""
    engine = read_json(RunFolder(folder / "run").who_file)["pid"]
    for process in (started.pid, engine):
        os.kill(process, getattr(signal, name))
    out, err = started.communicate()
    assert (started.returncode, out) == (75, "")
    assert "The same command goes on where it was." in err
    assert kinds(folder)[-2:] == ["step", "stopped"]


# the console script with one part of the start that takes its time
SLOWLY = """
import sys, time
from blockrate.run import launch
from blockrate.cli.commands import main

def slow(*arguments, part=launch.{part}, **options):
    print("waits", file=sys.stderr, flush=True)
    time.sleep({seconds})
    return part(*arguments, **options)

launch.{part} = slow
sys.argv[1:] = ["train", "config.json"]
main()
"""


def interrupted(part: str, seconds: int, number: int) -> tuple[int, str]:
    """Give exit code and stderr of a train that gets a signal while ``part`` of launch waits."""
    script = SLOWLY.format(part=part, seconds=seconds)
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SMALL_TRAINER": "slow"},
    ) as process:
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
            assert said == "waits\n"
            process.send_signal(number)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    return process.returncode, err


@posix
@pytest.mark.parametrize("part", ["make_plan", "prepare"])
def test_ctrl_c_before_there_is_an_engine_ends_the_command(
    folder: Path, part: str
) -> None:
    code, err = interrupted(part, 60, signal.SIGINT)
    assert code == 130
    assert "Traceback" not in err
    assert not (folder / "run").exists()


@posix
def test_sigterm_before_there_is_an_engine_ends_the_command(folder: Path) -> None:
    assert interrupted("prepare", 60, signal.SIGTERM)[0] == -signal.SIGTERM
    assert not (folder / "run").exists()


@posix
def test_ctrl_c_that_comes_with_the_start_reaches_the_engine(folder: Path) -> None:
    code, err = interrupted("start_engine", 1, signal.SIGINT)
    assert code == 75
    assert err.count("Stopping after this step") == 1
    assert kinds(folder)[-1] == "stopped"


@posix
@pytest.mark.parametrize("started", ["stuck"], indirect=True)
def test_a_second_ctrl_c_leaves_at_once(
    folder: Path, started: "subprocess.Popen[str]"
) -> None:
    os.killpg(started.pid, signal.SIGINT)
    wait_for(lambda: run_state(RunFolder(folder / "run")).name == "Stopping")
    os.killpg(started.pid, signal.SIGTERM)
    _, err = started.communicate()
    assert started.returncode == 130
    assert "Traceback" not in err
    assert "stopped" not in kinds(folder)


@posix
def test_a_killed_terminal_leaves_the_run_and_train_shows_it_again(
    blockrate: Blockrate, folder: Path, started: "subprocess.Popen[str]"
) -> None:
    started.kill()
    started.communicate()
    run = RunFolder(folder / "run")
    assert is_alive(run)
    code, out, _ = blockrate("status", "run", "--json")
    assert (code, json.loads(out)["state"]) == (0, "Running")
    code, out, err = blockrate("train", "config.json")
    assert (code, out) == (0, f"{run.path / 'out.safetensors'}\n")
    assert "A run is at work" in err
    assert "Ctrl-C stops that run" in err
    assert kinds(folder).count("started") == 1


@pytest.mark.cases(2)
@pytest.mark.usefixtures("started")
@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("learning_rate=0.5", "learning_rate: the run at work has 0.0003"),
        ("concepts.0.path=photos/..", "concepts.0.path: the run at work has 'photos'"),
        ("epochs=7", "epochs: the run at work has 100, the config says 7"),
        ("output_model_destination=other.safetensors", "output_model_destination"),
    ],
)
def test_a_run_at_work_answers_for_no_other_config(
    blockrate: Blockrate, folder: Path, setting: str, told: str
) -> None:
    code, out, err = blockrate("train", "config.json", "--set", setting)
    assert (code, out) == (2, "")
    assert told in err
    assert "choose another workspace_dir" in err
    assert kinds(folder).count("started") == 1


def test_stop_asks_a_living_run_and_leaves_a_dead_one(
    blockrate: Blockrate, folder: Path, started: "subprocess.Popen[str]"
) -> None:
    assert blockrate("stop", "run") == (
        0,
        "",
        "Asked it to stop after the current step.\n",
    )
    started.communicate()
    assert started.returncode == 75
    assert blockrate("stop", "run") == (0, "", "Nothing is running in run.\n")
    assert list((folder / "run" / "commands").iterdir()) == []
    assert blockrate("status", "run")[1].startswith("Stopped at step ")


@posix
def test_an_engine_that_is_killed_is_told(
    folder: Path, started: "subprocess.Popen[str]"
) -> None:
    os.kill(read_json(RunFolder(folder / "run").who_file)["pid"], signal.SIGKILL)
    _, err = started.communicate()
    assert started.returncode == 137
    assert "killed by signal 9" in err
    assert "log.txt" in err


def test_plan_prints_the_object_of_the_interface(blockrate: Blockrate) -> None:
    code, out, _ = blockrate("plan", "config.json", "--json")
    plan = json.loads(out)
    assert code == 0
    assert set(plan) == {
        "model", "model_parameters",
        "model_type", "training_method", "base_learning_rate", "groups", "layers", "layers_let_through",
        "blocks_let_through", "first_trained_block", "memory_bytes", "memory_bytes_all_ones", "host_bytes",
        "streaming", "gpus", "other_cost", "phases",
        "step_cost", "warnings", "encoding_bytes",
        "data", "cards",
    }  # fmt: skip
    assert plan["first_trained_block"] == "double_block_2"


@pytest.mark.parametrize("command", ["plan", "train"])
def test_a_destination_that_cannot_be_is_told_before_anything_starts(
    blockrate: Blockrate, folder: Path, command: str
) -> None:
    where = "output_model_destination"
    (folder / "file").write_text("")
    for value, problem in [
        ("photos", "photos: is a folder. Set output_model_destination to a name that"),
        (
            "file/my.safetensors",
            "is not a folder, so nothing can be written in it. Set output_",
        ),
        ("models/my", "Set output_model_destination to models/my.safetensors."),
    ]:
        code, out, err = blockrate(command, "config.json", "--set", f"{where}={value}")
        assert (code, out) == (73, "")
        assert problem in err
    assert not RunFolder(folder / "run").config_file.exists()
    assert not (folder / "models").exists()


@pytest.mark.parametrize("command", ["plan", "train"])
def test_a_file_in_the_way_is_told(
    blockrate: Blockrate, folder: Path, command: str
) -> None:
    (folder / "my.safetensors").write_text("another run's")
    option = "output_model_destination=my.safetensors"
    code, _, err = blockrate(command, "config.json", "--set", option)
    assert code == 0
    assert "warning: there is a my.safetensors already, which is not of this run" in err
    assert "under the next free number" in err


def test_plan_says_which_blocks_the_filter_lets_through(blockrate: Blockrate) -> None:
    _, out, _ = blockrate("plan", "config.json")
    line = (
        "the layer filter lets through 494 of 504 layers, in: double 0-18; single 0-37"
    )
    assert line in out.splitlines()
    seventh = ["layer_filter=transformer_blocks.7", "block_learning_rate_multiplier={}"]
    settings = [word for setting in seventh for word in ("--set", setting)]
    _, out, err = blockrate("plan", "config.json", *settings)
    line = "the layer filter lets through 20 of 504 layers, in: double 7; single 7"
    assert line in out.splitlines()
    assert "For double 7 alone write '^transformer_blocks[.]7[.]'" in err


def test_configs_that_choose_no_folder_have_runs_of_their_own(
    blockrate: Blockrate, folder: Path
) -> None:
    """As saved configs do: they hold the defaults."""
    saved = {**CONFIG, "workspace_dir": "workspace/run"}
    for name, rate in [("a/my.json", 1e-3), ("b/my.json", 2e-3), ("other.json", 3e-3)]:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps({**saved, "learning_rate": rate}))
    runs = {"a/my.json": "my", "b/my.json": "my-2", "other.json": "other"}
    for name, run in runs.items():
        code, out, err = blockrate("train", name)
        assert code == 0
        assert f"workspace/{run}" in err
        assert out == f"{folder / 'workspace' / run / 'out.safetensors'}\n"
    for name, run in runs.items():
        assert f"result models/{run}.safetensors" in blockrate("plan", name)[1]
        code, _, err = blockrate("status", name)
        assert code == 2
        assert f"Did you mean workspace/{run}, its workspace_dir?" in err
        own = read_json(RunFolder(folder / "workspace" / run).config_file)
        assert own["learning_rate"] == read_json(folder / name)["learning_rate"]
    assert "of this config is in workspace/my-2" in blockrate("plan", "b/my.json")[2]


def test_the_own_config_of_a_run_shows_that_run(
    blockrate: Blockrate, folder: Path
) -> None:
    (folder / "my.json").write_text(
        json.dumps({**CONFIG, "workspace_dir": "workspace/run"})
    )
    assert blockrate("train", "my.json")[0] == 0
    out = blockrate("plan", "workspace/my/config.json")[1]
    assert "run folder workspace/my, result models/my.safetensors" in out
    assert not (folder / "workspace" / "config").exists()


def test_plan_shows_equal_neighbours_as_one_row(blockrate: Blockrate) -> None:
    lines = [line.split() for line in blockrate("plan", "config.json")[1].splitlines()]
    rows = {
        line[0]: line[1:] for line in lines if len(line) == 5 and "block" in line[0]
    }
    assert list(rows) == [
        "double_block_0-1",
        "double_block_2-18",
        "single_block_0-36",
        "single_block_37",
    ]
    assert rows["double_block_0-1"] == ["0", "0", "-", "frozen"]
    assert rows["single_block_37"][1:] == ["0.5", "1.50e-04", "trained"]


def test_inspect_shows_bars_and_the_profile(blockrate: Blockrate, folder: Path) -> None:
    norms = lora_file(folder / "lora.safetensors")
    report = json.loads(blockrate("inspect", "lora.safetensors", "--json")[1])
    assert set(report) == {
        "format",
        "rank",
        "blocks",
        "other",
        "multipliers",
        "base_model",
        "config_hash",
        "unknown_tensors",
        "notes",
    }
    assert report["blocks"] == pytest.approx(norms)
    rows = [
        line.split()
        for line in blockrate("inspect", "lora.safetensors")[1].splitlines()
        if "_block_" in line
    ]
    assert rows == [
        ["double_block_2", "3", "1", "█" * 32],
        ["single_block_37", "1.5", "0.5", "█" * 16],
    ]


def test_inspect_tells_what_the_norms_leave_out(
    blockrate: Blockrate, folder: Path
) -> None:
    lora_file(folder / "lora.safetensors", {"epoch": np.array(3)})
    note = (
        "Without 1 tensor that blockrate does not understand: the norms may be too "
        "small. The first is epoch."
    )
    assert note in blockrate("inspect", "lora.safetensors")[1].splitlines()
    report = json.loads(blockrate("inspect", "lora.safetensors", "--json")[1])
    assert (report["unknown_tensors"], report["notes"]) == (1, [note])


def test_presets_and_examples_are_found_by_name_from_any_folder(
    blockrate: Blockrate,
) -> None:
    for name in ("flux_lora", "lora_style"):
        code, out, err = blockrate("plan", name, "--json")
        assert code == 0
        assert all("far smaller than" in line for line in err.splitlines())
        assert json.loads(out)["training_method"] == "LORA"
    code, _, err = blockrate("plan", "lora_stile")
    assert code == 2
    assert "lora_stile: there is no such file, preset or example" in err
    assert "flux_fine_tune" in err
    assert "lora_style" in err
