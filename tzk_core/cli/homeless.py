"""A place for what other libraries keep at home, for a user without one.

So it is for an unknown uid, as of `docker run --user`. matplotlib then warns on every start, and torch's compiler asks
for the name of the user.
"""

from __future__ import annotations

import os
from pathlib import Path

KEPT = {"MPLCONFIGDIR": "matplotlib", "TORCHINDUCTOR_CACHE_DIR": "torchinductor"}
"""What says where a library keeps its files, and the name of its folder."""


def give_places() -> None:
    """Set what of `KEPT` is not set, if nothing can be kept at home.

    The folder is a temporary one, which is removed at the end. Processes that this one starts have it too.
    """
    missing = [variable for variable in KEPT if variable not in os.environ]
    if not missing or _can_be_kept_at_home():
        return
    import atexit  # few are without a home
    import shutil
    import tempfile

    folder = tempfile.mkdtemp(prefix="tzk-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for variable in missing:
        os.environ[variable] = os.path.join(folder, KEPT[variable])


def _can_be_kept_at_home() -> bool:
    try:
        home = Path.home()
    except RuntimeError:  # no HOME, and no entry of this user
        return False
    return any(os.access(folder, os.W_OK | os.X_OK) for folder in (home, home / ".config"))
