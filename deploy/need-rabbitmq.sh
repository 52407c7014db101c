#!/bin/sh
# Succeeds when RabbitMQ is installed; installs it where apt and the rights for it are.
set -eu

found() {
    command -v rabbitmq-server >/dev/null 2>&1 && return 0
    for script in /usr/sbin/rabbitmq-server /usr/local/sbin/rabbitmq-server /opt/rabbitmq/sbin/rabbitmq-server \
        /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server; do
        [ -x "$script" ] && return 0
    done
    return 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

install() {
    command -v apt-get >/dev/null 2>&1 || return 1
    as_root true 2>/dev/null || return 1
    echo "Installing rabbitmq-server with apt-get." >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2 &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends rabbitmq-server >&2
}

if found; then exit 0; fi
if install && found; then exit 0; fi
echo "RabbitMQ is not installed: install the package rabbitmq-server (version 3.10 or newer), then try again." >&2
exit 1
