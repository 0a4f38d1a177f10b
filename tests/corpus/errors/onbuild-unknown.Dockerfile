FROM scratch AS base
ONBUILD FOO x
FROM base AS next
