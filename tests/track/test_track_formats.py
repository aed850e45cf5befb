"""Formats of tracks: files in their published layout, by hand, and every format written and read again."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from opsin import data
from opsin.errors import InputError
from opsin.track.coco_video import VideoImages
from opsin.track.evaluate import evaluate
from opsin.track.reading import read_sequences
from opsin.track.rules import find_rules
from opsin.track.track_files import Asked
from opsin.track.tracks import NO_CLASS, NOBODY, Tracks
from opsin.track.writing import WRITERS, write_sequences

MOT17 = """1,1,912,484,97,109,0,7,1
1,2,1338,418,167,379,1,1,0.75
2,2,1342,417,168,380,1,1,0.5
"""
MOT15_DETECTIONS = """1,-1,281.931,187.466,79.93,209.537,0.997784,-1,-1,-1
2,-1,56.6878,144.225,93.5572,295.907,0.997601,-1,-1,-1
"""
SEQINFO = """[Sequence]
name=MOT17-02-FRCNN
imDir=img1
frameRate=30
seqLength=299
imWidth=1920
imHeight=1080
imExt=.jpg
"""
KITTI = (
    "0 -1 DontCare -1 -1 -10.000000 219.310000 188.490000 245.500000 218.560000 "
    "-1000.000000 -1000.000000 -1000.000000 -10.000000 -1.000000 -1.000000 -1.000000\n"
    "0 0 Van 0 0 -1.793451 296.744956 161.752147 455.226042 292.372804 "
    "2.000000 1.823255 4.433886 -4.552284 1.858523 13.410495 -2.115488\n"
    "1 1 Car 1 3 -1.9 10.5 20.5 30.5 60.5 1 1 1 0 0 0 0\n"
)
DETRAC = """<?xml version="1.0" encoding="utf-8"?>
<sequence name="MVI_20011">
   <sequence_attribute camera_state="unstable" sence_weather="sunny"/>
   <ignored_region>
      <box left="778.75" top="24.75" width="181.75" height="63.5"/>
   </ignored_region>
   <frame density="2" num="1">
      <target_list>
         <target id="1">
            <box left="592.75" top="378.8" width="160.05" height="162.2"/>
            <attribute orientation="18.488" speed="6.859" truncation_ratio="0.1" vehicle_type="car"/>
         </target>
         <target id="2">
            <box left="557.65" top="120.98" width="47.2" height="43.06"/>
            <attribute orientation="19.398" speed="1.5" trajectory_length="72" truncation_ratio="0" vehicle_type="van"/>
         </target>
      </target_list>
   </frame>
   <frame density="1" num="3">
      <target_list>
         <target id="1">
            <box left="600" top="380" width="160" height="162"/>
            <attribute vehicle_type="car"/>
         </target>
      </target_list>
   </frame>
</sequence>
"""
CVML = """<?xml version="1.0" encoding="utf-8"?>
<dataset name="PETS2009-S2L1">
   <frame number="0">
      <objectlist>
         <object id="3">
            <orientation>90</orientation>
            <box h="76" w="36" xc="510" yc="224"/>
            <appearance>appear</appearance>
         </object>
      </objectlist>
   </frame>
   <frame number="1">
      <objectlist/>
   </frame>
