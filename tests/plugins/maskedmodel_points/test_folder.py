"""points_folder: every kind of file, what is refused, and what is told."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from maskedmodel_points import meshes
from maskedmodel_points.files import FilesSettings, read_file
from maskedmodel_points.folder import PointsFolder

from maskedmodel.errors import DataError, DependencyError, MaskedModelError

POINTS = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0], [0.5, 0.25, 3]], np.float64)
CUBE_CORNERS = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
CUBE = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]


def read(path: Path, content: bytes | str, **values: Any) -> torch.Tensor:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return sample(path, **values)["signal"]


def sample(path: Path, **values: Any) -> Any:
    return read_file(path, FilesSettings(name="file", **values))


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def ply(order: str, faces: bool = False, more: bool = False) -> bytes:
    """The four points, with a float and a byte beside them where asked for, and one face."""
    kinds = [("float", "x"), ("double", "y"), ("float", "z"), *([("float", "nx"), ("uchar", "red")] if more else [])]
    head = ["ply", f"format {order} 1.0", "comment made by hand", f"element vertex {len(POINTS)}"]
    head += [f"property {kind} {name}" for kind, name in kinds]
    head += ["element face 2", "property list uchar int vertex_indices"] if faces else []
    rows = [[*point, *([number / 2, 200 + number] if more else [])] for number, point in enumerate(POINTS)]
    triangles = [(0, 1, 2), (0, 1, 3)] if faces else []
    if order == "ascii":
        lines = [" ".join(f"{value:g}" for value in row) for row in rows]
        lines += ["3 " + " ".join(map(str, face)) for face in triangles]
        body = ("\n".join(lines) + "\n").encode()
    else:
        sign = "<" if order == "binary_little_endian" else ">"
        form = sign + "fdf" + ("fB" if more else "")
        body = b"".join(struct.pack(form, *row) for row in rows)
        body += b"".join(struct.pack(f"{sign}B3i", 3, *face) for face in triangles)
    return "\n".join([*head, "end_header\n"]).encode() + body


def cube(kind: str) -> bytes:
    if kind == "obj":
        lines = [f"v {x} {y} {z}" for x, y, z in CUBE_CORNERS]
        lines += ["mtllib nowhere.mtl", "usemtl blue"]
        lines += ["f " + " ".join(str(corner + 1) for corner in face) for face in CUBE]
        return ("\n".join(lines) + "\n").encode()
    if kind == "off":
        lines = ["OFF", "8 6 0", *(f"{x} {y} {z}" for x, y, z in CUBE_CORNERS)]
        lines += ["4 " + " ".join(map(str, face)) for face in CUBE]
        return ("\n".join(lines) + "\n").encode()
    triangles = [(f[0], f[i], f[i + 1]) for f in CUBE for i in (1, 2)]
    body = b"".join(
        struct.pack("<12fH", 0, 0, 0, *(float(v) for corner in t for v in CUBE_CORNERS[corner]), 0) for t in triangles
    )
    return b"x" * 80 + struct.pack("<I", len(triangles)) + body


class TestKinds:
    @pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i2", "<u1", "<f2"])
    def test_npy_of_any_numbers(self, tmp_path: Path, dtype: str) -> None:
        given = POINTS.round()
        assert torch.equal(read(tmp_path / "a.npy", npy(given.astype(dtype))), torch.tensor(given, dtype=torch.float32))

    @pytest.mark.parametrize("separator", [" ", "\t", ",", ", ", ";", "   "])
    @pytest.mark.parametrize("head", ["", "4\n", "x y z\n", "# a comment\n\n", "\ufeff"])
    def test_text_with_any_separator_and_head(self, tmp_path: Path, separator: str, head: str) -> None:
        rows = [separator.join(f"{value:g}" for value in row) for row in POINTS]
        got = read(tmp_path / "a.xyz", head + "\n".join(rows) + "\n\n")
        assert torch.equal(got, torch.tensor(POINTS, dtype=torch.float32))

    @pytest.mark.parametrize("order", ["ascii", "binary_little_endian", "binary_big_endian"])
    def test_ply_in_each_encoding(self, tmp_path: Path, order: str) -> None:
        assert torch.equal(read(tmp_path / "a.ply", ply(order)), torch.tensor(POINTS, dtype=torch.float32))
        got = read(tmp_path / "b.ply", ply(order, more=True), features=("red", "nx"))
        assert got[:, 3].tolist() == [200, 201, 202, 203]
        assert got[:, 4].tolist() == [0, 0.5, 1, 1.5]
        with pytest.raises(DataError, match=r"no feature 'nxx'[\s\S]*nx, red"):
            sample(tmp_path / "b.ply", features=("nxx",))

    def test_ply_is_read_as_trimesh_reads_it(self, tmp_path: Path) -> None:
        import trimesh

        points = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
        for encoding in ("ascii", "binary"):
            content = trimesh.PointCloud(points).export(file_type="ply", encoding=encoding)
            close = 1e-7 if encoding == "ascii" else 0  # it writes eight digits
            torch.testing.assert_close(read(tmp_path / "a.ply", content), torch.from_numpy(points), rtol=0, atol=close)

    def test_npz_by_its_usual_names_its_only_table_or_the_setting(self, tmp_path: Path) -> None:
        expected = torch.tensor(POINTS, dtype=torch.float32)
        light = np.arange(4.0)
        assert torch.equal(read(tmp_path / "a.npz", npz(own=POINTS, light=light)), expected)
        two = npz(pos=POINTS, normals=POINTS + 1, light=light)
        assert torch.equal(read(tmp_path / "b.npz", two), expected)
        got = sample(tmp_path / "b.npz", features=("light", "normals.2"))["signal"]
        assert torch.equal(got[:, 3:], torch.tensor(np.stack([light, POINTS[:, 2] + 1], 1), dtype=torch.float32))
        unclear = npz(first=POINTS, second=POINTS + 1)
        with pytest.raises(DataError, match=r"Which array[\s\S]*first \(4, 3\), second[\s\S]*data\.array"):
            read(tmp_path / "c.npz", unclear)
        assert torch.equal(sample(tmp_path / "c.npz", array="second")["signal"], expected + 1)
        with pytest.raises(DataError, match="Which array"):
            sample(tmp_path / "c.npz", array="third")

    def test_columns_are_features_by_their_numbers(self, tmp_path: Path) -> None:
        table = np.concatenate([POINTS, POINTS + 5], 1)
        got = read(tmp_path / "a.npy", npy(table), features=("5", "3"))
        assert torch.equal(got[:, 3:], torch.tensor(table[:, [5, 3]], dtype=torch.float32))


class TestSurfaces:
    @pytest.mark.parametrize("kind", ["obj", "off", "stl"])
    def test_points_are_drawn_over_them_by_area(self, tmp_path: Path, kind: str) -> None:
        points = read(tmp_path / f"a.{kind}", cube(kind), points=6000)
        assert points.shape == (6000, 3)
        on = torch.stack([(points[:, axis] - end).abs() < 1e-6 for axis in range(3) for end in (0, 1)])
        assert on.any(0).all()
        assert (on.float().mean(1) - 1 / 6).abs().max() < 0.03
        assert torch.equal(sample(tmp_path / f"a.{kind}", points=6000)["signal"], points), "the same each time"
        assert not torch.equal(read(tmp_path / f"b.{kind}", cube(kind), points=6000), points), "each by its id"
        corners = sample(tmp_path / f"a.{kind}", surface="vertices")["signal"]
        assert sorted(map(tuple, corners.tolist())) == sorted(CUBE_CORNERS)

    def test_remarks_in_another_encoding_and_materials_that_are_not_there(self, tmp_path: Path) -> None:
        content = "# Würfel\n".encode("latin-1") + cube("obj")
        assert len(read(tmp_path / "a.obj", content, points=9)) == 9

    @pytest.mark.parametrize("order", ["ascii", "binary_little_endian", "binary_big_endian"])
    def test_a_ply_with_faces_is_one(self, tmp_path: Path, order: str) -> None:
        points = read(tmp_path / "a.ply", ply(order, faces=True), points=4000)
        assert len(points) == 4000
        flat = (points[:, 2] == 0).float().mean()  # of areas 1 and sqrt(0.25 ** 2 + 3 ** 2) / 2
        assert flat == pytest.approx(1 / (1 + 0.5 * (0.25**2 + 9) ** 0.5), abs=0.03)

    def test_without_trimesh_it_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import sys

        monkeypatch.setitem(sys.modules, "trimesh", None)
        with pytest.raises(DependencyError, match="need trimesh"):
            read(tmp_path / "a.obj", cube("obj"))
        assert len(read(tmp_path / "a.ply", ply("ascii"))) == 4, "clouds need none"
        assert meshes.load_trimesh is not None

    @pytest.mark.parametrize(
        "content",
        ["", "v 0 0 0\n", "v 0 0 0\nv 1 1 1\nv 2 2 2\nf 1 2 3\n", "v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "\0\1"],
    )
    def test_what_has_no_area_is_refused(self, tmp_path: Path, content: str) -> None:
        with pytest.raises(DataError, match=r"a\.obj"):
            read(tmp_path / "a.obj", content)


class TestRefused:
    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("a.npy", npy(np.zeros((0, 3))), "holds no points"),
            ("a.npy", npy(np.zeros(7)), r"\(7,\) float64"),
            ("a.npy", npy(np.zeros((5, 2))), r"\(5, 2\)"),
            ("a.npy", npy(np.zeros((2, 5, 3))), r"\(2, 5, 3\)"),
            ("a.npy", npy(np.zeros((3, 900))), "Transpose it"),
            ("a.npy", npy(POINTS)[:-9], "can't be read"),
            ("a.npy", npy(np.array([None, 1])), "not of objects"),
            ("a.npy", npy(POINTS.astype("U5")), "no table"),
            ("a.npy", npy(np.ones((9, 3))), "no two points"),
            ("a.npy", npy(np.full((9, 3), np.nan)), "9 points, 0 of them finite"),
            ("a.npy", npy(POINTS * 1e200), "too large"),
            ("a.npy", b"", "can't be read"),
            ("a.npz", b"PK\3\4", "can't be read"),
            ("a.npz", npz(), "Which array"),
            ("a.xyz", "", "no points|no table"),
            ("a.xyz", "1 2 3\n4 5\n", r"line 2[\s\S]*3 numbers[\s\S]*4 5"),
            ("a.xyz", "3\nwater\nO 0 0 0\nH 1 0 0\n", "line 2"),
            ("a.xyz", "1 2 3\n4 five 6\n", "line 2"),
            ("a.xyz", "1 2 x\n4 5 6\n7 8 9\n", "line 1"),
            ("a.ply", "plyx", "no PLY"),
            ("a.ply", ply("ascii")[:-9], "4 vertices"),
            ("a.ply", ply("binary_little_endian")[:-9], "4 vertices"),
            ("a.ply", ply("ascii").replace(b"ascii", b"morse"), "header can't be read"),
            ("a.ply", ply("ascii").replace(b"float x", b"float u"), r"4 vertex of u y z"),
            ("a.ply", ply("ascii").replace(b"vertex 4", b"vertex -4"), "header can't be read"),
            ("a.ply", ply("ascii").replace(b"format", b"comment"), "says no format"),
            (
                "a.ply",
                ply("ascii").replace(b"element vertex", b"element bag 1\nproperty list uchar int s\nelement vertex"),
                "lists before",
            ),
            ("a.txt", "1 2 3", "no file of points"),
        ],
    )
    def test_what_holds_no_cloud(self, tmp_path: Path, name: str, content: Any, said: str) -> None:
        with pytest.raises(DataError, match=said) as caught:
            read(tmp_path / name, content)
        assert name in str(caught.value)

    def test_an_npz_that_unpacks_to_too_much(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from maskedmodel_points import reading

        monkeypatch.setattr(reading, "_MOST_BYTES", 1 << 20)
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("points.npy", b"\0" * (1 << 22))
        with pytest.raises(DataError, match="4 MiB unpacked"):
            read(tmp_path / "a.npz", stream.getvalue())

    @given(cut=st.floats(0, 1), flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), max_size=4))
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("a.npy", npy(POINTS)),
            ("a.npz", npz(points=POINTS)),
            ("a.xyz", b"0 0 0\n1 0 0\n0 2 0\n"),
            ("a.ply", ply("ascii", more=True)),
            ("b.ply", ply("binary_big_endian", more=True)),
            ("c.ply", ply("binary_little_endian", faces=True)),
            ("a.obj", cube("obj")),
            ("a.off", cube("off")),
            ("a.stl", cube("stl")),
        ],
    )
    def test_any_bytes_are_a_cloud_or_an_error_of_ours(
        self, tmp_path: Path, name: str, content: bytes, cut: float, flips: list[tuple[float, int]]
    ) -> None:
        damaged = bytearray(content[: int(len(content) * max(cut, 0.3))])
        for place, bits in flips:
            damaged[int(place * len(damaged))] ^= bits
        try:
            signal = read(tmp_path / name, bytes(damaged), points=64)
        except MaskedModelError:
            return
        assert torch.isfinite(signal).all()
        assert 2 <= len(signal) <= 64


class TestTold:
    def test_points_that_are_not_finite_are_left_out(self, tmp_path: Path) -> None:
        holed = np.concatenate([POINTS, [[np.nan, 0, 0], [np.inf, 1, 1]]])
        (tmp_path / "a.npy").write_bytes(npy(holed))
        found = sample(tmp_path / "a.npy")
        assert torch.equal(found["signal"], torch.tensor(POINTS, dtype=torch.float32))
        assert found["notes"] == ["points with numbers that aren't finite left out"]

    def test_of_more_points_some_are_drawn_by_the_id(self, tmp_path: Path) -> None:
        cloud = np.random.default_rng(0).standard_normal((500, 3)).astype(np.float32)
        (tmp_path / "a.npy").write_bytes(npy(cloud))
        found = sample(tmp_path / "a.npy", points=40)
        assert found["notes"] == ["40 points drawn of more"]
        rows = [cloud.tolist().index(row) for row in found["signal"].tolist()]
        assert rows == sorted(set(rows)), "in their order, without repeats"
        assert torch.equal(sample(tmp_path / "a.npy", points=40)["signal"], found["signal"])
        assert not torch.equal(read(tmp_path / "b.npy", npy(cloud), points=40), found["signal"])
        assert not sample(tmp_path / "a.npy", points=500)["notes"]

    def test_map_coordinates_keep_their_digits(self, tmp_path: Path) -> None:
        (tmp_path / "a.npy").write_bytes(npy(POINTS + np.array([4.5e5, 5.8e6, 0])))
        found = sample(tmp_path / "a.npy")
        assert found["notes"] == ["moved to the origin, far from which float32 tells no points apart"]
        np.testing.assert_allclose(found["signal"].numpy(), POINTS - POINTS.mean(0), atol=1e-6)


class TestFolder:
    def test_classes_splits_and_facts(self, tmp_path: Path) -> None:
        for split, count in (("train", 6), ("test", 2)):
            for kind in ("chair", "table"):
                folder = tmp_path / split / kind
                folder.mkdir(parents=True)
                for number in range(count):
                    (folder / f"{number}.ply").write_bytes(ply("ascii", faces=number % 2 == 0))
        (tmp_path / "train/chair/readme.md").write_text("nothing")
        source = PointsFolder(path=str(tmp_path), points=50)
        assert source.class_names() == ["chair", "table"]
        assert [len(source.open(split)) for split in ("train", "val")] == [12, 4]
        first, second = source.open("train")[0], source.open("train")[1]
        assert len(first["signal"]) == 50
        assert len(second["signal"]) == 4
        assert first["id"] == "train/chair/0.ply"
        assert first["label"] == 0
        said = {fact.text: fact.notice for fact in source.facts()}
        assert said["of 16 files: 8 surface, 8 cloud"] is False
        assert said["where a file holds a surface, points are drawn over it by area (data.surface)"] is True
        assert any(".md" in text for text in said)

    def test_a_zip_is_a_folder_too(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
            for number in range(8):
                archive.writestr(f"c{number % 2}/{number}.npy", npy(POINTS + number))
        source = PointsFolder(path=str(tmp_path / "all.zip"))
        assert source.class_names() == ["c0", "c1"]
        assert source.open("train")[0]["signal"].shape == (4, 3)

    def test_what_is_recognised_without_being_named(self, tmp_path: Path) -> None:
        (tmp_path / "a.npy").write_bytes(npy(POINTS))
        assert not PointsFolder.recognises(tmp_path), "an array may be anything"
        (tmp_path / "a.ply").write_bytes(ply("ascii"))
        assert PointsFolder.recognises(tmp_path)
        assert PointsFolder.recognises(tmp_path / "a.ply")
