"""Descriptions of common recognisers, by name."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from export.adopt.description import Charset, Description
from export.adopt.description_file import read_description
from export.graphs.interface import ExportError

PPOCR_NOTICE: Final = (
    "Text recognition model of the PP-OCR series, by the PaddlePaddle authors (https://github.com/PaddlePaddle/PaddleOCR), "
    "converted to ONNX by the RapidAI authors (https://github.com/RapidAI/RapidOCR). Licensed under the Apache License, "
    "Version 2.0 (https://www.apache.org/licenses/LICENSE-2.0). Changed: preparation of the picture and reading of the columns "
    "were added to the graph; its own nodes and weights are as they were."
)

# docTR's vocabulary "french", the one of its published recognisers: digits, letters, punctuation, the degree sign, currencies
# and accented letters, in its order.
FRENCH: Final = string.digits + string.ascii_letters + string.punctuation + "°" + "£€¥¢฿" + "àâéèêëîïôùûüçÀÂÉÈÊËÎÏÔÙÛÜÇ"
DOCTR: Final = Description(
    architecture="doctr-ctc",
    decoding="ctc",
    size=(32, 128),
    special="last",
    charset=Charset(inline=tuple(FRENCH)),
    mean=(0.694, 0.695, 0.693),
    std=(0.299, 0.296, 0.301),
    fit="pad",
    pad_value=(0, 0, 0),
    pad_side="end",
    resample="bilinear",
    source="https://github.com/felixdittrich92/OnnxTR",
)

FAMILIES: Final[Mapping[str, Description]] = {
    # PP-OCRv3 to v6 as PaddleOCR trains them and RapidOCR and others convert them: blue, green, red; the blank, the dictionary,
    # the space. Their own program pads to 320 pixels or more; stretched to 128 they read as well (ADR 0012).
    "ppocr": Description(
        architecture="ppocr",
        size=(48, 128),
        colours="bgr",
        mean=(0.5,),
        std=(0.5,),
        decoding="ctc",
        output="probabilities",
        charset=Charset(metadata="character", append=(" ",)),
        source="https://github.com/PaddlePaddle/PaddleOCR",
        licence="Apache-2.0",
        notice=PPOCR_NOTICE,
    ),
    # docTR and OnnxTR: CRNN, VIPTR.
    "doctr-ctc": DOCTR,
    # docTR and OnnxTR: ViTSTR, PARSeq, and MASTER without what comes after its end token (`never`).
    "doctr-steps": replace(DOCTR, architecture="doctr-steps", decoding="steps"),
    # EasyOCR: one grey channel, 64 pixels high. Where it pads it repeats the last column of pixels, which cannot be said here.
    "easyocr": Description(
        architecture="easyocr",
        size=(64, 256),
        colours="grey",
        mean=(0.5,),
        std=(0.5,),
        decoding="ctc",
        source="https://github.com/JaidedAI/EasyOCR",
    ),
}


def description_of(name_or_file: str) -> Description:
    """A family's description by its name, or that in a JSON file.

    Raises:
        ExportError: There is no such family and no such file, or the file says something wrong.
    """
    if name_or_file in FAMILIES:
        return FAMILIES[name_or_file]
    path = Path(name_or_file)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        known = ", ".join(FAMILIES)
        raise ExportError(
            f"there is no description {name_or_file!r}: give the name of a family ({known}) or a JSON file"
        ) from None
    except OSError as error:
        raise ExportError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ExportError(f"{path} is not UTF-8 (byte {error.start + 1}): save it as such") from error
    return read_description(text, str(path), path.parent, FAMILIES)
