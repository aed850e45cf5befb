"""Data sets of text in the layouts that they are published in, made by hand."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from opsin.data import open as open_source
from opsin.data import recognize_task
from opsin.errors import InputError


def make(*files: Path, size: tuple[int, int] = (60, 40)) -> None:
    for k, file in enumerate(files):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(k).integers(0, 256, (size[1], size[0], 3), np.uint8)).save(file)


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def texts(source) -> dict[str, list[str]]:
    return {key: list(split.kind.texts) for key, split in source.splits.items()}


TAGSET = """<?xml version="1.0" encoding="utf-8"?><tagset><image><imageName>img/{0}.png</imageName>
<address>1 Main St</address><lex>LIVING,ROOM,THEATERS</lex><Resolution x="60" y="40"/><taggedRectangles>
<taggedRectangle height="10" width="20" x="5" y="5"><tag>LIVING</tag></taggedRectangle>
<taggedRectangle height="8" width="25.0" x="30" y="20"><tag>ROOM</tag></taggedRectangle>
</taggedRectangles></image></tagset>"""


def test_street_view_text(tmp_path: Path) -> None:
    make(tmp_path / "img" / "a.png", tmp_path / "img" / "b.png")
    write(tmp_path / "train.xml", TAGSET.format("a"))
    write(tmp_path / "test.xml", TAGSET.format("b"))
    opened = open_source(tmp_path, "read")
    assert texts(opened) == {"train": ["LIVING", "ROOM"], "test": ["LIVING", "ROOM"]}
    truth = opened.splits["test"].kind
    assert list(truth.lexicon(1)) == ["LIVING", "ROOM", "THEATERS"]
    assert opened.splits["test"].read(1).shape == (3, 8, 25)
    pages = open_source(tmp_path, "detect").splits["test"].kind
    assert pages.regions(0).boxes.tolist() == [[5, 5, 25, 15], [30, 20, 55, 28]]
    assert pages.regions(0).texts == ["LIVING", "ROOM"]


def test_icdar_2003(tmp_path: Path) -> None:
    make(tmp_path / "SceneTrialTrain" / "img" / "a.png", tmp_path / "words" / "word" / "1" / "1.png")
    write(tmp_path / "SceneTrialTrain" / "locations.xml", TAGSET.format("a"))
    assert texts(open_source(tmp_path / "SceneTrialTrain", "read")) == {"all": ["LIVING", "ROOM"]}
    write(
        tmp_path / "words" / "word.xml", '<imagelist>\n<image file="word/1/1.png" tag="self &amp; co" />\n</imagelist>'
    )
    assert recognize_task(tmp_path / "words") == "read"
    assert texts(open_source(tmp_path / "words", "read")) == {"all": ["self & co"]}


def test_iam_in_ascii(tmp_path: Path) -> None:
    names = ["a01-000u-00-00", "a01-000u-00-01", "a02-000-00-00"]
    make(*(tmp_path / "words" / name[:3] / "-".join(name.split("-")[:2]) / f"{name}.png" for name in names))
    write(
        tmp_path / "ascii" / "words.txt",
        "#--- words.txt ---#\na01-000u-00-00 ok 154 408 768 27 51 AT A\na01-000u-00-01 err 154 507 766 213 48 NN MOVE\n"
        "a02-000-00-00 ok 154 408 768 27 51 AT to b\n",
    )
    assert recognize_task(tmp_path) == "read"
    opened = open_source(tmp_path, "read")
    assert texts(opened) == {"all": ["A", "to b"]}
    assert list(opened.splits["all"].kind.pages) == ["a01-000u", "a02-000"]
    assert [problem.kind for problem in opened.problems] == ["left_out"]
    write(
        tmp_path / "ascii" / "forms.txt", "# form writer\na01-000u 000 2 prt 7 5 52 36\na02-000 000 2 prt 7 5 52 36\n"
    )
    assert set(open_source(tmp_path, "read").splits["all"].kind.pages) == {"writer 000"}
    write(tmp_path / "trainset.txt", "a01-000u-00\n")
    write(tmp_path / "testset.txt", "a02-000\n")
    assert texts(open_source(tmp_path, "read")) == {"train": ["A"], "test": ["to b"]}
    make(tmp_path / "lines" / "a01" / "a01-000u" / "a01-000u-00.png")
    write(tmp_path / "ascii" / "lines.txt", "a01-000u-00 ok 154 19 408 746 1661 89 A|MOVE|to\n")
    with pytest.raises(InputError, match="level"):
        open_source(tmp_path, "read")
    assert texts(open_source(tmp_path, "read", level="lines")) == {"train": ["A MOVE to"]}


def test_iam_in_xml(tmp_path: Path) -> None:
    make(tmp_path / "lines" / "a01" / "a01-000u" / "a01-000u-00.png")
    write(
        tmp_path / "xml" / "a01-000u.xml",
        '<form id="a01-000u" writer-id="007"><handwritten-part><line id="a01-000u-00" segmentation="ok" '
        'text="A &quot;MOVE&quot;"><word id="a01-000u-00-00" text="A"/></line></handwritten-part></form>',
    )
    opened = open_source(tmp_path, "read")
    assert texts(opened) == {"all": ['A "MOVE"']}
    assert list(opened.splits["all"].kind.pages) == ["writer 007"]
    write(tmp_path / "xml" / "a01-003u.xml", '<form id="a01-003u"><handwritten-part>')
    opened = open_source(tmp_path, "read")
    assert texts(opened) == {"all": ['A "MOVE"']}
    assert [(one.kind, one.path) for one in opened.problems] == [
        ("broken_annotation", str(tmp_path / "xml" / "a01-003u.xml"))
    ]


def test_rimes(tmp_path: Path) -> None:
    make(tmp_path / "images" / "1.png", tmp_path / "images" / "2.png")
    page = (
        '<DocumentList><SinglePage FileName="images/{}.png"><Paragraph><Line Bottom="15" Left="5" Right="25" Top="5" \
Value="Je vous\\nprie"/></Paragraph></SinglePage></DocumentList>'
    )
    write(tmp_path / "training_2011.xml", page.format(1))
    write(tmp_path / "eval_2011_annotated.xml", page.format(2))
    assert texts(open_source(tmp_path, "read")) == {"train": ["Je vous prie"], "test": ["Je vous prie"]}
    assert open_source(tmp_path, "detect").splits["test"].kind.regions(0).boxes.tolist() == [[5, 5, 25, 15]]


def test_iiit5k_with_its_lists(tmp_path: Path) -> None:
    for split in ("train", "test"):
        make(tmp_path / split / "1_1.png", tmp_path / split / "1_2.png")
        fields = [("ImgName", "O"), ("GroundTruth", "O"), ("smallLexi", "O"), ("mediumLexi", "O")]
        rows = np.zeros((1, 2), fields)
        for k, word in enumerate(("PRIVATE", "You")):
            words = np.array([word, "CAFE", "BAR"], object)
            rows[0, k] = (f"{split}/1_{k + 1}.png", word, words, np.array([*words, "HALL"], object))
        savemat(tmp_path / f"{split}data.mat", {f"{split}data": rows})
    opened = open_source(tmp_path, "read")
    assert texts(opened) == {"train": ["PRIVATE", "You"], "test": ["PRIVATE", "You"]}
    assert opened.splits["test"].kind.lexicon(0) is None
    small = open_source(tmp_path, "read", word_lists="small").splits["test"].kind
    assert list(small.lexicon(1)) == ["You", "CAFE", "BAR"]
    assert len(open_source(tmp_path, "read", word_lists="medium").splits["test"].kind.lexicon(0)) == 4
    packed = BytesIO()
    savemat(packed, {"testdata": rows}, do_compression=True)
    damaged = bytearray(packed.getvalue())
    damaged[len(damaged) // 2] ^= 0xFF
    for content in (b"MATLAB 5.0 MAT-file" + bytes(200), bytes(damaged)):
        (tmp_path / "testdata.mat").write_bytes(content)
        with pytest.raises(InputError, match=r"testdata\.mat: not read as MATLAB's"):
            open_source(tmp_path, "read")


def test_total_text(tmp_path: Path) -> None:
    make(tmp_path / "Images" / "Train" / "img1.png", tmp_path / "Images" / "Test" / "img2.png")
    rows = np.zeros((2, 6), object)
    for k, text in enumerate(("petrosains", "#")):
        rows[k] = [
            "x:",
            np.array([[5, 15, 25, 25, 15, 5]]),
            "y:",
            np.array([[5, 3, 5, 15, 13, 15]]) + 20 * k,
            text,
            "c",
        ]
    (tmp_path / "Groundtruth" / "Train").mkdir(parents=True)
    savemat(tmp_path / "Groundtruth" / "Train" / "poly_gt_img1.mat", {"polygt": rows})
    line = "x: [[5 15 25 25 15 5]], y: [[5 3 5 15 13 15]], ornt: [u'c'], transcriptions: [u'{}']\n"
    write(tmp_path / "Groundtruth" / "Test" / "poly_gt_img2.txt", line.format("coffee") + line.format("#"))
    opened = open_source(tmp_path, "read")
    assert texts(opened) == {"train": ["petrosains"], "test": ["coffee"]}
    assert opened.splits["train"].read(0).shape[1:] == (12, 20)
    found = open_source(tmp_path, "detect").splits["train"].kind.regions(0)
    assert (found.labels.tolist(), len(found.polygons[0])) == ([0, -1], 6)


def test_paddle(tmp_path: Path) -> None:
    make(tmp_path / "imgs" / "1.png")
    regions = [
        {"transcription": "中文", "points": [[5, 5], [25, 5], [25, 15], [5, 15]], "difficult": False},
        {"transcription": "###", "points": [[30, 20], [50, 20], [50, 30], [30, 30]]},
        {"transcription": "x", "points": [[30, 20], [50, 20], [50, 30], [30, 30]], "difficult": True},
    ]
    write(tmp_path / "Label.txt", f"imgs/1.png\t{json.dumps(regions)}\n1.png\tno json\n")
    opened = open_source(tmp_path, "read")
    assert texts(opened) == {"all": ["中文"]}
    assert [one.path.rpartition(" ")[2] for one in opened.problems] == ["2"]
    assert open_source(tmp_path, "detect").splits["all"].kind.labels.tolist() == [0, -1, -1]


def test_coco_text(tmp_path: Path) -> None:
    make(tmp_path / "train2014" / "1.png", tmp_path / "train2014" / "2.png")
    anns = {
        "10": {"image_id": 1, "mask": [5, 5, 25, 5, 25, 15, 5, 15], "utf8_string": "New", "legibility": "legible"},
        "11": {"image_id": 1, "bbox": [30, 20, 20, 10], "legibility": "illegible"},
        "12": {"image_id": 2, "polygon": [5, 5, 25, 5, 25, 15, 5, 15], "utf8_string": "Old", "legibility": "legible"},
    }
    imgs = {str(k): {"id": k, "set": split, "file_name": f"{k}.png"} for k, split in ((1, "train"), (2, "val"))}
    write(tmp_path / "cocotext.v2.json", json.dumps({"cats": {}, "anns": anns, "imgs": imgs, "imgToAnns": {}}))
    assert texts(open_source(tmp_path, "read")) == {"train": ["New"], "val": ["Old"]}
    found = open_source(tmp_path, "detect").splits["train"].kind.regions(0)
    assert found.boxes.tolist() == [[5, 5, 25, 15], [30, 20, 50, 30]]
    assert found.labels.tolist() == [0, -1]


def test_cvat_and_labelme_stay_boxes_and_have_lines(tmp_path: Path) -> None:
    make(tmp_path / "cvat" / "images" / "1.png", tmp_path / "labelme" / "1.png")
    write(
        tmp_path / "cvat" / "annotations.xml",
        '<annotations><version>1.1</version><image id="0" name="1.png" width="60" height="40">\n<polygon label="text" '
        'points="5,5;25,5;25,15;5,15"><attribute name="text">TOTAL</attribute></polygon>\n<box label="text" xtl="30" '
        'ytl="20" xbr="50" ybr="30"/></image></annotations>',
    )
    shapes = [{"label": "text", "points": [[5, 5], [25, 15]], "shape_type": "rectangle", "description": "SUM"}]
    content = {"version": "5", "flags": {}, "shapes": shapes, "imagePath": "1.png", "imageHeight": 40, "imageWidth": 60}
    write(tmp_path / "labelme" / "1.json", json.dumps(content))
    assert recognize_task(tmp_path / "cvat") == recognize_task(tmp_path / "labelme") == "detect"
    assert texts(open_source(tmp_path / "cvat", "read")) == {"all": ["TOTAL"]}
    assert texts(open_source(tmp_path / "labelme", "read")) == {"all": ["SUM"]}
    content["shapes"][0].pop("description")
    write(tmp_path / "labelme" / "1.json", json.dumps(content))
    assert texts(open_source(tmp_path / "labelme", "read")) == {"all": ["text"]}


def test_names_as_texts(tmp_path: Path) -> None:
    make(tmp_path / "mj" / "2425" / "1" / "115_Lube_45484.png", tmp_path / "mj" / "182_slinking_71711.png")
    assert texts(open_source(tmp_path / "mj", "read")) == {"all": ["slinking", "Lube"]}
    make(tmp_path / "plain" / "train" / "Cafe_2.png", tmp_path / "plain" / "test" / "Bar.png")
    assert texts(open_source(tmp_path / "plain", "read")) == {"train": ["Cafe"], "test": ["Bar"]}
    make(tmp_path / "counted" / "img_1.png", tmp_path / "counted" / "0002.png")
    with pytest.raises(InputError, match="count them"):
        open_source(tmp_path / "counted", "read")


def test_xml_with_entities_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "img" / "a.png")
    write(tmp_path / "train.xml", '<!DOCTYPE a [<!ENTITY b "c">]>' + TAGSET.format("a")[38:])
    with pytest.raises(InputError):
        open_source(tmp_path, "read")


def test_real_pages_of_mmocr(data_dir: Path) -> None:
    pages = open_source(data_dir / "text_toy" / "det_toy_dataset", "detect")
    assert {key: len(split) for key, split in pages.splits.items()} == {"test": 10}
    assert not pages.problems
    assert pages.splits["test"].kind.regions(0).polygons[0].tolist() == [[261, 138], [284, 140], [279, 158], [260, 158]]
