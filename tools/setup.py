"""Make .venv with the course installed: ``python3 tools/setup.py [test]``.

Standard library only, and written so that even Python 3.6 can read it: somebody whose
Python is too old should get one sentence, not a SyntaxError. A second run ends at once
(a stamp in .venv says what is installed), a broken run is picked up where it stopped,
and two at once wait for each other. What pip said is kept in build/setup.log.
"""

import argparse
import contextlib
import hashlib
import importlib.util
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

OLDEST = (3, 11)
ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
STAMP = VENV / "mmcourse.json"
BUILD = ROOT / "build"
LOG = BUILD / "setup.log"
ON_WINDOWS = os.name == "nt"

# With the extra `test`. On Linux, where torch brings CUDA, both were measured: a .venv
# in use, and the sum of 203 wheels. Elsewhere they are estimates, on the safe side.
# The cache of pip may hold the downloads a second time.
STACK_GB, DOWNLOAD_GB = (7.5, 3.5) if sys.platform.startswith("linux") else (3.0, 1.0)

UNREACHABLE = re.compile(
    r"total=0|Max retries exceeded|NewConnectionError|Connection refused|"
    r"name resolution|getaddrinfo failed|ProxyError|CERTIFICATE_VERIFY_FAILED"
)
FULL = re.compile(
    r"Errno 28\b|No space left|quota exceeded|WinError 112", re.IGNORECASE
)


class SetupError(Exception):
    """One sentence that says what is wrong and how to mend it."""


# --- what is there ----------------------------------------------------------------


def venv_python():
    """The interpreter of .venv."""
    return VENV / ("Scripts/python.exe" if ON_WINDOWS else "bin/python")


def venv_version():
    """Read the version in pyvenv.cfg, such as (3, 12); (0, 0) where there is none."""
    with contextlib.suppress(OSError):
        text = (VENV / "pyvenv.cfg").read_text(encoding="utf-8")
        found = re.search(r"^version\w*\s*=\s*(\d+)\.(\d+)", text, re.MULTILINE)
        if found:
            return int(found.group(1)), int(found.group(2))
    return 0, 0


def site_packages():
    """Where packages are installed; None before .venv is made."""
    pattern = "Lib/site-packages" if ON_WINDOWS else "lib/*/site-packages"
    return next(VENV.glob(pattern), None)


def digest():
    """A hash that changes when what is to be installed does, or the clone is moved."""
    parts = [str(ROOT).encode("utf-8"), repr(venv_version()).encode("utf-8")]
    for file in (ROOT / "pyproject.toml", ROOT / "constraints.txt"):
        parts.append(file.read_bytes() if file.is_file() else b"")
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def read_stamp():
    """What the last run left in .venv; empty where there was none."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads(STAMP.read_text(encoding="utf-8"))
    return {}


def write_stamp(extras, **more):
    """Note what .venv is for, and with ``digest=`` that all of it is installed."""
    part = STAMP.with_suffix(".part")
    stamp = dict(root=str(ROOT), extras=extras, **more)
    part.write_text(json.dumps(stamp), encoding="utf-8")
    part.replace(STAMP)


def is_fresh(extras):
    """Whether .venv holds all that is asked for, so that nothing is left to do."""
    stamp = read_stamp()
    same = stamp.get("digest") == digest() and venv_python().exists()
    return same and set(extras) <= set(stamp["extras"])


def is_usable():
    """Whether pip runs in .venv, and neither it nor its Python was moved or removed."""
    moved = read_stamp().get("root", str(ROOT)) != str(ROOT)
    if moved or venv_version() < OLDEST:
        return False
    probe = [str(venv_python()), "-m", "pip", "--version"]
    quiet = subprocess.DEVNULL
    try:
        return not subprocess.call(probe, stdout=quiet, stderr=quiet, env=clean_env())
    except OSError:
        return False


def size_gb(folder):
    """Sum of the sizes of the files in a folder."""
    total = 0
    for home, _, names in os.walk(str(folder)):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(home) / name).lstat().st_size
    return total / 1e9


# --- refuse early, in one sentence ------------------------------------------------


def check_python():
    """Refuse a Python that can't make the environment."""
    here, version = sys.executable, "{}.{}".format(*sys.version_info[:2])
    if sys.version_info[:2] < OLDEST:
        raise SetupError(
            "Python {} at {} is too old, the course needs {}.{} or later: get one from "
            "python.org, conda or your system's packages and name it, for example "
            "`make PYTHON=python3.12 course`.".format(version, here, *OLDEST)
        )
    if not all(map(importlib.util.find_spec, ("venv", "ensurepip"))):
        raise SetupError(
            f"Python {version} at {here} lacks its venv module: on Debian and Ubuntu "
            f"run `sudo apt install python{version}-venv`, then try again."
        )


