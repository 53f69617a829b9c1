"""The comparison with torch, whose process is faked: what is asked, how it is timed and shown, and the work of our step."""

import itertools
import json

import pytest

import benchmarks
from benchmarks import peer, training
from tests.benchmarks.test_training import flops

TINY = {
    "size": 8,
    "channels": 1,
    "base_channels": 8,
    "channel_mults": (1, 2),
    "res_blocks": 1,
    "attention_resolutions": (4,),
}


class FakeTorch:
    """Answers the number of our parameters, and timings of two, one and three seconds by turns; the first is a warm-up."""

    def __init__(self, count=None):
        self.asked, self._count = [], count
        self._times = itertools.cycle([9.0, 2.0, 1.0, 3.0])

    def ask(self, *request):
        self.asked.append(json.loads(json.dumps(request)))  # what crosses the boundary is JSON
        if request[0] == "parameters":
            return self._count if self._count is not None else peer.parameters(request[1])
        return [next(self._times)] * 2

    def close(self):
        self.asked.append("closed")


def test_both_sides_are_asked_in_turn_and_the_fastest_counts(monkeypatch):
    rows = {
        row: one
        for row, one in peer.requests(2, TINY).items()
        if row.startswith(("silu", "norm", "attention", "conv 4x4x16", "update"))
    }
    assert len(rows) == 7
    ours = itertools.cycle([4.0, 2.0, 6.0])

    def timed(call):
        call()
        return [next(ours)] * 2

    monkeypatch.setattr(benchmarks, "timed", timed)
    torch = FakeTorch()
    table = peer.peer_table(3, rows, torch)
    assert table.keys() == rows.keys()
    for row in table.values():
        assert row == {"seconds": 2.0, "torch_seconds": 1.0, "ratio": 2.0, "cpu_ratio": 2.0}
    assert [one[0] for one in torch.asked] == [rows[row][0] for row in rows for _ in range(4)]


def test_every_row_has_a_function_of_this_name_here():
    requests = peer.requests()
    assert {request[0] for request in requests.values()} == peer.OPERATIONS.keys()
    assert {"step, ddpm", "step, robust_adv", "conv 32x32x128, kernel gradient", "attention 16x16x256"} <= requests.keys()


def test_the_published_network_has_its_parameters():
    assert peer.parameters() == 35_746_307


def test_networks_that_differ_are_refused_and_the_process_ends(monkeypatch, capsys):
    torch = FakeTorch(count=1)
    monkeypatch.setattr(peer, "Torch", lambda: torch)
    monkeypatch.setattr("sys.argv", ["training", "--peer"])
    with pytest.raises(SystemExit) as ended:
        training.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: --peer: our network has 35746307 parameters, that of diffusers 1\n"
    assert torch.asked[-1] == "closed"


def test_a_missing_environment_is_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(peer, "PYTHON", tmp_path / "python")
    monkeypatch.setattr("sys.argv", ["training", "--peer"])
    with pytest.raises(SystemExit) as ended:
        training.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: --peer needs torch and diffusers: run make .venv-crosscheck/installed\n"


def test_the_table_is_printed(monkeypatch, capsys):
    table = {"update": {"seconds": 2.0, "torch_seconds": 1.0, "ratio": 2.0, "cpu_ratio": 2.0}}
    monkeypatch.setattr(peer, "compare", lambda rounds, chosen: table if (rounds, chosen) == (3, ["update"]) else None)
    monkeypatch.setattr("sys.argv", ["training", "--peer", "--json", "--rounds=3", "--rows", "update"])
    training.main()
    assert json.loads(capsys.readouterr().out) == {"peer": table}


def convolution_flops(network, batch):
    """Forward FLOPs of the network's 3x3 and 1x1 convolutions and of attention, by hand from its sizes."""
    base, mults, blocks = network["base_channels"], network["channel_mults"], network["res_blocks"]
    total, width, skips = 0, base, [base]

    def conv(side, inputs, outputs, taps=9):
        return 2 * batch * side**2 * taps * inputs * outputs

    def block(side, inputs, outputs):
        skip = conv(side, inputs, outputs, 1) if inputs != outputs else 0
        return conv(side, inputs, outputs) + conv(side, outputs, outputs) + skip

    def attention(side, width):
        return conv(side, width, 4 * width, 1) + 4 * batch * side**4 * width

    side = network["size"]
    total += conv(side, network["channels"], base) + conv(side, base, network["channels"])
    for level, mult in enumerate(mults):
        side = network["size"] // 2**level
        for _ in range(blocks):
            total += block(side, width, mult * base)
            width = mult * base
            total += attention(side, width) if side in network["attention_resolutions"] else 0
            skips.append(width)
        if level < len(mults) - 1:
            total += conv(side // 2, width, width)
            skips.append(width)
    total += 2 * block(side, width, width) + attention(side, width)
    for level, mult in reversed(list(enumerate(mults))):
        side = network["size"] // 2**level
        for _ in range(blocks + 1):
            total += block(side, width + skips.pop(), mult * base)
            width = mult * base
            total += attention(side, width) if side in network["attention_resolutions"] else 0
        total += conv(2 * side, width, width) if level else 0
    return total


@pytest.mark.parametrize(("variant", "passes"), [("ddpm", 3), ("robust_adv", 8)])
def test_our_step_does_the_work_of_its_passes(variant, passes):
    """Forward 1, gradient for the input 1, for input and parameters 2; norms and the update come on top."""
    network = TINY | {"size": 16, "base_channels": 32, "attention_resolutions": (8,)}
    found = flops(peer.config_of(variant, 128, network), (16, 16, 1))
    assert found == pytest.approx(passes * convolution_flops(network, 128), rel=0.1)
