"""What a person sees and does on the page at `/`, in Chromium."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw, ImageFont

from service.config import BUNDLED_ARTIFACT
from tests.integration.server import ServerProcess, running

expect = pytest.importorskip("playwright.sync_api").expect
expect.set_options(timeout=20_000)

SAMPLES = Path(__file__).parents[2] / "docs" / "samples"
WORDS = {"price.png": "$12.50", "bakery.png": "Bakery", "harbour.png": "HARBOUR"}


def choose(page: Any, *names: str) -> None:
    page.set_input_files("#file", [SAMPLES / name for name in names])


def rows(page: Any) -> Any:
    return page.locator("#results > li")


def picture_file(pixels: Image.Image, name: str = "made.png") -> dict[str, Any]:
    buffer = io.BytesIO()
    pixels.save(buffer, "PNG")
    return {"name": name, "mimeType": "image/png", "buffer": buffer.getvalue()}


def page_with_words() -> tuple[Image.Image, dict[str, tuple[int, int, int, int]]]:
    """A page, and where samples are on it."""
    sheet, places = Image.new("RGB", (600, 400), "white"), {}
    for at, (name, text) in enumerate(WORDS.items()):
        with Image.open(SAMPLES / name) as sample:
            left, top = 40 + 20 * at, 30 + 120 * at
            sheet.paste(sample.convert("RGB"), (left, top))
            places[text] = (left, top, left + sample.width, top + sample.height)
    return sheet, places


def test_pictures_are_read_in_order_and_taken_along(page: Any) -> None:
    choose(page, *WORDS)
    expect(page.locator("#status")).to_have_text("3 of 3 read.")
    assert rows(page).locator(".name").all_inner_texts() == list(WORDS)
    assert rows(page).locator(".text").all_inner_texts() == list(WORDS.values())
    assert "% sure" in rows(page).first.inner_text()
    assert " ms" in rows(page).first.inner_text()
    page.evaluate("delete Navigator.prototype.clipboard")  # as where there is no TLS
    page.evaluate("document.addEventListener('copy', () => { globalThis.taken = document.activeElement.value })")
    page.get_by_role("button", name="Copy texts").click()
    expect(page.locator("#status")).to_have_text("Texts copied.")
    assert page.evaluate("globalThis.taken").split() == list(WORDS.values())
    with page.expect_download() as download:
        page.get_by_role("button", name="Save CSV").click()
    saved = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8-sig"))))
    assert [(row["file"], row["text"]) for row in saved] == list(WORDS.items())
    with page.expect_download() as download:
        page.get_by_role("button", name="Save JSON").click()
    saved = json.loads(Path(download.value.path()).read_text())
    assert [(row["file"], row["text"]) for row in saved] == list(WORDS.items())
    page.get_by_role("button", name="Clear").click()
    expect(rows(page)).to_have_count(0)


def test_csv_runs_nothing_in_a_spreadsheet_and_keeps_quotes(page: Any) -> None:
    texts = ["=1+1", "-5", "+4.9", "@x", 'a"b,c', "-a"]
    made = page.evaluate(
        "async (texts) => (await import('./page/export.js')).csvOf(texts.map((text) => ({file: 'f', text})))", texts
    )
    assert [row["text"] for row in csv.DictReader(io.StringIO(made))] == ["'=1+1", "-5", "+4.9", "'@x", 'a"b,c', "'-a"]


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_pictures_are_dropped_and_pasted(page: Any, event: str) -> None:
    content = base64.b64encode((SAMPLES / "price.png").read_bytes()).decode()
    page.evaluate(
        """([event, content]) => {
            const bytes = Uint8Array.from(atob(content), (char) => char.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], "mine.png", { type: "image/png" }));
            document.dispatchEvent(event === "drop" ? new DragEvent("drop", { dataTransfer: data, cancelable: true })
                : new ClipboardEvent("paste", { clipboardData: data }));
        }""",
        [event, content],
    )
    expect(page.locator("#status")).to_contain_text("mine.png: $12.50")


def test_options_are_those_of_the_model(page: Any) -> None:
    expect(page.locator("#model-note")).to_contain_text("parseq-mini reads the 102 characters")
    expect(page.locator("#model-note")).to_contain_text("~£€¥°©®§ and the space, up to 25")
    expect(page.locator("#cannot")).to_contain_text("no handwriting")
    page.locator("#options summary").click()
    page.select_option("#alternatives", "3")
    page.select_option("#orientation", "auto")
    page.select_option("#split", "auto")
    with Image.open(SAMPLES / "harbour.png") as upright:
        turned = upright.convert("RGB").transpose(Image.Transpose.ROTATE_90)
    line = Image.new("RGB", (296, 48), "white")
    ImageDraw.Draw(line).text((6, 2), "PLEASE   DRIVE", "black", ImageFont.load_default(40))
    page.set_input_files("#file", [picture_file(turned, "turned.png"), picture_file(line, "line.png")])
    expect(page.locator("#status")).to_have_text("2 of 2 read.")
    expect(rows(page).nth(0)).to_contain_text("turned by 90° clockwise")
    expect(rows(page).nth(0)).to_contain_text("Other readings:")
    expect(rows(page).nth(0).locator(".text")).to_have_text("HARBOUR")
    expect(rows(page).nth(1)).to_contain_text("Words: PLEASE")
    page.select_option("#charset", "digits")
    page.get_by_role("button", name="Read all again").click()
    expect(rows(page).nth(0).locator(".text")).to_have_text(re.compile(r"^\d*$|no text"))
    page.select_option("#charset", "chars:")
    page.fill("#characters", "é")
    page.get_by_role("button", name="Read all again").click()
    expect(rows(page).nth(0).locator(".error")).to_contain_text("does not have these characters")


def test_what_a_model_cannot_do_is_disabled_with_the_reason(page: Any) -> None:
    def answer(route: Any) -> None:
        models = route.fetch().json()["models"]
        poor = models[0] | {"name": "poor", "aliases": [], "max_alternatives": 0, "choice_of_characters": False}
        digits = models[0] | {"name": "digits", "aliases": [], "charset": "0123456789", "charset_size": 10}
        route.fulfill(json={"models": [*models, poor, digits]})

    page.route("**/v1/models", answer)
    page.reload()
    page.locator("#options summary").click()
    expect(page.locator("#alternatives")).to_be_enabled()
    page.select_option("#model", "poor")
    expect(page.locator("#alternatives")).to_be_disabled()
    expect(page.locator("#alternatives-why")).to_contain_text("poor was exported without other readings")
    expect(page.locator("#charset")).to_be_disabled()
    expect(page.locator("#charset-why")).to_contain_text("cannot be told")
    expect(page.locator("#cannot")).not_to_contain_text("handwriting")
    page.select_option("#model", "digits")
    expect(page.locator("#charset option[value=uppercase]")).to_be_disabled()
    expect(page.locator("#charset option[value=digits]")).to_be_enabled()
    with page.expect_request("**/v1/recognize*") as asked:
        choose(page, "price.png")
    assert "model=digits" in asked.value.url


def test_words_are_marked_by_mouse_and_keyboard(page: Any) -> None:
    sheet, places = page_with_words()
    page.set_input_files("#file", picture_file(sheet, "sheet.png"))
    page.get_by_role("button", name="Mark words: sheet.png").click()
    page.locator("#editor-add").wait_for()
    frame = page.locator("#editor-picture").bounding_box()
    scale = frame["width"] / sheet.width
    left, top, right, bottom = places["Bakery"]
    page.mouse.move(frame["x"] + left * scale, frame["y"] + top * scale)
    page.mouse.down()
    page.mouse.move(frame["x"] + right * scale, frame["y"] + bottom * scale, steps=3)
    page.mouse.up()
    page.mouse.click(frame["x"] + 500 * scale, frame["y"] + 20 * scale)  # a click draws nothing
    expect(page.locator(".box")).to_have_count(1)
    # By keyboard alone.
    page.locator("#editor-add").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".box.chosen")).to_be_focused()
    before = [int(page.locator(f"[data-side={side}]").input_value()) for side in ("left", "top", "width", "height")]
    for key in ("ArrowRight", "ArrowDown", "Shift+ArrowRight", "Shift+ArrowDown"):
        page.keyboard.press(key)
    after = [int(page.locator(f"[data-side={side}]").input_value()) for side in ("left", "top", "width", "height")]
    assert [new - old for new, old in zip(after, before, strict=True)] == [3, 3, 3, 3]
    left, top, right, bottom = places["HARBOUR"]
    for side, value in {"left": left, "top": top, "width": right - left, "height": bottom - top}.items():
        page.locator(f"[data-side={side}]").fill(str(value))
        page.keyboard.press("Tab")
    page.locator("#editor-add").click()
    page.keyboard.press("Delete")
    expect(page.locator(".box")).to_have_count(2)
    page.get_by_role("button", name="Read 2 boxes").click()
    expect(page.locator("#editor-status")).to_contain_text("Bakery, HARBOUR")
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Mark words: sheet.png")).to_be_focused()
    assert rows(page).locator(".text").all_inner_texts() == ["Bakery", "HARBOUR"]
    with page.expect_download() as download:
        page.get_by_role("button", name="Save JSON").click()
    saved = json.loads(Path(download.value.path()).read_text())
    assert [row["text"] for row in saved] == ["Bakery", "HARBOUR"]
    assert saved[1]["region"] == list(places["HARBOUR"])
    page.get_by_role("button", name="Read as one word").click()
    expect(rows(page).locator(".text")).to_have_count(1)


def test_a_key_is_asked_for_and_kept_in_the_tab(browser: Any, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("open-sesame-for-tests\n")  # pragma: allowlist secret
    with running(BUNDLED_ARTIFACT, tmp_path / "log", forked=True, api_keys_file=keys) as server:
        page = browser.new_page()
        page.goto(server.url)
        expect(page.locator("#key")).to_be_focused()
        choose(page, "price.png")
        expect(rows(page).locator(".error")).to_contain_text("wants an API key")
        for key in ("wrong", "open-sesame-for-tests"):
            page.fill("#key", key)
            page.keyboard.press("Enter")
            if key == "wrong":
                expect(page.locator("#model-note")).to_contain_text("does not know this API key")
        expect(rows(page).locator(".text")).to_have_text("$12.50")
        expect(page.locator("#key-form")).to_be_hidden()
        page.reload()
        expect(page.locator("#model-note")).to_contain_text("102 characters")
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        page.close()


HTML_OF_GATEWAY = {"status": 502, "content_type": "text/html", "body": "<html>Bad Gateway</html>"}
LOGIN = {"status": 200, "content_type": "text/html", "body": "<html>Log in</html>"}
BROKEN = {"status": 200, "content_type": "application/json", "body": '{"text": '}
TOO_LARGE = {"status": 413, "content_type": "text/html", "body": "<html>Too large</html>"}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (None, "cannot be reached"),
        (HTML_OF_GATEWAY, "gateway answered in place of the service (status 502)"),
        (LOGIN, "log in"),
        (BROKEN, "Something else than the service"),
        (TOO_LARGE, "too large (413)"),
    ],
    ids=["away", "gateway", "login", "broken", "large"],
)
def test_what_goes_wrong_is_said_in_words_and_can_be_tried_again(page: Any, answer: dict[str, Any] | None, told: str) -> None:
    page.route("**/v1/recognize*", lambda route: route.abort() if answer is None else route.fulfill(**answer))
    choose(page, "price.png")
    expect(rows(page).locator(".error")).to_contain_text(told)
    expect(page.locator("#status")).to_have_text("0 of 1 read, 1 failed.")
    page.unroute("**/v1/recognize*")
    page.get_by_role("button", name="Try again: price.png").click()
    expect(rows(page).locator(".text")).to_have_text("$12.50")


def test_too_large_is_told_with_width_and_height(page: Any) -> None:
    page.set_input_files("#file", picture_file(Image.new("1", (3000, 2000)), "large.png"))
    expect(rows(page).locator(".error")).to_contain_text("3000 x 2000 pixels")
    expect(rows(page).locator(".error")).not_to_contain_text("PARSEQ_")


def test_a_busy_server_is_asked_again(page: Any) -> None:
    asked = []

    def answer(route: Any) -> None:
        asked.append(route.request.url)
        if len(asked) > 2:
            route.continue_()
        else:
            problem = {"type": "urn:parseq:problem:queue-full", "title": "Busy", "status": 429, "detail": "Later."}
            route.fulfill(
                status=429, headers={"Retry-After": "1"}, content_type="application/problem+json", body=json.dumps(problem)
            )

    page.route("**/v1/recognize*", answer)
    choose(page, "price.png")
    expect(rows(page)).to_contain_text("The server is busy. Trying again in 1 s (2 of 5)")
    expect(rows(page).locator(".text")).to_have_text("$12.50")
    assert len(asked) == 3


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_narrow_window_needs_no_sideways_scrolling(browser: Any, server: ServerProcess, dark: bool) -> None:
    page = browser.new_page(viewport={"width": 320, "height": 640}, color_scheme="dark" if dark else "light")
    page.goto(server.url)
    page.locator("#options summary").click()
    name = "a_rather_long_name_of_a_file_without_any_place_to_break_it_" * 2 + ".png"
    file = picture_file(Image.new("RGB", (200, 50), "white"), name)
    page.set_input_files("#file", [file, {"name": "broken", "mimeType": "", "buffer": b"x"}])
    choose(page, "harbour.png")
    expect(page.locator("#status")).to_have_text("2 of 3 read, 1 failed.")
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    page.get_by_role("button", name=f"Mark words: {name}").click()
    editor = page.locator("#editor")
    assert editor.evaluate("(element) => element.scrollWidth - element.clientWidth") <= 0
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (not dark)
    page.close()


def test_all_is_reached_by_the_tab_key_with_a_focus_that_shows(page: Any) -> None:
    choose(page, "price.png")
    expect(rows(page).locator(".text")).to_have_text("$12.50")
    page.locator("#options summary").click()
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Home")
    wanted = "button, select, input, summary, a[href]"
    visible = page.evaluate(
        "(wanted) => [...document.querySelectorAll(wanted)].filter((one) => !one.disabled && one.checkVisibility()).length",
        wanted,
    )
    reached = set()
    for _ in range(visible * 2):
        page.keyboard.press("Tab")
        told = page.evaluate(
            """(wanted) => {
                const one = document.activeElement;
                if (!one || one === document.body) return null;
                const shown = one.id === "file" ? one.parentElement : one;
                return [[...document.querySelectorAll(wanted)].indexOf(one), getComputedStyle(shown).outlineWidth];
            }""",
            wanted,
        )
        if told is not None:
            assert told[1] == "3px"
            reached.add(told[0])
    assert len(reached) == visible


@pytest.mark.parametrize("address", ["/ocr/", "/ocr"])
def test_the_page_works_below_a_path_of_a_gateway(browser: Any, server: ServerProcess, address: str) -> None:
    page = browser.new_page()

    def forward(route: Any) -> None:
        rest = route.request.url.removeprefix("http://gateway.test/ocr").removeprefix("/")
        route.fulfill(response=route.fetch(url=f"{server.url}/{rest}"))

    page.route(re.compile(r"^http://gateway\.test/ocr(/|$)"), forward)
    page.goto(f"http://gateway.test{address}")
    choose(page, "price.png")
    expect(rows(page).locator(".text")).to_have_text("$12.50")
    page.close()
