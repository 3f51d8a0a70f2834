"""Sources of `parseq-bulk`: any range of any of them is the same rows, and what is damaged is told row by row."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reading.bulk.sources import tars
from reading.bulk.sources.finding import Columns, find_sources
from reading.bulk.sources.interface import Row, Source, SourceError
from tests.archives import put
from tests.bulk_sources import KINDS, table_of, words, write_folder, write_parquet, write_source, write_tar
from tests.toy_artifact import png_of

TEXTS = words(23)


def found(*arguments: object, image: str = "image", id_column: str | None = None, skip: Path = Path("nowhere")) -> list[Source]:
    return find_sources(map(str, arguments), Columns(image, id_column), skip)


def one(*arguments: object, image: str = "image") -> Source:
    (source,) = found(*arguments, image=image)
    return source


def crops(rows: list[Row]) -> list[bytes]:
    return [row.encoded for row in rows]


@pytest.mark.parametrize("kind", KINDS)
def test_any_range_is_the_same_rows(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "MARK_EVERY", 4)
    source = one(write_source(kind, tmp_path, TEXTS))
    rows = list(source.rows())
    assert (source.total, source.stop, source.damage) == (23, 23, None)
    assert crops(rows) == [png_of(text) for text in TEXTS]
    assert [row.number for row in rows] == list(range(23))
    assert len({row.id for row in rows}) == 23
    for start, stop in ((0, 5), (5, 12), (12, 23), (22, 23), (7, 14)):
        assert list(source.cut(start, stop).rows()) == rows[start:stop]
        assert list(source.cut(start, stop).rows(careful=True)) == rows[start:stop]


@pytest.mark.parametrize(
    ("kind", "first"),
    [
        ("folder", "w000.png"),
        ("list", "crops/w000.png"),
        ("tar", "w000.png"),
        ("lmdb", "image-000000001"),
        ("parquet", "w000"),
        ("structs", "0"),
    ],
)
def test_ids_are_what_a_crop_is_called_there(kind: str, first: str, tmp_path: Path) -> None:
    assert next(one(write_source(kind, tmp_path, TEXTS)).rows()).id == first


def test_a_folder_of_everything_is_many_sources(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_folder(data / "deep" / "words", ["a", "b"])
    write_parquet(data / "t.parquet", ["c"])
    write_tar(data / "deep" / "t.tar", ["d"])
    write_source("lmdb", data, ["e", "f"])
    (data / "out").mkdir()
    write_parquet(data / "out" / "old.parquet", ["x"])
    sources = found(data, skip=data / "out")
    assert {source.name: source.total for source in sources} == {
        str(data): 2,
        str(data / "t.parquet"): 1,
        str(data / "deep" / "t.tar"): 1,
        str(data / "crops"): 2,
    }


def test_what_is_named_twice_is_read_once(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a" / "b", ["x", "y"])
    table = write_parquet(tmp_path / "t.parquet", ["c"])
    assert [source.total for source in found(tmp_path / "a", folder, table, table, f"{tmp_path}/*.parquet")] == [2, 1]
    picture = folder / "x.png"
    assert [source.total for source in found(picture, picture, folder / "y.png")] == [2]


def test_a_file_that_changes_is_another_source(tmp_path: Path) -> None:
    before = one(write_parquet(tmp_path / "t.parquet", ["a"])).identity
    assert before != one(write_parquet(tmp_path / "t.parquet", ["b", "c"])).identity


def test_the_suffix_of_a_web_dataset_can_be_named(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", ["a", "b"])
    assert one(path, image="png").total == 2
    assert one(path, image="jpg").total == 0


def test_columns_by_name(tmp_path: Path) -> None:
    pq.write_table(pa.table({"key": [7, 8], "crop": [png_of("a"), None]}), tmp_path / "t.parquet")
    (source,) = found(tmp_path / "t.parquet", image="crop", id_column="key")
    assert [(row.id, row.error) for row in source.rows()] == [("7", None), ("8", "no picture")]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda folder: folder / "missing.parquet", "there is no such file"),
        (lambda folder: folder / "missing", "there is no such file"),
        (lambda folder: folder / "*.tar", "no file matches"),
        (lambda folder: folder, "nothing that can be read is in this folder"),
    ],
)
def test_what_is_no_source_is_refused(make: Callable[[Path], Path], told: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=told):
        found(make(tmp_path))


def test_files_and_columns_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("text")
    (tmp_path / "empty.txt").write_text("\n")
    pq.write_table(pa.table({"picture": [b"x"], "image": [1]}), tmp_path / "t.parquet")
    for name, told in (
        ("notes", "nothing that can be read: there are pictures"),
        ("empty.txt", "names no file"),
        ("t.parquet", "must hold image files"),
    ):
        with pytest.raises(SourceError, match=told):
            found(tmp_path / name)
    with pytest.raises(SourceError, match=r"no column 'crop': it has picture, image; name one with --image-column"):
        found(tmp_path / "t.parquet", image="crop")
    with pytest.raises(SourceError, match="LMDB archives are read from local folders"):
        found("https://host/data.mdb")


def test_relative_names_in_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_source("list", tmp_path, ["a"])
    assert next(one(source).rows()).error is None
    monkeypatch.chdir(write_folder(tmp_path / "here" / "crops", ["a"]).parent)
    (tmp_path / "crops" / "a.png").unlink()
    assert next(one(source).rows()).error is None, "where the command runs comes first"


def test_missing_pictures_are_rows(tmp_path: Path) -> None:
    source = one(write_source("list", tmp_path, ["a", "b"]))
    (tmp_path / "crops" / "b.png").unlink()
    assert [row.error for row in source.rows()] == [None, "there is no such file"]
    (tmp_path / "l").mkdir()
    archive = write_source("lmdb", tmp_path / "l", ["a", "b"])
    put(archive, image_000000001=None)
    assert [row.error for row in one(archive).rows()] == ["is missing in the archive", None]


@pytest.mark.parametrize("cut", [2, 5])
def test_an_archive_that_is_cut_short_tells_it_in_a_row(cut: int, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", TEXTS)
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"w020.png") + 512 + cut])
    source = one(path)
    assert source.damage is not None
    assert "damaged after 21 pictures" in source.damage
    rows = list(source.rows())
    assert [row.error for row in rows[:20]] == [None] * 20
    assert rows[20].error == "is cut short in the archive"
    assert rows[21].error == source.damage
    assert len(rows) == source.total == 22


def test_a_broken_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", TEXTS)
    content = bytearray(path.read_bytes())
    at = content.index(b"w010.png")
    content[at : at + 200] = b"\xaa" * 200
    path.write_bytes(content)
    assert one(path).damage == "the archive is damaged after 10 pictures"


def test_a_file_that_is_damaged_from_the_beginning_is_one_row(tmp_path: Path) -> None:
    for name in ("t.parquet", "t.arrow", "t.tar"):
        (tmp_path / name).write_bytes(b"PAR1 and nothing else that makes sense")
    rows = [row for source in found(*sorted(tmp_path.iterdir())) for row in source.rows()]
    assert len(rows) == 3
    assert all(row.error for row in rows)


def test_a_damaged_page_costs_its_row_group_at_most(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    options = {"compression": "none", "use_dictionary": False, "write_page_checksum": True, "write_statistics": False}
    pq.write_table(table_of(TEXTS), path, row_group_size=7, **options)
    content = bytearray(path.read_bytes())
    at = content.index(png_of(TEXTS[9]))
    content[at : at + 4] = b"\0\0\0\0"
    path.write_bytes(content)
    source = one(path)
    with pytest.raises(OSError, match="CRC"):
        list(source.rows())
    rows = list(source.rows(careful=True))
    assert [row.number for row in rows] == list(range(23))
    assert [bool(row.error) for row in rows] == [7 <= number < 14 for number in range(23)]


@pytest.fixture
def served(tmp_path: Path) -> object:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("kind", ["tar", "parquet", "list", "paths"])
def test_sources_by_url(kind: str, tmp_path: Path, served: str) -> None:
    path = write_source(kind, tmp_path, words(3))
    source = one(f"{served}/{path.name}")
    assert crops(list(source.rows())) == [png_of(text) for text in words(3)]


def test_a_folder_by_url(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", words(3))
    write_parquet(tmp_path / "a" / "t.parquet", ["x"])
    sources = found(f"file://{tmp_path}/a")
    assert [source.total for source in sources] == [3, 1]
    assert [row.id for row in sources[0].rows()] == ["w000.png", "w001.png", "w002.png"]
    assert [row.error for row in sources[0].rows()] == [None] * 3
    assert [source.total for source in found(f"file://{tmp_path}/a/*.parquet")] == [1]


def test_a_url_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match="extra `bulk`"):
        found("nonsense://bucket/t.tar")

    def absent(name: str) -> object:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("reading.bulk.sources.files.import_module", absent)
    with pytest.raises(SourceError, match="needs the package 'fsspec'"):
        found("s3://bucket/t.tar")
