"""Joining studies and comparing their runs, on synthetic workdirs with known answers."""

import dataclasses
import json

import numpy as np
import pytest
import scipy.stats

from experiments.reports import paper_results, studies, tables
from experiments.reports.studies import AT_ITS_BEST, SAME_VALUE, Part
from experiments.system.errors import UserError
from experiments.training import statistics

HEADLINE = {"name": "accuracy", "higher_is_better": True, "percent": True}
BASE = {"model": "resnet56", "optimizer": "sgd", "batch_size": 8, "epochs": 160.0}
RNG = np.random.default_rng(0)
L2 = dict(enumerate(RNG.normal(0.86, 0.01, 6)))
SOBOLEV = {seed: value + RNG.normal(0.012, 0.004) for seed, value in L2.items()}


def settings(run, **changes):
    metric = run.partition(",")[0]
    return BASE | {"metric": metric} | ({} if metric == "l2" else {"lam": 1.0}) | changes


def part(path, runs, seeds=None, failed=(), tuning=None, dataset="cifar10", changes=None, **base):
    """A workdir with these headline values: {run: {seed: value}}."""
    recorded = {run: settings(run, **base) for run in runs}
    for run, other in (changes or {}).items():
        recorded[run] |= other
    rows = []
    for run, values in runs.items():
        trials = [{"seed": s, "test_accuracy": v, "identity": "x"} for s, v in values.items()]
        trials += [
            {"seed": s, "error": "loss became nan", "test_accuracy": None, "identity": "x"}
            for s in failed
        ]
        rows.append({"name": run, "trials": trials})
    return Part(
        path,
        {
            "experiment": "cifar_resnet56",
            "dataset": {"name": dataset, "fingerprint": "f"},
            "seeds": sorted(next(iter(runs.values()))) if seeds is None else list(seeds),
            "runs": recorded,
        },
        {"headline": HEADLINE, "runs": rows},
        [{"run": r, "seed": s, "step": 1, "epoch": 1} for r, v in runs.items() for s in v],
        tuning,
    )


def some(values, seeds):
    return {seed: values[seed] for seed in seeds}


def test_statistics_are_those_of_scipy():
    (column,) = studies.join([part("w", {"l2": L2, "sobolev": SOBOLEV})])
    first, row = studies.compare([column])
    before, after = np.array(list(L2.values())), np.array(list(SOBOLEV.values()))
    test = scipy.stats.ttest_rel(after, before)
    assert (first.baseline, row.baseline, row.kind, row.pairs) == (None, "l2", None, 6)
    assert row.mean == pytest.approx(after.mean())
    assert row.std == pytest.approx(scipy.stats.tstd(after)) and row.n == 6
    assert row.difference == pytest.approx((after - before).mean())
    np.testing.assert_allclose(row.interval, test.confidence_interval(0.95))
    assert row.p_t == pytest.approx(test.pvalue)
    assert row.p_wilcoxon == pytest.approx(scipy.stats.wilcoxon(after, before).pvalue)
    errors = 1 - before.mean(), 1 - after.mean()
    assert row.error_reduced == pytest.approx(100 * (errors[0] - errors[1]) / errors[0])
    assert row.paper == paper_results.Reported(87.99, 10.8) and first.paper.mean == 86.54


def test_parts_with_ranges_of_seeds_and_with_one_metric_each_give_the_whole_study():
    whole = studies.compare(studies.join([part("w", {"l2": L2, "sobolev": SOBOLEV})]))
    parts = [
        part("a", {"l2": some(L2, range(2)), "sobolev": some(SOBOLEV, range(2))}),
        part("b", {"l2": some(L2, range(2, 6))}),
        part("c", {"sobolev": some(SOBOLEV, range(2, 6))}),
    ]
    joined = studies.compare(studies.join(parts))
    for a, b in zip(whole, joined, strict=True):
        assert dataclasses.replace(a, column=None) == dataclasses.replace(b, column=None)
    assert studies.remarks([joined[0].column]) == []
    assert len(joined[0].column.metrics) == 12


def test_missing_diverged_and_duplicate_trials_are_listed_and_counted():
    parts = [
        part("a", {"l2": some(L2, [0, 1]), "sobolev": some(SOBOLEV, [0])}, seeds=[0, 1]),
        part("b", {"l2": some(L2, [1, 4]), "sobolev": some(SOBOLEV, [4])}, [1, 4, 5], failed=[5]),
    ]
    (column,) = studies.join(parts)
    assert column.missing == {"l2": [2, 3], "sobolev": [1, 2, 3]}
    assert column.duplicates == [("l2", 1, ["a", "b"])]
    first, row = studies.compare([column])
    assert (first.n, first.diverged, first.missing) == (3, 1, 2)
    assert (row.n, row.diverged, row.missing, row.pairs) == (2, 1, 3, 2)
    lines = "\n".join(studies.remarks([column]))
    where = "resnet56, sgd, batch 8, cifar10"
    assert f"missing: {where}, sobolev, seeds 1 to 3" in lines
    assert f"diverged: {where}, l2, seeds 5" in lines
    assert f"duplicate, counted once: {where}, l2, seed 1, in a, b" in lines


