"""`maskedmodel reconstruct` and `maskedmodel preview`: what a model completes, and what a config hides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from maskedmodel.commands.data import how_to_read, read_file
from maskedmodel.commands.run import Config, draw, opened, pictures_folder, some_samples
from maskedmodel.config.build import build_components, source_of
from maskedmodel.config.load import load_config
from maskedmodel.engine.model import MaskedAutoencoder
from maskedmodel.errors import DataError
from maskedmodel.evaluation import reconstruct as pictures
from maskedmodel.evaluation.canvas import save_png
from maskedmodel.files import path_of
from maskedmodel.noise import seeded
from maskedmodel.plugins import load_registry
from maskedmodel.report.page import write as write_report
from maskedmodel.training.checkpoint import newest, read_state
from maskedmodel.training.data import Reading, eval_batches, tell_notes
from maskedmodel.training.fitting import fit_all
from maskedmodel.training.folder import notices


def reconstruct(
    run: str | Path,
    files: Sequence[str | Path] = (),
    *,
    mode: str | None = None,
    out: str | Path | None = None,
    count: int = 8,
    overrides: Sequence[str] = (),
) -> Path:
    """A picture: original, masked, reconstruction, and the same with visible patches pasted in.

    Of `files`, read by the run's data source or as `overrides` say, such as data.name=tiff_folder; or of `count`
    validation samples.
    """
    folder, config, registry, model, device = opened(run)
    captions = [Path(file).name for file in files] or None
    config, left = how_to_read(files or ("val",), config, registry, overrides)
    if files:
        samples = [read_file(path_of(file, DataError), config, registry, left) for file in files]
        tell_notes(Counter(note for sample in samples for note in sample.get("notes", ())), len(samples))
        prepared = [model.tokenizer.prepare(sample["signal"][None].to(device))[0] for sample in samples]
        signals, ids = model.tokenizer.collate(prepared), [sample["id"] for sample in samples]
        model.tokenizer.channel_names = channel_names([sample.get("channels", ()) for sample in samples])
    else:
        source = source_of(config, registry)
        signals, ids = some_samples(source, model.tokenizer, config, count, device)
        model.tokenizer.channel_names = source.channel_names() or ()
    chosen = pictures.pick_mode(model, mode)
    path = Path(out) if out is not None else pictures_folder(folder) / f"reconstruction-{chosen}.png"
    step = read_state(newest(folder))["step"]
    draw(model, signals, ids, path, config, step, chosen, captions)
    write_report(folder)
    return path


def channel_names(of_samples: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """One name for each channel number of several samples: all of them where samples differ."""
    most = max(map(len, of_samples), default=0)
    every = [dict.fromkeys(names[number] for names in of_samples if number < len(names)) for number in range(most)]
    return tuple(" or ".join(names) for names in every)


def preview(config: Config = None, *, overrides: Sequence[str] = (), out: str | Path | None = None) -> Path:
    """A picture of a config's tokens and masks on its own data, before anything is trained.

    The model is built as a run builds it, since a scheduler may have a network or look through the encoder, and refuses
    tokens that it can't mask. Its weights are fresh.
    """
    registry = load_registry()
    resolved = load_config(config, overrides, registry=registry)
    parts = build_components(resolved, registry)
    with seeded(resolved.train.seed):
        MaskedAutoencoder(parts.tokenizer, parts.scheduler, parts.objective, resolved.model)
    reading = Reading.of(resolved.train, batch=4, limit=4)
    batches = eval_batches(parts.source.open("train"), parts.tokenizer, reading)
    batch = next(iter(batches))
    notices(parts.source)
    fit_all(parts.tokenizer, parts.scheduler, lambda: [batch.signal])
    assert batch.stored is not None
    batch.signal = parts.tokenizer.prepare(batch.stored)  # with what was measured
    parts.tokenizer.channel_names = parts.source.channel_names() or ()
    image = pictures.preview(parts.tokenizer, parts.scheduler, batch.signal, batch.ids, seed=resolved.train.seed)
    return save_png(image, Path(out) if out is not None else Path("preview.png"))
