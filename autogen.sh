#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Make ./configure from configure.ac. Run once after a clone, then ./configure && make.
set -e
cd "$(dirname "$0")"
mkdir -p m4 # where libtoolize puts its macros
exec autoreconf --install --force --warnings=all,no-obsolete
