"""Studies from their plan: parts, imports, the date of the plan, contrasts, tables, figures."""

import datetime
import json
import os
import subprocess

import numpy as np
import pytest
import scipy.stats

from experiments import study
from experiments.cli import main as command
from experiments.reports import planned
from experiments.reports import plans as plans_of_studies
from experiments.system.errors import UserError
from tests.experiments.conftest import ROOT

COMMAND = (
    "python -m tests.experiments.tiny --dataset=digits --metric=l2,sobolev --learning_rate=0.05 "
    "--epochs=0.5 --seed=1000 --trials=4"
)
PLAN = f"""
title = "A tiny study"
question = "Does it help?"
command = "{COMMAND}"
machine = "any"

[primary]
run = "sobolev"
baseline = "l2"
n = 4
endpoint = "test_accuracy"
margin_percent_of_error = 2
"""
SECONDARY = """
[[secondary]]
run = "l2"
baseline = "sobolev"
why = "the other way round"

[[secondary]]
run = "fast"
baseline = "l2"
"""
COMMITTED = datetime.datetime(2026, 11, 1, 12, tzinfo=datetime.UTC)
BEFORE, AFTER = "2026-11-01T11:59:59+00:00", "2026-11-01T12:00:01+00:00"
VALUES = {
    "l2": {1000: 0.50, 1001: 0.55, 1002: 0.60, 1003: 0.58},
    "sobolev": {1000: 0.54, 1001: 0.57, 1002: 0.66, 1003: 0.62},
    "fast": {1000: 0.51, 1001: 0.54, 1002: 0.61, 1003: 0.58},
}


def commit(folder, date=COMMITTED):
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", "-c",
           "commit.gpgsign=false"]  # fmt: skip
    when = {"GIT_AUTHOR_DATE": date.isoformat(), "GIT_COMMITTER_DATE": date.isoformat()}
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "a plan"]):
        subprocess.run([*git, *arguments], check=True, env=os.environ | when)


def plan_at(folder, text=PLAN):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.toml").write_text(text)
    commit(folder)
    return folder


@pytest.fixture
def plans(tmp_path):
    return plan_at(tmp_path / "plans", PLAN + SECONDARY)


def workdir(folder, values=VALUES, begun=AFTER, arguments=COMMAND, last=None, **settings):
    """A workdir as the command leaves it."""
    recorded = {
        run: {"metric": run, "model": "tiny", "learning_rate": 0.05, **settings} for run in values
    }
    rows = [
        {"name": run, "trials": [{"seed": s, "test_accuracy": v} for s, v in by_seed.items()]}
        for run, by_seed in values.items()
    ]
    seeds = sorted({seed for by_seed in values.values() for seed in by_seed})
    data = {"name": "digits", "fingerprint": "f"}
    config = {
        "settings": {"experiment": "tiny", "dataset": data, "seeds": seeds, "runs": recorded},
        "command": ["/somewhere/tiny.py", *arguments.split()[3:], f"--workdir={folder}"],
        "environment": {"date": last or begun},
    }
    if begun:
        config["begun"] = begun
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    headline = {"name": "accuracy", "higher_is_better": True, "percent": True}
    (folder / "summary.json").write_text(json.dumps({"headline": headline, "runs": rows}))
    return str(folder)


def call(plans, out, *arguments):
    return command.call(
        study.main, study.define, "tiny", f"--studies={plans}", f"--out={out}", *arguments,
        several="study",
    )  # fmt: skip


