"""The simulator is to be trusted: equal seeds give equal traces, and what it reports happened."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from p2phub.testing.simulator import SimulatedNode, Trace, Weather, World, simulate
from p2phub.testing.simulator.__main__ import main
from p2phub.testing.simulator.measures import Measure
from p2phub.testing.simulator.scenarios import SCENARIOS, partition
from p2phub.testing.simulator.world import Unmet

ROOT = Path(__file__).parent.parent.parent


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "p2phub.testing.simulator", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def test_equal_seeds_give_equal_traces_and_others_give_others(tmp_path):
    def trace(seed: int, hash_seed: str) -> str:
        file = tmp_path / f"{seed}-{hash_seed}"
        options = ["--nodes", "6", "--seed", str(seed), "--trace", "all", "--trace-to", str(file)]
        done = run("spread", *options, PYTHONHASHSEED=hash_seed)
        assert "trace" in done.stderr, done.stderr
        return file.read_text()

    # Another process with another order of sets, and so of whatever depends on one.
    first, again, other = trace(1, "1"), trace(1, "2"), trace(2, "1")

    assert first == again
    assert first != other
    assert "n005" in first
    assert "POST /v1/hello" in first


def test_the_traces_of_all_runs_go_to_one_file(tmp_path):
    file = tmp_path / "trace"

    main(["spread", "--nodes", "4", "--seeds", "2", "--trace", "world", "--trace-to", str(file)])

    assert file.read_text().count("n000  world starts") == 2


@pytest.mark.parametrize("file", ["/nowhere/trace", "/"])
def test_a_trace_that_cannot_be_written_ends_it_before_anything_runs(file, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["spread", "--trace", "world", "--trace-to", file])

    assert ended.value.code == 2
    assert f"{file} cannot be written" in capsys.readouterr().err


def test_a_file_for_a_trace_of_nothing_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["spread", "--trace-to", str(tmp_path / "trace")])

    assert "--trace" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_traces_are_equal_with_tls_too():
    async def scenario(world: World) -> None:
        await world.add(4)
        await world.run(10)

    digests = []
    for _ in range(2):
        trace = Trace()
        simulate(scenario, seed=5, plain=False, trace=trace)
        digests.append(trace.digest)

    assert digests[0] == digests[1]


@pytest.mark.timeout(3600)
def test_small_worlds_of_many_seeds_become_equal_after_a_cut(pytestconfig):
    async def scenario(world: World) -> list[Measure]:
        return await partition(world, 4, seconds=12, settle_s=5)

    for seed in range(pytestconfig.getoption("seeds")):
        simulate(scenario, seed=seed, weather=Weather(loss=0.05))  # raises Unmet, which names the seed


def test_what_does_not_come_true_is_said_with_its_seed():
    async def scenario(world: World) -> None:
        await world.wait_until(lambda: False, 10, "the impossible")

    with pytest.raises(Unmet, match=r"the impossible did not happen within 10 s \(seed 3, after 10\.0 s\)"):
        simulate(scenario, seed=3)


def test_a_node_that_was_killed_comes_back_with_all_it_had():
    async def scenario(world: World) -> None:
        (node,) = await world.add(1)
        head = node.publish("parrot")
        name = node.id
        await node.kill()
        assert not node.is_running
        await node.start()

        assert node.has(head)
        assert node.node.id == name

    simulate(scenario, seed=1)


def test_an_error_in_a_node_ends_the_simulation_with_that_error():
    class Broken(SimulatedNode):
        async def live(self, node):
            await trio.sleep(1)
            raise ZeroDivisionError

    async def scenario(world: World) -> None:
        await world.add(1, Broken)
        await world.run(10)

    with pytest.raises(ZeroDivisionError):
        simulate(scenario, seed=1)


def test_the_command_runs_a_scenario_and_prints_measures_and_trace(capsys):
    main(["spread", "--nodes", "3", "--loss", "0", "--latency", "5-10", "--trace", "world"])
    out = capsys.readouterr().out

    assert "n000  world starts at" in out
    assert "publishes parrot, record 0" in out
    assert "spread, 3 nodes, seed 1: 99 % know it after" in out


def test_the_command_lists_its_scenarios(capsys):
    assert main(["--list"]) == 0
    assert set(SCENARIOS) == {line.split()[0] for line in capsys.readouterr().out.splitlines()}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nonsense"], "invalid choice"),
        (["--nodes", "0"], "'0' is no number from 1 on"),
        (["--latency", "9-1"], "no range of milliseconds"),
        (["--loss", "95"], "not simulated"),
        (["--trace", "all,none"], "'all' is none of"),
    ],
)
def test_the_command_says_what_it_does_not_take(capsys, arguments, text):
    with pytest.raises(SystemExit) as left:
        main(arguments)

    assert left.value.code == 2
    assert text in capsys.readouterr().err
