"""Where Ansible's programs are."""

import os
import shutil
import sys
from pathlib import Path

from fltestbed.errors import HostError


def find(program: str) -> str:
    """Path of one of Ansible's programs: beside this Python, or where the shell finds it.

    Raises
    ------
    HostError
        Ansible is not installed here.
    """
    found = shutil.which(program, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if found is None:
        raise HostError(f"{program}: Ansible is not installed here; install it with: pip install 'fltestbed[lab]'")
    return found
