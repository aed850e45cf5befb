"""Small sets in the layouts of public data: each is read rightly, or refused with what it looks like."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from opsin import data
from opsin.data.formats.layouts import recognize
from opsin.data.formats.tree import Tree
from opsin.errors import InputError
from opsin.image_files import IMAGE_SUFFIXES

BOX = "10 20 30 40\n"
BOX_XML = (
    "<annotation><filename>a</filename><size><width>48</width><height>40</height></size><object><name>cat</name>"
    "<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>20</xmax><ymax>20</ymax></bndbox></object></annotation>"
)
POLYGONS = json.dumps({"imgHeight": 40, "imgWidth": 48, "objects": [{"label": "road", "polygon": [[0, 0], [9, 9]]}]})
COCO = json.dumps(
    {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 48, "height": 40}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 9, 9]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
)
LABELME = json.dumps(
    {
        "version": "5.0",
        "flags": {},
        "shapes": [{"label": "cat", "points": [[2, 2], [20, 20]], "shape_type": "rectangle"}],
        "imagePath": "a.jpg",
        "imageData": None,
        "imageHeight": 40,
        "imageWidth": 48,
    }
)
CREATEML = json.dumps(
    [{"image": "a.jpg", "annotations": [{"label": "c", "coordinates": {"x": 9, "y": 9, "width": 4, "height": 4}}]}]
)
KITTI = "Car 0 0 0 2 2 20 20 1 1 1 1 1 1 0\n"
DOTA = "imagesource:x\ngsd:1\n2 2 20 2 20 20 2 20 plane 0\n"
CVAT = '<annotations><version>1.1</version><image id="0" name="a.jpg" width="48" height="40"></image></annotations>'
OPEN_IMAGES = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
    "a,x,/m/01,1,0.1,0.5,0.1,0.5,0,0,0,0,0\n"
)
VOTT = json.dumps({"asset": {"name": "a.jpg"}, "regions": [{"tags": ["x"], "boundingBox": {"left": 1}}]})
YOLO = "0 0.5 0.5 0.2 0.2\n"
MOT = "1,1,10,10,20,20,1,-1,-1,-1\n"

# layout -> its files: images by their endings (map: what a class map has), the rest with their texts
READ: dict[str, tuple[str, dict[str, str]]] = {
    "VOC": ("Pascal VOC", {"JPEGImages/a.jpg": "", "Annotations/a.xml": BOX_XML}),
    "VOC, annots": ("Pascal VOC", {"images/a.jpg": "", "annots/a.xml": BOX_XML}),
    "VOC, xmls": ("Pascal VOC", {"images/a.jpg": "", "xmls/a.xml": BOX_XML}),
    "VOC, labels": ("Pascal VOC", {"images/a.jpg": "", "labels/a.xml": BOX_XML}),
    "VOC, beside": ("Pascal VOC", {"images/a.jpg": "", "images/a.xml": BOX_XML}),
    "VOC, split folders": (
        "Pascal VOC",
        {"train/a.jpg": "", "train/a.xml": BOX_XML, "test/a.jpg": "", "test/a.xml": BOX_XML},
    ),
    "ImageNet VID": (
        "Pascal VOC",
        {"Data/VID/train/v0/000000.jpg": "", "Annotations/VID/train/v0/000000.xml": BOX_XML},
    ),
    "Oxford pets": (
        "Pascal VOC",
        {
            "images/a.jpg": "",
            "annotations/xmls/a.xml": BOX_XML,
            "annotations/trimaps/a.png": "map",
            "annotations/list.txt": "a 1 1 1\n",
        },
    ),
    "COCO": ("COCO json", {"train2017/a.jpg": "", "annotations/instances_train2017.json": COCO}),
    "COCO, Roboflow": ("COCO json", {"train/a.jpg": "", "train/_annotations.coco.json": COCO}),
    "COCO, one json beside": ("COCO json", {"images/a.jpg": "", "boxes.json": COCO}),
    "YOLO": ("YOLO txt", {"images/a.jpg": "", "labels/a.txt": YOLO, "data.yaml": "train: images\nnames: [x]\n"}),
    "YOLO, no yaml": ("YOLO txt", {"images/a.jpg": "", "labels/a.txt": YOLO}),
    "YOLO, split folders": ("YOLO txt", {"train/images/a.jpg": "", "train/labels/a.txt": YOLO}),
    "YOLO, beside": ("YOLO txt", {"a.jpg": "", "a.txt": YOLO, "classes.txt": "cat\n"}),
    "YOLO, darknet": ("YOLO txt", {"train/a.jpg": "", "train/a.txt": YOLO, "train/_darknet.labels": "cat\n"}),
    "CVAT": ("CVAT", {"images/a.jpg": "", "annotations.xml": CVAT}),
    "labelme": ("labelme", {"a.jpg": "", "a.json": LABELME}),
    "labelme, folders": ("labelme", {"images/a.jpg": "", "annotations/a.json": LABELME}),
    "KITTI": (
        "KITTI",
        {"training/image_2/0.png": "", "training/label_2/0.txt": KITTI, "training/calib/0.txt": "P0: 1 2\n"},
    ),
    "Open Images": ("Open Images", {"train/a.jpg": "", "train-annotations-bbox.csv": OPEN_IMAGES}),
    "WIDER FACE": (
        "WIDER FACE",
        {
            "WIDER_train/images/0--P/a.jpg": "",
            "wider_face_split/wider_face_train_bbx_gt.txt": "0--P/a.jpg\n1\n1 1 9 9 0 0 0 0 0 0\n",
        },
    ),
    "CreateML": ("CreateML", {"train/a.jpg": "", "train/_annotations.createml.json": CREATEML}),
    "DOTA": ("DOTA", {"images/a.png": "", "labelTxt/a.txt": DOTA}),
    "CSV of boxes": (
        "CSV of boxes",
        {
            "train/a.jpg": "",
            "train/_annotations.csv": "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,48,40,c,1,1,9,9\n",
        },
    ),
}

REFUSED: dict[str, tuple[str, dict[str, str]]] = {
    "Cityscapes": (
        "Cityscapes",
        {
            "leftImg8bit/train/x/a_leftImg8bit.png": "",
            "gtFine/train/x/a_gtFine_labelIds.png": "map",
            "gtFine/train/x/a_gtFine_polygons.json": POLYGONS,
        },
    ),
    "Cityscapes, maps alone": (
        "Cityscapes",
        {"leftImg8bit/train/x/a_leftImg8bit.png": "", "gtFine/train/x/a_gtFine_labelIds.png": "map"},
    ),
    "Mapillary": (
        "Mapillary",
        {
            "training/images/a.jpg": "",
            "training/v1.2/labels/a.png": "map",
            "training/v1.2/instances/a.png": "map",
            "config_v1.2.json": "{}",
        },
    ),
    "CamVid, SegNet's": (
        "CamVid",
        {"train/a.png": "", "trainannot/a.png": "map", "val/b.png": "", "valannot/b.png": "map"},
    ),
    "CamVid": (
        "CamVid",
        {
            "701_StillsRaw_full/a.png": "",
            "LabeledApproved_full/a_L.png": "map",
            "label_colors.txt": "0 0 0 x\n1 1 1 y\n2 2 2 z\n3 3 3 w\n",
        },
    ),
    "MOT17": (
        "MOTChallenge",
        {
            "train/MOT17-02/img1/1.jpg": "",
            "train/MOT17-02/gt/gt.txt": MOT,
            "train/MOT17-02/seqinfo.ini": "[Sequence]\n",
        },
    ),
    "MOT15, one sequence": ("MOTChallenge", {"img1/1.jpg": "", "gt/gt.txt": MOT, "det/det.txt": MOT}),
    "CelebA": ("CelebA", {"img_align_celeba/a.jpg": "", "list_attr_celeba.txt": "1\nBald Young\na.jpg -1 1\n"}),
    "CelebA, csv": (
        "CelebA",
        {
            "img_align_celeba/img_align_celeba/a.jpg": "",
            "list_attr_celeba.csv": "image_id,Bald\na.jpg,1\n",
            "list_bbox_celeba.csv": "image_id,x_1,y_1\na.jpg,1,2\n",
            "list_landmarks_align_celeba.csv": "image_id,lefteye_x\na.jpg,1\n",
            "list_eval_partition.csv": "image_id,partition\na.jpg,0\n",
        },
    ),
    "VoTT": ("VoTT", {"a.jpg": "", "0f3e-asset.json": VOTT, "x.vott": "{}"}),
    "VoTT, in a folder": ("VoTT", {"images/a.jpg": "", "vott-json-export/a-asset.json": VOTT}),
    "VIA": ("VGG Image Annotator", {"train/a.jpg": "", "train/via_region_data.json": '{"a.jpg1": {"regions": []}}'}),
    "Labelbox": ("Labelbox", {"images/a.jpg": "", "export.ndjson": '{"data_row": {}, "projects": {}}\n'}),
    "Supervisely": (
        "Supervisely",
        {"ds1/img/a.jpg": "", "ds1/ann/a.jpg.json": '{"objects": [{"points": {}}]}', "meta.json": '{"classes": []}'},
    ),
    "COCO panoptic": (
        "COCO panoptic",
        {
            "val2017/a.jpg": "",
            "panoptic_val2017/a.png": "map",
            "panoptic_val2017.json": '{"annotations": [{"segments_info": []}]}',
        },
    ),
    "COCO captions": (
        "COCO captions",
        {"val2017/a.jpg": "", "captions_val2017.json": '{"annotations": [{"caption": "a cat"}]}'},
    ),
    "ADE20K": (
        "ADE20K",
        {"images/training/a.jpg": "", "annotations/training/a.png": "map", "objectInfo150.txt": "1 0.1 wall\n"},
    ),
    "VisDrone": (
        "VisDrone",
        {"VisDrone2019-DET-train/images/a.jpg": "", "VisDrone2019-DET-train/annotations/a.txt": "1,2,3,4,1,1,0,0\n"},
    ),
    "VisDrone MOT": ("VisDrone", {"sequences/uav0/1.jpg": "", "annotations/uav0.txt": "1,0,2,3,4,4,1,1,0,0\n"}),
    "BDD100K": (
        "BDD100K",
        {
            "bdd100k/images/100k/train/a.jpg": "",
            "bdd100k/labels/bdd100k_labels_images_train.json": '[{"name": "a.jpg", "labels": [{"box2d": {}}]}]',
        },
    ),
    "UA-DETRAC": (
        "UA-DETRAC",
        {
            "Insight-MVT_Annotation_Train/MVI_1/img1.jpg": "",
            "DETRAC-Train-Annotations-XML/MVI_1.xml": "<sequence><frame num='1'/></sequence>",
        },
    ),
    "VOC segmentation": ("VOC segmentation", {"JPEGImages/a.jpg": "", "SegmentationClass/a.png": "map"}),
    "Pascal Context": ("Pascal Context", {"JPEGImages/a.jpg": "", "SegmentationClassContext/a.png": "map"}),
    "DAVIS": (
        "DAVIS",
        {"JPEGImages/480p/bear/0.jpg": "", "Annotations/480p/bear/0.png": "map", "ImageSets/2017/train.txt": "bear\n"},
    ),
    "SVHN": (
        "SVHN",
        {"train/1.png": "", "train/digitStruct.mat": "MATLAB 7.3", "test/1.png": "", "test/digitStruct.mat": "MATLAB"},
    ),
    "CUB-200": (
        "CUB-200",
        {
            "images/001.A/a.jpg": "",
            "images/002.B/b.jpg": "",
            "image_class_labels.txt": "1 1\n",
            "bounding_boxes.txt": "1 2 3 4 5\n",
            "parts/parts.txt": "1 x\n",
        },
    ),
    "FGVC-Aircraft": ("FGVC-Aircraft", {"data/images/a.jpg": "", "data/images_box.txt": "a 1 2 3 4\n"}),
    "Stanford Cars": (
        "Stanford Cars",
        {"cars_train/a.jpg": "", "cars_test/b.jpg": "", "devkit/cars_train_annos.mat": "MATLAB"},
    ),
    "Flowers 102": ("MATLAB", {"jpg/image_1.jpg": "", "imagelabels.mat": "MATLAB", "setid.mat": "MATLAB"}),
    "Market-1501": (
        "Market-1501",
        {"bounding_box_train/0002_c1s1_1.jpg": "", "query/0003_c1s1_1.jpg": "", "gt_query/0003_good.mat": "M"},
    ),
    "nuScenes": (
        "nuScenes",
        {"samples/CAM_FRONT/a.jpg": "", "sweeps/CAM_FRONT/b.jpg": "", "v1.0-mini/sample.json": '[{"token": "x"}]'},
    ),
    "KITTI tracking": (
        "KITTI tracking",
        {"training/image_02/0000/0.png": "", "training/label_02/0000.txt": "0 0 Car 0 0 0 1 2 3 4\n"},
    ),
    "MVTec": (
        "MVTec",
        {
            "train/good/0.png": "",
            "test/good/1.png": "",
            "test/hole/0.png": "",
            "ground_truth/hole/0_mask.png": "map",
            "license.txt": "",
            "x.json": "{}",
        },
    ),
    "CULane": (
        "CULane",
        {
            "driver_1/v1/0.jpg": "",
            "driver_1/v1/0.lines.txt": "1.5 2.5 3.5 4.5\n",
            "driver_2/v1/0.jpg": "",
            "driver_2/v1/0.lines.txt": "1 2 3 4\n",
        },
    ),
    "CycleGAN": ("CycleGAN", {"trainA/a.jpg": "", "trainB/b.jpg": "", "testA/a.jpg": "", "testB/b.jpg": ""}),
    "DeepFashion": (
        "DeepFashion",
        {"img/a/1.jpg": "", "img/b/1.jpg": "", "list_bbox_inshop.txt": "2\nimage_name x_1\nimg/a/1.jpg 1 2\n"},
    ),
    "Kvasir": ("images with annotations", {"images/a.jpg": "", "masks/a.jpg": "map"}),
    "Carvana": ("images with annotations", {"train/a.jpg": "", "train_masks/a_mask.png": "map"}),
    "ISIC": (
        "images with masks",
        {"ISIC_Training_Input/a.jpg": "", "ISIC_Training_GroundTruth/a_segmentation.png": "map"},
    ),
    "DUTS": ("images with (annotations|masks)", {"DUTS-TR-Image/a.jpg": "", "DUTS-TR-Mask/a.png": "map"}),
    "DeepGlobe": (
        "images with masks",
        {"area/1_sat.jpg": "", "area/1_mask.png": "map", "city/2_sat.jpg": "", "city/2_mask.png": "map"},
    ),
    "Data Science Bowl": (
        "images with annotations",
        {"x1/images/x1.png": "", "x1/masks/m1.png": "map", "x2/images/x2.png": "", "x2/masks/m2.png": "map"},
    ),
    "COVID radiography": (
        "images with annotations",
        {"COVID/images/1.png": "", "COVID/masks/1.png": "map", "Normal/images/1.png": "", "Normal/masks/1.png": "map"},
    ),
    "maps by other names": (
        "images with masks",
        {"aerial/1.png": "", "aerial/2.png": "", "roads/1.png": "map", "roads/2.png": "map"},
    ),
    "ISBI": ("images with annotations", {"train/image/0.png": "", "train/label/0.png": "map"}),
    "a json of boxes above": (
        "images with annotations",
        {"cam1/a.jpg": "", "cam2/b.jpg": "", "labels.json": '{"a.jpg": {"bbox": [1, 2, 3, 4]}}'},
    ),
    "json beside": (
        "images with annotations",
        {"s1/a.jpg": "", "s1/a.json": '{"landmarks": []}', "s2/b.jpg": "", "s2/b.json": '{"landmarks": []}'},
    ),
    "labels without images": ("images with annotations", {"pages/1.jpg": "", "texts_of/1.txt": "hello\n"}),
    "Tiny ImageNet": (
        "Tiny ImageNet",
        {"train/n01/images/a.jpg": "", "val/images/b.jpg": "", "val/val_annotations.txt": "b.jpg n01 0 0 9 9\n"},
    ),
}

# What is read as maps of classes, moved here from what was refused before there was a reader.
MAPS = {
    "Cityscapes": "Cityscapes",
    "Cityscapes, maps alone": "Cityscapes",
    "Mapillary": "mask folders",
    "CamVid, SegNet's": "mask folders",
    "CamVid": "mask folders",
    "ADE20K": "mask folders",
    "VOC segmentation": "Pascal VOC masks",
    "Pascal Context": "Pascal VOC masks",
    "DAVIS": "mask folders",
    "Kvasir": "mask folders",
    "Carvana": "mask folders",
    "ISIC": "mask folders",
    "DUTS": "mask folders",
    "DeepGlobe": "mask folders",
    "COVID radiography": "mask folders",
    "ISBI": "mask folders",
}

# What is read as named points, moved here likewise.
POINTS = {
    "a csv of points": (
        "CSV of points",
        {"faces1/a.jpg": "", "faces2/b.jpg": "", "points.csv": "image,left_eye_x,left_eye_y\na.jpg,1,2\n"},
    ),
    "300-W": ("300-W .pts", {"01_Indoor/a.png": "", "01_Indoor/a.pts": "version: 1\nn_points: 1\n{\n2 3\n}\n"}),
    "a json of points": ("json of points", {"a.jpg": "", "points.json": '{"a.jpg": {"nose": [1, 2], "chin": [3, 4]}}'}),
    "a list of points": ("list of points", {"a.jpg": "", "points.txt": "a.jpg 1 2 3 4 5 6\n"}),
}

# What is read as tracks, moved here likewise.
TRACKS = {
    "MOT17": "MOTChallenge",
    "MOT15, one sequence": "MOTChallenge",
    "UA-DETRAC": "UA-DETRAC",
    "KITTI tracking": "KITTI tracking",
}

# What is read as posed views, moved here likewise.
_POSE = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 4], [0, 0, 0, 1]]
_FRAMES = json.dumps({"camera_angle_x": 0.7, "frames": [{"file_path": "./train/r_0", "transform_matrix": _POSE}]})
VIEWS = {
    "NeRF": ("transforms.json", {"train/r_0.png": "", "transforms_train.json": _FRAMES}),
    "COLMAP": (
        "COLMAP",
        {
            "images/a.jpg": "",
            "sparse/0/cameras.txt": "1 PINHOLE 48 40 50 50 24 20\n",
            "sparse/0/images.txt": "1 1 0 0 0 0 0 4 1 a.jpg\n\n",
        },
    ),
}

CLASSES: dict[str, tuple[list[str], dict[str, str]]] = {
    "images beside cats": (["cats", "images"], {"images/1.png": "", "cats/1.png": ""}),
    "labels beside cats": (["cats", "labels"], {"labels/1.png": "", "cats/1.png": ""}),
    "test and val alone": (["test", "val"], {"test/1.png": "", "val/1.png": ""}),
    "mask or not": (["with_mask", "without_mask"], {"with_mask/1.png": "", "without_mask/1.png": ""}),
    "sand and sandbox": (["sand", "sandbox"], {"sand/1.png": "", "sandbox/1.png": ""}),
    "left and right": (["left", "right"], {"left/1.png": "", "right/1.png": ""}),
    "boxes and points": (["boxes", "points"], {"boxes/1.png": "", "points/1.png": ""}),
    "the same names": (["a", "b"], {f"{c}/{n}.png": "" for c in "ab" for n in range(5)}),
    "captions beside": (["a", "b"], {"a/1.png": "", "a/1.txt": "a black cat", "b/1.png": "", "b/1.txt": "dogs"}),
    "sidecars beside": (["a", "b"], {"a/1.png": "", "a/1.png.json": '{"title": "x"}', "b/1.png": ""}),
    "GTSRB": (
        ["00000", "00001"],
        {"00000/0.ppm": "", "00000/GT-00000.csv": "Filename;Width;Roi.X1\n0.ppm;9;1\n", "00001/0.ppm": ""},
    ),
    "lists beside": (
        ["a", "b"],
        {"a/1.png": "", "b/1.png": "", "list.txt": "a/1.png 0\nb/1.png 1\n", "readme.txt": "1 2"},
    ),
    "split folders": (
        ["image", "text"],
        {"train/image/1.png": "", "train/text/1.png": "", "test/image/2.png": "", "test/text/1.png": ""},
    ),
    "a table of facts": (["a", "b"], {"a/1.png": "", "b/2.png": "", "facts.csv": "file,camera\n1.png,x\n2.png,y\n"}),
}


def make(folder: Path, files: Mapping[str, str]) -> Path:
    for place, (name, text) in enumerate(files.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in IMAGE_SUFFIXES:
            path.write_bytes(encoded(path.suffix, place, text == "map"))
        else:
            path.write_text(text)
    return folder


def encoded(suffix: str, seed: int, is_map: bool) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 48, 3), np.uint8)
    image = Image.fromarray(
        np.kron(np.arange(4).reshape(2, 2), np.ones((20, 24))).astype(np.uint8) if is_map else pixels
    )
    buffer = io.BytesIO()
    image.save(buffer, {".png": "PNG", ".ppm": "PPM"}.get(suffix, "JPEG"))
    return buffer.getvalue()


def test_there_are_many() -> None:
    assert len(READ) + len(REFUSED) >= 70


@pytest.mark.parametrize("layout", READ)
def test_what_a_reader_knows_is_read(tmp_path: Path, layout: str) -> None:
    format_, files = READ[layout]
    make(tmp_path, files)
    assert data.recognize_task(tmp_path) == "detect"
    source = data.open(tmp_path, "detect")
    assert source.format == format_ and sum(len(split) for split in source.splits.values()) >= 1
    for split in source.splits.values():
        split.read(0)
    with pytest.raises(InputError, match=r"for the task detect; to classify by its folders all the same"):
        data.open(tmp_path, "classify")


@pytest.mark.parametrize("layout", POINTS)
def test_points_are_read(tmp_path: Path, layout: str) -> None:
    format_, files = POINTS[layout]
    make(tmp_path, files)
    assert data.recognize_task(tmp_path) == "landmark"
    source = data.open(tmp_path, "landmark")
    assert source.format == format_ and source.splits["all"].read(0).shape == (3, 40, 48)
    with pytest.raises(InputError):
        data.open(tmp_path, "classify")


@pytest.mark.parametrize("layout", VIEWS)
def test_posed_views_are_read(tmp_path: Path, layout: str) -> None:
    format_, files = VIEWS[layout]
    make(tmp_path, files)
    assert data.recognize_task(tmp_path) == "render"
    source = data.open(tmp_path, "render")
    (split,) = source.splits.values()
    assert source.format == format_ and split.read(0).shape == (3, 40, 48)
    with pytest.raises(InputError, match="for the task render; to classify by its folders all the same"):
        data.open(tmp_path, "classify")


@pytest.mark.parametrize("layout", MAPS)
def test_maps_are_read(tmp_path: Path, layout: str) -> None:
    make(tmp_path, REFUSED[layout][1])
    assert data.recognize_task(tmp_path) == "segment"
    source = data.open(tmp_path, "segment")
    assert source.format == MAPS[layout]
    for split in source.splits.values():
        assert split.kind.read(0, (40, 48))["class_map"].shape == (40, 48)
        assert split.kind.unreadable(0) is None
        assert split.kind.problems({}, training=True) == [] or "Cityscapes" in layout  # none of its 19 in these maps
    with pytest.raises(InputError, match="for the task segment; to classify by its folders all the same"):
        data.open(tmp_path, "classify")


@pytest.mark.parametrize("layout", TRACKS)
def test_tracks_are_read(tmp_path: Path, layout: str) -> None:
    make(tmp_path, REFUSED[layout][1])
    assert data.recognize_task(tmp_path) == "track"
    source = data.open(tmp_path, "track")
    assert source.format == TRACKS[layout] and len(source.splits["all"]) == 1
    with pytest.raises(InputError, match="for the task track; to classify by its folders all the same"):
        data.open(tmp_path, "classify")


def test_pairs_beside_people_are_read(tmp_path: Path) -> None:
    files = {"Ann_A/Ann_A_0001.jpg": "", "Bob_B/Bob_B_0001.jpg": "", "pairs.txt": "10\t300\nAnn_A\t1\t4\n"}
    make(tmp_path, files)
    assert data.recognize_task(tmp_path) == "embed"
    assert data.open(tmp_path, "classify", class_folders=True).classes == ["Ann_A", "Bob_B"]


@pytest.mark.parametrize("layout", sorted(set(REFUSED) - set(MAPS) - set(TRACKS)))
def test_what_no_reader_knows_is_no_set_of_classes(tmp_path: Path, layout: str) -> None:
    named, files = REFUSED[layout]
    make(tmp_path, files)
    task = data.recognize_task(tmp_path)
    with pytest.raises(InputError, match=named) as caught:
        data.open(tmp_path, task)
    assert "\n" not in str(caught.value) and "convert it to COCO" in str(caught.value)
    with pytest.raises(InputError, match=named):
        data.open(tmp_path, "classify")


@pytest.mark.parametrize("layout", CLASSES)
def test_class_folders_with_odd_names_open(tmp_path: Path, layout: str) -> None:
    classes, files = CLASSES[layout]
    make(tmp_path, files)
    assert data.recognize_task(tmp_path) == "classify"
    source = data.open(tmp_path, "classify")
    assert source.format == "image folders" and source.classes == classes


def test_who_insists_has_class_folders(tmp_path: Path) -> None:
    make(tmp_path / "a", REFUSED["Kvasir"][1])
    make(tmp_path / "b", READ["VOC"][1] | {"Annotations/x.jpg": ""})
    assert data.open(tmp_path / "a", "classify", class_folders=True).classes == ["images", "masks"]
    assert data.open(tmp_path / "b", "classify", class_folders=True).classes == ["Annotations", "JPEGImages"]


def test_a_zip_is_told_by_its_names(tmp_path: Path) -> None:
    for name, layout in (("a.zip", REFUSED["Kvasir"][1]), ("b.zip", CLASSES["images beside cats"][1])):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for place, (file, text) in enumerate(layout.items()):
                archive.writestr(file, encoded(Path(file).suffix, place, text == "map"))
    with pytest.raises(InputError, match="its folders are images, masks"):
        data.open(tmp_path / "a.zip", "classify")
    assert data.open(tmp_path / "b.zip", "classify").classes == ["cats", "images"]


@pytest.mark.parametrize(
    ("name", "halves"),
    [
        ("Cityscapes", ("leftImg8bit/b.txt", "gtFine/b.txt")),
        ("Supervisely", ("meta.json", "ds/ann/b.txt")),
        ("nuScenes", ("v1.0-mini/b.txt", "sweeps/b.txt")),
        ("MVTec AD", ("ground_truth/b.txt", "good/b.txt")),
        ("CycleGAN's pairs of domains", ("trainA/b.txt", "trainB/b.txt")),
    ],
)
def test_a_layout_of_two_parts_is_named_where_both_are(name: str, halves: tuple[str, str]) -> None:
    for files in (halves, halves[:1], halves[1:]):
        folders = sorted({"/".join(file.split("/")[:n]) for file in files for n in range(1, file.count("/") + 1)})
        tree = Tree([*files, "images/a.jpg", "masks/a.png"], [*folders, "images", "masks"])
        looks = recognize(tree, tree, None)
        assert looks is not None and (looks.name == name) == (files == halves)


@pytest.mark.parametrize("file", ["paper.pdf", "LICENSE", "show.ipynb", "boxes.json"])
def test_a_file_of_another_ending_is_no_annotation(file: str) -> None:
    tree = Tree(["images/a.jpg", file], ["images"])
    assert (recognize(tree, tree, None) is not None) == file.endswith(".json")


def test_names_alone_say_nothing_of_many_classes() -> None:
    folders = [f"class{n}" for n in range(50)]
    tree = Tree([f"{folder}/{n}.jpg" for folder in folders for n in range(20)], folders)
    assert recognize(tree, tree, None) is None
