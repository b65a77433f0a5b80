"""Progress: a bar on a terminal, plain lines elsewhere, and an estimate without compilation."""

import io
import sys

from experiments.system import progress as library
from experiments.system.progress import Progress, progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def use_terminal(monkeypatch):
    sink = Terminal()
    monkeypatch.setattr(sys, "stderr", sink)
    return sink


def test_items_pass_and_a_line_says_how_many_where_there_is_no_terminal(monkeypatch):
    sink = io.StringIO()
    monkeypatch.setattr(sys, "stderr", sink)
    assert list(progress(iter("abc"), total=3, label="storing", unit="letters")) == list("abc")
    (line,) = sink.getvalue().splitlines()
    assert line.startswith("storing: 3 letters in ")
    assert "\r" not in sink.getvalue()


def test_items_pass_under_a_bar_on_a_terminal(monkeypatch):
    terminal = use_terminal(monkeypatch)
    assert list(progress(iter("abc"), total=3, label="storing", unit="letters")) == list("abc")
    assert "\r" in terminal.getvalue()
    assert "3.00/3.00" in terminal.getvalue()


def test_on_a_terminal_there_is_a_bar_with_eta_and_rate(monkeypatch):
    terminal = use_terminal(monkeypatch)
    with Progress("sobolev, seed 0", 3200, done=640) as shown:
        shown.update(1600)
        shown.line("epoch 1.00")
        shown.update(3200)
    text = terminal.getvalue()
    assert "sobolev, seed 0: 100%" in text
    assert "3.20k/3.20k" in text and "examples/s" in text and "<" in text


def test_elsewhere_there_are_lines_now_and_then_that_do_not_count_compilation(monkeypatch, capsys):
    clock = iter([0.0, 1000.0, 1010.0, 1040.0, 1041.0])
    monkeypatch.setattr(library.time, "monotonic", lambda: next(clock))
    with Progress("l2, seed 1", 3200, done=640) as shown:
        shown.update(672)  # the first step took 1,000 s to compile
        shown.update(800)  # 10 s later: a line
        shown.update(1952)  # 30 s later: too early
        shown.update(1984)  # 31 s later: a line
        shown.line("epoch 1.00")
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "l2, seed 1: 800 of 3,200 examples, 12.8 examples/s, 188 s left",
        "l2, seed 1: 1,984 of 3,200 examples, 32 examples/s, 38 s left",
        "l2, seed 1: epoch 1.00",
    ]
