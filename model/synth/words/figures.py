"""Texts that are not words: numbers, prices, times, dates, codes, addresses of the web."""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Final

from model.synth.words.chance import Rng, WordSource, pick

_MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_ENDINGS: Final = (".com", ".com", ".com", ".org", ".net", ".co.uk", ".de", ".fr", ".eu", ".info", ".tv", ".io")
_UNITS: Final = ("kg", "g", "ml", "L", "cm", "mm", "km", "m", "GB", "MB", "oz", "lb", "mph", "km/h", "W", "V", "Hz", "x")
_ORDINALS: Final = ("th", "th", "st", "nd", "rd", "TH")


def sample(rng: Rng, word: WordSource) -> str:
    """One figure, possibly longer than 25 characters: the caller discards those."""
    return pick(rng, _FIGURES)(rng, word)


def _digits(rng: Rng, low: int, high: int) -> str:
    """Between `low` and `high` digits, both included."""
    count = int(rng.integers(low, high + 1))
    return "".join(string.digits[i] for i in rng.integers(10, size=count))


def _between(rng: Rng, low: int, high: int) -> int:
    return int(rng.integers(low, high + 1))


def _number(rng: Rng, _: WordSource) -> str:
    return _digits(rng, 1, 4)


def _long_number(rng: Rng, _: WordSource) -> str:
    return _digits(rng, 4, 12)


def _small_number(rng: Rng, _: WordSource) -> str:
    return str(_between(rng, 0, 100))


def _year(rng: Rng, _: WordSource) -> str:
    year = str(_between(rng, 1850, 2035))
    return year + pick(rng, ("", "", "", "", "-", "s", "-" + str(_between(rng, 10, 99))))


def _price(rng: Rng, _: WordSource) -> str:
    amount = f"{_between(rng, 0, 10 ** _between(rng, 1, 3))}{pick(rng, '...,')}{_digits(rng, 2, 2)}"
    return pick(rng, ("$", "$", "$", "", "", "", "-", "+", "@")) + amount


def _round_price(rng: Rng, _: WordSource) -> str:
    return "$" + str(_between(rng, 1, 10 ** _between(rng, 1, 4))) + pick(rng, ("", "", "", "!", "*", "+", "K", "/kg"))


def _thousands(rng: Rng, _: WordSource) -> str:
    return pick(rng, ("", "", "$")) + f"{_between(rng, 1000, 10 ** _between(rng, 4, 7)):,}"


def _percentage(rng: Rng, _: WordSource) -> str:
    sign = pick(rng, ("", "", "", "-", "+", "(", "~"))
    value = str(_between(rng, 0, 100)) + (f".{_digits(rng, 1, 2)}" if rng.random() < 0.3 else "")
    return f"{sign}{value}%" + (")" if sign == "(" else "")


def _time(rng: Rng, _: WordSource) -> str:
    clock = f"{_between(rng, 0, 23)}{pick(rng, '::::.')}{_between(rng, 0, 59):02d}"
    suffix = pick(rng, ("", "", "", "am", "pm", "AM", "PM", "h", f":{_between(rng, 0, 59):02d}"))
    return clock + suffix


def _hour(rng: Rng, _: WordSource) -> str:
    return str(_between(rng, 1, 12)) + pick(rng, ("am", "pm", "AM", "PM", "h", "a.m.", "p.m."))


def _date(rng: Rng, _: WordSource) -> str:
    mark = pick(rng, "//--.")
    day, month = f"{_between(rng, 1, 31):02d}", f"{_between(rng, 1, 12):02d}"
    year = str(_between(rng, 1980, 2035))
    parts = ((day, month, year), (month, day, year), (year, month, day), (day, month, year[2:]))
    return mark.join(parts[_between(rng, 0, 3)])


def _month_date(rng: Rng, _: WordSource) -> str:
    month = pick(rng, _MONTHS)
    month = month if rng.random() < 0.5 else month.capitalize()
    mark = pick(rng, ("-", "", "/", "'"))
    return pick(rng, (f"{_between(rng, 1, 31)}{mark}{month}", f"{month}{mark}{_between(rng, 1, 99):02d}"))


