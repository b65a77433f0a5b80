"""A training command: from an `Experiment` to its flags, its runs, its tables and its figures."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import pathlib
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from absl import flags

from experiments import data
from experiments.cli import confirming, tuning
from experiments.cli import devices as cli_devices
from experiments.cli import flags as settings_flags
from experiments.cli import main as command
from experiments.cli.flags import Presets
from experiments.data.dataset import Dataset
from experiments.data.validation import with_validation
from experiments.figures import sweep as sweep_figures
from experiments.figures import training as figures
from experiments.system.errors import ConfigError, NonFiniteError, UserError
from experiments.system.files import write_json
from experiments.system.output import say
from experiments.training import processes, statistics, study, sweep
from experiments.training.loop import CheckpointPolicy
from experiments.training.settings import Config, at_least, one_of, record, with_settings
from experiments.training.study import Run

RUN, DATA, DEVICES, SWEEPS = "run", "data", "devices", "several runs"


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a training command consists of.

    Attributes:
      name: of the command, and of the folder that it writes to by default.
      config: the class of its settings; every field is a flag.
      presets: by name, the values that differ from the class's defaults.
      datasets: those that it trains on, "auto" among them.
      preferred: the dataset that "auto" takes when it is prepared.
      build: (config, dataset) to a task and its length.
      data_flags: flags of the dataset besides --dataset, by name: (type, help).
      load_options: those of them that are options of `data.load`.
      load_with: options of `data.load` that have no flag.
      embedded: values of load_options for the dataset that stands in for `preferred`, where the
        command line has none.
      limit: (dataset, parsed flags) to the dataset that is trained on.
      recorded: dataset to settings that have no flag.
      run_name: configuration to the name of its run, where runs differ in their metric alone.
      defaults: by preset, values of flags that are no settings (--trials, --sweep, --grid) and of
        --metric, where the command line has none.
      draw: (workdir, summary) writes the figure that is the experiment's own.
      finish: (workdir, summary, dataset, runs) writes what else is the experiment's own, where
        that takes the trained networks and the data; returns lines to print.
    """

    name: str
    config: type[Config]
    presets: Presets
    datasets: tuple[str, ...]
    preferred: str
    build: study.Build
    data_flags: Mapping[str, tuple[type, str]] = dataclasses.field(default_factory=dict)
    load_options: tuple[str, ...] = ()
    load_with: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    embedded: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    limit: Callable[[Dataset, flags.FlagValues], Dataset] = lambda dataset, values: dataset
    recorded: Callable[[Dataset], dict[str, Any]] = lambda dataset: {}
    run_name: Callable[[Any], str] = lambda config: record(config)["metric"]
    defaults: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    draw: Callable[[pathlib.Path, dict[str, Any]], None] = lambda path, summary: None
    finish: Callable[[pathlib.Path, dict[str, Any], Dataset, list[Run]], str] | None = None

    def define(self, values: flags.FlagValues) -> None:
        """Defines the flags of the command."""
        _define_run(values, self)
        _define_data(values, self)
        cli_devices.define(values, DEVICES)
        settings_flags.define_settings(values, self.config, self.presets)
        _define_sweeps(values, self)

    def main(self, values: flags.FlagValues) -> dict[str, Any]:
        """Trains what the flags ask for; returns summary.json as a dict."""
        return _main(self, values)

    def run(self) -> None:
        """Runs the command with the arguments of this process."""
        command.run(self.main, self.define)


def _define_run(values: flags.FlagValues, experiment: Experiment) -> None:
    where: dict[str, Any] = {"flag_values": values, "module_name": RUN}
    presets = ", ".join(experiment.presets)
    flags.DEFINE_string(
        "preset", next(iter(experiment.presets)),
        f"Settings for the flags left out; each flag shows them. Accepted: {presets}.", **where,
    )  # fmt: skip
    flags.DEFINE_integer("trials", 1, "Trials of each run, on the same seeds for all.", **where)
    flags.DEFINE_string(
        "trial_range", None,
        "FIRST:LAST trains trials FIRST to LAST - 1 of --trials only, so that the parts of a study "
        "can run on several machines.", **where,
    )  # fmt: skip
    flags.DEFINE_integer("seed", 0, "Seed of the first trial; the others follow it.", **where)
    flags.DEFINE_string(
        "workdir", None,
        "Folder for results, checkpoints and figures. "
        f"Default: runs/{experiment.name}-DATE-TIME.", **where,
    )  # fmt: skip
    flags.DEFINE_bool(
        "resume", False,
        "Go on with the study in --workdir; trials, metrics and sweeps may be added.", **where,
    )  # fmt: skip
    flags.DEFINE_integer(
        "checkpoint_every", None,
        "Steps between checkpoints, besides one after each evaluation and every two minutes.",
        **where,
    )  # fmt: skip


