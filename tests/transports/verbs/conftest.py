"""`fake_pyverbs` beside this file can be imported by the tests of this folder."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
