"""The benchmark of convolutions in loops times each of its operations inside of a loop and outside."""

import json

import benchmarks
from benchmarks import loops


def test_a_round_of_the_loop_is_compared_with_a_call_outside(monkeypatch, capsys):
    clock = iter(range(1000))  # every call takes a second, so that a round of a loop of four takes a quarter
    monkeypatch.setattr(benchmarks.time, "perf_counter", lambda: next(clock))
    table = loops.loops_table(batch=2, side=4, channels=3, rounds=2, length=4)
    row = {"ours_ms": 1000.0, "ours_in_a_loop": 0.25, "lax_ms": 1000.0, "lax_in_a_loop": 0.25}
    assert table == dict.fromkeys(("forward", "input gradient", "kernel gradient"), row)

    monkeypatch.setattr(loops, "loops_table", lambda: table)
    for flag, shown in (["--json"], json.dumps({"loops": table})), ([], "lax_in_a_loop"):
        monkeypatch.setattr("sys.argv", ["loops", *flag])
        loops.main()
        assert shown in capsys.readouterr().out