def test_finished_workdirs_are_imported_and_compared(plans, tmp_path, capsys):
    parts = [
        {run: {s: v for s, v in values.items() if s % 2 == part} for run, values in VALUES.items()}
        for part in (0, 1)
    ]
    paths = [workdir(tmp_path / f"w{i}", part) for i, part in enumerate(parts)]
    found = call(plans, tmp_path / "out", *paths)
    assert found == json.loads((tmp_path / "out/tiny.json").read_text())
    primary, other, third = found["contrasts"]
    assert [row["kind"] for row in found["contrasts"]] == ["primary"] + ["exploratory"] * 2
    before, after, fast = (np.array(list(VALUES[run].values())) for run in VALUES)
    test = scipy.stats.ttest_rel(after, before)
    assert primary["difference"] == pytest.approx(0.04)
    np.testing.assert_allclose(primary["interval"], test.confidence_interval(0.95))
    assert primary["p_t"] == pytest.approx(test.pvalue) and "holm_t" not in primary
    # The error of l2 is 1 - 0.5575 on average.
    error = 0.4425
    assert primary["error_removed_percent"] == pytest.approx(100 * 0.04 / error)
    np.testing.assert_allclose(
        primary["error_removed_interval"], 100 / error * np.array(primary["interval"])
    )
    assert primary["equivalence"]["margin"] == pytest.approx(0.02 * error)
    assert primary["equivalence"]["equivalent"] is False
    # Holm over the two exploratory contrasts alone.
    p = [test.pvalue, scipy.stats.ttest_rel(fast, before).pvalue]
    assert other["holm_t"] == pytest.approx(2 * p[0]) and third["holm_t"] == pytest.approx(p[1])
    assert found["complete"] and found["committed"]["first_trial"] == AFTER
    text = (tmp_path / "out/tiny.md").read_text()
    assert text in capsys.readouterr().out and "Incomplete" not in text
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert "| primary | sobolev - l2 | 4 | +4.00 [" in lines[2] and "no (p " in lines[2]
    assert (tmp_path / "out/studies.png").read_bytes().startswith(b"\x89PNG")


def test_seeds_that_are_missing_are_told(plans, tmp_path, capsys):
    some = {run: {s: v for s, v in found.items() if s < 1003} for run, found in VALUES.items()}
    found = call(plans, tmp_path / "out", workdir(tmp_path / "w", some))
    assert found["contrasts"][0]["n"] == 3 and not found["complete"]
    assert "Incomplete: 4 seeds were planned." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("begun", "last", "events"),
    [
        (BEFORE, AFTER, None),  # resumed after the plan was changed
        (None, BEFORE, None),  # begun before "begun" was recorded
        (None, AFTER, BEFORE),  # the same, resumed since: TensorBoard's files tell
        (BEFORE.replace("11:59:59+00:00", "13:59:59+02:00"), AFTER, None),
    ],
)
def test_results_older_than_the_plan_are_refused(plans, tmp_path, begun, last, events):
    path = workdir(tmp_path / "w", begun=begun, last=last)
    if events:
        stamp = int(datetime.datetime.fromisoformat(events).timestamp())
        folder = tmp_path / "w/tensorboard/l2/seed_1000"
        folder.mkdir(parents=True)
        (folder / f"events.out.tfevents.{stamp}.host").write_text("")
    with pytest.raises(UserError, match="last changed by the commit of .*12:00:00.* was begun at"):
        call(plans, tmp_path / "out", path)
    assert not (tmp_path / "out/tiny.json").exists()


def test_a_plan_that_was_changed_after_its_first_trial_is_refused(plans, tmp_path):
    path = workdir(tmp_path / "w")
    (plans / "tiny.toml").write_text((PLAN + SECONDARY).replace("= 2", "= 20"))
    with pytest.raises(UserError, match="is not committed as it is"):
        call(plans, tmp_path / "out", path)
    commit(plans, COMMITTED + datetime.timedelta(minutes=1))
    with pytest.raises(UserError, match="last changed by the commit of .*12:01:00"):
        call(plans, tmp_path / "out", path)
    # Another file's commit is no change of the plan.
    (plans / "tiny.toml").write_text(PLAN + SECONDARY)
    plans = plan_at(tmp_path / "again", PLAN + SECONDARY)
    (plans / "other.toml").write_text("")
    commit(plans, COMMITTED + datetime.timedelta(days=1))
    assert call(plans, tmp_path / "out", path)["study"] == "tiny"


