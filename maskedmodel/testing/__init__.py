"""The conformance kit: what a plugin author runs, and what this project's own tests begin with.

    from maskedmodel.testing import parametrize_checks

    @parametrize_checks([ECG, ECG(leads=3)])
    def test_conformance(check):
        check()

`maskedmodel plugins check NAME` runs the same checks without pytest. They are plain functions named check_*, in the
modules below. A check takes a component, returns where all is well, and raises CheckFailed, whose message needs no look
at the check's code, or NotApplicable, which says why there is nothing to check. Nothing else comes out: an error inside
a component is a finding. Checks of a kind rest on a first one, which is told alone where it fails.

What is checked:

    every kind      builds from its settings; name its own; settings described, strict, equal after JSON and pickle, and
                    enough to build it again; importing its module imports nothing heavy
    tokenizer       finite signals, tokens of token_width values (check_basics, on which the others rest); example,
                    prepare, augment and collate are pure and keep samples apart; inputs kept; the picture in [0, 1] and
                    the footprint on the pixels that it names; what is left out not drawn; axes, coordinates, grid and
                    channels agree; ids below the vocabulary, and embedded by a table; embedding and head treat tokens
                    one by one; tokens partition the signal and give it back; padding and absent values are marked;
                    samples independent; types and devices kept; wrong shapes refused; a tiny model learns
    mask scheduler  masks or clear refusals for tokens of every layout; ratio, count and polarity; padding; a pure
                    function of noise and progress; every token hidden and seen; what is learnt; FLOPs as torch counts
    objective       width (on which the others rest) and shape; clear refusals; zero at the target, finite, with
                    gradient; tokens independent; the way back; baseline; purity; a tiny model learns
    data source     opens (on which the others rest); samples, ids, labels; the same again, backwards and in workers
    callback        takes what a run shows and answers None or why to stop (check_events, on which the others rest); a
                    resumed run asks for the same, and a run with it is the same to the last bit

No check draws from a global generator, and none may. What a component declares to the kit:

    round_trip_tolerance   tokenizer, a number: how far detokenize(tokenize(x)) may be from x, as a share of the largest
                           value; exact where it isn't there
    overlapping            tokenizer, True: values stand in several tokens; partition and round trip are waived
    accepts_nan            tokenizer, True: NaN says that a value is absent; the kit puts some in
    leaves_out             tokenizer, True: hidden tokens are left out of pictures, not drawn in grey
    vocabulary             tokenizer, a number above 0: values are ids below it, and no amounts
    deterministic          mask scheduler, True: every epoch gives the same mask, by design
    zero_at_target         objective, False: the target itself is no perfect prediction (logits for a class, say), and
                           only has to score less than chance
    example_tokenizer      objective or mask scheduler, classmethod() -> tokenizer: what to check it with where it
                           refuses the kit's own; the tokenizers of its plugin are tried without being named
    example_settings       any, classmethod(folder) -> settings: what to check it with where its settings have no
                           defaults, or where the defaults need files; it may write what it needs into the folder
"""

from __future__ import annotations

from maskedmodel.testing.building import built
from maskedmodel.testing.rules import CheckFailed, NotApplicable
from maskedmodel.testing.runner import Check, Result, checks_of, parametrize_checks, run_check, run_checks

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
