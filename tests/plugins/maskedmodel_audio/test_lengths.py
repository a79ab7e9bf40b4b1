"""What a container says of its length, held against what is decoded: read to the real end, or refused."""

from __future__ import annotations

import io
import struct
from typing import Any

import av
import numpy as np
import pytest
import torch

from maskedmodel.errors import DataError
from tests.plugins.maskedmodel_audio.sounds import (
    KINDS,
    flac_counting,
    heard,
    made,
    pcm_format,
    plain,
    riff,
    wave,
    with_bytes,
)

PCM = (wave(4000)[:, 0] * 32767).astype("<i2")


def same(content: bytes, expected: np.ndarray[Any, Any], **settings: Any) -> tuple[str, ...]:
    """Asserts that exactly these samples (channels, samples) are read, and gives the notes."""
    sound = heard(content, **settings)
    rounding = 2e-7 if content.startswith(b"\xff") else 0  # mpg123 rounds otherwise for blocks of other lengths
    torch.testing.assert_close(sound.wave, torch.from_numpy(np.ascontiguousarray(expected)), rtol=0, atol=rounding)
    return sound.notes


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_file_is_read_as_it_is(kind: str) -> None:
    content = made(kind)
    assert same(content, plain(content)[:, :16000]) == ()


@pytest.mark.parametrize("share", [0.5, 0.93])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_file_is_refused(kind: str, share: float) -> None:
    content = made(kind)
    with pytest.raises(DataError, match=r"cut off|can't be decoded"):
        heard(content[: int(share * len(content))])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("vorbis", "opus", "caf", "alac")])
