#!/bin/sh
# A 5G modem of this host: modem.sh up|down|status INTERFACE RADIO_HOST [APN]. As root, on the Pi.
# `up` connects it, through ModemManager or, where that does not know the interface, QMI; gives the interface its address; and
# leaves one route on it, to the radio host: whatever else this host sends goes over its other networks. Safe to repeat.
set -eu

SYS=${SYS:-/sys}                       # where the kernel lists devices; tests have another
STATE=${STATE:-/run/fltestbed-modem}   # of sessions that qmicli began
REGISTRATION_S=${REGISTRATION_S:-90}   # how long a modem may look for its network

say() { echo "modem.sh: $*" >&2; }
fail() { say "$*"; exit 1; }
usage() { echo "usage: modem.sh up INTERFACE RADIO_HOST APN | down INTERFACE RADIO_HOST | status INTERFACE RADIO_HOST" >&2; exit 2; }

# The value of a key in mmcli's key: value lines, on standard input; nothing where it is --.
value() { sed -n "s/^$1 *: *//p" | sed -e '/^--$/d' -e 1q; }

# ModemManager

modem() {
    command -v mmcli >/dev/null || return 1
    for path in $(mmcli -K -L 2>/dev/null | sed -n 's/^modem-list\.value\[[0-9]*\] *: *//p'); do
        if mmcli -K -m "$path" | grep -Eq "^modem\.generic\.ports\.value\[[0-9]+\] *: $interface \(net\)"; then
            echo "$path"
            return
        fi
    done
    return 1
}

# The connected bearer for the APN, not that of the registration.
bearer() {
    for path in $(mmcli -K -m "$1" | sed -n 's/^modem\.generic\.bearers\.value\[[0-9]*\] *: *//p'); do
        about=$(mmcli -K -b "$path")
        if [ "$(echo "$about" | value bearer.status.connected)" = yes ] &&
            [ "$(echo "$about" | value bearer.type)" != default-attach ] &&
            [ "$(echo "$about" | value bearer.properties.apn)" = "$apn" ]; then
            echo "$path"
            return
        fi
    done
}

up_by_modemmanager() {
    mmcli -m "$1" --enable >/dev/null
    if [ -z "$(bearer "$1")" ]; then
        mmcli --timeout "$REGISTRATION_S" -m "$1" --simple-connect="apn=$apn,ip-type=ipv4" >/dev/null ||
            fail "$interface: ModemManager cannot connect to $apn; mmcli -m $1 says how far it came (SIM, registration)"
    fi
    path=$(bearer "$1")
    [ -n "$path" ] || fail "$interface: ModemManager says that it connected, and has no bearer for $apn; see mmcli -m $1"
    about=$(mmcli -K -b "$path")
    over=$(echo "$about" | value bearer.status.interface)
    [ "$over" = "$interface" ] || fail "$interface: ModemManager connected over ${over:-no interface}; give that one"
    configure "$(echo "$about" | value bearer.ipv4-config.address)" \
        "$(echo "$about" | value bearer.ipv4-config.gateway)" "$(echo "$about" | value bearer.ipv4-config.mtu)"
}

# QMI

control() {
    for channel in "$SYS/class/net/$interface"/device/usbmisc/cdc-wdm* "$SYS/class/net/$interface"/device/wwan/wwan*/wwan*qmi* \
        "$SYS/class/net/$interface"/device/wwan*qmi*; do
        if [ -e "$channel" ]; then
            echo "/dev/${channel##*/}"
            return
        fi
    done
    return 1
}

qmi() { qmicli -d "$device" --device-open-proxy "$@"; }
quoted() { sed -n "s/^.*$1: '\([^']*\)'.*$/\1/p" | head -n 1; }
setting() { sed -n "s/^ *$1: *\([^ ]*\).*$/\1/p" | head -n 1; }