def _phone(rng: Rng, _: WordSource) -> str:
    mark = pick(rng, "--..")
    groups = mark.join(_digits(rng, 3, 4) for _ in range(_between(rng, 2, 3)))
    return pick(rng, ("", "", "+" + str(_between(rng, 1, 99)), "(" + _digits(rng, 3, 3) + ")", "0")) + groups


def _plate(rng: Rng, _: WordSource) -> str:
    letters = "".join(pick(rng, string.ascii_uppercase) for _ in range(_between(rng, 1, 3)))
    tail = "".join(pick(rng, string.ascii_uppercase) for _ in range(_between(rng, 0, 3)))
    mark = pick(rng, ("", "", "-", "."))
    return letters + mark + _digits(rng, 1, 4) + (mark + tail if tail else "")


def _code(rng: Rng, _: WordSource) -> str:
    characters = string.ascii_uppercase + string.digits * 2
    if rng.random() < 0.2:
        characters = string.ascii_letters + string.digits * 2
    return "".join(pick(rng, characters) for _ in range(_between(rng, 2, 10)))


def _model(rng: Rng, word: WordSource) -> str:
    name = word(rng)
    name = name.upper() if rng.random() < 0.5 else name.capitalize()
    return name + pick(rng, ("", "-", "/", "_")) + _digits(rng, 1, 3)


def _measure(rng: Rng, _: WordSource) -> str:
    value = str(_between(rng, 1, 10 ** _between(rng, 1, 3)))
    return value + (f".{_digits(rng, 1, 1)}" if rng.random() < 0.2 else "") + pick(rng, _UNITS)


def _ordinal(rng: Rng, _: WordSource) -> str:
    return str(_between(rng, 1, 99)) + pick(rng, _ORDINALS)


def _website(rng: Rng, word: WordSource) -> str:
    host = word(rng).lower() + (word(rng).lower() if rng.random() < 0.3 else "") + pick(rng, _ENDINGS)
    text = pick(rng, ("www.", "www.", "", "", "http://", "https://")) + host
    return text.upper() if rng.random() < 0.15 else text


def _website_part(rng: Rng, word: WordSource) -> str:
    name = word(rng).lower()
    return pick(rng, (f"www.{name}", f"/{name}/", f"{name}.html", f"?{name}={_digits(rng, 1, 3)}", f"//{name}"))


def _mail(rng: Rng, word: WordSource) -> str:
    name = word(rng).lower() + pick(rng, ("", "", "_", ".")) + (_digits(rng, 1, 2) if rng.random() < 0.3 else "")
    return f"{name}@{word(rng).lower()}" + (pick(rng, _ENDINGS) if rng.random() < 0.7 else "")


def _numbered(rng: Rng, _: WordSource) -> str:
    number = str(_between(rng, 1, 999))
    return pick(rng, (f"#{number}", f"No.{number}", f"({number})", f"{number}.", f"{number})", f"x{number}", f"*{number}"))


def _ratio(rng: Rng, _: WordSource) -> str:
    return str(_between(rng, 1, 99)) + pick(rng, "/x:-+=") + str(_between(rng, 1, 99))


_FIGURES: Final[tuple[Callable[[Rng, WordSource], str], ...]] = (
    *[_number] * 5,
    *[_small_number] * 4,
    *[_long_number] * 2,
    *[_year] * 3,
    *[_price] * 6,
    *[_round_price] * 3,
    *[_thousands] * 2,
    *[_percentage] * 3,
    *[_time] * 3,
    _hour,
    *[_date] * 3,
    _month_date,
    *[_phone] * 3,
    *[_plate] * 3,
    *[_code] * 4,
    *[_model] * 2,
    *[_measure] * 2,
    _ordinal,
    *[_website] * 2,
    _website_part,
    _mail,
    *[_numbered] * 2,
    _ratio,
)