</dataset>
"""
CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><id>7</id><name>crossing</name><size>6</size><mode>interpolation</mode>
    <original_size><width>640</width><height>480</height></original_size></task></meta>
  <track id="4" label="car" source="manual">
    <box frame="0" keyframe="1" outside="0" occluded="1" xtl="10" ytl="20" xbr="30" ybr="50" z_order="0"/>
    <box frame="2" keyframe="1" outside="0" occluded="0" xtl="14" ytl="20" xbr="34" ybr="50" z_order="0"/>
    <box frame="3" keyframe="1" outside="1" occluded="0" xtl="14" ytl="20" xbr="34" ybr="50" z_order="0"/>
    <box frame="5" keyframe="1" outside="0" occluded="0" xtl="20" ytl="20" xbr="40" ybr="50" z_order="0"/>
  </track>
</annotations>
"""
IDL = """"tud/DaSide0811-seq6-046.png": (45, 145, 121, 441):0.9, (480, 130, 410, 400):0.5/7;
"tud/DaSide0811-seq6-047.png";
"tud/DaSide0811-seq6-048.png": (47, 145, 123, 441).
"""
COCO = {
    "videos": [{"id": 9, "name": "street", "width": 640, "height": 480}],
    "images": [
        {"id": 31, "video_id": 9, "frame_index": 60, "file_name": "street/0061.jpg"},
        {"id": 30, "video_id": 9, "frame_index": 30, "file_name": "street/0031.jpg"},
    ],
    "tracks": [{"id": 5, "category_id": 1, "video_id": 9}],
    "annotations": [
        {"id": 1, "image_id": 30, "track_id": 5, "category_id": 1, "bbox": [10, 20, 30, 40]},
        {"id": 2, "image_id": 31, "track_id": 5, "category_id": 1, "bbox": [12, 20, 30, 40], "iscrowd": 1},
    ],
    "categories": [{"id": 1, "name": "dog"}],
}
CSV = """frame_index,tracker_id,class_name,x_min,y_min,x_max,y_max,confidence
0,1,dog,10,20,40,60,0.75
2,1,dog,11,20,41,60,0.5
"""


def read_one(path: Path, text: str, asked: Asked | None = None) -> Tracks:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    (tracks,) = read_sequences(path, asked or Asked(truth=True)).values()
    return tracks


def test_mot_counts_frames_and_pixels_from_one(tmp_path: Path) -> None:
    (tmp_path / "seqinfo.ini").write_text(SEQINFO)
    tracks = read_one(tmp_path / "gt" / "gt.txt", MOT17)
    assert (tracks.name, tracks.num_frames, tracks.fps, tracks.size) == ("MOT17-02-FRCNN", 299, 30, (1920, 1080))
    assert tracks.frames.tolist() == [0, 0, 1]
    assert tracks.boxes[0].tolist() == [911, 483, 911 + 97, 483 + 109]
    assert [tracks.classes[label] for label in tracks.labels] == ["static_person", "pedestrian", "pedestrian"]
    assert tracks.ignored.tolist() == [True, False, False]  # confidence 0
    assert tracks.visibility is not None and tracks.visibility.tolist() == [1, 0.75, 0.5]


def test_mot_detections_have_nobody(tmp_path: Path) -> None:
    tracks = read_one(tmp_path / "det.txt", MOT15_DETECTIONS, Asked())
    assert not tracks.has_ids and tracks.ids.tolist() == [NOBODY, NOBODY]
    assert tracks.scores.tolist() == [0.997784, 0.997601] and tracks.num_frames == 2 and tracks.open_ended
    np.testing.assert_allclose(tracks.boxes[0], [280.931, 186.466, 280.931 + 79.93, 186.466 + 209.537])


def test_kitti_counts_from_zero_and_marks_what_is_hard(tmp_path: Path) -> None:
    (tmp_path / "evaluate_tracking.seqmap.training").write_text("0007 empty 000000 000800\n")
    tracks = read_one(tmp_path / "label_02" / "0007.txt", KITTI)
    assert (tracks.name, tracks.num_frames) == ("0007", 800)
    assert tracks.frames.tolist() == [0, 0, 1]
    assert tracks.boxes[1].tolist() == [296.744956, 161.752147, 455.226042, 292.372804]
    assert tracks.labels[0] == NO_CLASS and tracks.classes[tracks.labels[1]] == "Van"
    assert tracks.ignored.tolist() == [True, False, True]  # DontCare; occlusion 3 and truncation 1
    assert not read_one(tmp_path / "label_02" / "0007.txt", KITTI, Asked()).ignored[2]  # a result is not truth


