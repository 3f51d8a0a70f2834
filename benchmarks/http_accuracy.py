"""Accuracy of a running service on LMDB archives of word crops, posted as they are stored.

python benchmarks/http_accuracy.py --data FOLDER --url http://localhost:8000 [--charset 36] [--json FILE]
"""

from __future__ import annotations

import argparse
import base64
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from tqdm import tqdm

from model.charsets import CHARSETS, CharsetAdapter
from model.data import find_lmdb, iterate_lmdb
from model.evaluate import Score, score, tell
from model.reader import Reading


def post(client: httpx.Client, images: list[bytes]) -> list[Reading]:
    """Read crops in one request; a crop that fails counts as read empty."""
    body = {"images": [{"content": base64.b64encode(image).decode()} for image in images]}
    results = client.post("/v1/recognize", json=body).raise_for_status().json()["results"]
    return [Reading(result.get("text", ""), result.get("confidence", 0.0)) for result in results]


def evaluate(client: httpx.Client, archive: Path, charset: str, batch_size: int, connections: int) -> Score:
    """Post all crops of `archive` that have a scored character."""
    adapt = CharsetAdapter(charset)
    crops = [(image, label) for image, label in iterate_lmdb(archive) if adapt(label)]
    batches = [[image for image, _ in crops[start : start + batch_size]] for start in range(0, len(crops), batch_size)]
    with ThreadPoolExecutor(connections) as pool:
        answers = pool.map(lambda images: post(client, images), batches)
        readings = [reading for batch in tqdm(answers, total=len(batches), desc=archive.name) for reading in batch]
    return score(archive.name, readings, [label for _, label in crops], charset)


def main() -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", required=True, help="LMDB or folder of LMDBs; repeat")
    parser.add_argument("--url", default="http://localhost:8000")
    parser.add_argument("--charset", choices=list(CHARSETS), default="36")
    parser.add_argument("--batch-size", type=int, default=32, help="crops a request")
    parser.add_argument("--connections", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the scores to this file")
    args = parser.parse_args()
    archives = [archive for root in args.data for archive in find_lmdb(root)]
    with httpx.Client(base_url=args.url, timeout=120) as client:
        scores = [evaluate(client, path, CHARSETS[args.charset], args.batch_size, args.connections) for path in archives]
    tell(scores, args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
