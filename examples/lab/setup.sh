# Set-up for the lab and the tests, to be sourced with `root` set: what is missing is installed and said, then built.
# Nothing that is installed is ever started on the host.
target=${CARGO_TARGET_DIR:-$root/target}
programs=$target/release
policy=/usr/sbin/policy-rc.d
made_policy=

say() { echo "setup: $*" >&2; }
die() { say "$*"; exit 1; }

# What the lab and the build call, and the package that has it.
commands="
  corosync=corosync corosync-quorumtool=corosync libvirtd=libvirt-daemon virsh=libvirt-clients
  qemu-system-x86_64=qemu-system-x86 ip=iproute2 nsenter=util-linux setsid=util-linux
  as=binutils ld=binutils cc=gcc pkg-config=pkgconf clang=clang wasm-ld=lld"
packages="libvirt-daemon-driver-qemu libvirt-dev libcpg-dev libcfg-dev libcmap-dev libquorum-dev
  libvotequorum-dev libc6-dev"

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

missing_packages() {
  local pair package
  for pair in $commands; do
    command -v "${pair%%=*}" >/dev/null || echo "${pair#*=}"
  done
  for package in $packages; do
    installed "$package" || echo "$package"
  done
}

remove_policy() { [ -z "$made_policy" ] || rm -f "$policy"; }

# The host must not start corosync or libvirtd: a policy-rc.d that forbids it stays for the time of
# the install, unless there is one already, which is obeyed.
install_packages() {
  command -v apt-get >/dev/null || die "missing: $*; there is no apt-get, so install them by hand"
  say "installing: $*"
  if [ ! -e "$policy" ]; then
    made_policy=yes
    trap remove_policy EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q >&2
  apt-get install -q -y --no-install-recommends "$@" >&2 ||
    die "apt-get failed: repair what it says above, then try again"
  remove_policy
  made_policy=
  hash -r
}

need_cargo() {
  [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ] && PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
  # Debian has rustup since 13; `apt-cache show` also finds names that nothing provides.
  if ! command -v cargo >/dev/null && apt-cache policy rustup | grep -q 'Candidate: [0-9]'; then
    install_packages rustup
  fi
  command -v cargo >/dev/null || die "cargo is missing: install Rust from https://rustup.rs," \
    "then try again (rust-toolchain.toml says which version)"
}

# Debian's own cargo is too old to read this workspace, and says so in words that do not help.
check_cargo_version() {
  local have want
  have=$(cd "$root" && cargo --version | cut -d' ' -f2) || die "cargo does not run: see above"
  want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
  [ "$(printf '%s\n' "$want" "$have" | sort -V | head -n1)" = "$want" ] ||
    die "cargo is $have, but this needs $want: install Rust from https://rustup.rs"
}

need() {
  [ "$(id -u)" = 0 ] || die "the lab makes namespaces and mounts, so it must run as root"
  [ -e /dev/fuse ] || die "/dev/fuse is missing: load it with 'modprobe fuse'"
  local missing
  missing=$(missing_packages | sort -u | tr '\n' ' ')
  # shellcheck disable=SC2086  # a list of words
  [ -z "$missing" ] || install_packages $missing
  need_cargo
  check_cargo_version
}

build() {
  say "building (the first time takes some minutes)"
  (cd "$root" && cargo build --release --locked -p steadfast-engine -p steadfast-lab)
  if [ -x "$root/policies/build" ]; then
    "$root/policies/build" >&2
    export STEADFAST_LAB_POLICIES=${STEADFAST_LAB_POLICIES:-$root/policies/out}
  fi
}
