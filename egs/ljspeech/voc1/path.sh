# Sourced by run.sh: which Python, and how it behaves.
MAIN_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
if [ -x "${MAIN_ROOT}/.venv/bin/python" ]; then
    export PATH="${MAIN_ROOT}/.venv/bin:${PATH}"
fi
export PYTHONPATH="${MAIN_ROOT}${PYTHONPATH:+:${PYTHONPATH}}"
export PYTHONWARNINGS="${PYTHONWARNINGS:-ignore::SyntaxWarning,ignore::FutureWarning,ignore::DeprecationWarning,ignore:pkg_resources is deprecated}"
if locale -a 2> /dev/null | grep -qi '^C\.utf-*8$'; then export LC_ALL=C.UTF-8; fi
if [ -z "${OMP_WAIT_POLICY:-}" ]; then export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-1000}"; fi  # processor.py says why
# A training step frees and takes back hundreds of megabytes: without these glibc returns them to the system every
# time, and on a CPU the page faults then cost as much as the products.
export MALLOC_MMAP_THRESHOLD_=4000000000 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=268435456