def test_what_is_there_of_a_cut_file_is_read_where_settings_say_so(kind: str) -> None:
    content = made(kind)
    sound = heard(content[: len(content) // 2], incomplete="read")
    assert sound.notes == ("cut off: read as far as it goes",)
    assert 0.2 * 16000 < sound.wave.shape[1] < 0.6 * 16000
    whole, most = torch.from_numpy(plain(content)), sound.wave.shape[1] - 640  # the last block may be cut
    torch.testing.assert_close(sound.wave[:, :most], whole[:, :most], rtol=0, atol=2e-7)


def test_a_wav_cut_to_a_few_bytes_is_refused_by_its_header() -> None:
    with pytest.raises(DataError, match=r"(?s)cut off.*6 of 32,000 bytes"):
        heard(made("wav")[:50])
    with pytest.raises(DataError, match="ends before its samples"):
        heard(made("wav")[:40])


class TestFlac:
    def test_an_unknown_length_is_read_to_the_end(self) -> None:
        content, whole = flac_counting(made("flac"), 0), plain(made("flac"))
        notes = same(content, whole)
        assert notes == ("length not in the header: read to the end of the file",)
        same(content, whole[:, :8000], seconds=0.5)
        same(content, whole[:, 4000:], offset=0.25)
        same(content, whole[:, 4000:6000], offset=0.25, seconds=0.125)
        with pytest.raises(DataError, match="before the offset"):
            heard(content, offset=2.0)

    def test_an_unknown_length_that_is_cut_off_is_refused(self) -> None:
        content = flac_counting(made("flac"), 0)
        with pytest.raises(DataError, match="can't be decoded"):
            heard(content[: len(content) // 2])

    def test_a_header_that_counts_too_much_or_too_little_is_refused(self) -> None:
        with pytest.raises(DataError, match=r"(?s)cut off.*32000.*16000"):
            heard(flac_counting(made("flac"), 32000))
        with pytest.raises(DataError, match="holds more than its header counts"):
            heard(flac_counting(made("flac"), 8000))

    def test_joined_files_are_read_one_after_the_other(self) -> None:
        one, other = made("flac"), made("flac", samples=wave(5000)[::-1])
        expected = np.concatenate([plain(one), plain(other)], 1)
        assert same(one + other, expected) == ("2 files joined in one, read as one",)
        same(flac_counting(one, 0) + flac_counting(other, 0), expected)

    def test_tags_of_music_players_are_passed_over(self) -> None:
        content = made("flac")
        same(content + b"TAG" + bytes(125), plain(content))
        same(b"ID3\x04\x00\x00\x00\x00\x00\x0a" + bytes(10) + content, plain(content))


class TestOgg:
    @pytest.mark.parametrize("kind", ["vorbis", "opus"])
    def test_chained_files_are_read_one_after_the_other(self, kind: str) -> None:
        one, other = made(kind), made(kind, samples=wave(5000))
        expected = np.concatenate([plain(one), plain(other)], 1)
        assert expected.shape == (1, 21000)
        assert same(one + other, expected) == ("2 files joined in one, read as one",)
        across = heard(one + other, offset=15000 / 16000, seconds=0.125).wave
        torch.testing.assert_close(across, torch.from_numpy(expected[:, 15000:17000]), rtol=0, atol=2e-3)

    def test_parts_that_differ_are_refused(self) -> None:
        with pytest.raises(DataError, match=r"(?s)joins parts that differ.*16000 Hz.*8000 Hz"):
            heard(made("vorbis") + made("vorbis", rate=8000))
        with pytest.raises(DataError, match=r"(?s)joins parts that differ.*2 channels"):
            heard(made("vorbis") + made("vorbis", samples=wave(5000, 2)))

    @pytest.mark.parametrize("kind", ["vorbis", "opus"])
    def test_a_file_that_ends_at_a_page_is_refused_unless_that_is_the_last(self, kind: str) -> None:
        content = made(kind, samples=wave(160000))
        pages = [place for place in range(len(content)) if content.startswith(b"OggS", place)]
        assert len(pages) > 4
        for place in pages[1:]:
            with pytest.raises(DataError, match="cut off"):
                heard(content[:place])
        sound = heard(content[: pages[-1]], incomplete="read")
        assert 0 < sound.wave.shape[1] < 160000
        assert sound.notes == ("cut off: read as far as it goes",)

    def test_a_page_that_is_missing_is_found(self) -> None:
        content = made("vorbis", samples=wave(160000))
        pages = [place for place in range(len(content)) if content.startswith(b"OggS", place)]
        with pytest.raises(DataError, match=r"(?s)cut off.*are missing"):
            heard(content[: pages[3]] + content[pages[4] :])

    def test_channels_are_in_the_order_of_wav(self) -> None:
        """FFmpeg puts them so, libsndfile leaves them as they are stored."""
        content = made("vorbis", samples=wave(8000, 6))
        with av.open(io.BytesIO(content)) as container:
            expected = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], 1)
        sound = heard(content, mono=False)
        assert sound.notes == ("channels put into the order of WAV",)
        torch.testing.assert_close(sound.wave, torch.from_numpy(expected[:, :8000]), rtol=0, atol=1e-4)


def mp3_frames(content: bytes) -> list[bytes]:
    """The frames of an MP3 that libsndfile wrote, the first being the tag that counts the others."""
    from maskedmodel_audio.mpeg import _head_at

    frames, at = [], 0
    while at < len(content):
        head = _head_at(content, at)
        assert head is not None
        frames.append(content[at : at + head.size])
        at += head.size
    return frames


class TestMp3:
    def test_joined_files_are_read_one_after_the_other(self) -> None:
        one, other = made("mp3"), made("mp3", samples=wave(5000))
        expected = np.concatenate([plain(one), plain(other)], 1)
        assert expected.shape == (1, 21000)
        assert same(one + other, expected) == ("2 files joined in one, read as one",)
        for between in (b"TAG" + bytes(125), b"ID3\x04\x00\x00\x00\x00\x00\x0a" + bytes(10), bytes(700)):
            same(one + between + other, expected)

    def test_files_without_a_tag_that_counts_are_counted_frame_by_frame(self) -> None:
        frames = mp3_frames(made("mp3", samples=wave(48000)))
        sound = heard(b"".join(frames[1:]))
        assert abs(sound.wave.shape[1] - 576 * (len(frames) - 1)) <= 576 * 2
        with_tag = heard(made("mp3") + b"".join(frames[1:]))
        assert with_tag.wave.shape[1] == pytest.approx(16000 + sound.wave.shape[1], abs=576 * 2)

    def test_a_variable_rate_without_a_tag_is_read_whole(self) -> None:
        quiet, loud = np.zeros((48000, 1)), np.random.default_rng(0).uniform(-0.9, 0.9, (48000, 1))
        content = made("mp3", samples=np.concatenate([quiet, loud]), bitrate_mode="VARIABLE", compression_level=0.5)
        frames = mp3_frames(content)
        assert len({len(frame) for frame in frames[1:]}) > 2
        sound = heard(b"".join(frames[1:]))
        assert abs(sound.wave.shape[1] - 576 * (len(frames) - 1)) <= 576 * 2
        assert sound.wave[:, -40000:].std() > 0.2

    def test_a_file_that_ends_within_a_frame_is_refused(self) -> None:
        frames = mp3_frames(made("mp3", samples=wave(48000)))
        with pytest.raises(DataError, match=r"(?s)cut off.*last frame isn't whole"):
            heard(b"".join(frames[1:])[:-20])
        with pytest.raises(DataError, match=r"(?s)cut off.*\d+ of \d+ frames"):
            heard(b"".join(frames[:-4]))

    def test_damage_on_the_way_is_found(self) -> None:
        frames = mp3_frames(made("mp3", samples=wave(48000)))
        frames[20] = b"\x01" * len(frames[20])
        with pytest.raises(DataError, match=r"(?s)cut off.*are no frame"):
            heard(b"".join(frames))

    def test_what_comes_behind_the_last_frame_is_told(self) -> None:
        content = made("mp3")
        assert same(content + b"LYRICSBEGIN" * 9, plain(content)) == ("bytes behind the last frame left out",)


class TestWav:
    EXPECTED = PCM[None] / np.float32(32768)

    @pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0xFFFFFFDB, 0x7FFFF000, 0x7FFFFFFF, 0x80000000])
    def test_a_size_left_open_by_a_stream_is_read_to_the_end(self, size: int) -> None:
        content = riff((b"fmt ", pcm_format()), (b"data", PCM.tobytes()))
        written = struct.pack("<I", size)
        content = with_bytes(with_bytes(content, 40, written), 4, written)
        notes = same(content, self.EXPECTED)
        assert notes == ("length left open in the header: read to the end of the file",)
        same(content, self.EXPECTED[:, 1000:2000], offset=1 / 16, seconds=1 / 16)

    def test_a_size_left_open_in_rf64_w64_au_and_caf(self) -> None:
        for kind, size, code in (("rf64", b"ds64", "<Q"), ("w64", b"data", "<Q"), ("caf", b"data", ">q")):
            content = made(kind)
            place = content.index(size) + {"rf64": 16, "w64": 16, "caf": 4}[kind]
            assert struct.unpack_from(code, content, place)[0] >= 32000
            for value in (0, -1) if kind != "caf" else (-1,):
                opened = with_bytes(content, place, struct.pack("<q", value))
                assert len(same(opened, plain(content))) == 1
        content = made("au")
        assert len(same(with_bytes(content, 8, b"\xff\xff\xff\xff"), plain(content))) == 1

    def test_no_samples_and_chunks_behind_them_are_an_empty_file(self) -> None:
        for more in ((), ((b"LIST", b"INFOISFT\x04\0\0\0it\0\0"),)):
            with pytest.raises(DataError, match="is empty"):
                heard(riff((b"fmt ", pcm_format()), (b"data", b""), *more))

    @pytest.mark.parametrize("pad", [True, False])
    def test_odd_chunks_with_and_without_padding(self, pad: bool) -> None:
        odd = np.arange(1001, dtype=np.uint8)
        content = riff((b"fmt ", pcm_format(bits=8)), (b"data", odd.tobytes()), (b"LIST", b"INFOabc"), pad=pad)
        assert same(content, (odd[None].astype(np.float32) - 128) / 128) == ()
        before = riff((b"fmt ", pcm_format()), (b"note", b"odd"), (b"data", PCM.tobytes()))
        same(before, self.EXPECTED)

    def test_big_endian_files_are_read(self) -> None:
        content = riff((b"fmt ", pcm_format(order=">")), (b"data", PCM.astype(">i2").tobytes()), order=">")
        same(content, self.EXPECTED)

    def test_joined_files_are_read_one_after_the_other(self) -> None:
        content = riff((b"fmt ", pcm_format()), (b"data", PCM.tobytes()))
        notes = same(content + content, np.concatenate([self.EXPECTED] * 2, 1))
        assert notes == ("2 files joined in one, read as one",)

    def test_a_size_that_is_too_small_is_refused(self) -> None:
        content = riff((b"fmt ", pcm_format()), (b"data", PCM.tobytes()))
        with pytest.raises(DataError, match=r"(?s)holds more than its header counts.*4000 other bytes"):
            heard(with_bytes(content, 40, struct.pack("<I", 4000)))

    def test_a_size_that_is_too_large_is_refused(self) -> None:
        content = riff((b"fmt ", pcm_format()), (b"data", PCM.tobytes()))
        with pytest.raises(DataError, match=r"(?s)cut off.*8,000 of 8,002 bytes"):
            heard(with_bytes(content, 40, struct.pack("<I", 8002)))

    def test_zeros_behind_the_samples_are_filling(self) -> None:
        content = riff((b"fmt ", pcm_format()), (b"data", PCM.tobytes()))
        same(content + bytes(512), self.EXPECTED)
        same(content + b"TAG" + bytes(range(125)), self.EXPECTED)

    def test_a_block_align_that_contradicts_the_rest_is_refused(self) -> None:
        for align in (1, 4, 3):
            with pytest.raises(DataError, match=r"(?s)contradicts itself.*2 bytes: 1 channels of 16 bits"):
                heard(riff((b"fmt ", pcm_format(align=align)), (b"data", PCM.tobytes())))
        same(riff((b"fmt ", pcm_format(align=0)), (b"data", PCM.tobytes())), self.EXPECTED)
        with pytest.raises(DataError, match="contradicts itself"):  # 24 bits in 32, which libsndfile takes for float
            heard(riff((b"fmt ", pcm_format(bits=24, align=4)), (b"data", bytes(4000))))

    def test_two_chunks_of_samples_are_refused(self) -> None:
        with pytest.raises(DataError, match="two chunks of samples"):
            heard(riff((b"fmt ", pcm_format()), (b"data", PCM.tobytes()), (b"data", PCM.tobytes())))

    def test_the_count_of_a_codec_takes_off_its_filling(self) -> None:
        for kind in ("gsm", "adpcm"):
            content = made(kind, samples=wave(15001))
            assert plain(content).shape[1] > 15001
            same(content, plain(content)[:, :15001])
            same(content, plain(content)[:, 3000:7000], offset=3000 / 16000, seconds=0.25)


