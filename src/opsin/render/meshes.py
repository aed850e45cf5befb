"""Triangle meshes and points: read from and written to OBJ, PLY, STL and XYZ, and what is asked of them.

Faces of more than three corners are cut into fans. Textures and materials are not read; colours of vertices are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from opsin.errors import InputError
from opsin.files import atomic, read_regular

_PLY_TYPES: Mapping[str, str] = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_MOST = 50_000_000  # vertices or faces


@dataclass(frozen=True, eq=False)
class Mesh:
    """vertices: (V, 3) float64. faces: (F, 3) int64, (0, 3) of points. colours: (V, 3) float64 in [0, 1], if known."""

    vertices: np.ndarray
    faces: np.ndarray
    colours: np.ndarray | None = None

    @property
    def corners(self) -> np.ndarray:
        """(F, 3, 3): the three corners of each face."""
        return self.vertices[self.faces]

    @property
    def diagonal(self) -> float:
        """Of the box around all vertices."""
        return float(np.linalg.norm(self.vertices.max(0) - self.vertices.min(0)))

    def edges(self) -> tuple[np.ndarray, np.ndarray]:
        """The edges (E, 2), each once, and how many faces have each (E,)."""
        pairs = np.sort(self.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
        return np.unique(pairs, axis=0, return_counts=True)

    def euler_number(self) -> int:
        """Vertices that faces use, less edges, plus faces: 2 for what is closed and has no handle."""
        return len(np.unique(self.faces)) - len(self.edges()[0]) + len(self.faces)

    def open_edges(self) -> int:
        """Edges that do not have two faces: 0 of a closed mesh."""
        return int((self.edges()[1] != 2).sum())


def check_closed(mesh: Mesh, name: str) -> Mesh:
    """The mesh. Raises InputError for one with holes, of which inside and outside are not defined."""
    if count := mesh.open_edges():
        raise InputError(
            f"{name} has holes: {count:,} of its edges do not have two faces, so that inside is not defined; close it, "
            "or take what needs no inside"
        )
    return mesh


def read_mesh(path: str | Path, *, faces: bool = False) -> Mesh:
    """The mesh or points in a file, .obj, .ply, .stl, .xyz. faces: whether points alone will not do.

    Raises InputError that names the line or what is lacking.
    """
    place = Path(path)
    readers = {".obj": _read_obj, ".ply": _read_ply, ".stl": _read_stl, ".xyz": _read_xyz}
    reader = readers.get(place.suffix.lower())
    if reader is None:
        raise InputError(f"{path} is no mesh; expected {', '.join(readers)}")
    try:
        data = read_regular(place)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    mesh = reader(data, str(path))
    if not len(mesh.vertices) or (faces and not len(mesh.faces)):
        raise InputError(
            f"{path} holds {len(mesh.vertices)} vertices and {len(mesh.faces)} faces; there is nothing in it"
        )
    if not np.isfinite(mesh.vertices).all():
        raise InputError(f"{path} has vertices that are not finite numbers")
    if len(mesh.faces) and not 0 <= mesh.faces.min() <= mesh.faces.max() < len(mesh.vertices):
        raise InputError(
            f"{path} has a face of vertex {int(mesh.faces.max())} or {int(mesh.faces.min())}, counted from 0, and "
            f"{len(mesh.vertices)} vertices"
        )
    return mesh


def _fans(polygons: Sequence[Sequence[int]]) -> np.ndarray:
    rows = [(p[0], p[k], p[k + 1]) for p in polygons for k in range(1, len(p) - 1)]
    return np.array(rows, np.int64).reshape(-1, 3)


def _read_obj(data: bytes, name: str) -> Mesh:
    vertices: list[list[float]] = []
    polygons: list[list[int]] = []
    for number, line in enumerate(data.decode("utf-8", "replace").split("\n"), 1):
        cells = line.split()
        try:
            if cells[:1] == ["v"]:
                vertices.append([float(cell) for cell in cells[1:7]])
                if len(vertices[-1]) < 3:
                    raise ValueError
            elif cells[:1] == ["f"]:
                found = [int(cell.partition("/")[0]) for cell in cells[1:]]
                polygons.append([one - 1 if one > 0 else len(vertices) + one for one in found])
                if len(found) < 3 or 0 in found:
                    raise ValueError
        except ValueError:
            raise InputError(
                f"{name} line {number}: expected v x y z, or f with three or more vertices from 1"
            ) from None
    coloured = bool(vertices) and all(len(one) == 6 for one in vertices)
    table = np.array([one[:3] for one in vertices], np.float64).reshape(-1, 3)
    colours = np.array([one[3:] for one in vertices], np.float64).clip(0, 1) if coloured else None
    return Mesh(table, _fans(polygons), colours)


@dataclass
class _Element:
    name: str
    count: int
    fields: list[tuple[str, str, str]]  # name, type, type of the count of a list or ""


def _ply_header(data: bytes, name: str) -> tuple[str, list[_Element], int]:
    end = data.find(b"end_header")
    if not data.startswith(b"ply") or end < 0:
        raise InputError(f"{name} is no PLY file; expected ply first and end_header")
    elements, kind = list[_Element](), ""
    for line in data[:end].decode("ascii", "replace").splitlines():
        cells = line.split()
        try:
            if cells[:1] == ["format"]:
                kind = cells[1]
            elif cells[:1] == ["element"]:
                elements.append(_Element(cells[1], int(cells[2]), []))
                if not 0 <= elements[-1].count <= _MOST:
                    raise ValueError
            elif cells[:2] == ["property", "list"]:
                elements[-1].fields.append((cells[4], _PLY_TYPES[cells[3]], _PLY_TYPES[cells[2]]))
            elif cells[:1] == ["property"]:
                elements[-1].fields.append((cells[2], _PLY_TYPES[cells[1]], ""))
        except (IndexError, KeyError, ValueError):
            raise InputError(f"{name}: {' '.join(cells)[:60]!r} in its header is not understood") from None
    if kind not in ("ascii", "binary_little_endian", "binary_big_endian"):
        raise InputError(f"{name}: its format {kind[:30]!r} is not one of PLY's")
    return kind, elements, data.find(b"\n", end) + 1


def _read_ply(data: bytes, name: str) -> Mesh:
    kind, elements, start = _ply_header(data, name)
    columns: dict[str, np.ndarray] = {}
    polygons: list[Sequence[int]] = []
    try:
        if kind == "ascii":
            _ascii_elements(data[start:].decode("ascii", "replace").split(), elements, columns, polygons)
        else:
            order = "<" if kind == "binary_little_endian" else ">"
            _binary_elements(data, start, order, elements, columns, polygons)
    except (ValueError, IndexError):
        raise InputError(f"{name} ends too early, or holds what its header does not say; write it anew") from None
    if not {"x", "y", "z"} <= columns.keys():
        raise InputError(f"{name} has no vertices with x, y and z")
    vertices = np.stack([columns[axis].astype(np.float64) for axis in "xyz"], axis=-1)
    colours = None
    if {"red", "green", "blue"} <= columns.keys():
        parts = [columns[channel] for channel in ("red", "green", "blue")]
        scale = 255.0 if parts[0].dtype.kind in "iu" else 1.0
        colours = np.stack([part.astype(np.float64) / scale for part in parts], axis=-1).clip(0, 1)
    return Mesh(vertices, _fans(polygons), colours)


def _ascii_elements(
    words: list[str], elements: Sequence[_Element], columns: dict[str, np.ndarray], polygons: list[Sequence[int]]
) -> None:
    place = 0
    for element in elements:
        if not any(of for _, _, of in element.fields):
            width = len(element.fields)
            table = np.array(words[place : place + width * element.count], np.float64).reshape(element.count, width)
            place += width * element.count
            if element.name == "vertex":
                columns |= {n: table[:, k].astype(kind) for k, (n, kind, _) in enumerate(element.fields)}
            continue
        for _ in range(element.count):
            for field_name, _, of in element.fields:
                count = int(words[place]) if of else 1
                place += 1 if of else 0
                if of and field_name in ("vertex_indices", "vertex_index"):
                    polygons.append([int(word) for word in words[place : place + count]])
                    if len(polygons[-1]) != count:
                        raise ValueError
                place += count


def _binary_elements(
    data: bytes, place: int, order: str, elements: Sequence[_Element], columns: dict[str, np.ndarray],
    polygons: list[Sequence[int]],
) -> None:  # fmt: skip
    for element in elements:
        if not any(of for _, _, of in element.fields):
            kind = np.dtype([(n, f"{order}{one}") for n, one, _ in element.fields])
            table = np.frombuffer(data, kind, element.count, place)
            place += kind.itemsize * element.count
            if element.name == "vertex":
                columns |= {n: table[n].astype(one) for n, one, _ in element.fields}
            continue
        for _ in range(element.count):
            for field_name, one, of in element.fields:
                count = int(np.frombuffer(data, f"{order}{of}", 1, place)[0]) if of else 1
                place += np.dtype(of).itemsize if of else 0
                if of and field_name in ("vertex_indices", "vertex_index"):
                    polygons.append(np.frombuffer(data, f"{order}{one}", count, place).tolist())
                place += count * np.dtype(one).itemsize


def _read_stl(data: bytes, name: str) -> Mesh:
    count = int.from_bytes(data[80:84], "little")
    if len(data) == 84 + 50 * count and len(data) >= 84:
        kind = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("rest", "<u2")])
        corners = np.frombuffer(data, kind, count, 84)["corners"].reshape(-1, 3).astype(np.float64)
    else:
        words = data.decode("ascii", "replace").split()
        if words[:1] != ["solid"]:
            raise InputError(f"{name} is no STL file: its length does not fit, and it does not begin with solid")
        places = [k for k, word in enumerate(words) if word == "vertex"]
        try:
            corners = np.array([words[k + 1 : k + 4] for k in places], np.float64).reshape(-1, 3)
        except ValueError:
            raise InputError(f"{name}: expected three numbers after each vertex") from None
        if len(corners) % 3:
            raise InputError(f"{name} ends in the middle of a face")
    vertices, place = np.unique(corners, axis=0, return_inverse=True)
    return Mesh(vertices.reshape(-1, 3), place.reshape(-1, 3).astype(np.int64))


def _read_xyz(data: bytes, name: str) -> Mesh:
    rows = []
    for number, line in enumerate(data.decode("utf-8", "replace").split("\n"), 1):
        if line.strip() and not line.startswith("#"):
            try:
                rows.append([float(cell) for cell in line.replace(",", " ").split()[:6]])
            except ValueError:
                raise InputError(f"{name} line {number}: expected x y z, and red green blue from 0 to 255") from None
            if len(rows[-1]) not in (3, 6) or len(rows[-1]) != len(rows[0]):
                raise InputError(f"{name} line {number}: expected 3 or 6 numbers, as in the first line")
    table = np.array(rows, np.float64).reshape(len(rows), -1)
    colours = (table[:, 3:] / 255).clip(0, 1) if table.size and table.shape[1] == 6 else None
    return Mesh(table[:, :3].reshape(-1, 3), np.zeros((0, 3), np.int64), colours)


def write_mesh(path: str | Path, mesh: Mesh) -> Path:
    """Write a mesh as .obj, .ply (binary) or .stl (binary, without colours); the file appears whole.

    Raises InputError for other endings, and for a folder that cannot be made; JobError for a disk that is full.
    """
    place = Path(path)
    suffix, vertices, faces = place.suffix.lower(), mesh.vertices, mesh.faces
    if suffix == ".obj":
        colours = np.zeros((len(vertices), 0)) if mesh.colours is None else mesh.colours
        rows = np.concatenate([vertices, colours], axis=1)
        lines = [f"v {' '.join(format(one, '.9g') for one in row)}" for row in rows]
        lines += [f"f {a} {b} {c}" for a, b, c in (faces + 1).tolist()]
        content = ("\n".join(lines) + "\n").encode()
    elif suffix == ".ply":
        content = _ply_bytes(mesh)
    elif suffix == ".stl":
        corners = mesh.corners.astype(np.float32)
        table = np.zeros(len(faces), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("rest", "<u2")])
        table["corners"], table["normal"] = corners, face_normals(mesh)
        content = b"\0" * 80 + len(faces).to_bytes(4, "little") + table.tobytes()
    else:
        raise InputError(f"{path}: a mesh is written as .obj, .ply or .stl")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {place.parent}: {error.strerror}") from None
    with atomic(place) as temporary:
        Path(temporary).write_bytes(content)
    return place


def _ply_bytes(mesh: Mesh) -> bytes:
    fields = [(axis, "<f4") for axis in "xyz"]
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(mesh.vertices)}"]
    lines += [f"property float {axis}" for axis in "xyz"]
    if mesh.colours is not None:
        fields += [(channel, "u1") for channel in ("red", "green", "blue")]
        lines += [f"property uchar {channel}" for channel in ("red", "green", "blue")]
    lines += [f"element face {len(mesh.faces)}", "property list uchar int vertex_indices", "end_header", ""]
    table = np.zeros(len(mesh.vertices), fields)
    for k, axis in enumerate("xyz"):
        table[axis] = mesh.vertices[:, k]
    if mesh.colours is not None:
        for k, channel in enumerate(("red", "green", "blue")):
            table[channel] = np.rint(mesh.colours[:, k] * 255)
    faces = np.zeros(len(mesh.faces), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, mesh.faces
    return "\n".join(lines).encode() + table.tobytes() + faces.tobytes()


def face_normals(mesh: Mesh) -> np.ndarray:
    """(F, 3) of length 1 by the order of the corners; zeros of a face without area."""
    corners = mesh.corners
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-300)


def centred(mesh: Mesh, reach: float = 0.9) -> Mesh:
    """The mesh moved and scaled so that the box around it is centred at 0, its longest side from -reach to reach."""
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    scale = 2 * reach / max(float((high - low).max()), 1e-300)
    return replace(mesh, vertices=(mesh.vertices - (low + high) / 2) * scale)
