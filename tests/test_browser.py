"""JupyterLab in a real browser: run all, type, drag, and see the picture change."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from mmcourse import notebooks

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH"),
    # Playwright leaves its event loop's pipes to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]
TOKEN = "browser-test"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SETTINGS = {
    # Cells off screen aren't attached to the page otherwise.
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
RUN_ALL = ", ".join(
    f'.lm-Menu-item[data-command="{command}"]'
    for command in ("runmenu:run-all", "notebook:run-all-cells")
)
SECOND = 1000  # Playwright counts in milliseconds


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab on a copy of the notebooks, with no settings but ours."""
    home = tmp_path_factory.mktemp("lab")
    shutil.copytree(notebooks.FOLDER, home / "notebooks")
    for name, values in SETTINGS.items():
        file = home / "config/lab/user-settings/@jupyterlab" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.with_suffix(".jupyterlab-settings").write_text(json.dumps(values), "utf-8")
    port = free_port()
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"]
    options = {
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.root_dir": home / "notebooks",
        "IdentityProvider.token": TOKEN,
        "LabApp.news_url": "None",
    }
    own = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime"}
    own |= {"JUPYTERLAB_WORKSPACES_DIR": "workspaces", "IPYTHONDIR": "ipython"}
    environment = {key: str(home / folder) for key, folder in own.items()}
    with (home / "log.txt").open("w") as log:
        server = subprocess.Popen(
            [*command, *(f"--{key}={value}" for key, value in options.items())],
            env=os.environ | environment | {"MMCOURSE_OFFLINE": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_for(
                server, f"http://127.0.0.1:{port}/api?token={TOKEN}", home / "log.txt"
            )
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()  # JupyterLab ends its kernels on SIGTERM
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait(20)


def wait_for(server, url, log, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"JupyterLab does not answer:\n{log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        running = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def page(browser):
    """A page that remembers every error; the test fails if there was one."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(30 * SECOND)
    faults = []
    page.on("pageerror", lambda e: faults.append(f"error: {e}"))
    page.on(
        "console",
        lambda m: faults.append(f"console: {m.text}") if m.type == "error" else 0,
    )
    page.on("requestfailed", lambda r: faults.append(f"failed: {r.url} {r.failure}"))
    page.on(
        "response",
        lambda r: faults.append(f"{r.status}: {r.url}") if r.status >= 400 else 0,
    )
    yield page
    found = list(faults)  # closing the page cuts its connections
    page.close()
    assert found == []


def open_and_run(page, lab, name, seconds=400):
    """Open a notebook, run all its cells, and wait until none is running."""
    page.goto(f"{lab}/lab/tree/{name}?reset&token={TOKEN}")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60 * SECOND)
    until(page, lambda: ready(page, lab, name), 120, "no kernel is connected")
    page.click('.lm-MenuBar-itemLabel:text-is("Run")')
    page.locator(RUN_ALL).first.click()
    until(page, lambda: "*" in prompts(page), 60, "nothing began to run")
    until(page, lambda: "*" not in prompts(page), seconds, "cells are still running")
    failed = page.locator(".jp-RenderedText[data-mime-type*=error]").all_inner_texts()
    assert failed == [] and not re.search(r"\[ \]", prompts(page))


def ready(page, lab, name):
    """Whether all cells are there and a kernel waits for them.

    The page says idle before it has a kernel, and a click that comes then is lost: so
    the server is asked too.
    """
    cells = len(notebooks.read(notebooks.FOLDER / name).cells)
    idle = page.locator("[data-status=idle]").count() == 1
    if not idle or page.locator(".jp-Notebook .jp-Cell").count() != cells:
        return False
    kernels = [
        session["kernel"]
        for session in page.request.get(f"{lab}/api/sessions?token={TOKEN}").json()
        if session["path"] == name
    ]
    return any(k["connections"] and k["execution_state"] == "idle" for k in kernels)


def prompts(page):
    """The execution counts beside the code cells; [*] is one that waits or runs."""
    texts = "all => all.map(prompt => prompt.textContent).join(' ')"
    return page.eval_on_selector_all(".jp-CodeCell .jp-InputPrompt", texts)


def until(page, holds, seconds, otherwise):
    """Ask from here: the page's own animation frames are too rare to wait by."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"{otherwise} after {seconds} s"
        page.wait_for_timeout(1000)


def cell(page, name, id):
    """The cell with this id: they stand on the page as they stand in the file."""
    ids = [c["id"] for c in notebooks.read(notebooks.FOLDER / name).cells]
    return page.locator(".jp-Notebook .jp-Cell").nth(ids.index(id))


def picture(part):
    """The picture of a cell as data, with its words."""
    image = part.locator(".jp-OutputArea-output img").last
    image.wait_for()
    return image.get_attribute("src"), image.get_attribute("alt")


def changed(page, part, *before):
    """Wait until a cell's picture is none of those before, and return it."""
    same = f"the picture is still {before[-1][1]!r}"
    until(page, lambda: picture(part) not in before, 30, same)
    return picture(part)


def test_the_search_box_of_00_finds_other_pictures(lab, page):
    name = "00_welcome.ipynb"
    open_and_run(page, lab, name)
    search = cell(page, name, "search-box")
    before = picture(search)
    box = search.locator("input[type=text]").first
    box.fill("something to cut wood")
    box.press("Enter")
    after = changed(page, search, before)
    assert "something to cut wood" in after[1] and after[0].startswith("data:image/png")


def test_the_search_box_of_09_reads_chinese_and_refuses_in_words(lab, page):
    name = "09_retrieval.ipynb"
    open_and_run(page, lab, name)
    search = cell(page, name, "explore")
    before = picture(search)
    box = search.locator("input[type=text]").first
    box.fill("水果")
    box.press("Enter")
    assert "水果" in changed(page, search, before)[1]
    box.fill("𓀀𓀁")
    box.press("Enter")
    search.get_by_text("holds no letter that this encoder knows").wait_for()


def test_the_explorer_of_10_shows_another_picture_and_another_word(lab, page):
    name = "10_captioning.ipynb"
    open_and_run(page, lab, name)
    explorer = cell(page, name, "explorer")
    first = picture(explorer)
    explorer.locator("select").first.select_option("held_out")
    second = changed(page, explorer, first)
    assert "[" in second[1]  # the word that is looked at
    explorer.locator(".widget-readout").last.fill("4")
    explorer.locator(".widget-readout").last.press("Enter")
    changed(page, explorer, first, second)


def test_the_explorer_of_11_answers_and_names_words_it_never_read(lab, page):
    name = "11_vqa.ipynb"
    open_and_run(page, lab, name)
    explorer = cell(page, name, "explorer")
    first = picture(explorer)
    box = explorer.locator("input[type=text]").first
    box.fill("what shape is the purple thing?")
    box.press("Enter")
    assert "(never read: purple)" in changed(page, explorer, first)[1]
    box.fill("  ")
    box.press("Enter")
    explorer.get_by_text("the question is empty").wait_for()


def test_the_explorer_of_12_is_heard_and_seen_and_refuses_in_words(lab, page):
    name = "12_sentiment.ipynb"
    open_and_run(page, lab, name)
    explorer = cell(page, name, "explorer")
    first, player = picture(explorer), explorer.locator("audio").last
    sound = player.get_attribute("src")
    assert sound.startswith("data:audio/wav")
    explorer.locator("select").last.select_option("smiling face with halo")
    second = changed(page, explorer, first)
    assert "smiling face with halo" in second[1]
    assert explorer.locator("audio").last.get_attribute("src") == sound
    box = explorer.locator("input[type=text]").first
    box.fill("What a terrible day")
    box.press("Enter")
    assert "What a terrible day" in changed(page, explorer, first, second)[1]
    assert explorer.locator("audio").last.get_attribute("src") != sound
    box.fill("  ")
    box.press("Enter")
    explorer.get_by_text("the text to speak is empty").wait_for()


def test_mmcourse_app_search_finds_and_finds_again(browser, tmp_path):
    """Voila's page asks the network for a font, in vain: the app works without."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    port, log = free_port(), tmp_path / "log.txt"
    command = [sys.executable, "-m", "mmcourse.cli", "app", "search", "--no-browser"]
    own = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime"}
    own = {key: str(tmp_path / folder) for key, folder in own.items()}
    with log.open("w") as out:
        server = subprocess.Popen(
            [*command, f"--port={port}"],
            cwd=tmp_path,
            env=os.environ | own,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # voila is a child: both are ended
        )
    try:
        said = f"no app was served:\n{log}"
        until(page, lambda: "is running at" in log.read_text(), 300, said)
        page.goto(f"http://127.0.0.1:{port}", timeout=120 * SECOND)
        search = page.locator("body")
        before = picture_of_app(search)
        box = search.locator("input[type=text]").first
        box.fill("a musical instrument")
        box.press("Enter")
        until(page, lambda: picture_of_app(search) != before, 30, "nothing new found")
        assert "a musical instrument" in picture_of_app(search)[1]
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


def picture_of_app(part):
    """The last picture of the page that shows what was found, and its words."""
    image = part.locator('img[alt^="Found for"]').last
    image.wait_for(timeout=120 * SECOND)
    return image.get_attribute("src"), image.get_attribute("alt")


def test_the_slider_of_01_changes_its_picture(lab, page):
    name = "01_modalities.ipynb"
    open_and_run(page, lab, name)
    explorer = cell(page, name, "explorer")
    before = picture(explorer)
    handle = explorer.locator(".noUi-handle").first
    handle.scroll_into_view_if_needed()
    handle.focus()
    handle.press("ArrowRight")
    by_key = changed(page, explorer, before)
    start, track = handle.bounding_box(), explorer.locator(".noUi-target").first
    width = track.bounding_box()["width"]
    page.mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
    page.mouse.down()
    page.mouse.move(start["x"] - width / 3, start["y"] + start["height"] / 2, steps=5)
    page.mouse.up()
    changed(page, explorer, before, by_key)
