"""The conformance kit: what a plugin author runs, and what this project's own tests begin with.

    from maskedmodel.testing import parametrize_checks

    @parametrize_checks([ECG, ECG(leads=3)])
    def test_conformance(check):
        check()

`maskedmodel plugins check NAME` runs the same checks without pytest. They are plain functions named check_*, in
the modules tokenizers, signals, schedulers, objectives, sources, training and, for every kind, components. A check
takes a component, returns where all is well, and raises CheckFailed, whose message needs no look at the check's code,
or NotApplicable, which says why there is nothing to check. What a component declares to the kit:

    round_trip_tolerance   tokenizer, a number: how far detokenize(tokenize(x)) may be from x, as a share of the largest
                           value; exact where it isn't there
    deterministic          mask scheduler, True: every epoch gives the same mask, by design
    example_settings       any, classmethod(folder) -> settings: what to check it with where its settings have no
                           defaults, or where the defaults need files; it may write what it needs into the folder
"""

from __future__ import annotations

from maskedmodel.testing.rules import CheckFailed, NotApplicable
from maskedmodel.testing.runner import Check, Result, built, checks_of, parametrize_checks, run_check, run_checks

__all__ = [
    "Check",
    "CheckFailed",
    "NotApplicable",
    "Result",
    "built",
    "checks_of",
    "parametrize_checks",
    "run_check",
    "run_checks",
]