wait_for_registration() {
    left=$REGISTRATION_S
    until qmi --nas-get-serving-system | grep -q "Registration state: 'registered'"; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || fail "$interface: not registered after $REGISTRATION_S s; is the SIM known to the core, and the cell up?"
        sleep 1
    done
}

up_by_qmi() {
    qmi --dms-set-operating-mode=online >/dev/null
    raw="$SYS/class/net/$interface/qmi/raw_ip"
    if [ -e "$raw" ] && [ "$(cat "$raw")" != Y ]; then
        ip link set dev "$interface" down
        echo Y >"$raw"
    fi
    wait_for_registration
    cid=
    if [ -r "$STATE/$interface" ]; then
        read -r cid handle <"$STATE/$interface"
        qmi --wds-get-packet-service-status --client-cid="$cid" --client-no-release-cid 2>/dev/null |
            grep -q "Connection status: 'connected'" || cid=
    fi
    if [ -z "$cid" ]; then
        started=$(qmi --wds-start-network="apn=$apn,ip-type=4" --client-no-release-cid) ||
            fail "$interface: the modem cannot connect to $apn; is that the core's DNN?"
        cid=$(echo "$started" | quoted CID)
        handle=$(echo "$started" | quoted 'Packet data handle')
        mkdir -p "$STATE"
        echo "$cid $handle" >"$STATE/$interface"
    fi
    settings=$(qmi --wds-get-current-settings --client-cid="$cid" --client-no-release-cid)
    configure "$(echo "$settings" | setting 'IPv4 address')" "$(echo "$settings" | setting 'IPv4 gateway address')" \
        "$(echo "$settings" | setting MTU)"
}

# Address and route

# configure ADDRESS GATEWAY MTU. The address without its network: that of the modems is not to be reached from here.
configure() {
    [ -n "$1" ] || fail "$interface: connected, and no IPv4 address came of it; the modem wants DHCP: switch it to QMI"
    if [ -n "$3" ]; then ip link set dev "$interface" mtu "$3"; fi
    ip link set dev "$interface" up
    ip -4 address flush dev "$interface" scope global
    ip address add "$1/32" dev "$interface"
    ip -4 route flush dev "$interface"
    if ip link show dev "$interface" | grep -q NOARP; then
        ip route add "$radio_host/32" dev "$interface" src "$1"
    else
        ip route add "$radio_host/32" via "$2" dev "$interface" onlink src "$1"
    fi
    ip route get "$radio_host" | grep -q " dev $interface " ||
        fail "$interface: $radio_host is reached another way all the same; see ip rule and ip route get $radio_host"
    echo "$interface: $1, MTU ${3:-as it was}, one route: to $radio_host"
}

unconfigure() {
    ip -4 route flush dev "$interface"
    ip -4 address flush dev "$interface" scope global
}

[ $# -ge 3 ] || usage
command=$1 interface=$2 radio_host=$3 apn=${4:-}
[ -e "$SYS/class/net/$interface" ] || fail "$interface: no such interface here; ip link shows those that are"

case $command in
up)
    [ $# -eq 4 ] || usage
    if path=$(modem); then
        up_by_modemmanager "$path"
    elif command -v qmicli >/dev/null && device=$(control); then
        up_by_qmi
    else
        fail "$interface: ModemManager knows no modem with it, and it has no control channel for qmicli; is it the modem's?"
    fi
    ;;
down)
    [ $# -eq 3 ] || usage
    unconfigure
    if path=$(modem); then
        mmcli -m "$path" --simple-disconnect >/dev/null
    elif [ -r "$STATE/$interface" ] && device=$(control); then
        read -r cid handle <"$STATE/$interface"
        qmi --wds-stop-network="$handle" --client-cid="$cid" >/dev/null || say "$interface: the session was gone already"
        rm "$STATE/$interface"
    fi
    ;;
status)
    [ $# -eq 3 ] || usage
    ip -4 address show dev "$interface"
    ip route show dev "$interface"
    ip route get "$radio_host"
    ;;
*) usage ;;
esac
