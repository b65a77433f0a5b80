"""A table of finished runs beside the paper's, with its statistics and figures; it never trains.

    python -m experiments.report WORKDIR... --out=DIR

Reads the workdirs of any training command (config.json, summary.json, metrics.jsonl) and writes
table.md, table.csv and table.tex (Channel-directed gradients, table 2), histogram.png (figure 5)
and curves.png (figures 4, 8, 9). Parts of a study that were trained apart, with --trial_range or
with one metric each, are joined; trials that are missing, diverged or there twice are listed.
"""

from __future__ import annotations

import contextlib

from absl import flags

from experiments.cli import main as command
from experiments.figures import report as figures
from experiments.reports import studies, tables
from experiments.system.errors import UserError
from experiments.system.files import write_text

SEVERAL = "workdir"  # what the names on the command line are


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "out", "report", "Folder for the tables and figures.", flag_values=values,
        module_name="report",
    )  # fmt: skip


def main(values: flags.FlagValues, *workdirs: str) -> None:
    out = command.out_folder(values)
    try:
        columns = studies.join([studies.read(path) for path in dict.fromkeys(workdirs)])
    except UserError:
        with contextlib.suppress(OSError):
            out.rmdir()  # if it is empty: nothing was written
        raise
    rows, remarks = studies.compare(columns), studies.remarks(columns)
    text = tables.markdown(rows, remarks)
    write_text(out / "table.md", text)
    write_text(out / "table.csv", tables.as_csv(rows))
    write_text(out / "table.tex", tables.latex(rows))
    figures.draw(out, columns)
    print(text)
    print(f"in {out}: {'  '.join(sorted(path.name for path in out.iterdir()))}")


if __name__ == "__main__":
    command.run(main, define, several=SEVERAL)
