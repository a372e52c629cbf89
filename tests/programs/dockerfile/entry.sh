#!/bin/sh
export ENTERED=yes
exec "$@"
