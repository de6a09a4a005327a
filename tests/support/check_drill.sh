#!/bin/sh
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# Check the evidence of a restore drill with openssl alone: check_drill.sh EVIDENCE PUBLIC_KEY
set -eu
exec openssl pkeyutl -verify -pubin -inkey "$2" -rawin -in "$1" -sigfile "$1.sig"