def check_disk():
    """Refuse a disk without room; return whether pip's cache has room as well."""
    free = shutil.disk_usage(str(ROOT)).free / 1e9
    part = max(1 - size_gb(VENV) / STACK_GB, 0.05)  # what is still to be installed
    need = part * (STACK_GB + DOWNLOAD_GB)
    if free < need:
        raise SetupError(
            f"The disk of {ROOT} has {free:.1f} GB free and the installation needs "
            f"about {need:.1f} GB: free some, or move the course to another disk."
        )
    return free > need + part * DOWNLOAD_GB


# --- the steps --------------------------------------------------------------------


@contextlib.contextmanager
def locked():
    """Hold build/setup.lock, which the system lets go of should we be killed."""
    BUILD.mkdir(exist_ok=True)
    with (BUILD / "setup.lock").open("w") as handle:
        if not try_lock(handle):
            print("Another set-up of this folder is running: waiting.", flush=True)
            while not try_lock(handle):
                time.sleep(0.2)
        yield handle


def try_lock(handle):
    """Lock the file for this process; False where another one holds it."""
    try:
        if ON_WINDOWS:
            import msvcrt

            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def set_up(extras, wheelhouse=None, room=None):
    """Bring .venv to what is asked for; False where it was there already."""
    with locked() as lock:
        if is_fresh(extras):
            return False
        usable = is_usable()
        if not usable:
            check_python()
        cache = check_disk()
        if room is not None:
            wheelhouse = unpack_wheels(room)
        extras = sorted(set(extras) | set(read_stamp().get("extras", [])))
        if usable:
            forget_half_installed()
        else:
            make_venv(lock)
        write_stamp(extras)
        install(extras, wheelhouse, cache, lock)
        write_stamp(extras, digest=digest())
    return True


def make_venv(lock):
    """Make .venv; what is left of a broken one is cleared first."""
    # Started from inside .venv, the interpreter that made it has to make it anew.
    base = getattr(sys, "_base_executable", None) or sys.executable
    if run([base, "-m", "venv", "--clear", str(VENV)], lock, "making .venv"):
        raise SetupError(reason("Python could not make .venv"))


def forget_half_installed():
    """Drop the marks of packages that a killed pip left, so that pip does them again.

    pip takes a package for installed once its METADATA is there, and writes INSTALLER
    only after the last of its files. A name that begins with ~ was being replaced.
    """
    for folder in site_packages().iterdir():
        half = folder.suffix == ".dist-info" and not (folder / "INSTALLER").exists()
        if half or folder.name.startswith("~"):
            shutil.rmtree(str(folder), ignore_errors=True)


def install(extras, wheelhouse, cache, lock):
    """Run pip; where no index answers, once more on the wheelhouse if there is one."""
    what = ".[{}]".format(",".join(extras)) if extras else "."
    command = [str(venv_python()), "-m", "pip", "install", "-e", what]
    command += ["--progress-bar", "off", "--disable-pip-version-check"]
    command += ["-c", "constraints.txt"] if (ROOT / "constraints.txt").is_file() else []
    command += [] if cache else ["--no-cache-dir"]
    failed = True
    if wheelhouse is None:
        failed = run(command, lock, "asking the package index")
        if failed and UNREACHABLE.search(said()) and default_wheelhouse().is_dir():
            wheelhouse = default_wheelhouse()
            print(f"No package index can be reached: installing from {wheelhouse}.")
    if failed and wheelhouse is not None:
        command += ["--no-index", "--find-links", str(Path(wheelhouse).resolve())]
        failed = run(command, lock, "reading the wheelhouse")
    if failed:
        raise SetupError(reason("pip could not install the course"))


def default_wheelhouse():
    """Where --from and ``mmcourse assets --from`` put the wheels of a packed room."""
    return Path(os.environ.get("MMCOURSE_DATA") or str(ROOT / "data")) / "wheelhouse"


def unpack_wheels(room):
    """Copy the wheels out of a packed room; those that are there are left alone."""
    try:
        with zipfile.ZipFile(str(room)) as archive:
            wheels = [i for i in archive.infolist() if i.filename.endswith(".whl")]
            for info in wheels:
                copy_wheel(archive, info)
    except (zipfile.BadZipFile, OSError) as error:
        raise SetupError(
            f"{room} can't be unpacked ({error}): copy it again, or pack it anew with "
            "`make room`."
        ) from error
    if not wheels:
        raise SetupError(
            f"{room} holds no wheels: pack it in a clone with `make room`."
        )
    return default_wheelhouse()


def copy_wheel(archive, info):
    """Copy one wheel, whole or not at all, and never out of the folder."""
    wheel = default_wheelhouse() / re.split(r"[/\\:]", info.filename)[-1]
    if wheel.exists() and wheel.stat().st_size == info.file_size:
        return
    wheel.parent.mkdir(parents=True, exist_ok=True)
    part = wheel.with_suffix(".part")
    with archive.open(info) as source, part.open("wb") as sink:
        shutil.copyfileobj(source, sink)
    part.replace(wheel)


# --- a child process, its log and a line of progress ------------------------------


