"""--confirm: what a sweep chose is trained again on fresh seeds before it is reported."""

import json

import numpy as np
import pytest

from experiments.cli import confirming
from experiments.cli import main as command
from experiments.system.errors import UserError
from tests.experiments.tiny import EXPERIMENT

STUDY = (
    "--learning_rate=0.001", "--sweep=learning_rate:0.05,0.0005", "--validation=0.2",
    "--evaluate_every=0.5", "--trials=2",
)  # fmt: skip


def call(*arguments):
    return command.call(EXPERIMENT.main, EXPERIMENT.define, "--dataset=digits", *arguments)


def read(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A workdir from before --confirm, as --confirm=0 leaves it, and its conclusions."""
    path = tmp_path_factory.mktemp("swept") / "w"
    call(*STUDY, "--confirm=0", f"--workdir={path}")
    assert not (path / "confirm").exists()
    return path, read(path / "conclusions.json")


@pytest.fixture(scope="module")
def confirmed(swept):
    """The same, resumed with the default of --confirm."""
    path, _ = swept
    call(*STUDY, f"--workdir={path}", "--resume")
    return path


def test_what_is_not_confirmed_says_so(swept):
    _, rows = swept
    assert rows[1]["chosen"] == "learning_rate=0.05" and "confirmed" not in rows[1]


def test_the_chosen_run_and_the_baseline_are_trained_on_as_many_fresh_seeds(confirmed):
    fresh, first = read(confirmed / "confirm/summary.json"), read(confirmed / "summary.json")
    assert [run["name"] for run in fresh["runs"]] == ["baseline", "learning_rate=0.05"]
    seeds = {t["seed"] for run in fresh["runs"] for t in run["trials"]}
    assert len(seeds) == 2
    assert not seeds & {t["seed"] for run in first["runs"] for t in run["trials"]}
    by_name = {run["name"]: run["settings"] for run in first["runs"]}
    assert {run["name"]: run["settings"] for run in fresh["runs"]}.items() <= by_name.items()


def test_the_reported_difference_is_that_of_the_fresh_seeds(swept, confirmed, capsys):
    before, rows = swept[1], read(confirmed / "conclusions.json")
    baseline, chosen = read(confirmed / "confirm/summary.json")["runs"]
    kept = [{k: v for k, v in row.items() if k != "confirmed"} for row in rows]
    assert kept == before  # what stood there is still there
    assert rows[0]["confirmed"] is None
    for which, value in (
        ("test", lambda t: t["best"]["test_accuracy"]),
        ("final_test", lambda t: t["test_accuracy"]),
    ):
        differences = [
            value(b) - value(a) for a, b in zip(baseline["trials"], chosen["trials"], strict=True)
        ]
        cell = rows[1]["confirmed"][which]
        assert cell["difference"] == pytest.approx(np.mean(differences))
    assert rows[1]["confirmed"]["test"]["endpoint"] == "at the best validation step"
    assert rows[1]["confirmed"]["gap"]["endpoint"] == "at the last evaluation"
    call(*STUDY, f"--workdir={confirmed}", "--resume")
    printed = capsys.readouterr().out
    cell = rows[1]["confirmed"]["test"]
    line = next(x for x in printed.split("confirmed on fresh seeds")[1].splitlines()[3:])
    assert line.split()[:4] == [
        "learning_rate", "learning_rate=0.05", f"{100 * cell['mean']:.2f}",
        f"{100 * cell['difference']:+.2f}",
    ]  # fmt: skip


def test_nothing_is_trained_twice_and_a_new_choice_is_added(confirmed, monkeypatch):
    def refuse(*_, **__):
        pytest.fail("trained again")

    before = read(confirmed / "confirm/summary.json")["runs"]
    with monkeypatch.context() as patch:
        patch.setattr("experiments.training.study.attempt", refuse)
        call(*STUDY, f"--workdir={confirmed}", "--resume")
    # A fourth value that is better: the value that was confirmed stays beside it.
    call(*STUDY, "--sweep=learning_rate:0.2", f"--workdir={confirmed}", "--resume")
    names = [run["name"] for run in read(confirmed / "confirm/summary.json")["runs"]]
    rows = read(confirmed / "conclusions.json")
    assert names[:2] == ["baseline", "learning_rate=0.05"] and rows[1]["chosen"] == names[-1]
    assert read(confirmed / "confirm/summary.json")["runs"][:2] == before


def test_where_the_baseline_is_best_there_is_nothing_to_confirm(tmp_path, capsys):
    call(
        "--sweep=learning_rate:1e-5", "--validation=0.2", "--epochs=0.5", f"--workdir={tmp_path}/w"
    )
    assert not (tmp_path / "w/confirm").exists()
    assert "nothing to confirm" in capsys.readouterr().out
    rows = read(tmp_path / "w/conclusions.json")
    assert [(row["chosen"], row["confirmed"]) for row in rows] == [("baseline", None)] * 2


def test_a_search_is_confirmed_where_that_is_asked_for(tmp_path, capsys):
    call(
        "--random_search=3", "--learning_rate=0.001", "--validation=0.2",
        "--epochs=0.5", "--confirm=1", f"--workdir={tmp_path}/w",
    )  # fmt: skip
    found = read(tmp_path / "w/search.json")
    assert found["best"] != "baseline"
    assert found["test"]["endpoint"] == "at the best validation step"
    assert found["confirmed"]["seeds"] == [confirming.FIRST_SEED]
    assert "confirmed on fresh seeds" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--confirm=-1", *STUDY], "confirm: got -1"),
        (["--confirm=2"], "confirm: got 2; accepted: --confirm with --sweep or --random_search"),
        (
            ["--confirm=2", "--tune=learning_rate:0.1"],
            "confirm: got 2; accepted: --confirm with --sweep or --random_search",
        ),
        (["--confirm=1", "--trial_range=0:1", *STUDY], "--confirm and --trial_range: got both"),
        ([*STUDY, f"--seed={confirming.FIRST_SEED + 1}"], "seed: got 2000001; accepted: seeds"),
    ],
)
def test_bad_flags(arguments, message, tmp_path):
    with pytest.raises(UserError) as caught:
        call(*arguments, f"--workdir={tmp_path}/w")
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "w").exists()


def test_a_part_of_the_trials_is_not_confirmed(tmp_path, capsys):
    call(*STUDY, "--epochs=0.5", "--trial_range=1:2", f"--workdir={tmp_path}/w")
    assert not (tmp_path / "w/confirm").exists()
    assert "not confirmed" in capsys.readouterr().out
