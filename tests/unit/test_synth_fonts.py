"""Which faces may be drawn with; all from the one face that Pillow carries."""

import string
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from PIL import ImageFont

from model.charsets import PRINTABLE
from model.synth.lettering import fonts
from model.synth.lettering.fonts import FontsNotFoundError, embedded_face, load_faces, split_faces
from model.synth.lettering.glyphs import GlyphSheet


class Respelt(ImageFont.FreeTypeFont):
    """Pillow's own face, drawing other characters than it is asked for."""

    def __init__(self, spelling: dict[int, str]) -> None:
        super().__init__(BytesIO(ImageFont.load_default(20).font_bytes), GlyphSheet.SIZE)
        self._spelling = spelling

    def getmask2(self, text, *args, **kwargs):
        return super().getmask2(text.translate(self._spelling), *args, **kwargs)


@pytest.fixture
def font_file(tmp_path: Path) -> Path:
    path = tmp_path / "fonts" / "face.ttf"
    path.parent.mkdir()
    path.write_bytes(ImageFont.load_default(20).font_bytes)
    return path


def test_the_embedded_face_draws_all_printable_ascii():
    face = embedded_face()
    assert set(face.characters) & set(PRINTABLE) == set(PRINTABLE)
    assert not face.caps_only
    assert face.legibility > 0.9


def test_characters_besides_printable_ascii_are_looked_for():
    assert set(embedded_face().characters) - set(PRINTABLE) == {"°", "©"}


def test_web_fonts_are_read_from_named_folders_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "face.woff2").touch()
    assert [path.name for path in fonts.find_font_files([tmp_path])] == ["face.woff2"]
    monkeypatch.setattr(fonts, "FONT_FOLDERS", (tmp_path,))
    assert fonts.find_font_files([tmp_path]) == []


def test_a_glyph_like_that_of_an_unassigned_code_point_is_missing():
    sheet = GlyphSheet(Respelt(str.maketrans("~q", "\u0378\u0378")))
    assert set(PRINTABLE) - set(sheet.characters) == {"~", "q"}


def test_a_blank_glyph_is_missing():
    assert "!" not in GlyphSheet(Respelt(str.maketrans("!", " "))).characters


def test_small_letters_drawn_as_capitals_are_noticed():
    assert not GlyphSheet(Respelt({})).small_letters_are_capitals()
    capitals = str.maketrans(string.ascii_lowercase, string.ascii_uppercase)
    assert GlyphSheet(Respelt(capitals)).small_letters_are_capitals()


def test_capitals_drawn_as_small_letters_are_noticed():
    assert GlyphSheet(Respelt({})).capitals_are_capitals()
    small = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
    assert not GlyphSheet(Respelt(small)).capitals_are_capitals()


def test_symbols_in_the_place_of_letters_are_illegible():
    letters = string.ascii_letters + string.digits
    elsewhere = str.maketrans(letters, letters[7:] + letters[:7])
    assert GlyphSheet(Respelt(elsewhere)).legibility(with_small=True) < 0.3


def test_a_face_of_capitals_spells_in_capitals():
    face = replace(embedded_face(), caps_only=True, characters=string.ascii_uppercase)
    assert face.spell("Word") == "WORD"
    assert face.can_draw("Word")
    assert not face.can_draw("Word!")


def test_a_scan_finds_a_face_once_and_ignores_what_is_no_font(font_file: Path):
    (font_file.parent / "copy.otf").write_bytes(font_file.read_bytes())
    (font_file.parent / "broken.ttf").write_bytes(b"not a font")
    (font_file.parent / "README.txt").write_text("no font either")
    faces = load_faces([font_file.parent], cache=None)
    assert [face.family for face in faces] == [embedded_face().family]
    assert faces[0].font(20).getlength("word") > 10


def test_links_to_folders_of_fonts_are_followed(font_file: Path, tmp_path: Path):
    named = tmp_path / "named"
    named.mkdir()
    (named / "link").symlink_to(font_file.parent, target_is_directory=True)
    (named / "loop").symlink_to(named, target_is_directory=True)
    assert fonts.find_font_files([named]) == [named / "link" / font_file.name]


def test_a_scan_is_cached_until_the_files_change(font_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cache = tmp_path / "cache"
    first = load_faces([font_file.parent], cache)
    with monkeypatch.context() as patch:
        patch.setattr("model.synth.lettering.fonts._scan", lambda _: pytest.fail("scanned again"))
        assert load_faces([font_file.parent], cache) == first
    font_file.rename(font_file.with_name("renamed.ttf"))
    assert load_faces([font_file.parent], cache)[0].path.endswith("renamed.ttf")


def test_no_fonts_is_an_error_that_says_what_to_install(tmp_path: Path):
    with pytest.raises(FontsNotFoundError, match=r"apt-get install fonts-.*model/synth/debian_packages\.txt") as error:
        load_faces([tmp_path, tmp_path / "absent"], cache=None)
    assert str(tmp_path) in str(error.value)


def test_families_are_split_once_and_for_all():
    faces = [replace(embedded_face(), family=f"Family {i}", style=s) for i in range(500) for s in ("Regular", "Bold")]
    train, validation = split_faces(faces, "train"), split_faces(faces, "validation")
    assert len(train) + len(validation) == len(faces)
    assert not {face.family for face in train} & {face.family for face in validation}
    assert 10 <= len({face.family for face in validation}) <= 35
    assert split_faces(faces[::-1], "validation") == validation[::-1]


def test_the_package_list_names_one_debian_package_a_line():
    lines = (Path(__file__).parents[2] / "model/synth/debian_packages.txt").read_text().splitlines()
    packages = [line for line in lines if line and not line.startswith("#")]
    assert len(packages) > 100
    assert len(packages) == len(set(packages))
    assert all(package.replace("-", "").isalnum() for package in packages)