def clean_env():
    """Our environment, less what leads pip astray: others' packages, a small /tmp."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    env.update(PIP_USER="0", PYTHONUNBUFFERED="1")
    if not ON_WINDOWS:  # /tmp is often memory, and the downloads are large
        env["TMPDIR"] = str(BUILD / "tmp")
    return env


def run(command, lock, doing):
    """Run a command with its output in the log and a status line; return its exit code.

    The child inherits the lock: were we killed, the next run would wait for its end.
    """
    shutil.rmtree(str(BUILD / "tmp"), ignore_errors=True)
    (BUILD / "tmp").mkdir()
    child = subprocess.Popen(
        command,
        cwd=str(ROOT),
        env=clean_env(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=() if ON_WINDOWS else (lock.fileno(),),
    )
    try:
        with LOG.open("w", encoding="utf-8") as log:
            follow(child, log, Status(doing))
    except BaseException:
        child.kill()
        raise
    finally:
        code = child.wait()
        shutil.rmtree(str(BUILD / "tmp"), ignore_errors=True)
    return code


def follow(child, log, status):
    """Write what the child says to the log until it ends, and keep the status alive."""
    lines = queue.Queue()

    def pump():
        for raw in child.stdout:
            lines.put(raw.decode("utf-8", "replace"))
        lines.put(None)

    threading.Thread(target=pump, daemon=True).start()
    while True:
        with contextlib.suppress(queue.Empty):
            line = lines.get(timeout=0.5)
            if line is None:
                break
            log.write(line)
            log.flush()
            status.read(line)
        status.show()
    status.clear()


class Status:
    """One live line in a terminal; elsewhere a line every half a minute."""

    def __init__(self, doing):
        self.doing, self.live = doing, sys.stdout.isatty()
        self.start = self.shown = time.time()
        self.total = self.before = 0

    def read(self, line):
        """Take from pip's output what it is busy with."""
        words = line.split()
        if line.startswith("Installing collected packages:"):
            self.total, self.before = len(words) - 3, self.arrived()
        elif words[:1] == ["Collecting"]:
            self.doing = "finding " + re.split(r"[\[(<>=!~;]", words[1])[0]
        elif words[:1] == ["Downloading"] and not words[1].endswith(".metadata"):
            name = words[1].split("/")[-1].split("-")[0]
            self.doing = " ".join(["downloading", name] + words[2:])  # noqa: RUF005

    def show(self):
        """Print where we are, if it is time to."""
        now = time.time()
        if now - self.shown < (0.5 if self.live else 30):
            return
        self.shown = now
        doing = self.doing
        if self.total:  # pip is silent while it copies: count what has arrived
            doing = f"installing package {self.arrived() - self.before} of {self.total}"
        text = f"  {now - self.start:4.0f} s  {doing}"
        width = shutil.get_terminal_size().columns - 1
        print("\r\033[K" + text[:width] if self.live else text, end="", flush=True)
        if not self.live:
            print(flush=True)

    def arrived(self):
        """How many packages are installed."""
        folder = site_packages()
        return 0 if folder is None else len(list(folder.glob("*.dist-info/INSTALLER")))

    def clear(self):
        """Leave a clean line behind."""
        if self.live:
            print("\r\033[K", end="", flush=True)


def said():
    """What the last child wrote."""
    return LOG.read_text(encoding="utf-8", errors="replace")


def reason(what):
    """What the log comes down to, in one sentence."""
    text = said()
    # venv swallows what its child said: look at the disk itself as well.
    if FULL.search(text) or shutil.disk_usage(str(ROOT)).free < 1e8:
        return (
            f"The disk of {ROOT} is full (or your quota): the installation needs about "
            f"{STACK_GB + DOWNLOAD_GB:.0f} GB, free some and run it again."
        )
    if UNREACHABLE.search(text):
        return (
            "No package index can be reached: check the network, name a mirror with "
            "PIP_INDEX_URL, or bring a room packed elsewhere (`python3 tools/setup.py "
            f"--from room.zip`); pip's words are in {LOG}."
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(ERROR|\w*Error):", line)]
    others = [line for line in lines if not re.match(r"note:|hint:|\[|WARN", line)]
    last = (errors or others or ["it said nothing"])[-1]
    return f"{what}: {last} (the whole story is in {LOG})"


# --- the command ------------------------------------------------------------------


def main(argv=None):
    """Set up, and turn whatever goes wrong into one sentence and exit code 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("extras", nargs="*", help="extras of pyproject.toml, like test")
    parser.add_argument(
        "--wheelhouse", metavar="DIR", help="install from DIR, no index"
    )
    parser.add_argument("--from", dest="room", metavar="ZIP", help="a packed room.zip")
    options = parser.parse_args(argv)
    start = time.time()
    try:
        if set_up(options.extras, options.wheelhouse, options.room):
            print(f".venv is ready ({time.time() - start:.0f} s).")
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        full = "free some space" if FULL.search(str(error)) else "mend that"
        print(
            f"The set-up stopped ({error}): {full}, then run it again.", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        print("\nStopped: run it again and it goes on from here.", file=sys.stderr)
        return 130
    if venv_version() != sys.version_info[:2] >= OLDEST:
        print(".venv keeps Python {}.{}: delete it to change.".format(*venv_version()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
