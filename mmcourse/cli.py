"""The ``mmcourse`` command. Heavy imports stand inside the commands: help is quick."""

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="mmcourse",
    help="A course on multimodal large models: run it, teach it, look after it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
hygiene = typer.Typer(help="Look after the notebooks: run, clean, check.")
training = typer.Typer(help="Train models and leave them in data/checkpoints.")
app.add_typer(training, name="train", no_args_is_help=True)
app.add_typer(hygiene, name="notebooks", no_args_is_help=True)

Numbers = Annotated[
    list[str] | None, typer.Argument(help="Numbers such as 00,01; all if none.")
]
OUT = Path("build/notebooks")


def main() -> None:
    """Run the command; what goes wrong is one sentence and exit code 1."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # kernels end with us
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        from mmcourse.assets import AssetError
        from mmcourse.device import DeviceError
        from mmcourse.notebooks import NotebookError
        from mmcourse.slides import SlidesError

        known = AssetError | DeviceError | NotebookError | SlidesError | OSError
        if (recipes := sys.modules.get("mmcourse.recipes")) is not None:
            known |= recipes.RecipeError
        if not isinstance(error, known):
            raise
        typer.secho(f"mmcourse: {error}", fg="red", err=True)
        sys.exit(1)


@app.command()
def doctor() -> None:
    """Check this machine: each line is ok or says the mend."""
    from mmcourse.doctor import diagnose

    table = _table("", "what", "found", "the mend")
    checks = diagnose()
    for check in checks:
        mark = "[green]ok" if check.ok else "[red]no" if check.required else "[yellow]!"
        table.add_row(mark, check.name, check.found, check.mend)
    _print(table)
    if any(check.required and not check.ok for check in checks):
        typer.echo("The course can't run yet: mend the lines marked no, from the top.")
        raise typer.Exit(1)
    typer.echo("The course can run on this machine.")


@app.command()
def assets(
    names: Annotated[
        list[str] | None, typer.Argument(help="Some; all if none.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Show what is there.")] = False,
    verify: Annotated[bool, typer.Option(help="Check contents; mend them.")] = False,
    pack: Annotated[
        Path | None, typer.Option(help="Pack all for a room without internet.")
    ] = None,
    from_: Annotated[
        Path | None, typer.Option("--from", help="Install from a packed room.")
    ] = None,
) -> None:
    """Get the data and the pretrained weights."""
    from mmcourse import assets as store

    if list_:
        _print(_asset_table(store.status()))
    elif pack is not None:
        typer.echo(f"packed {store.pack(pack)}")
    elif from_ is not None:
        there = store.unpack_room(from_)
        typer.echo(f"{len(there)} assets are in {store.root()}")
        _prepare(list(store.ASSETS))
    elif verify:
        for name in names or store.ASSETS:
            typer.echo(f"{name}: {'whole' if store.verify(name) else 'got again'}")
    else:
        there = store.get(names or None)
        _prepare(names or list(store.ASSETS))
        typer.echo(f"{len(there)} assets are in {store.root()}")


def _prepare(names: list[str]) -> None:
    """Build once what several notebooks wait for, so that none of them has to."""
    from mmcourse import datasets, generation

    steps = {"openmoji": datasets.openmoji, "twemoji": datasets.twemoji}
    steps |= {"smollm2": generation.unpacked}
    for name in names:
        if name in steps:
            steps[name]()
    if set(names) >= set(steps):  # all of them: what is made without an asset, too
        datasets.digits_seen_and_heard()  # of notebook 05
        datasets.digits_seen_and_heard(noise=0.4)  # of 06
        datasets.sentiment_triples()  # of 12, whose tweets and faces are assets


@app.command()
def run(
    numbers: Numbers = None,
    again: Annotated[bool, typer.Option(help="Run also what hasn't changed.")] = False,
    out: Annotated[Path, typer.Option(help="Where the run notebooks go.")] = OUT,
    readme: Annotated[
        bool, typer.Option("--readme", help="Write what was measured into the README.")
    ] = False,
) -> None:
    """Run notebooks and print a table of what they found."""
    from mmcourse import notebooks

    paths = notebooks.select(numbers)
    results = []
    with _progress() as bar:
        task = bar.add_task("", total=1)

        def on_cell(path: Path, i: int, n: int) -> None:
            bar.update(task, description=path.stem, completed=i + 1, total=n)

        for result in notebooks.run_all(paths, out, on_cell, again):
            results.append(result)
    _print(_result_table(results))
    typer.echo(f"The notebooks with their outputs are in {out}/")
    if readme:
        notebooks.report(results, notebooks.FOLDER.parent / "README.md")
    missed = [h["name"] for r in results for h in r.headlines if not h["beaten"]]
    if missed:
        raise notebooks.NotebookError(f"not better than its baseline: {missed}")


@app.command()
def lab() -> None:
    """Open JupyterLab on the first notebook."""
    import subprocess

    from mmcourse.notebooks import FOLDER

    command = [sys.executable, "-m", "jupyter", "lab", "00_welcome.ipynb"]
    raise typer.Exit(subprocess.run(command, cwd=FOLDER, check=False).returncode)


@app.command()
def release(
    out: Annotated[Path, typer.Argument(help="A folder to write the edition into.")],
    student: Annotated[bool, typer.Option("--student", help="No solutions.")] = False,
    solved: Annotated[bool, typer.Option("--solved", help="Filled in.")] = False,
) -> None:
    """Write an edition of the notebooks for a class."""
    from mmcourse import notebooks

    if student == solved:
        raise notebooks.NotebookError("choose one edition: --student or --solved")
    edition = notebooks.student if student else notebooks.solved
    typer.echo(f"{len(notebooks.release(out, edition))} notebooks are in {out}/")


@app.command()
def slides(
    numbers: Numbers = None,
    out: Annotated[Path, typer.Option(help="Where the decks go.")] = Path(
        "build/slides"
    ),
    pdf: Annotated[bool, typer.Option(help="PDF with notes as well.")] = False,
) -> None:
    """Build the decks: HTML that needs no network, and PDF."""
    from mmcourse.slides import build

    for path in build(numbers, out, pdf):
        typer.echo(str(path))


@app.command("app")
def serve(
    name: Annotated[str, typer.Argument(help="search.")] = "search",
    port: Annotated[int, typer.Option(help="Of the page's address.")] = 8866,
    browser: Annotated[bool, typer.Option(help="Open it in a browser.")] = True,
) -> None:
    """Show an app in a browser until it is stopped with Ctrl-C."""
    from mmcourse import apps
    from mmcourse.notebooks import NotebookError

    if name not in apps.APPS:
        raise NotebookError(f"no app is called {name!r}: choose from {[*apps.APPS]}")
    raise typer.Exit(apps.serve(name, Path("build/apps"), port, browser))


@training.command("clip")
def train_clip(
    data: Annotated[
        str, typer.Option(help="openmoji, a folder with captions, or a set of the Hub.")
    ] = "openmoji",
    out: Annotated[
        Path | None, typer.Option(help="The model's folder; data/checkpoints if none.")
    ] = None,
    scratch: Annotated[
        bool, typer.Option("--scratch", help="Learn from pixels and tokens.")
    ] = False,
    text: Annotated[
        str, typer.Option(help="Frozen text encoders: minilm+use, minilm or use.")
    ] = "minilm+use",
    hands: Annotated[
        str, typer.Option(help="Emoji to learn from, such as openmoji alone.")
    ] = "openmoji+twemoji",
    epochs: Annotated[int, typer.Option(help="Times through the pairs.")] = 30,
    batch: Annotated[int, typer.Option(help="Pairs a step, of each process.")] = 256,
    rows: Annotated[int, typer.Option(help="Pairs to take of a stream.")] = 20_000,
    seed: Annotated[int, typer.Option(help="Of the weights and of the order.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps.")] = None,
    processes: Annotated[int, typer.Option(help="How many share the work.")] = 1,
) -> None:
    """Train a CLIP-like pair of encoders; run again what was killed, it goes on."""
    from mmcourse import assets, recipes

    towers = {"image": "scratch", "text": "scratch", "size": 64}
    towers = towers if scratch else {"text": text}
    numbers = {"epochs": epochs, "batch": batch, "rows": rows, "seed": seed}
    recipe = recipes.ClipRecipe(data=data, hands=hands, **numbers, **towers)
    name = f"clip-{Path(data).name}" + ("-scratch" if scratch else "")
    folder = assets.root() / "checkpoints" / name if out is None else out
    found = recipes.train_clip(recipe, folder, device, processes)
    rows_ = [(k, f"{v:.3f}") for k, v in found.items() if " R@" in k]
    _print(_table("unseen, text to picture", "", rows=rows_))
    typer.echo(f"the model, its card and curves are in {folder}")


@training.command("vqa")
def train_vqa(
    out: Annotated[
        Path | None, typer.Option(help="The model's folder; data/checkpoints if none.")
    ] = None,
    scenes: Annotated[int, typer.Option(help="How many are drawn.")] = 20_000,
    epochs: Annotated[int, typer.Option(help="Times through them.")] = 4,
    seed: Annotated[int, typer.Option(help="Of scenes, weights and order.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps.")] = None,
) -> None:
    """Train what answers questions about scenes, unseen combinations among them."""
    from mmcourse import assets, vqa_recipe

    recipe = vqa_recipe.VqaRecipe(scenes, epochs, seed=seed)
    folder = assets.root() / "checkpoints" / "vqa-scenes" if out is None else out
    found = vqa_recipe.train_vqa(recipe, folder, device)
    _print(
        _table("answered right", "", rows=[(k, f"{v:.3f}") for k, v in found.items()])
    )
    typer.echo(f"the model and its card are in {folder}")


@app.command()
def bench(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            help="foundations, attention, encoder, vit, generate, caption, fusion, "
            "multimodal, contrastive, memory."
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps.")] = None,
    out: Annotated[Path, typer.Option(help="Where the JSON goes.")] = Path(
        "build/bench.json"
    ),
    readme: Annotated[
        bool, typer.Option("--readme", help="Write the races into the README.")
    ] = False,
) -> None:
    """Race our components against the libraries', on the same input in one process."""
    from mmcourse import bench as racing
    from mmcourse.device import describe, pick_device
    from mmcourse.notebooks import FOLDER, NotebookError

    where = pick_device(device)
    wrong = [name for name in what or [] if name not in racing.RACES]
    if wrong:
        known = ", ".join(racing.RACES)
        raise NotebookError(f"nothing called {wrong[0]!r} to race: choose from {known}")
    results, stored = [], []
    for name in what or racing.RACES:
        for result in racing.RACES[name](where):
            results.append(result)
            stored = racing.save(result, out, describe(where))
            typer.echo(f"{result.name}: done", err=True)
    for heads, *rows in racing.tables(results):
        _print(_table(*heads, rows=rows))
    typer.echo(f"{describe(where)}; as JSON in {out}")
    if readme:
        racing.report(stored, FOLDER.parent / "README.md", describe(where))


