"""The page: one file that is whole, offline and escaped; what a run's page shows; what is refused."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from opsin import registry
from opsin.analyze import page, plots, sections, visualize
from opsin.analyze.dead_units import LayerActivity
from opsin.analyze.explain import explain_model
from opsin.analyze.explain_schema import Advice, Explanation, Field, Identity, Latency, Memory, Result, Training
from opsin.analyze.profile import profile
from opsin.engine.checkpoint import Facts, save_model
from opsin.engine.recipe import load_recipe
from opsin.engine.recipe_data import create_preprocessing
from opsin.engine.report import Table, Text
from opsin.errors import InputError
from opsin.nn.counting import short_count

pytestmark = pytest.mark.rendered

HOSTILE = "<script>alert('1')</script> & \"quotes\""
ADVICE = Advice("rule", "A title", "What is there.", "Why.", "What to do.", "A paper", ("a", "b"), {"n": 1.0}, {"n": 0})
MEMORY = Memory(
    4, "sgd", 1000, 10, 1000, 1000, 2_000_000, 3_000_000, 1_500_000, 3_100_000, None, "cpu",
    ((0, 10), (1, 3_000_000)), ((0, 10), (1, 1_500_000)),
)  # fmt: skip
TRAINING = Training("digits", 3, 32, "sgd", 0.1, 0.0, None, "cosine", 1.0, ((0, 0.0), (1, 0.1), (3, 0.0)), "task: x")


def explanation(name: str = "lenet5", kind: str = "model", source: str | Path = "", size: int = 32) -> Explanation:
    """What `opsin explain` would say, without its estimates."""
    model = registry.create_model(name)
    shape = (registry.find_model(name).published.input[0], size, size)
    found = profile(model, shape)
    identity = Identity(
        name, kind, str(source or name), "classify", "lenet", ("depth",), "arXiv:1", "", 1998, "idea", shape
    )
    results = (Result("imagenet1k top-1", 70.0 + len(name), "published", "the paper"),)
    return Explanation(identity, results, found.totals, found.stages, found.layers, found.uncounted, MEMORY, (ADVICE,))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of LeNet-5 on the digits that has not learned anything yet."""
    folder = tmp_path_factory.mktemp("runs") / "lenet5"
    folder.mkdir()
    recipe = load_recipe({"model": {"name": "lenet5"}, "data": {"source": "digits", "limit": 60}})
    torch.manual_seed(0)
    model = registry.create_model("lenet5", num_classes=10)
    classes = [str(k) for k in range(10)]
    preprocessing = create_preprocessing(recipe, 1)
    facts = Facts(recipe, preprocessing, {"classes": classes}, {"num_classes": len(classes), "in_channels": 1})
    save_model(folder / "model.safetensors", model, facts, {})
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    return folder


def read(path: Path, explanations: list[Explanation], **options: object) -> str:
    return page.write_page(path / "page.html", explanations, **options).read_text(encoding="utf-8")  # type: ignore[arg-type]


def titles(text: str) -> list[str]:
    return re.findall(r'<h2><a href="[^"]+">([^<]+)</a>', text)


def test_a_networks_page_is_whole_and_offline(tmp_path: Path) -> None:
    text = read(tmp_path, [replace(explanation(), training=TRAINING)])
    assert titles(text) == [
        *("What it is", "Results", "Advice", "Stages", "Receptive field", "Memory", "Memory over a step", "Layers"),
        *("Training", "Learning rate", "Recipe"),
    ]
    assert not re.findall(r'(?:src|href)="(?!data:|#|https://arxiv\.org/)', text)
    for source in re.findall(r'(?:src|href)="data:image/svg\+xml;base64,([^"]+)"', text):
        ElementTree.fromstring(base64.b64decode(source))
    for wanted in ("61,706", "5 x 5", "A title", "What to do.", "3.1 MB", "70.00 %", "Conv2d 5x5"):
        assert wanted.replace("70.00", "76.00") in text, wanted


def test_a_page_is_titled_by_what_was_asked_for(tmp_path: Path, run: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "digits_7")
    for asked, called in ((explanation(), "lenet5"), (explanation(kind="run", source=folder), "digits_7")):
        assert re.findall(r"<(?:title|h1)>([^<]*)<", read(tmp_path, [asked])) == [called, called]


def test_a_network_that_is_not_registered_has_a_page_too(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU())
    text = read(tmp_path, [explain_model(model, (2, 16, 16), name="mine", batch=2)])
    assert titles(text) == ["What it is", "Advice", "Memory", "Memory over a step", "Layers"] and "mine" in text


