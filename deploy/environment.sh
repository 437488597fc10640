#!/usr/bin/env bash
# Make the environment that the project is tested in: Debian's packages that are missing, a virtual environment, and in it
# what the constraints pin. Called by `make env`; may be repeated at any time and goes on where it stopped.
#
# usage: deploy/environment.sh PYTHON VENV CONSTRAINTS EXTRAS
set -euo pipefail

python=$1 venv=$2 constraints=$3 extras=$4
PATH=$PATH:/usr/sbin:/sbin # where ip and tc are, for a user who is not root

say() { echo "env: $*"; }
die() {
    echo "env: $*" >&2
    exit 1
}
can_make_venv() { "$python" -c 'import ensurepip, venv' 2>/dev/null; }

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    die "$python: not Python 3.11 or newer; install one and name it, for example: make env PYTHON=python3.13"
[ -f "$constraints" ] ||
    die "$constraints: no such file; tested are x86-64 and a 64-bit Raspberry Pi; name a file: make env CONSTRAINTS=FILE"

# What the system has to bring: venv for Python; ip and tc for namespaces; wirefilter for emulated links; ping and iperf3 to
# find out what a link carries.
missing=()
can_make_venv || missing+=("python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv")
{ command -v ip && command -v tc; } >/dev/null || missing+=(iproute2)
command -v wirefilter >/dev/null || missing+=(vde2)
command -v ping >/dev/null || missing+=(iputils-ping)
command -v iperf3 >/dev/null || missing+=(iperf3)
# What the tests judge the units of deploy/systemd with, which a container lacks.
[[ ",$extras," != *,dev,* ]] || command -v systemd-analyze >/dev/null || missing+=(systemd)

if [ ${#missing[@]} -gt 0 ]; then
    line="sudo apt-get update && sudo apt-get install ${missing[*]}"
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo -n)
    if command -v apt-get >/dev/null && "${as_root[@]}" true 2>/dev/null; then
        say "installing Debian's packages: ${missing[*]}"
        apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0)
        "${apt[@]}" update </dev/null || say "apt-get update failed; trying with the lists that are there"
        for package in "${missing[@]}"; do # one by one: each is of use without the others
            "${apt[@]}" install --no-install-recommends "$package" </dev/null >/dev/null || say "$package could not be installed"
        done
    elif can_make_venv; then
        say "missing, and no right to install it: ${missing[*]}; emulated links then have fewer backends, checks say less; to install: $line"
    fi
    can_make_venv || die "$python cannot make a virtual environment; run this, then try again: $line"
fi

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    say "making $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
fi

# Of pip's lines, those that tell how far it is: what is large, and that the downloads are done.
progress() {
    sed -unE 's/^ *(Downloading|Using cached) ([^ ]+\.whl).*(\([0-9.]+ [MG]B\)).*/env:   \2 \3/p
        s/^Installing collected packages:.*/env:   unpacking/p'
}
pip_install() {
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off -c "$constraints" "$@" | progress
}

say "installing what $constraints pins; the first time takes minutes, PyTorch most of them"
pip_install pip hatchling editables # pinned like the rest, so that every machine resolves and builds alike
pip_install --no-build-isolation --editable ".${extras:+[$extras]}"

# What the tests' lab hosts have and this machine need not have (tests/deploy); nothing is installed on the machine itself.
if [[ ",$extras," == *,dev,* && $(id -u) = 0 && ! -d "$venv/lab-image" ]]; then
    say "preparing the tests' lab hosts"
    tests/deploy/make_image.sh "$venv/lab-image" || say "that failed: tests of deploy/ansible will be skipped"
fi
say "ready: $venv"
