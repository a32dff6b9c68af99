# SPDX-License-Identifier: BSD-2-Clause
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from sockutil import kernel  # noqa: E402,F401  pylint: disable=wrong-import-position
