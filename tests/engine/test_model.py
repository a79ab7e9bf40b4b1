from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from maskedmodel import Mask, MaskedAutoencoder
from maskedmodel.engine.model import from_visible
from maskedmodel.engine.settings import PRESETS, DecoderSettings, EncoderSettings
from maskedmodel.errors import CheckpointError, PluginError, ShapeError
from tests.engine.conftest import Box, Ragged, model_of, noise

SIZES = {1: ((24,), (3,)), 2: ((8, 12), (2, 3)), 3: ((4, 6, 4), (2, 2, 2))}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no class token": {"encoder": {"class_token": False}},
    "registers": {"encoder": {"registers": 3}},
    "one decoder block": {"decoder": {"depth": 1}},
    "learned": {"encoder": {"positions": "learned"}, "decoder": {"positions": "learned"}},
    "table": {"encoder": {"positions": "table"}, "decoder": {"positions": "table"}},
    "rotary": {"encoder": {"positions": "rotary"}, "decoder": {"positions": "rotary"}},
    "mlp": {"encoder": {"positions": "mlp"}, "decoder": {"positions": "mlp"}},
    "repeated": {"encoder": {"repeat_positions": True}, "decoder": {"repeat_positions": True}},
    "repeated, mlp, cross": {
        "encoder": {"positions": "mlp", "repeat_positions": True, "registers": 2},
        "decoder": {"positions": "mlp", "repeat_positions": True, "attention": "cross"},
    },
    "cross": {"decoder": {"attention": "cross"}},
    "cross, one block, rotary": {"decoder": {"attention": "cross", "depth": 1, "positions": "rotary"}},
}


