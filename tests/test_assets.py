"""The asset store, held against a local index and against every fault we know of."""

import errno
import hashlib
import http.server
import io
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmcourse import assets
from mmcourse.assets import Asset, AssetError

REPO = Path(assets.__file__).parents[1]
REAL_DOWNLOAD = assets._download
FILES = {"pet/data/cat.txt": b"miaow", "pet/data/dog.txt": b"wuff" * 1000}


def write_wheel(folder, package, files):
    """A wheel that pip accepts, named after the package."""
    dist = package.replace("-", "_")
    info = {
        f"{dist}-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {package}\n"
        "Version: 1.0\n",
        f"{dist}-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\n"
        "Root-Is-Purelib: true\nTag: py3-none-any\n",
        f"{dist}-1.0.dist-info/RECORD": "",
        f"{dist}/__init__.py": "raise SystemExit('imported')",
    }
    archive = folder / f"{dist}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w") as box:
        for name, content in (info | files).items():
            box.writestr(name, content)
    return archive


def tar(files):
    """The bytes of a tar.gz of contents, or of ready TarInfos such as links."""
    with io.BytesIO() as memory:
        with tarfile.open(fileobj=memory, mode="w:gz") as box:
            for name, content in files.items():
                if isinstance(content, tarfile.TarInfo):
                    box.addfile(content)
                else:
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    box.addfile(info, io.BytesIO(content))
        return memory.getvalue()


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty store, a folder as pip's only index, and `add` to pin an archive."""
    for variable in os.environ:
        proxy = variable.lower().endswith("_proxy")
        if proxy or variable.startswith(("PIP_", "MMCOURSE_")):
            monkeypatch.delenv(variable)
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("MMCOURSE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setattr(assets, "ASSETS", {})
    archives = {}

    def add(archive, name="pet", **options):
        options = {"folder": "pet/data"} | options
        asset = Asset(name, f"{name}-data", 1, 1, "MIT", "a pet", **options)
        sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
        monkeypatch.setitem(assets._PINS, asset.package, (f"{name}-data==1.0", sha256))
        assets.ASSETS[name] = asset
        archives[name] = archive
        return asset

    def add_wheel(name="pet", files=FILES, **options):
        return add(write_wheel(index, f"{name}-data", files), name, **options)

    return SimpleNamespace(
        index=index,
        home=tmp_path / "data/assets",
        add=add,
        add_wheel=add_wheel,
        archives=archives,
    )


@pytest.fixture
def downloads(store, monkeypatch):
    """Stands in for pip: copies the archive, and lists what was asked for."""
    asked = []

    def copy(asset, work):
        asked.append(asset.name)
        return Path(shutil.copy(store.archives[asset.name], work))

    monkeypatch.setattr(assets, "_download", copy)
    return asked


def nothing_half(store):
    return [f.name for f in store.home.iterdir() if not f.name.endswith(".lock")] == []


# --- the table --------------------------------------------------------------------


def test_every_asset_is_pinned_once():
    assert len(assets.ASSETS) == len(assets._PINS) == 10
    pinned = [(a.requirement.split("==")[0], len(a.sha256)) for a in assets._TABLE]
    assert pinned == [(package, 64) for package in assets._PINS]


def test_the_pins_file_is_one_that_pip_reads():
    lines = (REPO / "data/assets.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) == len(assets._PINS)
    assert all("--hash=sha256:" in line and "/" not in line for line in pins)


def test_an_installed_package_reads_the_pins_beside_it(tmp_path, monkeypatch):
    pin = f"pet-data==1.0 --hash=sha256:{'0' * 64}\n"
    (tmp_path / "assets.txt").write_text(f"# a pet\n{pin}", encoding="utf-8")
    monkeypatch.setattr(assets, "_CLONE", None)
    monkeypatch.setattr(assets, "_HERE", tmp_path)
    assert assets._read_pins() == {"pet-data": ("pet-data==1.0", "0" * 64)}


def test_root_is_the_variable_then_the_clone_then_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv("MMCOURSE_DATA", str(tmp_path))
    assert assets.root() == tmp_path.resolve()
    monkeypatch.delenv("MMCOURSE_DATA")
    assert assets.root() == REPO / "data"
    monkeypatch.setattr(assets, "_CLONE", None)
    assert "mmcourse" in assets.root().parts
    assert not assets.root().is_relative_to(REPO)


# --- getting, through the real pip ------------------------------------------------


class Index(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        self.server.seen.append(self.path)


@pytest.fixture
def http_index(store, monkeypatch):
    """The store's folder as a package index on this machine, with the paths asked."""
    simple = store.index / "simple/pet-data"
    simple.mkdir(parents=True)
    (simple / "index.html").write_text(
        '<a href="/pet_data-1.0-py3-none-any.whl">pet_data-1.0-py3-none-any.whl</a>'
    )
    handler = lambda *args: Index(*args, directory=store.index)  # noqa: E731
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.seen = []
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.delenv("PIP_FIND_LINKS")
        address = f"http://127.0.0.1:{server.server_port}/simple"
        monkeypatch.setenv("PIP_INDEX_URL", address)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.seen
        server.shutdown()
        thread.join()


def test_path_gets_the_asset_with_a_bar_and_then_never_again(
    store, http_index, monkeypatch
):
    import tqdm.auto

    bars = []

    class Bar(tqdm.auto.tqdm):
        def __init__(self, **options):
            super().__init__(**options, disable=False, file=io.StringIO())
            bars.append(self)

    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    store.add_wheel()
    assert not assets.is_present("pet")
    folder = assets.path("pet")
    assert (folder / "dog.txt").read_bytes() == FILES["pet/data/dog.txt"]
    assert http_index
    assert (bars[0].desc, bars[0].total) == ("pet", 1_000_000)
    assert bars[0].n > 4000
    http_index.clear()
    assert assets.path("pet") == folder
    assert assets.get() == [folder]
    assert assets.status() == [("pet", True, 1, "MIT", "a pet")]
    assert http_index == [] and len(bars) == 1
    assert not list(store.home.rglob("*.py")), "code was unpacked"


def test_an_unreachable_index_is_said_so(store, http_index, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nobody listens
    monkeypatch.setenv("PIP_RETRIES", "1")
    store.add_wheel()
    with pytest.raises(
        AssetError, match=r"pet: no package index can be reached: check"
    ):
        assets.path("pet")
    assert nothing_half(store)


def test_a_wrong_hash_from_the_index_is_said_so(store):
    store.add_wheel()
    write_wheel(store.index, "pet-data", {"pet/data/cat.txt": b"a changed cat"})
    with pytest.raises(AssetError, match="hash is not the pinned"):
        assets.path("pet")
    assert nothing_half(store)


def test_a_source_archive_and_the_archive_nested_in_it(store):
    backend = (  # needs nothing from an index; real ones ask for setuptools
        "import pathlib\n"
        "def prepare_metadata_for_build_wheel(folder, settings=None):\n"
        "    info = pathlib.Path(folder, 'pet_data-1.0.dist-info')\n"
        "    info.mkdir()\n"
        "    meta = 'Metadata-Version: 2.1\\nName: pet-data\\nVersion: 1.0\\n'\n"
        "    (info / 'METADATA').write_text(meta)\n"
        "    return info.name\n"
    )
    project = "[build-system]\nrequires = []\nbuild-backend = 'b'\nbackend-path = ['.']"
    top = "pet_data-1.0"
    files = {
        f"{top}/PKG-INFO": b"Metadata-Version: 2.1\nName: pet-data\nVersion: 1.0\n",
        f"{top}/pyproject.toml": project.encode(),
        f"{top}/b.py": backend.encode(),
        f"{top}/more/inner.tar.gz": tar({"inner/cat.txt": b"miaow"}),
    }
    archive = store.index / f"{top}.tar.gz"
    archive.write_bytes(tar(files))
    store.add(
        archive,
        folder=f"{top}/more/inner",
        nested=f"{top}/more/inner.tar.gz",
        suffix=".tar.gz",
    )
    assert (assets.path("pet") / "cat.txt").read_bytes() == b"miaow"
    assert assets.verify("pet")


# --- getting, without pip ---------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "mend"),
    [
        ("ERROR: [Errno 28] No space left on device", "make room"),
        ("/usr/bin/python: No module named pip", "ensurepip"),
        ("WARNING: Retrying (Retry(total=4)) after connection broken", "check the net"),
        ("ERROR: No matching distribution found for pet-data==1.0", "mirrors"),
        ("one\nERROR: something new\nnotice", r"\(ERROR: something new\)"),
        ("", "it said nothing"),
    ],
)
def test_what_pip_says_becomes_one_sentence(said, mend):
    error = str(assets._pip_error("pet", said))
    assert error.startswith("pet: ") and "\n" not in error
    with pytest.raises(AssetError, match=mend):
        raise assets._pip_error("pet", said)


def test_an_unknown_name_suggests_a_close_one():
    with pytest.raises(AssetError, match="'open-moji': did you mean 'openmoji'"):
        assets.path("open-moji")
    with pytest.raises(AssetError, match="choose from openmoji, twemoji"):
        assets.is_present("xyz")


def test_offline_refuses_to_download_but_not_what_is_there(
    store, downloads, monkeypatch
):
    store.add_wheel()
    store.add_wheel("owl")
    folder = assets.path("pet")
    monkeypatch.setattr(assets, "_download", REAL_DOWNLOAD)
    monkeypatch.setenv("MMCOURSE_OFFLINE", "1")
    assert assets.path("pet") == folder
    with pytest.raises(AssetError, match="owl can't be downloaded, MMCOURSE_OFFLINE"):
        assets.path("owl")


def test_a_damaged_download_is_refused(store, downloads):
    store.add_wheel()
    store.archives["pet"].write_bytes(b"truncated")
    with pytest.raises(AssetError, match=r"has the hash .*pinned is .*get it again"):
        assets.path("pet")
    assert nothing_half(store)


def test_a_new_pin_gets_the_asset_again(store, downloads):
    store.add_wheel()
    assets.path("pet")
    store.add_wheel(files={"pet/data/cat.txt": b"a newer cat"})
    assert not assets.is_present("pet")
    folder = assets.path("pet")
    assert [f.name for f in folder.iterdir()] == ["cat.txt"]
    assert downloads == ["pet", "pet"]


def test_files_to_skip_stay_packed(store, downloads):
    store.add_wheel(skip=(".txt",), files=FILES | {"pet/data/a.svg": b"<svg/>"})
    assert [f.name for f in assets.path("pet").iterdir()] == ["a.svg"]


def test_verify_gets_a_corrupted_asset_again(store, downloads):
    store.add_wheel()
    folder = assets.path("pet")
    assert assets.verify("pet")
    (folder / "dog.txt").write_bytes(b"wufF" * 1000)
    assert not assets.verify("pet")
    assert (folder / "dog.txt").read_bytes() == FILES["pet/data/dog.txt"]
    (folder / "dog.txt").unlink()
    assert not assets.verify("pet")
    (store.home / "pet/.files.json").write_text("{", encoding="utf-8")
    assert not assets.verify("pet")
    assert assets.verify("pet")
    assert downloads == ["pet"] * 4


def test_a_disk_without_room_is_said_before(store, downloads, monkeypatch):
    store.add_wheel()
    usage = SimpleNamespace(free=1_500_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(AssetError, match=r"needs 2 MB and .* has 1 MB free: make room"):
        assets.path("pet")
    assert downloads == [] and nothing_half(store)


def test_a_disk_that_fills_up_leaves_nothing(store, downloads, monkeypatch):
    class Full(io.BytesIO):
        def read(self, size=-1):
            raise OSError(errno.ENOSPC, "No space left on device")

    store.add_wheel()
    members = [("a.txt", io.BytesIO(b"a")), ("b.txt", Full())]
    monkeypatch.setattr(assets, "_members", lambda archive: iter(members))
    with pytest.raises(AssetError, match=r"\(the disk is full\): make room"):
        assets.path("pet")
    assert nothing_half(store)


def test_a_folder_that_cannot_be_written_is_said_so(store, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MMCOURSE_DATA", str(tmp_path / "file"))
    store.add_wheel()
    with pytest.raises(AssetError, match=r"could not be stored .* another folder"):
        assets.path("pet")


# --- archives that mean harm ------------------------------------------------------


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_link():
    info = zipfile.ZipInfo("pet/link")
    info.external_attr = 0o120777 << 16
    return info


ESCAPES = [
    "../up.txt",
    "a/../../up.txt",
    "/root.txt",
    "C:/x.txt",
    "C:x",
    "a\\..\\..\\x",
]


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", [*ESCAPES, "//host/share/x", "a:stream"])
def test_a_member_that_would_leave_the_folder_is_refused(store, downloads, kind, name):
    archive = store.index / f"bad.{kind}"
    if kind == "tar":
        archive.write_bytes(tar({name: b"bad"}))
    else:
        with zipfile.ZipFile(archive, "w") as box:
            box.writestr(name, "bad")
    store.add(archive)
    with pytest.raises(AssetError, match="would leave the folder"):
        assets.path("pet")
    assert nothing_half(store)


@pytest.mark.parametrize(
    "member",
    [
        link("pet/link", "/etc"),
        link("pet/link", "../../.."),
        link("pet/link", "pet/cat.txt", tarfile.LNKTYPE),
        link("pet/pipe", "", tarfile.FIFOTYPE),
        zip_link(),
    ],
    ids=["absolute", "up", "hard", "pipe", "zip"],
)
def test_links_and_devices_are_refused(store, downloads, member):
    archive = store.index / "bad"
    if isinstance(member, tarfile.TarInfo):
        archive.write_bytes(tar({"link": member, "pet/link/x": b"through it"}))
    else:
        with zipfile.ZipFile(archive, "w") as box:
            box.writestr(member, "../../..")
    store.add(archive)
    with pytest.raises(AssetError, match="is a link"):
        assets.path("pet")
    assert nothing_half(store)


def test_a_bomb_is_refused(store, downloads):
    archive = store.index / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as box:
        box.writestr("zeros", bytes(3_000_000))
    assert archive.stat().st_size < 10_000
    store.add(archive)
    with pytest.raises(AssetError, match="far more than its stated size"):
        assets.path("pet")


def test_a_pinned_archive_that_is_broken_or_repeats_a_name_is_refused(store, downloads):
    archive = store.index / "bad.zip"
    archive.write_bytes(b"neither zip nor tar")
    store.add(archive)
    with pytest.raises(AssetError, match="can't be unpacked"):
        assets.path("pet")
    archive.write_bytes(tar({"a": b"1", "a/b": b"2"}))
    store.add(archive)
    with pytest.raises(AssetError, match="can't be unpacked"):
        assets.path("pet")
    assert nothing_half(store)


# --- processes --------------------------------------------------------------------

SCRIPT = """
import json, shutil, sys, time
from pathlib import Path
from mmcourse import assets
archive, sha256, mode = sys.argv[1:]
asset = assets.Asset("pet", "pet-data", 1, 1, "MIT", "a pet", "pet/data")
assets.ASSETS = {"pet": asset}
assets._PINS["pet-data"] = ("pet-data==1.0", sha256)
members = assets._members

def download(asset, work):
    with Path(archive).with_suffix(".log").open("a") as log:
        log.write("asked\\n")
    time.sleep(0.3)
    return Path(shutil.copy(archive, work))

def stopping(archive):
    for member in members(archive):
        yield member
        print("half", flush=True)
        time.sleep(60)

assets._download = download
if mode == "stop":
    assets._members = stopping
print(assets.path("pet"), flush=True)
"""


def start(store, mode):
    asset = store.add_wheel()
    args = [str(store.archives["pet"]), asset.sha256, mode]
    command = [sys.executable, "-c", SCRIPT, *args]
    return subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, text=True)


def test_killed_while_unpacking_leaves_nothing_half(store, downloads):
    with start(store, "stop") as process:
        assert process.stdout.readline() == "half\n"
        process.kill()
    assert not assets.is_present("pet") and not (store.home / "pet").exists()
    assert list(store.home.glob(".pet-*")), "the kill came too late to test anything"
    assert (assets.path("pet") / "cat.txt").is_file()
    assert not list(store.home.glob(".pet-*")), "the dead run's leftovers stayed"


def test_two_processes_at_once_download_once(store):
    with start(store, "go") as one, start(store, "go") as two:
        folders = {process.communicate(timeout=30)[0] for process in (one, two)}
        assert (one.returncode, two.returncode) == (0, 0)
    assert folders == {f"{assets.path('pet')}\n"}
    log = store.archives["pet"].with_suffix(".log")
    assert log.read_text() == "asked\n"


# --- a room without internet ------------------------------------------------------


@pytest.fixture
def room(store, downloads, tmp_path, monkeypatch):
    """A packed room of two assets and a wheel; the store is empty again, offline."""

    def fake_pip(args, work, what):
        house = Path(args[2])
        assert args[:2] == ["wheel", "-w"] and str(REPO) in args
        house.mkdir()
        write_wheel(house, "mmcourse", {})

    monkeypatch.setattr(assets, "_pip", fake_pip)
    store.add_wheel()
    store.add_wheel("owl", {"pet/data/owl.txt": b"hoo"})
    packed = assets.pack(tmp_path / "usb/room.zip")
    assert nothing_half(store)
    downloads.clear()
    yield packed
    assert downloads == [], "a room must not touch the index"


def test_pack_and_unpack_a_room(store, room):
    assert [f.name for f in room.parent.iterdir()] == ["room.zip"]
    with zipfile.ZipFile(room) as box:
        assert "--from room.zip" in box.read("START.txt").decode()
    folders = assets.unpack_room(room)
    files = sorted(f.name for folder in folders for f in folder.iterdir())
    assert files == ["cat.txt", "dog.txt", "owl.txt"]
    assert assets.verify("pet") and assets.verify("owl")
    house = assets.root() / "wheelhouse"
    assert [f.name for f in house.iterdir()] == ["mmcourse-1.0-py3-none-any.whl"]
    assert assets.unpack_room(room) == folders, "safe to do twice"


def test_a_broken_off_pack_leaves_the_old_room(store, room, monkeypatch):
    def fail(asset, work):
        raise AssetError("no index")

    before = room.read_bytes()
    monkeypatch.setattr(assets, "_download", fail)
    with pytest.raises(AssetError, match="no index"):
        assets.pack(room)
    assert room.read_bytes() == before
    assert [f.name for f in room.parent.iterdir()] == ["room.zip"]


def test_a_wheelhouse_needs_a_clone(store, downloads, tmp_path, monkeypatch):
    monkeypatch.setattr(assets, "_CLONE", None)
    with pytest.raises(AssetError, match="run it in a clone"):
        assets.pack(tmp_path / "room.zip")
    assert assets.pack(tmp_path / "room.zip", wheelhouse=False).is_file()


def test_a_missing_or_truncated_room(room, tmp_path):
    with pytest.raises(AssetError, match=r"nowhere.zip is missing or damaged"):
        assets.unpack_room(tmp_path / "nowhere.zip")
    room.write_bytes(room.read_bytes()[:-100])
    with pytest.raises(AssetError, match="copy it again"):
        assets.unpack_room(room)


def test_a_room_with_a_flipped_bit(store, room):
    damaged = bytearray(room.read_bytes())
    damaged[damaged.index(b"wuffwuff") + 2] ^= 1
    room.write_bytes(damaged)
    with pytest.raises(AssetError, match=r"Bad CRC-32 .*copy it again"):
        assets.unpack_room(room)
    assert nothing_half(store)


def rewrite(room, member, content):
    with zipfile.ZipFile(room, "w") as box:
        box.writestr("START.txt", "")
        box.writestr(member, content)


def test_a_room_of_another_version(store, room):
    with zipfile.ZipFile(room) as box:
        pet = box.read("assets/pet.whl")
    rewrite(room, "assets/pet.whl", pet + b"\n")
    with pytest.raises(AssetError, match=r"pet: pet.whl has the hash"):
        assets.unpack_room(room)
    rewrite(room, "assets/pet.whl", pet)
    with pytest.raises(AssetError, match=r"holds no owl.*pack it anew"):
        assets.unpack_room(room)
    assert assets.is_present("pet")
