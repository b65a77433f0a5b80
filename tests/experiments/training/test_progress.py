"""Progress: a bar on a terminal, plain lines elsewhere."""

import io
import sys

from experiments.training import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_there_is_a_bar_with_eta_and_rate(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with progress.Progress("sobolev, seed 0", steps=100, done=20, batch_size=32) as shown:
        shown.update(50)
        shown.line("epoch 1.00")
        shown.update(100)
    text = screen.getvalue()
    assert "sobolev, seed 0: 100%" in text
    assert "3.20k/3.20k" in text and "img/s" in text and "<" in text


def test_elsewhere_there_are_plain_lines_now_and_then(monkeypatch, capsys):
    clock = iter([0.0, 10.0, 40.0, 41.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.Progress("l2, seed 1", steps=100, done=20, batch_size=32) as shown:
        shown.update(25)  # after 10 s: too early
        shown.update(60)  # after 40 s
        shown.update(61)  # a second later: too early again
        shown.line("epoch 1.00")
    lines = capsys.readouterr().out.splitlines()
    # 40 steps of 32 in 40 s; 40 steps are left.
    assert lines == [
        "l2, seed 1: step 60/100, 32 examples/s, 40 s left",
        "l2, seed 1: epoch 1.00",
    ]
