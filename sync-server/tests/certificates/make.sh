#!/usr/bin/env bash
# Makes the certificates of the tests, valid until 2100. Their keys are secret to nobody.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 27000 -subj "/CN=sync test authority" \
    -addext keyUsage=critical,keyCertSign -keyout "$work/authority.key" -out authority.pem
touch "$work/index"
cat >"$work/ca.cnf" <<END
[ca]
default_ca = authority
[authority]
database = $work/index
new_certs_dir = $work
certificate = authority.pem
private_key = $work/authority.key
rand_serial = yes
unique_subject = no
default_md = sha256
policy = policy
[policy]
commonName = supplied
END

server() { # name, hosts, start, end
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" \
        -keyout "$1.key" -out "$work/$1.csr"
    printf 'subjectAltName=%s\nbasicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\n' "$2" >"$work/$1.ext"
    openssl ca -batch -notext -config "$work/ca.cnf" -extfile "$work/$1.ext" -startdate "$3" -enddate "$4" \
        -in "$work/$1.csr" -out "$1.pem"
}

loopback=DNS:localhost,IP:127.0.0.1
server loopback "$loopback" 20250101000000Z 21000101000000Z
server renewed "$loopback" 20250101000000Z 21000101000000Z
server elsewhere DNS:elsewhere.example 20250101000000Z 21000101000000Z
server expired "$loopback" 20200101000000Z 20200201000000Z
server future "$loopback" 20990101000000Z 21000101000000Z
