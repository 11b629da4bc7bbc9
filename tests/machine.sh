#!/usr/bin/env bash
# What some tests need and pip cannot install; they are skipped without it. As root, on Debian:
#   tests/machine.sh .venv
# It puts promtool and prometheus into .venv/bin, a small Debian that can boot into .venv/debian, and what boots it and
# builds images (systemd-nspawn, podman) onto the machine. Nothing is started.
set -euo pipefail
venv=$(cd "$1" && pwd)
debian=$venv/debian
fetched=$(mktemp -d)
trap 'rm -rf "$fetched" "$debian.part"' EXIT

apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends \
    catatonit debootstrap iproute2 podman runc systemd-container >"$fetched/log" || { cat "$fetched/log"; exit 1; }

if [ ! -x "$venv/bin/promtool" ]; then # unpacked, not installed: its package starts a server
    (cd "$fetched" && apt-get -qq -o APT::Sandbox::User=root download prometheus && dpkg-deb -x prometheus_*.deb unpacked)
    install "$fetched"/unpacked/usr/bin/{prometheus,promtool} "$venv/bin"
fi

if [ ! -d "$debian" ]; then # with Python 3.11 in /usr/local/bin, as in the image that the Dockerfile begins from
    debootstrap --variant=minbase --include=ca-certificates,dbus,python3,python3-venv,systemd-sysv \
        bookworm "$debian.part" >"$fetched/log" || { tail -n 20 "$fetched/log"; exit 1; }
    chroot "$debian.part" python3 -m venv /usr/local
    cp -L /etc/ssl/certs/ca-certificates.crt "$debian.part/etc/ssl/certs/" # of those whom this machine trusts
    mv "$debian.part" "$debian"
fi