@hygiene.command("run")
def run_in_place(numbers: Numbers = None) -> None:
    """Execute notebooks where they lie, store their outputs, clean them."""
    from mmcourse import notebooks

    for path in notebooks.select(numbers):
        result = notebooks.execute(path, path)
        typer.echo(f"{path.name}: {result.seconds:.0f} s, {result.peak_mb:.0f} MB")


@hygiene.command("clean")
def clean(numbers: Numbers = None) -> None:
    """Strip what changes from run to run; outputs, tags and ids stay."""
    from mmcourse import notebooks

    for path in notebooks.select(numbers):
        notebooks.write(notebooks.clean(notebooks.read(path)), path)


@hygiene.command("check")
def check(numbers: Numbers = None) -> None:
    """Say what breaks the rules of the course."""
    from mmcourse import notebooks

    found = [p for path in notebooks.select(numbers) for p in notebooks.problems(path)]
    for problem in found:
        typer.echo(problem)
    raise typer.Exit(bool(found))


def _table(*columns: str, rows: list[tuple[str, ...]] = ()):
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _asset_table(rows):
    table = _table("asset", "here", "MB", "licence", "gives")
    for row in rows:
        here = "[green]yes" if row.present else "[yellow]no"
        table.add_row(row.name, here, str(row.size_mb), row.licence, row.gives)
    return table


def _result_table(results):
    table = _table("notebook", "time", "memory", "result", "better than")
    for result in results:
        table.add_row(
            result.name, f"{result.seconds:.0f} s", f"{result.peak_mb:.0f} MB"
        )
        for found in result.headlines:
            base = ", ".join(f"{k} {v:.3g}" for k, v in found["baselines"].items())
            value = f"{found['name']}: [bold]{found['value']:.3g}[/]"
            table.add_row("", "", "", value, base)
    return table


def _progress():
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True))


def _print(table) -> None:
    from rich.console import Console

    Console().print(table)


if __name__ == "__main__":
    main()
