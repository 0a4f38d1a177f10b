#!/bin/sh
# A cow says what it is told, or a fortune.
if [ $# -eq 0 ]; then
    /usr/games/fortune | /usr/games/cowsay
else
    /usr/games/cowsay "$@"
fi
