"""Prints the interpreter of a Python environment that holds what a list of packages names.

usage: environment.py NAME        NAME.txt in requirements/

An environment is made once for each user, in the cache directory, and kept: another list, or another
Python, gets another one. Two that want the same at once wait for each other. Needs nothing but the
standard library; the packages come by pip, from wherever the user has told it to look.
"""

import fcntl
import os
import pathlib
import shutil
import subprocess
import sys
import zlib

REQUIREMENTS = pathlib.Path(__file__).parent / "requirements"


def main(name):
    wanted = REQUIREMENTS / f"{name}.txt"
    if not wanted.is_file():
        known = ", ".join(sorted(path.stem for path in REQUIREMENTS.glob("*.txt")))
        sys.exit(f"environment.py: there is no list {name}: there are {known}")
    made_of = wanted.read_bytes() + f"{sys.executable} {sys.version}".encode()
    place = cache() / f"{name}-{zlib.crc32(made_of):08x}"
    place.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{place}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "complete").exists():
            make(place, wanted)
    print(interpreter(place))


def cache():
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "skytale"


def interpreter(place):
    return place / "bin" / "python"


def make(place, wanted):
    """What is there is from a maker that was broken off."""
    shutil.rmtree(place, ignore_errors=True)
    run([sys.executable, "-m", "venv", place], "a Python environment could not be made: is venv there?")
    pip = [interpreter(place), "-m", "pip", "--quiet", "--disable-pip-version-check", "--retries", "2"]
    run(
        [*pip, "install", "--only-binary", ":all:", "--requirement", wanted],
        f"pip could not install {' '.join(wanted.read_text().split())}: has it a network or a mirror?",
    )
    (place / "complete").touch()


def run(command, why):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"environment.py: {why}\n{done.stdout}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