def _define_data(values: flags.FlagValues, experiment: Experiment) -> None:
    where: dict[str, Any] = {"flag_values": values, "module_name": DATA}
    flags.DEFINE_string(
        "dataset", "auto",
        f"auto takes {experiment.preferred} if it is prepared under --data_dir, else one that "
        f"needs no download. Accepted: {', '.join(experiment.datasets)}.", **where,
    )  # fmt: skip
    flags.DEFINE_string(
        "data_dir", data.DEFAULT_DATA_DIR, "Folder of the prepared datasets.", **where
    )
    flags.DEFINE_float(
        "validation", None,
        "Share of the training examples that is kept apart for validation, evenly from all "
        "classes. Default: the validation split of the dataset, if it has one.", **where,
    )  # fmt: skip
    for name, (kind, text) in experiment.data_flags.items():
        define = {int: flags.DEFINE_integer, str: flags.DEFINE_string}[kind]
        define(name, None, text, **where)


def _define_sweeps(values: flags.FlagValues, experiment: Experiment) -> None:
    where: dict[str, Any] = {"flag_values": values, "module_name": SWEEPS}
    names = ", ".join(sweep.sweepable(experiment.config))
    flags.DEFINE_multi_string(
        "sweep", [],
        "NAME:VALUE,VALUE,... trains one run for each value beside the baseline, on the same "
        f"seeds; may be given several times. NAME is one of {names}.", **where,
    )  # fmt: skip
    flags.DEFINE_bool(
        "grid",
        False,
        "Combine every value of each --sweep (and each --metric) with every value of the others.",
        **where,
    )
    flags.DEFINE_integer(
        "random_search", None,
        "Number of runs beside the baseline, with settings drawn log-uniformly in place of their "
        f"flags; the best by validation is reported. Drawn are {_searched(experiment.config)}.",
        **where,
    )  # fmt: skip
    confirming.define(values, where)
    tuning.define(values, where)


def _searched(config: type[Config]) -> str:
    parts = []
    for name, leaf in sweep.sweepable(config).items():
        about = leaf.field.metadata
        if about["search"]:
            low, high = about["search"]
            times = " times the baseline's" if about["search_relative"] else ""
            parts.append(f"{name} from {low:g} to {high:g}{times}")
    return ", ".join(parts) + " (those that the baseline uses)"


def _main(experiment: Experiment, values: flags.FlagValues) -> dict[str, Any]:
    cli_devices.join(values)
    with contextlib.ExitStack() as stack:
        if not processes.is_first():  # The first process speaks for all.
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8", errors="replace"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        return _train(experiment, values)


