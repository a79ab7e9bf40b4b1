import subprocess
import sys

import maskedmodel_audio
from maskedmodel_audio.folder import AudioFolder
from maskedmodel_audio.tokenizer import Spectrogram
from maskedmodel_audio.tones import Tones

from maskedmodel.testing import parametrize_checks


@parametrize_checks(
    [
        Spectrogram(sample_rate=8000, duration=1.0, mels=64, roll=True),
        Spectrogram(sample_rate=8000, duration=0.5, mels=40, patch=(4, 20), front_end="kaldi", statistics="esc50"),
        Spectrogram(duration=1.0, statistics="speechcommands", fill_to=128, gain=(-6.0, 6.0)),
        Tones,
        AudioFolder,
    ]
)
def test_conformance(check):
    check()


def test_what_the_plugin_provides():
    names = [kind.component_name() for kind in maskedmodel_audio.maskedmodel_tokenizers()]
    assert names == ["spectrogram"]
    names = [kind.component_name() for kind in maskedmodel_audio.maskedmodel_data_sources()]
    assert names == ["tones", "audio_folder"]


def test_listing_it_loads_no_reader():
    code = (
        "import sys, maskedmodel_audio as own\n"
        "own.maskedmodel_tokenizers(), own.maskedmodel_data_sources()\n"
        "print(*sorted({'torchaudio', 'soundfile', 'scipy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
