"""Small C libraries that are loaded before libc, to change what a process gets from it."""

import subprocess
from pathlib import Path

from fltestbed.errors import HostError


def compile_library(folder: Path, name: str, source: str, purpose: str) -> Path:
    """Compile C source into a library for LD_PRELOAD; `purpose` says what it is for where there is no compiler.

    Raises
    ------
    HostError
        There is no C compiler, or it failed.
    """
    file, library = folder / f"{name}.c", folder / f"{name}.so"
    file.write_text(source)
    try:
        subprocess.run(
            ["gcc", "-O2", "-Wall", "-shared", "-fPIC", "-o", str(library), str(file), "-ldl"],
            check=True,
            capture_output=True,
        )
    except FileNotFoundError as error:
        raise HostError(f"gcc is missing: {purpose} by a small C library; apt install gcc libc6-dev") from error
    except subprocess.CalledProcessError as error:
        raise HostError(f"gcc failed: {error.stderr.decode(errors='replace').strip().splitlines()[-1]}") from error
    return library