def test_aiff_that_counts_otherwise_than_it_holds_is_refused() -> None:
    content = made("aiff")
    place = content.index(b"COMM") + 10
    for count in (15000, 17000):
        with pytest.raises(DataError, match=r"more than its header counts|cut off|contradicts itself"):
            heard(with_bytes(content, place, struct.pack(">I", count)))


def test_a_sphere_header_that_counts_otherwise_is_refused() -> None:
    content = made("sphere")
    for count in (b"15000", b"17000"):
        with pytest.raises(DataError, match=r"more than its header counts|cut off|contradicts itself"):
            heard(content.replace(b"sample_count -i 16000", b"sample_count -i " + count))


@pytest.mark.parametrize("kind", ["AVR", "HTK", "MAT5", "SVX", "VOC"])
def test_containers_whose_length_cannot_be_checked_are_refused(kind: str) -> None:
    with pytest.raises(DataError, match=r"(?s)can't be decoded|no sound file") as found:
        heard(made(kind, {"SVX": "PCM_16"}.get(kind)))
    assert "AIFF" in str(found.value)


class TestBounds:
    def test_an_unknown_length_is_decoded_only_up_to_the_longest(self) -> None:
        content = flac_counting(made("flac", samples=np.zeros((16000 * 120, 1))), 0)
        assert len(content) < 50_000
        with pytest.raises(DataError, match=r"(?s)too long.*data\.longest.*data\.seconds"):
            heard(content, longest=10.0)

    def test_what_would_take_too_much_memory_is_refused_before_it_is_decoded(self) -> None:
        content = made("flac", samples=np.zeros((16000, 8)))
        with pytest.raises(DataError, match=r"(?s)too large once it is decoded.*at most 1 MiB.*data\.largest"):
            heard(content, largest=1, sample_rate=48000)
        assert heard(content, largest=2, seconds=0.5).wave.shape == (1, 8000)
        with pytest.raises(DataError, match="too large"):
            heard(flac_counting(content, 0), largest=1, sample_rate=64000)

    @pytest.mark.parametrize("kind", ["flac", "vorbis", "mp3"])
    def test_a_file_too_large_to_be_looked_through_is_refused(self, kind: str) -> None:
        content = made(kind) + bytes(1 << 20)
        with pytest.raises(DataError, match=r"(?s)too large to be looked through.*at most 1 MiB.*data\.largest"):
            heard(content, largest=1)

    def test_files_of_endless_chunks_or_parts_are_refused(self) -> None:
        with pytest.raises(DataError, match=r"at most 16,384 chunks"):
            heard(riff(*[(b"junk", b"")] * 20_000))
        with pytest.raises(DataError, match=r"at most 10,000 files joined"):
            heard(made("flac")[:42] * 10_001)

    def test_a_header_that_claims_much_costs_nothing(self) -> None:
        with pytest.raises(DataError, match="too long"):
            heard(flac_counting(made("flac"), (1 << 36) - 1))
        with pytest.raises(DataError, match=r"too large|too long"):
            heard(flac_counting(made("flac"), (1 << 36) - 1), longest=1e9)


def test_what_was_converted_is_noted() -> None:
    sound = heard(made("wav", samples=wave(8000, 2), rate=8000))
    assert sound.notes == ("2 channels averaged", "resampled from 8000 to 16000 Hz")
    assert heard(made("wav", samples=wave(8000, 2)), mono=False).notes == ()