def test_only_the_pages_own_script_may_run(tmp_path: Path) -> None:
    text = read(tmp_path, [explanation()])
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_nothing_of_a_name_is_markup(tmp_path: Path) -> None:
    fake = explanation()
    fake = replace(
        fake,
        identity=replace(fake.identity, idea=HOSTILE, paper=HOSTILE, family=HOSTILE),
        advice=(replace(ADVICE, title=HOSTILE, layers=(HOSTILE,)),),
        results=(Result(HOSTILE, 1.0, "run", HOSTILE),),
        layers=tuple(replace(layer, name=HOSTILE, type=HOSTILE) for layer in fake.layers),
        training=replace(TRAINING, recipe=HOSTILE, data=HOSTILE),
    )
    for text in (read(tmp_path, [fake]), read(tmp_path, [fake, fake])):
        assert text.count("<script>") == 1 and "alert(&#39;1&#39;)" in text


def test_every_layer_is_in_the_table_by_stage(tmp_path: Path) -> None:
    fake = explanation("resnet20")
    text = read(tmp_path, [fake])
    rows = sum(len(re.findall("<tr><td", part)) for part in text.split('<table class="layers">')[1:])
    assert rows == len(fake.layers)
    assert re.findall(r"<summary><strong>([^<]+)", text) == [
        "stem",
        "stages.0",
        "stages.1",
        "stages.2",
        "head",
    ]
    assert len(text) < 600_000


def test_a_net_of_a_thousand_layers_stays_small(tmp_path: Path) -> None:
    fake = explanation("resnet20")
    many = fake.layers * 60
    stages = tuple(replace(s, layers=(60 * s.layers[0], 60 * s.layers[1])) for s in fake.stages)
    text = read(tmp_path, [replace(fake, layers=many, stages=stages)])
    assert len(many) > 3000 and len(text) < 3_000_000


def test_a_runs_page_shows_what_it_sees(tmp_path: Path, run: Path) -> None:
    text = read(tmp_path, [explanation("lenet5", "run", run)])
    assert {"Class evidence", "Feature maps", "What excites units", "Dead units"} <= set(titles(text))
    assert "val split" in text and "digits[" in text


def test_given_images_layers_and_units(tmp_path: Path, run: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 40, 3), np.uint8)).save(tmp_path / "mine.png")
    fake = explanation("lenet5", "run", run)
    text = read(tmp_path, [fake], images=[tmp_path / "mine.png"], layers=["stem.0"], units=[4, 2])
    assert "mine.png" in text and "stem.0" in text
    assert (
        "<strong>unit 4</strong>" in text
        and "<strong>unit 2</strong>" in text
        and "<strong>unit 3</strong>" not in text
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": ["nowhere.png"]}, "no file or folder at nowhere.png"),
        ({"images": ["broken.png"]}, "cannot read .*broken.png: not an image"),
        ({"layers": ["stages.7"]}, "unknown layer 'stages.7'; did you mean stages"),
        ({"units": [16]}, "layer stages.0 has no unit 16; it has 16, 0 to 15"),
    ],
)
def test_wrong_names_are_one_clear_line(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch, options: dict, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.png").write_bytes(b"no image at all")
    with pytest.raises(InputError, match=message) as caught:
        page.write_page("page.html", [explanation("lenet5", "run", run)], **options)
    assert "\n" not in str(caught.value) and not Path("page.html").exists()


@pytest.mark.parametrize("kind", ["model", "recipe"])
def test_images_need_trained_weights(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InputError, match=r"lenet5 has no trained weights, .* train it and explain the run"):
        read(tmp_path, [explanation(kind=kind)], images=["x.png"])


def test_a_run_whose_data_is_gone_is_shown_photographs(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object, **__: object) -> None:
        raise InputError("no data at photos/")

    monkeypatch.setattr(visualize.data, "open", gone)
    text = read(tmp_path, [explanation("lenet5", "run", run)])
    assert "cannot be opened: no data at photos/" in text and "astronaut" in text


def test_damaged_images_of_its_data_are_left_out(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path
    for k in range(12):
        path = tmp_path / "set" / f"{k % 2}" / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(k).integers(0, 255, (28, 28), np.uint8)).save(path)
    whole = path.read_bytes()
    source = visualize.open_own(load_recipe({"model": {"name": "lenet5"}, "data": {"source": str(tmp_path / "set")}}))
    monkeypatch.setattr(visualize, "_open_split", lambda *_: ("val", source.splits["all"]))
    path.write_bytes(whole[:-30])
    text = read(tmp_path, [explanation("lenet5", "run", run)])
    assert "11 images of its val split" in text and "astronaut" not in text
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"left out, since it cannot be read: {path}: damaged or truncated PNG")
    for other in (tmp_path / "set").rglob("*.png"):
        other.write_bytes(whole[:-30])
    text = read(tmp_path, [explanation("lenet5", "run", run)])
    assert "cannot be opened: none of its images can be read: cannot read" in text and "astronaut" in text


