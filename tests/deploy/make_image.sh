#!/usr/bin/env bash
# Make what the tests' lab hosts have and this machine need not have: Debian's packages of a Raspberry Pi OS, unpacked into a
# folder that their file trees lay over this machine's. Nothing is installed on the machine itself. Needs root.
#
# usage: tests/deploy/make_image.sh FOLDER
set -euo pipefail

folder=$(realpath -m "$1")
packages=(chrony iperf3 iproute2 iputils-ping iw openssh-server python3-venv rsync sudo systemd-sysv)

if [ "${2:-}" != inside ]; then
    exec unshare --mount -- "$0" "$folder" inside
fi

work=$(mktemp -d)
mount -t tmpfs tmpfs "$work" # gone with this mount namespace
mkdir "$work/upper" "$work/work" "$work/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/work" "$work/root"
for place in dev proc sys; do mount --rbind "/$place" "$work/root/$place"; done
printf '#!/bin/sh\nexit 101\n' >"$work/root/usr/sbin/policy-rc.d" # nothing is started
chmod 755 "$work/root/usr/sbin/policy-rc.d"
apt=(chroot "$work/root" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0)
"${apt[@]}" install --no-install-recommends "${packages[@]}" </dev/null >/dev/null 2>&1 || {
    "${apt[@]}" update </dev/null >/dev/null || true
    "${apt[@]}" install --no-install-recommends "${packages[@]}" </dev/null >/dev/null
}
"${apt[@]}" clean
umount -R "$work/root/dev" "$work/root/proc" "$work/root/sys" "$work/root"
rm -rf "$work"/upper/{tmp,run,usr/sbin/policy-rc.d,var/lib/apt,var/cache} "$work"/upper/etc/ssh/ssh_host_*
rm -rf "$folder" "$folder.new"
mkdir -p "$(dirname "$folder")"
cp -a "$work/upper" "$folder.new"
mv "$folder.new" "$folder"
