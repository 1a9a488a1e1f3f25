"""An aarch64 check without a board: a bundle drawn through qemu gives the picture that it gives here.

    python tests/device/aarch64.py CACHE BUNDLE [--prompt TEXT] [--seed N] [--steps N]

Run by name, not by pytest: the first run downloads about 220 MB into CACHE (qemu, a Debian arm64 root, and
the aarch64 wheels of the base dependencies), later ones take what lies there. Needs a Debian or Ubuntu and
root's `apt-get install debootstrap`. Exit code 1 when the pictures are less than 40 dB alike.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from latentc.runtime.picture import load_picture

# The version that compiles: an .ort file is read by its own version and newer ones (1.27 refuses 1.31's).
WHEELS = ("onnxruntime==1.31.1", "numpy", "tokenizers", "pillow", "typer")

# qemu 7.2, which Debian 12 itself has, crashes on onnxruntime from 1.28 on; 10.0 of its backports does not
# (both measured).
QEMU = "qemu-user/bookworm-backports"
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
SUITE = "bookworm"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
PYTHON = "3.11"
PACKAGES = "python3,libstdc++6,libgomp1"

# Two processors sum floats in different orders. A wrong kernel or byte order gives 10 to 20 dB.
SMALLEST_PSNR_DB = 40.0

log = logging.getLogger("aarch64")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("cache", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--prompt", default="a large red circle above a small blue square")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--steps", default=None)
    chosen = parser.parse_args(arguments)
    cache, bundle = chosen.cache.resolve(), chosen.bundle.resolve()
    python = emulated_python(emulator(cache), debian_root(cache), aarch64_wheels(cache))
    # The machine names itself, so that no mix-up passes.
    machine = subprocess.run(
        [*python, "-c", "import platform; print(platform.machine())"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    if machine != "aarch64":
        raise SystemExit(f"the emulated python says it runs on {machine}")
    draw = ["-m", "latentc", "run", str(bundle), "--prompt", chosen.prompt, "--seed", chosen.seed]
    draw += ["--steps", chosen.steps] if chosen.steps else []
    pictures = {"here": cache / "here.png", "aarch64": cache / "aarch64.png"}
    for name, launcher in (("here", [sys.executable]), ("aarch64", python)):
        start = time.monotonic()
        subprocess.run([*launcher, *draw, "--out", str(pictures[name])], check=True, cwd=cache)
        log.info("%s: drawn in %.1f s", name, time.monotonic() - start)
    psnr_db = peak_ratio_db(load_picture(pictures["here"]), load_picture(pictures["aarch64"]))
    passed = psnr_db >= SMALLEST_PSNR_DB
    log.info("PSNR %.2f dB, wanted %.0f dB: %s", psnr_db, SMALLEST_PSNR_DB, "passed" if passed else "FAILED")
    return 0 if passed else 1


def emulator(cache: Path) -> Path:
    """A qemu under ``cache`` that is new enough; nothing is installed."""
    unpacked = cache / "qemu"
    if not unpacked.is_dir():
        apt = cache / "apt"
        (apt / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        source = f"deb [signed-by={KEYRING}] {mirror()} {SUITE}-backports main\n"
        (apt / "sources.list").write_text(source, encoding="utf-8")
        settings = {
            "Dir::Etc::sourcelist": apt / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State::lists": apt / "lists",
        }
        get = ["apt-get", "--quiet", *(f"--option={key}={value}" for key, value in settings.items())]
        subprocess.run([*get, "update"], check=True)
        subprocess.run([*get, "download", QEMU], check=True, cwd=apt)
        part = cache / "qemu.part"
        shutil.rmtree(part, ignore_errors=True)
        for package in apt.glob("qemu-user_*.deb"):
            subprocess.run(["dpkg", "-x", str(package), str(part)], check=True)
        part.rename(unpacked)
    return unpacked / "usr/bin/qemu-aarch64"


def mirror() -> str:
    """Where this machine's own Debian packages come from."""
    sites = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE)", "Identifier: Packages"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    if not sites:
        raise SystemExit("apt knows no packages yet: apt-get update")
    return sites[0]


def debian_root(cache: Path) -> Path:
    """A Debian arm64 root under ``cache``, laid out without running anything of it."""
    root = cache / "root"
    if root.is_dir():
        return root
    if shutil.which("debootstrap") is None:
        raise SystemExit("debootstrap is missing: apt-get install debootstrap")
    part = cache / "root.part"
    shutil.rmtree(part, ignore_errors=True)
    cache.mkdir(parents=True, exist_ok=True)
    first_stage = ["debootstrap", "--foreign", "--arch=arm64", "--variant=minbase", f"--include={PACKAGES}"]
    subprocess.run([*first_stage, SUITE, str(part), mirror()], check=True)
    # The second stage would run arm64 programs in a chroot; to unpack is all that Python needs.
    for package in sorted((part / "var/cache/apt/archives").glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(part)], check=True)
    part.rename(root)
    return root


def aarch64_wheels(cache: Path) -> Path:
    """The base dependencies for aarch64 under ``cache``, and nothing beyond them."""
    site = cache / "site"
    if site.is_dir():
        return site
    part = cache / "site.part"
    shutil.rmtree(part, ignore_errors=True)
    platforms = [f"--platform={platform}" for platform in PLATFORMS]
    subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--only-binary=:all:",
                "--target",
                str(part),
            ),
            *(*platforms, f"--python-version={PYTHON}", "--implementation=cp"),
            *("--abi=cp311", "--abi=abi3", "--abi=none", *WHEELS),
        ],
        check=True,
    )
    part.rename(site)
    return site


def emulated_python(qemu: Path, root: Path, site: Path) -> list[str]:
    """The command that starts arm64's Python with ``site`` and this checkout importable, and no torch."""
    source = Path(__file__).resolve().parents[2] / "src"
    settings = {"PYTHONHOME": root / "usr", "PYTHONPATH": f"{site}{os.pathsep}{source}"}
    command = [str(qemu), "-L", str(root)]
    for name, value in settings.items():
        command += ["-E", f"{name}={value}"]
    return [*command, str(root / "usr/bin" / f"python{PYTHON}")]


def peak_ratio_db(one: np.typing.NDArray[np.uint8], other: np.typing.NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of two uint8 pictures; infinity when they are equal."""
    if one.shape != other.shape:
        raise SystemExit(f"the pictures have shapes {one.shape} and {other.shape}")
    error = float(np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    sys.exit(main(sys.argv[1:]))