def test_comparison(tmp_path: Path) -> None:
    latency = Latency(1, 3.5, 3.0, 4.0, 10, "cpu", 1)
    both = [explanation("resnet20"), replace(explanation("resnet32"), latency=latency), explanation("lenet5")]
    both[2] = replace(both[2], results=())
    text = read(tmp_path, both)
    assert titles(text) == ["Comparison", "Imagenet1k top-1 against costs", "Costs", "Results", "Advice"]
    assert "resnet20 and resnet32 and lenet5" in text and "not drawn: lenet5" in text and "3.5" in text
    with pytest.raises(InputError, match="explain it alone"):
        page.write_page(tmp_path / "x.html", both, images=["x.png"])
    with pytest.raises(InputError, match="nothing to explain"):
        page.write_page(tmp_path / "x.html", [])


def test_the_result_that_most_share_decides_and_measured_beats_published() -> None:
    fake = explanation()
    own = replace(fake, results=(*fake.results, Result("imagenet1k top-1", 71.5, "run", "")))
    other = replace(fake, results=(Result("digits accuracy", 99.0, "recipe", ""),))
    assert page.shared_metric([own, fake, other]) == ("imagenet1k top-1", [71.5, 76.0, None])
    assert page.shared_metric([replace(fake, results=())]) == ("", [None])


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, None), (0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2_345_678, "2.35 MB"), (10**10, "10 GB")],
)
def test_amounts(count: int | None, text: str | None) -> None:
    assert sections.amount(count) == text


def test_what_a_unit_sees_in_words_and_in_the_image() -> None:
    seen = Field((7, 9), (4.0, 4.0), (-3, -4), (0.5, 0.5))
    assert sections.sees(seen) == "7 x 9" and sections.sees(None) is None
    assert sections.sees(replace(seen, whole=True)) == "7 x 9 + all"
    assert sections.sees(replace(seen, exact=False)) == "at most 7 x 9"
    assert visualize.field_box(seen, 0, 0, (32, 32)) == (0, 0, 5, 4)
    assert visualize.field_box(seen, 2, 3, (32, 32)) == (8, 5, 17, 12)
    assert visualize.field_box(replace(seen, whole=True), 2, 3, (32, 30)) == (0, 0, 30, 32)


def test_dead_units_in_words() -> None:
    alive = LayerActivity("a", True, 4, (), (0.5,) * 4)
    dying = LayerActivity("b", True, 4, (0, 3), (0.0, 0.5, 0.5, 0.0))
    assert isinstance(sections.dead_table([], "x"), Text)
    healthy = sections.dead_table([alive], "10 images")
    assert isinstance(healthy, Text) and healthy.body.startswith("0 of 4 units")
    table = sections.dead_table([alive, dying], "10 images")
    assert isinstance(table, Table) and table.rows == [["b", 4, 2, 0.5, 0.25, "0, 3"]]


def test_images_are_small_and_colours_right() -> None:
    image = torch.full((1, 4, 4), 100, dtype=torch.uint8)
    none, much = plots.heat(image, torch.zeros(4, 4)), plots.heat(image, torch.ones(4, 4))
    assert none.shape == (3, 4, 4) and none[:, 0, 0].tolist() == [75, 75, 76]  # a quarter of (0, 0, 4)
    assert much[:, 0, 0].tolist() == [229, 232, 154]  # 0.85 of (252, 255, 164)
    assert plots.image_uri(image).startswith("data:image/png")
    photo = torch.from_numpy(np.random.default_rng(0).normal(128, 20, (3, 300, 300)).clip(0, 255).astype(np.uint8))
    assert len(plots.image_uri(photo)) < 110_000
    assert plots.mosaic([image] * 4).startswith("data:image/png")
    assert [short_count(v) for v in (1.8141e9, 25_557_032, 512, 6520)] == ["1.81 G", "25.6 M", "512", "6.52 k"]
