"""The command: its files, and total variation ahead of the usual methods at few views."""

import json

import numpy as np

from experiments import ct_reconstruction
from experiments.cli import main as command


def test_total_variation_is_ahead_of_the_usual_methods(tmp_path):
    out = tmp_path / "ct"
    results = command.call(
        ct_reconstruction.main, ct_reconstruction.define, "--images=shepp_logan", "--size=32",
        "--views=12", "--tolerance=0.01", f"--out={out}",
    )  # fmt: skip
    rows = {row["method"]: row for row in results["rows"]}
    usual = max(rows[name]["psnr"] for name in ("FBP", "FBP, hann", "least squares"))
    found = rows["total variation"]
    assert found["psnr"] > usual + 1  # dB
    assert found["ssim"] > rows["FBP"]["ssim"]
    assert abs(rows["smoothed TV"]["psnr"] - found["psnr"]) < 3
    assert 0 <= found["gap"] <= 0.01
    (history,) = results["histories"].values()
    assert np.all(np.array(history["dual"]) <= history["objective"][-1])

    assert {path.name for path in out.iterdir()} == {
        "shepp_logan.png", "shepp_logan.pdf", "gap.png", "gap.pdf", "results.json", "table.md",
    }  # fmt: skip
    stored = json.loads((out / "results.json").read_text())
    assert stored["rows"] == results["rows"] and stored["settings"]["views"] == ["12"]
    assert stored["environment"]["versions"]["jax"]
    (line,) = [x for x in (out / "table.md").read_text().splitlines() if x.startswith("| shepp")]
    assert line.count("|") == 9 and f"{found['psnr']:.2f} ({found['ssim']:.2f})" in line
