import io
import sys

from experiments.system.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_where_there_is_no_terminal(monkeypatch):
    sink = io.StringIO()
    monkeypatch.setattr(sys, "stderr", sink)
    assert list(progress(iter("abc"), total=3, label="storing", unit="letters")) == list("abc")
    (line,) = sink.getvalue().splitlines()
    assert line.startswith("storing: 3 letters in ")
    assert "\r" not in sink.getvalue()


def test_a_bar_on_a_terminal(monkeypatch):
    sink = Terminal()
    monkeypatch.setattr(sys, "stderr", sink)
    assert list(progress(iter("abc"), total=3, label="storing", unit="letters")) == list("abc")
    assert "\r" in sink.getvalue()
    assert "3/3" in sink.getvalue()
