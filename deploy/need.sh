#!/bin/sh
# need.sh rabbitmq|postgresql|chromium|systemd …: succeeds when the programs that are named are installed; installs those that are
# missing where apt and the rights for it are. Nothing is started: tests and demo run servers of their own.
set -eu

found() {
    case $1 in
    rabbitmq)
        program=rabbitmq-server
        set -- /usr/sbin/rabbitmq-server /usr/local/sbin/rabbitmq-server /opt/rabbitmq/sbin/rabbitmq-server \
            /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server
        ;;
    postgresql)
        program=initdb
        set -- /usr/lib/postgresql/*/bin/initdb
        ;;
    chromium)
        command -v chromium >/dev/null 2>&1 || return 1 # the browser itself, beside its driver
        program=chromedriver
        set --
        ;;
    systemd)
        [ "$(uname)" = Linux ] || return 0 # elsewhere nobody reads its units
        program=systemd-analyze
        set --
        ;;
    esac
    command -v "$program" >/dev/null 2>&1 && return 0
    for path in "$@"; do
        [ -x "$path" ] && return 0
    done
    return 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

install() {
    command -v apt-get >/dev/null 2>&1 || return 1
    as_root true 2>/dev/null || return 1
    echo "Installing $* with apt-get." >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2 &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}

for server in "$@"; do
    case $server in
    rabbitmq) package=rabbitmq-server name="RabbitMQ" version=3.10 ;;
    postgresql) package=postgresql name="PostgreSQL" version=13 ;;
    chromium) package="chromium chromium-driver" name="Chromium" version=120 ;;
    systemd) package=systemd name="systemd" version=250 ;;
    *)
        echo "$0 knows rabbitmq, postgresql, chromium and systemd, not $server." >&2
        exit 2
        ;;
    esac
    if found "$server"; then continue; fi
    # shellcheck disable=SC2086  # two packages are two words
    if install $package && found "$server"; then continue; fi
    echo "$name is not installed: install the package $package (version $version or newer), then try again." >&2
    exit 1
done
