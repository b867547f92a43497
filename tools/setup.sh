#!/bin/sh
# Installs the Debian packages that nibble needs, by purpose, and nothing when they are all there.
#   tools/setup.sh build [test] [bench] [fuzz] [check] [demo]
# This is the only list of dependencies. Works as root or through sudo. git and make are taken as given.
set -eu

packages_for() {
  case $1 in
    build) echo g++ cmake ninja-build pkg-config libsimdjson-dev nlohmann-json3-dev libfmt-dev libpcre2-dev \
                libutf8proc-dev libcli11-dev libyaml-cpp-dev ;;
    test)  echo libgtest-dev python3 ;;
    bench) echo libbenchmark-dev ;;
    fuzz)  echo clang libclang-rt-dev ;;
    check) echo clang-format binutils python3 valgrind ;;
    demo)  echo python3 python3-pip ca-certificates ;;
    *)     echo "tools/setup.sh: unknown purpose '$1', expected build, test, bench, fuzz, check or demo" >&2; exit 2 ;;
  esac
}

wanted=
for purpose in "$@"; do
  list=$(packages_for "$purpose")
  wanted="$wanted $list"
done
[ -n "$wanted" ] || { echo "usage: tools/setup.sh build [test] [bench] [fuzz] [check] [demo]" >&2; exit 2; }

[ -z "${NIBBLE_NO_SETUP:-}" ] || exit 0
if ! command -v dpkg-query > /dev/null || ! command -v apt-get > /dev/null; then
  echo "tools/setup.sh: installs packages on Debian 12 or newer and its relatives only; elsewhere install what these" \
       "Debian packages hold and set NIBBLE_NO_SETUP=1:$wanted" >&2
  exit 1
fi

# shellcheck disable=SC2086  # the lists are split on purpose, here and below
installed=" $(dpkg-query -W -f '${db:Status-Status}=${Package} ' $wanted 2> /dev/null || true)"
missing=
for package in $wanted; do
  case $installed in *" installed=$package "*) ;; *) missing="$missing $package" ;; esac
done
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo > /dev/null || { echo "tools/setup.sh: run as root, or install sudo, to get:$missing" >&2; exit 1; }
  as_root=sudo
fi
echo "tools/setup.sh: installing with apt-get:$missing"
$as_root apt-get update -q
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