@pytest.mark.parametrize(
    ("weight", "told"), [(1.0, True), (0.1, True), (0.03, False), (0.0, False)]
)
def test_a_sobolev_metric_that_is_re_weighted_l2_is_called_so(weight, told):
    """At its largest the smooth part is 0.025 times a gradient, and l2_weight is the plain part."""
    changes = {"sobolev": {"l2_weight": weight}, "l2": {"l2_weight": 1.0}}
    (column,) = studies.join([part("a", {"l2": L2, "sobolev": SOBOLEV}, changes=changes)])
    lines = [line for line in studies.remarks([column]) if "re-weighted L2" in line]
    assert len(lines) == told and all(f"l2_weight {weight:g} is" in line for line in lines)


def test_contradictory_duplicates_are_an_error():
    parts = [part("a", {"l2": {0: 0.5}}), part("b", {"l2": {0: 0.6}})]
    with pytest.raises(UserError, match=r"a and b contradict each other about l2, seed 0 .*0\.5"):
        studies.join(parts)
    failed = part("b", {"l2": {}}, seeds=[0], failed=[0])
    with pytest.raises(UserError, match="contradict"):
        studies.join([parts[0], failed])


def test_a_duplicate_may_differ_in_its_speed():
    parts = [part("a", {"l2": {0: 0.5}}), part("b", {"l2": {0: 0.5}})]
    parts[1].summary["runs"][0]["trials"][0]["images_per_second"] = 3.0
    assert len(studies.join(parts)[0].duplicates) == 1


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (part("b", {"sobolev": {1: 0.5}}, epochs=1.0), "epochs: 160.0 there, 1.0 here"),
        (
            part("b", {"l2": {1: 0.5}, "sobolev": {1: 0.5}}, changes={"sobolev": {"lam": 2.0}}),
            "sobolev: lam: 1.0 there, 2.0 here",
        ),
    ],
)
def test_different_configurations_are_refused_by_name(other, named):
    with pytest.raises(UserError) as caught:
        studies.join([part("a", {"l2": {0: 0.5}, "sobolev": {0: 0.5}}), other])
    assert named in str(caught.value) and "b is of another configuration than a" in str(
        caught.value
    )


def test_other_data_of_the_same_name_are_refused():
    other = part("b", {"l2": {1: 0.5}})
    other.settings["dataset"]["fingerprint"] = "g"
    with pytest.raises(UserError, match="dataset.fingerprint: f there, g here"):
        studies.join([part("a", {"l2": {0: 0.5}}), other])


def test_columns_are_networks_datasets_optimizers_and_batch_sizes():
    parts = [
        part("a", {"l2": L2, "sobolev": SOBOLEV}),
        part("b", {"l2": L2, "sobolev": SOBOLEV}, batch_size=128),
        part("c", {"l2": L2, "sobolev": SOBOLEV}, optimizer="adam"),
        part("d", {"l2": L2, "sobolev": SOBOLEV}, dataset="digits"),
    ]
    columns = studies.join(parts)
    assert [column.title for column in columns] == [
        "resnet56, sgd, batch 8, cifar10",
        "resnet56, sgd, batch 128, cifar10",
        "resnet56, adam, batch 8, cifar10",
        "resnet56, sgd, batch 8, digits",
    ]
    rows = studies.compare(columns)
    papers = [row.paper.mean if row.paper else None for row in rows[1::2]]
    assert papers == [87.99, 93.39, 90.02, None]
    # One family: four equal p-values, each multiplied by four.
    assert [row.holm_t for row in rows[1::2]] == pytest.approx([4 * rows[1].p_t] * 4)


def test_tuned_runs_are_compared_with_the_tuned_baseline():
    runs = {
        "l2": some(L2, range(4)),
        "sobolev": some(SOBOLEV, range(4)),
        "l2,learning_rate=0.3": {s: L2[s] + 0.01 + 0.001 * s for s in range(4)},
    }
    chosen = {"l2": {"run": "l2,learning_rate=0.3"}, "sobolev": {"run": "sobolev"}}
    (column,) = studies.join([part("w", runs, tuning={"chosen": chosen})])
    rows = studies.compare([column])
    assert [(row.run, row.baseline, row.kind) for row in rows] == [
        ("l2", None, None),
        ("sobolev", "l2", SAME_VALUE),
        ("l2,learning_rate=0.3", None, None),
        ("sobolev", "l2,learning_rate=0.3", AT_ITS_BEST),
    ]
    before = list(runs["l2,learning_rate=0.3"].values())
    expected = np.mean(list(runs["sobolev"].values())) - np.mean(before)
    assert rows[3].difference == pytest.approx(expected)
    assert rows[2].paper is None  # the paper tuned nothing


