"""PLY files: the vertices of any of its three encodings (Turk 1994)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from maskedmodel.errors import DataError
from maskedmodel.sources import parsing

Array = np.ndarray[Any, np.dtype[Any]]
_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"float": "f4", "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2"},
    **{"int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8"},
}
_ORDER = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


@dataclass(frozen=True)
class Element:
    """A part of a file: its name, how many there are, names and types of its numbers; a list has the type None."""

    name: str
    count: int
    properties: Sequence[tuple[str, str | None]]


@dataclass(frozen=True)
class Header:
    order: str
    elements: Sequence[Element]
    length: int  # of the header, in bytes

    @property
    def faces(self) -> int:
        """How many faces the file says it has: it then is a surface, and no cloud."""
        return sum(e.count for e in self.elements if e.name in ("face", "tristrips"))


def read_header(content: bytes, name: str) -> Header:
    """Raises DataError where the header isn't that of a PLY file."""
    found = re.match(rb"ply\r?\n.*?^end_header\r?\n", content, re.DOTALL | re.MULTILINE)
    if found is None:
        raise DataError("The file is no PLY.", where=name, expected="a header from ply to end_header")
    order, elements = None, list[Element]()
    with parsing("The PLY header can't be read.", name):
        for line in found[0].decode("ascii", "replace").splitlines():
            match line.split():
                case ["format", kind, _]:
                    order = _ORDER[kind]
                case ["element", part, count]:
                    if int(count) < 0:
                        raise ValueError(f"a count of {count}")
                    elements.append(Element(part, int(count), []))
                case ["property", "list", _, _, own]:
                    elements[-1] = _with(elements[-1], own, None)
                case ["property", kind, own]:
                    elements[-1] = _with(elements[-1], own, _TYPES[kind])
    if order is None:
        raise DataError("The PLY header says no format.", where=name, expected=", ".join(_ORDER))
    return Header(order, elements, found.end())


def _with(element: Element, name: str, kind: str | None) -> Element:
    return Element(element.name, element.count, [*element.properties, (name, kind)])


def read_ply(content: bytes, name: str) -> tuple[Array, dict[str, Array]]:
    """Points (N, 3) and the other numbers (N,) of each vertex, by name. Raises DataError where there are none."""
    header = read_header(content, name)
    before, vertex = list[Element](), None
    for element in header.elements:
        if element.name == "vertex":
            vertex = element
            break
        before.append(element)
    if vertex is None or not {"x", "y", "z"} <= {own for own, _ in vertex.properties} or not vertex.count:
        got = ", ".join(f"{e.count} {e.name} of {' '.join(own for own, _ in e.properties)}" for e in header.elements)
        raise DataError(
            "The PLY holds no points.", where=name, expected="vertices of x, y, z", got=got or "no elements"
        )
    if any(kind is None for element in (*before, vertex) for _, kind in element.properties):
        raise DataError("The PLY has lists before the end of its vertices.", where=name, expected="vertices first")
    with parsing("The PLY can't be read.", name, expected=f"{vertex.count} vertices"):
        rows = _lines if header.order == "" else _bytes
        columns = rows(content[header.length :], header.order, before, vertex)
    others = {own: column for own, column in columns.items() if own not in ("x", "y", "z")}
    return np.stack([columns[axis] for axis in "xyz"], 1), others


def _bytes(body: bytes, order: str, before: Sequence[Element], vertex: Element) -> dict[str, Array]:
    start = sum(_packed(element, order).itemsize * element.count for element in before)
    rows = np.frombuffer(body, _packed(vertex, order), vertex.count, start)
    return {own: rows[own] for own, _ in vertex.properties}


def _packed(element: Element, order: str) -> np.dtype[Any]:
    return np.dtype([(own, f"{order}{kind}") for own, kind in element.properties])


def _lines(body: bytes, order: str, before: Sequence[Element], vertex: Element) -> dict[str, Array]:
    lines = [line.split() for line in body.splitlines() if line.strip()]
    start = sum(element.count for element in before)
    rows = np.array(lines[start : start + vertex.count], np.float64)
    if rows.shape != (vertex.count, len(vertex.properties)):
        raise ValueError(f"{len(rows)} lines of vertices")
    return {own: rows[:, number] for number, (own, _) in enumerate(vertex.properties)}