@pytest.mark.parametrize(
    ("record", "message"),
    [({"begun": "yesterday"}, "a date that is none"), ({}, "does not tell when it was begun")],
)
def test_a_workdir_without_its_date_is_refused(plans, tmp_path, record, message):
    path = workdir(tmp_path / "w")
    config = json.loads((tmp_path / "w/config.json").read_text())
    kept = {name: config[name] for name in ("settings", "command")}
    (tmp_path / "w/config.json").write_text(json.dumps(kept | record))
    with pytest.raises(UserError, match=message):
        call(plans, tmp_path / "out", path)


def test_a_plan_outside_of_a_commit_is_refused(tmp_path):
    folder = tmp_path / "plans"
    folder.mkdir()
    (folder / "tiny.toml").write_text(PLAN)
    with pytest.raises(UserError, match="cannot be told|is not committed"):
        call(folder, tmp_path / "out", workdir(tmp_path / "w"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("--epochs=5", r"--epochs=5\.0, not 0\.5"),
        ("--metric=l2", r"--metric=\['l2'\], not \['l2', 'sobolev'\]"),
        ("--seed=0", "--seed=0, not 1000"),
        ("--sweep=lam:1", r"--sweep=\['lam:1'\], not \[\]"),
    ],
)
def test_a_workdir_of_another_command_is_refused(plans, tmp_path, changed, message):
    path = workdir(tmp_path / "w", arguments=f"{COMMAND} {changed}")
    with pytest.raises(UserError, match=f"another command than the plan's .*{message}"):
        call(plans, tmp_path / "out", path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PLAN.replace("n = 4", ""), "tiny.toml: n: got None"),
        (PLAN.replace("n = 4", "n = 5"), "tiny.toml: n: got 5; accepted: at most 4"),
        (PLAN.replace("n = 4", "n = true"), "tiny.toml: n: got True"),
        (PLAN.replace("= 2", "= 0"), "tiny.toml: margin_percent_of_error: got 0"),
        (PLAN.replace("title", "name"), "tiny.toml: title: got None"),
        (PLAN.replace("python -m ", ""), "tiny.toml: command: got"),
        (PLAN.replace("tests.experiments.tiny", "tests.none"), "tiny.toml: command: got"),
        (PLAN.replace('run = "sobolev"', 'run = "adam"'), "tiny.toml: run: got adam; accepted: a"),
        (PLAN.replace('"test_accuracy"', '"test_mse"'), "tiny.toml: endpoint: got test_mse"),
        (PLAN.replace('run = "sobolev"', 'model = "s"'), "tiny.toml: got"),
        (PLAN.replace("[primary]", "[first]"), "accepted: a plan with \\[primary\\]"),
        ("=", "accepted: a plan in TOML"),
    ],
)
def test_a_plan_that_is_not_one_is_an_error_in_one_line(tmp_path, text, message):
    folder = plan_at(tmp_path / "plans", text)
    with pytest.raises(UserError, match=message) as caught:
        call(folder, tmp_path / "out", workdir(tmp_path / "w"))
    assert str(caught.value).startswith("study: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("path", sorted((ROOT / "experiments/studies").glob("*.toml")), ids=str)
def test_the_plans_of_the_repository_can_be_run(path):
    plan = plans_of_studies.read(path)
    asked = study.parsed(plan, plan.arguments)
    assert asked["trials"] == plan.n and asked["seed"] >= 1000
    assert plan.margin_percent_of_error == 2
    # The endpoint is the last evaluation, and nothing is evaluated before it.
    assert plan.endpoint.startswith("test_") and asked["evaluate_every"] == asked["epochs"]


def test_a_study_that_has_no_plan_names_those_that_have(plans, tmp_path):
    with pytest.raises(UserError, match="^study: got none; accepted: one of tiny"):
        command.call(
            study.main, study.define, "none", f"--studies={plans}", f"--out={tmp_path}/out",
            several="study",
        )  # fmt: skip


def test_a_study_is_run_in_parts_and_goes_on(tmp_path, capsys, monkeypatch):
    plans = plan_at(tmp_path / "plans")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(ROOT)
    arguments = ("--parts=2", f"--workdir={tmp_path}/w")
    found = call(plans, tmp_path / "out", *arguments)
    assert found["complete"] and not any("missing" in line for line in found["remarks"])
    parts = sorted(path.name for path in (tmp_path / "w").iterdir() if path.is_dir())
    assert parts == ["trials_0_2", "trials_2_4"]
    again = call(plans, tmp_path / "out", *arguments)  # nothing is trained twice
    assert again["contrasts"] == found["contrasts"]
    assert again["committed"] == found["committed"]  # the first start, not the last
    with pytest.raises(UserError, match="holds other parts"):
        call(plans, tmp_path / "out", "--parts=1", f"--workdir={tmp_path}/w")


def surface(v, s, seeds=6, noise=0.0, rng=None):
    """Values of a curve over five rates that a metric moves by s in log(rate), and by v."""
    rates = [0.01, 0.02, 0.04, 0.08, 0.16]
    found = {}
    for with_metric in (False, True):
        for rate in rates:
            x = np.log(rate) + s * with_metric
            found[with_metric, rate] = {
                1000 + seed: 0.3 + 0.01 * seed - 0.1 * x - 0.02 * x**2 + v * with_metric
                + (noise * rng.normal() if noise else 0.0)
                for seed in range(seeds)
            }  # fmt: skip
    return found


@pytest.mark.parametrize(("v", "s"), [(0.0, 0.0), (0.01, 0.0), (0.0, -0.2), (-0.02, 0.4)])
def test_a_gain_and_another_rate_are_told_apart(v, s):
    found = planned.shift(surface(v, s))
    assert found["v"]["value"] == pytest.approx(v, abs=1e-9)
    assert found["s"]["value"] == pytest.approx(s, abs=1e-8)
    assert found["seeds"] == list(range(1000, 1006))


def test_the_jackknife_s_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(300):
        low, high = planned.shift(surface(0.01, -0.2, 8, 0.01, rng))["v"]["interval"]
        hits.append(low <= 0.01 <= high)
    assert abs(np.mean(hits) - 0.95) <= 4 * np.sqrt(0.95 * 0.05 / 300)


def test_a_plan_with_the_model_of_a_shift(tmp_path):
    text = PLAN.replace('run = "sobolev"\nbaseline = "l2"', 'model = "shift"').replace(
        " --trials=4", " --trials=4 --sweep=learning_rate:0.02,0.1,0.2 --grid"
    )
    plans = plan_at(tmp_path / "plans", text)
    rng = np.random.default_rng(0)
    cells = surface(0.03, -0.1, 4, 0.002, rng)
    path = workdir(
        tmp_path / "w",
        {f"{m},{rate}": values for (m, rate), values in cells.items()},
        arguments=f"{COMMAND} --sweep=learning_rate:0.02,0.1,0.2 --grid",
    )
    config = json.loads((tmp_path / "w/config.json").read_text())
    for name, run in config["settings"]["runs"].items():
        metric, _, rate = name.partition(",")
        run |= {"metric": "sobolev" if metric == "True" else "l2", "learning_rate": float(rate)}
    (tmp_path / "w/config.json").write_text(json.dumps(config))
    found = call(plans, tmp_path / "out", path)
    (row,) = found["contrasts"]
    fitted = planned.shift(cells)
    assert row["difference"] == pytest.approx(fitted["v"]["value"], abs=1e-12)
    np.testing.assert_allclose(row["interval"], fitted["v"]["interval"])
    assert row["difference"] == pytest.approx(0.03, abs=0.005)
    assert row["n"] == 4 and row["shift"]["value"] == pytest.approx(-0.1, abs=0.1)
    assert "times as large" in (tmp_path / "out/tiny.md").read_text()
