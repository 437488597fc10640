#!/usr/bin/env bash
# Become a host of the tests' lab: a file tree of its own over this machine's, a name, and systemd as process 1. Started in new
# mount, PID, UTS, IPC, network and cgroup namespaces; whatever it makes goes with them.
#
# usage: boot_host.sh NAME MOUNT_POINT IMAGE PACKAGES
set -euo pipefail

name=$1 work=$2 image=$3 packages=$4

mount --make-rprivate /
mount -t tmpfs tmpfs "$work"
mkdir "$work/upper" "$work/work" "$work/root"
cp -a "$image/." "$work/upper/"
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/work" "$work/root"
root=$work/root

mount -t proc proc "$root/proc"
for place in sys kernel fs vm dev user; do # what is the machine's, not the namespace's, may be looked at
    mount --bind "$root/proc/sys/${place#sys}" "$root/proc/sys/${place#sys}"
    [ "$place" = sys ] || mount -o remount,bind,ro "$root/proc/sys/$place"
done
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s /dev/null "$root/dev/console"
mount -t tmpfs -o mode=755 tmpfs "$root/run"

# Of this machine: no services, no keys, no journal, no emptying of /tmp at boot (the tests' own Python may live there).
rm -rf "$root"/etc/systemd/system/*.wants "$root"/root/.ssh "$root"/root/.ansible "$root"/var/log/journal
rm -rf "$root"/{etc,opt,var/lib}/fltestbed "$root"/etc/chrony/conf.d/* "$root"/etc/ssh/sshd_config.d
printf 'UsePAM yes\nSubsystem sftp /usr/lib/openssh/sftp-server\n' >"$root/etc/ssh/sshd_config"
mkdir -p "$root/etc/tmpfiles.d" "$root/etc/systemd/system/multi-user.target.wants"
ln -s /dev/null "$root/etc/tmpfiles.d/tmp.conf"
ln -sf /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
for unit in ssh.service dbus.service; do ln -s "/lib/systemd/system/$unit" "$root/etc/systemd/system/multi-user.target.wants/$unit"; done
for unit in systemd-udevd systemd-logind systemd-sysctl systemd-timesyncd console-getty getty@tty1; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit.service"
done

# chronyd as it is on a Pi, but for the machine's clock, which it must leave alone.
mkdir -p "$root/etc/systemd/system/chrony.service.d"
printf '[Unit]\nConditionCapability=\n[Service]\nEnvironment=DAEMON_OPTS=-x\nEnvironmentFile=\n' \
    >"$root/etc/systemd/system/chrony.service.d/test.conf"

hostname "$name"
echo "$name" >"$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$name" >"$root/etc/hosts"
rm -f "$root/etc/resolv.conf"
tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
chroot "$root" ssh-keygen -q -A
chroot "$root" id -u pi >/dev/null 2>&1 || chroot "$root" useradd --create-home --shell /bin/bash pi
echo 'pi ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/pi"

# PyTorch and everything else but the toolkit is there as if its wheels had been installed: the tests' own packages.
own=$root/opt/fltestbed/lib/$(basename "$(dirname "$packages")")/site-packages # .../python3.11/site-packages
mkdir -p "$root/usr/lib/tests-packages" "$own"
mount --bind "$packages" "$root/usr/lib/tests-packages"
echo /usr/lib/tests-packages >"$own/tests-packages.pth"

mkdir "$root/old"
cd "$root"
pivot_root . old
umount -l /old
exec setpriv --bounding-set -sys_time,-sys_module,-sys_rawio,-sys_boot,-mknod -- \
    env -i container=tests PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --log-target=journal --show-status=0
