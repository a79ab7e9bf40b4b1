"""`maskedmodel probe` and `maskedmodel embed`: what an encoder is worth, and its features."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from maskedmodel import __version__
from maskedmodel.commands.data import READING, datasets_of, how_to_read
from maskedmodel.commands.encoders import Given, named
from maskedmodel.commands.encoders import opened as opened_encoders
from maskedmodel.commands.run import opened, opened_any, run_probe
from maskedmodel.components import DataSource, Tokenizer
from maskedmodel.config.build import build_components
from maskedmodel.config.load import difference, load_config
from maskedmodel.config.sections import RunConfig
from maskedmodel.errors import ConfigError, DataError
from maskedmodel.evaluation import features as feature_files
from maskedmodel.evaluation.probes import ProbeResult, probe_encoders
from maskedmodel.files import path_of
from maskedmodel.noise import stable_hash
from maskedmodel.plugins import load_registry
from maskedmodel.report.page import write as write_report
from maskedmodel.training.data import Reading, eval_batches
from maskedmodel.training.distributed import pick_device
from maskedmodel.training.fitting import STATISTICS_SAMPLES, fit_all
from maskedmodel.training.folder import FREE, write_json
from maskedmodel.training.tracking import Display


def probe(
    run: str | Path,
    *,
    overrides: Sequence[str] = (),
    probes: Sequence[str] | None = None,
    encoders: Given | Sequence[Given] | Mapping[str, Given] = (),
    quiet: bool = False,
) -> ProbeResult:
    """k-NN, a linear probe and others on a run's encoder, next to random weights and plain features. Writes probe.json.

    `probes` are names as of the setting evaluate.probes, in its place. `overrides` such as "data.label=speaker" and
    "evaluate.protocol=folds" probe the encoder on other data or in another way. `encoders` are judged on the same data,
    on the same page: folders of transformers, timm or ours, or functions from prepared values to (B, D). With them
    `run` may be a config of data, too, and then nothing is written. A result of anything but a run's own data, encoder
    and probes goes to a file named after what differs.
    """
    chosen = [] if probes is None else [f"evaluate.probes=[{', '.join(probes)}]"]
    others = named(encoders)
    if others and not is_run(run):
        return _probe_data(run, [*overrides, *chosen], others, quiet)
    folder, config, registry, model, device = opened(run)
    changed = load_config(folder / "config.yaml", [*overrides, *chosen], registry=registry, needs_data=not config.data)
    fixed = [where for where, _, _ in difference(config, changed) if not where.startswith(("data", *FREE, *READING))]
    if fixed:
        raise ConfigError(
            "A probe can't change what the encoder was trained with.",
            where=fixed[0],
            expected="settings of data and evaluate",
            fix="Leave that out, or pretrain with it.",
        )
    alone = probes is not None and not {"knn", "linear"} <= set(changed.evaluate.probes)
    beside = opened_encoders(others, model.tokenizer, changed, device, registry)
    about = " ".join([*overrides, *(chosen if alone else ()), *(f"encoder {name}" for name in others)])
    source = build_components(changed, registry).source
    result = replace(run_probe(changed, model, source, device, quiet, beside), about=about)
    name = re.sub(r"[^\w.-]+", "-", about).strip("-.")
    if len(name) > 80:  # cut, but still another one for other settings
        name = f"{name[:70].strip('-.')}-{stable_hash(about) & 0xFFFFFFFF:08x}"
    write_json(folder / (f"probe-{name}.json" if name else "probe.json"), result.to_dict())
    write_report(folder)
    return result


def is_run(path: str | Path) -> bool:
    """Whether this is a run's folder, or one of its checkpoints, and no config."""
    folder = path_of(path)
    return any((place / "config.yaml").is_file() for place in (folder, folder.parent.parent))


def _probe_data(config: str | Path, overrides: Sequence[str], others: Mapping[str, Given], quiet: bool) -> ProbeResult:
    """Encoders of others on the data of a config, whose tokenizer prepares the samples."""
    registry = load_registry()
    settled = load_config(str(config), overrides, registry=registry)
    parts = build_components(settled, registry)
    device = pick_device(settled.train.device)
    tokenizer, reading = parts.tokenizer.to(device), Reading.of(settled.train, device)
    beside = opened_encoders(others, tokenizer, settled, device, registry)
    fit_all(tokenizer, parts.scheduler, lambda: prepared(parts.source, tokenizer, reading))
    with Display("looking", 1, quiet=quiet) as display:
        return probe_encoders(
            beside,
            tokenizer,
            parts.source,
            settled.evaluate,
            reading,
            seed=settled.train.seed,
            progress=display.phase,
        )


def prepared(source: DataSource[Any], tokenizer: Tokenizer[Any], reading: Reading) -> Iterator[Tensor]:
    """Prepared batches of the training part, as statistics are measured on."""
    found = eval_batches(source.open("train"), tokenizer, replace(reading, limit=STATISTICS_SAMPLES))
    return (batch.signal for batch in found)


def embed(
    run: str | Path,
    data: str | Path,
    *,
    to: str | Path,
    overrides: Sequence[str] = (),
    pool: feature_files.Kind | None = None,
    layer: int | Literal["last"] = "last",
    quiet: bool = False,
) -> Path:
    """One feature vector per sample, or per token, to a .parquet, .npz or .csv file.

    `data` is "train" or "val", a split of the run's own data; a file that the run's data source reads as one sample; or
    the path of other data, all of which is read by the run's kind of data source, or by the one installed source that
    knows such files. `overrides` such as "data.name=image_folder" say which, and set its settings; others say how
    samples are read, such as "train.on_bad_sample=skip".

    pool   "mean" over the tokens, the "class" token, "concat", the two behind each other, or "tokens": a row for each
           token. Default: evaluate.pool of the run; of a fine-tuned one the mean.
    layer  after which of the encoder's blocks: 1 to its depth, or -1 to -depth from the end. The last one's features
           are those after the final LayerNorm; earlier ones' are as the block gives them.

    What was done stands in the file as JSON: in parquet's metadata under "maskedmodel", in an npz as the text `about`,
    of a csv in NAME.csv.json beside. Raises ShapeError, before any data is read, where the encoder has no such layer or
    class token; DataError where the features can't be written.
    """
    target = feature_files.check_target(path_of(to, DataError))
    _, config, registry, model, _ = opened_any(run)
    config, others = how_to_read([data], config, registry, overrides)
    device = pick_device(config.train.device)
    model = model.to(device)
    pool = pool or (config.evaluate.pool if isinstance(config, RunConfig) else "mean")
    if pool != "tokens":
        model.require_pool(pool)
    model.layer_of(layer)
    found = []
    with Display("looking", 1, quiet=quiet) as display:
        for dataset in datasets_of([data], config, registry, others):
            found.append(
                feature_files.extract(
                    model,
                    dataset,
                    Reading.of(config.train, device),
                    pool=pool,
                    layer=layer,
                    progress=lambda done, total: display.phase("embedding", done, total),
                )
            )
    about = {
        "maskedmodel": __version__,
        "run": str(path_of(run).absolute()),
        "data": str(data),
        "overrides": list(overrides),
        "pool": pool,
        "layer": layer,
        "depth": model.settings.encoder.depth,
        "width": found[0].values.shape[1],
    }
    return feature_files.save(feature_files.joined(found), target, about)
