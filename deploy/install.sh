#!/bin/sh
# Installs Kache as a service of systemd: sudo deploy/install.sh [WHEEL]
#
#   /opt/kache                     an environment with Kache: the wheel given, or the source around this script
#   /etc/kache/kache.toml          the settings, all of them commented out; one that is there stays
#   /etc/kache/requirepass         a password, drawn at random; one that is there stays
#   /etc/systemd/system/kache.service
#
# DESTDIR=/somewhere puts all of it below that folder and starts nothing, for packages and for a look.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
what=${1:-$here/..}
root=${DESTDIR:-}
python=${PYTHON:-python3}

if [ -z "$root" ] && [ "$(id -u)" != 0 ]; then
    echo "deploy/install.sh writes to /opt and /etc: run it as root, or with DESTDIR=FOLDER." >&2
    exit 1
fi
umask 022
mkdir -p "$root/opt" "$root/etc/kache" "$root/etc/systemd/system"
[ -x "$root/opt/kache/bin/pip" ] || "$python" -m venv "$root/opt/kache"
"$root/opt/kache/bin/pip" install --quiet --disable-pip-version-check --upgrade "$what"
[ -e "$root/etc/kache/kache.toml" ] || cp "$here/kache.toml" "$root/etc/kache/kache.toml"
if [ ! -e "$root/etc/kache/requirepass" ]; then
    (umask 077 && "$python" -c 'import secrets; print(secrets.token_urlsafe(24))' >"$root/etc/kache/requirepass")
fi
cp "$here/kache.service" "$root/etc/systemd/system/kache.service"
if [ -n "$root" ]; then
    echo "Everything is below $root; nothing was started."
    exit 0
fi
systemctl daemon-reload
systemctl enable --now kache
systemctl --no-pager status kache
echo "KACHE_PASSWORD=\$(sudo cat /etc/kache/requirepass) /opt/kache/bin/kache stats    shows what it does."
