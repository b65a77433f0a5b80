"""Computed tomography from few views: total variation against the usual methods.

    python -m experiments.ct_reconstruction --views=20,30,40

Simulates scans of the Shepp-Logan phantom and of a photograph and reconstructs them by filtered
back-projection, least squares, and least squares with total variation, min_V 1/2 |A V - S|^2 +
strength TV(V), by primal-dual splitting until its duality gap is below --tolerance, and by gradient
descent on a smoothed total variation. Writes for each image the row of reconstructions by number of
views, the gap against iterations, and the PSNR and SSIM of every method (table.md, results.json).

"least squares" is, of 100 iterates of conjugate gradients, the one nearest to the truth, which
nobody knows outside of a simulation. With it and with the damped "FBP, hann" the comparison is with
the best that the usual methods can do.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from absl import flags

from experiments.cli import lists
from experiments.cli import main as command
from experiments.figures import tomography as figures
from experiments.figures.files import save
from experiments.system import environment
from experiments.system.errors import ConfigError
from experiments.system.files import write_json, write_text
from experiments.system.output import say
from experiments.tomography import reconstruction
from experiments.tomography.geometry import system_matrix
from experiments.tomography.scans import IMAGES, Scan, scan

TOTAL_VARIATION = "total variation"
DRAWN = (TOTAL_VARIATION, "least squares", "FBP")


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    scanner: dict[str, Any] = {"flag_values": values, "module_name": "scan"}
    flags.DEFINE_list("views", ["20", "30", "40", "180"], "Numbers of views.", **scanner)
    flags.DEFINE_list("images", list(IMAGES), f"Accepted: {', '.join(IMAGES)}.", **scanner)
    flags.DEFINE_integer("size", 128, "Pixels of a side, and bins of the detector.", **scanner)
    flags.DEFINE_float("dose", 1e5, "Photons for each bin of each view.", **scanner)
    flags.DEFINE_integer("seed", 0, "Of the noise.", **scanner)
    solver: dict[str, Any] = {"flag_values": values, "module_name": "total variation"}
    flags.DEFINE_float("strength", 0.5, "Weight of the total variation.", **solver)
    flags.DEFINE_float("tolerance", 1e-3, "Duality gap over objective, at the stop.", **solver)
    flags.DEFINE_integer("max_iterations", 3000, "Stops there in any case.", **solver)
    where: dict[str, Any] = {"flag_values": values, "module_name": "figures"}
    flags.DEFINE_string("out", "figures/ct", "Folder for figures and tables.", **where)


def main(values: flags.FlagValues) -> dict[str, Any]:
    """Reconstructs, draws and writes the tables; returns results.json as a dict."""
    views = _checked(values)
    out = command.out_folder(values)
    results: dict[str, Any] = {
        "settings": {name: values[name].value for name in _SETTINGS},
        "environment": environment.describe(),
        "rows": [],
    }
    histories = {}
    for name in values.images:
        images: dict[str, dict[int, np.ndarray]] = {}
        scores: dict[str, dict[int, float]] = {}
        for count in views:
            started = time.monotonic()
            measured = scan(name, values.size, count, values.dose, values.seed)
            found, solved = reconstruct(
                measured, values.strength, values.tolerance, values.max_iterations
            )
            for method, image in found.items():
                row = {"image": name, "views": count, "method": method, **score(measured, image)}
                if method == TOTAL_VARIATION:
                    row |= {
                        "gap": solved.gap, "iterations": solved.iterations,
                        "objective": float(solved.history["objective"][-1]),
                    }  # fmt: skip
                results["rows"].append(row)
                images.setdefault(method, {})[count] = image
                scores.setdefault(method, {})[count] = row["psnr"]
            histories[f"{name}, {count} views"] = solved.history
            told = ", ".join(f"{method} {by[count]:.2f} dB" for method, by in scores.items())
            say(
                f"{name}, {count} views: {told}; gap {solved.gap:.1e} after "
                f"{solved.iterations} iterations ({time.monotonic() - started:.0f} s)"
            )
        drawn = {method: images[method] for method in DRAWN}
        save(figures.reconstructions(measured.truth, drawn, scores), out / f"{name}.png")
    save(figures.gaps(histories), out / "gap.png")
    results["histories"] = {
        name: {key: column.tolist() for key, column in history.items()}
        for name, history in histories.items()
    }
    write_json(out / "results.json", results)
    text = table(results["rows"])
    write_text(out / "table.md", text)
    print(f"\n{text}\nin {out}:\n  " + "  ".join(sorted(path.name for path in out.iterdir())))
    return results


def reconstruct(
    measured: Scan, strength: float, tolerance: float, max_iterations: int
) -> tuple[dict[str, np.ndarray], reconstruction.Reconstruction]:
    """The image by every method, and the record of the primal-dual one."""
    views, size = measured.sinogram.shape
    matrix = system_matrix(size, views)
    sinogram = measured.sinogram.astype(np.float32)
    iterates = np.asarray(reconstruction.least_squares(matrix, sinogram), np.float64)
    nearest = np.argmin(np.mean((iterates - measured.truth) ** 2, axis=(1, 2)))
    solved = reconstruction.primal_dual(matrix, sinogram, strength, tolerance, max_iterations)
    smoothed = reconstruction.smoothed_descent(matrix, sinogram, strength)
    found = {
        "FBP": reconstruction.filtered_back_projection(measured.sinogram),
        "FBP, hann": reconstruction.filtered_back_projection(measured.sinogram, "hann"),
        "least squares": iterates[nearest],
        "smoothed TV": np.asarray(smoothed.image, np.float64),
        TOTAL_VARIATION: np.asarray(solved.image, np.float64),
    }
    return found, solved


def score(measured: Scan, image: np.ndarray) -> dict[str, float]:
    """PSNR in dB and SSIM, for values from 0 to 1."""
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    return {
        "psnr": float(peak_signal_noise_ratio(measured.truth, image, data_range=1.0)),
        "ssim": float(structural_similarity(measured.truth, image, data_range=1.0)),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """PSNR (SSIM) of each method, a line for each image and number of views, with the gap."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    lines = [
        f"| image | views | {' | '.join(methods)} | gap |",
        "| --- " * (3 + len(methods)) + "|",
    ]
    for image, views in dict.fromkeys((row["image"], row["views"]) for row in rows):
        here = [row for row in rows if (row["image"], row["views"]) == (image, views)]
        cells = [f"{row['psnr']:.2f} ({row['ssim']:.2f})" for row in here]
        (gap,) = (row["gap"] for row in here if "gap" in row)
        lines.append(f"| {image} | {views} | {' | '.join(cells)} | {gap:.1e} |")
    return "PSNR in dB (SSIM)\n\n" + "\n".join(lines) + "\n"


_SETTINGS = (
    "views", "images", "size", "dose", "seed", "strength", "tolerance", "max_iterations",
)  # fmt: skip


def _checked(values: flags.FlagValues) -> list[int]:
    """The numbers of views, once every flag is known to be usable."""
    views = lists.integers("views", values.views, 1, 720)
    if not views or len(set(views)) < len(views):
        raise ConfigError("views", ",".join(values.views), "one or more integers, each once")
    lists.names("images", values.images, IMAGES)
    lists.within("size", values.size, 16, 512)
    lists.within("dose", values.dose, 1.0, 1e12)
    lists.within("seed", values.seed, 0, 2**31 - 1)
    lists.within("strength", values.strength, 1e-6, 1e6)
    lists.within("tolerance", values.tolerance, 1e-5, 1.0)
    lists.within("max_iterations", values.max_iterations, 1, 1_000_000)
    return views


if __name__ == "__main__":
    command.run(main, define)
