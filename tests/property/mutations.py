"""Break each rule of the engine on purpose, and see that a test notices.

python -m tests.property.mutations [FILE ...]

Each mutation is applied to a copy of the code; FILE (queue.py, say) takes only those of some files. It ends with 1 when one
survives.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Those without threads first: they fail quickly.
TESTS = [
    *(f"tests/property/test_{name}_properties.py" for name in ("scheduler", "admission", "cost", "fair_queue", "decode_queue")),
    "tests/unit/test_engine_queue.py",
    "tests/unit/test_engine_scheduler.py",
    "tests/unit/test_engine.py",
    "tests/property/test_engine_properties.py",
]
MUTATIONS: dict[str, list[tuple[str, str, str]]] = {
    "queue.py": [
        ("(item.deadline_s, item.arrival, item)", "(-item.deadline_s, item.arrival, item)", "latest deadline first"),
        ("return min(single, bulk, key=_order)", "return single", "single crops before any bulk"),
        ("self._places_without_bulk += 1", "pass", "bulk has no share"),
        (">= BULK_EVERY - 2", ">= BULK_EVERY", "the share of bulk is late"),
        ("first[0] <= now_s", "first[0] < now_s", "an item expires a moment late"),
        (
            "self._reserved[item.bulk or item.demoted] -= 1\n            self._give_back(item)\n        elif",
            "self._give_back(item)\n        elif",
            "a slot is lost by an early end",
        ),
        ("self._leave(item, Stage.ENDED)", "pass", "an item that ends keeps its place"),
        ("if len(self.heap) > 2 *", "if len(self.heap) > 1000 *", "ended items are never swept"),
        (
            "n_items + self.n_taken - self.capacity",
            "n_items + self.n_waiting - self.capacity",
            "crops being decoded do not count",
        ),
        ("lacking <= 0", "lacking <= 1", "one item too many is let in"),
        ("if single.client != bulk.client:", "if False:", "bulk overtakes others by a short deadline"),
        ("self.turns.take(item.client, 1.0)", "self.turns.take(item.client)", "turns are never over"),
        ("EXTRA_PLACES: Final = 0.5", "EXTRA_PLACES: Final = 0.0", "no room for others once one has all places"),
        ("return held == 0 or held + n_items", "return held == -1 or held + n_items", "no first request for many clients"),
        ("if not held[False] and not held[True]:", "if False:", "clients are never forgotten"),
        ("held[True] -= 1\n", "pass\n", "what was demoted counts twice"),
        ("(full and not item.is_follower)", "full", "further reads of a crop are refused half-way"),
        ("min(held[bulk], own + n_items)", "held[bulk]", "clients wait for all that others have"),
    ],
    "scheduler.py": [
        ("if item.outcome is not None:", "if False:", "an item may be settled twice"),
        ("if item.stage is not Stage.DECODING:", "if item.stage is Stage.WAITING:", "an ended item is queued"),
        ("self.cost.cap) or self.cost.cap", "99) or 99", "batches over the cap"),
        (
            "-(-self._queue.n_waiting // idle_lanes)",
            "self._queue.n_waiting // idle_lanes",
            "the share of idle lanes is rounded down",
        ),
        ("or self.cost.cap\n", "\n", "an item that is too late anyway stops its lane"),
        ("limit = min(limit, largest)", "pass", "batches too large for a deadline"),
        ("largest <= len(batch) or", "", "joining makes an item late"),
        ("bool(batch) or limit == 1 or lead_is_late", "True", "the share of bulk goes before the most urgent item"),
        ("bool(batch) or limit == 1", "bool(batch) or False", "no share of bulk in batches of one"),
        ("or self._queue.bulk_is_due or", "or", "no share of bulk in short batches"),
        ("n_items + 1) <= longest_s", "n_items + 1) <= 9 * longest_s", "bulk makes long runs beside single crops"),
        ("now_s - self._single_seen_s > BULK_YIELDS_S", "True", "bulk does not yield"),
        ("self._running -= n_items", "pass", "runs that are over count"),
        ("self._busy_lanes -= 1", "pass", "a lane never becomes free"),
        ("(*leader.followers, *followers)", "tuple(followers)", "earlier reads of a crop are forgotten"),
        ("self._queue.push(item, now_s)\n\n    def settle", "pass\n\n    def settle", "further reads are never queued"),
        ("item.outcome = Outcome.EXPIRED", "pass", "an expired item has no outcome"),
        ("n_waiting >= self.cost.cap", "False", "a full batch waits for company"),
        ("self.oldest_age_s(now_s), spare_s)", "self.oldest_age_s(now_s))", "an item is held till it is late"),
        ("if others and queue.bulk_precedes(deadline_s)", "if False", "urgent bulk does not count"),
        ("self._running == 1 and not self._queue.n_taken", "self._running == 1", "alone beside crops that wait"),
        ("self._running == 1 and not self._queue.n_taken", "self.waiting == 0", "alone beside other runs"),
    ],
    "fair_queue.py": [
        ("(urgency, self._n_pushed, thing)", "(urgency, -self._n_pushed, thing)", "last come, first served"),
        ("max(self._clock, self._debts.pop(client, 0.0)))", "0.0)", "who comes late has turns saved up"),
        ("self._remember(client, owner.turn)", "pass", "who leaves the line escapes its debt"),
        ("owner.heap, owner.listed = [], None", "pass", "what waited is kept"),
        ("if listed[:3] == (owner.turn, urgency, number):", "if True:", "the order of clients is out of date"),
    ],
    "decode_backlog.py": [
        ("SENT_BACK * self.used_s", "0.0", "a slow list is not overtaken"),
    ],
    "decode_queue.py": [
        ("backlog.turns.charge(request.client, cpu_s)", "pass", "clients do not share the time of decoding"),
        ("backlog.credit_s += cpu_s / (BULK_EVERY - 1)", "pass", "bulk has no share of decoding"),
        ("self._backlogs[running.priority].credit_s -= cpu_s", "pass", "bulk has more than its share of decoding"),
        ("if PESSIMISM * wait_s > request.budget_s:", "if False:", "large pictures pile up"),
        (
            "(Priority.LIGHT if light.n_waiting else None)",
            "(Priority.BULK if of_bulk.n_waiting else None)",
            "bulk on the express thread",
        ),
    ],
    "admission.py": [
        ("prediction.start_s == 0.0", "False", "refused while a lane is free"),
        ("self.singles // (BULK_EVERY - 1)", "self.bulk", "single crops wait for all bulk"),
        ("return self.singles + self.bulk", "return self.bulk", "bulk does not wait for single crops"),
        ("(ahead + load.running) * per_item_s", "ahead * per_item_s", "what is running is not ahead"),
        ("load.decode_s)", "-load.decode_s)", "more being decoded means sooner"),
        ("PESSIMISM * prediction.last_s - deadline_s", "0.0", "the deadline does not count"),
    ],
    "cost.py": [
        ("self._raise_from(left)", "pass", "a larger batch may take less time"),
        ("min(MAX_DEVIATION, max(1 / MAX_DEVIATION, ratio))", "ratio", "one hiccup changes everything"),
        ("self._pace *= 1 + PACE_WEIGHT * deviation", "return", "nothing is learnt"),
        ("(1 + KNEE_SLACK) * min(", "2 * min(", "the cap is too small"),
        ("fits, fails = 0,", "fits, fails = 1,", "one crop always fits"),
    ],
    "engine.py": [
        (
            "self._scheduler.ran(len(batch), duration_s if session is self._session else None)",
            "pass",
            "a lane is taken while it answers",
        ),
        ("duration_s if session is self._session else None", "duration_s", "runs with all cores are learnt from"),
        ("self._alone is not None and self._scheduler.alone", "self._alone is not None", "batches run as if they were alone"),
        ("self._run([item], self._session)", "self._run([item], session)", "what failed alone is run alone again"),
        ("for item in batch:\n                if", "for item in []:\n                if", "no second run"),
    ],
}
"""By file of the engine: what is written there, what is put in its place, and what that breaks."""


def first_failure(folder: Path, name: str, old: str, new: str) -> str:
    """The first test that fails under a mutation; empty when none does."""
    path = folder / "service" / "engine" / name
    original = path.read_text()
    if original.count(old) < 1:
        raise SystemExit(f"{name} has no {old!r} any more: mend this list")
    path.write_text(original.replace(old, new, 1))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *TESTS]
    environment = {**os.environ, "PYTHONPATH": str(folder), "HYPOTHESIS_PROFILE": "unshrunk"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    path.write_text(original)
    found = re.search(r"^(?:FAILED|ERROR) \S*?(\w+\.py(?:::\S+)?)", done.stdout, re.M)
    return found[1] if found else ""


def main() -> int:
    """Try all mutations; 1 when one survives."""
    survivors = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("artifact", "service", "tests"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "golden"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        fakes = folder / "tests" / "fakes.py"  # a mutation that loses an item is not worth a minute's patience
        fakes.write_text(fakes.read_text().replace("PATIENCE_S = 60", "PATIENCE_S = 5"))
        wanted = [(name, *mutation) for name in sys.argv[1:] or MUTATIONS for mutation in MUTATIONS[name]]
        for name, old, new, meaning in wanted:
            test = first_failure(folder, name, old, new)
            survivors += not test
            print(f"{meaning:52} {name:13} {test or 'SURVIVES'}", flush=True)
    print(f"{len(wanted)} mutations, {survivors} survive")
    return min(1, survivors)


if __name__ == "__main__":
    sys.exit(main())
