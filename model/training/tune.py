"""`parseq-tune`: search the learning rate with Ray Tune. Takes the options of `parseq-train`; every trial is such a run.

A search that was stopped goes on with --resume, each trial from its own last checkpoint. The same command runs on one machine
and, with --address, on a Ray cluster whose machines share --output.
"""

from __future__ import annotations

import csv
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

import lightning
from lightning.pytorch.callbacks import Callback

from model.checkpoints.download import DownloadError
from model.checkpoints.loading import WeightsError
from model.command_line import Option
from model.errors import ConfigError, DataError, DivergedError
from model.training.options import TrainOptions
from model.training.parsing import parse
from model.training.train import train

Report = Callable[[dict[str, float]], None]
Metric = Literal["one_minus_ned", "accuracy"]
SEARCH_FOLDER: Final = "search"
"""Ray's own record of the search, in --output."""


@dataclass(frozen=True, kw_only=True)
class TuneOptions(TrainOptions):
    """What a search is told: the options of its trials, and its own."""

    trials: Annotated[int, Option("learning rates to try (%(default)s)", group="search")] = 10
    lr_min: Annotated[float, Option("(%(default)s)")] = 1e-4
    lr_max: Annotated[float, Option("(%(default)s)")] = 1e-2
    metric: Annotated[Metric, Option("of the validation crops; the largest wins")] = "one_minus_ned"
    cpus_per_trial: Annotated[float, Option("(%(default)s)")] = 1
    gpus_per_trial: Annotated[float, Option("(%(default)s)")] = 0
    address: Annotated[str, Option("of a Ray cluster, or auto; default: this machine alone")] = "local"


@dataclass(frozen=True, slots=True)
class TrialResult:
    """The result of one learning rate."""

    trial: str
    lr: float
    steps: int
    one_minus_ned: float
    accuracy: float


class ReportValidation(Callback):
    """Tells the scores of each validation."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Report, after the scores have been logged."""
        scores = {name: float(trainer.callback_metrics[name]) for name in get_args(Metric)}
        self.report({"steps": trainer.global_step, **scores})


def first_rates(low: float, high: float, trials: int) -> list[float]:
    """Learning rates to begin with: evenly spread over the range on a logarithmic scale, both ends included."""
    count = min(trials, math.ceil(math.log10(high / low)) + 1)
    if count == 1:
        return [math.sqrt(low * high)]
    return [low * (high / low) ** (index / (count - 1)) for index in range(count)]


def run_trial(words: list[str], rate: float, output: Path, report: Report) -> None:
    """One run of the training job with the learning rate `rate`, from its last checkpoint if it has one."""
    options, trainer_options = parse(TuneOptions, words, "parseq-tune")
    options = replace(options, lr=rate, output=output, resume=True)
    # Several progress bars at once cannot be read.
    train(options, {"enable_progress_bar": False, **trainer_options}, [ReportValidation(report)])


def search_with_ray(args: TuneOptions, words: list[str]) -> list[TrialResult]:
    """Run all trials.

    Raises:
        DataError: A trial failed, or the search cannot be resumed.
    """
    if (args.output / SEARCH_FOLDER).exists() and not args.resume:
        raise DataError(f"{args.output} already holds a search: add --resume to go on, or choose another --output")
    # Trials need the working directory, since paths may be relative; and Ray shall report no usage.
    os.environ.update(RAY_CHDIR_TO_TRIAL_DIR="0", RAY_USAGE_STATS_ENABLED="0")
    try:
        import ray
        from ray import tune
    except ModuleNotFoundError:
        raise DataError("Ray is not installed: it is the extra `tune`, pip install -c constraints.txt -e '.[tune]'") from None

    output = args.output.absolute()
    local = {"_node_ip_address": "127.0.0.1", "include_dashboard": False} if args.address == "local" else {}
    ray.init(address=args.address, log_to_driver=False, **local)
    try:
        tuner = _tuner(args, words, output, tune)
        grid = tuner.fit()
    finally:
        ray.shutdown()
    if grid.errors:
        raise DataError(f"a trial failed: {_last_line(grid.errors[0])}; details are in {output / SEARCH_FOLDER}")
    return [
        TrialResult(
            result.metrics["trial_id"],
            result.config["lr"],
            result.metrics["steps"],
            result.metrics["one_minus_ned"],
            result.metrics["accuracy"],
        )
        for result in grid
        if result.metrics and "steps" in result.metrics
    ]


def _tuner(args: TuneOptions, words: list[str], output: Path, tune: Any) -> Any:
    def trial(config: dict[str, float]) -> None:
        folder = output / "trials" / tune.get_context().get_trial_id()
        run_trial(words, config["lr"], folder, tune.report)

    trainable = tune.with_resources(trial, {"cpu": args.cpus_per_trial, "gpu": args.gpus_per_trial})
    record = str(output / SEARCH_FOLDER)
    if tune.Tuner.can_restore(record):
        return tune.Tuner.restore(record, trainable, resume_unfinished=True, restart_errored=True)
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search import BasicVariantGenerator

    start = [{"lr": rate} for rate in first_rates(args.lr_min, args.lr_max, args.trials)]
    return tune.Tuner(
        trainable,
        param_space={"lr": tune.loguniform(args.lr_min, args.lr_max)},
        tune_config=tune.TuneConfig(
            metric=args.metric,
            mode="max",
            num_samples=args.trials,
            search_alg=BasicVariantGenerator(points_to_evaluate=start, random_state=args.seed),
            # Trials that are behind after a quarter, and again later, are stopped.
            scheduler=ASHAScheduler(
                time_attr="steps", max_t=args.steps, grace_period=max(1, args.steps // 4), reduction_factor=2
            ),
        ),
        run_config=tune.RunConfig(name=SEARCH_FOLDER, storage_path=str(output), verbose=1),
    )


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]


def write_results(results: list[TrialResult], metric: str, path: Path) -> list[TrialResult]:
    """Write all trials as CSV, the best first; also returns them so."""
    ranked = sorted(results, key=lambda result: getattr(result, metric), reverse=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", "lr", "steps", "one_minus_ned", "accuracy"])
        writer.writerows([r.trial, r.lr, r.steps, r.one_minus_ned, r.accuracy] for r in ranked)
    return ranked


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    args, _ = parse(TuneOptions, words, "parseq-tune", __doc__)
    try:
        if not 0 < args.lr_min < args.lr_max or args.trials < 1:
            raise ConfigError("--lr-min must be positive and less than --lr-max, and --trials at least 1")
        results = search_with_ray(args, words)
        if not results:
            raise DataError("no trial was validated: give --validation or other validation crops")
    except (ConfigError, DataError, WeightsError, DownloadError, DivergedError) as error:
        print(f"parseq-tune: {error}", file=sys.stderr)
        return 2
    table = args.output / "trials.csv"
    for result in write_results(results, args.metric, table):
        print(f"lr {result.lr:.3g}: 1 - NED {result.one_minus_ned:.4f}, accuracy {result.accuracy:.4f}, {result.steps} steps")
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
