#!/usr/bin/env bash
# A private certificate authority (CA) for the replay server: keys are made here and signed here, with openssl alone.
#
#   launch/tls/ca.sh init DIR                              the CA: DIR/ca.key stays on this machine, offline if you can
#   launch/tls/ca.sh server DIR NAME ADDRESS [ADDRESS...]  DIR/NAME: for `sop replay --tls`; ADDRESS: host names and IPs that clients use
#   launch/tls/ca.sh client DIR ROLE NAME                  DIR/NAME: for `--replay-tls`; ROLE: intake, learner or doctor
#   launch/tls/ca.sh show DIR                              who has a certificate, and until when
#
# Each folder holds ca.crt, tls.crt and tls.key (the names of a Kubernetes TLS secret). Keys have mode 0600; copy a folder to the
# one machine that needs it, over ssh. A certificate that exists is never overwritten: remove its folder to renew it.
# DAYS in the environment: how long certificates are valid (default 365; the CA 3650). Nothing here belongs into a repository.
set -euo pipefail
umask 077

fail() { echo "ca.sh: $1" >&2; exit 1; }
usage() { sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2; }

ORGANISATION=sop-replay

check_name() { [[ $1 =~ ^[a-z0-9]([a-z0-9.-]{0,40}[a-z0-9])?$ ]] || fail "name '$1': expected lower-case letters, digits, '-' and '.'"; }

make_ca() {
  local dir=$1
  [ ! -e "$dir/ca.key" ] || fail "$dir/ca.key is there already; a new CA makes every certificate of the old one worthless. Use another folder"
  mkdir -p "$dir"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256 -days "${DAYS:-3650}" -subj "/O=$ORGANISATION/CN=$ORGANISATION CA" \
    -keyout "$dir/ca.key" -out "$dir/ca.crt" -addext basicConstraints=critical,CA:TRUE,pathlen:0 \
    -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
}

# sign DIR NAME SUBJECT EXTENSIONS
sign() {
  local dir=$1 name=$2 subject=$3 extensions=$4 target=$1/$2
  [ -f "$dir/ca.key" ] || fail "no $dir/ca.key: make the CA first, with '$0 init $dir'"
  [ ! -e "$target" ] || fail "$target is there already; remove that folder to make a new certificate"
  mkdir "$target"
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$subject" -keyout "$target/tls.key" \
    -out "$target/request.csr" 2>/dev/null
  openssl x509 -req -sha256 -days "${DAYS:-365}" -in "$target/request.csr" -CA "$dir/ca.crt" -CAkey "$dir/ca.key" \
    -set_serial "0x$(openssl rand -hex 16)" -out "$target/tls.crt" -extfile <(printf '%s\n' basicConstraints=critical,CA:FALSE \
    keyUsage=critical,digitalSignature subjectKeyIdentifier=hash authorityKeyIdentifier=keyid "$extensions") 2>/dev/null
  cp "$dir/ca.crt" "$target/ca.crt"
  rm "$target/request.csr"
  echo "$target: $(openssl x509 -in "$target/tls.crt" -noout -subject -enddate | tr '\n' ' ')"
}

make_server() {
  local dir=$1 name=$2 names="" address
  check_name "$name"
  shift 2
  for address in "$@"; do
    if [[ $address =~ ^[0-9.]+$ || $address =~ ^[0-9A-Fa-f:]*:[0-9A-Fa-f:]*$ ]]; then names+=",IP:$address"
    elif [[ $address =~ ^[A-Za-z0-9.-]+$ ]]; then names+=",DNS:$address"
    else fail "address '$address': expected a host name or an IP, without a port"; fi
  done
  sign "$dir" "$name" "/O=$ORGANISATION/OU=server/CN=$name" $'extendedKeyUsage=serverAuth\nsubjectAltName='"${names#,}"
}

make_client() {
  local dir=$1 role=$2 name=$3
  case $role in intake | learner | doctor) ;; *) fail "role '$role': expected intake, learner or doctor" ;; esac
  check_name "$name"
  # nginx.conf reads the role from exactly this subject.
  sign "$dir" "$name" "/O=$ORGANISATION/OU=$role/CN=$name" extendedKeyUsage=clientAuth
}

show() {
  local certificate
  for certificate in "$1"/ca.crt "$1"/*/tls.crt; do
    [ -f "$certificate" ] || continue
    echo "$certificate: $(openssl x509 -in "$certificate" -noout -subject -enddate | tr '\n' ' ')"
  done
}

case ${1:-} in
  init) [ $# -eq 2 ] || usage; make_ca "$2" ;;
  server) [ $# -ge 4 ] || usage; make_server "${@:2}" ;;
  client) [ $# -eq 4 ] || usage; make_client "${@:2}" ;;
  show) [ $# -eq 2 ] || usage; show "$2" ;;
  *) usage ;;
esac