def test_detections_of_kitti_are_a_folder_for_each_class(tmp_path: Path) -> None:
    for name, line in (("Car", "1,10,20,30,40,0.5\r\n"), ("Pedestrian", "0,1,2,3,4,0.25\r\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0003.txt").write_text(line)
    (tracks,) = read_sequences(tmp_path).values()
    assert [tracks.classes[label] for label in tracks.labels] == ["Pedestrian", "Car"]
    assert (tracks.frames.tolist(), tracks.scores.tolist(), tracks.name) == ([0, 1], [0.25, 0.5], "0003")


def test_detrac(tmp_path: Path) -> None:
    tracks = read_one(tmp_path / "a.xml", DETRAC)
    assert (tracks.name, tracks.num_frames) == ("MVI_20011", 3)
    own = tracks.select(tracks.labels != NO_CLASS)
    assert own.frames.tolist() == [0, 0, 2] and own.ids.tolist() == [1, 2, 1]
    assert [own.classes[label] for label in own.labels] == ["car", "van", "car"]
    np.testing.assert_allclose(own.boxes[0], [592.75, 378.8, 592.75 + 160.05, 378.8 + 162.2])
    regions = tracks.select(tracks.labels == NO_CLASS)
    assert regions.frames.tolist() == [0, 1, 2] and regions.ignored.all() and not regions.has_ids


def test_cvml(tmp_path: Path) -> None:
    tracks = read_one(tmp_path / "a.xml", CVML)
    assert (tracks.name, tracks.num_frames, tracks.ids.tolist()) == ("PETS2009-S2L1", 2, [3])
    assert tracks.boxes.tolist() == [[492, 186, 528, 262]]
    later = read_one(
        tmp_path / "b.xml", CVML.replace('number="1"', 'number="7023"').replace('number="0"', 'number="7022"')
    )
    assert later.frames.tolist() == [0] and later.num_frames == 2


def test_cvat_moves_between_key_frames_and_ends_outside(tmp_path: Path) -> None:
    tracks = read_one(tmp_path / "a.xml", CVAT)
    assert (tracks.name, tracks.num_frames, tracks.size) == ("crossing", 6, (640, 480))
    assert tracks.frames.tolist() == [0, 1, 2, 5]
    assert tracks.boxes[:3, 0].tolist() == [10, 12, 14]
    assert tracks.visibility is not None and tracks.visibility.tolist() == [0.5, 1, 1, 1]


def test_idl(tmp_path: Path) -> None:
    tracks = read_one(tmp_path / "a.idl", IDL)
    assert tracks.frames.tolist() == [0, 0, 2] and tracks.num_frames == 3
    assert tracks.boxes[1].tolist() == [410, 130, 480, 400]
    assert tracks.scores.tolist() == [0.9, 0.5, 1] and tracks.ids.tolist() == [NOBODY, 7, NOBODY]


def test_coco_frames_are_images_in_their_order(tmp_path: Path) -> None:
    images = VideoImages()
    tracks = read_one(tmp_path / "a.json", json.dumps(COCO), Asked(truth=True, images=images))
    assert (tracks.name, tracks.num_frames, tracks.size, tracks.classes) == ("street", 2, (640, 480), ("dog",))
    assert tracks.frames.tolist() == [0, 1] and tracks.ids.tolist() == [5, 5]
    assert tracks.boxes[0].tolist() == [10, 20, 40, 60] and tracks.ignored.tolist() == [False, True]
    result = [{"image_id": 31, "track_id": 2, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]
    found = read_one(tmp_path / "b.json", json.dumps(result), Asked(images=images))
    assert (found.name, found.frames.tolist(), found.boxes.tolist()) == ("street", [1], [[1, 2, 4, 6]])


def test_csv_takes_the_names_of_other_tools(tmp_path: Path) -> None:
    tracks = read_one(tmp_path / "walk.csv", CSV)
    assert (tracks.name, tracks.classes, tracks.frames.tolist(), tracks.ids.tolist()) == (
        "walk",
        ("dog",),
        [0, 2],
        [1, 1],
    )
    assert tracks.boxes[1].tolist() == [11, 20, 41, 60] and tracks.scores.tolist() == [0.75, 0.5]
    sided = read_one(tmp_path / "b.csv", "sequence,frame,left,top,width,height\nx,1,10,20,30,40\n")
    assert (sided.name, sided.boxes.tolist(), sided.has_ids) == ("x", [[10, 20, 40, 60]], False)


def sample() -> dict[str, Tracks]:
    random = np.random.RandomState(0)
    found = {}
    for name in ("one", "two"):
        corners = random.randint(0, 400, (30, 2)) / 4
        boxes = np.concatenate([corners, corners + random.randint(1, 200, (30, 2)) / 4], axis=1)
        ids = np.tile(np.arange(1, 4), 10)
        facts = {"size": (640, 480), "fps": 25.0, "num_frames": 12, "name": name}
        found[name] = Tracks.build(np.repeat(np.arange(10), 3), boxes, ids, classes=("pedestrian",), **facts)
    return found


@pytest.mark.parametrize("form", WRITERS)
def test_what_is_written_is_read_again(form: str, tmp_path: Path) -> None:
    tracks = sample()
    assert write_sequences(tmp_path, tracks, form) == []
    source = data.open(tmp_path, "track")
    assert len(source.splits["all"]) == 2
    for one in source.splits["all"].kind.sequences:
        own = tracks[one.name]
        np.testing.assert_allclose(one.boxes, own.boxes, atol=1e-6)
        assert (one.ids.tolist(), one.frames.tolist()) == (own.ids.tolist(), own.frames.tolist())
        assert one.num_frames == (10 if form in ("detrac", "csv") else 12)  # which do not say how many there are


@pytest.mark.parametrize("form", WRITERS)
def test_truth_and_tracks_may_be_in_any_two_formats(form: str, tmp_path: Path) -> None:
    tracks = sample()
    write_sequences(tmp_path / "truth", tracks, form)
    write_sequences(tmp_path / "found", tracks, "csv")
    truth = read_sequences(tmp_path / "truth", Asked(truth=True))
    named = {name: one for name, one in read_sequences(tmp_path / "found").items() if name in truth}
    figures = evaluate(truth, named, find_rules("any_class")).metrics
    assert figures["hota"] == pytest.approx(1) and figures["switches"] == 0


def test_a_zip_is_as_good_as_its_folder(tmp_path: Path) -> None:
    write_sequences(tmp_path / "all", sample(), "mot")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in sorted((tmp_path / "all").rglob("*.*")):
            archive.write(file, Path("MOT") / file.relative_to(tmp_path / "all"))
    folder, packed = (read_sequences(tmp_path / name, Asked(truth=True)) for name in ("all", "all.zip"))
    assert list(folder) == list(packed) == ["one", "two"]
    assert packed["two"].boxes.tolist() == folder["two"].boxes.tolist() and packed["two"].num_frames == 12


def test_truth_is_not_taken_for_detections(tmp_path: Path) -> None:
    write_sequences(tmp_path / "all", sample(), "mot")
    with pytest.raises(InputError, match=r"has truth of MOTChallenge and no detections, det/det\.txt"):
        read_sequences(tmp_path / "all")


def test_a_seqmap_chooses_sequences(tmp_path: Path) -> None:
    write_sequences(tmp_path / "MOT17-train", sample(), "mot")
    (tmp_path / "seqmaps").mkdir()
    (tmp_path / "seqmaps" / "MOT17-train.txt").write_text("name\ntwo\n")
    assert list(read_sequences(tmp_path / "seqmaps" / "MOT17-train.txt", Asked(truth=True))) == ["two"]


def test_a_tracker_of_trackeval_is_found_in_its_folders(tmp_path: Path) -> None:
    (tmp_path / "MyTracker" / "data").mkdir(parents=True)
    (tmp_path / "MyTracker" / "data" / "MOT17-02.txt").write_text("1,1,10,20,30,40,1,-1,-1,-1\n")
    assert list(read_sequences(tmp_path)) == ["MOT17-02"]


LINE = "{},{},10,20,30,40,1,-1,-1,-1\n".format
WRONG: dict[str, tuple[str, str, str]] = {  # file, content, what is said
    "frame zero": ("a.txt", LINE(1, 1) + LINE(0, 1), "line 2: frame 0, .*counted from 1; .*--first-frame 0"),
    "twice": ("a.txt", LINE(1, 1) + LINE(2, 1) + LINE(1, 1), "line 3: identity 1 .*already, in line 1"),
    "no number": ("a.txt", LINE(1, 1) + "1,x,10,20,30,40,1,-1,-1,-1\n", "line 2: column 2 is 'x'"),
    "half an id": ("a.txt", LINE(1, 1.5), "line 1: the identity is 1.5; expected a whole number"),
    "NaN score": ("a.txt", LINE(1, 1) + "2,1,10,20,30,40,nan,-1,-1,-1\n", "line 2: the score is not finite"),
    "infinite box": ("a.txt", "1,1,inf,20,30,40,1,-1,-1,-1\n", "line 1: a coordinate is not finite"),
    "negative side": ("a.txt", "1,1,10,20,-30,40,1,-1,-1,-1\n", "line 1: the box is -30 wide"),
    "far frame": ("a.txt", LINE(10**12, 1), "line 1: frame 1000000000000; at most"),
    "VisDrone images": (
        "a.txt",
        "684,8,273,116,0,0,0,0\n406,119,265,70,0,0,0,0\n255,22,119,128,1,1,0,2",
        "holds no tracks: it looks like VisDrone's detection in images",
    ),
    "VisDrone results": ("a.txt", "684,8,273,116,0.75,4,-1,-1,\n", "looks like VisDrone's detection in images"),
    "VisDrone video": (
        "a.txt",
        "1,0,593,743,174,106,0,0,0,0\n1,1,400,300,20,30,1,4,0,1\n",
        "holds no tracks: it looks like VisDrone's tracking .*convert it to CSV",
    ),
    "short line": ("a.txt", LINE(1, 1) + "1,2,3\n", "line 2: column 4 is no number"),
    "prose": ("a.txt", "these are no tracks\n", "in no known format of tracks; expected MOTChallenge"),
    "cut xml": ("a.xml", DETRAC[:400], "line 11: not well-formed"),
    "lacking attribute": ("a.xml", DETRAC.replace(' top="378.8"', ""), "line 10: <box> has no top"),
    "entity": ("a.xml", '<!DOCTYPE sequence [<!ENTITY a "b">]>\n<sequence/>', "entities"),
    "CVAT images": ("a.xml", CVAT.replace("<track id", '<image id="0"/><track id'), "CVAT for images"),
    "idl": ("a.idl", IDL.replace("(45, 145", "(45 145"), "line 1: .*expected .x1, y1, x2, y2.:score"),
    "image": (
        "a.json",
        json.dumps(COCO).replace('"image_id": 31', '"image_id": 99'),
        "annotation 2 is of the image 99",
    ),
    "results alone": ("a.json", '[{"image_id": 1, "track_id": 1, "bbox": [1, 2, 3, 4]}]', "together with a truth"),
    "csv column": ("a.csv", "frame,id,x1,y1,x2\n1,1,1,1,1\n", "no column y2 or height"),
    "csv row": ("a.csv", CSV + "3,1,dog,10\n", "line 4: it has too few columns"),
    "csv number": ("a.csv", CSV.replace("11,20", "11,up"), "line 3: 'up' is not a number"),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_bad_files_are_refused_with_their_line(name: str, tmp_path: Path) -> None:
    file, content, said = WRONG[name]
    (tmp_path / file).write_text(content)
    with pytest.raises(InputError, match=said):
        read_sequences(tmp_path / file)


@pytest.mark.parametrize("end", ["1,0,0,0", "1,-1,-1,-1", "1,-3.5,4.25,0", "1,7", "1,1,0.5", "1,1,1"])
def test_what_only_resembles_visdrone_is_read(end: str, tmp_path: Path) -> None:
    assert len(read_one(tmp_path / "a.txt", f"1,1,10,20,30,40,{end}\n")) == 1


def test_frames_beyond_the_sequence_are_refused(tmp_path: Path) -> None:
    (tmp_path / "seqinfo.ini").write_text(SEQINFO.replace("299", "1"))
    with pytest.raises(InputError, match="line 3: frame 2, and the sequence has 1 frames"):
        read_one(tmp_path / "gt" / "gt.txt", MOT17)


def test_flat_boxes_and_empty_files_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read_one(tmp_path / "a.txt", "1,1,10,20,0,40,1,-1,-1,-1\n" + LINE(2, 1))
    assert "1 box has no area, the first in line 1" in capsys.readouterr().err
    assert len(read_one(tmp_path / "b.txt", "")) == 0
    assert "b.txt is empty" in capsys.readouterr().err


def test_rows_in_any_order_are_one_track(tmp_path: Path) -> None:
    lines: Callable[..., str] = LINE
    tracks = read_one(tmp_path / "a.txt", lines(3, 1) + lines(1, 1) + lines(2, 1))
    assert tracks.frames.tolist() == [0, 1, 2]
