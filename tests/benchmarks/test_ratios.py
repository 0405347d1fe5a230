"""The ratios that goals are about are printed by the benchmarks, round by round, and not divided by hand."""

import io

import pytest
from device.kohya.contestant import Contestant, Figures
from device.kohya.parts import WORK
from device.kohya.table import print_table, rows_of
from step_time import BARE, OURS, PEERS, PLAIN, Case, goal_rows

pytestmark = pytest.mark.engine


def steps(*seconds: float) -> Case:
    """Steps whose processor time is twice the clock's, and half of which is work."""
    wall = list(seconds)
    processor = [2 * one for one in wall]
    return Case(wall, processor, [one / 2 for one in wall], wall)


def test_goals_compare_step_by_step_in_turns_and_by_medians_of_a_round_elsewhere() -> (
    None
):
    script = next(iter(PEERS))
    rounds = [
        {
            OURS: steps(1.0, 2.0),
            BARE: steps(1.0, 2.0),
            PLAIN: steps(0.5, 1.0),
            script: steps(3.0, 3.0, 3.0),
        },
        {
            OURS: steps(4.0, 4.0),
            BARE: steps(4.0, 4.0),
            PLAIN: steps(2.0, 2.0),
            script: steps(8.0, 8.0, 8.0),
        },
    ]
    two = "2.000 (2.000-2.000)"
    half = "0.500 (0.500-0.500)"
    one = "1.000 (1.000-1.000)"
    assert goal_rows(rounds) == [
        [f"blockrate / {BARE}", one, one, "4", "<= 1.03"],
        [f"blockrate / {PLAIN}", two, two, "4", "<= 1.05"],
        [f"blockrate / {script}", half, half, "2", "<= 0.9"],
    ]


def test_race_tells_ratios_to_the_first_and_to_the_quiet_peer() -> None:
    contestants = {}
    for name, seconds in (("bare-ours", 1.0), ("ours", 2.0), ("quiet-peer", 4.0)):
        contestant = Contestant(name, io.StringIO())
        times = [seconds, seconds]
        contestant.figures = Figures(times, times, {WORK: times}, [0, 0])
        contestants[name] = contestant
    rows = rows_of(contestants, "bare-ours", is_on_gpu=False)
    ours = rows[1].columns
    assert ours["of bare-ours"] == ours["processor, of bare-ours"]
    assert ours["of bare-ours"] == "2.000 (2.000-2.000)"
    assert ours["of quiet-peer"] == ours["processor, of quiet-peer"]
    assert ours["of quiet-peer"] == "0.500 (0.500-0.500)"
    screen = io.StringIO()
    print_table(rows, screen)
    assert "| of quiet-peer |" in screen.getvalue()
    # the first is told once, whoever it is
    again = rows_of(contestants, "quiet-peer", is_on_gpu=False)
    assert [key for key in again[0].columns if key.startswith("of quiet")] == [
        "of quiet-peer"
    ]
