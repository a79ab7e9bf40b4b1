"""Which of the exact kernels is fastest on this machine: measured once for each class of shapes, and kept in a file.

No name of a processor decides: torch's own product and oneDNN's, the plain attention and the fused one are timed in
turns, for some tenths of a second, when the first model of a class is built. Whoever writes the file first settles it
for all processes, so that runs on a machine are the same to the bit. `MASKEDMODEL_KERNELS` settles it by hand.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from maskedmodel.engine import kernels
from maskedmodel.engine.kernels import Attention
from maskedmodel.errors import ConfigError
from maskedmodel.files import folder_beside, replacing

T = TypeVar("T")
VARIABLE = "MASKEDMODEL_KERNELS"
FOLDER_VARIABLE = "MASKEDMODEL_CACHE"
_HOW = "product:torch or onednn, attention:plain, fused or a number of keys, such as product:onednn,attention:64"
_SHAPES = ((64, 256, 512), (256, 1024, 256), (768, 3072, 96))  # inputs, outputs, rows: of each class of widths
_KEYS = (24, 48, 96, 200, 400)
_MARGIN = 1.05  # a kernel that isn't torch's own has to be so many times as fast
_SECONDS, _TURNS = 0.12, 5  # that a measurement may take, once each was timed so often


def settle(widths: Iterable[int]) -> None:
    """Choose the kernels for products of these widths and for attention, unless they are chosen already."""
    if _by_hand():
        return
    if kernels.chosen_attention is None:
        kernels.chosen_attention = _kept("attention", _measured_attention, _read_attention)
    for number in sorted({kernels.width_class(width) for width in widths}):
        if number not in kernels.chosen_products:
            measure = partial(_measured_product, number)
            kernels.chosen_products[number] = _kept(f"product-{number}", measure, _read_product)


@cache
def _by_hand() -> bool:
    """Obey the variable, if it is set. Raises ConfigError where it can't be understood."""
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return False
    given = {name.strip(): choice.strip() for name, _, choice in (part.partition(":") for part in text.split(","))}
    product, attention = given.pop("product", "torch"), given.pop("attention", "plain")
    keys = {"plain": kernels.MOST_PLAIN_KEYS, "fused": 0}.get(
        attention, int(attention) if attention.isdigit() else None
    )
    if given or product not in ("torch", "onednn") or keys is None:
        raise ConfigError("The choice of kernels can't be understood.", where=VARIABLE, expected=_HOW, got=text)
    if product == "onednn" and not kernels.has_operator():
        raise ConfigError("This torch has no oneDNN.", where=VARIABLE, expected="product:torch", got=text)
    kernels.chosen_attention = Attention(keys, contiguous=product == "torch")
    kernels.chosen_products.update(kernels.everywhere(product == "onednn"))
    return True


def described() -> dict[str, str]:
    """What is chosen, in words, for `maskedmodel doctor`; all classes are settled first."""
    settle(shape[0] for shape in _SHAPES)
    names = ("below 128", "of 128 to 511", "of 512 and more")
    own = {number: "oneDNN's" if chosen else "torch's own" for number, chosen in kernels.chosen_products.items()}
    attention = kernels.chosen_attention
    assert attention is not None
    plain = f"the plain product up to {attention.plain_keys} keys, then " if attention.plain_keys else ""
    where = (
        f"set by {VARIABLE}" if _by_hand() else f"measured, kept in {_folder()}" if _folder() else "measured, not kept"
    )
    return {
        **{f"products of widths {names[number]}": own[number] for number in sorted(own)},
        "attention": f"{plain}the fused kernel{', on copies' if attention.contiguous else ''}",
        "chosen": where,
    }


def in_use() -> dict[str, Any]:
    """What is chosen, as a checkpoint keeps it."""
    attention = kernels.chosen_attention
    return {
        "machine": _machine(),
        "products": {str(number): chosen for number, chosen in kernels.chosen_products.items()},
        "attention": None if attention is None else attention._asdict(),
    }


def take_up(kept: Any) -> None:
    """Go on with what a checkpoint of this machine was made by, so that a resumed run is a straight one to the bit."""
    if not isinstance(kept, dict) or kept.get("machine") != _machine() or _by_hand():
        return
    kernels.chosen_products.update({int(number): bool(chosen) for number, chosen in kept["products"].items()})
    if kept["attention"] is not None:
        kernels.chosen_attention = Attention(**kept["attention"])