def signal(tokenizer: Box, batch: int = 3, seed: int = 0) -> Tensor:
    shape = (batch, tokenizer.channels, *tokenizer.size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Textbook:
    """The method as a textbook has it: embed all, drop hidden tokens, put mask tokens back in raster order, decode
    and predict everywhere, average over hidden tokens. Only the parameters are ours."""

    def __init__(self, model: MaskedAutoencoder) -> None:
        self.model = model

    def attention(self, block: Any, x: Tensor, context: Tensor, angles: Any, key_valid: Tensor | None) -> Tensor:
        if hasattr(block, "qkv"):
            q, k, v = block.qkv(block.norm1(x)).chunk(3, -1)
        else:
            q, (k, v) = block.q(block.norm1(x)), block.kv(context).chunk(2, -1)

        def split(t: Tensor) -> Tensor:
            return t.reshape(*t.shape[:2], block.heads, -1).transpose(1, 2)

        q, k, v = split(q), split(k), split(v)
        if angles is not None:
            q, k = rotated(q, angles[0]), rotated(k, angles[1])
        weights = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
        if key_valid is not None:
            weights = weights.masked_fill(~key_valid[:, None, None], -1e30)
        return block.proj((weights.softmax(-1) @ v).transpose(1, 2).flatten(2))

    def block(self, block: Any, x: Tensor, context: Tensor, angles: Any, key_valid: Tensor | None) -> Tensor:
        x = x + self.attention(block, x, context, angles, key_valid)
        return x + block.mlp.fc2(nn.functional.gelu(block.mlp.fc1(block.norm2(x))))

    def loss(self, x: Tensor, mask: Mask) -> Tensor:
        model, encoder, decoder = self.model, self.model.encoder, self.model.decoder
        tokens = model.tokenizer.tokenize(x)
        batch, length = tokens.batch, tokens.length
        places = encoder.places(tokens.coords, tokens.grid, tokens.channel).expand(batch, length, -1)
        embedded = encoder.embed(tokens.values) + places
        coords = tokens.coords.double()

        def angles_of(kind: str, width: int, indices: Tensor, prefix: int) -> Tensor | None:
            if kind != "rotary":
                return None
            share = width // 2 // coords.shape[1]
            speed = 10000.0 ** -(torch.arange(share).double() / share)
            turns = (coords[:, :, None] * speed).flatten(1).float()
            turns = nn.functional.pad(turns, (0, width // 2 - turns.shape[1]))
            return torch.cat([torch.zeros(prefix, width // 2), turns[indices]])

        losses = []
        prefix = encoder.prefix
        for row in range(batch):  # a sample at a time, so nothing can leak between rows
            keep = (~mask.hidden[row]).nonzero()[:, 0]
            if tokens.valid is not None:
                keep = (~mask.hidden[row] & tokens.valid[row]).nonzero()[:, 0]
            hidden = mask.hidden[row].nonzero()[:, 0]
            special = [t[0] for t in (encoder.class_token, encoder.registers) if t is not None]
            h = torch.cat([*special, embedded[row, keep]])[None]
            s = encoder.settings
            turn = angles_of(s.positions, s.dim // s.heads, keep, prefix)
            for number, block in enumerate(encoder.blocks):
                if number and s.repeat_positions:
                    h = torch.cat([h[:, :prefix], h[:, prefix:] + places[row, keep]], 1)
                h = self.block(block, h, h, None if turn is None else (turn, turn), None)
            latent = encoder.norm(h)

            own = decoder.places(tokens.coords, tokens.grid, tokens.channel).expand(length, -1)
            d = decoder.settings
            if d.attention == "self":
                z = decoder.embed(latent)
                real = torch.cat([keep, hidden]).sort().values
                full = (decoder.mask_token[0] + own).clone()
                full[keep] = z[0, prefix:] + own[keep]
                full = torch.cat([z[0, :prefix], full[real]])[None]
                turn = angles_of(d.positions, d.dim // d.heads, real, prefix)
                for number, block in enumerate(decoder.blocks):
                    if number and d.repeat_positions:
                        full = torch.cat([full[:, :prefix], full[:, prefix:] + own[real]], 1)
                    full = self.block(block, full, full, None if turn is None else (turn, turn), None)
                everywhere = decoder.head(decoder.norm(full))[0, prefix:]
                predicted = everywhere[torch.isin(real, hidden)]
            else:
                asked = (decoder.mask_token[0] + own)[hidden][None]
                width = d.dim // d.heads
                turn = angles_of(d.positions, width, hidden, 0)
                seen = angles_of(d.positions, width, keep, prefix)
                for number, block in enumerate(decoder.blocks):
                    if number and d.repeat_positions:
                        asked = asked + own[hidden]
                    asked = self.block(block, asked, latent, None if turn is None else (turn, seen), None)
                predicted = decoder.head(decoder.norm(asked))[0]
            losses.append((predicted - tokens.values[row, hidden]).square().mean(-1))
        return torch.cat(losses).mean()


def rotated(x: Tensor, angles: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    turned = torch.view_as_complex(torch.stack([x[..., :half], x[..., half:]], -1).contiguous())
    turned = turned * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([turned.real, turned.imag], -1)


def gradients(model: MaskedAutoencoder, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_equals_textbook(model: MaskedAutoencoder, x: Tensor, mask: Mask) -> None:
    ours, theirs = model(x, mask).loss, Textbook(model).loss(x, mask)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    one, other = gradients(model, ours), gradients(model, theirs)
    assert one.keys() == other.keys() == dict(model.named_parameters()).keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_equals_the_textbook(axes: int, variant: str) -> None:
    size, patch = SIZES[axes]
    tokenizer = Box(size=size, patch=patch)
    model = model_of(tokenizer, **VARIANTS[variant])
    x = signal(tokenizer)
    tokens = tokenizer.tokenize(x)
    assert_equals_textbook(model, x, model.scheduler.sample(tokens, 0.0, noise(3)))


@pytest.mark.parametrize("attention", ["self", "cross"])
def test_channels_with_tokens_of_their_own_equal_the_textbook(attention: str) -> None:
    tokenizer = Box(separate=True)
    model = model_of(tokenizer, decoder={"attention": attention})
    assert model.encoder.places.channels is not None
    x = signal(tokenizer)
    assert_equals_textbook(model, x, model.scheduler.sample(tokenizer.tokenize(x), 0.0, noise(3)))


def uneven(tokenizer: Box, counts: list[int]) -> Mask:
    tokens = tokenizer.tokenize(signal(tokenizer))
    return Mask.from_scores(noise(3).uniform(tokens.length), 0.5, None, torch.tensor(counts))


@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_that_hide_different_counts(variant: str) -> None:
    tokenizer = Box()
    assert_equals_textbook(model_of(tokenizer, **VARIANTS[variant]), signal(tokenizer), uneven(tokenizer, [3, 12, 15]))


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name not in ("learned", "table")])
def test_padding_changes_nothing(variant: str) -> None:
    tokenizer = Ragged()
    model = model_of(tokenizer, **VARIANTS[variant])
    lengths = [12, 5, 9]
    alone = []
    for width in (12, 17):
        x = tokenizer.of(lengths, width, torch.Generator().manual_seed(0))
        mask = model.scheduler.sample(tokenizer.tokenize(x), 0.0, noise(3)).check()
        # Scores are drawn by position, so the same tokens are hidden at both widths.
        assert [int(mask.hidden[row].sum()) for row in range(3)] == [9, 4, 7]
        output = model(x, mask)
        alone.append(
            [
                output.loss_per_token[row][output.mask.hidden[row].gather(0, output.mask.ids_hidden[row])]
                for row in range(3)
            ]
        )
        total = sum(float(part.detach().sum()) for part in alone[-1])
        assert float(output.loss) == pytest.approx(total / 20, rel=1e-5)
        by_itself = [
            model(x[row : row + 1, :length], mask=Mask(mask.hidden[row : row + 1, :length]))
            for row, length in enumerate(lengths)
        ]
        for row in range(3):
            torch.testing.assert_close(alone[-1][row], by_itself[row].loss_per_token[0], rtol=1e-5, atol=1e-6)
    for short, long in zip(*alone, strict=True):
        torch.testing.assert_close(short, long, rtol=1e-5, atol=1e-6)


def test_features_of_a_padded_batch_are_those_of_each_alone() -> None:
    tokenizer = Ragged()
    model = model_of(tokenizer)
    x = tokenizer.of([12, 5], 15, torch.Generator().manual_seed(0))
    for row, length in enumerate([12, 5]):
        alone = x[row : row + 1, :length]
        torch.testing.assert_close(model.encode(x)[row, :length], model.encode(alone)[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(model.embed(x)[row], model.embed(alone)[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(model.embed(x, "class")[row], model.embed(alone, "class")[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("even", [True, False])
def test_no_gradient_at_all_flows_to_hidden_values(variant: str, even: bool) -> None:
    tokenizer = Box()
    model = model_of(tokenizer, **VARIANTS[variant])
    x = signal(tokenizer).requires_grad_()
    mask = model.scheduler.sample(tokenizer.tokenize(x), 0.0, noise(3)) if even else uneven(tokenizer, [3, 12, 15])
    output = model(x, mask)
    hidden = tokenizer.detokenize(
        mask.hidden[..., None].expand(-1, -1, tokenizer.token_width).float(), tokenizer.tokenize(x)
    ).bool()
    torch.manual_seed(0)
    for result in (output.latent, output.prediction):
        (slope,) = torch.autograd.grad((result * torch.randn_like(result)).sum(), x, retain_graph=True)
        assert torch.count_nonzero(slope[hidden]) == 0
        assert torch.count_nonzero(slope[~hidden]) > 0


def test_other_hidden_values_change_nothing() -> None:
    tokenizer = Box()
    model = model_of(tokenizer)
    x, mask = signal(tokenizer), uneven(tokenizer, [3, 12, 15])
    tokens = tokenizer.tokenize(x)
    values = torch.where(mask.hidden[..., None], torch.full_like(tokens.values, 1e6), tokens.values)
    other = tokenizer.detokenize(values, tokens)
    assert torch.equal(model(x, mask).latent, model(other, mask).latent)
    assert torch.equal(model(x, mask).prediction, model(other, mask).prediction)


@pytest.mark.parametrize("variant", VARIANTS)
def test_permuting_samples_permutes_results(variant: str) -> None:
    tokenizer = Box()
    model = model_of(tokenizer, **VARIANTS[variant])
    x, order = signal(tokenizer), torch.tensor([2, 0, 1])
    mask = uneven(tokenizer, [3, 12, 15])
    one, other = model(x, mask), model(x[order], Mask(mask.hidden[order]))
    torch.testing.assert_close(one.loss, other.loss)
    torch.testing.assert_close(one.loss_per_token[order].sum(1), other.loss_per_token.sum(1))
    torch.testing.assert_close(model.encode(x)[order], model.encode(x[order]))


def test_encode_is_deterministic_in_raster_order_and_of_any_size() -> None:
    tokenizer = Box()
    model = model_of(tokenizer).eval()
    x = signal(tokenizer)
    features = model.encode(x)
    assert features.shape == (3, 16, 24)
    assert torch.equal(features, model.encode(x))
    tokens = tokenizer.tokenize(x)
    moved = tokens.values.clone()
    moved[:, 5] += 1  # the token that changes most is the one that was changed
    change = (model.encode(tokenizer.detokenize(moved, tokens)) - features).norm(dim=-1)
    assert (change.argmax(1) == 5).all()
    assert model.encode(torch.randn(1, 3, 14, 9)).shape == (1, 21, 24)
    assert model_of(tokenizer, encoder={"positions": "learned"}).encode(torch.randn(1, 3, 14, 9)).shape == (1, 21, 24)


def test_embed_pools() -> None:
    tokenizer = Box()
    model = model_of(tokenizer, encoder={"registers": 2})
    x = signal(tokenizer)
    torch.testing.assert_close(model.embed(x), model.encode(x).mean(1))
    assert not torch.equal(model.embed(x), model.embed(x, "class"))
    with pytest.raises(ShapeError, match="no class token"):
        model_of(tokenizer, encoder={"class_token": False}).embed(x, "class")
    both = model.embed(x, "concat")
    assert both.shape == (3, 48)
    torch.testing.assert_close(both, torch.cat([model.embed(x, "class"), model.embed(x)], 1))
    with pytest.raises(ShapeError, match="no such way to pool"):
        model.embed(x, "tokens")  # type: ignore[arg-type]


def test_a_layer_is_what_its_block_gives_and_the_last_one_goes_through_the_norm() -> None:
    tokenizer = Box()
    model = model_of(tokenizer, encoder={"depth": 3, "registers": 2}).eval()
    x, found = signal(tokenizer), []
    hooks = [block.register_forward_hook(lambda *out: found.append(out[2])) for block in model.encoder.blocks]
    last = model.encode(x)
    for hook in hooks:
        hook.remove()
    for number, latent in enumerate(found[:-1], start=1):
        for layer in (number, number - 4):
            assert torch.equal(model.encode(x, layer), latent[:, 3:])
            assert torch.equal(model.embed(x, "class", layer), latent[:, 0])
            torch.testing.assert_close(model.embed(x, "mean", layer), latent[:, 3:].mean(1))
    assert all(torch.equal(model.encode(x, layer), last) for layer in (3, -1))
    torch.testing.assert_close(last, model.encoder.norm(found[-1])[:, 3:])


@pytest.mark.parametrize("layer", [0, 4, -4, 1.0, True, "first", None])
def test_a_layer_that_is_not_there(layer: Any) -> None:
    tokenizer = Box()
    with pytest.raises(ShapeError, match="no such layer") as caught:
        model_of(tokenizer, encoder={"depth": 3}).embed(signal(tokenizer), layer=layer)
    assert "1 to 3" in str(caught.value)


@pytest.mark.parametrize("attention", ["self", "cross"])
@pytest.mark.parametrize("even", [True, False])
def test_predictions_everywhere_agree_with_those_of_hidden_tokens(attention: str, even: bool) -> None:
    tokenizer = Box()
    model = model_of(tokenizer, decoder={"attention": attention})
    x = signal(tokenizer)
    mask = model.scheduler.sample(tokenizer.tokenize(x), 0.0, noise(3)) if even else uneven(tokenizer, [3, 12, 15])
    output = model(x, mask)
    everywhere = model.predict_everywhere(tokenizer.tokenize(x), mask)
    for row in range(3):
        ids = mask.hidden[row].nonzero()[:, 0]
        torch.testing.assert_close(everywhere[row, ids], output.prediction[row, : len(ids)], rtol=1e-5, atol=1e-6)
    assert (everywhere.abs().sum(-1) > 0).all()


def test_reconstruct_pastes_and_borrows_only_when_told() -> None:
    tokenizer = Box()
    model = model_of(tokenizer, normalise=True)
    x = signal(tokenizer)
    tokens = tokenizer.tokenize(x)
    mask = model.scheduler.sample(tokens, 0.0, noise(3))
    pasted = tokenizer.tokenize(model.reconstruct(x, mask)).values
    assert torch.equal(pasted[mask.visible], tokens.values[mask.visible])
    louder = torch.where(mask.hidden[..., None], 10 * tokens.values + 3, tokens.values)
    other = tokenizer.detokenize(louder, tokens)
    assert torch.equal(model.reconstruct(x, mask), model.reconstruct(other, mask))
    assert not torch.equal(
        model.reconstruct(x, mask, statistics="oracle"), model.reconstruct(other, mask, statistics="oracle")
    )


def test_statistics_from_visible_neighbours() -> None:
    tokenizer = Box(channels=1, size=(4,), patch=(1,))
    tokens = tokenizer.tokenize(torch.tensor([[[1.0, 5.0, 9.0, 7.0]]]))
    mask = Mask(torch.tensor([[False, True, False, True]]))
    found = from_visible(tokens.values, tokens, mask)[0, :, 0]
    # token 1 lies one cell from 0 and 2; token 3 one cell from 2 and three from 0: (9 + 1 / 9) / (1 + 1 / 9) = 8.2
    torch.testing.assert_close(found, torch.tensor([1.0, 5.0, 9.0, 8.2]))


def test_loss_statistics_stay_in_float32_under_bf16() -> None:
    tokenizer = Box()
    model = model_of(tokenizer, normalise=True)
    x = signal(tokenizer) + 1000  # in bf16 a patch of this would be constant
    mask = model.scheduler.sample(tokenizer.tokenize(x), 0.0, noise(3))
    with torch.autocast("cpu", torch.bfloat16):
        output = model(x, mask)
    assert output.prediction.dtype == torch.bfloat16
    assert output.loss.dtype == output.loss_per_token.dtype == torch.float32
    target = model.objective.target(tokenizer.tokenize(x).values[mask.hidden].reshape(3, -1, 18))
    expected = (output.prediction.float() - target).square().mean()
    torch.testing.assert_close(output.loss, expected)


def test_bf16_is_near_fp32() -> None:
    tokenizer = Box()
    model = model_of(tokenizer)
    x = signal(tokenizer)
    mask = model.scheduler.sample(tokenizer.tokenize(x), 0.0, noise(3))
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(x, mask).loss
    torch.testing.assert_close(rough, model(x, mask).loss, rtol=0.02, atol=0)


def test_constant_patches_have_a_finite_loss() -> None:
    tokenizer = Box()
    model = model_of(tokenizer, normalise=True)
    output = model(torch.zeros(2, 3, 8, 12), noise=noise(2))
    output.loss.backward()
    torch.testing.assert_close(output.loss, output.prediction.square().mean())  # the target of a constant is zero
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_a_row_with_nothing_to_hide_counts_for_nothing() -> None:
    tokenizer = Ragged()
    model = model_of(tokenizer)
    both = tokenizer.of([6, 1], 8, torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(both, noise=noise(2)).loss, model(both[:1], noise=noise(1)).loss)


def test_a_mask_of_another_shape_is_refused() -> None:
    tokenizer = Box()
    with pytest.raises(ShapeError, match="doesn't fit"):
        model_of(tokenizer)(signal(tokenizer), Mask(torch.tensor([[True, False]] * 3)))


def test_without_a_mask_the_scheduler_draws_one_by_the_global_seed() -> None:
    tokenizer = Box()
    model = model_of(tokenizer)
    x = signal(tokenizer)
    torch.manual_seed(1)
    first = model(x)
    torch.manual_seed(1)
    assert torch.equal(first.mask.hidden, model(x).mask.hidden)
    assert not torch.equal(first.mask.hidden, model(x).mask.hidden)
    assert first.mask.ids_keep.shape == (3, 4)
    assert first.latent.shape == (3, 5, 24)


def test_an_objective_with_a_wrong_shape_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Box()
    model = model_of(tokenizer)
    monkeypatch.setattr(model.objective, "loss", lambda prediction, target: prediction - target)
    with pytest.raises(PluginError, match="patch"):
        model(signal(tokenizer))


def test_encoder_only_weights_refuse_to_decode() -> None:
    tokenizer = Box()
    model = model_of(tokenizer)
    model.decoder_loaded = False
    x = signal(tokenizer)
    assert model.encode(x).shape == (3, 16, 24)
    for needs_decoder in (model, model.reconstruct):
        with pytest.raises(CheckpointError, match="encoder only"):
            needs_decoder(x)


def test_presets_are_the_published_sizes() -> None:
    wide = {"ti": (192, 12, 3), "s": (384, 12, 6), "b": (768, 12, 12), "l": (1024, 24, 16), "h": (1280, 32, 16)}
    assert wide == PRESETS
    for name, (dim, depth, heads) in wide.items():
        settings = EncoderSettings(preset=name)  # type: ignore[arg-type]
        assert (settings.dim, settings.depth, settings.heads) == (dim, depth, heads)
    assert EncoderSettings(preset="b", depth=2).depth == 2
    decoder = DecoderSettings()
    assert (decoder.dim, decoder.depth, decoder.heads) == (512, 8, 16)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.parametrize("attention", ["self", "cross"])
def test_compiled_equals_eager(attention: str) -> None:
    tokenizer = Box()
    eager = model_of(tokenizer, decoder={"attention": attention})
    compiled = model_of(tokenizer, decoder={"attention": attention})
    compiled.load_state_dict(eager.state_dict())
    compiled.compile_engine()
    x = signal(tokenizer)
    for mask in (eager.scheduler.sample(tokenizer.tokenize(x), 0.0, noise(3)), uneven(tokenizer, [3, 12, 15])):
        one, other = eager(x, mask).loss, compiled(x, mask).loss
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        ours, theirs = gradients(eager, one), gradients(compiled, other)
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-6, msg=name)
