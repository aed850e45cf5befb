"""The three ways to bring a task, entry point, `register` and `--import`, and what goes wrong with each."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from tests.processes import run_python

from opsin import rooms
from opsin.cli.which_task import find_room
from opsin.engine.recipe import load_recipe
from opsin.errors import InputError

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CLASSIFY = "classify = opsin.classify.room:ROOM"
DOTS = "dots = dots:ROOM"


def install(folder: Path, package: str, *entry_points: str) -> Path:
    """The folder, as one that a package with entry points for tasks was installed into."""
    described = folder / f"{package}-1.0.dist-info"
    described.mkdir(parents=True)
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("\n".join(["[opsin.rooms]", *entry_points]))
    return folder


def start(
    arguments: Sequence[str], places: Sequence[Path], cwd: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A Python process that finds modules and packages in `places` too."""
    path = os.pathsep.join([*map(str, places), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200", "NO_COLOR": "1", **environment}
    return run_python(arguments, cwd, environment)


def say(code: str, places: Sequence[Path], cwd: Path) -> tuple[list[str], list[str]]:
    """The lines of code's standard output and standard error; an InputError is the output's last."""
    lines = "\n    ".join(code.splitlines())
    whole = f"from opsin import rooms\nfrom opsin.errors import InputError\ntry:\n    {lines}\nexcept InputError as e:"
    done = start(["-c", f"{whole}\n    print(e)"], places, cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr.splitlines()


def opsin(
    arguments: Sequence[str], places: Sequence[Path], cwd: Path, status: int = 0, before: str = ""
) -> tuple[str, str]:
    """What the command prints on standard output and on standard error. before: code that runs before it."""
    done = start(["-c", f"{before}\nfrom opsin.cli import main; main()", *arguments], places, cwd)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout, done.stderr


# Classification without its place in the list


def test_classify_is_found_by_its_entry_point(tmp_path: Path) -> None:
    places = [HERE, install(tmp_path / "site", "opsin-classify", CLASSIFY)]
    tests = ["tests/classify/test_calibration.py", "tests/classify/test_drawing.py", "tests/engine/test_recipe.py"]
    tests += [f"tests/engine/test_train.py::{name}" for name in ("test_multi_label", "test_equals_a_plain_loop")]
    plugin = ["-p", "classify_by_entry_point", "-p", "no:cacheprovider"]
    done = start(["-m", "pytest", "-q", *plugin, *tests], places, ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    without = "import classify_by_entry_point\nrooms.find_room('classify')"
    (refused,), _ = say(without, [HERE], tmp_path)
    assert refused.startswith("unknown task 'classify'")


def test_classify_by_its_entry_point_trains_and_predicts(tmp_path: Path) -> None:
    places = [HERE, install(tmp_path / "site", "opsin-classify", CLASSIFY)]
    before = "import classify_by_entry_point"
    settings = ("--epochs", "1", "--set", "data.limit=64", "--set", "train.tensorboard=false", "--out", "run")
    opsin(["train", "classify", "--model", "lenet5", "--data", "digits", *settings], places, tmp_path, before=before)
    metrics, _ = opsin(["eval", "run", "--json"], places, tmp_path, before=before)
    assert 0 <= json.loads(metrics)["accuracy"] <= 1
    opsin(["data", "digits", "--export", "out", "--limit", "1"], places, tmp_path, before=before)
    image = next((tmp_path / "out").rglob("*.png"))
    (answer,) = json.loads(opsin(["predict", "run", str(image), "--top", "2", "--json"], places, tmp_path)[0])
    assert len(answer["top"]) == 2


def test_neither_import_nor_help_reads_entry_points(tmp_path: Path) -> None:
    install(tmp_path, "broken", "lacks = no_such_module:ROOM")
    before = "import importlib.metadata\ndef refuse(**_): raise RuntimeError('read')\n"
    before += "importlib.metadata.entry_points = refuse\nimport opsin"
    for arguments in (["--help"], ["predict", "--help"], ["data", "--help"]):
        said, _ = opsin(arguments, [tmp_path], tmp_path, before=before)
        assert "Usage" in said
    _, line = opsin(["no-such-verb"], [tmp_path], tmp_path, status=1, before=before)
    assert "RuntimeError: read" in line  # a verb that is not ours may be a package's


# What cannot be used


def test_an_entry_point_that_fails_is_one_line_and_stops_nothing(tmp_path: Path) -> None:
    entries = ("raises = raises:ROOM", "leaves = leaves:ROOM", "other = dots:ROOM", "lacks = no_such_module:ROOM")
    places = [HERE, install(tmp_path, "brings-much", *entries), install(tmp_path, "fine", "rule = rule:ROOM")]
    half = "import opsin\nopsin.register(opsin.Room('raises', 'registered before it fails'))\n"
    (tmp_path / "raises.py").write_text(f"{half}raise RuntimeError('one\\n  two')")
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)")
    code = "for turn in range(2): print(*sorted(room.task for room in rooms.all_rooms()))\nrooms.find_room('raises')"
    listed, lines = say(code, places, tmp_path)
    tasks = " ".join(sorted([*rooms.BUILT_IN, "dots", "rule"]))
    assert listed[:2] == [tasks] * 2  # the module of dots has registered that, whatever asked
    cause = "the task 'raises' of the package brings-much cannot be used: RuntimeError: one two"
    assert listed[2] == cause
    assert sorted(lines) == [
        "the task 'lacks' of the package brings-much cannot be used: ModuleNotFoundError: No module named "
        "'no_such_module'",
        "the task 'leaves' of the package brings-much cannot be used: SystemExit: 3",
        "the task 'other' of the package brings-much cannot be used: TypeError: dots:ROOM is no opsin.Room of the "
        "task 'other'",
        cause,
    ]
    assert say("rooms.find_room('raises')", places, tmp_path) == ([cause], [])


def test_the_command_goes_on_without_what_fails(tmp_path: Path) -> None:
    places = [HERE, install(tmp_path, "broken", "lacks = no_such_module:ROOM")]
    found, lines = opsin(["models", "lenet5_1998", "--json"], places, tmp_path)
    assert [model["name"] for model in json.loads(found)] == ["lenet5_1998"]
    (line,) = lines.splitlines()
    assert "package broken" in line and "no_such_module" in line
    assert opsin(["data", "digits", "--task", "lacks"], places, tmp_path, status=2) == ("", f"opsin: {line}\n")


def test_a_second_registration_is_refused(tmp_path: Path) -> None:
    again = "import opsin, dots\nopsin.register(dots.ROOM)\nopsin.register(opsin.Room('dots', 'spots'))"
    (refused,), _ = say(again, [HERE], tmp_path)
    expected = "the task 'dots' is registered twice: 'how many dots an image shows' and 'spots'; give one another name"
    assert refused == expected
    own = "import opsin\nopsin.register(opsin.Room('detect', 'something else'))"
    assert say(own, [], tmp_path) == (["the task 'detect' is opsin's own; give yours another name"], [])


def test_two_packages_that_bring_one_task_are_named(tmp_path: Path) -> None:
    site = tmp_path / "site"
    places = [HERE, install(site, "b-dots", DOTS), install(site, "a-dots", "dots = rule:ROOM")]
    refused = "the task 'dots' is registered twice, by the packages a-dots and b-dots; uninstall one"
    assert say("rooms.find_room('dots')", places, tmp_path) == ([refused], [])
    places = [HERE, install(tmp_path / "own", "sly", "classify = rule:ROOM")]
    found, lines = say("rooms.all_rooms()\nprint(rooms.find_room('classify').trains)", places, tmp_path)
    assert found == ["opsin.classify.task:ClassifyTask"]
    assert lines == ["the task 'classify' is opsin's own; that of the package sly is not used"]


# --import


WITNESS = """
import multiprocessing, os, pathlib
kind = "first" if multiprocessing.parent_process() is None else "worker"
with pathlib.Path(__file__).with_name("seen").open("a") as seen:
    seen.write(f"{os.environ.get('LOCAL_RANK', '0')} {kind}\\n")
"""
WORKERS = """
multiprocessing.set_start_method("spawn")
loader = create_loader(data.open("dots.csv", "dots").splits["all"], None, batch_size=4, workers=1)
print(next(iter(loader))["count"].shape)
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes, with `dots` and `witness` imported, of which the second writes down who imported it."""
    folder = tmp_path_factory.mktemp("imported")
    (folder / "witness.py").write_text(WITNESS)
    (folder / "start.py").write_text("from opsin.cli import main\nmain()")  # the second rank runs it too
    say("from pathlib import Path\nfrom make_dots import make_dots\nmake_dots(Path('.'), 20)", [HERE], folder)
    settings = ["epochs=1", "batch_size=4", "devices=2", "strategy=ddp", "accelerator=cpu", "tensorboard=false"]
    flags = [word for setting in settings for word in ("--set", f"train.{setting}")]
    flags += ["--set", "data.split=stratified"]  # of so few a hash may leave one for validation
    train = ["train", "dots", "--model", "dots_net", "--data", "dots.csv", *flags, "--out", "run"]
    done = start(["start.py", "--import", "dots", *train, "--import=witness"], [HERE, folder], folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "seen").rename(folder / "seen_by_ranks")
    return folder


def test_an_import_reaches_every_rank(imported: Path) -> None:
    assert set((imported / "seen_by_ranks").read_text().splitlines()) == {"0 first", "1 first"}


def test_an_import_reaches_workers_that_start_afresh(imported: Path) -> None:
    before = "import multiprocessing\nfrom opsin import data\nfrom opsin.data.loading import create_loader\n"
    code = f"{before}rooms.import_packages(['dots', 'witness']){WORKERS}"
    assert say(code, [HERE, imported], imported)[0] == ["torch.Size([4])"]
    assert set((imported / "seen").read_text().splitlines()) == {"0 first", "0 worker"}


def test_a_child_finds_the_task_by_itself(tmp_path: Path) -> None:
    child = "import opsin.rooms; print(opsin.rooms.find_room('dots').help)"
    code = f"import subprocess, sys\nrooms.import_packages(['dots'])\nsubprocess.run([sys.executable, '-c', {child!r}])"
    assert say(code, [HERE], tmp_path) == (["how many dots an image shows"], [])


def test_a_run_records_what_was_imported_and_an_error_quotes_it(imported: Path) -> None:
    assert yaml.safe_load((imported / "run" / "recipe.yaml").read_text())["imports"] == ["dots", "witness"]
    quoted = "it was made with --import dots --import witness: give that again"
    for arguments in (["eval", "run"], ["predict", "run", "03.png", "--round"]):
        _, line = opsin(arguments, [HERE, imported], imported, status=2)
        assert re.match(r"opsin: (run/model.safetensors: )?unknown task 'dots'; ", line), line
        assert line.endswith(f"; {quoted}\n"), line


def test_a_network_of_a_package_is_quoted_too() -> None:
    recipe = {"imports": ["my_nets"], "model": {"name": "my_own_net"}, "data": {"source": "digits"}}
    with pytest.raises(InputError, match=r"unknown model 'my_own_net'; .*--import my_nets: give that again"):
        load_recipe(recipe)


def test_a_recipe_alone_imports_nothing(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("import pathlib; pathlib.Path('done').touch()")
    for task in ("evil", "classify"):
        values = {"task": task, "imports": ["evil"], "model": {"name": "none"}, "data": {"source": "digits"}}
        (tmp_path / f"{task}.yaml").write_text(yaml.safe_dump(values))
    _, line = opsin(["train", "evil.yaml"], [tmp_path], tmp_path, status=2)
    load = "from opsin.engine.recipe import load_recipe\nload_recipe('classify.yaml')"
    for said in (line.strip(), *say(load, [tmp_path], tmp_path)[0]):
        assert said.endswith("; it was made with --import evil: give that again")
    assert not (tmp_path / "done").exists()


def test_an_import_that_fails_says_which_and_why(tmp_path: Path) -> None:
    (tmp_path / "stops.py").write_text("raise SystemExit('enough')")
    (tmp_path / "lacks.py").write_text("import no_such_module")
    said = [opsin(["--import", name, "models"], [tmp_path], tmp_path, 2)[1] for name in ("stops", "lacks", "dotz.net")]
    assert said[0] == "opsin: --import stops: SystemExit: enough\n"
    assert said[1] == "opsin: --import lacks: ModuleNotFoundError: No module named 'no_such_module'\n"
    hint = "install it, or name the folder that it lies in in PYTHONPATH\n"
    assert said[2] == f"opsin: --import dotz.net: ModuleNotFoundError: No module named 'dotz'; {hint}"


# Options of another task


def test_an_option_of_another_task_is_refused_by_that_task(tmp_path: Path) -> None:
    installed = [HERE, install(tmp_path, "dots", DOTS), install(tmp_path, "rule", "rule = rule:ROOM")]
    refusals = {
        ("predict", "lenet5:none", "x.png", "--round"): "--round is an option of dots, and this is classify",
        ("predict", "rule", "x.png", "--round"): "--round is an option of dots, and this is rule",
        ("predict", "rule", "x.png", "--top", "3"): "--top is an option of classify, embed, adapt, and this is rule",
    }
    for arguments, refusal in refusals.items():
        _, line = opsin(arguments, installed, tmp_path, status=2)
        assert line == f"opsin: {refusal}\n"
    called = "rooms.find_room('classify').check_options('predict', {'round': True}, 'a prediction')"
    assert say(called, installed, tmp_path)[0] == ["round is an option of dots, and a prediction is of classify"]


def test_an_option_that_opens_data_says_the_task_of_a_package_too(tmp_path: Path) -> None:
    (tmp_path / "spots.py").write_text(
        "from opsin import Option, Room\n"
        "ROOM = Room('spots', 'spots', options={'data': (Option('spotted', bool, 'Has spots.', opens=True),)})"
    )
    places = [install(tmp_path, "spots", "spots = spots:ROOM")]
    code = "from opsin.cli.which_task import find_room\nprint(find_room('data', ['x', '--spotted']).task)"
    assert say(code, places, tmp_path) == (["spots"], [])
    found = find_room("data", ["scenes", "multi_label"])  # a value of that name is no option
    assert found is not None and found.task == "detect"