def test_a_paired_interval_covers_the_truth_as_often_as_it_says():
    """Trials share what their seed brings, and count right answers among 10,000."""
    rng = np.random.default_rng(1)
    truth, repetitions, trials = 0.004, 1000, 6
    seed_effect = rng.normal(0.9, 0.01, (repetitions, trials))
    before = rng.binomial(10_000, seed_effect + rng.normal(0, 0.003, seed_effect.shape)) / 10_000
    better = seed_effect + truth + rng.normal(0, 0.003, seed_effect.shape)
    after = rng.binomial(10_000, better) / 10_000
    hits = 0
    for a, b in zip(before, after, strict=True):
        low, high = statistics.paired(dict(enumerate(a)), dict(enumerate(b)))["interval"]
        hits += low <= truth <= high
    assert 0.93 <= hits / repetitions <= 0.97


def test_holm_by_hand():
    assert statistics.holm([0.04, 0.01, None, 0.03]) == pytest.approx([0.06, 0.03, None, 0.06])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0] and statistics.holm([]) == []


def test_p_values_where_nothing_or_everything_differs_alike():
    same = statistics.p_values({0: 0.5, 1: 0.6}, {0: 0.5, 1: 0.6})
    assert same == {"t": None, "wilcoxon": 1.0}
    # 0.2 - 0.1 and 0.3 - 0.2 differ in the last bit, and are ties.
    alike = statistics.p_values({0: 0.1, 1: 0.2}, {0: 0.2, 1: 0.3})
    assert alike["t"] is None and alike["wilcoxon"] == pytest.approx(0.5)
    assert statistics.p_values({0: 0.1}, {1: 0.2}) == {"t": None, "wilcoxon": None}
    tied = [0.01, 0.01, -0.02, 0.03, 0.0]
    got = statistics.p_values(
        dict.fromkeys(range(5), 0.5), {i: 0.5 + x for i, x in enumerate(tied)}
    )
    assert got["wilcoxon"] == pytest.approx(scipy.stats.wilcoxon(tied).pvalue)


def test_tables_say_the_same_numbers_in_three_formats():
    columns = studies.join([part("a", {"l2": L2, "sobolev": SOBOLEV})])
    rows = studies.compare(columns)
    text = tables.markdown(rows, ["missing: x"])
    mean = f"{100 * np.mean(list(SOBOLEV.values())):.2f}"
    line = next(x for x in text.splitlines() if x.startswith("| sobolev |"))
    assert mean in line and "87.99" in line and "+10.8 %" in line
    assert "- missing: x" in text and "| resnet56 | sgd | l2 | 93.24 | 91.96 | 86.54 |" in text
    header, _, second = tables.as_csv(rows).splitlines()
    record = dict(zip(header.split(","), second.split(","), strict=True))
    assert float(record["mean"]) == rows[1].mean and record["baseline"] == "l2"
    assert float(record["paper_mean_percent"]) == 87.99
    tex = tables.latex(rows)
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 1
    assert mean in tex and r"+10.8 \%" in tex and "_" not in tex.replace(r"\_", "")
    named = dataclasses.replace(rows[0], run=r"a$b$_\frac^2")
    assert r"a\$b\$\_\textbackslash{}frac\^{}2 &" in tables.latex([named])
    widths = {x.count("&") for x in tex.splitlines() if "&" in x}
    assert widths == {14}


@pytest.mark.parametrize("row", paper_results.TABLE_2.items(), ids=lambda item: str(item))
def test_the_papers_reductions_follow_from_its_means(row):
    (model, optimizer, batch_size, metric), cell = row
    before = paper_results.TABLE_2[model, optimizer, batch_size, "l2"].mean
    if metric != "l2":
        # The paper rounds its means to 0.005, against errors of 6.4 and more.
        reduced = 100 * (cell.mean - before) / (100 - before)
        assert cell.error_reduced == pytest.approx(reduced, abs=0.25)


def test_reading_workdirs(tmp_path):
    whole = part("a", {"l2": {0: 0.5}})
    folder = tmp_path / "w"
    folder.mkdir()
    with pytest.raises(UserError, match=r"workdir: got .*w; accepted: .*no config\.json"):
        studies.read(str(folder))
    (folder / "config.json").write_text(json.dumps({"settings": whole.settings}))
    early = studies.read(str(folder))
    assert early.summary is None
    with pytest.raises(UserError, match="no trial has ended in"):
        studies.join([early])
    # Beside a part that has ended, its trials are missing ones.
    early.settings["seeds"] = [1]
    (column,) = studies.join([whole, early])
    assert column.missing == {"l2": [1]}
    (folder / "summary.json").write_text(json.dumps(whole.summary))
    line = {"run": "l2", "seed": 0, "step": 1, "epoch": 0.5}
    # A kill cut the second line, and the third is none of a training.
    (folder / "metrics.jsonl").write_text(json.dumps(line) + '\n{"run": "l\n{"step": "a"}')
    got = studies.read(str(folder))
    assert got.summary == whole.summary and got.metrics == [line]
    (folder / "summary.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        studies.read(str(folder))
    (folder / "summary.json").unlink()
    (folder / "config.json").write_text(json.dumps({"settings": {"seeds": [0]}}))
    with pytest.raises(UserError, match="not of this version or is damaged"):
        studies.read(str(folder))
