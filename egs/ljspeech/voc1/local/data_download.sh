#!/usr/bin/env bash
# Download and unpack LJSpeech-1.1; resumes, and checks size and checksum before unpacking.
#   local/data_download.sh DIR
set -euo pipefail

url=https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2
bytes=2748572632
md5=c4763be9595ddfa79c2fc6eaeb3b6c8e

dir=${1:?usage: data_download.sh DIR}
archive=${dir}/LJSpeech-1.1.tar.bz2
if [ -e "${dir}/LJSpeech-1.1/.complete" ]; then
    echo "${dir}/LJSpeech-1.1 is there"
    exit 0
fi
mkdir -p "${dir}"
size() { [ -f "${archive}" ] && echo $(($(wc -c < "${archive}"))) || echo 0; }
[ "$(size)" -eq "${bytes}" ] || curl --fail --location --retry 5 --continue-at - --output "${archive}" "${url}"
if [ "$(size)" -ne "${bytes}" ]; then
    echo "data_download.sh: ${archive} has $(size) bytes, wanted ${bytes}: run this again to continue" >&2
    exit 2
fi
found=$({ md5sum < "${archive}" 2> /dev/null || md5 -q "${archive}"; } | cut -d' ' -f1)  # GNU's, or macOS's
[ "${found}" = "${md5}" ] || {
    echo "data_download.sh: ${archive} has MD5 ${found}, wanted ${md5}: delete it and run this again" >&2
    exit 2
}
tar -xjf "${archive}" -C "${dir}"
touch "${dir}/LJSpeech-1.1/.complete"