def _train(experiment: Experiment, values: flags.FlagValues) -> dict[str, Any]:
    _take_defaults(experiment, values)
    seeds = _seeds(values)
    fresh = confirming.asked(values, seeds)
    if values.checkpoint_every is not None:
        at_least("checkpoint_every", values.checkpoint_every, 1)
    if values.resume and values.workdir is None:
        raise ConfigError("resume", "no --workdir", "--resume with the --workdir of a study")
    settings_flags.check_given(values, experiment.config, experiment.presets)
    tune = tuning.asked(values, experiment.config, seeds)
    dataset = _load(experiment, values)
    baseline = settings_flags.make_config(
        values, experiment.config, experiment.presets, dataset, **experiment.recorded(dataset)
    )
    runs = _runs(experiment, values, baseline)
    searched = values.random_search is not None
    several = bool(values.sweep) or searched
    where = cli_devices.chosen(values)
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    values["workdir"].value = values.workdir or f"runs/{experiment.name}-{stamp}"
    path = pathlib.Path(values.workdir).expanduser().absolute()
    say(f"results, checkpoints and figures: {path}")
    train = partial(
        study.train,
        experiment.name,
        build=experiment.build,
        resume=values.resume,
        policy=CheckpointPolicy(steps=values.checkpoint_every),
        command=sys.argv,
        **where,
    )
    tuned = None
    if tune is not None:
        tuning.check_unchanged(tune, path, values.resume)
        runs, tuned = tuning.choose(tune, runs, dataset, values.validation, path, train)
    summary = train(runs, dataset, workdir=path, seeds=seeds)
    confirmed = confirming.confirm(summary, runs, fresh, dataset, path, train, searched)
    if not processes.is_first():
        return summary
    figures.draw(path, summary)
    experiment.draw(path, summary)
    finished = experiment.finish and experiment.finish(path, summary, dataset, runs)
    say(f"\n{statistics.table(summary) if tuned is None else tuning.tables(summary, tuned)}")
    if finished:
        say(f"\n{finished}")
    if several:
        say(f"\n{conclude(path, summary, searched, confirmed, bool(fresh))}")
    say(f"\nin {path}:")
    names = (p.name for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    say("  " + "  ".join(sorted(names)))
    failed = study.failures(summary) + (study.failures(confirmed) if confirmed else [])
    if failed:
        trials = "1 trial" if len(failed) == 1 else f"{len(failed)} trials"
        raise NonFiniteError(f"{trials} did not end: {'; '.join(failed)}")
    return summary


def _take_defaults(experiment: Experiment, values: flags.FlagValues) -> None:
    """Gives the flags that the command line leaves out the experiment's own defaults."""
    chosen = dict(experiment.defaults.get(values.preset, {}))
    if values.tune is not None or values.random_search is not None:
        # They name the runs themselves.
        chosen = {name: value for name, value in chosen.items() if name not in ("sweep", "grid")}
    if values.random_search is not None:
        chosen.pop("metric", None)
    for name, value in chosen.items():
        if not values[name].present:
            values[name].value = value


def conclude(
    path: pathlib.Path,
    summary: dict[str, Any],
    searched: bool,
    confirmed: dict[str, Any] | None = None,
    fresh: bool = False,
) -> str:
    """Writes conclusions.json or search.json and their figures; the conclusions in words.

    Args:
      path: the workdir.
      summary: its summary.json.
      searched: whether the runs come from a random search.
      confirmed: the summary of what was chosen, on fresh seeds.
      fresh: whether fresh seeds were asked for.
    """
    headline = statistics.headline_of(summary)
    runs = sweep.ended(summary["runs"], headline)
    if not searched and any(run["n"] for run in summary["runs"]):
        sweep_figures.draw_sweep(path, summary)
    if not runs:
        if any(run["n"] for run in summary["runs"]):
            return "nothing is chosen: no validation examples; --validation=0.1 sets some apart"
        return "nothing is chosen: no trial ended"
    again = None if not fresh else confirmed["runs"] if confirmed else []
    if searched:
        return _conclude_search(path, summary, runs, again)
    if not sweep.ended(summary["runs"][:1], headline):
        return "no conclusions: no trial of the baseline ended"
    conclusions = sweep.conclusions(summary["runs"], headline, again)
    write_json(path / "conclusions.json", conclusions)
    text = sweep.conclusions_table(conclusions, headline)
    if not fresh:
        text += "\n\nnot confirmed on fresh seeds; --confirm=N trains what was chosen again"
    return text


def _conclude_search(
    path: pathlib.Path,
    summary: dict[str, Any],
    runs: list[dict[str, Any]],
    again: list[dict[str, Any]] | None,
) -> str:
    headline = statistics.headline_of(summary)
    drawn = runs[-1]["settings"]
    names = [
        name for name, value in drawn.items()
        if isinstance(value, float)
        and len({run["settings"].get(name) for run in summary["runs"]}) > 1
    ]  # fmt: skip
    sweep_figures.draw_search(path, summary, names)
    best = sweep.best_by_validation(runs, headline)
    chosen = {name: best["settings"][name] for name in names}
    scores = {
        which: statistics.describe(sweep.values(best, which, headline))
        | {"endpoint": sweep.REPORTED[which]}
        for which in ("validation", "test")
    }
    found = ", ".join(f"{name} {value:g}" for name, value in chosen.items())
    number = f"{headline.scale * scores['validation']['mean']:.2f}"
    unit = " %" if headline.percent else ""
    text = f"best by validation ({number}{unit}): {best['name']}, {found}"
    result = {"best": best["name"], "settings": chosen, **scores}
    own = next((run for run in (again or [])[1:] if run["name"] == best["name"]), None)
    if again and own:
        result["confirmed"] = sweep.on_fresh_seeds(again[0], own, headline)
        text += "\n\n" + sweep.confirmed_table(
            [{"setting": "search", "chosen": best["name"], **result}], headline
        )
    write_json(path / "search.json", result)
    return text


def _seeds(values: flags.FlagValues) -> list[int]:
    at_least("trials", values.trials, 1)
    if values.trials > study.MOST_SEEDS:
        raise ConfigError("trials", values.trials, f"1 to {study.MOST_SEEDS}")
    last = values.seed + values.trials - 1
    if values.seed < 0 or last >= study.SEED_LIMIT:
        accepted = "an integer >= 0, so that the seed of the last trial is below 2^31"
        raise ConfigError("seed", values.seed, accepted)
    first, stop = 0, values.trials
    if values.trial_range is not None:
        left, colon, right = values.trial_range.partition(":")
        accepted = f"FIRST:LAST with 0 <= FIRST < LAST <= {values.trials}, the number of --trials"
        if not (colon and left.isascii() and left.isdecimal()):
            raise ConfigError("trial_range", values.trial_range, accepted)
        if not (right.isascii() and right.isdecimal()):
            raise ConfigError("trial_range", values.trial_range, accepted)
        first, stop = int(left), int(right)
        if not 0 <= first < stop <= values.trials:
            raise ConfigError("trial_range", values.trial_range, accepted)
    return list(range(values.seed + first, values.seed + stop))


def _load(experiment: Experiment, values: flags.FlagValues) -> Dataset:
    one_of("dataset", values.dataset, experiment.datasets)
    options = {name: values[name].value for name in experiment.load_options}
    options |= experiment.load_with
    if not data.is_taken(values.dataset, experiment.preferred, values.data_dir):
        given = {name: value for name, value in options.items() if value is not None}
        options = {**experiment.embedded, **given}
    dataset = data.load(values.dataset, values.data_dir, preferred=experiment.preferred, **options)
    dataset = experiment.limit(dataset, values)
    # The trials of a tuned study train on all examples; `tuning` sets some apart for its choice.
    if values.validation is not None and values.tune is None:
        dataset = with_validation(dataset, values.validation)
    return dataset


def _runs(experiment: Experiment, values: flags.FlagValues, baseline: Config) -> list[Run]:
    """The runs that the flags ask for, the baseline first."""
    metrics = _metrics(experiment, values, baseline)
    if values.sweep and values.random_search is not None:
        raise UserError("--sweep and --random_search: got both; accepted: one of them")
    if values.random_search is not None:
        if len(metrics) > 1:
            raise ConfigError("metric", ",".join(metrics), "one metric with --random_search")
        ranges = sweep.searched(baseline)
        return sweep.random_runs(baseline, ranges, values.random_search, values.seed)
    sweeps = [sweep.parse_sweep(text, experiment.config) for text in values.sweep]
    if values.grid:
        if not sweeps:
            raise ConfigError("grid", "no --sweep", "--grid with one --sweep or more")
        if len(metrics) > 1:
            sweeps = [("metric", metrics), *sweeps]
        return sweep.sweep_runs(baseline, sweeps, grid=True)
    if sweeps:
        if len(metrics) > 1:
            got = ",".join(metrics)
            raise ConfigError("metric", got, "one metric with --sweep, or several with --grid")
        return sweep.sweep_runs(baseline, sweeps)
    if not metrics:
        return [Run("baseline", baseline)]
    configs = [with_settings(baseline, {"metric": name}) for name in metrics]
    return [Run(experiment.run_name(config), config) for config in configs]


def _metrics(experiment: Experiment, values: flags.FlagValues, baseline: Config) -> list[str]:
    """The metrics that are compared; none where the experiment has no --metric."""
    if "metric" not in values:
        return []
    metrics = values.metric or [record(baseline)["metric"]]
    accepted = sweep.sweepable(experiment.config)["metric"].field.metadata["choices"]
    for name in metrics:
        one_of("metric", name, accepted)
        if metrics.count(name) > 1:
            raise ConfigError("metric", f"{name} twice", "each metric once")
    return metrics
