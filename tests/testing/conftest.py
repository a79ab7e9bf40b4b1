"""Makes the broken plugins beside this file importable, as an installed plugin is."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