@cache
def _machine() -> str:
    """What a choice holds for: a processor and a torch."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else [platform.processor()]
    processor = next((line for line in lines if line.startswith("model name")), platform.machine())
    flags = next((line for line in lines if line.startswith("flags")), "")
    known = (processor, flags, torch.backends.cpu.get_cpu_capability(), torch.__version__)
    return hashlib.sha256("\n".join(known).encode()).hexdigest()[:16]


@cache
def _folder() -> Path | None:
    """Where choices are kept; None where nothing can be written."""
    given = os.environ.get(FOLDER_VARIABLE) or os.environ.get("XDG_CACHE_HOME")
    with suppress(OSError, RuntimeError):  # RuntimeError: a user without a home
        folder = (Path(given) if given else Path.home() / ".cache") / "maskedmodel"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    return None


def _kept(name: str, measure: Callable[[], T], read: Callable[[Any], T]) -> T:
    """What the machine's file says; measured where there is none. The first to write a file settles it for all."""
    folder = _folder()
    if folder is None:
        return _undisturbed(measure)
    path = folder / f"kernels-{_machine()}-{name}.json"
    damaged = (OSError, ValueError, TypeError, KeyError)
    with suppress(*damaged):
        return read(json.loads(path.read_text()))
    found = _undisturbed(measure)
    with suppress(OSError):
        with folder_beside(path) as own:  # a link, unlike a rename, fails where another process was quicker
            (own / "chosen").write_text(json.dumps({"chosen": found}))
            with suppress(FileExistsError):
                os.link(own / "chosen", path)
        with suppress(*damaged):
            return read(json.loads(path.read_text()))
        with replacing(path) as file:
            file.write(json.dumps({"chosen": found}).encode())
    return found


def _undisturbed(measure: Callable[[], T]) -> T:
    """Measure, though a model may be built in inference mode, or under autocast.

    With one thread: several wait for each other whenever the machine has other work, and all of their waiting counts.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
            return measure()
    finally:
        torch.set_num_threads(threads)


def _read_product(kept: Any) -> bool:
    return bool({True: True, False: False}[kept["chosen"]])


def _read_attention(kept: Any) -> Attention:
    keys, contiguous = kept["chosen"]
    if type(keys) is not int or type(contiguous) is not bool:
        raise TypeError
    return Attention(keys, contiguous)


def _measured_product(number: int) -> bool:
    if not kernels.has_operator():
        return False
    inputs, outputs, rows = _SHAPES[number]
    x, weight, bias, slope = _values((rows, inputs), (outputs, inputs), (outputs,), (rows, outputs))
    asked = [tensor.requires_grad_() for tensor in (x, weight, bias)]

    def timed(product: Callable[..., Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(product(*asked), asked, slope)

    own, onednn = fastest_of([timed(torch.nn.functional.linear), timed(kernels.onednn_linear)])
    return own > _MARGIN * onednn


def _measured_attention() -> Attention:
    plain_keys, copies = 0, []
    for keys in _KEYS:
        plain, fused, copied = fastest_of(_attention_steps(keys))
        copies.append(fused > _MARGIN * copied)
        if plain * _MARGIN >= min(fused, copied):  # and so for longer rows, whose scores leave the cache
            break
        plain_keys = keys
    return Attention(plain_keys, contiguous=copies[-1])


def _attention_steps(keys: int) -> list[Callable[[], object]]:
    """The plain, the fused and the copied attention of some rows, forward and backward, from a joint projection."""
    rows, heads, dim = max(1, 2048 // keys), 2, 32
    joint, slope = _values((rows, keys, 3 * heads * dim), (rows, heads, keys, dim))
    joint.requires_grad_()

    def timed(attend: Callable[..., Tensor]) -> Callable[[], object]:
        def step() -> object:
            parts = (part.view(rows, keys, heads, dim).transpose(1, 2) for part in joint.chunk(3, -1))
            return torch.autograd.grad(attend(*parts), joint, slope)

        return step

    return [timed(kind) for kind in (kernels.plain_attention, kernels.fused_attention, kernels.copied_attention)]


def _values(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    # Explicitly, since a model may be built for another device or type.
    return [torch.randn(shape, generator=generator, device="cpu", dtype=torch.float32) for shape in shapes]


def fastest_of(steps: list[Callable[[], object]]) -> list[float]:
    """The shortest time of each, in seconds, taken in turns: what else the machine does only makes one longer.

    Processor time, since time on the clock goes by while others have the processor.
    """
    best = [float("inf")] * len(steps)
    for step in steps:  # the first call sets things up
        step()
    end, turns = time.perf_counter() + _SECONDS, 0
    while turns < _TURNS or time.perf_counter() < end:
        for place, step in enumerate(steps):
            begun = time.process_time()
            step()
            best[place] = min(best[place], time.process_time() - begun)
        turns += 1
    return best
