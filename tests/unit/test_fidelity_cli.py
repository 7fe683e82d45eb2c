"""Where people see what the timings of a run are worth."""

from __future__ import annotations

import pytest
from cli_support import COMPLETED, CommandLine, cli

from simgrid_ml.cli.story import exit_code
from simgrid_ml.cli.summary import print_outcome

__all__ = ["cli"]

STAMPED = {
    "check": "fidelity",
    "verdict": "pass",
    "message": "other processes had 50% of the host's CPU time",
    "evidence": "",
}


@pytest.mark.parametrize("stamp", ["valid", "degraded", "invalid"])
def test_every_report_of_a_run_carries_its_stamp(cli: CommandLine, stamp: str) -> None:
    record = cli.run("digits_a", *COMPLETED, verdicts=[{**STAMPED, "stamp": stamp}])
    said = cli("runs", "show", "digits_a")
    assert (said.code, exit_code(record)) == (0, 0)
    (line,) = [line for line in said.out.splitlines() if "other processes" in line]
    assert line.split()[:2] == [stamp, "fidelity"]
    told = cli("runs", "show", "digits_a", "--json").json
    assert told["fidelity"] == {"stamp": stamp, "why": STAMPED["message"]}
    print_outcome(record)
    assert f"Fidelity: {stamp}: other processes had 50%" in cli.capture.readouterr().out


@pytest.mark.parametrize("how", [(), ("--json",)])
def test_numbers_of_an_invalid_run_are_marked(cli: CommandLine, how: tuple[str, ...]) -> None:
    for run_id, stamp in (("digits_a", "valid"), ("digits_b", "invalid")):
        verdicts = [{**STAMPED, "stamp": stamp}]
        cli.run(run_id, *COMPLETED, verdicts=verdicts, metrics=[("step_s", 0.5)])
    said = [cli("runs", "metrics", run_id, *how) for run_id in ("digits_a", "digits_b")]
    assert "timings of this run mean nothing" not in said[0].err
    assert "timings of this run mean nothing" in said[1].err
    assert "step_s" in said[1].out
