"""`parseq-read`: read word crops from image files."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from model.configs import ConfigError
from model.download import DownloadError
from model.loading import WeightsError
from model.options import add_network_options, load_network
from model.preprocess import resize
from model.reader import read_batches


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="parseq-read", description=__doc__)
    parser.add_argument("images", type=Path, nargs="+", help="image files, one word each")
    add_network_options(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    return parser.parse_args(argv)


def as_seen(image: Image.Image) -> Image.Image:
    """The picture as a viewer shows it: upright, transparent pixels on white. (Data sets are read as they are stored.)"""
    upright = ImageOps.exif_transpose(image)
    if not upright.has_transparency_data:
        return upright
    rgba = upright.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)


def main(argv: list[str] | None = None) -> int:
    """Entry point; 0 when every image was read, 1 when some could not be opened, 2 on a wrong call."""
    args = parse_args(argv)
    try:
        network = load_network(args)
    except (ConfigError, WeightsError, DownloadError) as error:
        print(f"parseq-read: {error}", file=sys.stderr)
        return 2
    failed = 0
    for path in args.images:
        try:
            with Image.open(path) as image:
                pixels = resize(as_seen(image), network.config.img_size)
        except FileNotFoundError:
            print(f"parseq-read: {path}: there is no such file", file=sys.stderr)
            failed += 1
            continue
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
            print(f"parseq-read: {path}: not a readable image", file=sys.stderr)
            failed += 1
            continue
        reading = next(read_batches(network, np.expand_dims(pixels, 0)))[0]
        if args.json:
            print(json.dumps({"file": str(path), "text": reading.text, "confidence": round(reading.confidence, 6)}))
        else:
            print(f"{path}: {reading.text}  ({reading.confidence:.3f})")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
