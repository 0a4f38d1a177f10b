FROM scratch AS base
ONBUILD COPY --chwn=1 a /b
FROM base
