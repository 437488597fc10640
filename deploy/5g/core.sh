#!/bin/sh
# The core of a cell: core.sh up|down|status FOLDER, with FOLDER/compose.yaml as make_cell.py made it. As root, on the radio host.
# `up` waits for the database, brings the subscribers into it (again after a change of the table), starts the rest, and lets the
# host reach the modems through the UPF. No key or password is on a command line.
set -eu

usage() {
    echo "usage: core.sh up|down|status FOLDER, such as cell/oai or cell/open5gs" >&2
    exit 2
}

[ $# -eq 2 ] || usage
folder=$2
[ -f "$folder/compose.yaml" ] && [ -f "$folder/network.env" ] || {
    echo "core.sh: $folder: no compose.yaml and network.env there; make them with make_cell.py" >&2
    exit 2
}
cd "$folder"
# shellcheck source=/dev/null
. ./network.env

database() {
    docker compose exec -T "$@"
}

load_oai() {
    # shellcheck disable=SC2016 # the variables are the container's
    client='MYSQL_PWD="$MYSQL_PASSWORD" exec mysql --user="$MYSQL_USER" --skip-column-names "$MYSQL_DATABASE"'
    docker compose up --detach --wait mysql
    if [ -z "$(echo "SHOW TABLES LIKE 'AuthenticationSubscription'" | database mysql sh -c "$client")" ]; then
        [ -r "$SCHEMA" ] || {
            echo "core.sh: $SCHEMA: OpenAirInterface's tables are not there; set oai.checkout to its source" >&2
            exit 1
        }
        database mysql sh -c "$client" <"$SCHEMA"
    fi
    database mysql sh -c "$client" <subscribers.sql
}

load_open5gs() {
    docker compose up --detach --wait mongo
    database mongo mongosh --nodb --quiet --file /dev/stdin <subscribers.js
}

case $1 in
up)
    if [ -f subscribers.sql ]; then load_oai; else load_open5gs; fi
    docker compose up --detach --wait
    ip route replace "$CLIENTS" via "$UPF" dev "$BRIDGE"
    echo "the core is up; modems ($CLIENTS) are reached through $UPF"
    ;;
down)
    docker compose down
    ;;
status)
    docker compose ps
    ip route show "$CLIENTS"
    ;;
*) usage ;;
esac
